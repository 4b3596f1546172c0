"""Decisions about probes: pure, and tested with generated states."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.retries.probe import (
    FIRST_WAIT,
    MAX_WAIT,
    ProbeAction,
    ProbeState,
    compute_wait,
    decide_probe_step,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
_TIMES = st.timedeltas(timedelta(days=-2), timedelta(days=2)).map(lambda delta: NOW + delta)
_OUTCOMES = st.sampled_from([None, "delivered", "died_again", "timed_out", "deleted", "recalled"])
_IDLE = st.builds(
    ProbeState,
    cause_id=st.just("v2-1"),
    is_wanted=st.booleans(),
    last_death=_TIMES,
    tries=st.integers(0, 50),
    next_at=st.none() | _TIMES,
)
_RELEASED = st.builds(
    ProbeState,
    cause_id=st.just("v2-1"),
    is_wanted=st.booleans(),
    last_death=_TIMES,
    tries=st.integers(1, 50),
    next_at=_TIMES,
    death_id=st.integers(1),
    event_id=st.just("7"),
    outcome=_OUTCOMES,
)
_FLAGGED = st.builds(
    ProbeState,
    cause_id=st.just("v2-1"),
    is_wanted=st.booleans(),
    last_death=_TIMES,
    tries=st.integers(1, 50),
    next_at=_TIMES,
    fix_id=st.integers(1),
    fix_status=st.sampled_from(["active", "verified", "halted", "withdrawn", "expired"]),
    fix_closed_at=st.none() | _TIMES,
)
_LEFT = st.integers(0, 3)


def test_waits_are_5_10_20_minutes_up_to_6_hours() -> None:
    minutes = [compute_wait(tries) / timedelta(minutes=1) for tries in range(9)]
    assert minutes == [5, 10, 20, 40, 80, 160, 320, 360, 360]
    assert compute_wait(10**9) == MAX_WAIT


@given(_IDLE | _RELEASED | _FLAGGED, _LEFT)
def test_an_event_is_released_only_if_everything_allows_it(state: ProbeState, left: int) -> None:
    step = decide_probe_step(state, now=NOW, left_today=left)
    allowed = (
        state.is_wanted
        and left > 0
        and state.death_id is None
        and state.fix_id is None
        and state.last_death + FIRST_WAIT <= NOW
        and (state.next_at is None or state.next_at <= NOW)
    )
    assert (step.action is ProbeAction.RELEASE) == allowed


@given(_IDLE, _LEFT)
def test_each_release_doubles_the_wait_until_it_is_the_longest(
    state: ProbeState, left: int
) -> None:
    step = decide_probe_step(state, now=NOW, left_today=left)
    if step.action is ProbeAction.RELEASE:
        assert step.tries == state.tries + 1
        assert compute_wait(step.tries) == min(2 * compute_wait(state.tries), MAX_WAIT)
        assert step.next_at == NOW + compute_wait(step.tries)
    else:
        assert step.tries == state.tries


@given(_RELEASED, _LEFT)
def test_only_a_delivered_event_of_a_wanted_cause_flags_a_fix(state: ProbeState, left: int) -> None:
    """The wait after it begins at the outcome, and is that of all probes so far."""
    step = decide_probe_step(state, now=NOW, left_today=left)
    assert (step.action is ProbeAction.FLAG) == (state.outcome == "delivered" and state.is_wanted)
    assert step.tries == state.tries
    if state.outcome is None:
        assert step.action is ProbeAction.WAIT
    else:
        assert step.next_at == NOW + compute_wait(state.tries)


@given(_FLAGGED, _LEFT)
def test_only_a_verified_fix_begins_anew(state: ProbeState, left: int) -> None:
    step = decide_probe_step(state, now=NOW, left_today=left)
    if state.fix_closed_at is None:
        assert step.action is ProbeAction.WAIT
        return
    assert step.action is ProbeAction.RECORD
    assert step.tries == (0 if state.fix_status == "verified" else state.tries)
    assert step.next_at == state.fix_closed_at + compute_wait(step.tries)
