"""Evaluates the alert rules: figures in, findings out, without side effects.

The key of a finding identifies it in later evaluations. `alert.py` decides who is notified and how
often. The figures exclude muted causes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from math import sqrt
from statistics import median

from dlq_pipelines.alerts.checks import CHECK_DESCRIPTIONS, CHECKS_WITH_OWN_RULE
from dlq_pipelines.causes.escalation import compute_escalation_limit, is_above_limit
from dlq_pipelines.links import NO_LINKS, Links
from dlq_pipelines.outbox.queue import StuckEvents
from dlq_pipelines.text import format_count, format_duration, sanitize_line

# Most rows that a figure counts. A figure that reaches it is a lower bound.
LOOKBACK = 100_000
# Fewer for the deaths of an hour, because each row is read from the table.
DEATHS_LOOKBACK = 20_000
SPIKE_WINDOW = timedelta(hours=1)
BASELINE_WINDOW = timedelta(days=14)
# The label of all event types without a label of their own.
OTHER_TYPES = "other"
_MAX_Z_SCORE, _SIGMA_OF_MAD = 3.5, 1.4826
NEVER = timedelta.max
# Rules that count events and exclude muted causes.
_COUNTING_RULES = {"backlog", "oldest", "deaths", "parked"}
_CAUSE_RULES = {"new_cause", "new_detail", "regressed", "escalating"}
# Rules whose findings end with time, and what the end does not mean.
_EXPIRING_RULES = {
    "new_cause": " The cause is no longer new. That does not mean that it is resolved.",
    "new_detail": " The details are no longer new. That does not mean that they are resolved.",
    "escalating": " The cause did not escalate on the last day. That does not mean that it is "
    "resolved.",
    "halted": " The halt is some days old, or a later fix was flagged. "
    "That does not mean that the cause is resolved.",
    "healed": " The news is a day old.",
}


class Severity(StrEnum):
    """Severity of an alert, in rising order."""

    INFO = "info"  # good to know
    WARNING = "warning"  # look at it today
    CRITICAL = "critical"  # look at it now

    @property
    def rank(self) -> int:
        """Its position; a higher rank is more severe."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Thresholds:
    """Bounds of the rules.

    Attributes:
        backlog: more dead events are a warning. Default 1,000: too many to read one by one.
        backlog_error: more dead events are critical.
        min_deaths: fewer deaths of an event type in an hour are never a spike. Default 20: below
            that, chance decides.
        oldest: an event that is dead for longer is a warning. Default a week, which has working
            days.
    """

    backlog: int = 1_000
    min_deaths: int = 20
    oldest: timedelta = timedelta(days=7)
    backlog_error: int = 100_000

    @property
    def count_limit(self) -> int:
        """Most dead events that are counted: more than either bound."""
        return max(LOOKBACK, self.backlog + 1, self.backlog_error + 1)


@dataclass(frozen=True)
class AlertCause:
    """A cause that is news, or whose details are.

    Attributes:
        since: since when; of what regressed, the time of its fix.
        event_type: the event type that died last.
        owner: who resolves it.
        details: the first of its details that are news.
        details_found: the number of these details.
        beginning: which deployment a new cause followed, such as `6 minutes after checkout v42`.
    """

    id: str
    title: str
    since: datetime
    event_type: str | None
    owner: str | None = None
    details: Sequence[str] = ()
    details_found: int = 0
    beginning: str = ""


@dataclass(frozen=True)
class EscalatingCause:
    """A cause that escalates on the day that ended last.

    Attributes:
        cause: the cause, since its first death.
        day: the day.
        days: its deaths on each day since then or of two weeks before, the day last.
    """

    cause: AlertCause
    day: date
    days: Sequence[int]


@dataclass(frozen=True)
class HaltedFix:
    """A fix that was halted, with the owner of its cause."""

    id: int
    note: str
    verdict: str
    event_type: str | None
    owner: str | None = None


