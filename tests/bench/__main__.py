"""What does it cost? Each figure is a ratio against a named peer, measured in the same run.

`make bench` runs all of them and fails when one is past its bound; `make bench ONLY=outbox` runs one module.
"""

import sys

from tests.bench import api, archive, causes, cli, exports, fingerprint, metrics, outbox, reports, retries

MODULES = {
    "outbox": outbox,
    "fingerprint": fingerprint,
    "causes": causes,
    "exports": exports,
    "archive": archive,
    "retries": retries,
    "api": api,
    "cli": cli,
    "metrics": metrics,
    "reports": reports,
}


def main() -> int:
    """Measure and print; 1 when a bound is not kept."""
    names = sys.argv[1:] or list(MODULES)
    figures = [figure for name in names for figure in MODULES[name].measure()]
    print(f"{'what':44} {'ours':>12} {'peer':>12} {'ratio':>7} {'bound':>7}   peer is")  # noqa: T201 - a command
    for figure in figures:
        print(figure)  # noqa: T201 - a command
    return 0 if all(figure.kept for figure in figures) else 1


def _check(names: list[str]) -> None:
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        sys.exit(f"There is no benchmark {unknown[0]!r}; there are: {', '.join(MODULES)}.")


if __name__ == "__main__":
    _check(sys.argv[1:])
    sys.exit(main())
