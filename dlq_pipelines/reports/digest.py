"""What does a channel get in the morning: a few lines and where the whole report is."""

from dataclasses import dataclass

from dlq_pipelines.reports.report import Report
from dlq_pipelines.reports.states import URGENT_STATES
from dlq_pipelines.text import escape_markdown, format_count

_CAUSES = 5


@dataclass(frozen=True)
class ReportDigest:
    """A short message about a day.

    Attributes:
        title: one line.
        text: plain text; `markdown`: the same for channels that render it. Strangers' texts in it stay texts.
    """

    title: str
    text: str
    markdown: str


def build_digest(report: Report) -> ReportDigest:
    """Headline, the causes with most harm, and where the report is."""
    figures = report.figures
    news = [
        f"{n:,} {state.value}" for state in URGENT_STATES if (n := len(figures.in_state(state)))
    ]
    title = f"Dead events {report.day}: {', '.join([format_count(figures.totals.deaths, 'death'), *news])}"
    lines = [
        (
            cause.state.value,
            cause.title,
            f"{format_count(cause.deaths, 'death')}, {format_count(cause.aggregates, 'aggregate')}",
        )
        for cause in figures.causes[:_CAUSES]
    ]
    plain = [report.headline, *(f"- {state}: {cause} ({counts})" for state, cause, counts in lines)]
    marked = [
        f"**{escape_markdown(report.headline, 1_000)}**",
        "",
        *(f"- **{state}** {escape_markdown(cause)} ({counts})" for state, cause, counts in lines),
    ]
    where = report.places.get("html")
    if where:
        plain.append(where)
        marked += ["", escape_markdown(where)]
    return ReportDigest(title, "\n".join(plain), "\n".join(marked))
