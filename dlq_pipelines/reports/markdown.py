"""What does a chat or Dagster's UI show of the report? Strangers' texts stay texts."""

from dlq_pipelines.reports.figures import DAYS_BEFORE, CauseFigures, FixFigures, ReportFigures
from dlq_pipelines.reports.wording import (
    format_attempts,
    format_percent,
    format_rounded,
)
from dlq_pipelines.text import (
    escape_markdown,
    format_count,
    format_duration,
    render_markdown_table,
)

CAUSES_SHOWN = 10


def render_report_markdown(figures: ReportFigures, headline: str) -> str:
    """The Markdown twin: headline, figures, the ten causes with most harm, fixes, retention and books."""
    parts = [
        f"# {figures.window.day.isoformat()}",
        f"**{escape_markdown(headline, 1_000)}**",
        _facts(figures),
    ]
    if figures.causes:
        parts += ["## Causes", render_causes_markdown(figures)]
    if figures.fixes:
        parts += ["## Fixes", *(_fix(fix) for fix in figures.fixes)]
    return "\n\n".join([*parts, "## Retention and books", _keeping(figures)]) + "\n"


def render_causes_markdown(figures: ReportFigures) -> str:
    """The ten causes with most harm as a table, and how many more there are."""
    header = (
        "#",
        "cause",
        "state",
        "aggregates",
        "deaths",
        "share",
        "first seen",
        "attempts",
        "event types",
        "owner",
    )
    rows = [_row(cause, figures) for cause in figures.causes[:CAUSES_SHOWN]]
    more = len(figures.causes) - len(rows) + figures.hidden_causes
    rest = (
        f"\n\n{format_count(more, 'more cause')} with less harm: see the HTML report."
        if more > 0
        else ""
    )
    return render_markdown_table(header, rows) + rest


def _row(cause: CauseFigures, figures: ReportFigures) -> tuple[object, ...]:
    types = ", ".join(name for name, _ in cause.event_types[:3])
    return (
        cause.rank,
        cause.title,
        cause.state.value,
        cause.aggregates,
        cause.deaths,
        format_percent(cause.share).replace(" ", "\u00a0"),
        f"{cause.first_seen.astimezone(figures.window.zone):%Y-%m-%d}",
        format_attempts(cause.attempts[0], cause.attempts[2]),
        types + (f" and {cause.kinds - 3} more" if cause.kinds > 3 else ""),  # noqa: PLR2004 - as many as are named
        cause.owner or "",
    )


def _facts(figures: ReportFigures) -> str:
    totals, backlog, window = figures.totals, figures.backlog, figures.window
    oldest = (
        f", the oldest for {format_duration(window.until - backlog.oldest)}"
        if backlog.oldest
        else ""
    )
    usual = f"{format_rounded(figures.mean)} a day in the {DAYS_BEFORE} days before, {format_rounded(figures.weekday_mean)}"
    lines = [
        f"{format_count(totals.deaths, 'death')}; {usual} on the same weekday",
        f"{backlog.open:,} dead at the day's end{oldest}; {backlog.opened:,} opened, {backlog.closed:,} closed",
        f"{backlog.retried:,} retried; {backlog.delivered:,} found delivered, {backlog.died_again:,} died again",
        f"{backlog.parked:,} parked for a person",
        f"cause known of {format_percent(totals.classified)}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _fix(fix: FixFigures) -> str:
    target = fix.targets if fix.cause_id is None else f"cause {fix.cause_id}"
    outcome = (
        f"; {fix.delivered:,} of {fix.released:,} delivered, {fix.died_again:,} died again"
        if fix.released
        else ""
    )
    why = f"; {fix.verdict}" if fix.verdict else ""
    return f"- **{fix.status}** fix {fix.id}: {escape_markdown(f'{fix.note} ({target}){outcome}{why}', 800)}"


def _keeping(figures: ReportFigures) -> str:
    ahead, backlog, books = figures.ahead, figures.backlog, figures.books
    purged = (
        "nothing is ever purged"
        if ahead.purged is None
        else f"the purge will delete {ahead.purged:,}"
    )
    lines = [
        f"within a week the archive will take {format_count(ahead.archived, 'dead event')}; {purged}",
        f"{backlog.before:,} dead before + {backlog.opened:,} opened - {backlog.closed:,} closed = {backlog.open:,}"
        + (f"; **{abs(backlog.unexplained):,} unexplained**" if backlog.unexplained else ""),
    ]
    if books:
        lines.append(
            f"the books were checked on {books.checked_at:%Y-%m-%d %H:%M} UTC: {books.missing:,} missing, "
            f"{books.doubled:,} twice"
        )
    return "\n".join(f"- {line}" for line in lines)
