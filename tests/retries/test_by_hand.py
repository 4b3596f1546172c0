"""Retries without a fix, and dry runs."""

from datetime import timedelta
from typing import Any

import pytest

from dlq_pipelines.archive.archive import discard_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.batches import RetryResult
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import (
    advance_fix,
    pause_fix,
    resume_fix,
    withdraw_fix,
)
from dlq_pipelines.retries.fix import FixStatus
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_fix,
    list_fixes,
)
from dlq_pipelines.retries.parked import release_parked
from dlq_pipelines.retries.retry import (
    retry_event,
    retry_events,
    retry_selected,
    retry_with_payload,
)
from tests.retries.helpers import (
    CAUSE,
    ERROR,
    POLICY,
    TERMS,
    add_dead,
    advance,
    build_audit,
    flag_cause,
    get_cause_status,
    get_now,
    run_worker,
)
from tests.rows import add_events, kill, one, park
from tests.shapes import ShapedOutbox


@pytest.mark.parametrize("blank", ["actor", "reason"])
def test_an_audit_context_needs_an_actor_and_a_reason(connection: Connection, blank: str) -> None:
    """The argument is named and nothing is changed."""
    add_dead(connection, 1)
    texts = {"actor": "ann", "reason": "fixed", blank: " "}
    with pytest.raises(ValueError, match=blank):
        retry_events(
            connection, [1], audit=AuditContext(texts["actor"], texts["reason"], get_now())
        )
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0


def test_a_retry_by_hand_skips_events_that_are_not_dead(outbox: ShapedOutbox) -> None:
    """And a second time retries nothing; the audit says who, why and which."""
    connection = outbox.connection
    outbox.add_dead(3)
    outbox.add_events(1)
    retried = retry_events(
        connection,
        outbox.event_ids(1, 3, 4, 99, 3),
        audit=AuditContext("bob", "asked", get_now(), "run-2"),
    )
    assert (retried.events, retried.batches) == (2, 1)
    again = outbox.event_ids(1, 3)
    assert retry_events(connection, again, audit=build_audit(reason="asked")).events == 0
    assert outbox.count_states() == {"dead": 1, "waiting": 3}
    audit = one(connection, "select kind, actor, reason, filter, events, run_id from dlq.audit")
    shown = {"event_ids": outbox.event_ids(1, 3, 4, 99), "more": 0}
    assert audit == {
        "kind": "retry.selected", "actor": "bob", "reason": "asked", "filter": shown, "events": 2,
        "run_id": "run-2",
    }  # fmt: skip


def test_a_dry_run_counts_and_changes_nothing(outbox: ShapedOutbox) -> None:
    """The same events as the real one."""
    connection = outbox.connection
    outbox.add_dead(3)
    ids, dry_run = outbox.event_ids(1, 2, 99), RunOptions(dry_run=True)
    assert retry_events(connection, ids, audit=build_audit(), options=dry_run).events == 2
    assert outbox.count_states() == {"dead": 3}
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0
    assert retry_events(connection, ids, audit=build_audit()).events == 2


