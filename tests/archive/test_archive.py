"""Archiving: what is old, exported and wanted by no fix moves, whole, once, and nothing else does."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.archive import archive
from dlq_pipelines.archive.archive import Archived, ExportedOnly, archive_dead_events
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.exports.export import export_day
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import RetryPolicy
from dlq_pipelines.retries.ledger import flag_fix
from tests.rows import one

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")
DIED = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, last_error_at, dead_at)
    select 'order', n::text, 'order.placed', '{"n": 12345678901234567890}', 'dead', 5, %(error)s, %(at)s, %(at)s
    from generate_series(1, %(count)s) n
"""


def _died(connection: Connection, count: int, *, days_ago: float, error: str = "KeyError: 'a'") -> None:
    connection.execute(DIED, {"count": count, "at": NOW - timedelta(days=days_ago), "error": error})


def _archive(
    connection: Connection, *, days: int = 30, only: ExportedOnly | None = None, dry: bool = False
) -> Archived:
    return archive_dead_events(
        connection, before=NOW - timedelta(days=days), now=NOW, actor="job", reason="retention", only=only, dry_run=dry
    )


def _places(connection: Connection) -> tuple[int, int]:
    """Events in the outbox and in the archive."""
    counted = (
        "select (select count(*) from outbox_event) as outbox, (select count(*) from outbox_event_archive) as archive"
    )
    found = one(connection, counted)
    return found["outbox"], found["archive"]


