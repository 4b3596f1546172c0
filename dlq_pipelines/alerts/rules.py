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

from dlq_pipelines.alerts.checks import CHECK_DESCRIPTIONS, CHECKS_WITH_OWN_RULE
from dlq_pipelines.text import sanitize_line

# Of what is counted no more than this is looked at; a figure that reaches it is a lower bound.
LOOKBACK = 100_000
# Of the deaths of an hour each is looked at itself, so fewer.
DEATHS_LOOKBACK = 20_000
SPIKE_WINDOW = timedelta(hours=1)
BASELINE_WINDOW = timedelta(days=14)
# Less than a day of hours says nothing about what is usual: the nights are missing.
_LEAST_HOURS = 24
_OUTLIER, _SIGMA_OF_MAD = 3.5, 1.4826
NEVER = timedelta.max
# Rules that count events and leave those of muted causes out.
_COUNTING = {"backlog", "oldest", "deaths", "parked"}
# Rules whose findings end by themselves, and what their end does not mean.
_GROW_OLD = {
    "new_cause": " It is not new any more, which does not say that it is mended.",
    "halted": " It is some days ago or a later fix was flagged, which does not say that anything is mended.",
}


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
        backlog_error: more than this are critical.
        min_deaths: fewer deaths of a type in an hour are never unusual. 20: below that, chance decides.
        oldest: an event that is dead for longer. A week: whoever should decide on it was at work in between.
    """

    backlog: int = 1_000
    min_deaths: int = 20
    oldest: timedelta = timedelta(days=7)
    backlog_error: int = 100_000

    @property
    def look(self) -> int:
        """How many dead events are counted at most: one more than the bounds."""
        return max(LOOKBACK, self.backlog + 1, self.backlog_error + 1)


@dataclass(frozen=True)
class AlertCause:
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
    figures: Mapping[str, object]
    checked_at: datetime


@dataclass(frozen=True)
class FailedJob:
    """What of a job failed for good and has not succeeded since.

    Attributes:
        failed_at: when it failed last, and `failed_run` that run.
        succeeded_at: when anything of the job last succeeded.
        days: the first of the days that failed; none: the job has no days.
        more_days: how many failed beside those.
    """

    job: str
    failed_at: datetime
    failed_run: str
    succeeded_at: datetime | None
    days: Sequence[str] = ()
    more_days: int = 0


@dataclass(frozen=True)
class AlertFigures:
    """What is the case at a moment, without what is muted.

    Attributes:
        backlog: dead events, at most `Thresholds.look`.
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
    new_causes: Sequence[AlertCause] = ()
    regressed: Sequence[AlertCause] = ()
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

    def unmended(self, rule: str, key: str) -> str:
        """What has to be said where the rule finds nothing more and that does not mean that anything is mended."""
        if rule in {"new_cause", "regressed"} and key.partition(":")[2] in self.muted:
            return " It was muted, not mended."
        if rule in _GROW_OLD:
            return _GROW_OLD[rule]
        if self.muted and rule in _COUNTING:
            return (
                " Events of muted causes are not counted: `dlq causes list` says which those are."
            )
        return ""


@dataclass(frozen=True)
class AlertRule:
    """What a rule is for, as the reference lists it.

    Attributes:
        key: of its alerts; what differs between them is in capitals.
        when: it finds something, as a half sentence.
        severities: of its alerts.
        ends: when it finds that no more, as a half sentence.
        event_type: which one its alerts are routed by; None: they are of none.
        again: how long after it was told it is told again while it lasts; None: the installation's cool-down.
    """

    key: str
    when: str
    severities: tuple[Severity, ...]
    ends: str
    event_type: str | None = None
    again: timedelta | None = None


