"""Formats the figures of a day as text: the headline, causes, counts, durations and dates."""

import re
from datetime import datetime

from dlq_pipelines.causes.parse import parse_error
from dlq_pipelines.reports.figures import CauseFigures, ReportFigures
from dlq_pipelines.reports.states import URGENT_STATES, CauseState
from dlq_pipelines.text import format_count, format_duration, sanitize_line

# From 200 % more on, a factor is easier to read than a percentage.
_FACTOR_FROM = 2
# Means from this on are rounded to whole numbers.
_WHOLE_FROM = 10
# Aggregate types that can stand in a sentence, such as `parcel` or `SalesOrder`.
_PLAIN_NOUN = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")


def build_headline(figures: ReportFigures) -> str:
    """Return the day in a few sentences: deaths, causes, the most harmful one, fixes, probes."""
    sentences = [
        _describe_deaths(figures),
        _describe_causes(figures),
        _describe_most_affected(figures),
        _describe_fixes(figures),
        _describe_healed(figures),
        _describe_backlog(figures),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _describe_deaths(figures: ReportFigures) -> str:
    totals, day = figures.totals, figures.window.day.isoformat()
    if not totals.deaths and not figures.recorded_days:
        return f"No event died on {day}; no day before is recorded."
    if not totals.deaths and not figures.mean:
        return f"No event died on {day} or in the {format_days_before(figures)}."
    if not totals.deaths:
        mean = format_rounded(figures.mean)
        return f"No event died on {day}; the mean of the {format_days_before(figures)} is {mean}."
    times = f" {totals.deaths:,} times" if totals.deaths > totals.events else ""
    return (
        f"{format_count(totals.events, 'event')} died{times} on {day}, {_describe_change(figures)}."
    )


def _describe_change(figures: ReportFigures) -> str:
    """Compare the day with the mean, such as `40 % above the mean of the 14 days before (223)`."""
    if not figures.recorded_days:
        return "and no day before is recorded"
    if figures.change is None:
        return f"none in the {format_days_before(figures)}"
    mean = f"the mean of the {format_days_before(figures)} ({format_rounded(figures.mean)})"
    percent = round(figures.change * 100)
    if figures.change >= _FACTOR_FROM:
        return f"{figures.change + 1:,.1f} times {mean}"
    if not percent:
        return f"equal to {mean}"
    return f"{abs(percent)} % {'above' if percent > 0 else 'below'} {mean}"


def format_days_before(figures: ReportFigures) -> str:
    """Return how many recorded days the day is compared with, such as `14 days before`."""
    days = figures.recorded_days
    return "day before" if days == 1 else f"{days} days before"


def _describe_causes(figures: ReportFigures) -> str:
    if not figures.totals.deaths:
        return ""
    known = figures.totals.causes
    if not known:
        return "No death is classified yet."
    counts = [
        f"{count:,} {state}"
        for state in URGENT_STATES
        if (count := len(figures.list_causes(state)))
    ]
    counts += [
        format_count(count, f"{state} detail")
        for state in (CauseState.NEW, CauseState.REGRESSED)
        if (count := figures.count_details(state))
    ]
    if not counts:
        return f"No new causes; {known:,} known {'one' if known == 1 else 'ones'}."
    return f"{format_count(known, 'cause')}: {', '.join(counts)}."


def _describe_most_affected(figures: ReportFigures) -> str:
    first = next((cause for cause in figures.causes if cause.cause_id), None)
    if first is None:
        return ""
    deaths = format_count(first.deaths, "death")
    return f"Most affected: {first.title}, {format_aggregates(first)}, {deaths}."


def _describe_fixes(figures: ReportFigures) -> str:
    counts = [
        f"{count:,} {status}"
        for status in ("verified", "halted")
        if (count := len(figures.list_ended_fixes(status)))
    ]
    return f"Fixes that ended: {', '.join(counts)}." if counts else ""


def _describe_healed(figures: ReportFigures) -> str:
    if figures.healed is None:
        return ""
    return f"Healed without a person: {format_count(figures.healed.events, 'event')}."


def _describe_backlog(figures: ReportFigures) -> str:
    """Describe what is still dead after a day without deaths."""
    if figures.totals.deaths or not figures.backlog.oldest:
        return ""
    events = format_count(figures.backlog.dead_at_end, "event")
    age = format_duration(figures.window.until - figures.backlog.oldest)
    verb = "is" if figures.backlog.dead_at_end == 1 else "are"
    return f"{events} of earlier days {verb} still dead, the oldest for {age}."


def format_aggregates(cause: CauseFigures) -> str:
    """Return the affected aggregates, such as `37 parcels`."""
    noun = cause.aggregate_type
    if noun is None or not _PLAIN_NOUN.fullmatch(noun):
        return format_count(cause.aggregates, "aggregate")
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return format_count(cause.aggregates, noun, f"{noun[:-1]}ies")
    if noun[-1] in "sS" and noun[-2:].lower() != "ss":
        # It is a plural already, such as the name of a table.
        return format_count(cause.aggregates, "aggregate", noun)
    plural = f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
    return format_count(cause.aggregates, noun, plural)


def format_details(cause: CauseFigures) -> str:
    """Return the details with their deaths and states, such as `postcode 37, sku 3 (new)`."""
    return ", ".join(
        f"{detail.detail} {detail.deaths:,}"
        + ("" if detail.state is CauseState.ONGOING else f" ({detail.state})")
        for detail in cause.details
    )


def format_cause_label(exception_type: str, message: str, *, limit: int = 160) -> str:
    """Return a cause in one line, such as `TimeoutError: no answer in <n> s`.

    A message that begins with the exception type already is not prefixed again.
    """
    has_type = message.startswith(exception_type) or not message
    label = (message or exception_type) if has_type else f"{exception_type}: {message}"
    return sanitize_line(label, limit)


def summarize_error(error: str) -> str:
    """Return the exception and the message of an error in one line."""
    parsed = parse_error(error)
    return format_cause_label(
        sanitize_line(parsed.exception_type, 120), sanitize_line(parsed.message, 300), limit=300
    )


def format_percent(share: float) -> str:
    """Return a share as a percentage. Only an exact 0 is `0 %`, only an exact 1 is `100 %`."""
    percent = share * 100
    if 0 < percent < 1:
        return "< 1 %"
    return "> 99 %" if 0 < 100 - percent < 1 else f"{percent:.0f} %"


def format_rounded(value: float) -> str:
    """Return a mean, with one decimal below ten."""
    return f"{value:,.0f}" if value >= _WHOLE_FROM or value == round(value) else f"{value:,.1f}"


def format_utc(moment: datetime) -> str:
    """Return a time to the minute, such as `2026-11-24 18:30 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def format_attempts(fewest: int, most: int) -> str:
    """Return `5`, or `1 to 5`."""
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
