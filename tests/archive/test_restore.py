"""Tests that restored events are dead again, unchanged and once, and that fixes can select them."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.archive import restore
from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.restore import (
    RestoreResult,
    build_nothing_restored_error,
    restore_events,
)
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from tests.rows import deaths_at, one
from tests.shapes import ShapedOutbox

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("ann", "late fix", NOW)
ERROR = "KeyError: 1"
ALL = Selection(all=True)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "BATCH", 10)


def add_dead_events(
    connection: Connection, count: int, *, error: str = ERROR, event_type: str = "e"
) -> None:
    """Add classified dead events, one death a minute."""
    first = f"timestamptz '{(NOW - timedelta(days=40)).isoformat()}'"
    with deaths_at(connection, f"{first} + d.aggregate_id::int * interval '1 minute'"):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " attempts, last_error)"
            " select 'order', n::text, %s, '{\"n\": 12345678901234567890.10}', 'dead', 5, %s"
            " from generate_series(1, %s) n order by n",
            [event_type, error, count],
        )
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def add_old_deaths(
    outbox: ShapedOutbox, count: int, *, error: str = ERROR, event_type: str = "e"
) -> None:
    """Add classified dead events of any shape, one death a minute."""
    first = f"timestamptz '{(NOW - timedelta(days=40)).isoformat()}'"
    before = outbox.written
    with deaths_at(outbox.connection, f"{first} + (d.id - {before}) * interval '1 minute'"):
        outbox.add_dead(count, error=error, event_type=event_type, classified=False)
    classify_deaths(outbox.connection, zone=ZoneInfo("UTC"))


def run_archive(connection: Connection) -> int:
    """Archive all dead events; return their number."""
    return archive_dead_events(
        connection, before=NOW, only_exported=False, audit=replace(AUDIT, reason="r")
    ).moved


def count_events(connection: Connection) -> tuple[int, int]:
    """Return the numbers of events in the outbox and in the archive."""
    counts = one(
        connection,
        "select (select count(*) from outbox_event) as outbox,"
        " (select count(*) from dlq.archived) as archive",
    )
    return counts["outbox"], counts["archive"]


def test_a_restored_event_is_unchanged_and_has_no_second_death(connection: Connection) -> None:
    """Byte by byte, with generated columns and values that only their types keep apart."""
    connection.execute(
        "alter table outbox_event add column number numeric default 1.10,"
        " add column raw bytea default '\\x00ff', add column tags text[] default '{a,NULL,\"\"}',"
        ' add column document json default \'{ "a" : 1, "a":2}\','
        " add column at timestamp default 'infinity', add column code char(5) default 'x',"
        " add column twice bigint generated always as (id * 2) stored,"
        " add column \"select\" text default ''"
    )
    install_outbox(connection)
    add_dead_events(connection, 25)
    rows = "select e::text as row, e.payload::text from outbox_event e order by id"
    before = connection.execute(rows).fetchall()
    for _ in range(2):
        assert run_archive(connection) == 25
        assert restore_events(connection, ALL, audit=AUDIT) == RestoreResult(
            25, 3, blocked=0, discarded=0, locked=0
        )
        assert connection.execute(rows).fetchall() == before
    assert one(connection, "select count(*) as n from dlq.death") == {"n": 25}
    assert restore_events(connection, ALL, audit=AUDIT) == RestoreResult(0, 0, 0, 0, 0)
    audit = (
        "select array_agg(events order by id) as n from dlq.audit where kind = 'archive.restore'"
    )
    assert one(connection, audit) == {"n": [10, 10, 5] * 2}
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": 0,
        "duplicated": 0,
        "event_ids": None,
    }


@pytest.mark.parametrize(
    ("selection", "restored"),
    [
        (Selection(cause=compute_cause_id(ERROR)), {1, 2, 3}),
        (Selection(event_ids=(2, 5, 99)), {2, 5}),
        (Selection(event_type="f"), {4, 5}),
        (Selection(error_contains="other"), {4, 5}),
        (
            Selection(cause=compute_cause_id(ERROR), since=NOW - timedelta(days=40, minutes=-3)),
            {3},
        ),
        (ALL, {1, 2, 3, 4, 5}),
    ],
    ids=["a cause", "ids", "a type", "a text", "times", "all"],
)
def test_only_selected_events_are_restored(
    outbox: ShapedOutbox, selection: Selection, restored: set[int]
) -> None:
    """The dry run returns the same number and changes nothing."""
    connection = outbox.connection
    add_old_deaths(outbox, 3)
    add_old_deaths(outbox, 2, error="ValueError: other", event_type="f")
    before = outbox.read_text()
    run_archive(connection)
    if selection.event_ids is not None:
        ids = tuple(map(int, selection.event_ids))
        selection = replace(selection, event_ids=tuple(outbox.event_ids(*ids)))
    assert restore_events(
        connection, selection, audit=AUDIT, options=RunOptions(dry_run=True)
    ).events == len(restored)
    assert outbox.count_rows() == (0, 5)
    assert restore_events(connection, selection, audit=AUDIT).events == len(restored)
    assert {row["n"] for row in outbox.read_rows()} == restored
    assert set(outbox.read_text()) <= set(before)


def test_blocked_and_discarded_events_stay_archived_and_are_counted(outbox: ShapedOutbox) -> None:
    """A discarded event is restored if its id is given."""
    connection = outbox.connection
    add_old_deaths(outbox, 3)
    first, second = outbox.event_ids(1, 2)
    discard_events(connection, Selection(event_ids=(first,)), audit=AUDIT)
    run_archive(connection)
    outbox.written = 1  # the next event has the id of the second
    outbox.add_events(1)
    assert restore_events(connection, ALL, audit=AUDIT) == RestoreResult(
        1, 1, blocked=1, discarded=1, locked=0
    )
    named = Selection(event_ids=(first, second))
    assert restore_events(connection, named, audit=AUDIT) == RestoreResult(
        1, 1, blocked=1, discarded=0, locked=0
    )
    assert one(connection, "select count(*) as n from dlq.discard") == {"n": 0}


def test_one_of_two_archived_events_of_the_same_id_is_restored(outbox: ShapedOutbox) -> None:
    """Ids begin again after a truncate. The outbox has room for one: the last that died."""
    connection = outbox.connection
    for _ in range(2):
        add_old_deaths(outbox, 2)
        run_archive(connection)
        connection.execute(f"truncate {outbox.shape.table}".encode())
        outbox.written = 0  # ids begin again
    for restored in (2, 0):
        done = restore_events(connection, ALL, audit=AUDIT)
        assert done == RestoreResult(restored, restored // 2, blocked=2, discarded=0, locked=0)
    kept = "select array_agg(dlq_death_id order by dlq_death_id) as ids from dlq.archived"
    assert one(connection, kept) == {"ids": [1, 2]}
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": 0,
        "duplicated": 0,
        "event_ids": None,
    }


def test_locked_events_stay_archived_and_are_counted(outbox: ShapedOutbox) -> None:
    """In a dry run too. The error for given ids names the reason."""
    connection = outbox.connection
    add_old_deaths(outbox, 3)
    run_archive(connection)
    first, second = outbox.event_ids(1, 2)
    named = Selection(event_ids=(first, second))
    with outbox.database.connect() as other, other.transaction():
        other.execute("select from dlq.archived order by dlq_death_id limit 2 for update")
        held = restore_events(connection, named, audit=AUDIT)
        assert held == RestoreResult(0, 0, blocked=0, discarded=0, locked=2)
        for dry_run in (True, False):
            done = restore_events(connection, ALL, audit=AUDIT, options=RunOptions(dry_run=dry_run))
            assert done == RestoreResult(1, 1, blocked=0, discarded=0, locked=2)
    assert outbox.count_rows() == (1, 2)
    for done, kind, message in (
        (held, RefusedError, "Other transactions hold these 2 events"),
        (
            RestoreResult(0, 0, blocked=1, discarded=0, locked=0),
            RefusedError,
            "1 event stays archived: the outbox has an event of the same id.",
        ),
        (
            RestoreResult(0, 0, blocked=0, discarded=0, locked=0),
            NotFoundError,
            "None of these events is archived as dead",
        ),
    ):
        error = build_nothing_restored_error(done)
        assert (type(error), message in str(error)) == (kind, True)


def test_a_later_fix_releases_restored_events(outbox: ShapedOutbox) -> None:
    connection = outbox.connection
    add_old_deaths(outbox, 3)
    run_archive(connection)
    restore_events(connection, ALL, audit=AUDIT)
    now = datetime.now(UTC)
    flag = FixFlag(Selection(cause=compute_cause_id(ERROR)), RetryPolicy())
    fix = flag_fix(connection, flag, audit=replace(AUDIT, now=now))
    assert (
        advance_fix(connection, fix.id, audit=replace(AUDIT, now=now), terms=FixTerms()).released
        == 3
    )


def test_concurrent_restores_restore_each_event_once(
    connection: Connection, database: Database
) -> None:
    """Each skips the events that another one has locked."""
    add_dead_events(connection, 100)
    run_archive(connection)

    def run(_: int) -> int:
        with database.connect() as own:
            return restore_events(own, ALL, audit=AUDIT).events

    with ThreadPoolExecutor(3) as pool:
        assert (
            sum(pool.map(run, range(3))) + restore_events(connection, ALL, audit=AUDIT).events
            == 100
        )
    assert count_events(connection) == (100, 0)


def test_a_killed_run_leaves_whole_batches_and_the_next_run_continues(
    connection: Connection, database: Database
) -> None:
    """Each event is in exactly one of the two tables."""
    add_dead_events(connection, 25)
    run_archive(connection)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from outbox_event) > 10"
        " then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$;"
        " create trigger die before insert on dlq.audit for each row execute function die()"
    )
    with database.connect() as own, pytest.raises(psycopg.OperationalError):
        restore_events(own, ALL, audit=AUDIT)
    assert count_events(connection) == (10, 15)
    connection.execute("drop trigger die on dlq.audit")
    assert restore_events(connection, ALL, audit=AUDIT).events == 15


@pytest.mark.parametrize(
    "selection",
    [ALL, Selection(cause=compute_cause_id(ERROR)), Selection(event_ids=(1, 2))],
    ids=str,
)
def test_no_page_scans_whole_tables(outbox: ShapedOutbox, selection: Selection) -> None:
    """For all events, for a cause, and for ids."""
    connection = outbox.connection
    add_old_deaths(outbox, 3000)
    run_archive(connection)
    outbox.add_events(20_000)
    connection.execute(
        f"insert into dlq.archived select t.*, {outbox.shape.number}, now()"
        f" from {outbox.shape.table} t".encode()
    )
    connection.execute(f"delete from {outbox.shape.table}".encode())
    outbox.add_events(20_000)
    connection.execute(
        "insert into dlq.death"
        " (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)"
        f" select {outbox.shape.key_of}, 'o', n::text, 'e', 5, '2026-01-01Z', 'x'"
        " from generate_series(100001, 150000) n".encode()
    )
    if selection.event_ids is not None:
        selection = Selection(event_ids=tuple(outbox.event_ids(1, 2)))
    connection.execute("analyze")
    values = {
        **build_selection_parameters(connection, selection, before=None),
        "limit": 100,
        "after_time": NOW - timedelta(days=99),
    }
    text = connection.render_query("archive.restorable", **values, after_id=0)
    plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode()))
    assert not re.search(outbox.scan, plan), plan
