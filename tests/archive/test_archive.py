"""Tests that old, exported dead events without an open fix are archived unchanged and once."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from dlq_pipelines.archive import archive
from dlq_pipelines.archive.archive import ArchiveResult, archive_dead_events, discard_events
from dlq_pipelines.archive.purge import PurgeResult, purge_deaths
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.definitions import defs
from dlq_pipelines.errors import RefusedError, SchemaError
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from tests.rows import deaths_at, one, wait_for_blocked_session
from tests.runs import read_result
from tests.shapes import ShapedOutbox

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")
INSERT_DEAD = """
    insert into outbox_event (
        aggregate_type,
        aggregate_id,
        event_type,
        payload,
        status,
        attempts,
        last_error,
        last_error_at
    )
    select
        'order',
        n::text,
        %(type)s,
        '{"n": 12345678901234567890}',
        'dead',
        5,
        %(error)s,
        %(at)s
    from generate_series(1, %(count)s) n
"""
BALANCED = {"missing": 0, "duplicated": 0, "event_ids": None}
# Puts an event of the outbox into the archive too.
DUPLICATE = """
    insert into dlq.archived
    select o.*, -d.id, now() from outbox_event o join dlq.death d on d.event_id = o.id
    where o.id = 2
"""


def add_deaths_at(
    connection: Connection, count: int, at: datetime, error: str = "x", event_type: str = "paid"
) -> None:
    """Add dead events with this time of death."""
    with deaths_at(connection, at):
        connection.execute(
            INSERT_DEAD, {"count": count, "at": at, "error": error, "type": event_type}
        )


def add_deaths(
    connection: Connection,
    count: int,
    *,
    days_ago: float,
    error: str = "KeyError: 'a'",
    event_type: str = "paid",
) -> None:
    """Add dead events that died so many days ago."""
    add_deaths_at(connection, count, NOW - timedelta(days=days_ago), error, event_type)


def add_old_deaths(
    outbox: ShapedOutbox,
    count: int,
    *,
    days_ago: float,
    error: str = "KeyError: 'a'",
    event_type: str = "paid",
) -> None:
    """Add dead events of any shape that died so many days ago."""
    with deaths_at(outbox.connection, NOW - timedelta(days=days_ago)):
        outbox.add_dead(count, error=error, event_type=event_type, classified=False)


def flag_first_cause(
    connection: Connection, *, days_ago: float = 0, event_type: str | None = None
) -> int:
    """Classify the deaths and flag a fix for the cause of the first one; return the fix."""
    classify_deaths(connection, zone=ZONE)
    cause = one(connection, "select cause_id from dlq.death order by id limit 1")["cause_id"]
    at = NOW - timedelta(days=days_ago)
    selection = Selection(cause=cause, event_type=event_type)
    return flag_fix(connection, FixFlag(selection), audit=AuditContext("ann", "n", at)).id


def export_and_verify(
    connection: Connection, database: Database, folder: Path, *, days_ago: int
) -> None:
    """Export the day that is so many days ago, and verify its files."""
    classify_deaths(connection, zone=ZONE)
    day = Day.of((NOW - timedelta(days=days_ago)).astimezone(ZONE).date(), ZONE)
    export_day(connection, url=database.url, day=day, target=open_local_target(folder), now=NOW)
    assert verify_day(connection, day=day, target=open_local_target(folder), now=NOW) == []


def run_archive(
    connection: Connection, *, only_exported: bool = False, dry_run: bool = False
) -> ArchiveResult:
    """Archive the events that have been dead for more than 30 days."""
    return archive_dead_events(
        connection,
        before=NOW - timedelta(days=30),
        only_exported=only_exported,
        audit=AuditContext("job", "retention", NOW),
        options=RunOptions(dry_run=dry_run),
    )


def count_events(connection: Connection) -> tuple[int, int]:
    """Return the numbers of events in the outbox and in the archive."""
    counts = one(
        connection,
        "select (select count(*) from outbox_event) as outbox,"
        " (select count(*) from dlq.archived) as archive",
    )
    return counts["outbox"], counts["archive"]


def count_audited_events(connection: Connection) -> int:
    """Return the number of archived events by the audit log."""
    total = "select coalesce(sum(events), 0)::int as n from dlq.audit where kind = 'archive.move'"
    return int(one(connection, total)["n"])


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ten."""
    monkeypatch.setattr(archive, "BATCH", 10)


