"""Decides the state of a cause on a day. Pure: it reads no database and no clock."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class CauseState(StrEnum):
    """The state of a cause on a day, as it is shown."""

    MUTED = "muted"
    FIXING = "fixing"
    REGRESSED = "regressed"
    NEW = "new"
    ESCALATING = "escalating"
    FIXED = "fixed"
    ONGOING = "ongoing"
    UNCLASSIFIED = "unclassified"


# The states that need a person in the morning.
URGENT_STATES = (CauseState.NEW, CauseState.REGRESSED, CauseState.ESCALATING)


@dataclass(frozen=True)
class CauseHistory:
    """What is known of a cause at the end of the day.

    Attributes:
        first_seen: its first death.
        muted_until: when the mute ends; None: not muted.
        fixing: whether a fix of the cause, or of a part of it, is open.
        fixed: whether the last verdict on a fix of the whole cause is verified.
        regressed: whether an event that was written after that fix died of the cause again.
    """

    first_seen: datetime
    muted_until: datetime | None = None
    fixing: bool = False
    fixed: bool = False
    regressed: bool = False


def decide_cause_state(
    known: CauseHistory, *, start: datetime, until: datetime, escalating: bool
) -> CauseState:
    """Return the state of a cause on a day: the first of these that applies.

    1. muted: a person muted the cause beyond the end of the day.
    2. fixing: a fix is open, so other changes are no news.
    3. regressed: a fixed cause that died again in an event written after the fix.
    4. new: the first death was on this day.
    5. escalating: more deaths than the days before explain, or a rise over several days.
    6. fixed: a fix was verified; later deaths are of events written before the fix.
    7. ongoing.

    Args:
        known: of the cause, at the end of the day.
        start: the first instant of the day.
        until: the first instant of the next day.
        escalating: the result of `is_escalating`.
    """
    rules = (
        (CauseState.MUTED, known.muted_until is not None and known.muted_until > until),
        (CauseState.FIXING, known.fixing),
        (CauseState.REGRESSED, known.regressed),
        (CauseState.NEW, known.first_seen >= start),
        (CauseState.ESCALATING, escalating),
        (CauseState.FIXED, known.fixed),
    )
    return next((state for state, applies in rules if applies), CauseState.ONGOING)
