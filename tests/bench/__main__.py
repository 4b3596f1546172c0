"""Runs the benchmarks. Each figure is a ratio to a named peer, measured in the same run.

`make bench` runs all modules and fails if a ratio exceeds its bound; `make bench ONLY=outbox` runs
one module. `QUICK=1` takes two minutes: it runs everything on a twentieth of the rows and judges
nothing.
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
    """Measure and print each figure; return 1 if a ratio exceeds its bound."""
    print(f"{'operation':44} {'measured':>12} {'peer':>12} {'ratio':>7} {'bound':>7}   peer is")
    within_bounds = True
    for name in names or MODULES:
        for figure in import_module(f"tests.bench.{name}").measure():
            print(figure, flush=True)
            within_bounds = within_bounds and figure.is_within_bound
    return 0 if within_bounds or "BENCH_QUICK" in os.environ else 1


def _validate_names(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        sys.exit(f"Unknown benchmark {unknown[0]!r}. Choose from: {', '.join(MODULES)}.")
    return names


if __name__ == "__main__":
    sys.exit(main(_validate_names(sys.argv[1:])))
