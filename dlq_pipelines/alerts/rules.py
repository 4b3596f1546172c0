"""What of these figures should somebody be told?

Pure: figures in, findings out. Each finding has a key, by which it is the same one the next time; who is told, and how
often, is decided elsewhere. What people muted is not in the figures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from math import sqrt
from statistics import median

from dlq_pipelines.text import plain_line

# Of what is counted no more than this is looked at; a figure that reaches it is a lower bound.
LOOK = 100_000
# Of the deaths of an hour each is looked at itself, so fewer.
LOOK_AT_DEATHS = 20_000
WINDOW = timedelta(hours=1)
USUAL = timedelta(days=14)
# Less than a day of hours says nothing about what is usual: the nights are missing.
_LEAST_HOURS = 24
_OUTLIER, _SIGMA_OF_MAD = 3.5, 1.4826
NEVER = timedelta.max
# Rules that count events and leave those of muted causes out.
_COUNTING = {"backlog", "oldest", "deaths", "parked"}
_WEEK = timedelta(days=7)


class Severity(StrEnum):
    """How much it matters, in rising order."""

    INFO = "info"  # good to know
    WARNING = "warning"  # look at it today
    CRITICAL = "critical"  # look at it now

    @property
    def rank(self) -> int:
        """The higher the graver."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Thresholds:
    """From when on something is worth telling.

    Attributes:
        backlog: more dead events than this. 1,000: what nobody reads through one by one any more.
        min_deaths: fewer deaths of a type in an hour are never unusual. 20: below that, chance decides.
        oldest: an event that is dead for longer. A week: whoever should decide on it was at work in between.
    """

    backlog: int = 1_000
    min_deaths: int = 20
    oldest: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class CauseFigure:
    """A cause to tell of: its id, what people read, since when, and the event type that died of it last."""

    id: str
    title: str
    since: datetime
    event_type: str | None


@dataclass(frozen=True)
class HaltedFix:
    """A fix that did not prove itself."""

    id: int
    note: str
    verdict: str
    event_type: str | None


@dataclass(frozen=True)
class FailedCheck:
    """A check of the books that did not hold, and what it found."""

    name: str
    severity: Severity
    figures: str
    checked_at: datetime


@dataclass(frozen=True)
class FailedJob:
    """A job whose last run failed for good."""

    job: str
    failed_at: datetime
    failed_run: str | None
    succeeded_at: datetime | None


@dataclass(frozen=True)
class Figures:
    """What is the case at a moment, without what is muted.

    Attributes:
        backlog: dead events, at most `LOOK`, or one more than its threshold.
        oldest: when the oldest of them died.
        window: deaths of the last hour by event type, of the last `LOOK_AT_DEATHS`.
        usual: deaths of each hour of the two weeks before it, by event type, hours without any included.
        parked: events that only a person releases.
        purged_soon: archived events that the purge deletes within seven days, at most `LOOK`.
        muted: causes that nobody is told of; nothing of them is in the other figures.
        slow: rules whose question was not answered in time.
        cut: rules of whose list only the first are here.
    """

    now: datetime
    backlog: int = 0
    oldest: datetime | None = None
    window: Mapping[str, int] = field(default_factory=dict)
    usual: Mapping[str, Sequence[int]] = field(default_factory=dict)
    new_causes: Sequence[CauseFigure] = ()
    regressed: Sequence[CauseFigure] = ()
    halted: Sequence[HaltedFix] = ()
    parked: int = 0
    purged_soon: int = 0
    failed_checks: Sequence[FailedCheck] = ()
    failed_jobs: Sequence[FailedJob] = ()
    muted: frozenset[str] = frozenset()
    slow: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()

    def may_last(self, rule: str) -> bool:
        """Whether what a rule does not find may be the case all the same."""
        return rule in self.slow or rule in self.cut

    def ends_quietly(self, rule: str, key: str) -> bool:
        """Whether nothing is mended when the rule finds it no more: it only grew old, or was muted."""
        return rule in {"new_cause", "halted"} or (rule == "regressed" and key.partition(":")[2] in self.muted)

    def uncounted(self, rule: str) -> str:
        """What has to be said where the rule finds nothing more: it may only have been muted."""
        if not self.muted or rule not in _COUNTING:
            return ""
        return " Events of muted causes are not counted: `dlq causes list` says which those are."


@dataclass(frozen=True)
class Finding:
    """Something that somebody should be told.

    Attributes:
        key: the same as long as it is the same thing.
        rule: which rule found it.
        summary: what is the case, in a line that can be shown anywhere.
        detail: what else is known and what to do, in a line.
        event_type: for routing; None: it is not of one type.
        again: how long after it was told it is told again while it lasts; None: the installation's cool-down.
    """

    key: str
    rule: str
    severity: Severity
    summary: str
    detail: str
    event_type: str | None = None
    again: timedelta | None = None


def unusual_above(hours: Sequence[int]) -> float:
    """Above how many deaths an hour is unusual beside these.

    Median + 3.5 standard deviations, by the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle
    Outliers, 1993): the deviation is 1.4826 times the median absolute deviation, which outages in the past do not
    widen. Never less than the square root of the median, the deviation of a count by chance alone (Poisson); where most
    hours are without deaths both are 0 and the least number of deaths decides.
    """
    middle = median(hours)
    deviation = _SIGMA_OF_MAD * median(abs(hour - middle) for hour in hours)
    return float(middle + _OUTLIER * max(deviation, sqrt(middle)))