def _audited(connection: Connection) -> int:
    return int(
        one(connection, "select coalesce(sum(events), 0) as n from dlq.operation where kind = 'archive.move'")["n"]
    )


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ten."""
    monkeypatch.setattr(archive, "BATCH", 10)


def test_old_dead_events_move_whole_and_the_others_stay(connection: Connection) -> None:
    """Every column as it was; a second run finds nothing to do."""
    _died(connection, 2, days_ago=31)
    _died(connection, 3, days_ago=29)
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) values ('o','1','e','{}')"
    )
    columns = "id, aggregate_type, aggregate_id, event_type, payload::text, status, attempts, next_run_at, created_at,"
    columns += " last_error, last_error_at, dead_at"
    before = connection.execute(f"select {columns} from outbox_event where id <= 2 order by id".encode()).fetchall()
    assert _archive(connection) == Archived(moved=2, batches=1, left=0)
    after = connection.execute(f"select {columns} from outbox_event_archive order by id".encode()).fetchall()
    assert after == before
    assert one(connection, "select array_agg(distinct archived_at) as at from outbox_event_archive") == {"at": [NOW]}
    assert _places(connection) == (4, 2)
    assert _archive(connection) == Archived(moved=0, batches=0, left=0)
    assert _audited(connection) == 2


@pytest.mark.usefixtures("_small_batches")
def test_a_backlog_moves_in_batches_each_with_its_audit(connection: Connection) -> None:
    """Also events that died in the same microsecond, across the border of a batch."""
    _died(connection, 25, days_ago=40)
    assert _archive(connection) == Archived(moved=25, batches=3, left=0)
    rows = connection.execute("select events, filter, actor, reason from dlq.operation order by id").fetchall()
    assert [row["events"] for row in rows] == [10, 10, 5]
    before = (NOW - timedelta(days=30)).isoformat()
    assert {(row["filter"]["before"], row["actor"], row["reason"]) for row in rows} == {(before, "job", "retention")}


def test_a_dry_run_says_what_the_real_one_does(connection: Connection) -> None:
    """And moves nothing."""
    _died(connection, 4, days_ago=31)
    _died(connection, 2, days_ago=31, error="ValueError: b")
    classify_deaths(connection, zone=ZONE)
    cause = connection.execute("select cause_id from dlq.death where error like 'Value%' limit 1").fetchall()[0][
        "cause_id"
    ]
    flag_fix(connection, cause_id=cause, note="n", actor="ann", now=NOW, policy=RetryPolicy())
    dry = _archive(connection, dry=True)
    assert _places(connection) == (6, 0)
    real = _archive(connection)
    assert (dry.moved, dry.left) == (real.moved, real.left) == (4, 2)


def test_events_that_an_active_fix_targets_stay(connection: Connection) -> None:
    """Until it is closed."""
    _died(connection, 3, days_ago=31)
    classify_deaths(connection, zone=ZONE)
    cause = one(connection, "select distinct cause_id from dlq.death")["cause_id"]
    fix = flag_fix(connection, cause_id=cause, note="n", actor="ann", now=NOW, policy=RetryPolicy())
    assert _archive(connection) == Archived(moved=0, batches=0, left=3)
    connection.execute("update dlq.fix set status = 'halted', closed_at = now() where id = %s", [fix.id])
    assert _archive(connection).moved == 3


def test_only_days_that_are_exported_completely_are_archived(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """A death that is recorded late makes its day incomplete until it is exported again."""
    _died(connection, 2, days_ago=31)
    _died(connection, 3, days_ago=32)
    classify_deaths(connection, zone=ZONE)
    only = ExportedOnly(ZONE)

    def export(days_ago: int) -> None:
        day = Day.of((NOW - timedelta(days=days_ago)).astimezone(ZONE).date(), ZONE)
        export_day(connection, url=database.url, day=day, folder=tmp_path, now=NOW)

    assert _archive(connection, only=only) == Archived(moved=0, batches=0, left=5)
    export(31)
    _died(connection, 1, days_ago=31)
    assert _archive(connection, only=only).moved == 0
    classify_deaths(connection, zone=ZONE)
    export(31)
    assert _archive(connection, only=only) == Archived(moved=3, batches=1, left=3)
    assert one(connection, "select count(*) as n from outbox_event where dead_at > '2026-10-20'") == {"n": 0}


def test_the_day_of_an_event_is_that_of_the_zone(connection: Connection) -> None:
    """23:30 UTC is the next day in Berlin: its day must be exported, not the day in UTC."""
    at = datetime(2026, 10, 1, 23, 30, tzinfo=UTC)
    connection.execute(DIED, {"count": 1, "at": at, "error": "x"})
    record = "insert into dlq.export_day (day, rows, files, exported_at) values (%s, %s, '[]', now())"
    connection.execute(record, [date(2026, 10, 1), 0])
    assert _archive(connection, only=ExportedOnly(ZONE)).moved == 0
    connection.execute(record, [date(2026, 10, 2), 1])
    assert _archive(connection, only=ExportedOnly(ZONE)).moved == 1


@pytest.mark.usefixtures("_small_batches")
def test_a_killed_run_leaves_whole_batches_and_the_next_goes_on(connection: Connection, database: Database) -> None:
    """The connection dies within the third batch, after the move and before its audit row."""
    _died(connection, 45, days_ago=31)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from dlq.operation) = 2 then perform pg_terminate_backend(pg_backend_pid()); end if;"
        " return new; end $$;"
        "create trigger die before insert on dlq.operation for each row execute function die()"
    )
    with database.connect() as own, pytest.raises(psycopg.OperationalError):
        _archive(own)
    assert _places(connection) == (25, 20)
    assert _audited(connection) == 20
    connection.execute("drop trigger die on dlq.operation")
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


def test_an_event_that_is_retried_meanwhile_stays(connection: Connection, database: Database) -> None:
    """A row that somebody holds is passed over; the next run judges it anew."""
    _died(connection, 2, days_ago=31)
    with database.connect() as other, other.transaction():
        other.execute("update outbox_event set status = 'pending', dead_at = null where id = 1")
        assert _archive(connection).moved == 1
    assert _archive(connection) == Archived(moved=0, batches=0, left=0)
    assert _places(connection) == (1, 1)


@pytest.mark.parametrize(
    ("cook", "missing", "doubled"),
    [
        (lambda c: c.execute("select 1"), 0, 0),
        (lambda c: c.execute("delete from outbox_event where id = 2"), 1, 0),
        (lambda c: c.execute("delete from outbox_event_archive where id = 4"), 1, 0),
        (
            lambda c: c.execute(
                "insert into outbox_event_archive select id, aggregate_type, aggregate_id, event_type, payload, status,"
                " attempts, next_run_at, created_at from outbox_event where id = 2"
            ),
            0,
            1,
        ),
    ],
    ids=["sound", "lost from the outbox", "lost from the archive", "in both"],
)
def test_the_books_find_what_is_nowhere_and_what_is_in_both(
    connection: Connection, cook: Callable[[Connection], object], missing: int, doubled: int
) -> None:
    """Every event that ever died is in exactly one place."""
    _died(connection, 2, days_ago=1)
    _died(connection, 2, days_ago=31)
    _archive(connection)
    cook(connection)
    found = connection.one("archive.unaccounted")
    assert (found["missing"], found["doubled"]) == (missing, doubled)


def test_a_batch_is_found_by_the_index_of_the_dead(connection: Connection) -> None:
    """In a table of which most is delivered."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', n::text, 'e', '{}', case n % 50 when 0 then 'dead' else 'done' end"
        " from generate_series(1, 20000) n"
    )
    connection.execute("analyze")
    after = {"after_time": archive._BEGINNING, "after_id": 0}
    where = {"before": NOW + timedelta(days=365), "days": None, "zone": "UTC"}
    text = connection.literal("archive.move_batch", now=NOW, limit=100, **where, **after)
    plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode()).fetchall())
    assert "Index Scan using dlq_dead on outbox_event" in plan
    assert "Seq Scan on outbox_event" not in plan