def test_a_dry_run_of_a_change_of_a_fix_changes_nothing(
    connection: Connection, database: Database
) -> None:
    """Flagged, stepped, paused, resumed, withdrawn."""
    add_dead(connection, 8)
    dry: Any = {"audit": build_audit(), "options": RunOptions(dry_run=True)}
    assert (
        flag_fix(connection, FixFlag(Selection(cause=CAUSE), POLICY), **dry).status
        is FixStatus.ACTIVE
    )
    assert (list_fixes(connection), get_cause_status(connection)) == ([], "open")
    fix = flag_cause(connection)
    advance(connection, fix)
    run_worker(database, delivers=True)

    def all_there_is() -> list[object]:
        tables = (
            "outbox_event",
            "dlq.fix",
            "dlq.fix_stage",
            "dlq.fix_outcome",
            "dlq.retry",
            "dlq.audit",
            "dlq.cause",
        )
        return [
            connection.execute(f"select * from {table} order by 1, 2".encode()).fetchall()
            for table in tables
        ]

    before = all_there_is()
    would = advance_fix(
        connection, fix.id, audit=build_audit(), options=RunOptions(dry_run=True), terms=TERMS
    )
    assert (would.settled, would.released, would.fix.stage) == (3, 5, 2)
    assert pause_fix(connection, fix.id, **dry).status is FixStatus.PAUSED
    assert withdraw_fix(connection, fix.id, **dry).status is FixStatus.WITHDRAWN
    assert all_there_is() == before
    paused = pause_fix(connection, fix.id, audit=build_audit())
    assert resume_fix(connection, fix.id, **dry).status is FixStatus.ACTIVE
    assert get_fix(connection, fix.id).status is paused.status is FixStatus.PAUSED


def test_a_dry_run_rolls_back_the_applications_triggers(
    connection: Connection,
) -> None:
    """Theirs of statements run for a statement that changes no row, too."""
    add_dead(connection, 3)
    connection.execute(
        "create table called (at timestamptz);"
        " create function record_call() returns trigger language plpgsql as"
        " $$ begin insert into called values (now()); return null; end $$;"
        " create trigger record_call after update on outbox_event"
        " for each statement execute function record_call()"
    )
    looks = (
        lambda: retry_events(
            connection, [1, 2], audit=build_audit(), options=RunOptions(dry_run=True)
        ),
        lambda: retry_event(
            connection,
            1,
            audit=build_audit(),
            options=RunOptions(dry_run=True),
            payload="{}",
            allow_edit=True,
        ),
        lambda: discard_events(
            connection,
            Selection(event_ids=(1,)),
            audit=build_audit(),
            options=RunOptions(dry_run=True),
        ),
    )
    for look in looks:
        look()
        assert one(connection, "select count(*) from called") == {"count": 0}
    retry_events(connection, [1, 2], audit=build_audit())
    assert one(connection, "select count(*) from called") == {"count": 1}


def test_many_ids_are_released_in_batches_at_one_pace(connection: Connection) -> None:
    """5,000 a transaction, and the second batch falls due after the first."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " last_error)"
        " select 'order', n::text, 'e', '{}', 'dead', 'x' from generate_series(1, 7000) n"
    )
    done = retry_events(connection, range(1, 7001), audit=build_audit(reason="all"), rate=100.0)
    assert (done.events, done.batches) == (7000, 2)
    span = one(connection, "select max(next_run_at) - min(next_run_at) as span from outbox_event")[
        "span"
    ]
    assert span == timedelta(seconds=69.99)
    assert one(connection, "select array_agg(events order by id) as e from dlq.audit") == {
        "e": [5000, 2000]
    }


def test_parked_events_are_released_page_by_page_at_one_pace(
    outbox: ShapedOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, a page of them is held at a time. A dry run counts them all."""
    connection = outbox.connection
    outbox.add_dead(6)
    park(connection, outbox.event_ids(1, 2, 3, 5, 6))
    monkeypatch.setattr("dlq_pipelines.retries.parked.BATCH", 2)

    def release(*, dry_run: bool = False) -> RetryResult:
        return release_parked(
            connection,
            Selection(all=True),
            max_retries=3,
            audit=build_audit(),
            options=RunOptions(dry_run=dry_run),
            rate=10,
        )

    assert release(dry_run=True) == RetryResult(5, 3)
    assert release() == RetryResult(5, 3)
    assert release() == RetryResult(0, 0)
    assert outbox.count_states() == {"dead": 1, "waiting": 5}
    due = [outbox.read_row(number)["due_at"] for number in outbox.list_numbers("waiting")]
    assert max(due) - min(due) == timedelta(seconds=0.4)
    assert one(connection, "select array_agg(events order by id) as e from dlq.audit") == {
        "e": [2, 2, 1]
    }


