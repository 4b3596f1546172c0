"""Defines a figure: a measurement, its peer, and the bound of their ratio."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# On a twentieth of the rows a run only shows that everything works: its ratios mean nothing.
QUICK = "BENCH_QUICK" in os.environ
# The peer is a fixed limit.
TARGET = "target"


def sized(full: int) -> int:
    """Return the number of rows of this run, given that of a full run."""
    return full // 20 if QUICK else full


def run_module(module: str, *arguments: str) -> dict[str, float]:
    """Run a module in its own process, and return the JSON of its last line."""
    # What fails there is printed here: only its output is read.
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_peak() -> float:
    """Return the peak memory of this process in MB; getrusage inherits it through fork and exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@dataclass(frozen=True)
class Figure:
    """A measurement of dlq-pipelines and of a peer that does the same work.

    Attributes:
        operation: what was measured; a row of docs/benchmarks.md.
        measured: seconds or MB of dlq-pipelines.
        peer: seconds or MB of the peer.
        bound: the highest ratio that is accepted.
        peer_is: what the peer is.
        unit: of both values.
    """

    operation: str
    measured: float
    peer: float
    bound: float
    peer_is: str
    unit: Literal["s", "MB"] = "s"

    @property
    def ratio(self) -> float:
        """The measured value divided by the peer's."""
        return self.measured / self.peer

    @property
    def is_within_bound(self) -> bool:
        """Whether the ratio is at most the bound."""
        return self.ratio <= self.bound

    def __str__(self) -> str:
        mark = "" if self.is_within_bound or QUICK else "   EXCEEDS ITS BOUND"
        values = f"{self._format(self.measured):>12} {self._format(self.peer):>12}"
        ratios = f"{self.ratio:7.3f} {self.bound:7.2f}"
        return f"{self.operation:44} {values} {ratios}   {self.peer_is}{mark}"

    def _format(self, value: float) -> str:
        if self.unit == "s" and value < 0.001:
            return f"{value * 1e6:.1f} µs"
        if self.unit == "s" and value < 1:
            return f"{value * 1e3:.{1 if value < 0.01 else 0}f} ms"
        return f"{value:.2f} {self.unit}"
