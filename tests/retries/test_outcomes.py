"""Outcomes of retried events."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from dlq_pipelines.audit import RunOptions
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.mapping_types import RowCondition
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import FixStatus, PauseStep, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import (
    get_stage_outcomes,
)
from dlq_pipelines.retries.retry import (
    retry_events,
)
from dlq_pipelines.retries.settle import (
    list_inconsistent_stages,
    settle_outcomes,
    settle_retries,
)
from tests.retries.helpers import (
    add_dead,
    advance,
    build_audit,
    flag_cause,
    get_now,
    run_worker,
    wait_until_blocked,
)
from tests.rows import one
from tests.shapes import ShapedOutbox

KEPT = pytest.mark.parametrize("outbox", ["reference", "uuid"], indirect=True)


@pytest.mark.parametrize(
    ("happens", "outcome"),
    [
        ("deliver", "delivered"),
        ("give_up", "died_again"),
        ("delete_rows", "deleted"),
        ("list_numbers", "timed_out"),
    ],
    ids=["delivered", "died again", "deleted", "nothing in time"],
)
def test_an_outcome_is_what_became_of_the_event(
    outbox: ShapedOutbox, happens: str, outcome: str
) -> None:
    """Before the time-out an event that has done nothing has no outcome."""
    connection = outbox.connection
    outbox.add_dead(1)
    fix = flag_cause(connection)
    advance(connection, fix)
    getattr(outbox, happens)("dead" if happens == "list_numbers" else [1])
    if happens == "delete_rows" and outbox.shape.deletes_delivered:
        outcome = "delivered"
    early = settle_outcomes(connection, now=get_now(), settle_seconds=60, fix_id=fix.id)
    late = settle_outcomes(
        connection, now=get_now() + timedelta(seconds=120), settle_seconds=60, fix_id=fix.id
    )
    assert (early, late) == ((0, 1) if outcome == "timed_out" else (1, 0))
    assert one(connection, "select outcome from dlq.retry") == {"outcome": outcome}


def test_an_outcome_in_time_or_none_is_final(outbox: ShapedOutbox) -> None:
    """Delivered too late, an event is done and proves nothing."""
    connection = outbox.connection
    outbox.add_dead(1)
    fix = flag_cause(connection)
    advance(connection, fix)
    assert advance(connection, fix, later=120).fix.status is FixStatus.HALTED
    outbox.run_worker(delivers=True)
    assert settle_outcomes(connection, now=get_now() + timedelta(days=1), settle_seconds=60) == 0
    assert one(connection, "select outcome from dlq.retry") == {"outcome": "timed_out"}
    assert outbox.count_states() == {"done": 1}


@KEPT
def test_a_stage_of_which_all_is_deleted_pauses_the_fix_until_the_mapping_says_what_it_means(
    outbox: ShapedOutbox,
) -> None:
    """Many workers delete what they deliver: the outcomes count then, and the fix goes on."""
    connection = outbox.connection
    outbox.add_dead(5)
    fix = flag_cause(connection)
    advance(connection, fix)
    outbox.delete_rows(outbox.list_numbers("waiting"))
    done = advance(connection, fix)
    assert done.step == PauseStep(
        "3 of 3 released events were deleted, and none was delivered. If the worker deletes what "
        "it has delivered, map `delivered` to deleted and resume; otherwise withdraw"
    )
    assert done.fix.status is FixStatus.PAUSED
    assert advance(connection, fix).step == WaitStep(f"paused: {done.step.verdict}")
    resume_fix(connection, fix.id, audit=build_audit())
    assert advance(connection, fix).fix.status is FixStatus.PAUSED  # nothing has changed
    deletes = replace(outbox.shape.mapping, delivered=RowCondition(), deleted_is_delivered=True)
    install_outbox(connection, deletes)
    assert resume_fix(connection, fix.id, audit=build_audit()).verdict is None
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 3
    assert connection.run("fix.stages_difference").fetchall() == []
    assert advance(connection, fix).released == 2
    outbox.delete_rows(outbox.list_numbers("waiting"))
    assert advance(connection, fix).fix.status is FixStatus.VERIFIED


@KEPT
def test_deleted_events_are_counted_again_in_batches(
    outbox: ShapedOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all stages, between others that failed; a dry run changes nothing."""
    connection = outbox.connection
    outbox.add_dead(40)
    policy = RetryPolicy(canary=10, growth=3.0, rate=1000.0, min_success=0.05, settle_seconds=60)
    fix = flag_cause(connection, policy=policy)
    advance(connection, fix)
    first = outbox.list_numbers("waiting")
    outbox.deliver(first[:5])
    outbox.give_up(first[5:7])
    outbox.delete_rows(first[7:])
    # Later than the last due time, before which nobody looks for an outcome.
    advance(connection, fix, later=5)
    second = outbox.list_numbers("waiting")
    outbox.give_up(second[:4])
    outbox.delete_rows(second[4:-1])
    due = get_now() + timedelta(seconds=30)
    settle_outcomes(connection, now=due, settle_seconds=60, fix_id=fix.id)
    pause_fix(connection, fix.id, audit=build_audit())

    def count() -> list[tuple[int, int, int]]:
        stages = get_stage_outcomes(connection, fix.id).values()
        return [(stage.delivered, stage.died_again, stage.deleted) for stage in stages]

    before = [(5, 2, 3), (0, 4, 25)]
    assert count() == before
    deletes = replace(outbox.shape.mapping, delivered=RowCondition(), deleted_is_delivered=True)
    install_outbox(connection, deletes)
    monkeypatch.setattr("dlq_pipelines.retries.advance.BATCH", 4)
    resume_fix(connection, fix.id, audit=build_audit(), options=RunOptions(dry_run=True))
    assert count() == before
    resume_fix(connection, fix.id, audit=build_audit())
    assert count() == [(8, 2, 0), (25, 4, 0)]
    assert connection.run("fix.stages_difference").fetchall() == []
    with pytest.raises(RefusedError, match="is active"):
        resume_fix(connection, fix.id, audit=build_audit())


