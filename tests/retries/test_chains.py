"""Aggregates in chains: the next event follows as soon as its predecessor is delivered."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from psycopg.pq import TransactionStatus

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import AdvanceResult, Patience, advance_fix, pause_fix
from dlq_pipelines.retries.fix import Fix, FixStatus, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import get_stage_outcomes
from tests.retries.helpers import (
    TERMS,
    advance,
    build_audit,
    chain,
    flag_cause,
    get_now,
    list_due,
    run_worker,
)
from tests.rows import one
from tests.shapes import ShapedOutbox

ORDERED = pytest.mark.parametrize("outbox", ["reference", "uuid"], indirect=True)
POLICY = RetryPolicy(canary=3, rate=100_000.0, min_success=0.9, settle_seconds=60)


def follow(
    connection: Connection, fix: Fix, sleep: Callable[[float], None], *, idle: float = 60
) -> AdvanceResult:
    """Run one step whose worker works while the step sleeps."""
    audit = AuditContext("sensor", "a step is due", get_now(), "run-1")
    patience = Patience(idle, get_now, total=600, sleep=sleep)
    return advance_fix(connection, fix.id, audit=audit, terms=TERMS, patience=patience)


@ORDERED
def test_one_step_delivers_a_whole_aggregate_in_order(outbox: ShapedOutbox) -> None:
    """One event at a time, through all stages, without a lock or a transaction in between."""
    connection = outbox.connection
    numbers = outbox.add_dead(40, aggregate="7")
    fix = flag_cause(connection, policy=POLICY)
    delivered: list[int] = []

    def deliver(_: float) -> None:
        assert connection.info.transaction_status is TransactionStatus.IDLE
        taken = outbox.take()
        assert len(taken) <= 1
        outbox.deliver(taken)
        delivered.extend(taken)

    done = follow(connection, fix, deliver)
    assert (done.fix.status, done.released, done.settled) == (FixStatus.VERIFIED, 40, 40)
    assert delivered == numbers
    stages = get_stage_outcomes(connection, fix.id)
    assert [stage.delivered for stage in stages.values()] == [3, 30, 7]


@ORDERED
def test_many_aggregates_follow_each_at_its_own_pace(outbox: ShapedOutbox) -> None:
    """Aggregates of different lengths, with single events between them, in one step."""
    connection = outbox.connection
    for aggregate, length in (("a", 30), ("b", 10), ("c", 1), ("d", 1), ("e", 5)):
        outbox.add_dead(length, aggregate=aggregate)
    fix = flag_cause(connection, policy=POLICY)

    def deliver(_: float) -> None:
        taken = outbox.take(3)
        assert len(taken) <= 5
        outbox.deliver(taken)

    done = follow(connection, fix, deliver)
    while done.fix.closed_at is None:  # the last events have no follower, so no run waits for them
        deliver(0)
        done = advance(connection, fix)
    assert done.fix.status is FixStatus.VERIFIED
    assert outbox.count_states() == {"done": 47}
    # Of one aggregate, an event was released after its predecessor had its outcome.
    overlaps = connection.execute(
        "select r.event_id from dlq.retry r join dlq.retry earlier"
        " on earlier.aggregate_id = r.aggregate_id and earlier.event_id < r.event_id"
        " where earlier.settled_at > r.retried_at"
    )
    assert overlaps.fetchall() == []


@ORDERED
def test_a_failure_within_an_aggregate_halts_the_fix_at_once(outbox: ShapedOutbox) -> None:
    """In the same step, and what comes after it stays dead: nothing is left to make up for it."""
    connection = outbox.connection
    outbox.add_dead(20, aggregate="7")
    fix = flag_cause(connection, policy=POLICY)
    worked: list[int] = []

    def work(_: float) -> None:
        for number in outbox.take():
            worked.append(number)
            if number == 5:
                outbox.give_up([number])
            else:
                outbox.deliver([number])

    assert follow(connection, fix, work).fix.status is FixStatus.HALTED
    assert worked == [1, 2, 3, 4, 5]
    assert outbox.count_states() == {"done": 4, "dead": 16}


@ORDERED
def test_a_pause_stops_a_step_that_follows(outbox: ShapedOutbox) -> None:
    """Within one look, and the event that no worker had taken is dead again."""
    connection = outbox.connection
    outbox.add_dead(20, aggregate="7")
    fix = flag_cause(connection, policy=POLICY)
    looks: list[float] = []

    def work(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) < 4:
            outbox.deliver(outbox.take())
        elif len(looks) == 4:
            with outbox.database.connect() as other:
                pause_fix(other, fix.id, audit=build_audit())
        else:
            pytest.fail("the step goes on although the fix is paused")

    done = follow(connection, fix, work)
    assert (done.fix.status, done.step) == (FixStatus.PAUSED, WaitStep("paused"))
    assert done.released <= 4


def test_a_step_without_outcomes_ends_after_its_idle_time(connection: Connection) -> None:
    """It looks less and less often; without an event that could follow it does not wait."""
    chain(connection, 3)
    fix = flag_cause(connection, policy=POLICY)
    passed = [0.0]

    def clock() -> datetime:
        return get_now() + timedelta(seconds=passed[0])

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    patience = Patience(5, clock, sleep=sleep)
    done = advance_fix(connection, fix.id, audit=build_audit(), terms=TERMS, patience=patience)
    assert done.released == 1
    assert 4 < passed[0] < 6
    chain(connection, 1, aggregate="8", error="KeyError: 'x'")
    connection.execute("update outbox_event set status = 'done' where status <> 'pending'")
    before = passed[0]
    advance_fix(connection, fix.id, audit=build_audit(), terms=TERMS, patience=patience)
    assert passed[0] == before


def test_a_dry_run_waits_for_nothing(connection: Connection) -> None:
    """Its transaction would be open all that time."""
    chain(connection, 3)
    fix = flag_cause(connection, policy=POLICY)
    patience = Patience(5, get_now, sleep=lambda _: pytest.fail("the dry run waits"))
    done = advance_fix(
        connection,
        fix.id,
        audit=build_audit(),
        options=RunOptions(dry_run=True),
        terms=TERMS,
        patience=patience,
    )
    assert done.released > 0


def test_a_step_that_is_killed_while_it_follows_is_taken_up_again(
    connection: Connection, database: Database
) -> None:
    """The sensor requests another run, also if no outcome is left to arrive."""
    chain(connection, 10)
    fix = flag_cause(connection, policy=POLICY)
    rounds = iter(range(4))

    def kill_later(_: float) -> None:
        run_worker(database, delivers=True)
        if next(rounds) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(connection, fix, kill_later)
    # Its last outcome is recorded, and nothing followed it.
    assert [due.id for due in list_due(connection, later=61)] == [fix.id]

    def deliver(_: float) -> None:
        run_worker(database, delivers=True)

    done = follow(connection, fix, deliver)
    assert done.fix.status is FixStatus.VERIFIED
    assert one(connection, "select count(*) from dlq.retry") == {"count": 10}


def test_two_steps_at_once_release_each_event_once(
    connection: Connection, database: Database
) -> None:
    """In order; the second one leaves the fix to the first."""
    chain(connection, 60)
    # Two runs have two clocks, so `retried_at` says nothing of the order.
    connection.execute(
        "create table released (n bigserial, event_id bigint);"
        " create function log_release() returns trigger language plpgsql as $$ begin"
        " insert into released (event_id) values (new.event_id); return new; end $$;"
        " create trigger log_release after insert on dlq.retry"
        " for each row execute function log_release()"
    )
    fix = flag_cause(connection, policy=POLICY)
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.001):
            run_worker(database, delivers=True)

    def step() -> None:
        with database.connect() as own:
            for _ in range(200):
                done = advance_fix(
                    own,
                    fix.id,
                    audit=build_audit(),
                    terms=TERMS,
                    patience=Patience(1, get_now, total=5),
                )
                if done.fix.closed_at is not None:
                    return

    with ThreadPoolExecutor(3) as threads:
        worker = threads.submit(work)
        steps = [threads.submit(step) for _ in range(2)]
        try:
            for running in steps:
                running.result()
        finally:
            stop.set()
        worker.result()
    retried = connection.execute(
        "select count(*) as n,"
        " sum(case outcome when 'delivered' then 1 else 0 end) as delivered from dlq.retry"
    ).fetchone()
    assert retried is not None
    assert (retried["n"], retried["delivered"]) == (60, 60)
    released = one(connection, "select array_agg(event_id order by n) as ids from released")["ids"]
    assert released == sorted(released)
    audited = one(connection, "select sum(events)::int as n from dlq.audit where kind ~ 'stage'")
    assert audited == {"n": 60}
