"""Decides the state of a cause on a day. Pure: it reads no database and no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import sqrt
from statistics import median

# Fewer deaths than this never escalate: they are noise.
MIN_DEATHS = 10
# Iglewicz and Hoaglin: a value is an outlier if 0.6745 * |x - median| / MAD is above 3.5.
ESCALATION_FACTOR = 3.5
# 1 / 0.6745. Times this, the median absolute deviation (MAD) of normally distributed values is
# their standard deviation.
ESCALATION_DEVIATIONS = 1.4826


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
    5. escalating: more deaths than the days before explain.
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


def compute_escalation_limit(before: Sequence[int]) -> float:
    """Return how many deaths of a cause on a day the days before explain.

        median + 3.5 * max(1.4826 * MAD, sqrt(max(median, 1)))

    MAD is the median absolute deviation. Up to half of the days may be outliers and hardly change
    it. A mean and a standard deviation follow one bad day for two weeks and miss others meanwhile.
    The factor 3.5 is from Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), pages 11
    to 13. The square root is the noise of a count (a Poisson variable). Without it, a cause with
    equal days would escalate with one more death.

    Args:
        before: deaths on each day before since the cause was first seen, 0 for days without deaths.
            At least one day, normally 14.
    """
    middle = median(before)
    deviation = median(abs(deaths - middle) for deaths in before)
    return middle + ESCALATION_FACTOR * max(ESCALATION_DEVIATIONS * deviation, sqrt(max(middle, 1)))


def is_escalating(deaths: int, before: Sequence[int]) -> bool:
    """Whether the deaths are at least 10 and above the limit. False without a day before."""
    return bool(before) and deaths >= MIN_DEATHS and deaths > compute_escalation_limit(before)
