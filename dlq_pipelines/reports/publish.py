"""Publishes the files of a report and the list of reports, atomically and one report at a time.

Each report writes its files, is recorded, and writes the list of all recorded reports. Files are
completed in a staging folder first, so readers never see a partial file. The day before and the day
after get a page that says that there is no report yet, so no link is broken.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from dlq_pipelines.exports.target import Target, explain_storage_errors, measure_file
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ReportFigures
from dlq_pipelines.reports.page import DayRow, render_index_page, render_missing_page
from dlq_pipelines.reports.states import CauseState

_INDEX_FILE = "index.html"
# Days in the list of reports: a leap year.
_MAX_DAYS = 366


def publish_report(
    connection: Connection,
    figures: ReportFigures,
    headline: str,
    *,
    texts: Mapping[str, str],
    target: Target,
    now: datetime,
) -> None:
    """Write the files of a report and the list of reports, and record the report.

    Args:
        connection: in autocommit mode and outside a transaction.
        figures: of the report.
        headline: of the report.
        texts: content of the files, by their suffix.
        target: where the files are written.
        now: the current time, which is recorded.

    Raises:
        DlqError: the target cannot be written to.
    """
    day, zone = figures.window.day, figures.window.zone
    with (
        explain_storage_errors(
            target, f"The report of {day} cannot be written to", "build it again"
        ),
        connection.transaction(),
    ):
        connection.run("report.lock_publishing")
        with target.unfinished(".report-") as staging:
            files = [
                _write_file(staging, get_report_file_name(day, suffix), text)
                for suffix, text in texts.items()
            ]
            _record_report(connection, figures, headline, files, now)
            for file in files:
                target.put(file, file.name)
            _put_missing_pages(connection, target, staging, day, zone)
            put_index(connection, target, staging, zone)


def put_index(connection: Connection, target: Target, staging: Path, zone: ZoneInfo) -> None:
    """Write the list of all recorded reports."""
    index = render_index_page(list_reports(connection), zone)
    target.put(_write_file(staging, _INDEX_FILE, index), _INDEX_FILE)


def put_missing_page(target: Target, staging: Path, day: date, zone: ZoneInfo) -> None:
    """Write the page that says that a day has no report."""
    name = get_report_file_name(day)
    target.put(_write_file(staging, name, render_missing_page(day, zone)), name)


def locate_report_files(target: Target, day: date, suffixes: Iterable[str]) -> dict[str, str]:
    """Return where the files of a day are, by suffix, and the list of reports as `index`."""
    names = {suffix: get_report_file_name(day, suffix) for suffix in suffixes}
    names["index"] = _INDEX_FILE
    return {key: target.place(name) for key, name in names.items()}


def get_report_file_name(day: date, suffix: str = "html") -> str:
    """Return the name of a report's file, such as `2026-11-24.html`."""
    return f"{day.isoformat()}.{suffix}"


def list_reports(
    connection: Connection,
    *,
    limit: int = _MAX_DAYS,
    day: date | None = None,
    before: date | None = None,
) -> list[DayRow]:
    """List the days that have a report, the last first.

    Args:
        connection: to the ledger.
        limit: return this many days at most.
        day: return this day only.
        before: return days before this one.
    """
    rows = connection.run("report.recorded", limit=limit, day=day, before=before)
    return [DayRow(row["day"], row["headline"], row["figures"]) for row in rows]


def fetch_json_report(target: Target, day: date) -> str | None:
    """Return the JSON of a report; None if there is no report.

    Raises:
        DlqError: the target does not answer.
    """
    return _read_report_file(target, day, "json")


def read_report_page(target: Target, day: date) -> str | None:
    """Return the HTML of a report; None if there is no report.

    Raises:
        DlqError: the target does not answer.
    """
    return _read_report_file(target, day, "html")


def _read_report_file(target: Target, day: date, suffix: str) -> str | None:
    with explain_storage_errors(target, f"The report of {day} cannot be read in", "ask again"):
        # The page of a missing report has no JSON file.
        if not target.has(get_report_file_name(day, "json")):
            return None
        with target.open(get_report_file_name(day, suffix)) as stream:
            return str(stream.read().decode())


def fetch_report_page(target: Target, day: date, *, folder: Path) -> str | None:
    """Return the path of a report's page; None if there is no report.

    Args:
        target: where the report is.
        day: the reported day.
        folder: where the page is copied to if the target is not on this machine.

    Raises:
        DlqError: the target does not answer.
    """
    name = get_report_file_name(day)
    with explain_storage_errors(target, f"The report of {day} cannot be read in", "open it again"):
        # The page of a missing report has no JSON file.
        if not target.has(get_report_file_name(day, "json")):
            return None
        if target.local is not None:
            return target.place(name)
        with target.open(name) as stream:
            content = stream.read()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return str((folder / name).resolve())


def _write_file(staging: Path, name: str, text: str) -> Path:
    file = staging / name
    file.write_text(text, encoding="utf-8", newline="\n")
    measure_file(file, name)  # flushes the file to the disk
    return file


def _record_report(
    connection: Connection, figures: ReportFigures, headline: str, files: list[Path], now: datetime
) -> None:
    totals = {
        "deaths": figures.totals.deaths,
        "causes": figures.totals.causes,
        "dead": figures.backlog.dead_at_end,
        "new": len(figures.list_causes(CauseState.NEW)),
        "regressed": len(figures.list_causes(CauseState.REGRESSED)),
        "escalating": len(figures.list_causes(CauseState.ESCALATING)),
        "verified": len(figures.list_ended_fixes("verified")),
        "halted": len(figures.list_ended_fixes("halted")),
    }
    measured = [measure_file(file, file.name) for file in files]
    connection.run(
        "report.record",
        day=figures.window.day,
        headline=headline,
        figures=json.dumps(totals),
        files=json.dumps(
            [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in measured]
        ),
        now=now,
    )


def _put_missing_pages(
    connection: Connection, target: Target, staging: Path, day: date, zone: ZoneInfo
) -> None:
    """Put a page for the day before and the day after if they have no report."""
    for neighbor in (day - timedelta(days=1), day + timedelta(days=1)):
        name = get_report_file_name(neighbor)
        is_recorded = connection.fetch_one("report.is_recorded", day=neighbor)["is_recorded"]
        if not is_recorded and not target.has(name):
            put_missing_page(target, staging, neighbor, zone)