def test_old_dead_events_are_archived_unchanged(outbox: ShapedOutbox) -> None:
    """Other events stay in the outbox. A second run archives nothing."""
    connection = outbox.connection
    add_old_deaths(outbox, 2, days_ago=31)
    add_old_deaths(outbox, 3, days_ago=29)
    outbox.add_events(1)
    outbox.give_up([1], "Zoë", attempts=7)
    rows = f"select *, {outbox.shape.columns['payload']} as text from {{}} order by {{}}"
    key, table = outbox.shape.key, outbox.shape.table
    before = connection.execute(rows.format(table, f"{key} limit 2").encode()).fetchall()
    assert run_archive(connection) == ArchiveResult(moved=2, batches=1, left=0)
    after = connection.execute(rows.format("dlq.archived", key).encode()).fetchall()
    assert after == [
        {**row, "dlq_death_id": death, "dlq_archived_at": NOW}
        for death, row in enumerate(before, start=1)
    ]
    assert outbox.count_rows() == (4, 2)
    assert run_archive(connection) == ArchiveResult(moved=0, batches=0, left=0)
    assert count_audited_events(connection) == 2


@pytest.mark.usefixtures("_small_batches")
def test_events_are_archived_in_batches_each_with_its_audit_entry(outbox: ShapedOutbox) -> None:
    """Batches can divide events that died at the same microsecond."""
    connection = outbox.connection
    add_old_deaths(outbox, 25, days_ago=40)
    assert run_archive(connection) == ArchiveResult(moved=25, batches=3, left=0)
    rows = connection.execute(
        "select events, filter, actor, reason from dlq.audit order by id"
    ).fetchall()
    assert [row["events"] for row in rows] == [10, 10, 5]
    before = (NOW - timedelta(days=30)).isoformat()
    assert {(row["filter"]["before"], row["actor"], row["reason"]) for row in rows} == {
        (before, "job", "retention")
    }


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("only_exported", [False, True], ids=["all days", "exported days"])
def test_a_dry_run_returns_the_result_of_the_real_run(
    connection: Connection, database: Database, tmp_path: Path, *, only_exported: bool
) -> None:
    """It moves nothing. The events include every reason to stay in the outbox."""
    add_deaths(connection, 3, days_ago=31)
    add_deaths(connection, 12, days_ago=31, error="ValueError: b")
    add_deaths(connection, 4, days_ago=32, error="ValueError: b")
    add_deaths(connection, 5, days_ago=29)
    connection.execute(
        "create table line (event_id bigint references outbox_event);"
        " insert into line values (4), (16)"
    )
    flag_first_cause(connection)
    export_and_verify(connection, database, tmp_path, days_ago=31)
    preview = run_archive(connection, only_exported=only_exported, dry_run=True)
    assert count_events(connection) == (24, 0)
    assert count_audited_events(connection) == 0
    expected = (
        ArchiveResult(moved=14, batches=2, left=5)
        if not only_exported
        else ArchiveResult(moved=11, batches=2, left=8)
    )
    assert preview == run_archive(connection, only_exported=only_exported) == expected


@pytest.mark.parametrize(
    ("flagged_days_ago", "event_type", "kept"),
    [(0, None, {1, 2, 3}), (0, "paid", {1, 2}), (32, None, {1}), (32, "paid", {1})],
)
def test_events_that_an_open_fix_selects_stay(
    outbox: ShapedOutbox, flagged_days_ago: int, event_type: str | None, kept: set[int]
) -> None:
    """Events of its cause and type that died before it was flagged stay until it is closed."""
    connection = outbox.connection
    add_old_deaths(outbox, 1, days_ago=33)
    add_old_deaths(outbox, 1, days_ago=31)
    add_old_deaths(outbox, 1, days_ago=31, event_type="sent")
    add_old_deaths(outbox, 1, days_ago=33, error="ValueError: b")
    fix = flag_first_cause(connection, days_ago=flagged_days_ago, event_type=event_type)
    assert run_archive(connection) == ArchiveResult(moved=4 - len(kept), batches=1, left=len(kept))
    assert {row["n"] for row in outbox.read_rows()} == kept
    connection.execute(
        "update dlq.fix set status = 'halted', closed_at = now() where id = %s", [fix]
    )
    assert run_archive(connection) == ArchiveResult(moved=len(kept), batches=1, left=0)


