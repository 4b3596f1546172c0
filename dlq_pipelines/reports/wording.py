"""How is a day said in words and numbers that people read?"""

from datetime import date, datetime

from dlq_pipelines.reports.figures import DAYS_BEFORE, ReportFigures
from dlq_pipelines.reports.states import CauseState
from dlq_pipelines.text import format_count, format_duration

_TIMES_AS_MANY = 2  # from 200 % above on, a factor is easier to read than a percentage
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def build_headline(figures: ReportFigures) -> str:
    """The day in up to four sentences: how many died, what is different, what hurts most, whether fixes worked."""
    sentences = [
        _died(figures),
        _different(figures),
        _most_harm(figures),
        _fixes(figures),
        _left(figures),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _died(figures: ReportFigures) -> str:
    totals, day = figures.totals, figures.window.day.isoformat()
    if not totals.deaths:
        before = f"the mean of the {DAYS_BEFORE} days before is {format_rounded(figures.mean)}"
        return f"No event died on {day}; {before if figures.mean else f'none did in the {DAYS_BEFORE} days before'}."
    times = f" {totals.deaths:,} times" if totals.deaths > totals.events else ""
    return (
        f"{format_count(totals.events, 'event')} died{times} on {day}, {describe_change(figures)}."
    )


def describe_change(figures: ReportFigures) -> str:
    """The day against the mean of the days before, such as `40 % above the mean of the 14 days before (223)`."""
    if figures.change is None:
        return f"none in the {DAYS_BEFORE} days before"
    mean = f"the mean of the {DAYS_BEFORE} days before ({format_rounded(figures.mean)})"
    percent_more = round(figures.change * 100)
    if figures.change >= _TIMES_AS_MANY:
        return f"{figures.change + 1:,.1f} times {mean}"
    if not percent_more:
        return f"as many as {mean}"
    return f"{abs(percent_more)} % {'above' if percent_more > 0 else 'below'} {mean}"


def _different(figures: ReportFigures) -> str:
    counts = [
        (len(figures.in_state(state)), words)
        for state, words in (
            (CauseState.NEW, "new"),
            (CauseState.REGRESSED, "back after {} fix"),
            (CauseState.ESCALATING, "getting worse"),
        )
    ]
    told = [
        f"{n:,} {'is' if n == 1 else 'are'} {words.format('its' if n == 1 else 'their')}"
        for n, words in counts
        if n
    ]
    if not figures.totals.deaths:
        return ""
    known = figures.totals.causes
    if not known:
        return "No cause is known yet."
    if not told:
        return "The cause is an old one." if known == 1 else f"All {known:,} causes are old ones."
    return f"Of {format_count(known, 'cause')}, {', '.join(told)}."


def _most_harm(figures: ReportFigures) -> str:
    first = next((cause for cause in figures.causes if cause.cause_id), None)
    if first is None:
        return ""
    return f"Most harm: {first.title} ({format_count(first.aggregates, 'aggregate')}, {format_count(first.deaths, 'death')})."


def _fixes(figures: ReportFigures) -> str:
    ended = [(len(figures.ended(status)), status) for status in ("verified", "halted")]
    told = [
        f"{format_count(n, 'fix', 'fixes')} {'was' if n == 1 else 'were'} {status}"
        for n, status in ended
        if n
    ]
    return f"{' and '.join(told)}." if told else ""


def _left(figures: ReportFigures) -> str:
    """A day without deaths is still one with a backlog."""
    if figures.totals.deaths or not figures.backlog.oldest:
        return ""
    age = figures.window.until - figures.backlog.oldest
    return f"{format_count(figures.backlog.open, 'event')} of earlier days stay dead, the oldest for {format_duration(age)}."


def format_percent(share: float) -> str:
    """A share as a percentage: something is never 0 %, and not everything never 100 %."""
    shown = share * 100
    if 0 < shown < 1:
        return "< 1 %"
    return "> 99 %" if 99 < shown < 100 else f"{shown:.0f} %"  # noqa: PLR2004 - said above


def format_rounded(value: float) -> str:
    """A mean: one decimal below ten."""
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:,.1f}"  # noqa: PLR2004 - said above


def format_long_day(day: date) -> str:
    """`Tuesday, 24 November 2026`, whatever the locale."""
    return f"{_WEEKDAYS[day.weekday()]}, {day.day} {_MONTHS[day.month - 1]} {day.year}"


def format_short_day(day: date) -> str:
    """`24 Nov`."""
    return f"{day.day} {_MONTHS[day.month - 1][:3]}"


def format_weekday(day: date) -> str:
    """`Tuesday`."""
    return _WEEKDAYS[day.weekday()]


def format_utc(moment: datetime) -> str:
    """A moment for people, to the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def format_attempts(fewest: int, most: int) -> str:
    """`5`, or `1 to 5`."""
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
