"""Archiving: what is old, exported and wanted by no fix moves, whole, once, and nothing else does."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from dlq_pipelines.defs.archive import books_balance, dead_event_archive
from dlq_pipelines.defs.resources import OutboxResource
from dlq_pipelines.errors import RefusedError, SchemaError
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import apply_migrations, load_migrations
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from tests.rows import one

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")
DIED = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, last_error_at, dead_at)
    select 'order', n::text, %(type)s, '{"n": 12345678901234567890}', 'dead', 5, %(error)s, %(at)s, %(at)s
    from generate_series(1, %(count)s) n
"""
INTO_BOTH = """
    insert into outbox_event_archive
    select id, aggregate_type, aggregate_id, event_type, payload, status, attempts, next_run_at, created_at
    from outbox_event where id = 2
"""


def _died_at(
    connection: Connection, count: int, at: datetime, error: str = "x", event_type: str = "paid"
) -> None:
    connection.execute(DIED, {"count": count, "at": at, "error": error, "type": event_type})


def _died(
    connection: Connection,
    count: int,
    *,
    days_ago: float,
    error: str = "KeyError: 'a'",
    event_type: str = "paid",
) -> None:
    _died_at(connection, count, NOW - timedelta(days=days_ago), error, event_type)


def _flag(connection: Connection, *, days_ago: float = 0, event_type: str | None = None) -> int:
    """Classify what has died and flag a fix for the cause of the first death."""
    classify_deaths(connection, zone=ZONE)
    cause = one(connection, "select cause_id from dlq.death order by id limit 1")["cause_id"]
    at = NOW - timedelta(days=days_ago)
    selection = Selection(cause=cause, event_type=event_type)
    return flag_fix(connection, FixFlag(selection), audit=AuditContext("ann", "n", at)).id


def _export(connection: Connection, database: Database, folder: Path, *, days_ago: int) -> None:
    classify_deaths(connection, zone=ZONE)
    day = Day.of((NOW - timedelta(days=days_ago)).astimezone(ZONE).date(), ZONE)
    export_day(connection, url=database.url, day=day, target=open_local_target(folder), now=NOW)
    assert verify_day(connection, day=day, target=open_local_target(folder), now=NOW) == []


def _archive(
    connection: Connection, *, days: int = 30, only: bool = False, dry: bool = False
) -> ArchiveResult:
    return archive_dead_events(
        connection,
        before=NOW - timedelta(days=days),
        only_exported=only,
        audit=AuditContext("job", "retention", NOW),
        options=RunOptions(dry_run=dry),
    )


def _places(connection: Connection) -> tuple[int, int]:
    """Events in the outbox and in the archive."""
    counted = "select (select count(*) from outbox_event) as outbox, (select count(*) from outbox_event_archive) as archive"
    found = one(connection, counted)
    return found["outbox"], found["archive"]