@dataclass(frozen=True)
class HealedCause:
    """A cause whose fix by a probe was verified: nobody had to resolve it.

    Attributes:
        fix_id: the fix.
        cause_id: the cause.
        events: events that the fix delivered.
    """

    fix_id: int
    cause_id: str
    events: int
    owner: str | None = None


@dataclass(frozen=True)
class FailedCheck:
    """A check that failed on its last run, with its figures."""

    name: str
    severity: Severity
    figures: Mapping[str, object]
    checked_at: datetime


@dataclass(frozen=True)
class FailedJob:
    """A job, or days of a job, that failed and has not succeeded since.

    Attributes:
        failed_at: time of the last failure.
        failed_run: the Dagster run of the last failure.
        succeeded_at: time of the last success of the job.
        days: the first days that failed; empty for a job without partitions.
        more_days: number of further days that failed.
    """

    job: str
    failed_at: datetime
    failed_run: str
    succeeded_at: datetime | None
    days: Sequence[str] = ()
    more_days: int = 0


@dataclass(frozen=True)
class AlertFigures:
    """Figures at a point in time, without muted causes.

    Attributes:
        backlog: number of dead events, at most `Thresholds.count_limit`.
        oldest: time of the oldest death among them.
        window: deaths of the last hour by event type, of at most `DEATHS_LOOKBACK` deaths.
        baseline: deaths of each hour of the two weeks before, by event type, including hours
            without deaths. Hours before the installation do not count.
        unlabelled: event types in `window` that `other` includes, because 50 types have a label;
            their baseline is that of `other`.
        began: since when deaths are recorded.
        parked: number of parked events.
        stuck: events that no worker takes, by type.
        purged_soon: number of archived events that the purge deletes within seven days, at most
            `LOOKBACK`.
        muted: muted causes, which the other figures exclude.
        timed_out: rules whose statement timed out.
        cut: rules whose list is incomplete.
    """

    now: datetime
    backlog: int = 0
    oldest: datetime | None = None
    window: Mapping[str, int] = field(default_factory=dict)
    baseline: Mapping[str, Sequence[int]] = field(default_factory=dict)
    unlabelled: frozenset[str] = frozenset()
    began: datetime | None = None
    new_causes: Sequence[AlertCause] = ()
    new_details: Sequence[AlertCause] = ()
    regressed: Sequence[AlertCause] = ()
    escalating: Sequence[EscalatingCause] = ()
    halted: Sequence[HaltedFix] = ()
    healed: Sequence[HealedCause] = ()
    parked: int = 0
    stuck: Sequence[StuckEvents] = ()
    purged_soon: int = 0
    failed_checks: Sequence[FailedCheck] = ()
    failed_jobs: Sequence[FailedJob] = ()
    muted: frozenset[str] = frozenset()
    timed_out: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()

    def is_uncertain(self, rule: str) -> bool:
        """Whether the rule can have missed a finding."""
        return rule in self.timed_out or rule in self.cut

    def explain_resolution(self, rule: str, key: str) -> str:
        """Return what the end of a finding does not mean; empty if it means a resolution."""
        if rule in _CAUSE_RULES and key.partition(":")[2] in self.muted:
            return " The cause was muted, not resolved."
        if rule in _EXPIRING_RULES:
            return _EXPIRING_RULES[rule]
        if self.muted and rule in _COUNTING_RULES:
            return " Muted causes are not counted; `dlq causes list` shows them."
        return ""


