"""Builds the short message about a day that alert channels receive in the morning."""

from dataclasses import dataclass

from dlq_pipelines.reports.report import Report
from dlq_pipelines.reports.states import URGENT_STATES
from dlq_pipelines.reports.wording import format_aggregates
from dlq_pipelines.text import format_count

_MAX_CAUSES = 5


@dataclass(frozen=True)
class ReportDigest:
    """A short message about a day.

    Attributes:
        title: one line.
        text: headline, causes and the place of the report, as plain text.
    """

    title: str
    text: str


def build_digest(report: Report) -> ReportDigest:
    """Build the digest of a report, with the five most harmful causes."""
    figures = report.figures
    counts = [format_count(figures.totals.deaths, "death")]
    counts += [
        f"{count:,} {state}"
        for state in URGENT_STATES
        if (count := len(figures.list_causes(state)))
    ]
    lines = [report.headline]
    for cause in figures.causes[:_MAX_CAUSES]:
        affected = f"{format_count(cause.deaths, 'death')}, {format_aggregates(cause)}"
        lines.append(f"- {cause.state}: {cause.title} ({affected})")
    if place := report.places.get("html"):
        lines.append(place)
    return ReportDigest(f"Dead events {report.day}: {', '.join(counts)}", "\n".join(lines))
