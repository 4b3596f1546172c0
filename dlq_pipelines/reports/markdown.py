"""Renders the report as Markdown for chats and for Dagster's UI. Texts of events are escaped."""

from dlq_pipelines.day import format_weekday
from dlq_pipelines.reports.figures import (
    DAYS_BEFORE,
    CauseFigures,
    FixFigures,
    HealedFigures,
    ReportFigures,
)
from dlq_pipelines.reports.wording import (
    format_aggregates,
    format_attempts,
    format_days_before,
    format_details,
    format_percent,
    format_rounded,
    format_utc,
)
from dlq_pipelines.text import (
    escape_markdown,
    format_count,
    format_duration,
    render_markdown_table,
)

_MAX_CAUSES = 10
_MAX_EVENT_TYPES = 3
_CAUSE_HEADER = (
    *("#", "cause", "details", "state", "affected", "deaths"),
    *("share", "first seen", "attempts", "event types", "owner"),
)


def render_report_markdown(figures: ReportFigures, headline: str) -> str:
    """Render headline, totals, the ten most harmful causes, fixes, retention and links."""
    parts = [
        f"# {figures.window.day.isoformat()}",
        f"**{escape_markdown(headline, 1_000)}**",
        _render_totals(figures),
    ]
    if figures.causes:
        parts += ["## Causes", render_causes_markdown(figures)]
    if explained := [cause for cause in figures.causes if cause.explanation]:
        parts += ["## What sets them apart", _render_explanations(explained)]
    if figures.fixes:
        parts += ["## Fixes", "\n".join(_render_fix(fix) for fix in figures.fixes)]
    if figures.healed is not None:
        parts += ["## Healed without a person", _render_healed(figures.healed)]
    parts += ["## Retention and reconciliation", _render_retention(figures)]
    links = figures.policy.links
    addresses = {"Alerts": links.link_alerts(), "Runs in Dagster": links.link_runs()}
    if shown := [f"[{name}]({address})" for name, address in addresses.items() if address]:
        parts.append(" · ".join(shown))
    return "\n\n".join(parts) + "\n"


def render_causes_markdown(figures: ReportFigures) -> str:
    """Render the ten most harmful causes as a table, and the number of further causes."""
    rows = [_build_row(cause, figures) for cause in figures.causes[:_MAX_CAUSES]]
    table = render_markdown_table(_CAUSE_HEADER, rows)
    more = len(figures.causes) - len(rows) + figures.hidden_causes
    return f"{table}\n\n{format_count(more, 'more cause')} in the HTML report." if more else table


def _build_row(cause: CauseFigures, figures: ReportFigures) -> tuple[object, ...]:
    types = ", ".join(name for name, _ in cause.event_types[:_MAX_EVENT_TYPES])
    more_types = cause.event_type_count - _MAX_EVENT_TYPES
    return (
        cause.rank,
        cause.title,
        format_details(cause),
        cause.state.value,
        format_aggregates(cause),
        cause.deaths,
        format_percent(cause.share).replace(" ", "\u00a0"),
        f"{cause.first_seen.astimezone(figures.window.zone):%Y-%m-%d}"
        + (f", {cause.beginning}" if cause.beginning else ""),
        format_attempts(cause.attempts[0], cause.attempts[2]),
        f"{types} and {more_types} more" if more_types > 0 else types,
        cause.owner or "",
    )


def _render_explanations(causes: list[CauseFigures]) -> str:
    return _render_list(
        *(
            f"{escape_markdown(cause.title, 120)}: {escape_markdown(str(cause.explanation), 400)}"
            for cause in causes
        )
    )


def _render_totals(figures: ReportFigures) -> str:
    totals, backlog, window = figures.totals, figures.backlog, figures.window
    oldest = ""
    if backlog.oldest:
        oldest = f", the oldest for {format_duration(window.until - backlog.oldest)}"
    return _render_list(
        f"{format_count(totals.deaths, 'death')}{_format_means(figures)}",
        f"{format_count(backlog.dead_at_end, 'dead event')} at the end of the day{oldest};"
        f" {backlog.added:,} added, {backlog.removed:,} removed",
        f"{backlog.retried:,} retried; {backlog.delivered:,} delivered,"
        f" {backlog.died_again:,} died again",
        f"{backlog.parked:,} parked",
        f"{format_percent(totals.classified)} of the deaths classified",
    )


def _format_means(figures: ReportFigures) -> str:
    """Return the means of the recorded days before; empty without such a day."""
    if not figures.recorded_days:
        return ""
    means = f"; mean of the {format_days_before(figures)} {format_rounded(figures.mean)}"
    if figures.weekday_mean is not None:
        weekday = format_weekday(figures.window.day)
        both = figures.recorded_days == DAYS_BEFORE
        which = f"last two {weekday}s" if both else f"last {weekday}"
        means += f", of the {which} {format_rounded(figures.weekday_mean)}"
    return means


def _render_fix(fix: FixFigures) -> str:
    text = f"{fix.note} ({fix.selection})"
    if fix.deployment:
        text += f", carried by {fix.deployment}"
    if fix.released:
        text += f"; {fix.delivered:,} of {fix.released:,} delivered, {fix.died_again:,} died again"
    if fix.verdict:
        text += f"; {fix.verdict}"
    return f"- **{fix.status}** fix {fix.id}: {escape_markdown(text, 800)}"


def _render_healed(healed: HealedFigures) -> str:
    causes = ", ".join(escape_markdown(cause) for cause in healed.causes)
    return _render_list(
        f"{format_count(healed.events, 'event')} delivered by probes, untouched by a person",
        *([f"resolved: {causes}"] if causes else []),
    )


def _render_retention(figures: ReportFigures) -> str:
    upcoming, backlog, reconciliation = figures.upcoming, figures.backlog, figures.reconciliation
    archived = format_count(upcoming.archived, "dead event")
    purged = "archived events are never purged"
    if upcoming.purged is not None:
        purged = f"{format_count(upcoming.purged, 'archived event')} will be purged"
    unexplained = ""
    if backlog.unexplained:
        unexplained = f"; **{abs(backlog.unexplained):,} unexplained**"
    balance = (
        f"{backlog.dead_at_start:,} dead at the start + {backlog.added:,} added"
        f" - {backlog.removed:,} removed = {backlog.dead_at_end:,} at the end{unexplained}"
    )
    lines = [
        f"within 7 days, {archived} will be archived; {purged}",
        balance,
    ]
    if reconciliation:
        lines.append(
            f"last reconciliation {format_utc(reconciliation.checked_at)}:"
            f" {format_count(reconciliation.missing, 'event')} missing,"
            f" {reconciliation.duplicated:,} duplicated,"
            f" {format_count(reconciliation.missed, 'death')} missed"
        )
    return _render_list(*lines)


def _render_list(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)