def _audited(connection: Connection) -> int:
    return int(
        one(
            connection,
            "select coalesce(sum(events), 0) as n from dlq.audit where kind = 'archive.move'",
        )["n"]
    )


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ten."""
    monkeypatch.setattr(archive, "BATCH", 10)


def test_old_dead_events_move_whole_and_the_others_stay(connection: Connection) -> None:
    """Every column that the outbox has, as it was; a second run finds nothing to do."""
    _died(connection, 2, days_ago=31)
    _died(connection, 3, days_ago=29)
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) values ('o','1','e','{}')"
    )
    connection.execute(
        "update outbox_event set last_error = 'Zoë', next_run_at = '2026-01-02', attempts = 7 where id = 1"
    )
    connection.execute(
        "update outbox_event set last_error_at = '2026-01-03', created_at = '2026-01-01' where id = 1"
    )
    before = connection.execute(
        "select *, payload::text as payload from outbox_event where id <= 2 order by id"
    ).fetchall()
    assert _archive(connection) == ArchiveResult(moved=2, batches=1, left=0)
    after = connection.execute(
        "select *, payload::text as payload from outbox_event_archive order by id"
    ).fetchall()
    assert after == [{**row, "archived_at": NOW} for row in before]
    assert _places(connection) == (4, 2)
    assert _archive(connection) == ArchiveResult(moved=0, batches=0, left=0)
    assert _audited(connection) == 2


@pytest.mark.usefixtures("_small_batches")
def test_a_backlog_moves_in_batches_each_with_its_audit(connection: Connection) -> None:
    """Also events that died in the same microsecond, across the border of a batch."""
    _died(connection, 25, days_ago=40)
    assert _archive(connection) == ArchiveResult(moved=25, batches=3, left=0)
    rows = connection.execute(
        "select events, filter, actor, reason from dlq.audit order by id"
    ).fetchall()
    assert [row["events"] for row in rows] == [10, 10, 5]
    before = (NOW - timedelta(days=30)).isoformat()
    assert {(row["filter"]["before"], row["actor"], row["reason"]) for row in rows} == {
        (before, "job", "retention")
    }


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("only", [False, True], ids=["all days", "exported days"])
def test_a_dry_run_says_what_the_real_one_does(
    connection: Connection, database: Database, tmp_path: Path, *, only: bool
) -> None:
    """With every reason to stay among the events; and it moves nothing."""
    _died(connection, 3, days_ago=31)
    _died(connection, 12, days_ago=31, error="ValueError: b")
    _died(connection, 4, days_ago=32, error="ValueError: b")
    _died(connection, 5, days_ago=29)
    connection.execute(INTO_BOTH.replace("= 2", "= 4"))
    _flag(connection)
    _export(connection, database, tmp_path, days_ago=31)
    dry = _archive(connection, only=only, dry=True)
    assert _places(connection) == (24, 1)
    assert _audited(connection) == 0
    expected = (
        ArchiveResult(moved=15, batches=2, left=4)
        if not only
        else ArchiveResult(moved=11, batches=2, left=8)
    )
    assert dry == _archive(connection, only=only) == expected


@pytest.mark.parametrize(
    ("flagged_days_ago", "event_type", "stay"),
    [(0, None, {1, 2, 3}), (0, "paid", {1, 2}), (32, None, {1}), (32, "paid", {1})],
)
def test_events_that_an_active_fix_targets_stay(
    connection: Connection, flagged_days_ago: int, event_type: str | None, stay: set[int]
) -> None:
    """Of its cause and type and dead before it was flagged, until it is closed; every other goes."""
    _died(connection, 1, days_ago=33)
    _died(connection, 1, days_ago=31)
    _died(connection, 1, days_ago=31, event_type="sent")
    _died(connection, 1, days_ago=33, error="ValueError: b")
    fix = _flag(connection, days_ago=flagged_days_ago, event_type=event_type)
    assert _archive(connection) == ArchiveResult(moved=4 - len(stay), batches=1, left=len(stay))
    assert {row["id"] for row in connection.execute("select id from outbox_event")} == stay
    connection.execute(
        "update dlq.fix set status = 'halted', closed_at = now() where id = %s", [fix]
    )
    assert _archive(connection) == ArchiveResult(moved=len(stay), batches=1, left=0)


def test_only_days_that_are_exported_completely_are_archived(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """A death that is recorded late makes its day incomplete until it is exported again."""
    _died(connection, 2, days_ago=31)
    _died(connection, 3, days_ago=32)
    assert _archive(connection, only=True) == ArchiveResult(moved=0, batches=0, left=5)
    _export(connection, database, tmp_path, days_ago=31)
    _died(connection, 1, days_ago=31)
    assert _archive(connection, only=True).moved == 0
    _export(connection, database, tmp_path, days_ago=31)
    assert _archive(connection, only=True) == ArchiveResult(moved=3, batches=1, left=3)
    assert one(
        connection, "select count(*) as n from outbox_event where dead_at > '2026-10-20'"
    ) == {"n": 0}


def test_what_is_left_of_a_day_is_archived_though_the_ledger_has_forgotten_the_rest(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """The files hold what was forgotten: they are sound, and no export that would hold less replaces them."""
    _died(connection, 3, days_ago=31)
    _died(connection, 1, days_ago=33)
    for days_ago in (31, 33):
        _export(connection, database, tmp_path, days_ago=days_ago)
    connection.execute("update outbox_event set status = 'done' where id in (1, 2)")
    before, audit = NOW - timedelta(days=30), AuditContext("job", "retention", NOW)
    assert purge_deaths(connection, before=before, audit=audit) == PurgeResult(2, 1)
    day = Day.of((NOW - timedelta(days=31)).astimezone(ZONE).date(), ZONE)
    assert verify_day(connection, day=day, target=open_local_target(tmp_path), now=NOW) == []
    with pytest.raises(RefusedError, match="another export would hold less"):
        _export(connection, database, tmp_path, days_ago=31)
    assert _archive(connection, only=True) == ArchiveResult(moved=2, batches=1, left=0)
    counted = "select rows, forgotten from dlq.export_day order by day"
    assert [tuple(row.values()) for row in connection.execute(counted.encode())] == [(1, 0), (3, 2)]


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
def test_the_day_of_an_event_is_that_of_the_exports_zone(
    connection: Connection, zone: str, at: datetime, day: date
) -> None:
    """Not the day in UTC, nor what the server takes for the zone: CET without summer, midnights that come twice."""
    _died_at(connection, 1, at)
    for other, rows in ((day - timedelta(days=1), 0), (day + timedelta(days=1), 0), (day, 1)):
        assert _archive(connection, only=True).moved == 0
        span = Day.of(other, ZoneInfo(zone))
        connection.execute(
            "insert into dlq.export_day (day, starts_at, ends_at, rows, files, exported_at, verified_at)"
            " values (%s, %s, %s, %s, '[]', now(), now())",
            [other, span.start, span.until, rows],
        )
    assert _archive(connection, only=True).moved == 1


def test_an_event_whose_id_is_in_the_archive_stays_and_stops_no_other(
    connection: Connection,
) -> None:
    """Neither of the two is lost, and the books name it."""
    _died(connection, 3, days_ago=31)
    connection.execute(INTO_BOTH)
    assert _archive(connection) == ArchiveResult(moved=2, batches=1, left=1)
    assert _places(connection) == (1, 3)
    assert connection.fetch_one("archive.unaccounted") == {
        "missing": 0,
        "doubled": 1,
        "examples": [2],
    }


@pytest.mark.usefixtures("_small_batches")
def test_a_killed_run_leaves_whole_batches_and_the_next_goes_on(
    connection: Connection, database: Database
) -> None:
    """The connection dies within the third batch, after the move and before its audit row."""
    _died(connection, 45, days_ago=31)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from dlq.audit) = 2 then perform pg_terminate_backend(pg_backend_pid()); end if;"
        " return new; end $$;"
        "create trigger die before insert on dlq.audit for each row execute function die()"
    )
    with database.connect() as own, pytest.raises(psycopg.OperationalError):
        _archive(own)
    assert _places(connection) == (25, 20)
    assert _audited(connection) == 20
    connection.execute("drop trigger die on dlq.audit")
    assert _archive(connection).moved == 25
    assert _places(connection) == (0, 45)


@pytest.mark.usefixtures("_small_batches")
def test_archivers_at_once_move_each_event_once(connection: Connection, database: Database) -> None:
    """Each takes what the others do not hold."""
    _died(connection, 200, days_ago=31)
    together = threading.Barrier(4)

    def run(_: int) -> int:
        with database.connect() as own:
            together.wait()
            return _archive(own).moved

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run, range(4))) + _archive(connection).moved == 200
    assert _places(connection) == (0, 200)
    assert _audited(connection) == 200


@pytest.mark.usefixtures("_small_batches")
def test_an_archiver_does_not_wait_for_another(connection: Connection, database: Database) -> None:
    """One stands still in its first batch; the other moves the rest, and each tells what it moved itself."""
    _died(connection, 45, days_ago=31)
    connection.execute(
        "create function stand() returns trigger language plpgsql as $$ begin"
        " if current_setting('application_name') = 'slow' then perform pg_advisory_xact_lock(7); end if;"
        " return new; end $$;"
        "create trigger stand before insert on dlq.audit for each row execute function stand()"
    )
    connection.execute("select pg_advisory_lock(7)")
    with database.connect() as slow, ThreadPoolExecutor(1) as pool:
        slow.execute("set application_name = 'slow'; set lock_timeout = 0")
        first = pool.submit(_archive, slow)
        try:
            while not one(connection, "select count(*) as n from pg_locks where not granted")["n"]:
                assert not first.done()
            assert _archive(connection) == ArchiveResult(moved=35, batches=4, left=0)
        finally:
            connection.execute("select pg_advisory_unlock(7)")
        assert first.result() == ArchiveResult(moved=10, batches=1, left=0)
    assert _places(connection) == (0, 45)
    assert _audited(connection) == 45


def test_an_event_that_is_retried_meanwhile_stays(
    connection: Connection, database: Database
) -> None:
    """A row that somebody holds is passed over; the next run judges it anew."""
    _died(connection, 2, days_ago=31)
    with database.connect() as other, other.transaction():
        other.execute("update outbox_event set status = 'pending', dead_at = null where id = 1")
        assert _archive(connection).moved == 1
    assert _archive(connection) == ArchiveResult(moved=0, batches=0, left=0)
    assert _places(connection) == (1, 1)


_GONE = "delete from outbox_event where id = 2;"
_RETRIED = """
    insert into dlq.retry (death_id, event_id, aggregate_type, aggregate_id, actor, reason, retried_at, due_at, outcome,
        settled_at)
    select id, event_id, 'order', '2', 'ann', 'r', now(), now(), {outcome}, {settled} from dlq.death where event_id = 2;