def test_the_error_of_a_locked_event_says_so(outbox: ShapedOutbox) -> None:
    """Not that it is not dead; with its payload or another; a moment later it is retried."""
    connection = outbox.connection
    outbox.add_dead(1)
    event = outbox.event_id(1)
    with outbox.database.connect() as other, other.transaction():
        outbox.lock_rows(other, [1])
        held = f"Event {event} is dead, but another transaction holds it"
        for payload in (None, "{}"):
            with pytest.raises(RefusedError, match=held):
                retry_event(
                    connection, event, audit=build_audit(), payload=payload, allow_edit=True
                )
    retry_event(connection, event, audit=build_audit())
    with pytest.raises(NotFoundError, match=f"Event {event} is not dead"):
        retry_event(connection, event, audit=build_audit())


def test_a_retry_with_another_payload_keeps_the_original(outbox: ShapedOutbox) -> None:
    """In the ledger, with who and why; only where it is allowed, and only of a dead event."""
    connection = outbox.connection
    outbox.add_events(2, payload='{"sku": null, "price": 12345678901234567890.10}')
    event, alive = outbox.event_ids(1, 2)
    outbox.give_up([1])
    park(connection, [event])  # of deaths before, which the ledger learned of after this one
    new = '{"sku": "A-1", "price": 0.12345678901234567890}'
    with pytest.raises(RefusedError, match="DLQ_ALLOW_EDIT"):
        retry_with_payload(connection, event, new, audit=build_audit(), allowed=False)
    with pytest.raises(NotFoundError, match=f"Event {alive} is not dead"):
        retry_with_payload(connection, alive, new, audit=build_audit(), allowed=True)
    retry_with_payload(
        connection, event, new, audit=build_audit(), options=RunOptions(dry_run=True), allowed=True
    )
    assert outbox.count_states() == {"dead": 1, "waiting": 1}
    retry_with_payload(connection, event, new, audit=build_audit(), allowed=True)
    row = outbox.read_row(1)
    assert (row["payload"], row["state"]) == (new, "waiting")
    kept = one(
        connection,
        "select payload_before::text as before, actor, reason from dlq.retry where outcome is null",
    )
    assert kept == {
        "before": '{"sku": null, "price": 12345678901234567890.10}',
        "actor": "bob",
        "reason": "asked",
    }


@pytest.mark.parametrize(
    "payload", ["{", "", '{"a": NaN}', r'{"a": "\u0000"}', r'{"a": "\ud800"}', "\x00", "\ud800"]
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_payload_that_cannot_be_stored_is_refused_and_the_event_stays_dead(
    connection: Connection, payload: str, dry_run: bool
) -> None:
    """Said as a wrong argument, also by a dry run."""
    add_events(connection, 1)
    kill(connection, ERROR)
    with pytest.raises(ValueError, match=r"(?i)payload"):
        retry_with_payload(
            connection,
            1,
            payload,
            audit=build_audit(),
            options=RunOptions(dry_run=dry_run),
            allowed=True,
        )
    assert one(connection, "select status, payload from outbox_event") == {
        "status": "dead",
        "payload": {},
    }


def test_an_event_that_dies_again_during_a_retry_by_hand_is_not_retried_twice(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry targets events that were dead when it began, so it ends even if all die again."""
    monkeypatch.setattr("dlq_pipelines.outbox.batches.BATCH", 2)
    add_dead(connection, 6)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " update outbox_event set status = 'dead', last_error = 'again' where id = new.event_id;"
        " return null; end $$;"
        "create constraint trigger die after insert on dlq.retry deferrable initially deferred"
        " for each row execute function die()"
    )
    done = retry_selected(
        connection, Selection(all=True), audit=build_audit(), rate=100.0, max_retries=None
    )
    assert (done.events, done.batches) == (6, 3)
    assert one(connection, "select count(*) as n from dlq.retry")["n"] == 6
