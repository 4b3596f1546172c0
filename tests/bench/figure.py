"""One measured figure and what it is compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Ours and the peer's for the same work, in seconds or in `unit`, and the highest ratio that is promised."""

    what: str
    ours: float
    peer: float
    bound: float
    peer_is: str
    unit: str = "s"

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
        times = f"{self._shown(self.ours):>12} {self._shown(self.peer):>12}"
        return f"{self.what:44} {times} {self.ratio:7.3f} {self.bound:7.2f}   {self.peer_is}{mark}"

    def _shown(self, value: float) -> str:
        return _duration(value) if self.unit == "s" else f"{value:,.0f} {self.unit}"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e6:.1f} us"