def test_only_completely_exported_days_are_archived(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """A death that is recorded late makes its day incomplete until the next export of the day."""
    add_deaths(connection, 2, days_ago=31)
    add_deaths(connection, 3, days_ago=32)
    assert run_archive(connection, only_exported=True) == ArchiveResult(moved=0, batches=0, left=5)
    export_and_verify(connection, database, tmp_path, days_ago=31)
    add_deaths(connection, 1, days_ago=31)
    assert run_archive(connection, only_exported=True).moved == 0
    export_and_verify(connection, database, tmp_path, days_ago=31)
    assert run_archive(connection, only_exported=True) == ArchiveResult(moved=3, batches=1, left=3)
    assert one(
        connection, "select count(*) as n from dlq.dead_now where died_at > '2026-10-20'"
    ) == {"n": 0}


def test_the_rest_of_a_day_is_archived_after_a_part_of_its_deaths_was_purged(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """The files contain the purged deaths: they stay valid, and no smaller export replaces them."""
    add_deaths(connection, 3, days_ago=31)
    add_deaths(connection, 1, days_ago=33)
    for days_ago in (31, 33):
        export_and_verify(connection, database, tmp_path, days_ago=days_ago)
    connection.execute("update outbox_event set status = 'done' where id in (1, 2)")
    before, audit = NOW - timedelta(days=30), AuditContext("job", "retention", NOW)
    assert purge_deaths(connection, before=before, audit=audit) == PurgeResult(2, 1)
    day = Day.of((NOW - timedelta(days=31)).astimezone(ZONE).date(), ZONE)
    assert verify_day(connection, day=day, target=open_local_target(tmp_path), now=NOW) == []
    with pytest.raises(RefusedError, match="another export would hold less"):
        export_and_verify(connection, database, tmp_path, days_ago=31)
    assert run_archive(connection, only_exported=True) == ArchiveResult(moved=2, batches=1, left=0)
    counts = "select rows, purged from dlq.export_day order by day"
    assert [tuple(row.values()) for row in connection.execute(counts.encode())] == [(1, 0), (3, 2)]


@pytest.mark.parametrize(
    ("zone", "at", "day"),
    [
        ("Europe/Berlin", datetime(2026, 10, 1, 22, 30, tzinfo=UTC), date(2026, 10, 2)),
        ("CET", datetime(2026, 10, 1, 22, 30, tzinfo=UTC), date(2026, 10, 2)),
        ("Atlantic/Azores", datetime(2025, 10, 26, 0, 30, tzinfo=UTC), date(2025, 10, 26)),
        ("Pacific/Kiritimati", datetime(2026, 10, 1, 10, tzinfo=UTC), date(2026, 10, 2)),
        ("Etc/GMT+12", datetime(2026, 10, 1, 11, tzinfo=UTC), date(2026, 9, 30)),
    ],
)
def test_the_day_of_an_event_is_the_day_in_the_time_zone_of_the_export(
    connection: Connection, zone: str, at: datetime, day: date
) -> None:
    """Not the day in UTC, and not in the zone of PostgreSQL, which differs for CET and Azores."""
    add_deaths_at(connection, 1, at)
    for other, rows in ((day - timedelta(days=1), 0), (day + timedelta(days=1), 0), (day, 1)):
        assert run_archive(connection, only_exported=True).moved == 0
        span = Day.of(other, ZoneInfo(zone))
        connection.execute(
            "insert into dlq.export_day"
            " (day, starts_at, ends_at, rows, files, exported_at, verified_at)"
            " values (%s, %s, %s, %s, '[]', now(), now())",
            [other, span.start, span.until, rows],
        )
    assert run_archive(connection, only_exported=True).moved == 1


def test_an_event_whose_id_is_in_the_archive_already_is_archived(outbox: ShapedOutbox) -> None:
    """Ids begin again after a truncate. The archive has both events, and both are accounted for."""
    connection = outbox.connection
    add_old_deaths(outbox, 3, days_ago=32)
    assert run_archive(connection).moved == 3
    connection.execute(f"truncate {outbox.shape.table}".encode())
    outbox.written = 0  # ids begin again
    add_old_deaths(outbox, 2, days_ago=31)
    assert run_archive(connection) == ArchiveResult(moved=2, batches=1, left=0)
    assert outbox.count_rows() == (0, 5)
    ids = f"select array_agg({outbox.shape.number} order by dlq_death_id) as ids from dlq.archived"
    assert one(connection, ids) == {"ids": [1, 2, 3, 1, 2]}
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED


@pytest.mark.usefixtures("_small_batches")
def test_a_killed_run_leaves_whole_batches_and_the_next_run_continues(outbox: ShapedOutbox) -> None:
    """The connection ends in the third batch, after the move and before its audit entry."""
    connection = outbox.connection
    add_old_deaths(outbox, 45, days_ago=31)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from dlq.audit) = 2"
        " then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$;"
        "create trigger die before insert on dlq.audit for each row execute function die()"
    )
    with outbox.database.connect() as own, pytest.raises(psycopg.OperationalError):
        run_archive(own)
    assert outbox.count_rows() == (25, 20)
    assert count_audited_events(connection) == 20
    connection.execute("drop trigger die on dlq.audit")
    assert run_archive(connection).moved == 25
    assert outbox.count_rows() == (0, 45)


