"""One measured figure and what it is compared with."""

import os
from dataclasses import dataclass
from typing import Literal

# A twentieth of the rows: to see that everything still runs. Ratios of so few rows are no figures.
QUICK = "BENCH_QUICK" in os.environ


def sized(full: int) -> int:
    """How many rows this run has where a full one has so many."""
    return full // 20 if QUICK else full


@dataclass(frozen=True)
class Figure:
    """What ours and the peer take for the same work, in seconds or MB, and the highest ratio that is promised."""

    what: str
    ours: float
    peer: float
    bound: float
    peer_is: str
    unit: Literal["s", "MB"] = "s"

    @property
    def ratio(self) -> float:
        """Ours over the peer's."""
        return self.ours / self.peer

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.ratio <= self.bound

    def __str__(self) -> str:
        mark = "" if self.kept or QUICK else "   PAST ITS BOUND"
        times = f"{self._shown(self.ours):>12} {self._shown(self.peer):>12}"
        return f"{self.what:44} {times} {self.ratio:7.3f} {self.bound:7.2f}   {self.peer_is}{mark}"

    def _shown(self, value: float) -> str:
        return (
            f"{value * 1e6:.1f} us"
            if self.unit == "s" and value < 1
            else f"{value:.2f} {self.unit}"
        )
