"""What does a channel get in the morning: a few lines and where the whole report is."""

from dataclasses import dataclass

from dlq_pipelines.reports.report import Report
from dlq_pipelines.reports.states import URGENT
from dlq_pipelines.text import counted, markdown_text

_CAUSES = 5


@dataclass(frozen=True)
class Digest:
    """A short message about a day.

    Attributes:
        title: one line.
        text: plain text; `markdown`: the same for channels that render it. Strangers' texts in it stay texts.
    """

    title: str
    text: str
    markdown: str


def digest(report: Report) -> Digest:
    """Headline, the causes with most harm, and where the report is."""
    figures = report.figures
    news = [f"{n:,} {state.value}" for state in URGENT if (n := len(figures.in_state(state)))]
    title = f"Dead events {report.day}: {', '.join([counted(figures.totals.deaths, 'death'), *news])}"
    lines = [
        (cause.state.value, cause.title, f"{counted(cause.deaths, 'death')}, {counted(cause.aggregates, 'aggregate')}")
        for cause in figures.causes[:_CAUSES]
    ]
    plain = [report.headline, *(f"- {state}: {cause} ({counts})" for state, cause, counts in lines)]
    marked = [
        f"**{markdown_text(report.headline, 1_000)}**",
        "",
        *(f"- **{state}** {markdown_text(cause)} ({counts})" for state, cause, counts in lines),
    ]
    where = report.places.get("html")
    if where:
        plain.append(where)
        marked += ["", markdown_text(where)]
    return Digest(title, "\n".join(plain), "\n".join(marked))
