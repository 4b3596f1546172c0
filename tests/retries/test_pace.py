"""The rate of a fix: halved on bad news, grown on good news, and shared with other fixes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.retries.fix import MAX_RATE, MIN_RATE
from dlq_pipelines.retries.pace import (
    RateNews,
    RateState,
    adjust_rate,
    compute_lowest_rate,
    compute_share,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
HALF_MINUTE = timedelta(seconds=30)
rates = st.floats(MIN_RATE, MAX_RATE)
# Of one look: seconds since the last one, outcomes, failures, whether the worker is behind, and
# how far ahead events are scheduled.
looks = st.lists(
    st.tuples(
        st.integers(0, 900),
        st.integers(0, 500),
        st.integers(0, 500),
        st.booleans(),
        st.integers(0, 600),
    ),
    max_size=30,
)


def look(state: RateState, *, now: datetime = NOW, rate: float = 50, **news: object) -> RateState:
    """Look at a fix of the default policy."""
    found = RateNews(**{"outcomes": state.outcomes, "failed": state.failed, **news})  # type: ignore[arg-type]
    return adjust_rate(state, found, rate=rate, min_success=0.9, now=now)


@given(rate=rates, min_success=st.floats(0.01, 1), looks=looks)
def test_the_rate_stays_in_its_bounds_and_never_grows_on_bad_news(
    rate: float, min_success: float, looks: list[tuple[int, int, int, bool, int]]
) -> None:
    """Whatever happens: at most a halving or a tenth at a time, and 30 seconds between two."""
    state, now, news = RateState(rate), NOW, RateNews(0, 0)
    changed_at: datetime | None = None
    for seconds, outcomes, failed, is_behind, ahead in looks:
        now += timedelta(seconds=seconds)
        news = RateNews(
            news.outcomes + outcomes,
            news.failed + min(outcomes, failed),
            is_behind,
            now + timedelta(seconds=ahead),
        )
        before, state = (
            state,
            adjust_rate(state, news, rate=rate, min_success=min_success, now=now),
        )
        assert compute_lowest_rate(rate) <= state.rate <= rate
        assert state.rate in (
            before.rate,
            max(compute_lowest_rate(rate), before.rate / 2),
            min(rate, before.rate + rate * 0.1),
            rate,
        )
        assert state.rate <= before.rate + rate * 0.1 + rate * 1e-9
        assert 0 <= state.recent_failed <= state.recent + 1e-9 <= 100 + 1e-9
        if is_behind or not outcomes or (failed >= outcomes > 100 * (1 - min_success) / 2):
            assert state.rate <= before.rate
        if state.rate > before.rate:
            assert changed_at is None or now >= changed_at + HALF_MINUTE
        if state.rate != before.rate:
            changed_at = now


@given(rate=rates, behind=st.booleans())
def test_bad_news_halves_the_rate_and_good_news_returns_it_in_bounded_steps(
    rate: float, behind: bool
) -> None:
    """From half of it in five looks, each half a minute after the other, and one before them."""
    last = NOW + timedelta(seconds=400)
    state = look(
        RateState(rate),
        rate=rate,
        outcomes=100,
        failed=0 if behind else 6,
        is_behind=behind,
        last_due_at=last,
    )
    assert state.rate == max(compute_lowest_rate(rate), rate / 2)
    # What was released before that falls due until then.
    assert look(state, now=last - HALF_MINUTE, rate=rate, outcomes=200, failed=100).rate == (
        state.rate
    )
    now, steps = last, 0
    while state.rate < rate:
        before = state.rate
        state = look(state, now=now, rate=rate, outcomes=state.outcomes + 1, last_due_at=now)
        assert before <= state.rate <= before + rate * 0.1 + rate * 1e-9
        if state.rate > before:  # at most once in half a minute
            again = look(state, now=now, rate=rate, outcomes=state.outcomes + 1)
            assert again.rate == state.rate
        now, steps = now + HALF_MINUTE, steps + 1
    assert steps <= 6


def test_more_than_five_failures_of_the_last_hundred_halve_the_default_rate() -> None:
    """Earlier ones count until a hundred outcomes followed them."""
    five = look(RateState(50), outcomes=100, failed=5)
    assert (five.rate, five.recent, five.recent_failed) == (50, 100, 5)
    assert look(five, outcomes=101, failed=6).rate == 25
    assert look(five, outcomes=120, failed=6).rate == 50  # a fifth of the five is past
    assert look(five, outcomes=200, failed=10).rate == 50
    # Of one look with more of them, their share counts.
    assert look(RateState(50), outcomes=1000, failed=50).rate == 50
    assert look(RateState(50), outcomes=1000, failed=51).rate == 25


def test_a_halted_queue_halves_the_rate_once_for_what_was_released() -> None:
    """A worker that takes nothing for hours is no news as long as nothing is released to it."""
    last, now = NOW - timedelta(seconds=10), NOW
    state = look(RateState(50), is_behind=True, last_due_at=last)
    for _ in range(10):
        now += HALF_MINUTE
        state = look(state, now=now, is_behind=True, last_due_at=last)
    assert state.rate == 25
    assert look(state, now=now, is_behind=True, last_due_at=now).rate == 12.5
    assert look(RateState(50), is_behind=True).rate == 50  # it has released nothing


def test_a_rate_without_outcomes_does_not_grow() -> None:
    """Nothing was learned."""
    state = RateState(25)
    assert look(state, now=NOW + timedelta(days=1)) == state
    assert look(state, outcomes=1).rate == 30


def test_the_lowest_rate_is_a_sixteenth_and_not_below_the_minimum() -> None:
    """Four halvings."""
    assert compute_lowest_rate(16) == 1
    assert compute_lowest_rate(MIN_RATE) == MIN_RATE


@pytest.mark.parametrize(
    ("rates", "shares"),
    [
        ([50], [50]),
        ([50, 50], [25, 25]),
        ([50, 10], [40, 10]),
        ([50, 1, 30], [24.5, 1, 24.5]),
        ([100, 20, 20, 80], [30, 20, 20, 30]),
    ],
)
def test_fixes_share_what_the_fastest_of_them_would_get(
    rates: list[float], shares: list[float]
) -> None:
    """A slow one gets its own rate, the others equal parts of the rest."""
    for number, own in enumerate(rates):
        others = rates[:number] + rates[number + 1 :]
        assert compute_share(own, others, in_force=0) == pytest.approx(shares[number])


@given(rates=st.lists(rates, min_size=1, max_size=8))
def test_together_they_are_no_faster_than_the_fastest_alone(rates: list[float]) -> None:
    """And none gets more than its own rate, or nothing."""
    shares = [
        compute_share(own, rates[:number] + rates[number + 1 :], in_force=0)
        for number, own in enumerate(rates)
    ]
    assert sum(shares) == pytest.approx(max(rates))
    assert all(0 < share <= own for share, own in zip(shares, rates, strict=True))


@given(
    rates=st.lists(rates, min_size=2, max_size=6),
    order=st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_one_after_the_other_they_come_to_their_shares(
    rates: list[float], order: list[int]
) -> None:
    """A new one gets what the others leave until these are refilled; the sum stays bounded."""
    in_force: dict[int, float] = {}
    most = max(rates) + sum(compute_lowest_rate(rate) for rate in rates)
    for number in [*order, *range(len(rates)), *range(len(rates)), *range(len(rates))]:
        at = number % len(rates)
        others = [rate for other, rate in enumerate(rates) if other in in_force and other != at]
        taken = sum(rate for other, rate in in_force.items() if other != at)
        in_force[at] = compute_share(rates[at], others, in_force=taken)
        assert sum(in_force.values()) <= most + 1e-6
    for at, own in enumerate(rates):
        others = rates[:at] + rates[at + 1 :]
        fair = compute_share(own, others, in_force=0)
        assert in_force[at] == pytest.approx(fair, rel=0.2)
