"""What does it cost? Each figure is a ratio against a named peer, measured in the same run.

`make bench` runs all of them and fails when one is past its bound; `make bench ONLY=outbox` runs one module. With
`QUICK=1` it takes two minutes and judges nothing: it shows that everything runs, on a twentieth of the rows.
"""

import os
import sys
from importlib import import_module

MODULES = (
    "start",
    "outbox",
    "fingerprint",
    "causes",
    "exports",
    "archive",
    "retries",
    "metrics",
    "reports",
    "api",
)


def main(names: list[str]) -> int:
    """Measure and print; 1 when a bound is not kept."""
    print(f"{'what':44} {'ours':>12} {'peer':>12} {'ratio':>7} {'bound':>7}   peer is")
    kept = True
    for name in names or MODULES:
        for figure in import_module(f"tests.bench.{name}").measure():
            print(figure, flush=True)
            kept = kept and figure.kept
    return 0 if kept or "BENCH_QUICK" in os.environ else 1


def _check(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        sys.exit(f"There is no benchmark {unknown[0]!r}; there are: {', '.join(MODULES)}.")
    return names


if __name__ == "__main__":
    sys.exit(main(_check(sys.argv[1:])))
