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

from dlq_pipelines.exports.target import Target, measure, said_clearly
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import Figures
from dlq_pipelines.reports.page import DayRow, index_html, missing_html
from dlq_pipelines.reports.states import URGENT

INDEX = "index.html"
# Days in the list: a year and a leap day.
LISTED = 366


def publish(  # noqa: PLR0913 - keyword-only past the report
    connection: Connection, figures: Figures, headline: str, *, texts: Mapping[str, str], target: Target, now: datetime
) -> None:
    """Write the report's files, by their suffix, and the list of reports.

    Raises:
        DlqError: the target cannot be written to.
    """
    day, zone = figures.window.day, figures.window.zone
    again = "build it again"
    with said_clearly(target, f"The report of {day} cannot be written to", again), connection.transaction():
        connection.run("report.lock_publishing")
        with target.unfinished(".report-") as staging:
            files = {suffix: _finished(staging, report_file(day, suffix), text) for suffix, text in texts.items()}
            _record(connection, figures, headline, list(files.values()), now)
            for file in files.values():
                target.put(file, file.name)
            _lead_on(connection, target, staging, day, zone)
            target.put(_finished(staging, INDEX, index_html(list_reports(connection), zone)), INDEX)


def places(target: Target, day: date, suffixes: Iterable[str]) -> dict[str, str]:
    """Where a day's files of these suffixes are, and the list of reports as `index`."""
    names = {suffix: report_file(day, suffix) for suffix in suffixes} | {"index": INDEX}
    return {what: target.place(name) for what, name in names.items()}


def report_file(day: date, suffix: str = "html") -> str:
    """The name of a report's file."""
    return f"{day.isoformat()}.{suffix}"


def _finished(staging: Path, name: str, text: str) -> Path:
    file = staging / name
    file.write_text(text, encoding="utf-8", newline="\n")
    measure(file, name)  # on disk after that
    return file


def _record(connection: Connection, figures: Figures, headline: str, files: list[Path], now: datetime) -> None:
    counted = {
        "deaths": figures.totals.deaths,
        "causes": figures.totals.causes,
        "open": figures.backlog.open,
        **{state.value: len(figures.in_state(state)) for state in URGENT},
        **{status: len(figures.ended(status)) for status in ("verified", "halted")},
    }
    connection.run(
        "report.record",
        day=figures.window.day,
        headline=headline,
        figures=json.dumps(counted),
        files=json.dumps([asdict(measure(file, file.name)) for file in files]),
        now=now,
    )


def list_reports(
    connection: Connection, *, limit: int = LISTED, day: date | None = None, before: date | None = None
) -> list[DayRow]:
    """The days that have a report, the last first: all, one of them, or those before a day."""
    rows = connection.run("report.recorded", limit=limit, day=day, before=before)
    return [DayRow(row["day"], row["headline"], row["figures"]) for row in rows]


def _lead_on(connection: Connection, target: Target, staging: Path, day: date, zone: ZoneInfo) -> None:
    """A page for the day before and the day after where they have no report."""
    for neighbour in (day - timedelta(days=1), day + timedelta(days=1)):
        name = report_file(neighbour)
        if not connection.one("report.is_recorded", day=neighbour)["found"] and not target.has(name):
            target.put(_finished(staging, name, missing_html(neighbour, zone)), name)


def fetch_twin(target: Target, day: date) -> str | None:
    """The day's report as JSON; None: there is no report.

    Raises:
        DlqError: the target does not answer.
    """
    with said_clearly(target, f"The report of {day} cannot be read in", "ask again"):
        if not target.has(report_file(day, "json")):
            return None
        with target.open(report_file(day, "json")) as stream:
            return str(stream.read().decode())


def fetch_page(target: Target, day: date, *, folder: Path) -> str | None:
    """The day's page as a file of this machine, copied to `folder` from elsewhere; None: there is no report.

    Raises:
        DlqError: the target does not answer.
    """
    with said_clearly(target, f"The report of {day} cannot be read in", "open it again"):
        # A neighbour's page that says there is no report has no twin.
        if not target.has(report_file(day, "json")):
            return None
        if target.local is not None:
            return target.place(report_file(day))
        with target.open(report_file(day)) as stream:
            text = stream.read()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / report_file(day)).write_bytes(text)
    return str((folder / report_file(day)).resolve())