def find(figures: Figures, thresholds: Thresholds) -> list[Finding]:
    """What is worth telling, the gravest first."""
    found = [
        *_backlog(figures, thresholds),
        *_spikes(figures, thresholds),
        *_causes(figures),
        *_fixes(figures),
        *_our_own(figures),
    ]
    return sorted(found, key=lambda one: (-one.severity.rank, one.key))


def _backlog(figures: Figures, thresholds: Thresholds) -> Iterator[Finding]:
    if figures.backlog > thresholds.backlog:
        yield Finding(
            "backlog",
            "backlog",
            Severity.WARNING,
            f"{_count(figures.backlog)} events are dead",
            f"More than {thresholds.backlog:,} wait for a decision. `dlq causes list` says why they died.",
        )
    if figures.oldest is not None and figures.now - figures.oldest > thresholds.oldest:
        yield Finding(
            "oldest",
            "oldest",
            Severity.WARNING,
            f"An event is dead since {figures.oldest:%Y-%m-%d %H:%M} UTC",
            f"That is longer than {thresholds.oldest / timedelta(hours=1):,.0f} hours. Flag a fix, or discard it.",
        )
    if figures.purged_soon:
        yield Finding(
            "purge_ahead",
            "purge_ahead",
            Severity.INFO,
            f"{_count(figures.purged_soon)} archived events will be deleted within seven days",
            "`dlq archive restore` brings back what is still wanted.",
            again=_WEEK,
        )


def _spikes(figures: Figures, thresholds: Thresholds) -> Iterator[Finding]:
    for event_type, deaths in figures.window.items():
        hours = figures.usual.get(event_type, ())
        if deaths < thresholds.min_deaths or len(hours) < _LEAST_HOURS:
            continue
        most = unusual_above(hours)
        if deaths > most:
            shown = plain_line(event_type, 100)
            yield Finding(
                f"deaths:{shown}",
                "deaths",
                Severity.CRITICAL,
                f"{_count(deaths, LOOK_AT_DEATHS)} events of {shown} died within an hour",
                f"Usual is up to {most:,.0f}, by {len(hours):,} hours before. `dlq causes list` says why they died.",
                event_type,
            )


def _causes(figures: Figures) -> Iterator[Finding]:
    for cause in figures.new_causes:
        yield Finding(
            f"new_cause:{cause.id}",
            "new_cause",
            Severity.WARNING,
            f"Events die of something new: {plain_line(cause.title, 200)}",
            f"Since {cause.since:%Y-%m-%d %H:%M} UTC. `dlq causes show {cause.id}` tells more.",
            cause.event_type,
            NEVER,
        )
    for cause in figures.regressed:
        yield Finding(
            f"regressed:{cause.id}",
            "regressed",
            Severity.WARNING,
            f"Events die again of what was fixed: {plain_line(cause.title, 200)}",
            f"It was fixed since {cause.since:%Y-%m-%d %H:%M} UTC. `dlq causes show {cause.id}` tells more.",
            cause.event_type,
        )


def _fixes(figures: Figures) -> Iterator[Finding]:
    for fix in figures.halted:
        yield Finding(
            f"halted:{fix.id}",
            "halted",
            Severity.WARNING,
            f"Fix {fix.id} halted: {plain_line(fix.verdict, 200)}",
            f"Flagged as: {plain_line(fix.note, 200)}. `dlq fixes show {fix.id}` shows the new errors beside the old.",
            fix.event_type,
        )
    if figures.parked:
        yield Finding(
            "parked",
            "parked",
            Severity.WARNING,
            f"{_count(figures.parked)} events died again after too many retries",
            "Only a person releases them: `dlq fixes parked` lists them.",
        )


def _our_own(figures: Figures) -> Iterator[Finding]:
    for rule in sorted(figures.slow):
        yield Finding(
            f"slow:{rule}",
            "slow",
            Severity.WARNING,
            f"Whether there is something to tell of {rule} is not known",
            "The database did not answer within three seconds. Other alerts are told.",
        )
    for check in figures.failed_checks:
        yield Finding(
            f"check:{check.name}",
            "check",
            check.severity,
            f"The check {check.name} does not hold",
            f"At {check.checked_at:%Y-%m-%d %H:%M} UTC it found: {plain_line(check.figures, 500)}",
        )
    for job in figures.failed_jobs:
        last = f"{job.succeeded_at:%Y-%m-%d %H:%M} UTC" if job.succeeded_at else "never"
        yield Finding(
            f"job:{job.job}",
            "job",
            Severity.WARNING,
            f"The job {job.job} failed",
            f"At {job.failed_at:%Y-%m-%d %H:%M} UTC, run {job.failed_run or 'unknown'}; it last succeeded: {last}.",
        )


def _count(figure: int, looked_at: int = LOOK) -> str:
    return f"{figure:,} or more" if figure >= looked_at else f"{figure:,}"
