"""The order of events of an aggregate, and parked events."""

from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import FixStatus, WaitStep
from dlq_pipelines.retries.fixes import (
    FixPreview,
    get_stage_outcomes,
)
from dlq_pipelines.retries.retry import (
    retry_events,
    retry_selected,
)
from dlq_pipelines.retries.settle import settle_outcomes
from tests.retries.helpers import (
    CAUSE,
    ERROR,
    POLICY,
    advance,
    build_audit,
    chain,
    flag_cause,
    get_now,
    preview,
    run_worker,
)
from tests.rows import date_deaths
from tests.shapes import ShapedOutbox

# The shape with text keys has no aggregates.
ORDERED = pytest.mark.parametrize("outbox", ["reference", "uuid"], indirect=True)


@ORDERED
def test_of_an_aggregate_the_next_event_follows_when_the_one_before_is_done(
    outbox: ShapedOutbox,
) -> None:
    """One at a time, in one stage, oldest first, though the later one died first."""
    connection = outbox.connection
    outbox.add_dead(3, aggregate="7")
    date_deaths(connection, "died_at - d.id * interval '1 minute'")
    fix = flag_cause(connection)
    for number in (1, 2, 3):
        assert advance(connection, fix).released == 1
        assert outbox.list_numbers("waiting") == [number]
        assert advance(connection, fix).released == 0
        outbox.run_worker(delivers=True)
    assert advance(connection, fix).fix.status is FixStatus.VERIFIED
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 3


def test_the_next_event_of_an_aggregate_is_due_at_the_rate(
    connection: Connection, database: Database
) -> None:
    """It waits for the one before it; a slow rate holds, also if its outcome is known at once."""
    chain(connection, 3)
    fix = flag_cause(connection, policy=replace(POLICY, rate=0.01))
    for _ in range(3):
        assert advance(connection, fix).released == 1
        run_worker(database, delivers=True)
    gaps = connection.execute(
        "select due_at - lag(due_at) over (order by due_at) as gap from dlq.retry order by due_at"
    ).fetchall()
    assert [row["gap"] for row in gaps] == [None, timedelta(seconds=100), timedelta(seconds=100)]


def test_without_order_all_events_of_an_aggregate_are_released_at_once(
    connection: Connection,
) -> None:
    """Where it was said that they do not build on each other."""
    chain(connection, 3)
    assert (
        advance(connection, flag_cause(connection, policy=replace(POLICY, order="none"))).released
        == 3
    )


@ORDERED
def test_events_after_a_dead_one_are_held_and_counted(outbox: ShapedOutbox) -> None:
    """Behind a death of another cause, which this fix does not target."""
    connection = outbox.connection
    outbox.add_dead(1, aggregate="7", error="KeyError: 'sku'")
    outbox.add_dead(2, aggregate="7")
    outbox.add_dead(1)
    fix = flag_cause(connection)
    assert advance(connection, fix).released == 1
    outbox.run_worker(delivers=True)
    done = advance(connection, fix)
    assert done.fix.status is FixStatus.VERIFIED
    assert (done.fix.verdict or "").endswith("2 behind an earlier dead event of their aggregate")
    assert outbox.count_states() == {"dead": 3, "done": 1}


@ORDERED
def test_a_fix_waits_for_an_earlier_event_that_a_person_retried(outbox: ShapedOutbox) -> None:
    """And goes on when that is delivered."""
    connection = outbox.connection
    outbox.add_dead(2, aggregate="7")
    fix = flag_cause(connection)
    retry_events(connection, outbox.event_ids(1), audit=build_audit())
    wait = WaitStep(
        "1 event must follow an earlier event of the same aggregate, which was retried without "
        "this fix"
    )
    assert advance(connection, fix).step == wait
    taken = outbox.take()
    assert advance(connection, fix).step == wait
    outbox.deliver(taken)
    assert advance(connection, fix).released == 1


def test_a_preview_counts_what_an_earlier_dead_event_holds_back(outbox: ShapedOutbox) -> None:
    """The fix releases as many events as the preview says, and leaves as many."""
    connection = outbox.connection
    for aggregate in range(6):  # of the first four, an event of another cause is dead before
        if aggregate < 4:
            outbox.give_up(outbox.add_events(1, aggregate=str(aggregate)), "KeyError: 'sku'")
        outbox.give_up(outbox.add_events(2, aggregate=str(aggregate)), ERROR)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    found = preview(connection, Selection(cause=CAUSE))
    held = 8 if outbox.shape.has_aggregates else 0
    assert (found.events, found.held, sum(found.stages)) == (12, held, 12 - held)
    assert found.longest == (2 if outbox.shape.has_aggregates else 1)
    fix, released = flag_cause(connection), 0
    for _ in range(20):
        done = advance(connection, fix)
        released += done.released
        outbox.run_worker(delivers=True)
        if done.fix.closed_at:
            break
    assert (done.fix.status, released) == (FixStatus.VERIFIED, 12 - held)


def test_an_event_that_died_again_after_three_retries_is_parked(outbox: ShapedOutbox) -> None:
    """No fix releases it, filters skip it unless asked, and a retry by id releases it."""
    connection = outbox.connection
    outbox.add_dead(2)
    for _ in range(3):
        retry_events(connection, outbox.event_ids(1), audit=build_audit())
        outbox.run_worker(delivers=False)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    settle_outcomes(connection, now=get_now(), settle_seconds=60)
    assert preview(connection, Selection(cause=CAUSE)) == FixPreview(
        events=2,
        aggregates=2,
        parked=1,
        held=0,
        longest=1,
        overtaken=0,
        stages=[1],
        seconds=30.0,
        deletion_is_loss=not outbox.shape.deletes_delivered,
    )
    fix = flag_cause(connection)
    assert advance(connection, fix).released == 1
    outbox.run_worker(delivers=True)
    assert (advance(connection, fix).fix.verdict or "").endswith("still dead: 1 parked")

    def would(most: int | None) -> int:
        return retry_selected(
            connection,
            Selection(all=True),
            audit=build_audit(),
            options=RunOptions(dry_run=True),
            rate=50.0,
            max_retries=most,
        ).events

    assert (would(3), would(None)) == (0, 1)
    assert retry_events(connection, outbox.event_ids(1), audit=build_audit()).events == 1
