"""Builds the short message about a day that alert channels receive in the morning."""

from dataclasses import dataclass

from dlq_pipelines.reports.report import Report
from dlq_pipelines.reports.states import URGENT_STATES
from dlq_pipelines.reports.wording import format_aggregates
from dlq_pipelines.text import escape_markdown, format_count

_MAX_CAUSES = 5


@dataclass(frozen=True)
class ReportDigest:
    """A short message about a day.

    Attributes:
        title: one line.
        text: headline, causes and the place of the report, as plain text.
        markdown: the same as Markdown, with texts of events escaped.
    """

    title: str
    text: str
    markdown: str


def build_digest(report: Report) -> ReportDigest:
    """Build the digest of a report, with the five most harmful causes."""
    figures = report.figures
    counts = [format_count(figures.totals.deaths, "death")]
    counts += [
        f"{count:,} {state}"
        for state in URGENT_STATES
        if (count := len(figures.list_causes(state)))
    ]
    plain = [report.headline]
    marked = [f"**{escape_markdown(report.headline, 1_000)}**", ""]
    for cause in figures.causes[:_MAX_CAUSES]:
        affected = f"{format_count(cause.deaths, 'death')}, {format_aggregates(cause)}"
        plain.append(f"- {cause.state}: {cause.title} ({affected})")
        marked.append(f"- **{cause.state}** {escape_markdown(cause.title)} ({affected})")
    if place := report.places.get("html"):
        plain.append(place)
        marked += ["", escape_markdown(place)]
    return ReportDigest(
        title=f"Dead events {report.day}: {', '.join(counts)}",
        text="\n".join(plain),
        markdown="\n".join(marked),
    )