ALERT_RULES = {
    "backlog": AlertRule(
        "backlog",
        "more events are dead than `DLQ_BACKLOG_WARN`; critical above `DLQ_BACKLOG_ERROR`",
        (Severity.WARNING, Severity.CRITICAL),
        "no more are dead than either bound",
    ),
    "oldest": AlertRule(
        "oldest",
        "an event is dead for longer than `DLQ_ALERT_OLDEST_HOURS`",
        (Severity.WARNING,),
        "none is",
    ),
    "purge_ahead": AlertRule(
        "purge_ahead",
        "archived events will be deleted within seven days",
        (Severity.INFO,),
        "none will",
        again=timedelta(days=7),
    ),
    "deaths": AlertRule(
        "deaths:EVENT_TYPE",
        "at least `DLQ_ALERT_MIN_DEATHS` events of a type died within an hour, and more than was usual in two weeks",
        (Severity.CRITICAL,),
        "no more than that died within an hour",
        "its own",
    ),
    "new_cause": AlertRule(
        "new_cause:CAUSE",
        "events die of a cause that was first seen within a day",
        (Severity.WARNING,),
        "it is a day old, muted or merged",
        "of its last death",
        NEVER,
    ),
    "regressed": AlertRule(
        "regressed:CAUSE",
        "events die again of a cause that a fix was verified for",
        (Severity.WARNING,),
        "a fix for it is flagged, or it is muted or merged",
        "of its last death",
    ),
    "halted": AlertRule(
        "halted:FIX",
        "a fix halted",
        (Severity.WARNING,),
        "that is three days ago, a later fix is flagged for the same, or its cause is muted",
        "the fix's",
    ),
    "parked": AlertRule(
        "parked",
        "events died again after `DLQ_MAX_RETRIES` retries",
        (Severity.WARNING,),
        "none of them is dead",
    ),
    "slow": AlertRule(
        "slow:RULE",
        "the database did not answer a rule's question within three seconds",
        (Severity.WARNING,),
        "it answers",
    ),
    "check": AlertRule(
        "check:CHECK",
        f"a check did not hold when it last ran; of `{CHECKS_WITH_OWN_RULE}` the alert `backlog` tells",
        (Severity.WARNING, Severity.CRITICAL),
        "it holds",
    ),
    "job": AlertRule(
        "job:JOB",
        "a run of a job failed for good; of jobs with days, a day",
        (Severity.WARNING,),
        "what failed has succeeded: each of the days, or the job",
    ),
}


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


def compute_spike_threshold(hours: Sequence[int]) -> float:
    """Above how many deaths an hour is unusual beside these.

    Median + 3.5 standard deviations, by the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle
    Outliers, 1993): the deviation is 1.4826 times the median absolute deviation, which outages in the past do not
    widen. Never less than the square root of the median, the deviation of a count by chance alone (Poisson); where most
    hours are without deaths both are 0 and the least number of deaths decides.
    """
    middle = median(hours)
    deviation = _SIGMA_OF_MAD * median(abs(hour - middle) for hour in hours)
    return float(middle + _OUTLIER * max(deviation, sqrt(middle)))


def evaluate_rules(figures: AlertFigures, thresholds: Thresholds) -> list[Finding]:
    """What is worth telling, the gravest first."""
    found = [
        *_backlog(figures, thresholds),
        *_spikes(figures, thresholds),
        *_causes(figures),
        *_fixes(figures),
        *_our_own(figures),
    ]
    return sorted(found, key=lambda one: (-one.severity.rank, one.key))


def _found(
    rule: str,
    severity: Severity,
    summary: str,
    detail: str,
    *,
    of: object = None,
    event_type: str | None = None,
) -> Finding:
    key = rule if of is None else f"{rule}:{of}"
    return Finding(key, rule, severity, summary, detail, event_type, ALERT_RULES[rule].again)


def _backlog(figures: AlertFigures, thresholds: Thresholds) -> Iterator[Finding]:
    critical = figures.backlog > thresholds.backlog_error
    if critical or figures.backlog > thresholds.backlog:
        yield _found(
            "backlog",
            Severity.CRITICAL if critical else Severity.WARNING,
            f"{_count(figures.backlog, thresholds.look)} events are dead",
            f"More than {thresholds.backlog_error if critical else thresholds.backlog:,} wait for a decision. "
            "`dlq causes list` says why they died.",
        )
    if figures.oldest is not None and figures.now - figures.oldest > thresholds.oldest:
        yield _found(
            "oldest",
            Severity.WARNING,
            f"An event is dead since {figures.oldest:%Y-%m-%d %H:%M} UTC",
            f"That is longer than {thresholds.oldest / timedelta(hours=1):,.0f} hours. Flag a fix, or discard it.",
        )
    if figures.purged_soon:
        yield _found(
            "purge_ahead",
            Severity.INFO,
            f"{_count(figures.purged_soon)} archived events will be deleted within seven days",
            "`dlq archive restore` brings back what is still wanted.",
        )