@pytest.mark.usefixtures("_small_batches")
def test_concurrent_runs_archive_each_event_once(
    connection: Connection, database: Database
) -> None:
    """Each skips the events that another one has locked."""
    add_deaths(connection, 200, days_ago=31)
    together = threading.Barrier(4)

    def run(_: int) -> int:
        with database.connect() as own:
            together.wait()
            return run_archive(own).moved

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run, range(4))) + run_archive(connection).moved == 200
    assert count_events(connection) == (0, 200)
    assert count_audited_events(connection) == 200


@pytest.mark.usefixtures("_small_batches")
def test_a_run_does_not_wait_for_another(connection: Connection, database: Database) -> None:
    """One waits in its first batch; the other archives the rest. Each returns its own number."""
    add_deaths(connection, 45, days_ago=31)
    connection.execute(
        "create function wait() returns trigger language plpgsql as $$ begin"
        " if current_setting('application_name') = 'slow'"
        " then perform pg_advisory_xact_lock(7); end if; return new; end $$;"
        "create trigger wait before insert on dlq.audit for each row execute function wait()"
    )
    connection.execute("select pg_advisory_lock(7)")
    with database.connect() as slow, ThreadPoolExecutor(1) as pool:
        slow.execute("set application_name = 'slow'; set lock_timeout = 0")
        first = pool.submit(run_archive, slow)
        try:
            wait_for_blocked_session(connection)
            assert run_archive(connection) == ArchiveResult(moved=35, batches=4, left=0)
        finally:
            connection.execute("select pg_advisory_unlock(7)")
        assert first.result() == ArchiveResult(moved=10, batches=1, left=0)
    assert count_events(connection) == (0, 45)
    assert count_audited_events(connection) == 45


def test_a_concurrently_retried_event_stays(outbox: ShapedOutbox) -> None:
    """A locked row is skipped; the next run reads it again."""
    connection = outbox.connection
    add_old_deaths(outbox, 2, days_ago=31)
    with outbox.database.connect() as other, other.transaction():
        outbox.try_again([1], due=NOW, through=other)
        assert run_archive(connection).moved == 1
    assert run_archive(connection) == ArchiveResult(moved=0, batches=0, left=0)
    assert outbox.count_rows() == (1, 1)


DELETE = "delete from outbox_event where id = 2;"
RETRY = """
    insert into dlq.retry (
        death_id,
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        actor,
        reason,
        retried_at,
        due_at,
        outcome,
        settled_at
    )
    select
        id,
        event_id,
        event_created_at,
        'order',
        '2',
        'ann',
        'r',
        now(),
        now(),
        {outcome},
        {settled}
    from dlq.death where event_id = 2;
"""


@pytest.mark.parametrize(
    ("change", "missing", "duplicated"),
    [
        ("select 1", [], []),
        (DELETE, [2], []),
        ("delete from dlq.archived where id = 4", [4], []),
        (DUPLICATE, [], [2]),
        ("delete from outbox_event; delete from dlq.archived", [1, 2, 3, 4], []),
        (RETRY.format(outcome="'delivered'", settled="now()") + DELETE, [], []),
        (RETRY.format(outcome="null", settled="null") + DELETE, [2], []),
        (RETRY.format(outcome="'deleted'", settled="now()") + DELETE, [2], []),
        (
            "update outbox_event set status = 'pending'; update outbox_event set status = 'dead';"
            + DELETE,
            [2],
            [],
        ),
        ("update outbox_event set status = 'done'", [], []),
    ],
    ids=[
        "balanced",
        "lost from the outbox",
        "lost from the archive",
        "in both",
        "all lost",
        "delivered by a retry, then deleted",
        "deleted before its retry had an outcome",
        "deleted after its retry",
        "lost after a second death",
        "delivered",
    ],
)
def test_the_check_of_the_books_names_missing_and_duplicate_events(
    connection: Connection, change: str, missing: list[int], duplicated: list[int]
) -> None:
    """Every event that ever died is in exactly one table, unless a retry delivered it."""
    add_deaths(connection, 2, days_ago=1)
    add_deaths(connection, 2, days_ago=31)
    run_archive(connection)
    connection.execute(change.encode())
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": len(missing),
        "duplicated": len(duplicated),
        "event_ids": [str(n) for n in missing + duplicated] or None,
    }


