"""Names the states that lists of causes are filtered by."""

from enum import StrEnum


class ListedCauseState(StrEnum):
    """A state of a cause: `new` and `rose` are those of a period, the others those of now."""

    NEW = "new"
    ROSE = "rose"
    OPEN = "open"
    REGRESSED = "regressed"
    FIXING = "fixing"
    FIXED = "fixed"
    MUTED = "muted"

    @property
    def is_recent(self) -> bool:
        """Whether it depends on the deaths since a time."""
        return self in {ListedCauseState.NEW, ListedCauseState.ROSE}


# The period of the recent states, unless another one is given.
RECENT_PERIOD = "24h"
