"""Tests the retention of the files of exports and reports, in folders and in an object store."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.definitions import defs
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.missing import list_days_without_export
from dlq_pipelines.exports.purge import FilePurgeResult, purge_export_files
from dlq_pipelines.exports.target import Target, open_local_target, open_target
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.reports.figures import ReportPolicy
from dlq_pipelines.reports.missing import list_days_without_report
from dlq_pipelines.reports.publish import list_reports
from dlq_pipelines.reports.purge import purge_report_files
from dlq_pipelines.reports.report import build_report
from tests.rows import (
    deaths_at,
    one,
    wait_for_blocked_session,
    wait_until_alone,
)
from tests.runs import read_result

UTC_ZONE = ZoneInfo("UTC")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("job", "retention", NOW)
DAYS = [Day.of(date(2026, 11, number), UTC_ZONE) for number in (1, 2, 3)]
THIRD = DAYS[2].date
Write = Callable[[Target], None]


@pytest.fixture
def write_exports(connection: Connection, database: Database) -> Write:
    """A function that exports three days with two deaths each."""
    for day in DAYS:
        with deaths_at(connection, day.start + timedelta(hours=12)):
            connection.execute(
                "insert into outbox_event"
                " (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
                " select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1'"
                " from generate_series(1, 2) n"
            )
    classify_deaths(connection, zone=UTC_ZONE)

    def write(target: Target) -> None:
        for day in DAYS:
            export_day(connection, url=database.url, day=day, target=target, now=NOW)
            assert verify_day(connection, day=day, target=target, now=NOW) == []

    return write


def list_names(day: Day) -> list[str]:
    """Return the names of the files of a day."""
    part = f"died_on={day.date}/part-00000"
    return [
        f"died_on={day.date}/_manifest.json",
        f"{part}.parquet",
        f"_csv/{part}.csv.gz",
        f"_jsonl/{part}.jsonl.gz",
    ]


def list_files(folder: Path) -> list[str]:
    """Return what is in a folder, folders included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("place", ["local", "s3"])
