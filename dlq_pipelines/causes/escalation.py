"""Decides whether a cause escalates on a day: far more deaths than usual, or a steady rise. Pure.

Reports and alerts make the same decision from the same days.
"""

from collections.abc import Sequence
from functools import cache
from math import ceil, factorial, sqrt
from statistics import median

# The days before that a day is compared with: two whole weeks, so each weekday has the same weight.
DAYS_COMPARED = 14
# Fewer deaths than this never escalate: they are noise.
MIN_DEATHS = 10
# Iglewicz and Hoaglin: a value is an outlier if 0.6745 * |x - median| / MAD is above 3.5.
ESCALATION_FACTOR = 3.5
# 1 / 0.6745. Times this, the median absolute deviation (MAD) of normally distributed values is
# their standard deviation.
ESCALATION_DEVIATIONS = 1.4826
# The fewest days of a rise: with four, even 1, 2, 3, 4 is chance once in 24 times.
MIN_RISING_DAYS = 5
# Chance of a rise of all days, and of the latter half of them, among days without a trend.
_RISE_CHANCE, _LATE_RISE_CHANCE = 0.01, 0.2
# The last third of the days has at least this many times the deaths of the first third.
_RISE_FACTOR = 2


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


def is_above_limit(deaths: int, before: Sequence[int]) -> bool:
    """Whether the deaths are at least 10 and above the limit. False without a day before."""
    return bool(before) and deaths >= MIN_DEATHS and deaths > compute_escalation_limit(before)


def compute_rise_chance(days: Sequence[int]) -> float:
    """Return how likely days without a trend rise as steadily as these, by the Mann-Kendall test.

    The test counts the pairs of days whose later one has more deaths, less those whose later one
    has fewer (Mann, Nonparametric Tests Against Trend, Econometrica 13, 1945; Kendall, Rank
    Correlation Methods, 1975). It assumes no distribution, so one extreme day changes little. The
    result is exact for days without ties, and too high with ties.
    """
    pairs = len(days) * (len(days) - 1) // 2
    score = sum(
        (later > earlier) - (later < earlier)
        for at, later in enumerate(days)
        for earlier in days[:at]
    )
    # A permutation of n values has this score if that many of its pairs are in falling order.
    falling = ceil((pairs - score) / 2)
    return sum(_count_permutations(len(days))[: falling + 1]) / factorial(len(days))


@cache
def _count_permutations(values: int) -> tuple[int, ...]:
    """Return the number of permutations by their number of pairs in falling order."""
    counts = [1]
    for value in range(2, values + 1):
        longer = [0] * (len(counts) + value - 1)
        for place, count in enumerate(counts):
            for more in range(value):
                longer[place + more] += count
        counts = longer
    return tuple(counts)


def is_rising(days: Sequence[int]) -> bool:
    """Whether deaths rise steadily over several days until the last one.

    All of these:

    - The last day has at least 10 deaths, and no fewer than the median of the latter half.
    - The last third of the days has at least twice the deaths of the first third.
    - By the Mann-Kendall test days without a trend rise like this with a chance of at most 1 %.
    - The latter half rises too, with a chance of at most 20 %: a step that is over is no rise.

    Of Poisson counts without a trend, at most one day in 400 passes (`test_states.py`).

    Args:
        days: deaths of consecutive days, the oldest first; the last 15 count, at least 5.
    """
    days = days[-DAYS_COMPARED - 1 :]
    if len(days) < MIN_RISING_DAYS or days[-1] < MIN_DEATHS:
        return False
    third, late = len(days) // 3, days[-(len(days) // 2 + 1) :]
    return (
        days[-1] >= median(late)
        and sum(days[-third:]) >= _RISE_FACTOR * sum(days[:third])
        and compute_rise_chance(days) <= _RISE_CHANCE
        and compute_rise_chance(late) <= _LATE_RISE_CHANCE
    )


def is_escalating(deaths: int, before: Sequence[int]) -> bool:
    """Whether a cause escalates on a day: its deaths are above the limit, or rise until the day.

    Args:
        deaths: of the day.
        before: deaths on each day before since the cause was first seen, 0 for days without deaths.
    """
    return is_above_limit(deaths, before) or is_rising([*before, deaths])
