"""Tests that every transition to dead is recorded, and that no write is ever refused for it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import DlqError
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.reconcile import ReconciliationResult, reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.retries.history import get_event_history
from dlq_pipelines.retries.retry import retry_events
from tests.retries.helpers import wait_until_blocked
from tests.rows import add_events, kill, one

UTC_ZONE = ZoneInfo("UTC")
ALL = Selection(all=True)
BALANCED = ReconciliationResult(missing=0, duplicated=0)


def make_audit() -> AuditContext:
    return AuditContext("ann", "tested", datetime.now(UTC))


def classify(connection: Connection) -> int:
    return classify_deaths(connection, zone=UTC_ZONE).deaths


def reconcile(connection: Connection) -> ReconciliationResult:
    return reconcile_events(connection, now=datetime.now(UTC))


def archive(connection: Connection) -> int:
    now = one(connection, "select clock_timestamp() as now")["now"]
    return archive_dead_events(
        connection, before=now, only_exported=False, audit=make_audit()
    ).moved


def list_known(connection: Connection) -> list[int]:
    """Return the ids of the events that are known as dead."""
    rows = connection.execute("select event_id from dlq.dead_now order by event_id, death_id")
    return [row["event_id"] for row in rows]


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ("alter column aggregate_id drop not null", "aggregate_id = null"),
        ("alter column aggregate_type drop not null", "aggregate_type = null"),
        ("alter column event_type drop not null", "event_type = null"),
        ("alter column attempts drop not null", "attempts = null"),
        ("alter column created_at drop not null", "created_at = null"),
        ("alter column next_run_at drop not null", "next_run_at = null"),
        ("set (fillfactor = 90)", "aggregate_id = repeat('x', 4096)"),
        ("set (fillfactor = 90)", "event_type = repeat('x', 4096)"),
        ("set (fillfactor = 90)", "aggregate_type = repeat('x', 4096)"),
        ("set (fillfactor = 90)", "created_at = 'infinity'"),
        ("set (fillfactor = 90)", "created_at = '-infinity'"),
        ("set (fillfactor = 90)", "created_at = '0044-03-15 12:00 BC'"),
        ("set (fillfactor = 90)", "next_run_at = 'infinity'"),
        ("set (fillfactor = 90)", "next_run_at = '-infinity'"),
        ("set (fillfactor = 90)", "last_error = repeat('x', 2000000)"),
    ],
)
def test_any_value_of_the_application_is_recorded_and_read(
    connection: Connection, change: str, values: str
) -> None:
    """Null, long, infinite: the write succeeds, and the event can be listed, retried, archived."""
    connection.execute(f"alter table outbox_event {change}".encode())
    add_events(connection, 2)
    connection.execute(f"update outbox_event set status = 'dead', {values} where id = 1".encode())
    kill(connection, "boom", where="id = 2")
    assert list_known(connection) == [1, 2]
    assert classify(connection) == 2
    assert [event.id for event in list_dead_events(connection).events] == [2, 1]
    assert reconcile(connection) == BALANCED
    assert retry_events(connection, [1], audit=make_audit()).events == 1
    kill(connection, "boom", where="id = 1")
    assert classify(connection) == 1
    assert archive(connection) == 2
    assert reconcile(connection) == BALANCED
    assert restore_events(connection, ALL, audit=make_audit()).events == 2
    assert list_known(connection) == [1, 2]


def test_a_death_is_recorded_by_its_id_if_a_mapped_column_was_dropped(
    connection: Connection,
) -> None:
    """The worker goes on. What the trigger cannot read is empty."""
    add_events(connection, 1)
    connection.execute("alter table outbox_event drop column last_error cascade")
    connection.execute("update outbox_event set status = 'dead'")
    assert one(connection, "select event_id, aggregate_id, error from dlq.death") == {
        "event_id": 1,
        "aggregate_id": "",
        "error": None,
    }


@pytest.mark.parametrize(
    ("type_", "value", "recorded"),
    [
        ("bigint", "9223372036854775807", 2147483647),
        ("numeric", "'NaN'", 2147483647),
        ("text", "'x'", 0),
    ],
)
def test_a_death_is_recorded_although_a_mapped_column_has_another_type(
    connection: Connection, type_: str, value: str, recorded: int
) -> None:
    """The nearest number of attempts that the ledger holds, or by the id alone."""
    add_events(connection, 1)
    connection.execute("drop view dlq.outbox")
    connection.execute(f"alter table outbox_event alter column attempts type {type_}".encode())
    connection.execute(f"update outbox_event set status = 'dead', attempts = {value}".encode())
    assert one(connection, "select event_id, attempts from dlq.death") == {
        "event_id": 1,
        "attempts": recorded,
    }


def test_a_write_succeeds_although_nothing_can_be_recorded(connection: Connection) -> None:
    """The reconciliation records the death later, as missed."""
    add_events(connection, 1)
    connection.execute("alter table dlq.death rename to lost")
    connection.execute("update outbox_event set status = 'dead'")
    connection.execute("alter table dlq.lost rename to death")
    assert list_known(connection) == []
    assert reconcile(connection).missed == 1
    assert list_known(connection) == [1]


def test_an_enum_as_status_is_compared_as_one(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute(
            "create type state as enum ('pending', 'retry', 'done', 'dead');"
            "drop index outbox_event_next_run_at_idx;"
            "alter table outbox_event alter column status drop default,"
            " alter column status type state using status::state,"
            " alter column status set default 'pending'"
        )
        connection.execute(
            "create index on outbox_event (next_run_at) where status in ('pending', 'retry')"
        )
        install_outbox(connection)
        add_events(connection, 1)
        connection.execute("update outbox_event set status = 'dead'")
        assert list_known(connection) == [1]
        assert retry_events(connection, [1], audit=make_audit()).events == 1
        connection.execute("update outbox_event set status = 'dead'")
        assert archive(connection) == 1
        assert restore_events(connection, ALL, audit=make_audit()).events == 1
        assert reconcile(connection) == BALANCED


@pytest.mark.parametrize("timing", ["before", "after"])
def test_an_event_that_a_trigger_of_the_application_kills_is_recorded(
    connection: Connection, timing: str
) -> None:
    """However its row becomes dead."""
    body = (
        "new.status := 'dead'; return new;"
        if timing == "before"
        else "update outbox_event set status = 'dead' where id = new.id; return null;"
    )
    connection.execute(
        "create function give_up() returns trigger language plpgsql as"
        f" $$ begin {body} end $$;"
        f"create trigger a_give_up {timing} update on outbox_event for each row"
        " when (new.attempts >= 3 and new.status <> 'dead') execute function give_up()".encode()
    )
    add_events(connection, 2)
    connection.execute("update outbox_event set attempts = 3 where id = 1")
    connection.execute("update outbox_event set attempts = 2 where id = 2")
    assert list_known(connection) == [1]
    assert reconcile(connection) == BALANCED


ENDINGS = [
    ("delete from outbox_event where id = 1", [2]),
    ("update outbox_event set status = 'pending' where id = 1", [2]),
    ("update outbox_event set status = 'done' where id = 1", [2]),
    ("truncate outbox_event", []),
]


@pytest.mark.parametrize("is_classified", [False, True])
@pytest.mark.parametrize(("statement", "left"), ENDINGS)
def test_a_death_ends_when_its_event_is_no_longer_dead(
    connection: Connection, statement: str, left: list[int], is_classified: bool
) -> None:
    """Classified before or after; an event that dies again has a second death."""
    add_events(connection, 2)
    kill(connection, "boom")
    if is_classified:
        classify(connection)
    connection.execute(statement.encode())
    assert list_known(connection) == left
    assert classify(connection) == (0 if is_classified else 2)
    assert list_known(connection) == left
    connection.execute("update outbox_event set status = 'dead' where id = 1")
    assert one(connection, "select count(*) from dlq.death where event_id = 1") == {
        "count": 2 if statement.startswith("update") else 1
    }


def test_a_row_that_is_inserted_as_dead_is_a_death(connection: Connection) -> None:
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " values ('order', '7', 'order.paid', '{}', 'dead')"
    )
    assert list_known(connection) == [1]
    assert reconcile(connection) == BALANCED


SILENCED = {
    "replica": ("set session_replication_role = replica", "reset session_replication_role"),
    "disabled": (
        "alter table outbox_event disable trigger user",
        "alter table outbox_event enable trigger user",
    ),
}


@pytest.mark.parametrize("way", SILENCED)
def test_what_happened_without_triggers_is_found_by_the_reconciliation(
    connection: Connection, way: str
) -> None:
    """New deaths count as missed; deaths of events that are no longer dead are ended."""
    add_events(connection, 4)
    kill(connection, "boom", where="id <= 2")
    classify(connection)
    kill(connection, "boom", where="id = 3")
    silence, restore = SILENCED[way]
    connection.execute(silence.encode())
    connection.execute("update outbox_event set status = 'done' where id in (1, 3)")
    connection.execute("update outbox_event set status = 'dead', last_error = 'x' where id = 4")
    connection.execute(restore.encode())
    page = list_dead_events(connection, limit=1)  # a page without a dead event is skipped
    assert [event.id for event in page.events] == [2]
    result = reconcile(connection)
    assert (result.missed, result.missing, result.duplicated) == (1, 0, 0)
    assert list_known(connection) == [2, 4]
    assert one(connection, "select event_id, error from dlq.death where was_missed") == {
        "event_id": 4,
        "error": "x",
    }
    assert reconcile(connection) == BALANCED


@pytest.mark.parametrize("classified", [True, False])
def test_a_dead_event_whose_key_changes_is_another_dead_event(
    connection: Connection, classified: bool
) -> None:
    """The old one is no longer dead; the list shows the new one, and no empty page."""
    add_events(connection, 3)
    kill(connection, "boom")
    if classified:
        classify(connection)
    connection.execute("update outbox_event set id = id + 100 where id >= 2")
    assert list_known(connection) == [1, 102, 103]
    page = list_dead_events(connection, limit=2)
    assert {event.id for event in page.events} == {102, 103}
    assert [event.id for event in list_dead_events(connection, after=page.next).events] == [1]
    result = reconcile(connection)
    assert (result.missed, result.event_ids) == (0, (2, 3))  # which no longer exist
    connection.execute("update outbox_event set attempts = 9, id = id where id = 1")
    assert one(connection, "select count(*) from dlq.death") == {"count": 5}


def test_a_table_in_partitions_by_status_is_followed(empty_database: Database) -> None:
    """An update of the status moves the row: a delete and an insert."""
    with empty_database.connect() as connection:
        connection.execute(
            "create table outbox_event (id bigserial, aggregate_type text not null,"
            " aggregate_id text not null, event_type text not null, payload jsonb not null,"
            " status text not null default 'pending', attempts integer not null default 0,"
            " next_run_at timestamptz not null default now(),"
            " created_at timestamptz not null default now(), primary key (status, id))"
            " partition by list (status);"
            "create table outbox_live partition of outbox_event for values in ('pending', 'retry');"
            "create table outbox_dead partition of outbox_event for values in ('dead');"
            "create table outbox_done partition of outbox_event for values in ('done')"
        )
        install_outbox(connection)
        add_events(connection, 3)
        kill(connection, "boom")
        assert list_known(connection) == [1, 2, 3]
        connection.execute("update outbox_event set status = 'done' where id = 1")
        classify(connection)
        assert retry_events(connection, [2], audit=make_audit()).events == 1
        assert list_known(connection) == [3]
        kill(connection, "boom", where="id = 2")
        assert archive(connection) == 2
        assert restore_events(connection, Selection(event_ids=(3,)), audit=make_audit()).events == 1
        assert list_known(connection) == [3]
        assert reconcile(connection) == BALANCED


def test_an_event_with_a_reused_id_inherits_nothing(connection: Connection) -> None:
    """Neither retries nor deaths of the event that had its id before."""
    add_events(connection, 1)
    for _ in range(3):
        kill(connection, "boom")
        retry_events(connection, [1], audit=make_audit())
    kill(connection, "boom")
    classify(connection)
    connection.execute("truncate outbox_event restart identity")
    assert list_known(connection) == []
    add_events(connection, 1)
    kill(connection, "boom")
    classify(connection)
    assert list_known(connection) == [1]
    parked = connection.fetch_one("reconcile.observe")
    assert parked["dead"] == 1
    history = get_event_history(connection, 1)
    assert (history.place, len(history.deaths), history.retries) == ("outbox", 1, ())
    done = retry_events(connection, [1], audit=make_audit())
    assert done.events == 1


REFERENCE = (
    "create table line (event_id bigint references outbox_event on delete {});"
    "insert into line values (2)"
)


def test_an_event_that_a_foreign_key_restricts_stays_and_the_others_go(
    connection: Connection,
) -> None:
    add_events(connection, 3)
    kill(connection, "boom")
    connection.execute(REFERENCE.format("restrict").encode())
    assert archive(connection) == 2
    assert list_known(connection) == [2]
    connection.execute("delete from line")
    assert archive(connection) == 1


@pytest.mark.parametrize("action", ["cascade", "set null"])
def test_a_foreign_key_that_would_change_rows_refuses_the_archive(
    connection: Connection, action: str
) -> None:
    """The reason and the remedy are named, and nothing moves."""
    add_events(connection, 3)
    kill(connection, "boom")
    connection.execute(REFERENCE.format(action).encode())
    with pytest.raises((DlqError, psycopg.Error), match=f"says on delete {action}"):
        archive(connection)
    assert list_known(connection) == [1, 2, 3]
    assert one(connection, "select count(*) from line where event_id = 2") == {"count": 1}


CLASSIFIED_THEN: dict[str, tuple[Callable[[Connection], Any], list[int]]] = {
    "revived": (lambda c: c.execute("update outbox_event set status = 'pending' where id = 1"), []),
    "deleted": (lambda c: c.execute("delete from outbox_event where id = 1"), []),
    "truncated": (lambda c: c.execute("truncate outbox_event"), []),
    "retried": (lambda c: retry_events(c, [1], audit=make_audit()), []),
    "archived": (archive, []),
}


@pytest.mark.parametrize("change", CLASSIFIED_THEN)
def test_an_event_that_stops_being_dead_during_its_classification_is_not_known_as_dead(
    connection: Connection, database: Database, change: str
) -> None:
    """The change waits for the classification and finds what it wrote."""
    add_events(connection, 1)
    kill(connection, "boom")
    change_it, left = CLASSIFIED_THEN[change]
    with database.connect() as own, database.connect() as other, ThreadPoolExecutor(1) as pool:
        with own.transaction():
            batch = own.fetch_one("cause.take_batch", limit=9, after_time="-infinity", after_id=0)
            own.execute(
                "insert into dlq.cause (id, exception_type, template, first_seen,"
                " last_seen) values ('c', 'Error', '', now(), now())"
            )
            own.fetch_one(
                "cause.assign",
                deaths=batch["ids"],
                places=[1],
                causes=["c"],
                details=[""],
                zone="UTC",
            )
            changing = pool.submit(change_it, other)
            wait_until_blocked(other, by=connection)
        changing.result()
    assert list_known(connection) == left
    assert one(connection, "select count(*) from dlq.dead") == {"count": 0}


@pytest.mark.parametrize("change", CLASSIFIED_THEN)
def test_a_classification_during_a_change_leaves_nothing_known_as_dead(
    connection: Connection, database: Database, change: str
) -> None:
    """It skips the death while the change holds it, and classifies it afterwards as ended."""
    add_events(connection, 1)
    kill(connection, "boom")
    change_it, left = CLASSIFIED_THEN[change]
    with database.connect() as other:
        with other.transaction():
            change_it(other)
            assert classify(connection) == 0
        assert classify(connection) == 1
    assert list_known(connection) == left
    assert one(connection, "select count(*) from dlq.dead") == {"count": 0}


def test_an_event_that_is_restored_during_the_classification_of_its_death_is_known_as_dead(
    connection: Connection, database: Database
) -> None:
    """Its death was archived before it was classified."""
    add_events(connection, 1)
    kill(connection, "boom")
    assert archive(connection) == 1
    with database.connect() as own, database.connect() as other, ThreadPoolExecutor(1) as pool:
        with own.transaction():
            batch = own.fetch_one("cause.take_batch", limit=9, after_time="-infinity", after_id=0)
            own.execute(
                "insert into dlq.cause (id, exception_type, template, first_seen,"
                " last_seen) values ('c', 'Error', '', now(), now())"
            )
            own.fetch_one(
                "cause.assign",
                deaths=batch["ids"],
                places=[1],
                causes=["c"],
                details=[""],
                zone="UTC",
            )
            restoring = pool.submit(restore_events, other, ALL, audit=make_audit())
            wait_until_blocked(other, by=connection)
        assert restoring.result().events == 1
    assert list_known(connection) == [1]
    assert one(connection, "select cause_id from dlq.dead") == {"cause_id": "c"}


def test_a_restore_that_a_classification_overtakes_is_known_as_dead_once(
    connection: Connection, database: Database
) -> None:
    """The classification skips the death that the restore holds."""
    add_events(connection, 1)
    kill(connection, "boom")
    assert archive(connection) == 1
    with database.connect() as other:
        with other.transaction():
            assert restore_events(other, ALL, audit=make_audit()).events == 1
            assert classify(connection) == 0
        assert list_known(connection) == [1]
        assert classify(connection) == 1
    assert list_known(connection) == [1]
    assert one(connection, "select count(*) from dlq.dead") == {"count": 1}


def test_a_change_in_repeatable_read_during_a_classification_is_found_by_the_reconciliation(
    connection: Connection, database: Database
) -> None:
    """The trigger cannot see what the classification wrote, and does not refuse the change."""
    add_events(connection, 1)
    kill(connection, "boom")
    with database.connect() as other:
        other.execute("begin isolation level repeatable read")
        other.execute("select from outbox_event")
        assert classify(connection) == 1
        other.execute("update outbox_event set status = 'done'")
        other.execute("commit")
    assert one(connection, "select status from outbox_event") == {"status": "done"}
    reconcile(connection)
    assert list_known(connection) == []


def test_the_trigger_calls_nothing_that_a_worker_could_put_in_its_way(
    connection: Connection,
) -> None:
    """It has the rights of its owner and the search path of the worker."""
    add_events(connection, 1)
    connection.execute(
        "create table called (by text);"
        "create schema evil;"
        "create function evil.call(oid) returns boolean language plpgsql as"
        " $$ begin insert into public.called values ('regclass'); return true; end $$;"
        "create domain evil.regclass as oid check (evil.call(value));"
        "create function evil.same(text, text) returns boolean language plpgsql as"
        " $$ begin insert into public.called values ('='); return true; end $$;"
        "create operator evil.= (leftarg = text, rightarg = text, function = evil.same);"
        "create function evil.clock_timestamp() returns timestamptz language plpgsql as"
        " $$ begin insert into public.called values ('clock'); return now(); end $$"
    )
    connection.execute("set search_path = evil, public, pg_catalog")
    connection.execute("update outbox_event set status = 'dead'")
    connection.execute("update outbox_event set status = 'done'")
    connection.execute("alter table dlq.death rename to lost")  # not even the id is recorded
    connection.execute("update outbox_event set status = 'dead'")
    connection.execute("reset search_path")
    assert one(connection, "select count(*) from called") == {"count": 0}


def test_serializable_sessions_that_revive_different_events_do_not_conflict(
    connection: Connection, database: Database
) -> None:
    """The ledger is small and was never analyzed. Without triggers they do not conflict either."""
    add_events(connection, 2_000)
    connection.execute("vacuum analyze outbox_event")
    kill(connection, "KeyError: 'sku'", where="id % 100 = 1")
    with database.connect() as one_session, database.connect() as other:
        for session in (one_session, other):
            session.execute("set default_transaction_isolation = 'serializable'")
        with one_session.transaction():
            one_session.execute("update outbox_event set status = 'pending' where id = 1")
            with other.transaction():
                other.execute("update outbox_event set status = 'pending' where id = 1901")
            locks = one(
                one_session,
                "select array_agg(relation::regclass::text order by relation) as names"
                " from pg_locks where pid = pg_backend_pid() and mode = 'SIReadLock'"
                " and (locktype = 'relation' or relation = 'dlq.death_unclassified'::regclass)",
            )
    assert set(locks["names"] or ()) <= {"dlq.dead_event_id"}  # an empty index has no page to lock
    assert one(connection, "select count(*) from dlq.dead_now") == {"count": 18}