"""


@pytest.mark.parametrize(
    ("cook", "missing", "doubled"),
    [
        ("select 1", [], []),
        (_GONE, [2], []),
        ("delete from outbox_event_archive where id = 4", [4], []),
        (INTO_BOTH, [], [2]),
        ("delete from outbox_event; delete from outbox_event_archive", [1, 2, 3, 4], []),
        (_RETRIED.format(outcome="'delivered'", settled="now()") + _GONE, [], []),
        (_RETRIED.format(outcome="null", settled="null") + _GONE, [2], []),
        (_RETRIED.format(outcome="'deleted'", settled="now()") + _GONE, [2], []),
        (
            "update outbox_event set status = 'pending'; update outbox_event set status = 'dead';"
            + _GONE,
            [2],
            [],
        ),
        ("update outbox_event set status = 'done'", [], []),
    ],
    ids=[
        "sound",
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
def test_the_books_find_what_is_nowhere_and_what_is_in_both(
    connection: Connection, cook: str, missing: list[int], doubled: list[int]
) -> None:
    """Every event that ever died is in exactly one place, unless a retry delivered it."""
    _died(connection, 2, days_ago=1)
    _died(connection, 2, days_ago=31)
    _archive(connection)
    connection.execute(cook.encode())
    assert connection.fetch_one("archive.unaccounted") == {
        "missing": len(missing),
        "doubled": len(doubled),
        "examples": missing + doubled or None,
    }


def test_columns_of_the_applications_own_go_with_the_event(connection: Connection) -> None:
    """Nothing is moved while the archive lacks one, and the message names it; generated ones compute themselves."""
    connection.execute(
        "alter table outbox_event add column tenant text default 'acme', add column \"Trace id\" uuid,"
        " add column n bigint generated always as (id * 2) stored"
    )
    _died(connection, 2, days_ago=31)
    with pytest.raises(
        SchemaError, match=r'lacks the columns tenant, "Trace id" of public.outbox_event'
    ):
        _archive(connection)
    assert _places(connection) == (2, 0)
    lacking = connection.run("archive.columns_lacking").fetchall()
    assert [tuple(row.values()) for row in lacking] == [
        ("tenant", "text", None),
        ("Trace id", "uuid", None),
    ]
    connection.execute(
        'alter table outbox_event_archive add column "Trace id" uuid, add column tenant text'
    )
    connection.execute(
        "update outbox_event set \"Trace id\" = ('00000000-0000-0000-0000-00000000000' || id)::uuid"
    )
    assert _archive(connection).moved == 2
    kept = connection.execute(
        'select tenant, "Trace id"::text as trace from outbox_event_archive order by id'
    ).fetchall()
    assert [tuple(row.values()) for row in kept] == [
        ("acme", f"00000000-0000-0000-0000-00000000000{n}") for n in (1, 2)
    ]


@pytest.mark.parametrize(
    "unique",
    ["alter table {} add unique (aggregate_id)", "create unique index on {} (aggregate_id)"],
)
def test_a_constraint_of_the_applications_own_is_named_with_the_row_that_breaks_it(
    connection: Connection, unique: str
) -> None:
    """Whichever table has it; nothing is moved then. Dropped as the message says, nothing stops."""
    archive_table, outbox = "public.outbox_event_archive", "public.outbox_event"
    connection.execute(unique.format(archive_table).encode())
    _died(connection, 1, days_ago=32)
    _died(connection, 2, days_ago=31)
    audit, constraint = AuditContext("ann", "r", NOW), "_aggregate_id_(key|idx)"
    said = rf"The constraint outbox_event_archive{constraint} of {archive_table} rejects an event: Key .aggregate_id.=.1. "
    with pytest.raises(SchemaError, match=said) as raised:
        _archive(connection)
    with pytest.raises(SchemaError, match=said):
        discard_events(connection, Selection(all=True), audit=audit)
    assert _places(connection) == (3, 0)
    (drop, name) = re.findall(r"`(alter table .* drop constraint (\S+));`", str(raised.value))[0]
    connection.execute((drop if name.endswith("_key") else f"drop index {name}").encode())
    assert _archive(connection).moved == 3

    connection.execute(unique.format(outbox).encode())
    with pytest.raises(
        SchemaError, match=rf"The constraint outbox_event{constraint} of {outbox} rejects an event"
    ):
        restore_events(connection, Selection(all=True), audit=audit)
    assert _places(connection) == (0, 3)


def test_the_applications_own_triggers_find_what_they_name(connection: Connection) -> None:
    """Written for its own search path, on either table; whoever moves the events."""
    connection.execute(
        "create table audited (audit text); create function audit() returns trigger language plpgsql as $$ begin"
        " insert into audited values (tg_table_name || ' ' || tg_op); return null; end $$;"
        " create trigger audit after insert or delete on outbox_event for each row execute function audit();"
        " create trigger audit after insert or delete on outbox_event_archive for each row execute function audit()"
    )
    _died(connection, 2, days_ago=31)
    discard_events(
        connection, Selection(event_ids=(1,)), audit=AuditContext("ann", "test data", NOW)
    )
    assert _archive(connection).moved == 1
    assert (
        restore_events(
            connection, Selection(event_ids=(1, 2)), audit=AuditContext("ann", "late fix", NOW)
        ).events
        == 2
    )
    connection.execute(
        "insert into dlq.export_day (day, starts_at, ends_at, rows, files, exported_at, verified_at)"
        " values ('2026-10-20', '2026-10-20Z', '2026-10-21Z', 2, '[]', now(), now())"
    )
    assert one(connection, "select archive_dead_outbox_events(0) as moved") == {"moved": 2}
    acts = connection.execute(
        "select audit, count(*) as n from audited group by 1 order by 1"
    ).fetchall()
    assert [tuple(row.values()) for row in acts] == [
        ("outbox_event DELETE", 4), ("outbox_event INSERT", 4),
        ("outbox_event_archive DELETE", 2), ("outbox_event_archive INSERT", 4),
    ]  # fmt: skip


def test_ids_that_are_generated_always_are_moved_as_they_are(empty_database: Database) -> None:
    """In an outbox, and in an archive that was made like it with all that it has."""
    with empty_database.connect() as connection:
        connection.execute(
            "create table outbox_event (id bigint generated always as identity primary key,"
            " aggregate_type text not null, aggregate_id text not null, event_type text not null,"
            " payload jsonb not null, status text not null,"
            " attempts integer not null default 0, next_run_at timestamptz not null default now(),"
            " created_at timestamptz not null default now());"
            " create table outbox_event_archive (like outbox_event including all, archived_at timestamptz)"
        )
        apply_migrations(connection, load_migrations())
        _died(connection, 3, days_ago=31)
        rows = "select * from outbox_event order by id"
        before = connection.execute(rows).fetchall()
        discard_events(
            connection, Selection(event_ids=(2,)), audit=AuditContext("ann", "test data", NOW)
        )
        assert _archive(connection).moved == 2
        assert (
            restore_events(
                connection,
                Selection(event_ids=(1, 2, 3)),
                audit=AuditContext("ann", "late fix", NOW),
            ).events
            == 3
        )
        assert connection.execute(rows).fetchall() == before


def test_discarded_events_go_at_once_with_their_reason(connection: Connection) -> None:
    """Also young ones that are not exported; the ledger says who gave them up and why; a dry run only counts."""
    _died(connection, 3, days_ago=0.1)
    audit = AuditContext("ann", "test data", NOW)
    selection = Selection(event_ids=(1, 3, 99))
    assert (
        discard_events(connection, selection, audit=audit, options=RunOptions(dry_run=True)).events
        == 2
    )
    assert _places(connection) == (3, 0)
    assert discard_events(connection, selection, audit=audit).events == 2
    assert discard_events(connection, selection, audit=audit).events == 0
    assert _places(connection) == (1, 2)
    noted = connection.execute(
        "select event_id, actor, reason, discarded_at from dlq.discard order by 1"
    ).fetchall()
    assert [tuple(row.values()) for row in noted] == [(n, "ann", "test data", NOW) for n in (1, 3)]
    audit = one(connection, "select kind, events, filter from dlq.audit")
    assert audit == {
        "kind": "archive.discard",
        "events": 2,
        "filter": {"event_ids": [1, 3, 99], "more": 0},
    }
    assert connection.fetch_one("archive.unaccounted") == {
        "missing": 0,
        "doubled": 0,
        "examples": None,
    }


def test_discarding_leaves_an_event_whose_id_is_in_the_archive_and_takes_the_others(
    connection: Connection,
) -> None:
    """As the archive does; the dry run says so, and the books name it."""
    _died(connection, 3, days_ago=1)
    connection.execute(INTO_BOTH)
    for dry_run in (True, False):
        audit, options = AuditContext("ann", "test data", NOW), RunOptions(dry_run=dry_run)
        assert (
            discard_events(connection, Selection(all=True), audit=audit, options=options).events
            == 2
        )
    assert _places(connection) == (1, 3)
    assert one(
        connection, "select array_agg(event_id order by event_id) as ids from dlq.discard"
    ) == {"ids": [1, 3]}
    assert one(connection, "select events from dlq.audit") == {"events": 2}
    assert connection.fetch_one("archive.unaccounted") == {
        "missing": 0,
        "doubled": 1,
        "examples": [2],
    }


def test_the_same_move_is_a_function_for_people_on_pg_cron(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """Of exported days, not of what a fix targets, with its audit row; a silly argument is refused."""
    with database.connect() as own:
        own.execute("select set_config('TimeZone', 'UTC', false)")
        now = datetime.now(UTC)
        for days in (29, 31, 33):
            _died_at(connection, 2, now - timedelta(days=days))
        day = Day.of((now - timedelta(days=31)).date(), ZoneInfo("UTC"))
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        for make in (
            lambda: export_day(
                connection, url=database.url, day=day, target=open_local_target(tmp_path), now=now
            ),
            lambda: verify_day(connection, day=day, target=open_local_target(tmp_path), now=now),
        ):
            assert one(own, "select archive_dead_outbox_events() as moved") == {"moved": 0}
            make()
        assert one(own, "select archive_dead_outbox_events() as moved") == {"moved": 2}
        assert one(own, "select archive_dead_outbox_events(30) as moved") == {"moved": 0}
        audit = one(connection, "select kind, reason, events from dlq.audit")
        assert audit == {
            "kind": "archive.move",
            "reason": "archive_dead_outbox_events(30)",
            "events": 2,
        }
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match="retention_days must be 0 or more"
        ):
            own.execute("select archive_dead_outbox_events(-1)")
    assert _places(connection) == (4, 2)


def test_the_books_find_a_loss_and_a_double_at_once(connection: Connection) -> None:
    """Which equal totals would hide."""
    _died(connection, 3, days_ago=1)
    connection.execute(INTO_BOTH)
    connection.execute("delete from outbox_event where id = 3")
    assert connection.fetch_one("archive.unaccounted") == {
        "missing": 1,
        "doubled": 1,
        "examples": [2, 3],
    }


def test_a_batch_is_found_by_the_index_of_the_dead_from_where_the_last_ended(
    connection: Connection,
) -> None:
    """In a table of which most is delivered; the dry run and what is left are counted by it too."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', n::text, 'e', '{}', case n % 50 when 0 then 'dead' else 'done' end"
        " from generate_series(1, 20000) n"
    )
    connection.execute("analyze")
    where = {"before": NOW + timedelta(days=365), "times": "{[2026-01-01,2028-01-01)}"}
    plans = {}
    for name, values in (("count_movable", where), ("count_old", {"before": where["before"]})):
        text = connection.render_query(f"archive.{name}", **values)
        plans[name] = "\n".join(
            row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode())
        )
    plans["batch"] = _plan_of_batch(connection, *where.values(), NOW, 7, 100, NOW)
    for plan in plans.values():
        assert "Scan using dlq_dead on outbox_event" in plan, plan
        assert "Seq Scan on outbox_event " not in plan, plan
    assert re.search(r"Index Cond: \(\(dead_at < .*ROW\(dead_at, id\) > ROW\(", plans["batch"]), (
        plans["batch"]
    )


