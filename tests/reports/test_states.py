"""Tests the states of a cause and the limit above which it escalates."""

import random
from datetime import UTC, datetime, timedelta
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.causes.escalation import (
    MIN_DEATHS,
    compute_escalation_limit,
    compute_rise_chance,
    is_escalating,
    is_rising,
)
from dlq_pipelines.reports.states import CauseHistory, CauseState, decide_cause_state

START = datetime(2026, 11, 20, tzinfo=UTC)
UNTIL = START + timedelta(days=1)
LONG_AGO = START - timedelta(days=300)
COUNTS = st.integers(0, 1_000_000)
DAYS = st.lists(COUNTS, min_size=1, max_size=14)


@pytest.mark.parametrize(
    ("known", "escalating", "word"),
    [
        (CauseHistory(LONG_AGO), False, CauseState.ONGOING),
        (CauseHistory(LONG_AGO), True, CauseState.ESCALATING),
        (CauseHistory(START), False, CauseState.NEW),
        (CauseHistory(LONG_AGO, fixed=True), False, CauseState.FIXED),
        (CauseHistory(LONG_AGO, fixed=True), True, CauseState.ESCALATING),
        (CauseHistory(LONG_AGO, fixed=True, regressed=True), True, CauseState.REGRESSED),
        (CauseHistory(START, fixing=True), True, CauseState.FIXING),
        (
            CauseHistory(
                LONG_AGO, fixed=True, regressed=True, muted_until=UNTIL + timedelta(seconds=1)
            ),
            True,
            CauseState.MUTED,
        ),
        (CauseHistory(LONG_AGO, muted_until=UNTIL), False, CauseState.ONGOING),
        (CauseHistory(START - timedelta(microseconds=1)), False, CauseState.ONGOING),
    ],
)
def test_the_first_rule_that_applies_gives_the_state(
    known: CauseHistory, word: CauseState, *, escalating: bool
) -> None:
    """In the order of the docstring of `decide_cause_state`."""
    assert decide_cause_state(known, start=START, until=UNTIL, escalating=escalating) is word


@given(DAYS, st.randoms())
def test_the_order_of_the_days_does_not_matter(before: list[int], chance: random.Random) -> None:
    assert compute_escalation_limit(chance.sample(before, len(before))) == compute_escalation_limit(
        before
    )


@given(DAYS)
def test_a_usual_day_never_escalates(before: list[int]) -> None:
    """Neither the median nor a day that equals all others."""
    assert compute_escalation_limit(before) > median(before)
    assert not is_escalating(before[0], [before[0]] * 14)


@given(COUNTS, DAYS)
def test_more_deaths_escalate_where_fewer_do(deaths: int, before: list[int]) -> None:
    if is_escalating(deaths, before):
        assert is_escalating(deaths + 1, before)


@given(st.integers(1, 10_000), st.lists(st.integers(10**6, 10**9), max_size=6))
def test_outliers_in_the_past_do_not_change_the_limit(usual: int, bad: list[int]) -> None:
    """Up to six of fourteen. A mean and a standard deviation would follow the first one."""
    before = [usual] * (14 - len(bad)) + bad
    assert compute_escalation_limit(before) == compute_escalation_limit([usual] * 14)
    assert is_escalating(usual * 20, before) == (usual * 20 >= MIN_DEATHS)


def test_random_noise_seldom_escalates() -> None:
    """Fewer than one day in two hundred of a Poisson-like count."""
    chance = random.Random(11)
    days = [sum(chance.random() < 0.05 for _ in range(1_000)) for _ in range(5_000)]
    alarms = sum(is_escalating(days[at], days[at - 14 : at]) for at in range(14, len(days)))
    assert alarms / len(days) < 0.005


@pytest.mark.parametrize(
    ("deaths", "before", "worse"),
    [
        (9, [0] * 14, False),  # fewer than 10 are noise
        (10, [0] * 14, True),
        (60, [50] * 14, False),
        (80, [50] * 14, True),
        (120, [100, 20, 80, 110, 30, 90, 105, 25, 95, 100, 15, 100, 90, 110], False),
        (400, [100, 20, 80, 110, 30, 90, 105, 25, 95, 100, 15, 100, 90, 110], True),
        (500, [], False),  # its state is new
        (500, [100], True),
        (130, [100], False),
    ],
)
def test_examples_of_escalation(deaths: int, before: list[int], *, worse: bool) -> None:
    assert is_escalating(deaths, before) == worse