def _spikes(figures: AlertFigures, thresholds: Thresholds) -> Iterator[Finding]:
    for event_type, deaths in figures.window.items():
        hours = figures.usual.get(event_type, ())
        if deaths < thresholds.min_deaths or len(hours) < _LEAST_HOURS:
            continue
        most = compute_spike_threshold(hours)
        if deaths > most:
            shown = sanitize_line(event_type, 100)
            yield _found(
                "deaths",
                Severity.CRITICAL,
                f"{_count(deaths, DEATHS_LOOKBACK)} events of {shown} died within an hour",
                f"Usual is up to {most:,.0f}, by {len(hours):,} hours before. `dlq causes list` says why they died.",
                of=shown,
                event_type=event_type,
            )


def _causes(figures: AlertFigures) -> Iterator[Finding]:
    for cause in figures.new_causes:
        yield _found(
            "new_cause",
            Severity.WARNING,
            f"Events die of something new: {sanitize_line(cause.title, 200)}",
            f"Since {cause.since:%Y-%m-%d %H:%M} UTC. `dlq causes show {cause.id}` tells more.",
            of=cause.id,
            event_type=cause.event_type,
        )
    for cause in figures.regressed:
        yield _found(
            "regressed",
            Severity.WARNING,
            f"Events die again of what was fixed: {sanitize_line(cause.title, 200)}",
            f"It was fixed since {cause.since:%Y-%m-%d %H:%M} UTC. `dlq causes show {cause.id}` tells more.",
            of=cause.id,
            event_type=cause.event_type,
        )


def _fixes(figures: AlertFigures) -> Iterator[Finding]:
    for fix in figures.halted:
        yield _found(
            "halted",
            Severity.WARNING,
            f"Fix {fix.id} halted: {sanitize_line(fix.verdict, 200)}",
            f"Flagged as: {sanitize_line(fix.note, 200)}. `dlq fixes show {fix.id}` shows the new errors beside the old.",
            of=fix.id,
            event_type=fix.event_type,
        )
    if figures.parked:
        yield _found(
            "parked",
            Severity.WARNING,
            f"{_count(figures.parked)} events died again after too many retries",
            "Only a person releases them: `dlq fixes parked` lists them.",
        )


def _our_own(figures: AlertFigures) -> Iterator[Finding]:
    for rule in sorted(figures.slow):
        yield _found(
            "slow",
            Severity.WARNING,
            f"Whether there is something to tell of {rule} is not known",
            "The database did not answer within three seconds. Other alerts are told. `dlq doctor` says more.",
            of=rule,
        )
    for check in figures.failed_checks:
        if check.name != CHECKS_WITH_OWN_RULE:
            yield _check(check)
    for job in figures.failed_jobs:
        yield _job(job)


def _check(check: FailedCheck) -> Finding:
    known = CHECK_DESCRIPTIONS.get(check.name)
    promise, next_ = (
        (known.promise, known.next) if known else ("It holds.", "Its page in Dagster says more.")
    )
    found = "; ".join(
        f"{name.replace('_', ' ')} {_said(value)}" for name, value in check.figures.items()
    )
    return _found(
        "check",
        check.severity,
        f"The check {check.name} does not hold",
        f"At {check.checked_at:%Y-%m-%d %H:%M} UTC this was not so: {promise} Found: {sanitize_line(found, 300)}. {next_}",
        of=check.name,
    )


def _said(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _job(job: FailedJob) -> Finding:
    """What failed, and where to look and to run it again."""
    last = f"{job.succeeded_at:%Y-%m-%d %H:%M} UTC" if job.succeeded_at else "never"
    days = [*job.days, *([f"{job.more_days:,} more"] if job.more_days else [])]
    named = (", ".join(days[:-1]) + " and " if days[:-1] else "") + days[-1] if days else ""
    repair = "re-execute it there, or backfill the days" if days else "re-execute it there"
    return _found(
        "job",
        Severity.WARNING,
        f"The job {job.job} failed" + (f" for {named}" if days else ""),
        f"Run {job.failed_run} of {job.failed_at:%Y-%m-%d %H:%M} UTC says why in Dagster's UI; {repair} once that is "
        f"mended. `dlq doctor` looks at what jobs need. It last succeeded: {last}.",
        of=job.job,
    )


def _count(figure: int, looked_at: int = LOOKBACK) -> str:
    return f"{figure:,} or more" if figure >= looked_at else f"{figure:,}"
