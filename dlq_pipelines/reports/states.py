"""Is a cause new, back, getting worse, being mended or mended?

Pure. What counts as worse is defined here and nowhere else, so that it can be argued about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import sqrt
from statistics import median

# Fewer deaths than this are noise whatever the days before were like.
MIN_DEATHS = 10
# Iglewicz and Hoaglin call a value an outlier when 0.6745 * |x - median| / MAD is more than 3.5.
ESCALATION_FACTOR = 3.5
# 1 / 0.6745: by it the median absolute deviation of normally distributed values is their standard deviation.
ESCALATION_DEVIATIONS = 1.4826


class CauseState(StrEnum):
    """What a person has to know of a cause, in the word that is shown."""

    MUTED = "muted"
    FIXING = "fixing"
    REGRESSED = "regressed"
    NEW = "new"
    ESCALATING = "escalating"
    FIXED = "fixed"
    ONGOING = "ongoing"
    UNCLASSIFIED = "not classified"


# What somebody should look at in the morning.
URGENT_STATES = (CauseState.NEW, CauseState.REGRESSED, CauseState.ESCALATING)


@dataclass(frozen=True)
class CauseHistory:
    """What was known of a cause at the end of the day.

    Attributes:
        first_seen: when the first event died of it.
        muted_until: until when nobody wants to be told, if ever said.
        fixing: a fix of it, or of a part of it, was open.
        fixed: the last of its fixes to end had proven that all of it is mended.
        regressed: since then an event that was written after that fix had died of it.
    """

    first_seen: datetime
    muted_until: datetime | None = None
    fixing: bool = False
    fixed: bool = False
    regressed: bool = False


def decide_cause_state(
    known: CauseHistory, *, start: datetime, until: datetime, escalating: bool
) -> CauseState:
    """The one word for a cause on a day, the first of these that holds.

    1. muted: people said not to be told, and meant the day's end too.
    2. fixing: somebody is at it, so nothing else about it is news.
    3. regressed: it was mended and is back.
    4. new: its first death was on this day.
    5. escalating: more deaths than its days before explain.
    6. fixed: proven to be mended; what still dies of it was written before.
    7. ongoing.

    Args:
        known: of the cause, at the day's end.
        start: the day's first instant.
        until: the next day's first instant.
        escalating: whether `is_escalating` says so.
    """
    rules = (
        (CauseState.MUTED, known.muted_until is not None and known.muted_until > until),
        (CauseState.FIXING, known.fixing),
        (CauseState.REGRESSED, known.regressed),
        (CauseState.NEW, known.first_seen >= start),
        (CauseState.ESCALATING, escalating),
        (CauseState.FIXED, known.fixed),
    )
    return next((word for word, holds in rules if holds), CauseState.ONGOING)


def compute_escalation_limit(before: Sequence[int]) -> float:
    """How many deaths of a cause on a day its days before explain.

        median + 3.5 * max(1.4826 * MAD, sqrt(max(median, 1)))

    MAD is the median absolute deviation: up to half of the days may be outliers and move it little, where a mean and a
    standard deviation follow one bad day for two weeks and are blind meanwhile. The cut 3.5 is that of Iglewicz and
    Hoaglin, How to Detect and Handle Outliers (1993), pages 11 to 13. The square root is the noise of a count, which is
    a Poisson variable's: without it, a cause with equal days would escalate by one more death.

    Args:
        before: deaths on each of the days before since the cause was first seen, days without deaths as 0; at least
            one, normally 14.
    """
    middle = median(before)
    deviation = median(abs(deaths - middle) for deaths in before)
    return middle + ESCALATION_FACTOR * max(ESCALATION_DEVIATIONS * deviation, sqrt(max(middle, 1)))


def is_escalating(deaths: int, before: Sequence[int]) -> bool:
    """Whether so many deaths are more than the days before explain, and at least ten. False without a day before."""
    return bool(before) and deaths >= MIN_DEATHS and deaths > compute_escalation_limit(before)
