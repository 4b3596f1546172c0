"""Fixes that wait: paused, too early, or behind a slow worker; and how they expire."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta

import pytest

from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.queue import list_stuck_events, measure_queue_lag
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import (
    advance_fix,
    pause_fix,
    resume_fix,
)
from dlq_pipelines.retries.fix import FixStatus, FixTerms, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_fix,
    get_stage_outcomes,
    list_due_fixes,
)
from dlq_pipelines.retries.settle import settle_retries
from tests.retries.helpers import (
    CAUSE,
    POLICY,
    TERMS,
    add_dead,
    advance,
    build_audit,
    flag_cause,
    get_cause_status,
    get_now,
    list_due,
    run_worker,
)
from tests.rows import add_events, date_deaths, one
from tests.shapes import SHAPES, OutboxShape, ShapedOutbox


def test_a_paused_fix_releases_nothing_until_it_is_resumed(outbox: ShapedOutbox) -> None:
    """It keeps its targets, its outcomes are written down, and both acts are in the audit."""
    connection = outbox.connection
    outbox.add_dead(8)
    fix = flag_cause(connection)
    advance(connection, fix)
    assert pause_fix(connection, fix.id, audit=build_audit()).status is FixStatus.PAUSED
    outbox.run_worker(delivers=True)
    assert (advance(connection, fix).released, list_due(connection)) == (0, [])
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 3
    with pytest.raises(RefusedError, match="is paused"):
        pause_fix(connection, fix.id, audit=build_audit())
    with pytest.raises(RefusedError, match=f"Fix {fix.id} is open"):
        flag_cause(connection)
    assert resume_fix(connection, fix.id, audit=build_audit()).status is FixStatus.ACTIVE
    with pytest.raises(RefusedError, match="is active"):
        resume_fix(connection, fix.id, audit=build_audit())
    assert advance(connection, fix).released == 5
    kinds = one(connection, "select array_agg(kind order by id) as kinds from dlq.audit")["kinds"]
    assert kinds == ["fix.flag", "retry.stage", "fix.paused", "fix.resumed", "retry.stage"]


def test_outcomes_of_a_paused_fix_are_settled_without_it(
    connection: Connection, database: Database
) -> None:
    """As those of ended ones, by the job that settles what people retried."""
    add_dead(connection, 2)
    fix = flag_cause(connection)
    advance(connection, fix)
    pause_fix(connection, fix.id, audit=build_audit())
    run_worker(database, delivers=True)
    assert settle_retries(connection, now=get_now(), settle_seconds=60) == 2
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 2


def test_no_stage_begins_while_the_worker_is_far_behind(outbox: ShapedOutbox) -> None:
    """Nor does the sensor ask for it; outcomes are written down all the same."""
    connection = outbox.connection
    outbox.add_dead(8)
    fix = flag_cause(connection)
    advance(connection, fix)
    outbox.deliver(outbox.list_numbers("waiting"))
    # One event may be stuck, where nothing that was delivered is left to compare it with.
    outbox.add_events(10 if outbox.shape.deletes_delivered else 1)
    later, terms = get_now() + timedelta(minutes=10), FixTerms(max_backlog=timedelta(minutes=5))
    assert list_due_fixes(connection, now=later, max_backlog=terms.max_backlog) == [
        get_fix(connection, fix.id)
    ]
    audit = replace(build_audit(), now=later)
    done = advance_fix(connection, fix.id, audit=audit, terms=terms)
    assert isinstance(done.step, WaitStep)
    assert (done.settled, done.released, done.step.reason[:20]) == (3, 0, "the worker is 600 s ")
    assert list_due_fixes(connection, now=later, max_backlog=terms.max_backlog) == []
    outbox.deliver(outbox.list_numbers("waiting"))
    assert advance_fix(connection, fix.id, audit=audit, terms=terms).released == 5


@pytest.mark.parametrize("stuck", [1, 1_500])
def test_an_event_that_workers_pass_over_stops_no_fix(outbox: ShapedOutbox, stuck: int) -> None:
    """No worker consumes its type: it waits for days, and later ones are taken meanwhile."""
    connection = outbox.connection
    outbox.add_events(stuck, event_type="nobody.consumes.it")
    outbox.date_due("now() - interval '3 days'")
    outbox.add_dead(8)
    fix = flag_cause(connection)
    terms = FixTerms(max_backlog=timedelta(minutes=5))
    assert list_due_fixes(connection, now=get_now(), max_backlog=terms.max_backlog) == [fix]
    assert advance_fix(connection, fix.id, audit=build_audit(), terms=terms).released == 3
    lag, oldest = measure_queue_lag(connection, now=get_now(), most=300)
    assert lag < 60
    assert int(oldest) == 3 * 86_400


def test_a_canary_that_nobody_took_stops_no_other_fix(outbox: ShapedOutbox) -> None:
    """Ten events or more of a type that waits are queue lag, but not once they have timed out."""
    connection = outbox.connection
    policy = replace(POLICY, canary=10)
    outbox.add_dead(20, event_type="nobody.takes.it")
    first = flag_cause(connection, policy=policy, event_type="nobody.takes.it")
    assert advance(connection, first).released == 10
    halted = advance(connection, first, later=600)
    assert (halted.fix.status, halted.step is not None) == (FixStatus.HALTED, True)
    outbox.add_dead(20, event_type="healthy")
    outbox.deliver(outbox.add_events(3, event_type="healthy"))
    second = flag_cause(connection, policy=policy, event_type="healthy")
    later, terms = get_now() + timedelta(hours=2), FixTerms(max_backlog=timedelta(minutes=5))
    assert [fix.id for fix in list_due_fixes(connection, now=later, max_backlog=terms.max_backlog)]
    audit = replace(build_audit(), now=later)
    assert advance_fix(connection, second.id, audit=audit, terms=terms).released == 10
    (stuck,) = list_stuck_events(connection, now=later)
    assert (stuck.event_type, stuck.events) == ("nobody.takes.it", 10)


@pytest.mark.parametrize("shape", ["uuid", "text"])
def test_a_random_key_hides_no_event_that_workers_took(
    open_outbox: Callable[[OutboxShape], AbstractContextManager[ShapedOutbox]], shape: str
) -> None:
    """A uuid says nothing about when a row was written; nor do rows that are deleted (`text`)."""
    with open_outbox(SHAPES[shape]) as outbox:
        connection = outbox.connection
        outbox.add_dead(8)
        date_deaths(connection, "now() - interval '5 days'")
        connection.execute("update dlq.death set event_created_at = died_at - interval '1 h'")
        outbox.deliver(outbox.add_events(5_000, event_type="healthy"))
        outbox.add_events(1, event_type="lonely")
        outbox.date_due("now() - interval '3 hours'")
        if not outbox.shape.deletes_delivered:  # all long ago, but for the last ones
            table = outbox.shape.table
            connection.execute(
                f"update {table} set \"WrittenAt\" = now() - interval '20 days'"
                f" where {outbox.shape.number} <= 5008".encode()
            )
            connection.execute(f"vacuum full {table}".encode())
            outbox.deliver(outbox.add_events(20, event_type="healthy"))
        lag, oldest = measure_queue_lag(connection, now=get_now(), most=300)
        assert (lag, round(oldest / 3600)) == (0, 3)
        (found,) = list_stuck_events(connection, now=get_now())
        assert str(found) == "1 event of lonely"


def test_a_flood_of_stuck_events_is_a_lower_bound(connection: Connection) -> None:
    add_events(connection, 1_500, event_type="flood")
    connection.execute("update outbox_event set next_run_at = now() - interval '3 hours'")
    add_events(connection, 1, event_type="healthy")
    connection.execute("update outbox_event set status = 'done' where event_type = 'healthy'")
    (found,) = list_stuck_events(connection, now=get_now())
    assert str(found) == "at least 1,000 events of flood"


def test_a_type_that_is_behind_is_not_hidden_by_another_one(connection: Connection) -> None:
    """Each type may have workers of its own; few events, or of no known type, may be stuck."""
    now = get_now()
    for event_type, minutes, status, count in (
        ("slow", 60, "done", 1),
        ("slow", 50, "pending", 10),
        ("rare", 70, "done", 1),
        ("rare", 65, "pending", 1),
        ("fast", 1, "done", 1),
        ("unknown", 90, "pending", 20),
    ):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " created_at, next_run_at) select 'a', '1', %s, '{}', %s, %s, %s"
            " from generate_series(1, %s)",
            [event_type, status, *[now - timedelta(minutes=minutes)] * 2, count],
        )
    lag, oldest = measure_queue_lag(connection, now=now, most=300)
    assert (round(lag), round(oldest)) == (50 * 60, 90 * 60)
    connection.execute("update outbox_event set status = 'done' where event_type = 'slow'")
    assert measure_queue_lag(connection, now=now, most=300)[0] == 0


@pytest.mark.parametrize("due", ["'-infinity'", "now() - interval '1 hour'"])
def test_without_a_sign_of_a_worker_every_due_event_counts(
    connection: Connection, due: str
) -> None:
    """An infinite time is not a lag."""
    add_events(connection, 1)
    connection.execute(f"update outbox_event set next_run_at = {due}".encode())
    lag, oldest = measure_queue_lag(connection, now=get_now(), most=300)
    assert lag == pytest.approx(oldest, abs=1)
    assert round(lag) == (0 if "infinity" in due else 3600)


def test_a_fix_begins_not_before_its_time_and_ends_at_its_last(outbox: ShapedOutbox) -> None:
    """Expired, it is closed, its cause is open, and what it released stays with the worker."""
    connection = outbox.connection
    outbox.add_dead(8)
    flag = FixFlag(
        Selection(cause=CAUSE),
        POLICY,
        not_before=get_now() + timedelta(hours=1),
        expires_at=get_now() + timedelta(hours=3),
    )
    fix = flag_fix(connection, flag, audit=build_audit())
    assert (list_due(connection), advance(connection, fix).released) == ([], 0)
    assert list_due(connection, later=3601)
    assert advance(connection, fix, later=3601).released == 3
    assert list_due(connection, later=3 * 3600 + 1)
    done = advance(connection, fix, later=3 * 3600 + 1)
    assert (done.fix.status, get_cause_status(connection)) == (FixStatus.EXPIRED, "open")
    assert outbox.count_states() == {"dead": 5, "waiting": 3}


def test_a_fix_without_a_policy_stores_the_installations_at_its_first_step(
    connection: Connection, database: Database
) -> None:
    """At its first step; so its verdict has one policy whatever the settings become."""
    add_dead(connection, 8)
    fix = flag_fix(connection, FixFlag(Selection(cause=CAUSE)), audit=build_audit())
    assert (fix.policy, fix.expires_at) == (None, None)
    advance_fix(connection, fix.id, audit=build_audit(), terms=FixTerms(POLICY, timedelta(days=3)))
    taken = get_fix(connection, fix.id)
    assert (taken.policy, taken.expires_at) == (POLICY, fix.flagged_at + timedelta(days=3))
    run_worker(database, delivers=True)
    advance_fix(connection, fix.id, audit=build_audit(), terms=FixTerms(RetryPolicy(canary=1)))
    assert get_fix(connection, fix.id).policy == POLICY


def test_the_expiry_of_a_fix_counts_from_its_earliest_start(connection: Connection) -> None:
    """Flagged for a day after its expiry would be over, it is tried all the same."""
    add_dead(connection, 1)
    day = get_now() + timedelta(days=20)
    fix = flag_fix(
        connection, FixFlag(Selection(cause=CAUSE), POLICY, not_before=day), audit=build_audit()
    )
    assert advance(connection, fix, later=20 * 86_400 + 60).released == 1
    assert get_fix(connection, fix.id).expires_at == day + TERMS.expiry


def test_a_fix_that_is_paused_before_its_first_step_expires_too(connection: Connection) -> None:
    """A step stores when, and the sensor requests that step once."""
    add_dead(connection, 1)
    fix = flag_fix(connection, FixFlag(Selection(cause=CAUSE), POLICY), audit=build_audit())
    pause_fix(connection, fix.id, audit=build_audit())
    assert [due.id for due in list_due(connection)] == [fix.id]
    assert advance(connection, fix).step == WaitStep("paused")
    assert (list_due(connection), get_fix(connection, fix.id).expires_at) == (
        [],
        fix.flagged_at + TERMS.expiry,
    )
    later = TERMS.expiry.total_seconds() + 60
    assert [due.id for due in list_due(connection, later=later)] == [fix.id]
    assert advance(connection, fix, later=later).fix.status is FixStatus.EXPIRED