def test_the_limit_is_the_formula_of_its_docstring() -> None:
    """Computed by hand: medians 11 and 70, medians of the deviations 2 and 30."""
    assert compute_escalation_limit([10, 11, 8, 13, 100]) == pytest.approx(
        11 + 3.5 * max(1.4826 * 2, 11**0.5)
    )
    assert compute_escalation_limit([40, 10, 70, 100, 130]) == pytest.approx(70 + 3.5 * 1.4826 * 30)


# The demo's KeyError, from the day after its first death; another one that grows for two weeks.
STEADY = [1, 2, 2, 4, 5, 7, 9, 12, 14, 18, 20, 25, 29, 33, 37]
WEEK = [60, 60, 60, 60, 60, 10, 5]


@pytest.mark.parametrize(
    ("days", "rises"),
    [
        (STEADY, True),
        ([16, 19, 25, 40, 52, 52], True),
        ([1, 4, 1, 4, 1, 5, 5, 8, 8, 7, 14, 9, 11, 19], True),  # with noise
        ([2, 5, 9, 14, 22], True),
        ([2, 5, 9, 14], False),  # four days are too few
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], False),  # fewer than 10
        ([*STEADY[:-1], 5], False),  # over
        ([20] * 15, False),
        ([30 + 2 * day for day in range(15)], False),  # grows by less than twice
        ([5] * 14 + [300], False),  # a spike is above the limit, and no rise
        ([5] * 5 + [300] + [5] * 9, False),
        ([5] * 7 + [20] * 8, False),  # a step that is over
        (STEADY[::-1], False),
    ],
)
def test_a_steady_rise_escalates(days: list[int], *, rises: bool) -> None:
    assert is_rising(days) == rises
    if rises:
        assert is_escalating(days[-1], days[:-1])


def test_the_chance_of_a_rise_is_that_of_mann_and_kendall() -> None:
    """By hand: of the 24 orders of four days one always rises, and three have one inversion."""
    assert compute_rise_chance([1, 2, 3, 4]) == pytest.approx(1 / 24)
    assert compute_rise_chance([1, 2, 4, 3]) == pytest.approx(4 / 24)
    assert compute_rise_chance([4, 3, 2, 1]) == pytest.approx(1)
    assert compute_rise_chance([7, 7, 7, 7]) >= 0.5


def draw_poisson(chance: random.Random, mean: float) -> int:
    """Count arrivals at random times within a unit of time."""
    at, count = chance.expovariate(mean), 0
    while at < 1:
        at, count = at + chance.expovariate(mean), count + 1
    return count


@pytest.mark.parametrize("mean", [3, 8, 12, 20, 50])
@pytest.mark.parametrize("days", [5, 7, 15])
def test_noise_seldom_rises(mean: int, days: int) -> None:
    """Measured: 0 to 0.2 % of Poisson series without a trend, most for a mean of 8 to 12."""
    chance = random.Random(mean * days)
    rises = sum(is_rising([draw_poisson(chance, mean) for _ in range(days)]) for _ in range(2_000))
    assert rises / 2_000 <= 0.005


def test_rises_are_found_in_noise() -> None:
    """Measured: 97 % of Poisson series whose mean grows from 1 to 37 in two weeks."""
    chance = random.Random(3)
    rises = [
        is_rising([draw_poisson(chance, 1 + 36 * day / 14) for day in range(15)])
        for _ in range(500)
    ]
    assert sum(rises) / len(rises) >= 0.9


@pytest.mark.parametrize("weekday", range(7))
def test_a_weekly_pattern_is_no_rise(weekday: int) -> None:
    """In two whole weeks and a day, for each weekday as the last day."""
    chance = random.Random(weekday)
    rises = [
        is_rising([draw_poisson(chance, WEEK[(weekday + day) % 7]) for day in range(15)])
        for _ in range(300)
    ]
    assert sum(rises) / len(rises) <= 0.01