def test_columns_that_the_application_adds_are_archived_after_a_migration(
    connection: Connection,
) -> None:
    """Until then the archive refuses, and names them. Generated columns are archived too."""
    add_deaths(connection, 1, days_ago=31)
    assert run_archive(connection).moved == 1
    connection.execute(
        "alter table outbox_event add column tenant text not null default 'acme',"
        ' add column "Trace id" uuid, add column n bigint generated always as (id * 2) stored'
    )
    add_deaths(connection, 2, days_ago=31)
    selection, audit = Selection(all=True), AuditContext("ann", "r", NOW)
    refusals: list[Callable[[], object]] = [
        lambda: run_archive(connection),
        lambda: discard_events(connection, selection, audit=audit),
        lambda: restore_events(connection, selection, audit=audit),
    ]
    for refused in refusals:
        with pytest.raises(
            SchemaError,
            match=r'lacks the columns tenant, "Trace id", n of "public"."outbox_event", so events'
            r" would lose them. Run `dlq migrate`.",
        ):
            refused()
    assert count_events(connection) == (2, 1)
    lacking = connection.run("archive.columns_lacking").fetchall()
    assert [tuple(row.values()) for row in lacking] == [
        ("tenant", "text", None),
        ("Trace id", "uuid", None),
        ("n", "bigint", None),
    ]
    install_outbox(connection)
    assert connection.run("archive.columns_lacking").fetchall() == []
    connection.execute(
        "update outbox_event set \"Trace id\" = ('00000000-0000-0000-0000-00000000000' || id)::uuid"
    )
    rows = "select * from outbox_event order by id"
    before = connection.execute(rows).fetchall()
    assert run_archive(connection).moved == 2
    kept = connection.execute(
        'select tenant, "Trace id"::text as trace, n from dlq.archived order by id'
    ).fetchall()
    assert [tuple(row.values()) for row in kept] == [
        (None, None, None),
        *(("acme", f"00000000-0000-0000-0000-00000000000{n}", 2 * n) for n in (2, 3)),
    ]
    restore_events(connection, Selection(event_ids=(2, 3)), audit=audit)
    assert connection.execute(rows).fetchall() == before


def test_a_column_with_another_type_in_the_archive_stops_it(connection: Connection) -> None:
    """It would round the value. The hint is the statement that resolves it."""
    connection.execute("alter table outbox_event add column amount numeric(10,1)")
    install_outbox(connection)
    connection.execute("alter table outbox_event alter column amount type numeric(12,3)")
    assert install_outbox(connection) == []
    add_deaths(connection, 1, days_ago=31)
    connection.execute("update outbox_event set amount = 1.234")
    with pytest.raises(SchemaError, match="with their old types") as raised:
        run_archive(connection)
    lacking = connection.run("archive.columns_lacking").fetchall()
    assert [tuple(row.values()) for row in lacking] == [
        ("amount", "numeric(12,3)", "numeric(10,1)")
    ]
    connection.execute(re.findall("`(alter table .*)`", str(raised.value))[0].encode())
    assert run_archive(connection).moved == 1
    assert str(one(connection, "select amount from dlq.archived")["amount"]) == "1.234"


def test_columns_that_the_application_drops_stay_in_the_archive(connection: Connection) -> None:
    """Events that have no value for them are archived and restored without a migration."""
    connection.execute("alter table outbox_event add column tenant text not null default 'acme'")
    install_outbox(connection)
    add_deaths(connection, 1, days_ago=32)
    assert run_archive(connection).moved == 1
    connection.execute("alter table outbox_event drop column tenant")
    add_deaths(connection, 1, days_ago=31)
    assert run_archive(connection).moved == 1
    kept = connection.execute("select id, tenant from dlq.archived order by id").fetchall()
    assert [tuple(row.values()) for row in kept] == [(1, "acme"), (2, None)]
    audit = AuditContext("ann", "late fix", NOW)
    assert restore_events(connection, Selection(all=True), audit=audit).events == 2


@pytest.mark.parametrize(
    "unique",
    ["alter table {} add unique (aggregate_id)", "create unique index on {} (aggregate_id)"],
)
def test_the_error_names_a_constraint_of_the_application_and_the_row_that_violates_it(
    connection: Connection, unique: str
) -> None:
    """Nothing is restored until the constraint is dropped, as the hint says."""
    add_deaths(connection, 1, days_ago=32)
    add_deaths(connection, 2, days_ago=31)
    assert run_archive(connection).moved == 3
    connection.execute(unique.format("public.outbox_event").encode())
    audit, selection = AuditContext("ann", "r", NOW), Selection(all=True)
    with pytest.raises(
        SchemaError,
        match=r"The constraint outbox_event_aggregate_id_(key|idx) of public.outbox_event rejects"
        r" an event: Key .aggregate_id.=.1. ",
    ) as raised:
        restore_events(connection, selection, audit=audit)
    assert count_events(connection) == (0, 3)
    (drop, name) = re.findall(r"`(alter table .* drop constraint (\S+));`", str(raised.value))[0]
    connection.execute((drop if name.endswith("_key") else f"drop index {name}").encode())
    assert restore_events(connection, selection, audit=audit).events == 3