@KEPT
def test_deaths_in_a_stage_halt_it_although_the_others_were_deleted(outbox: ShapedOutbox) -> None:
    """Whatever the deletions mean, the stage failed."""
    connection = outbox.connection
    outbox.add_dead(5)
    fix = flag_cause(connection)
    advance(connection, fix)
    first, *others = outbox.list_numbers("waiting")
    outbox.give_up([first])
    outbox.delete_rows(others)
    assert advance(connection, fix).fix.status is FixStatus.HALTED


def test_an_event_delivered_late_and_then_deleted_is_not_missing(outbox: ShapedOutbox) -> None:
    """Its outcome stays; one that was never seen to be delivered is missed."""
    connection = outbox.connection
    outbox.add_dead(2)
    retry_events(connection, outbox.event_ids(1, 2), audit=build_audit())
    assert (
        settle_retries(connection, now=get_now() + timedelta(seconds=120), settle_seconds=60) == 2
    )
    outbox.deliver([1])
    assert settle_retries(connection, now=get_now() + timedelta(days=1), settle_seconds=60) == 0
    outbox.delete_rows([1, 2])
    assert one(connection, "select array_agg(outcome) as o from dlq.retry") == {
        "o": ["timed_out"] * 2
    }
    missing = [] if outbox.shape.deletes_delivered else [str(outbox.event_id(2))]
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": len(missing),
        "duplicated": 0,
        "event_ids": missing or None,
    }


def test_each_retry_of_an_event_has_an_outcome_of_its_own(outbox: ShapedOutbox) -> None:
    """Retried, dead again, retried, delivered, and only then looked at."""
    connection = outbox.connection
    outbox.add_dead(1)
    for delivers in (False, True):
        retry_events(connection, outbox.event_ids(1), audit=build_audit(reason="asked"))
        outbox.run_worker(delivers=delivers)
    assert settle_outcomes(connection, now=get_now(), settle_seconds=60) == 2
    assert one(connection, "select array_agg(outcome order by death_id) as o from dlq.retry") == {
        "o": ["died_again", "delivered"]
    }


def test_outcomes_of_an_ended_fix_are_recorded_with_those_of_retries_by_hand(
    outbox: ShapedOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an active fix are its own business."""
    connection = outbox.connection
    outbox.add_dead(8)
    fix = flag_cause(connection)
    advance(connection, fix)
    retry_events(connection, outbox.event_ids(8), audit=build_audit(reason="asked"))
    outbox.run_worker(delivers=True)
    assert settle_outcomes(connection, now=get_now(), settle_seconds=60) == 1
    delivered = one(connection, "select event_id from dlq.retry where outcome = 'delivered'")
    assert str(delivered["event_id"]) == str(outbox.event_id(8))
    withdraw_fix(connection, fix.id, audit=build_audit(reason="rolled back"))
    monkeypatch.setattr("dlq_pipelines.retries.settle.BATCH", 2)
    assert settle_retries(connection, now=get_now(), settle_seconds=60) == 3
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 3


def test_outcomes_after_a_batch_without_any_are_recorded(
    outbox: ShapedOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the worker has not come to stands at the head of what is outstanding, and stays."""
    connection = outbox.connection
    outbox.add_dead(5)
    ids = outbox.event_ids(*range(1, 6))
    retry_events(connection, ids, audit=build_audit(), rate=100_000)
    outbox.deliver([5])
    monkeypatch.setattr("dlq_pipelines.retries.settle.BATCH", 2)
    assert settle_retries(connection, now=get_now(), settle_seconds=60) == 1
    delivered = one(connection, "select event_id from dlq.retry where outcome = 'delivered'")
    assert str(delivered["event_id"]) == str(ids[4])


def test_a_fix_is_not_locked_while_its_outcomes_are_recorded(
    connection: Connection, database: Database
) -> None:
    """They may be millions; a person who withdraws it does not wait for them."""
    add_dead(connection, 3)
    fix = flag_cause(connection)
    advance(connection, fix)
    run_worker(database, delivers=True)
    with ThreadPoolExecutor(1) as pool, database.connect() as own:
        with connection.transaction():
            connection.execute("select from dlq.fix_stage for update")
            advancing = pool.submit(advance, own, fix)
            wait_until_blocked(own, by=connection)
            connection.execute("select from dlq.fix for update nowait")
        assert advancing.result().settled == 3


def test_a_stage_that_was_deleted_by_hand_stops_no_other_outcome(outbox: ShapedOutbox) -> None:
    """Its outcomes cannot be counted, and a check says so."""
    connection = outbox.connection
    outbox.add_dead(2, event_type="a")
    outbox.add_dead(2, event_type="b")
    broken = flag_cause(connection, event_type="a")
    sound = flag_cause(connection, event_type="b")
    for fix in (broken, sound):
        assert advance(connection, fix).released == 2
    outbox.run_worker(delivers=True)
    for fix in (broken, sound):
        pause_fix(connection, fix.id, audit=build_audit())
    connection.execute("delete from dlq.fix_stage where fix_id = %s", [broken.id])
    assert settle_retries(connection, now=get_now(), settle_seconds=60) == 2
    assert get_stage_outcomes(connection, sound.id)[1].delivered == 2
    assert list_inconsistent_stages(connection) == [(broken.id, 1)]
