"""How do a day's report and the list of all reports get to their place, never half and never older than what is there?

One report at a time: it puts its files, records them, and writes the list of all that are recorded. Files are finished
beside their place first. A neighbour that has no report gets a page that says so, so that no link leads nowhere.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from dlq_pipelines.exports.target import Target, explain_storage_errors, measure_file
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ReportFigures
from dlq_pipelines.reports.page import DayRow, render_index_page, render_missing_page
from dlq_pipelines.reports.states import URGENT_STATES

INDEX_FILE = "index.html"
# Days in the list: a year and a leap day.
MAX_LISTED = 366


def publish_report(
    connection: Connection,
    figures: ReportFigures,
    headline: str,
    *,
    texts: Mapping[str, str],
    target: Target,
    now: datetime,
) -> None:
    """Write the report's files, by their suffix, and the list of reports.

    Raises:
        DlqError: the target cannot be written to.
    """
    day, zone = figures.window.day, figures.window.zone
    again = "build it again"
    with (
        explain_storage_errors(target, f"The report of {day} cannot be written to", again),
        connection.transaction(),
    ):
        connection.run("report.lock_publishing")
        with target.unfinished(".report-") as staging:
            files = {
                suffix: _finished(staging, get_report_file_name(day, suffix), text)
                for suffix, text in texts.items()
            }
            _record(connection, figures, headline, list(files.values()), now)
            for file in files.values():
                target.put(file, file.name)
            _lead_on(connection, target, staging, day, zone)
            target.put(
                _finished(staging, INDEX_FILE, render_index_page(list_reports(connection), zone)),
                INDEX_FILE,
            )


def locate_report_files(target: Target, day: date, suffixes: Iterable[str]) -> dict[str, str]:
    """Where a day's files of these suffixes are, and the list of reports as `index`."""
    names = {suffix: get_report_file_name(day, suffix) for suffix in suffixes} | {
        "index": INDEX_FILE
    }
    return {what: target.place(name) for what, name in names.items()}


def get_report_file_name(day: date, suffix: str = "html") -> str:
    """The name of a report's file."""
    return f"{day.isoformat()}.{suffix}"


def _finished(staging: Path, name: str, text: str) -> Path:
    file = staging / name
    file.write_text(text, encoding="utf-8", newline="\n")
    measure_file(file, name)  # on disk after that
    return file


def _record(
    connection: Connection, figures: ReportFigures, headline: str, files: list[Path], now: datetime
) -> None:
    counted = {
        "deaths": figures.totals.deaths,
        "causes": figures.totals.causes,
        "open": figures.backlog.open,
        **{state.value: len(figures.in_state(state)) for state in URGENT_STATES},
        **{status: len(figures.ended(status)) for status in ("verified", "halted")},
    }
    connection.run(
        "report.record",
        day=figures.window.day,
        headline=headline,
        figures=json.dumps(counted),
        files=json.dumps([asdict(measure_file(file, file.name)) for file in files]),
        now=now,
    )


def list_reports(
    connection: Connection,
    *,
    limit: int = MAX_LISTED,
    day: date | None = None,
    before: date | None = None,
) -> list[DayRow]:
    """The days that have a report, the last first: all, one of them, or those before a day."""
    rows = connection.run("report.recorded", limit=limit, day=day, before=before)
    return [DayRow(row["day"], row["headline"], row["figures"]) for row in rows]


def _lead_on(
    connection: Connection, target: Target, staging: Path, day: date, zone: ZoneInfo
) -> None:
    """A page for the day before and the day after where they have no report."""
    for neighbour in (day - timedelta(days=1), day + timedelta(days=1)):
        name = get_report_file_name(neighbour)
        if not connection.fetch_one("report.is_recorded", day=neighbour)[
            "found"
        ] and not target.has(name):
            target.put(_finished(staging, name, render_missing_page(neighbour, zone)), name)


def fetch_json_report(target: Target, day: date) -> str | None:
    """The day's report as JSON; None: there is no report.

    Raises:
        DlqError: the target does not answer.
    """
    with explain_storage_errors(target, f"The report of {day} cannot be read in", "ask again"):
        if not target.has(get_report_file_name(day, "json")):
            return None
        with target.open(get_report_file_name(day, "json")) as stream:
            return str(stream.read().decode())


def fetch_report_page(target: Target, day: date, *, folder: Path) -> str | None:
    """The day's page as a file of this machine, copied to `folder` from elsewhere; None: there is no report.

    Raises:
        DlqError: the target does not answer.
    """
    with explain_storage_errors(target, f"The report of {day} cannot be read in", "open it again"):
        # A neighbour's page that says there is no report has no twin.
        if not target.has(get_report_file_name(day, "json")):
            return None
        if target.local is not None:
            return target.place(get_report_file_name(day))
        with target.open(get_report_file_name(day)) as stream:
            text = stream.read()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / get_report_file_name(day)).write_bytes(text)
    return str((folder / get_report_file_name(day)).resolve())