def test_triggers_of_the_application_run_with_its_search_path(connection: Connection) -> None:
    """For the archive, a discard, a restore and the SQL function."""
    connection.execute(
        "create table audited (audit text);"
        " create function audit() returns trigger language plpgsql as $$ begin"
        " insert into audited values (tg_table_name || ' ' || tg_op); return null; end $$;"
        " create trigger audit after insert or delete on outbox_event"
        " for each row execute function audit()"
    )
    add_deaths(connection, 2, days_ago=31)
    discard_events(
        connection, Selection(event_ids=(1,)), audit=AuditContext("ann", "test data", NOW)
    )
    assert run_archive(connection).moved == 1
    assert (
        restore_events(
            connection, Selection(event_ids=(1, 2)), audit=AuditContext("ann", "late fix", NOW)
        ).events
        == 2
    )
    connection.execute(
        "insert into dlq.export_day"
        " (day, starts_at, ends_at, rows, files, exported_at, verified_at)"
        " values ('2026-10-20', '2026-10-20Z', '2026-10-21Z', 2, '[]', now(), now())"
    )
    assert one(connection, "select dlq.archive_dead_outbox_events(0) as moved") == {"moved": 2}
    changes = connection.execute(
        "select audit, count(*) as n from audited group by 1 order by 1"
    ).fetchall()
    assert [tuple(row.values()) for row in changes] == [
        ("outbox_event DELETE", 4),
        ("outbox_event INSERT", 4),
    ]


def test_ids_that_are_generated_always_stay_the_same(empty_database: Database) -> None:
    """An archived event returns with its id and with the values of generated columns."""
    with empty_database.connect() as connection:
        connection.execute(
            "create table outbox_event (id bigint generated always as identity primary key,"
            " aggregate_type text not null, aggregate_id text not null, event_type text not null,"
            " payload jsonb not null, status text not null,"
            " attempts integer not null default 0, next_run_at timestamptz not null default now(),"
            " created_at timestamptz not null default now(),"
            " amount numeric generated always as ((payload ->> 'n')::numeric / 10) stored)"
        )
        install_outbox(connection)
        add_deaths(connection, 3, days_ago=31)
        rows = "select * from outbox_event order by id"
        before = connection.execute(rows).fetchall()
        discard_events(
            connection, Selection(event_ids=(2,)), audit=AuditContext("ann", "test data", NOW)
        )
        assert run_archive(connection).moved == 2
        assert (
            restore_events(
                connection,
                Selection(event_ids=(1, 2, 3)),
                audit=AuditContext("ann", "late fix", NOW),
            ).events
            == 3
        )
        assert connection.execute(rows).fetchall() == before


def test_discarded_events_are_archived_at_once_with_their_reason(outbox: ShapedOutbox) -> None:
    """Regardless of age and export. The ledger has actor and reason; a dry run only counts."""
    connection = outbox.connection
    add_old_deaths(outbox, 3, days_ago=0.1)
    audit = AuditContext("ann", "test data", NOW)
    ids = outbox.event_ids(1, 3, 99)
    selection = Selection(event_ids=tuple(ids))
    assert (
        discard_events(connection, selection, audit=audit, options=RunOptions(dry_run=True)).events
        == 2
    )
    assert outbox.count_rows() == (3, 0)
    assert discard_events(connection, selection, audit=audit).events == 2
    assert discard_events(connection, selection, audit=audit).events == 0
    assert outbox.count_rows() == (1, 2)
    discarded = connection.execute(
        "select event_id::text, actor, reason, discarded_at from dlq.discard order by 1"
    ).fetchall()
    assert [tuple(row.values()) for row in discarded] == [
        (str(id_), "ann", "test data", NOW) for id_ in ids[:2]
    ]
    entry = one(connection, "select kind, events, filter from dlq.audit")
    assert entry == {
        "kind": "archive.discard",
        "events": 2,
        "filter": {"event_ids": ids, "more": 0},
    }
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED


def test_a_discard_skips_an_event_that_a_row_of_the_application_refers_to(
    connection: Connection,
) -> None:
    """The dry run returns the same number."""
    add_deaths(connection, 3, days_ago=1)
    connection.execute(
        "create table line (event_id bigint references outbox_event); insert into line values (2)"
    )
    for dry_run in (True, False):
        audit, options = AuditContext("ann", "test data", NOW), RunOptions(dry_run=dry_run)
        assert (
            discard_events(connection, Selection(all=True), audit=audit, options=options).events
            == 2
        )
    assert count_events(connection) == (1, 2)
    assert one(
        connection, "select array_agg(event_id order by event_id) as ids from dlq.discard"
    ) == {"ids": [1, 3]}
    assert one(connection, "select events from dlq.audit") == {"events": 2}
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED


def test_a_function_for_pg_cron_archives_the_same_events(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """It archives exported days with an audit entry, and refuses an invalid argument."""
    with database.connect() as own:
        own.execute("select set_config('TimeZone', 'UTC', false)")
        now = datetime.now(UTC)
        for days in (29, 31, 33):
            add_deaths_at(connection, 2, now - timedelta(days=days))
        day = Day.of((now - timedelta(days=31)).date(), ZoneInfo("UTC"))
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        for make in (
            lambda: export_day(
                connection, url=database.url, day=day, target=open_local_target(tmp_path), now=now
            ),
            lambda: verify_day(connection, day=day, target=open_local_target(tmp_path), now=now),
        ):
            assert one(own, "select dlq.archive_dead_outbox_events() as moved") == {"moved": 0}
            make()
        assert one(own, "select dlq.archive_dead_outbox_events() as moved") == {"moved": 2}
        assert one(own, "select dlq.archive_dead_outbox_events(30) as moved") == {"moved": 0}
        audit = one(connection, "select kind, reason, events from dlq.audit")
        assert audit == {
            "kind": "archive.move",
            "reason": "archive_dead_outbox_events(30)",
            "events": 2,
        }
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match="retention_days must be 0 or more"
        ):
            own.execute("select dlq.archive_dead_outbox_events(-1)")
    assert count_events(connection) == (4, 2)


def test_a_missing_and_a_duplicate_event_are_both_found(connection: Connection) -> None:
    """Totals would be equal."""
    add_deaths(connection, 3, days_ago=1)
    connection.execute(DUPLICATE)
    connection.execute("delete from outbox_event where id = 3")
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": 1,
        "duplicated": 1,
        "event_ids": ["2", "3"],
    }


def test_batches_use_the_index_of_dead_events(outbox: ShapedOutbox) -> None:
    """The outbox is read by its key, and not at all for the count of the dry run."""
    connection = outbox.connection
    outbox.add_events(20_000)
    outbox.give_up_all("'x'", where="n % 10 = 0")
    classify_deaths(connection, zone=ZONE)
    connection.execute("analyze")
    before, times = NOW + timedelta(days=365), "{[2026-01-01,2028-01-01)}"
    text = connection.render_query("archive.count_old", before=before)
    old = "\n".join(row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode()))
    assert outbox.table_name not in old, old
    assert "Scan using death_unclassified on death" in old, old
    plan = explain_batch(connection, before, times, NOW, 7, 100)
    assert "Seq Scan on" not in plan, plan
    for index in ("dead_time on dead", "death_unclassified on death"):
        condition = r"Index Cond: \(\(died_at < .*ROW\(died_at, (death_)?id\) > ROW\("
        assert re.search(rf"Scan using {index} .*\n *{condition}", plan), plan
    assert f"Scan using {outbox.key_index} on {outbox.table_name} o" in plan, plan


def test_a_function_that_forbids_sorts_or_joins_is_not_compiled(connection: Connection) -> None:
    """PostgreSQL 14 to 17 estimate a forbidden plan so high that JIT would take a second a call."""
    functions = connection.execute(
        "select proname, 'jit=off' = any(proconfig) as is_interpreted from pg_proc"
        " where pronamespace = 'dlq'::regnamespace and 'enable_hashjoin=off' = any(proconfig)"
    ).fetchall()
    assert {row["proname"]: row["is_interpreted"] for row in functions} == dict.fromkeys(
        ("archive_batch", "archive_events", "recall_events", "release_events"), True
    )


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("classified", [True, False])
def test_a_batch_costs_the_same_for_any_number_of_events(
    connection: Connection, *, classified: bool, analyzed: bool
) -> None:
    """Counted in database pages, with current statistics or those of empty tables."""
    connection.execute("vacuum analyze")
    costs = []
    for more in (4_000, 16_000):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
            " select 'order', n::text, 'e', '{}', 'dead' from generate_series(1, %s) n",
            [more],
        )
        if classified:
            classify_deaths(connection, zone=ZONE)
        if analyzed:
            connection.execute("analyze")
        costs.append(
            count_pages(
                connection,
                "select * from dlq.archive_batch("
                "'infinity', null, '-infinity', 0, 100, 100, '2026-11-20')",
            )
        )
    assert costs[1] < 1.5 * costs[0], costs


