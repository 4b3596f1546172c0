"""Makes the report of a day and publishes it.

A report renders one set of figures as HTML for people, Markdown for chats and Dagster's UI, and
JSON for programs. It contains nothing that happened after the end of the day, so a rebuilt report
has the same bytes, whatever was retried, archived or purged since. For the same reason the files do
not say when they were built. Merging or naming causes changes past days on purpose, and so does
the classification of deaths that waited for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.exports.target import Target
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.explain import record_explanations
from dlq_pipelines.reports.figures import ReportFigures, ReportPolicy, ReportWindow
from dlq_pipelines.reports.json_report import render_report_json
from dlq_pipelines.reports.markdown import render_report_markdown
from dlq_pipelines.reports.page import render_report_page
from dlq_pipelines.reports.publish import locate_report_files, publish_report
from dlq_pipelines.reports.read import read_report_figures
from dlq_pipelines.reports.wording import build_headline


@dataclass(frozen=True, eq=False)
class Report:
    """The report of a day.

    Attributes:
        figures: all figures that the report shows.
        headline: the day in a few sentences of plain text. Contains texts of events: escape it.
        html: the page.
        markdown: the report as Markdown.
        json: the report as JSON.
        places: where the files are, by `html`, `md`, `json` and `index`; empty until published.
    """

    figures: ReportFigures
    headline: str
    html: str
    markdown: str
    json: str
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def day(self) -> date:
        """The reported day."""
        return self.figures.window.day


def make_report(
    connection: Connection, *, day: date, zone: ZoneInfo, policy: ReportPolicy, now: datetime
) -> Report:
    """Read the ledger and render the report of a day; write nothing.

    Args:
        connection: in autocommit mode and outside a transaction.
        day: the day of `died_at` in `zone`, which must be over.
        zone: the time zone of the day.
        policy: the settings of the installation.
        now: the current time.

    Raises:
        RefusedError: the day is not over, or the ledger has deleted deaths of the day.
    """
    return _render_report(
        read_report_figures(connection, ReportWindow(day, zone), policy=policy, now=now)
    )


def _render_report(figures: ReportFigures) -> Report:
    headline = build_headline(figures)
    return Report(
        figures=figures,
        headline=headline,
        html=render_report_page(figures, headline),
        markdown=render_report_markdown(figures, headline),
        json=render_report_json(figures, headline),
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
    """Make the report of a day and publish its files and the list of reports.

    The first one also records what sets the events of new, regressed and escalating causes apart.

    Args:
        connection: see `make_report`.
        day: see `make_report`.
        zone: see `make_report`.
        target: where the files are written.
        policy: see `make_report`.
        now: see `make_report`.
        dry_run: return the places of the files and write nothing.

    Raises:
        RefusedError: see `make_report`.
        DlqError: the target cannot be written to; earlier files are unchanged.
    """
    figures = read_report_figures(connection, ReportWindow(day, zone), policy=policy, now=now)
    report = _render_report(
        figures if dry_run else record_explanations(connection, figures, now=now)
    )
    texts = {"html": report.html, "md": report.markdown, "json": report.json}
    if not dry_run:
        publish_report(
            connection, report.figures, report.headline, texts=texts, target=target, now=now
        )
    return replace(report, places=locate_report_files(target, day, texts))
