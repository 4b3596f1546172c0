"""One measured figure and what it is compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Seconds of ours and of the peer for the same work, and the highest ratio that is promised."""

    what: str
    ours: float
    peer: float
    bound: float
    peer_is: str

    @property
    def ratio(self) -> float:
        """Ours over the peer's."""
        return self.ours / self.peer

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.ratio <= self.bound

    def __str__(self) -> str:
        mark = "" if self.kept else "   PAST ITS BOUND"
        times = f"{_duration(self.ours):>12} {_duration(self.peer):>12}"
        return f"{self.what:44} {times} {self.ratio:7.3f} {self.bound:7.2f}   {self.peer_is}{mark}"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e6:.1f} us"
