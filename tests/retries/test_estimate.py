"""The time that a preview says, compared with what a fix takes by a clock of the test's own."""

import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.advance import Patience, advance_fix
from dlq_pipelines.retries.estimate import estimate_seconds
from dlq_pipelines.retries.fix import Fix, FixStatus, FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import get_fix, list_due_fixes
from tests.retries.helpers import CAUSE, flag_cause, get_now, preview
from tests.shapes import ShapedOutbox

TERMS = FixTerms(lookahead=timedelta(minutes=2))
# Aggregates and their events, in the order of their deaths.
SHAPES = {
    "many aggregates": [1] * 700,
    "one aggregate": [40],
    "skewed": [30, 10, 5, 5, *[1] * 150],
    "skewed, the long one last": [*[1] * 150, 2, 2, 30],
}
POLICIES = {
    "fast": RetryPolicy(),
    "slow": RetryPolicy(canary=5, growth=3.0, rate=2.0),
    "in any order": RetryPolicy(order="none"),
}


class Clock:
    """Time that passes only when a run sleeps or the sensor waits; the worker delivers at once."""

    def __init__(self, outbox: ShapedOutbox) -> None:
        self.outbox, self.now = outbox, get_now()

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.outbox.deliver(self.outbox.take(100_000, now=self.now))


def run_fix(connection: Connection, fix: Fix, clock: Clock) -> float:
    """Run what the sensor requests every 30 seconds until the fix ends; return the seconds."""
    begun = clock.now
    for tick in itertools.count():
        start = begun + timedelta(seconds=30 * tick)
        clock.pass_by(max(0.0, (start - clock.now).total_seconds()))
        due = list_due_fixes(connection, now=clock.now, max_backlog=TERMS.max_backlog)
        if fix.id in {one.id for one in due}:
            advance_fix(
                connection,
                fix.id,
                audit=AuditContext("sensor", "a step is due", clock.now),
                terms=TERMS,
                patience=Patience(5, clock, sleep=clock.pass_by),
            )
        if get_fix(connection, fix.id).closed_at is not None:
            return (clock.now - begun).total_seconds()
        assert tick < 1000
    raise AssertionError


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("outbox", ["reference"], indirect=True)
def test_a_preview_says_a_time_within_a_factor_of_two(
    outbox: ShapedOutbox, shape: str, policy: str
) -> None:
    """From the first step to the end, with a worker that delivers at once."""
    connection = outbox.connection
    for number, length in enumerate(SHAPES[shape]):
        outbox.add_events(length, aggregate=str(number))
    outbox.give_up_all("'TimeoutError: no answer'")
    outbox.add_dead(0)
    said = preview(connection, Selection(cause=CAUSE), POLICIES[policy]).seconds
    fix = flag_cause(connection, policy=POLICIES[policy])
    took = run_fix(connection, fix, Clock(outbox))
    assert get_fix(connection, fix.id).status is FixStatus.VERIFIED
    assert took / 2 <= said <= took * 2, (said, took)
    print(f"{shape}, {policy}: said {said:.0f} s, took {took:.0f} s")


lengths = st.dictionaries(st.integers(1, 60), st.integers(1, 60), max_size=5)


@given(
    lengths=lengths,
    canary=st.integers(1, 50),
    growth=st.floats(1, 20),
    rate=st.floats(0.01, 1000),
    order=st.sampled_from(["aggregate", "none"]),
)
def test_no_fix_is_faster_than_its_rate_and_its_stages(
    lengths: Mapping[int, int], canary: int, growth: float, rate: float, order: str
) -> None:
    """Nor much slower than a tick for each stage and each event of the longest aggregate."""
    policy = RetryPolicy(canary=canary, growth=growth, rate=rate, order=order)  # type: ignore[arg-type]
    events = sum(length * aggregates for length, aggregates in lengths.items())
    seconds = estimate_seconds(policy, lengths)
    stages = len(policy.sizes(events))
    assert seconds >= events / rate - 1e-6
    longest = max(lengths, default=0) if order == "aggregate" else 0
    assert seconds <= 1.01 * events / rate + 30 * (1 + stages + 2 * longest)


def test_a_fix_of_nothing_takes_no_time_and_a_million_events_take_six_stages() -> None:
    """A million at 50 a second are five and a half hours; a chain of them is not simulated."""
    assert estimate_seconds(RetryPolicy(), {}) == 0
    million = estimate_seconds(RetryPolicy(), {1: 1_000_000})
    assert 20_000 <= million <= 20_000 + 7 * 30
    chain = estimate_seconds(RetryPolicy(rate=100_000), {1_000_000: 1})
    assert 10_000 < chain < 14_000