def test_files_past_the_retention_are_deleted_and_their_days_stay_exported(
    connection: Connection,
    write_exports: Write,
    place: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """A dry run deletes nothing. A day that is exported again has files again."""
    target = open_local_target(tmp_path)
    if place == "s3":
        host = request.getfixturevalue("s3")
        uri = f"s3://key:s3cr3t@bucket/x?scheme=http&endpoint_override={host}&region=eu-central-1"
        target = open_target(uri, staging=tmp_path)
    write_exports(target)
    for dry_run in (True, False):
        options = RunOptions(dry_run=dry_run)
        done = purge_export_files(
            connection, before=THIRD, target=target, audit=AUDIT, options=options
        )
        assert done == FilePurgeResult(days=2, files=8)
        for day in DAYS[:2]:
            assert [target.has(name) for name in list_names(day)] == [dry_run] * 4
        assert all(target.has(name) for name in list_names(DAYS[2]))
    again = purge_export_files(connection, before=THIRD, target=target, audit=AUDIT)
    assert again == FilePurgeResult(0, 0)
    audit = connection.execute("select kind, filter from dlq.audit order by id").fetchall()
    assert audit == [
        {"kind": "export.purge", "filter": {"day": str(day.date), "files": 4}} for day in DAYS[:2]
    ]
    assert list_days_without_export(connection, DAYS) == []
    moved = archive_dead_events(connection, before=NOW, only_exported=True, audit=AUDIT).moved
    assert moved == 6
    write_exports(target)
    assert one(connection, "select count(deleted_at) as n from dlq.export_day") == {"n": 0}
    assert all(target.has(name) for day in DAYS for name in list_names(day))


def test_nothing_else_is_deleted(
    connection: Connection, write_exports: Write, tmp_path: Path
) -> None:
    """Not files of people in the folders, nor what an edited record names. Empty folders are."""
    target = open_local_target(tmp_path)
    write_exports(target)
    folder = tmp_path / "dead_events"
    kept = folder / f"died_on={DAYS[0].date}" / "notes.txt"
    for file in (kept, folder / "died_on=2026-10-01" / "part-00000.parquet", tmp_path / "other"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    connection.execute(
        "update dlq.export_day set files = files || %s where day = %s",
        [f'[{{"name": "../other"}}, {{"name": "died_on={DAYS[0].date}/notes.txt"}}]', DAYS[0].date],
    )
    later = DAYS[2].date + timedelta(days=1)
    done = purge_export_files(connection, before=later, target=target, audit=AUDIT)
    assert done == FilePurgeResult(3, 12)
    assert list_files(folder) == [
        "_csv",
        "_jsonl",
        "died_on=2026-10-01",
        "died_on=2026-10-01/part-00000.parquet",
        f"died_on={DAYS[0].date}",
        f"died_on={DAYS[0].date}/notes.txt",
    ]
    assert (tmp_path / "other").read_text() == "mine"


def test_a_day_that_is_exported_now_is_left(
    connection: Connection, database: Database, write_exports: Write, tmp_path: Path
) -> None:
    target = open_local_target(tmp_path)
    write_exports(target)
    with database.connect() as other, other.transaction():
        assert other.fetch_one("export.lock_day", day=DAYS[0].date)["locked"]
        done = purge_export_files(connection, before=THIRD, target=target, audit=AUDIT)
        assert done == FilePurgeResult(1, 4)
    done = purge_export_files(connection, before=THIRD, target=target, audit=AUDIT)
    assert done == FilePurgeResult(1, 4)


KILLED = """
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.exports.purge import purge_export_files
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.postgres.connect import Database
with Database(sys.argv[1]).connect() as connection:
    purge_export_files(
        connection,
        before=date(2026, 11, 3),
        target=open_local_target(Path(sys.argv[2])),
        audit=AuditContext("job", "retention", datetime.now(UTC)),
    )
"""


def test_a_killed_run_is_finished_by_the_next_one(
    connection: Connection, database: Database, write_exports: Write, tmp_path: Path
) -> None:
    """It is killed after it has deleted the files of the second day, before it has recorded it."""
    target = open_local_target(tmp_path)
    write_exports(target)
    with database.connect() as other, other.transaction():
        other.execute("select from dlq.export_day where day = %s for update", [DAYS[1].date])
        process = subprocess.Popen([sys.executable, "-c", KILLED, database.url, str(tmp_path)])
        wait_for_blocked_session(connection)
        process.kill()
        process.wait()
    wait_until_alone(connection)
    deleted = "select day from dlq.export_day where deleted_at is not null"
    assert connection.execute(deleted.encode()).fetchall() == [{"day": DAYS[0].date}]
    assert not target.has(list_names(DAYS[1])[1])
    done = purge_export_files(connection, before=THIRD, target=target, audit=AUDIT)
    assert done == FilePurgeResult(1, 0)
    assert len(connection.execute(deleted.encode()).fetchall()) == 2


@pytest.mark.usefixtures("write_exports")
def test_reports_past_the_retention_are_deleted_and_no_link_is_broken(
    connection: Connection, tmp_path: Path
) -> None:
    """The page before the first report says that it is missing."""
    target = open_local_target(tmp_path, "")
    for day in DAYS:
        build_report(
            connection,
            day=day.date,
            zone=UTC_ZONE,
            target=target,
            policy=ReportPolicy(),
            now=NOW,
        )
    (tmp_path / "notes.html").write_text("mine")
    (tmp_path / "2026-10-31.html").unlink()  # the page of the day before the first report

    def purge(before: date, *, dry_run: bool = False) -> FilePurgeResult:
        return purge_report_files(
            connection,
            before=before,
            zone=UTC_ZONE,
            target=target,
            audit=AUDIT,
            options=RunOptions(dry_run=dry_run),
        )

    before = list_files(tmp_path)
    assert purge(THIRD, dry_run=True) == FilePurgeResult(2, 6)
    assert list_files(tmp_path) == before
    assert purge(THIRD) == FilePurgeResult(2, 6)
    third = [f"{THIRD}.html", f"{THIRD}.json", f"{THIRD}.md"]
    missing, after = f"{DAYS[1].date}.html", "2026-11-04.html"
    assert list_files(tmp_path) == sorted([missing, *third, after, "index.html", "notes.html"])
    assert "KeyError" not in (tmp_path / missing).read_text("utf-8")
    assert str(DAYS[1].date) not in (tmp_path / "index.html").read_text("utf-8")
    assert [report.day for report in list_reports(connection)] == [THIRD]
    assert list_days_without_report(connection, DAYS) == []
    assert purge(THIRD + timedelta(days=1)) == FilePurgeResult(1, 3)
    assert list_files(tmp_path) == sorted([after, "index.html", "notes.html"])
    kinds = connection.execute("select kind from dlq.audit").fetchall()
    assert [row["kind"] for row in kinds] == ["report.purge"] * 3


def test_the_job_deletes_files_if_a_retention_is_set(
    connection: Connection, write_exports: Write, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default no file is deleted."""
    target = open_local_target(home / "exports")
    write_exports(target)
    found = []
    for days, dry_run in (("", False), ("1", True), ("1", False)):
        monkeypatch.setenv("DLQ_EXPORT_RETENTION_DAYS", days)
        monkeypatch.setenv("DLQ_REPORT_RETENTION_DAYS", days)
        result = dg.materialize(
            [defs.resolve_assets_def("archive_purge")],
            run_config={"ops": {"archive_purge": {"config": {"dry_run": dry_run}}}},
        )
        metadata = {key: value.value for key, value in read_result(result, "archive_purge").items()}
        found.append((metadata["export_files_deleted"], metadata["report_files_deleted"]))
        assert target.has(list_names(DAYS[0])[0]) == (days == "" or dry_run)
    assert found == [(0, 0), (12, 0), (12, 0)]
    assert one(connection, "select count(deleted_at) as n from dlq.export_day") == {"n": 3}