@pytest.mark.parametrize(
    "selection", [Selection(event_type="e"), Selection(event_ids=tuple(range(1, 10_001)))]
)
def test_what_a_fix_wants_is_not_looked_for_among_all_deaths(
    connection: Connection, selection: Selection
) -> None:
    """Event by event, of a page of five thousand: to hash what is wanted reads the ledger anew for each batch."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', n::text, 'e', '{}', 'dead' from generate_series(1, 20000) n"
    )
    flag_fix(connection, FixFlag(selection), audit=AuditContext("ann", "mended", datetime.now(UTC)))
    connection.execute("analyze")
    plan = _plan_of_batch(
        connection, NOW + timedelta(days=365), None, NOW - timedelta(days=365), 0, 5000, NOW
    )
    assert "dead_at = (hashed" not in plan, plan
    assert re.search(r"Index Cond: .*died_at = page_?\d*\.dead_at", plan), plan


def _plan_of_batch(connection: Connection, *values: object) -> str:
    """The plan of what the function executes, which EXPLAIN does not show."""
    source = one(connection, "select prosrc from pg_proc where oid = 'dlq.archive_batch'::regproc")[
        "prosrc"
    ]
    (text,) = re.findall(r"statement constant text := '(.*?)';", source, re.DOTALL)
    filled = (
        "select format(%s, 'outbox_event', 'outbox_event_archive', dlq.moved_columns(), 'dlq', '')"
    )
    (row,) = connection.execute(filled.encode(), [text.replace("''", "'")]).fetchall()
    types = "timestamptz, tstzmultirange, timestamptz, bigint, integer, timestamptz, integer"
    connection.execute(f"prepare batch ({types}) as {row['format']}".encode())
    given = sql.SQL(", ").join(map(sql.Literal, (*values, 5_000))).as_string(connection)
    return "\n".join(
        row["QUERY PLAN"] for row in connection.execute(f"explain execute batch ({given})".encode())
    )


@pytest.mark.usefixtures("home")
def test_the_asset_archives_by_the_retention_and_its_check_reads_the_books(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is exported, by `DLQ_DEAD_RETENTION_DAYS` unless the Launchpad says otherwise; the audit names the run."""
    monkeypatch.setenv("DLQ_DEAD_RETENTION_DAYS", "20")
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")
    now = datetime.now(UTC)
    for days in (3, 21):
        _died_at(connection, 2, now - timedelta(days=days))
    connection.execute(
        "insert into dlq.export_day (day, starts_at, ends_at, rows, files, exported_at, verified_at)"
        " select day, day, day + interval '1 day', count(*), '[]', now(), now()"
        " from (select (died_at at time zone 'UTC')::date as day from dlq.death) d group by 1"
    )
    _died_at(connection, 1, now - timedelta(days=40))

    def run(**config: object) -> dg.ExecuteInProcessResult:
        settings = {"ops": {"dead_event_archive": {"config": config}}}
        resources = {"outbox": OutboxResource()}
        return dg.materialize(
            [dead_event_archive, books_balance], resources=resources, run_config=settings
        )

    runs = [run(dry_run=False), run(older_than_days=2, reason="space", dry_run=False)]
    told = [
        {
            key: value.value
            for key, value in r.asset_materializations_for_node("dead_event_archive")[
                0
            ].metadata.items()
        }
        for r in runs
    ]
    assert [(t["moved"], t["old_enough_but_left"], t["older_than_days"]) for t in told] == [
        (2, 1, 20),
        (2, 1, 2),
    ]
    assert [check.passed for r in runs for check in r.get_asset_check_evaluations()] == [True, True]
    audit = connection.execute(
        "select events, actor, reason, run_id from dlq.audit order by id"
    ).fetchall()
    assert [tuple(row.values()) for row in audit] == [
        (2, "dead_event_archive", reason, r.run_id)
        for reason, r in zip(("retention", "space"), runs, strict=True)
    ]
    connection.execute("delete from outbox_event_archive where id = 4")
    (check,) = run().get_asset_check_evaluations()
    assert (check.passed, check.metadata["missing"].value, check.metadata["examples"].value) == (
        False,
        1,
        [4],
    )
