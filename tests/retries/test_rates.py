"""The rates of fixes on a real outbox: what outcomes and other fixes do to due times."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import Fix, FixTerms, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import FixFlag, describe_congestion, flag_fix, get_fix
from tests.retries.helpers import build_audit, flag_cause, get_now
from tests.rows import one
from tests.shapes import ShapedOutbox

TERMS = FixTerms(max_backlog=timedelta(minutes=5), lookahead=timedelta(minutes=1))
POLICY = RetryPolicy(canary=500, rate=2.0, settle_seconds=3600)


def step(connection: Connection, fix: Fix, now: datetime) -> int:
    audit = AuditContext("sensor", "a step is due", now)
    return advance_fix(connection, fix.id, audit=audit, terms=TERMS).released


def measure_last_gap(connection: Connection, fix: Fix) -> float:
    """Return the seconds between the due times of the last two events of a fix."""
    return float(
        one(
            connection,
            "select extract(epoch from max(due_at) - (array_agg(due_at order by due_at desc))[2])"
            f"::float8 as gap from dlq.retry where fix_id = {fix.id}",
        )["gap"]
    )


def test_failures_halve_the_rate_and_deliveries_return_it(outbox: ShapedOutbox) -> None:
    """Of due times too; both rates are stored, and the stage goes on."""
    connection, now = outbox.connection, get_now()
    outbox.add_dead(500)
    fix = flag_cause(connection, policy=POLICY)
    assert step(connection, fix, now) == 121
    taken = outbox.take(now=now + timedelta(seconds=30))
    outbox.give_up(taken[:10])
    outbox.deliver(taken[10:])
    now += timedelta(seconds=35)
    assert step(connection, fix, now) > 0
    halved = get_fix(connection, fix.id)
    assert (halved.current_rate, halved.release_rate) == (1.0, 1.0)
    assert measure_last_gap(connection, fix) == pytest.approx(1.0)
    # Nothing is judged until what was released at the former rate has fallen due.
    rates = []
    for _ in range(12):
        now += timedelta(seconds=30)
        outbox.deliver(outbox.take(now=now))
        step(connection, fix, now)
        rates.append(get_fix(connection, fix.id).current_rate or 0)
    assert rates[0] == 1.0
    assert rates[-1] == 2.0
    grown = [later - earlier for earlier, later in itertools.pairwise(rates)]
    assert all(0 <= more < 0.2 + 1e-9 for more in grown)
    assert measure_last_gap(connection, fix) == pytest.approx(0.5)


def test_fixes_that_begin_at_one_moment_share_the_worker(
    outbox: ShapedOutbox,
) -> None:
    """Their releases overlap: each insert into the ledger takes a third of a second."""
    connection, now = outbox.connection, get_now()
    fixes = []
    for kind in "abc":
        outbox.add_dead(200, event_type=kind)
        flag = FixFlag(Selection(event_type=kind), POLICY)
        fixes.append(flag_fix(connection, flag, audit=build_audit()))
    connection.execute(
        "create function linger() returns trigger language plpgsql as"
        " $$ begin perform pg_sleep(0.3); return null; end $$;"
        " create trigger linger before insert on dlq.retry execute function linger()"
    )
    together = threading.Barrier(len(fixes))

    def begin(fix: Fix) -> int:
        with outbox.database.connect() as own:
            together.wait()
            return step(own, fix, now)

    with ThreadPoolExecutor(len(fixes)) as threads:
        released = list(threads.map(begin, fixes))
    # A minute at 2 a second, and a sixteenth of that for each of the others.
    assert sorted(released) == [8, 8, 121]
    rates = sorted(get_fix(connection, fix.id).release_rate or 0 for fix in fixes)
    assert rates == [0.125, 0.125, 2.0]


def test_a_worker_that_is_behind_halves_the_rate_once(outbox: ShapedOutbox) -> None:
    """Released events wait for six minutes, and no worker takes them."""
    connection, now = outbox.connection, get_now()
    outbox.add_dead(500)
    fix = flag_cause(connection, policy=POLICY)
    step(connection, fix, now)
    for minutes in (6, 7, 8):
        later = now + timedelta(minutes=minutes)
        done = advance_fix(
            connection, fix.id, audit=AuditContext("sensor", "due", later), terms=TERMS
        )
        assert isinstance(done.step, WaitStep)
        assert done.step.reason.startswith("the worker is ")
        assert done.fix.current_rate == 1.0


@pytest.mark.parametrize(("waiting", "rate"), [(9, 2.0), (10, 1.0)])
@pytest.mark.parametrize("outbox", ["reference"], indirect=True)
def test_released_events_that_wait_halve_the_rate_although_the_queue_moves(
    outbox: ShapedOutbox, waiting: int, rate: float
) -> None:
    """Workers take what was written later. Fewer than ten may be events that none consumes."""
    connection, now = outbox.connection, get_now()
    for number in range(waiting):
        outbox.add_dead(1, event_type=f"type {number}", aggregate=str(number))
    fix = flag_cause(connection, policy=POLICY)
    assert step(connection, fix, now) == waiting
    later = outbox.add_events(1, event_type="other", aggregate="other")
    outbox.date_events(later, *["now() + interval '320 s'"] * 2)
    outbox.deliver(later)
    at = now + timedelta(minutes=6)
    assert describe_congestion(connection, now=at, max_backlog=TERMS.max_backlog) is None
    step(connection, fix, at)
    assert (get_fix(connection, fix.id).current_rate or POLICY.rate) == rate


@pytest.mark.parametrize("order", ["first", "second"])
def test_two_fixes_share_the_worker(outbox: ShapedOutbox, order: str) -> None:
    """The second one gets little until the first is refilled; then each gets a half."""
    connection, now = outbox.connection, get_now()
    outbox.add_dead(400, event_type="a")
    outbox.add_dead(400, event_type="b")
    fixes = [
        flag_fix(connection, FixFlag(Selection(event_type=kind), POLICY), audit=build_audit())
        for kind in "ab"
    ]
    if order == "second":
        fixes.reverse()
    for fix in fixes:
        step(connection, fix, now)
    first, second = (get_fix(connection, fix.id) for fix in fixes)
    assert (first.release_rate, second.release_rate) == (2.0, 0.125)
    sums = []
    for seconds in range(30, 300, 30):
        later = now + timedelta(seconds=seconds)
        outbox.deliver(outbox.take(now=later))
        for fix in fixes:
            step(connection, fix, later)
        sums.append(sum(get_fix(connection, fix.id).release_rate or 0 for fix in fixes))
    assert max(sums) <= 2.0 + 0.125
    assert [get_fix(connection, fix.id).release_rate for fix in fixes] == [1.0, 1.0]
    # The rate of each is its own all the time: nothing was bad.
    assert {get_fix(connection, fix.id).current_rate for fix in fixes} == {2.0}
    for fix in fixes:
        assert measure_last_gap(connection, fix) == pytest.approx(1.0)
