"""How long does a person wait for the program before it does anything?"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figure import Figure

DLQ = Path(sys.executable).parent / "dlq"
ROUNDS = 11


def measure() -> Iterator[Figure]:
    """The help, and what a shell asks for at each tab."""
    yield Figure("dlq --help", _median({}, "--help"), 0.4, 1.0, "what is promised")
    shell = {"_DLQ_COMPLETE": "complete_bash", "COMP_WORDS": "dlq dead-events re", "COMP_CWORD": "2"}
    yield Figure("completing a word in bash", _median(shell), 0.4, 1.0, "what is promised for the help")


def _median(environment: dict[str, str], *arguments: str) -> float:
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        done = subprocess.run([DLQ, *arguments], env=environment, capture_output=True, check=False)
        seconds.append(time.perf_counter() - begun)
        assert done.stdout
    return statistics.median(seconds)
