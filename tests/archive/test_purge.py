"""Tests the purge of the archive and the retention of the ledger."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import psycopg
import pytest

from dlq_pipelines.archive import purge
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.purge import PurgeResult, count_purgeable, purge_archive, purge_deaths
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.definitions import defs
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixTerms, StageOutcomes
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_stage_outcomes
from dlq_pipelines.retries.retry import retry_events
from dlq_pipelines.retries.settle import settle_retries
from tests.rows import add_events, date_deaths, deaths_at, kill, one
from tests.runs import read_result
from tests.shapes import ShapedOutbox

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("job", "retention", NOW)
BALANCED = {"missing": 0, "duplicated": 0, "event_ids": None}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "BATCH", 10)


def add_deaths(connection: Connection, count: int, *, days_ago: int) -> None:
    """Add classified dead events that died so many days ago."""
    with deaths_at(connection, NOW - timedelta(days=days_ago)):
        connection.execute(
            "insert into outbox_event"
            " (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
            " select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1'"
            " from generate_series(1, %s) n",
            [count],
        )
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def add_archived_events(connection: Connection, count: int, *, days_ago: int) -> None:
    """Add dead events that were archived so many days ago, a day after their death."""
    add_deaths(connection, count, days_ago=days_ago + 1)
    audit = AuditContext("job", "retention", NOW - timedelta(days=days_ago))
    archive_dead_events(connection, before=NOW, only_exported=False, audit=audit)


def add_old_deaths(outbox: ShapedOutbox, count: int, *, days_ago: int) -> None:
    """Add classified dead events of any shape that died so many days ago."""
    with deaths_at(outbox.connection, NOW - timedelta(days=days_ago)):
        outbox.add_dead(count, classified=False)
    classify_deaths(outbox.connection, zone=ZoneInfo("UTC"))


def add_old_archived_events(outbox: ShapedOutbox, count: int, *, days_ago: int) -> None:
    """Add dead events of any shape that were archived so many days ago, a day after their death."""
    add_old_deaths(outbox, count, days_ago=days_ago + 1)
    audit = AuditContext("job", "retention", NOW - timedelta(days=days_ago))
    archive_dead_events(outbox.connection, before=NOW, only_exported=False, audit=audit)


def run_purge(connection: Connection, *, days: int = 365, dry_run: bool = False) -> PurgeResult:
    """Purge what was archived more than so many days ago."""
    before, options = NOW - timedelta(days=days), RunOptions(dry_run=dry_run)
    return purge_archive(connection, before=before, audit=AUDIT, options=options)


def count_archive(connection: Connection) -> int:
    """Return the number of archived events."""
    return int(one(connection, "select count(*) as n from dlq.archived")["n"])


def test_old_archived_events_are_deleted_and_recorded(outbox: ShapedOutbox) -> None:
    """In batches, each with its audit entry. The books balance; a second run deletes nothing."""
    connection = outbox.connection
    add_old_archived_events(outbox, 25, days_ago=366)
    add_old_archived_events(outbox, 3, days_ago=364)
    before = NOW - timedelta(days=365)
    assert count_purgeable(connection, before=before) == 25
    assert connection.fetch_one("alert.purged_soon", before=before, look=100) == {"events": 25}
    assert (
        connection.fetch_one("metrics.state", max_retries=3)["oldest_archived"]
        == (NOW - timedelta(days=366)).timestamp()
    )
    assert run_purge(connection, dry_run=True) == PurgeResult(25, 3)
    assert count_archive(connection) == 28
    assert run_purge(connection) == PurgeResult(25, 3)
    assert run_purge(connection) == PurgeResult(0, 0)
    assert count_archive(connection) == 3
    audit = (
        "select array_agg(events order by id) as events from dlq.audit where kind = 'archive.purge'"
    )
    assert one(connection, audit) == {"events": [10, 10, 5]}
    counted = "select count(*) as n, count(distinct audit_id) as operations from dlq.purged"
    assert one(connection, counted) == {"n": 25, "operations": 3}
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED


def test_a_purge_hides_no_lost_event(outbox: ShapedOutbox) -> None:
    """The check names an event that was deleted without a record."""
    connection = outbox.connection
    add_old_archived_events(outbox, 5, days_ago=366)
    connection.execute("delete from dlq.archived where dlq_death_id = 2")
    assert run_purge(connection) == PurgeResult(4, 1)
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": 1,
        "duplicated": 0,
        "event_ids": [str(outbox.event_id(2))],
    }


def test_the_purge_of_an_event_hides_no_other_event_of_its_id(connection: Connection) -> None:
    """Ids begin again after a truncate. The second event of the id is lost, and it is found."""
    add_archived_events(connection, 1, days_ago=366)
    connection.execute("truncate outbox_event restart identity")
    add_archived_events(connection, 1, days_ago=364)
    assert run_purge(connection) == PurgeResult(1, 1)
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED
    connection.execute("delete from dlq.archived")
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": 1,
        "duplicated": 0,
        "event_ids": ["1"],
    }


@pytest.mark.parametrize("table", ["dlq.audit", "dlq.purged"])
def test_a_purge_that_fails_deletes_nothing_without_a_record(
    connection: Connection, database: Database, table: str
) -> None:
    """One of its writes fails in the second batch; the next run deletes the rest."""
    add_archived_events(connection, 25, days_ago=366)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from dlq.purged) >= 10"
        " then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$"
    )
    connection.execute(
        f"create trigger die before insert on {table} for each row execute function die()".encode()
    )
    with database.connect() as own, pytest.raises(psycopg.OperationalError):
        run_purge(own)
    assert (
        count_archive(connection),
        one(connection, "select count(*) as n from dlq.purged")["n"],
    ) == (15, 10)
    connection.execute(f"drop trigger die on {table}".encode())
    assert run_purge(connection) == PurgeResult(15, 2)
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED


def test_deaths_are_purged_once_their_event_is_delivered_or_purged(outbox: ShapedOutbox) -> None:
    """Deaths of dead, archived and pending events stay, deaths without an outcome, and the rollup.

    A dry run returns the number and changes nothing.
    """
    connection = outbox.connection
    add_old_archived_events(outbox, 12, days_ago=1200)  # 1 to 12: purged
    run_purge(connection)
    add_old_archived_events(outbox, 1, days_ago=1200)  # 13: still in the archive
    add_old_deaths(outbox, 5, days_ago=1200)  # 14 to 18
    retry_events(connection, outbox.event_ids(15, 16, 17), audit=AUDIT)
    outbox.deliver([15, 16])
    connection.execute(
        "update dlq.retry set outcome = 'delivered', settled_at = now() where death_id = 15"
    )
    rollup = one(connection, "select sum(deaths) as n from dlq.cause_day")
    ledger = (
        "select count(*) as deaths, (select count(*) from dlq.retry) as retries,"
        " (select count(*) from dlq.purged)"
    )
    before = one(connection, f"{ledger} from dlq.death")
    dry_run = RunOptions(dry_run=True)
    assert purge_deaths(
        connection, before=NOW - timedelta(days=1095), audit=AUDIT, options=dry_run
    ) == PurgeResult(13, 2)
    assert one(connection, f"{ledger} from dlq.death") == before
    assert purge_deaths(connection, before=NOW - timedelta(days=1095), audit=AUDIT) == PurgeResult(
        13, 2
    )
    kept = connection.execute("select event_id::text from dlq.death order by id").fetchall()
    ids = map(str, outbox.event_ids(13, 14, 16, 17, 18))
    assert [row["event_id"] for row in kept] == list(ids)
    assert one(connection, "select sum(deaths) as n from dlq.cause_day") == rollup
    assert one(connection, "select count(*) as n from dlq.purged")["n"] == 0
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED
    assert connection.fetch_one("cause.rollup_difference") == {
        "ledger": 18,
        "rollup": 18,
        "counters": 18,
        "ledger_details": 0,
        "details": 0,
    }
    assert purge_deaths(connection, before=NOW - timedelta(days=1095), audit=AUDIT) == PurgeResult(
        0, 0
    )


def test_the_record_of_a_purge_lasts_until_the_last_death_of_the_event_is_purged(
    connection: Connection,
) -> None:
    """So does the record of a restore, which reports of that time need."""
    add_archived_events(connection, 2, days_ago=1094)
    connection.execute(
        "insert into dlq.death (event_id, event_created_at, aggregate_type, aggregate_id,"
        " event_type, attempts, died_at, error, cause_id)"
        " select event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,"
        " died_at - interval '1 week', error, cause_id from dlq.death where event_id = 1"
    )
    connection.execute(
        "insert into dlq.restored select id, event_id, died_at, died_at, died_at from dlq.death"
    )
    recorded = "select array_agg(event_id order by event_id) as ids from dlq.{}"
    run_purge(connection)
    assert purge_deaths(connection, before=NOW - timedelta(days=1097), audit=AUDIT) == PurgeResult(
        1, 1
    )
    assert (
        one(connection, recorded.format("purged"))
        == one(connection, recorded.format("restored"))
        == {"ids": [1, 2]}
    )
    assert connection.fetch_one("reconcile.unaccounted") == BALANCED
    assert purge_deaths(connection, before=NOW - timedelta(days=1000), audit=AUDIT) == PurgeResult(
        2, 1
    )
    assert (
        one(connection, recorded.format("purged"))
        == one(connection, recorded.format("restored"))
        == {"ids": None}
    )


def test_the_check_of_stages_works_after_their_retries_are_purged(
    connection: Connection,
) -> None:
    """It compares each counter with the remaining and the purged retries, and names a wrong one."""
    add_events(connection, 5)
    kill(connection, "ValueError: alpha broke")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    now = datetime.now(UTC)
    fix = flag_fix(connection, FixFlag(Selection(all=True)), audit=replace(AUDIT, now=now)).id
    advance_fix(connection, fix, audit=replace(AUDIT, now=now), terms=FixTerms())
    connection.execute("update outbox_event set status = 'done' where id < 4")
    connection.execute("update outbox_event set status = 'dead' where id = 4")
    connection.execute("delete from outbox_event where id = 5")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    advance_fix(
        connection, fix, audit=replace(AUDIT, now=now + timedelta(hours=1)), terms=FixTerms()
    )
    counted = StageOutcomes(size=10, released=5, delivered=3, died_again=1, deleted=1)
    assert get_stage_outcomes(connection, fix) == {1: counted}
    before, audit = now + timedelta(days=1), replace(AUDIT, now=now)
    assert purge_deaths(connection, before=before, audit=audit) == PurgeResult(4, 1)
    assert connection.run("fix.stages_difference").fetchall() == []
    connection.execute("update outbox_event set status = 'done' where id = 4")
    assert purge_deaths(connection, before=before, audit=audit) == PurgeResult(2, 1)
    assert connection.run("fix.stages_difference").fetchall() == []
    assert one(connection, "select count(*) as n from dlq.retry") == {"n": 0}
    assert get_stage_outcomes(connection, fix) == {1: counted}
    connection.execute("update dlq.fix_outcome set events = 4 where outcome = 'delivered'")
    assert connection.run("fix.stages_difference").fetchall() == [{"fix_id": fix, "stage": 1}]


def test_deaths_are_kept_while_a_retry_without_outcome_needs_them(
    connection: Connection,
) -> None:
    """An event that was purged before its outcome was recorded died again; it was not deleted."""
    add_events(connection, 1)
    kill(connection, "ValueError: alpha broke")
    now = datetime.now(UTC)
    audit, later = replace(AUDIT, now=now), now + timedelta(days=1)
    retry_events(connection, [1], audit=audit)
    connection.execute("update outbox_event set status = 'dead'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    archive_dead_events(connection, before=later, only_exported=False, audit=audit)
    assert purge_archive(connection, before=later, audit=audit) == PurgeResult(1, 1)
    assert purge_deaths(connection, before=later, audit=audit) == PurgeResult(0, 0)
    assert settle_retries(connection, now=later, settle_seconds=900) == 1
    assert one(connection, "select outcome from dlq.retry") == {"outcome": "died_again"}
    assert purge_deaths(connection, before=later, audit=audit) == PurgeResult(2, 1)


def test_batches_use_the_index(outbox: ShapedOutbox) -> None:
    """Few of the archived events are old enough."""
    connection = outbox.connection
    add_old_archived_events(outbox, 400, days_ago=366)
    outbox.add_events(20_000)
    connection.execute(
        f"insert into dlq.archived select t.*, {outbox.shape.number}, %s"
        f" from {outbox.shape.table} t".encode(),
        [NOW],
    )
    connection.execute("analyze")
    for name, values in (
        ("purge", {"before": NOW, "limit": 10}),
        ("count_purgeable", {"before": NOW}),
        (
            "purge_deaths",
            {"before": NOW, "limit": 10, "after_time": NOW - timedelta(days=9999), "after_id": 0},
        ),
    ):
        text = connection.render_query(f"archive.{name}", **values)
        plan = "\n".join(
            row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode())
        )
        assert "Seq Scan on archived" not in plan, plan
        assert name == "purge_deaths" or "Index Cond: (dlq_archived_at < " in plan, plan


@pytest.mark.usefixtures("home")
def test_the_dry_run_of_the_asset_has_the_figures_of_the_purge(connection: Connection) -> None:
    """The retentions are those of the installation."""
    add_events(connection, 2)
    kill(connection, "ValueError: alpha broke")
    date_deaths(connection, "died_at - interval '1200 days'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute("update outbox_event set status = 'done'")
    add_archived_events(connection, 3, days_ago=500)
    figures = []
    for dry_run in (True, False, False):
        config = {"ops": {"archive_purge": {"config": {"dry_run": dry_run}}}}
        run = dg.materialize([defs.resolve_assets_def("archive_purge")], run_config=config)
        metadata = read_result(run, "archive_purge")
        figures.append((metadata["events_purged"].value, metadata["deaths_purged"].value))
    assert figures == [(3, 2), (3, 2), (0, 0)]
    assert one(connection, "select count(*) as n from dlq.death") == {"n": 3}
