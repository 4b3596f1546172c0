"""Renders the report as Markdown for chats and for Dagster's UI. Texts of events are escaped."""

from collections.abc import Iterator
from shlex import quote

from dlq_pipelines.day import format_weekday
from dlq_pipelines.reports.decisions import OpenDecision, list_open_decisions
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
    sanitize_line,
    shorten_markdown,
    wrap_markdown,
)

_MAX_CAUSES = 10
_MAX_EVENT_TYPES = 3
# Of a title in the table, so that no row has more than 80 characters.
_TITLE_WIDTH = 46
# A longer filter is in the JSON report.
_MAX_FILTER_LENGTH = 500


def render_report_markdown(figures: ReportFigures, headline: str) -> str:
    """Render headline, totals, decisions, the ten most harmful causes, fixes, retention, links.

    Lines have at most 80 characters, except commands, links and longer words.
    """
    parts = [
        f"# {figures.window.day.isoformat()}",
        wrap_markdown(f"**{escape_markdown(headline, 1_000)}**"),
        _render_totals(figures),
    ]
    if decisions := list_open_decisions(figures):
        parts += ["## To decide", "\n".join(map(_render_decision, decisions))]
    if figures.healed is not None:
        parts += ["## Healed without a person", _render_healed(figures.healed)]
    if figures.causes:
        parts += ["## Causes", render_causes_markdown(figures)]
    if figures.fixes:
        parts += ["## Fixes", "\n".join(_render_fix(fix) for fix in figures.fixes)]
    parts += ["## Retention and reconciliation", _render_retention(figures)]
    links = figures.policy.links
    addresses = {"Alerts": links.link_alerts(), "Runs in Dagster": links.link_runs()}
    if shown := [f"[{name}]({address})" for name, address in addresses.items() if address]:
        parts.append(" · ".join(shown))
    return "\n\n".join(parts) + "\n"


def render_causes_markdown(figures: ReportFigures) -> str:
    """Render the ten most harmful causes: a table, the number of further causes, and details.

    Further causes that are explained have details too.
    """
    first = figures.causes[:_MAX_CAUSES]
    rows = [
        (cause.rank, cause.state.value, cause.deaths, shorten_markdown(cause.title, _TITLE_WIDTH))
        for cause in first
    ]
    parts = [render_markdown_table(("#", "state", "deaths", "cause"), rows)]
    if more := len(figures.causes) - len(rows) + figures.hidden_causes:
        parts.append(f"{format_count(more, 'more cause')} in the HTML report.")
    explained = [cause for cause in figures.causes[_MAX_CAUSES:] if cause.explanation]
    for cause in (*first, *explained):
        parts += [
            wrap_markdown(f"**{cause.rank}. {escape_markdown(cause.title)}**"),
            _render_cause(cause, figures),
        ]
    return "\n\n".join(parts)


def _render_cause(cause: CauseFigures, figures: ReportFigures) -> str:
    """Render the figures of a cause, what its events say, and where to go on."""
    types = ", ".join(name for name, _ in cause.event_types[:_MAX_EVENT_TYPES])
    more_types = cause.event_type_count - _MAX_EVENT_TYPES
    first_seen = f"{cause.first_seen.astimezone(figures.window.zone):%Y-%m-%d}"
    attempts = format_attempts(cause.attempts[0], cause.attempts[2])
    counts = (
        f"{format_aggregates(cause)}, {format_count(cause.deaths, 'death')}"
        f" ({format_percent(cause.share)}), {attempts} attempt{'s' * (cause.attempts[2] != 1)}"
    )
    texts = [
        f"{cause.state}: {counts}",
        f"first seen: {first_seen}{cause.beginning and f', {cause.beginning}'}",
        f"event types: {types}{f' and {more_types} more' if more_types > 0 else ''}",
        *([f"details: {format_details(cause)}"] if cause.details else []),
        *([f"owner: {cause.owner}"] if cause.owner else []),
    ]
    if found := cause.explanation:
        texts.append(f"set apart by {found}" if found.condition else str(found))
    lines = [escape_markdown(text) for text in texts]
    return "\n".join([_render_list(*lines), *(f"- {line}" for line in _list_next(cause, figures))])


def _list_next(cause: CauseFigures, figures: ReportFigures) -> Iterator[str]:
    """Yield the filter of the explanation, the page of a cause and commands, each on a line."""
    if cause.explanation and cause.explanation.where:
        option = f"--where {quote(cause.explanation.where)}"
        # Of a filter that cannot be shown as it is, a copy would select other events.
        if "`" not in option and option == sanitize_line(option, _MAX_FILTER_LENGTH):
            yield f"`{option}`"
    if cause.cause_id:
        name = f"cause {escape_markdown(cause.cause_id)}"
        address = figures.policy.links.link_cause(cause.cause_id)
        yield f"[{name}]({address})" if address else name
        yield f"`dlq causes explain {cause.cause_id}`"
        yield f'`dlq fixes flag --cause {cause.cause_id} --note "..." --dry-run`'


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


def _render_decision(decision: OpenDecision) -> str:
    note = f" ({escape_markdown(decision.note, 200)})" if decision.note else ""
    return f"{wrap_markdown(f'{decision.text}{note}:', '- ')}\n  `{decision.command}`"


def _render_fix(fix: FixFigures) -> str:
    text = f"{fix.note} ({fix.selection})"
    if fix.deployment:
        text += f", carried by {fix.deployment}"
    if fix.released:
        text += f"; {fix.delivered:,} of {fix.released:,} delivered, {fix.died_again:,} died again"
    if fix.verdict:
        text += f"; {fix.verdict}"
    return wrap_markdown(f"**{fix.status}** fix {fix.id}: {escape_markdown(text, 800)}", "- ")


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
    return "\n".join(wrap_markdown(line, "- ") for line in lines)