@pytest.mark.parametrize(
    "selection", [Selection(event_type="e"), Selection(event_ids=tuple(range(1, 10_001)))]
)
def test_the_events_of_a_fix_are_looked_up_by_index(
    outbox: ShapedOutbox, selection: Selection
) -> None:
    """Event by event, in a page of 5,000: a hash would read the whole ledger for each batch."""
    connection = outbox.connection
    outbox.add_events(20_000, event_type="e")
    outbox.give_up_all("'x'")
    classify_deaths(connection, zone=ZONE)
    if selection.event_ids is not None:
        selection = Selection(event_ids=tuple(outbox.event_ids(*range(1, 10_001))))
    flag_fix(connection, FixFlag(selection), audit=AuditContext("ann", "fixed", datetime.now(UTC)))
    connection.execute("analyze")
    plan = explain_batch(
        connection, NOW + timedelta(days=365), None, NOW - timedelta(days=365), 0, 5000
    )
    assert "(hashed" not in plan.partition("CTE taken")[0], plan
    for index, key in (("dead_pkey", "death_id"), ("death_pkey", "id")):
        assert re.search(
            rf"{index} .*\n *Index Cond: \({key} = (page|free)_?\d*\.death_id\)", plan
        ), plan


def explain_batch(connection: Connection, *values: object) -> str:
    """Return the plan of the statement inside the function, which EXPLAIN does not show."""
    function = one(
        connection,
        "select prosrc, proconfig from pg_proc where oid = 'dlq.archive_batch'::regproc",
    )
    (text,) = re.findall(r"execute (format\(.*\))\n    into", function["prosrc"], re.DOTALL)
    (row,) = connection.execute(f"select {text} as statement".encode()).fetchall()
    types = "timestamptz, tstzmultirange, timestamptz, bigint, integer, integer"
    with connection.transaction(force_rollback=True):
        for setting in function["proconfig"]:
            connection.execute(f"set local {setting}".encode())
        connection.execute(f"prepare batch ({types}) as {row['statement']}".encode())
        arguments = sql.SQL(", ").join(map(sql.Literal, (*values, 5_000))).as_string(connection)
        plan = connection.execute(f"explain execute batch ({arguments})".encode()).fetchall()
        connection.execute("deallocate batch")
    return "\n".join(row["QUERY PLAN"] for row in plan)


def count_pages(connection: Connection, call: str) -> int:
    """Return the number of pages that a statement reads, including those inside of functions."""
    with connection.transaction(force_rollback=True):
        (plan,) = one(connection, f"explain (analyze, buffers, format json) {call}")["QUERY PLAN"]
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


@pytest.mark.usefixtures("home")
def test_the_asset_archives_by_the_retention_and_its_check_finds_a_lost_event(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Launchpad can override `DLQ_DEAD_RETENTION_DAYS`. The audit log names the Dagster run."""
    monkeypatch.setenv("DLQ_DEAD_RETENTION_DAYS", "20")
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")
    now = datetime.now(UTC)
    for days in (3, 21):
        add_deaths_at(connection, 2, now - timedelta(days=days))
    connection.execute(
        "insert into dlq.export_day"
        " (day, starts_at, ends_at, rows, files, exported_at, verified_at)"
        " select day, day, day + interval '1 day', count(*), '[]', now(), now()"
        " from (select (died_at at time zone 'UTC')::date as day from dlq.death) d group by 1"
    )
    add_deaths_at(connection, 1, now - timedelta(days=40))

    def run(**config: object) -> dg.ExecuteInProcessResult:
        settings = {"ops": {"dead_event_archive": {"config": config}}}
        return defs.resolve_job_def("archive_dead_events").execute_in_process(run_config=settings)

    runs = [run(dry_run=False), run(older_than_days=2, reason="space", dry_run=False)]
    figures = []
    for result in runs:
        metadata = read_result(result, "dead_event_archive")
        figures.append(
            tuple(
                metadata[name].value for name in ("moved", "old_enough_but_left", "older_than_days")
            )
        )
        passed = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        assert passed["no_event_is_missing"]
    assert figures == [(2, 1, 20), (2, 1, 2)]
    audit = connection.execute(
        "select events, actor, reason, run_id from dlq.audit order by id"
    ).fetchall()
    assert [tuple(row.values()) for row in audit] == [
        (2, "dead_event_archive", reason, result.run_id)
        for reason, result in zip(("retention", "space"), runs, strict=True)
    ]
    connection.execute("delete from dlq.archived where id = 4")
    assert run().get_asset_check_evaluations() == []
    (check,) = (
        check
        for check in run(dry_run=False).get_asset_check_evaluations()
        if check.check_name == "no_event_is_missing"
    )
    assert (check.passed, check.metadata["missing"].value, check.metadata["event_ids"].value) == (
        False,
        1,
        [4],
    )