@dataclass(frozen=True)
class AlertRule:
    """A rule as the reference lists it.

    Attributes:
        key: key of its alerts, with the variable part in capitals.
        when: when it fires, without a subject.
        severities: severities of its alerts.
        ends: when its alerts resolve.
        event_type: the event type that its alerts are routed by; None: they have none.
        again: time until a reminder while the alert lasts; None: the cool-down of the installation.
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
        "the number of dead events is below both bounds",
    ),
    "oldest": AlertRule(
        "oldest",
        "an event is dead for longer than `DLQ_ALERT_OLDEST_HOURS`",
        (Severity.WARNING,),
        "no event is dead for that long",
    ),
    "stuck": AlertRule(
        "stuck:EVENT_TYPE",
        "an event has been due for more than an hour although later ones were taken: no worker "
        "takes its type, or none can take it",
        (Severity.WARNING,),
        "no event of the type waits for that long",
        "its own",
        NEVER,
    ),
    "purge_ahead": AlertRule(
        "purge_ahead",
        "archived events will be deleted within seven days",
        (Severity.INFO,),
        "no archived event is due within seven days",
        again=timedelta(days=7),
    ),
    "deaths": AlertRule(
        "deaths:EVENT_TYPE",
        "at least `DLQ_ALERT_MIN_DEATHS` events of a type died within an hour, unusually many "
        "compared with the hours of the previous two weeks, since the installation",
        (Severity.CRITICAL,),
        "the deaths of the last hour are usual again",
        "its own",
    ),
    "new_cause": AlertRule(
        "new_cause:CAUSE",
        "events die of a cause that was first seen within a day",
        (Severity.WARNING,),
        "the cause is a day old, muted or merged",
        "of its last death",
        NEVER,
    ),
    "new_detail": AlertRule(
        "new_detail:CAUSE",
        "events die of a known cause and name details that were first seen within a day",
        (Severity.WARNING,),
        "the details are a day old, or the cause is muted or merged",
        "of its last death",
        NEVER,
    ),
    "regressed": AlertRule(
        "regressed:CAUSE",
        "an event that was written after a verified fix died of the same cause or detail",
        (Severity.WARNING,),
        "a fix of the cause or of each detail is flagged, or the cause is muted or merged",
        "of its last death",
    ),
    "escalating": AlertRule(
        "escalating:CAUSE",
        "a cause escalates on the day that ended last, as in its report: far more deaths than "
        "usual, or a steady rise",
        (Severity.WARNING,),
        "the cause does not escalate on a later day, a fix is flagged, or the cause is muted",
        "of its last death",
        timedelta(days=1),
    ),
    "halted": AlertRule(
        "halted:FIX",
        "a fix was halted",
        (Severity.WARNING,),
        "the halt is three days old, a later fix is flagged for the same events, or the cause is "
        "muted",
        "of the fix",
    ),
    "healed": AlertRule(
        "healed:FIX",
        "a fix that a probe flagged was verified, so a cause was resolved without a person",
        (Severity.INFO,),
        "the fix was verified more than a day ago, or the cause is muted",
        again=NEVER,
    ),
    "parked": AlertRule(
        "parked",
        "events died again after `DLQ_MAX_RETRIES` retries",
        (Severity.WARNING,),
        "no parked event is dead",
    ),
    "check": AlertRule(
        "check:CHECK",
        f"a check failed on its last run; the rule `backlog` covers `{CHECKS_WITH_OWN_RULE}`",
        (Severity.WARNING, Severity.CRITICAL),
        "the check passes",
    ),
    "job": AlertRule(
        "job:JOB",
        "a run of a job, or a day of a partitioned job, failed after its retries",
        (Severity.WARNING,),
        "the job, or each of the days, has succeeded",
    ),
}


@dataclass(frozen=True)
class Finding:
    """A condition that an alert reports.

    Attributes:
        key: identifies the condition while it lasts.
        rule: the rule that found it.
        summary: the condition in one line that any channel can show.
        detail: further facts and the next step, in one line.
        event_type: the event type that routes it; None: it concerns no single type.
        owner: the owner of its cause, who routes it; None: nobody owns one.
        link: an address that shows more, if it has one.
        again: time until a reminder; None: the cool-down of the installation.
    """

    key: str
    rule: str
    severity: Severity
    summary: str
    detail: str
    event_type: str | None = None
    again: timedelta | None = None
    owner: str | None = None
    link: str | None = None


def compute_spike_threshold(hours: Sequence[int]) -> float:
    """Return the number of deaths above which an hour is a spike, given the hours before it.

    0 without an hour before: the minimum number of deaths decides.

    The threshold is the median plus 3.5 standard deviations: the modified z-score of Iglewicz and
    Hoaglin (How to Detect and Handle Outliers, 1993). The standard deviation is 1.4826 times the
    median absolute deviation, which past outages do not widen, and at least the square root of the
    median, the deviation of a Poisson count. If most hours have no deaths, both are 0 and the
    minimum number of deaths decides.
    """
    if not hours:
        return 0.0
    center = median(hours)
    deviation = _SIGMA_OF_MAD * median(abs(hour - center) for hour in hours)
    return float(center + _MAX_Z_SCORE * max(deviation, sqrt(center)))


def evaluate_rules(
    figures: AlertFigures,
    thresholds: Thresholds,
    links: Links = NO_LINKS,
    name_settings: Callable[[str], str] = str,
) -> list[Finding]:
    """Return the findings of all rules, the most severe first.

    Args:
        figures: what the rules look at.
        thresholds: bounds of the rules.
        links: where people can look.
        name_settings: returns a text in which each setting has the name that its owner can change.
    """
    findings = [
        *_find_backlog(figures, thresholds),
        *_find_spikes(figures, thresholds),
        *_find_causes(figures),
        *_find_escalating_causes(figures),
        *_find_fixes(figures),
        *_find_stuck_events(figures),
        *_find_failures(figures),
    ]
    return sorted(
        (
            replace(
                finding,
                detail=name_settings(finding.detail),
                link=_find_link(finding, figures, links),
            )
            for finding in findings
        ),
        key=lambda finding: (-finding.severity.rank, finding.key),
    )


def _find_link(finding: Finding, figures: AlertFigures, links: Links) -> str | None:
    """Return the address that shows more about a finding, if it has one."""
    if finding.rule != "job":
        return link_alert(finding.rule, finding.key, links)
    failed = (job for job in figures.failed_jobs if job.job == finding.key.partition(":")[2])
    return links.link_run(next(failed).failed_run)


def link_alert(rule: str, key: str, links: Links) -> str | None:
    """Return the address of the page about an alert; None: it has no page, or no address is set."""
    subject = key.partition(":")[2]
    match rule:
        case "backlog" | "oldest" | "deaths":
            return links.link_causes()
        case "new_cause" | "new_detail" | "regressed" | "escalating":
            return links.link_cause(subject)
        case "halted" | "healed":
            return links.link_fix(int(subject))
        case "parked":
            return links.link_parked_events()
        case _:
            return None


def _build_finding(
    rule: str,
    severity: Severity,
    summary: str,
    detail: str,
    *,
    of: object = None,
    event_type: str | None = None,
    owner: str | None = None,
) -> Finding:
    key = rule if of is None else f"{rule}:{of}"
    again = ALERT_RULES[rule].again
    if owner:
        detail = f"Owner: {sanitize_line(owner, 200)}. {detail}"
    return Finding(key, rule, severity, summary, detail, event_type, again, owner)


def _find_backlog(figures: AlertFigures, thresholds: Thresholds) -> Iterator[Finding]:
    critical = figures.backlog > thresholds.backlog_error
    why = "`dlq causes list` shows why they died."
    if critical or figures.backlog > thresholds.backlog:
        yield _build_finding(
            "backlog",
            Severity.CRITICAL if critical else Severity.WARNING,
            f"{_format_figure(figures.backlog, thresholds.count_limit)} events are dead",
            f"The threshold is {thresholds.backlog_error:,} dead events (DLQ_BACKLOG_ERROR). {why}"
            if critical
            else f"The threshold is {thresholds.backlog:,} dead events (DLQ_BACKLOG_WARN). {why}",
        )
    if figures.oldest is not None and figures.now - figures.oldest > thresholds.oldest:
        yield _build_finding(
            "oldest",
            Severity.WARNING,
            f"An event has been dead since {figures.oldest:%Y-%m-%d %H:%M} UTC",
            f"The threshold is {thresholds.oldest / timedelta(hours=1):,.0f} hours "
            "(DLQ_ALERT_OLDEST_HOURS). "
            "Flag a fix, or discard the event.",
        )
    if figures.purged_soon:
        yield _build_finding(
            "purge_ahead",
            Severity.INFO,
            f"{_format_figure(figures.purged_soon)} archived events will be deleted "
            "within seven days",
            "Restore the events that are still needed with `dlq archive restore`.",
        )


def _find_spikes(figures: AlertFigures, thresholds: Thresholds) -> Iterator[Finding]:
    """Find types whose deaths are unusual. A type without a label that is one is not in `other`."""
    others = figures.window.get(OTHER_TYPES, 0)
    for event_type, deaths in figures.window.items():
        if event_type == OTHER_TYPES:
            continue
        if _is_spike(figures, event_type, deaths, thresholds):
            others -= deaths * (event_type in figures.unlabelled)
            yield _build_spike(figures, event_type, deaths)
    if _is_spike(figures, OTHER_TYPES, others, thresholds):
        yield _build_spike(figures, OTHER_TYPES, others)


def _is_spike(figures: AlertFigures, event_type: str, deaths: int, thresholds: Thresholds) -> bool:
    limit = compute_spike_threshold(figures.baseline.get(event_type, ()))
    return deaths >= thresholds.min_deaths and deaths > limit


def _build_spike(figures: AlertFigures, event_type: str, deaths: int) -> Finding:
    shown = sanitize_line(event_type, 100)
    return _build_finding(
        "deaths",
        Severity.CRITICAL,
        f"{_format_figure(deaths, DEATHS_LOOKBACK)} events{f' of {shown}' if shown else ''} died "
        "within an hour",
        f"{_describe_usual(figures, event_type)} `dlq causes list` shows why they died.",
        of=shown,
        event_type=event_type,
    )


def _describe_usual(figures: AlertFigures, event_type: str) -> str:
    hours = figures.baseline.get(event_type, ())
    limit = compute_spike_threshold(hours)
    if hours and limit:
        return f"Up to {limit:,.0f} are usual, by the {format_count(len(hours), 'hour')} before."
    if hours:
        return f"In most of the {format_count(len(hours), 'hour')} before none died."
    since = f" since {figures.began:%Y-%m-%d %H:%M} UTC" if figures.began else ""
    return f"Deaths are recorded{since} only, so no earlier hour shows what is usual."


def _find_causes(figures: AlertFigures) -> Iterator[Finding]:
    for rule, title, since, causes in (
        ("new_cause", "New cause", "First seen", figures.new_causes),
        ("new_detail", "New detail", "First seen", figures.new_details),
        ("regressed", "Regressed cause", "It was fixed", figures.regressed),
    ):
        for cause in causes:
            yield _build_finding(
                rule,
                Severity.WARNING,
                f"{title}: {sanitize_line(cause.title, 200)}{_list_details(cause)}",
                f"{since} at {cause.since:%Y-%m-%d %H:%M} UTC{_describe_beginning(cause)}. "
                f"`dlq causes show {cause.id}` shows details.",
                of=cause.id,
                event_type=cause.event_type,
                owner=cause.owner,
            )


def _find_escalating_causes(figures: AlertFigures) -> Iterator[Finding]:
    for found in figures.escalating:
        cause, deaths, before = found.cause, found.days[-1], found.days[:-1]
        if is_above_limit(deaths, before):
            limit = compute_escalation_limit(before)
            why = f"Up to {limit:,.0f} are usual, by the {format_count(len(before), 'day')} before."
        else:
            why = f"They rise: {', '.join(f'{day:,}' for day in found.days)} by day."
        yield _build_finding(
            "escalating",
            Severity.WARNING,
            f"Escalating cause: {sanitize_line(cause.title, 200)}, {deaths:,} deaths on "
            f"{found.day}",
            f"{why} `dlq causes show {cause.id}` shows details.",
            of=cause.id,
            event_type=cause.event_type,
            owner=cause.owner,
        )


def _describe_beginning(cause: AlertCause) -> str:
    return f", {cause.beginning}" if cause.beginning else ""


def _list_details(cause: AlertCause) -> str:
    """Return the details in brackets, such as ` ('postcode', 'sku' and 3 more)`."""
    more = cause.details_found - len(cause.details)
    named = ", ".join(f"'{sanitize_line(detail, 60)}'" for detail in cause.details)
    return f" ({named}{f' and {more:,} more' if more > 0 else ''})" if named else ""


def _find_fixes(figures: AlertFigures) -> Iterator[Finding]:
    for fix in figures.halted:
        yield _build_finding(
            "halted",
            Severity.WARNING,
            f"Fix {fix.id} was halted: {sanitize_line(fix.verdict, 200)}",
            f"Note of the fix: {sanitize_line(fix.note, 200)}. "
            f"`dlq fixes show {fix.id}` compares the new errors with the old ones.",
            of=fix.id,
            event_type=fix.event_type,
            owner=fix.owner,
        )
    for healed in figures.healed:
        yield _build_finding(
            "healed",
            Severity.INFO,
            f"Resolved without a person: fix {healed.fix_id} of a probe delivered "
            f"{format_count(healed.events, 'event')}",
            f"`dlq causes show {healed.cause_id}` shows the cause.",
            of=healed.fix_id,
            owner=healed.owner,
        )
    if figures.parked:
        yield _build_finding(
            "parked",
            Severity.WARNING,
            f"{_format_figure(figures.parked)} events are parked: they died again after the "
            "maximum of retries",
            "`dlq fixes parked` lists them; only a person releases them.",
        )


def _find_stuck_events(figures: AlertFigures) -> Iterator[Finding]:
    for stuck in figures.stuck:
        age = format_duration(figures.now - stuck.due_at)
        yield _build_finding(
            "stuck",
            Severity.WARNING,
            f"No worker takes {stuck}, the oldest for {age}, although later events were taken",
            "Start a worker that takes the type; event "
            f"{sanitize_line(str(stuck.event_id), 100)} fell due first. Fixes of other events do "
            "not wait for these. `dlq doctor` shows what no worker takes.",
            of=stuck.event_type,
            event_type=stuck.event_type,
        )


def _find_failures(figures: AlertFigures) -> Iterator[Finding]:
    for check in figures.failed_checks:
        if check.name != CHECKS_WITH_OWN_RULE:
            yield _build_check_finding(check)
    for job in figures.failed_jobs:
        yield _build_job_finding(job)


def _build_check_finding(check: FailedCheck) -> Finding:
    known = CHECK_DESCRIPTIONS.get(check.name)
    promise = known.promise if known else "The check passes."
    next_step = known.next if known else "The page of the check in Dagster shows details."
    figures = "; ".join(
        f"{name.replace('_', ' ')} {_format_value(value)}" for name, value in check.figures.items()
    )
    return _build_finding(
        "check",
        check.severity,
        f"The check {check.name} failed",
        f"It failed at {check.checked_at:%Y-%m-%d %H:%M} UTC. Expected: {promise} "
        f"Found: {sanitize_line(figures, 300)}. {next_step}",
        of=check.name,
    )


def _format_value(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _build_job_finding(job: FailedJob) -> Finding:
    """Return what failed, with where to look and how to run it again."""
    last = f"{job.succeeded_at:%Y-%m-%d %H:%M} UTC" if job.succeeded_at else "never"
    days = [*job.days, *([f"{job.more_days:,} more"] if job.more_days else [])]
    named = (", ".join(days[:-1]) + " and " if days[:-1] else "") + days[-1] if days else ""
    repair = "re-execute the run, or backfill the days" if days else "re-execute the run"
    return _build_finding(
        "job",
        Severity.WARNING,
        f"The job {job.job} failed" + (f" for {named}" if days else ""),
        f"Dagster shows why in run {job.failed_run} of {job.failed_at:%Y-%m-%d %H:%M} UTC. "
        f"Once the cause is resolved, {repair}. `dlq doctor` checks what jobs need. "
        f"Last success: {last}.",
        of=job.job,
    )


def _format_figure(figure: int, looked_at: int = LOOKBACK) -> str:
    return f"{figure:,} or more" if figure >= looked_at else f"{figure:,}"
