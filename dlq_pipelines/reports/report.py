"""What does the person on call read about yesterday's failures in one minute?

A report is one set of figures told three times: a page for people, Markdown for chats and Dagster's UI, JSON for
programs. Nothing that happened after the day's end is in it, so a day that is built again is the same bytes, whatever
was retried, archived or purged since; the files therefore do not say when they were built. Merging or naming causes
changes past days on purpose, and so does classifying deaths that had waited for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.exports.target import Target
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ReportFigures, ReportPolicy, ReportWindow
from dlq_pipelines.reports.json_report import render_report_json
from dlq_pipelines.reports.markdown import render_report_markdown
from dlq_pipelines.reports.page import render_report_page
from dlq_pipelines.reports.publish import locate_report_files, publish_report
from dlq_pipelines.reports.read import read_report_figures
from dlq_pipelines.reports.wording import build_headline


@dataclass(frozen=True, eq=False)
class Report:
    """A day's report.

    Attributes:
        figures: all that it tells.
        headline: the day in a few sentences of plain text that strangers wrote parts of: escape it.
        html: the page; `markdown` and `json`: its twins.
        places: where the files are, by `html`, `md`, `json` and `index`; empty until it is published.
    """

    figures: ReportFigures
    headline: str
    html: str
    markdown: str
    json: str
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def day(self) -> date:
        """The day that it is about."""
        return self.figures.window.day


def make_report(
    connection: Connection, *, day: date, zone: ZoneInfo, policy: ReportPolicy, now: datetime
) -> Report:
    """Read the ledger and tell the day; writes nothing.

    Args:
        connection: in autocommit mode and outside a transaction.
        day: the day of `died_at` in `zone`, which must be over.
        zone: where it is that day.
        policy: what the installation decides.
        now: the moment.

    Raises:
        RefusedError: the day is not over, or the ledger has forgotten some of its deaths.
    """
    figures = read_report_figures(connection, ReportWindow(day, zone), policy=policy, now=now)
    said = build_headline(figures)
    return Report(
        figures,
        said,
        render_report_page(figures, said),
        render_report_markdown(figures, said),
        render_report_json(figures, said),
    )


def build_report(
    connection: Connection,
    *,
    day: date,
    zone: ZoneInfo,
    target: Target,
    policy: ReportPolicy,
    now: datetime,
    dry_run: bool = False,
) -> Report:
    """Make the report and put its files, and the list of reports, into their places. See `make_report`.

    A dry run says their places and writes nothing.

    Raises:
        RefusedError: as `make_report` does.
        DlqError: the target cannot be written to; earlier files stay as they were.
    """
    report = make_report(connection, day=day, zone=zone, policy=policy, now=now)
    texts = {"html": report.html, "md": report.markdown, "json": report.json}
    if not dry_run:
        publish_report(
            connection, report.figures, report.headline, texts=texts, target=target, now=now
        )
    return replace(report, places=locate_report_files(target, day, texts))
