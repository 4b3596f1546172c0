"""Defines the figures of a day's report, and calculates sums and tables from what `read.py` counts.

Every figure is as of the end of the day: a later retry, archive run, purge or note changes none of
them. Texts are safe to show: redacted, without terminal codes, control characters and characters
that change the direction of writing.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from dlq_pipelines.causes.explain import describe_condition, describe_no_condition
from dlq_pipelines.day import compute_midnight, validate_year
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.links import NO_LINKS, Links
from dlq_pipelines.reports.states import URGENT_STATES, CauseState
from dlq_pipelines.retries.timeline import FixTimeline
from dlq_pipelines.validate import EventId

# A day is compared with the two whole weeks before it, so each weekday has the same weight.
DAYS_BEFORE = 14
CAUSES_LISTED = 1_000
# Causes with details: the most harmful ones, and further new, regressed or escalating ones.
_DETAILED_CAUSES = 25
_DETAILED_URGENT_CAUSES = 25
MATRIX_CAUSES, MATRIX_TYPES = 12, 8
# Names in `ReportFigures.days` and `.matrix` that are not cause ids. No shown text contains a NUL.
ALL, OTHER, UNCLASSIFIED = "\0all", "\0other", ""
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class ReportPolicy:
    """The settings of an installation that a report depends on.

    Attributes:
        dead_retention_days: days after which dead events are archived.
        archive_retention_days: days after which archived events are purged; 0: never.
        max_retries: retries after which an event that dies again is parked.
        redaction: removes secrets from errors and templates.
        links: where people can look.
    """

    dead_retention_days: int = 30
    archive_retention_days: int = 365
    max_retries: int = 3
    redaction: Redaction = field(default_factory=Redaction)
    links: Links = NO_LINKS


@dataclass(frozen=True)
class ReportWindow:
    """A day in a time zone and the 14 days before it.

    Raises:
        ValueError: the day is outside the years 1900 to 9000.
    """

    day: date
    zone: ZoneInfo

    def __post_init__(self) -> None:
        validate_year(self.day)

    @property
    def start(self) -> datetime:
        """The first instant of the day, in UTC."""
        return compute_midnight(self.day, self.zone)

    @property
    def until(self) -> datetime:
        """The first instant of the next day, in UTC."""
        return compute_midnight(self.day + timedelta(days=1), self.zone)

    @property
    def days(self) -> list[date]:
        """The 14 days before, oldest first, then the day."""
        return [self.day - timedelta(days=ago) for ago in range(DAYS_BEFORE, -1, -1)]

    @property
    def day_bounds(self) -> list[datetime]:
        """The first instant of each of `days`, in UTC."""
        return [compute_midnight(day, self.zone) for day in self.days]

    @property
    def hours(self) -> list[datetime]:
        """The start of each hour of the day, in its zone: 24, or 23 or 25 when clocks change."""
        count = -((self.start - self.until) // _HOUR)
        return [(self.start + hour * _HOUR).astimezone(self.zone) for hour in range(count)]

    @property
    def hour_labels(self) -> list[str]:
        """`hours` as the clock shows them; a repeated hour has its UTC offset added."""
        clock = [f"{hour:%H:%M}" for hour in self.hours]
        return [
            f"{shown} ({hour:%z})" if clock.count(shown) > 1 else shown
            for shown, hour in zip(clock, self.hours, strict=True)
        ]


@dataclass(frozen=True)
class DayTotals:
    """The totals of the day.

    Attributes:
        deaths: transitions of events to dead.
        events: distinct events that died. Fewer than deaths if one was retried and died again.
        unclassified: deaths without a cause yet.
        causes: distinct causes.
    """

    deaths: int
    events: int
    unclassified: int
    causes: int

    @property
    def classified(self) -> float:
        """The share of deaths that have a cause, 0 to 1; 1 without deaths."""
        return 1 - self.unclassified / self.deaths if self.deaths else 1.0


@dataclass(frozen=True)
class ErrorSample:
    """The last error of a cause on the day.

    Attributes:
        event_id: the event that died of it.
        summary: exception and message in one line.
        text: the error with its traceback; the beginning and the end of a long one.
        characters: the length of the whole error.
    """

    event_id: EventId
    summary: str
    text: str
    characters: int


@dataclass(frozen=True)
class StageFigures:
    """The outcomes of one stage of a fix by the end of the day."""

    stage: int
    released: int
    delivered: int
    died_again: int
    timed_out: int
    deleted: int
    recalled: int

    @property
    def waiting(self) -> int:
        """Released events without an outcome."""
        failed = self.died_again + self.timed_out + self.deleted
        return self.released - self.delivered - failed - self.recalled


@dataclass(frozen=True)
class FixEvidence:
    """The errors of some events of a halted fix, before the fix and after it."""

    events: int
    before: str
    after: str


@dataclass(frozen=True)
class FixFigures:
    """A fix that was open at the end of the day or ended on the day.

    Attributes:
        status: active, paused, or how it ended.
        ended: whether it ended on the day.
        selection: the dead events that it releases, in words.
        note: what was resolved.
        link: version or address of the change, as the person wrote it.
        deployment: service and version of the deployment that carries it, if the person named one.
        verdict: why it ended.
        timeline: what it released and what became of it, until the end of the day.
        evidence: errors before and after a halted fix.
    """

    id: int
    cause_id: str | None
    detail: str | None
    status: str
    ended: bool
    selection: str
    note: str
    link: str | None
    deployment: str | None
    owner: str | None
    flagged_by: str
    flagged_at: datetime
    closed_at: datetime | None
    verdict: str | None
    stages: tuple[StageFigures, ...]
    timeline: FixTimeline
    evidence: tuple[FixEvidence, ...]

    @property
    def released(self) -> int:
        """Released events that were not recalled."""
        return sum(stage.released - stage.recalled for stage in self.stages)

    @property
    def delivered(self) -> int:
        """Released events that were delivered."""
        return sum(stage.delivered for stage in self.stages)

    @property
    def died_again(self) -> int:
        """Released events that died again."""
        return sum(stage.died_again for stage in self.stages)


@dataclass(frozen=True)
class DetailFigures:
    """What errors of a cause named on the day, such as a missing key.

    Attributes:
        state: as that of a cause; the details of a new cause are no news of their own.
    """

    detail: str
    deaths: int
    state: CauseState


@dataclass(frozen=True)
class ExplanationFigures:
    """What sets the dead events of a cause apart, as it was when the report was first built.

    Attributes:
        condition: what most of the dead and few of the delivered events have in common, such as
            `$.acquirer = northbank`; None: nothing separates them.
        where: the filter that selects events by it; None: it is not about the payload.
        dead: dead events that meet it.
        compared_dead: dead events of the day that were compared.
        delivered: delivered events that meet it.
        compared_delivered: delivered events that were compared; 0: nothing was compared.
        is_hidden: whether the redaction of payloads hides the condition; the counts are 0 then.
    """

    condition: str | None
    where: str | None
    dead: int
    compared_dead: int
    delivered: int
    compared_delivered: int
    is_hidden: bool = False

    def __str__(self) -> str:
        if self.is_hidden:
            return "What sets them apart is hidden by the redaction of payloads."
        if not self.compared_delivered:
            return (
                "Nothing was compared: too few of its events were still dead, or delivered, when "
                "this report was first built."
            )
        if self.condition is None:
            return describe_no_condition(self.compared_dead, self.compared_delivered)
        return describe_condition(
            self.condition,
            (self.dead, self.compared_dead),
            (self.delivered, self.compared_delivered),
        )


HIDDEN_EXPLANATION = ExplanationFigures(
    None, None, dead=0, compared_dead=0, delivered=0, compared_delivered=0, is_hidden=True
)


@dataclass(frozen=True)
class CauseFigures:
    """A cause on the day, or the deaths without a cause yet.

    Attributes:
        rank: position by harm, from 1.
        cause_id: empty for the deaths without a cause yet.
        title: the name of the cause, or its exception type and template, with the detail that most
            deaths of the day name.
        escalation_limit: deaths that the days before explain; None without such days.
        above_limit: whether the day had more deaths than that, whatever the state.
        rising: whether deaths rose steadily until the day, whatever the state.
        share: of the deaths of the day, 0 to 1.
        aggregates: distinct aggregates with a death, which rank the causes: by deaths alone, one
            order that dies all day would precede a hundred orders that died once. An event without
            an aggregate counts for itself.
        aggregate_type: the type of all these aggregates, `event` for events without one; None if
            there are several types.
        event_types: the most frequent event types with their deaths.
        event_type_count: number of event types.
        beginning: of a cause that began on the day: which deployment its first death followed, such
            as `6 minutes after checkout v42`; empty if none was noted before the end of the day.
        explanation: what sets the dead events of a new, regressed or escalating cause apart; None:
            not explained.
        trend: deaths by day, oldest first, the day last.
        attempts: fewest, mean and most attempts before death.
        details: the details with most deaths, and new and regressed ones; at most 20.
        sample: the last error; None if none was recorded or the cause has no details.
        is_detailed: whether the page shows the cause with details; otherwise it only lists it.
    """

    rank: int
    cause_id: str
    title: str
    exception_type: str
    template: str
    state: CauseState
    above_limit: bool
    rising: bool
    escalation_limit: float | None
    deaths: int
    share: float
    aggregates: int
    aggregate_type: str | None
    event_types: tuple[tuple[str, int], ...]
    event_type_count: int
    first_seen: datetime
    last_seen: datetime
    trend: tuple[int, ...]
    attempts: tuple[int, float, int]
    beginning: str = ""
    explanation: ExplanationFigures | None = None
    owner: str | None = None
    note: str | None = None
    muted_until: datetime | None = None
    details: tuple[DetailFigures, ...] = ()
    sample: ErrorSample | None = None
    is_detailed: bool = False


@dataclass(frozen=True)
class BacklogFigures:
    """The dead events in the outbox, and their changes on the day.

    Attributes:
        dead_at_start: dead events at the start of the day.
        dead_at_end: dead events at the end of the day.
        oldest: when the oldest of these died.
        parked: dead events at the end of the day that only a person releases.
        died: deaths on the day.
        restored: events moved back from the archive as dead.
        retried: events released to the worker.
        archived: events moved to the archive, with those that were discarded.
        discarded: events that a person gave up.
        delivered: retries that were found delivered on the day, whenever they were released.
        died_again: retries that were found dead on the day.
        timed_out: retries whose wait for an outcome ended on the day.
        deleted: retries whose event was found deleted on the day.
        recalled: released events that were made dead again on the day, before a worker took them.
    """

    dead_at_start: int
    dead_at_end: int
    oldest: datetime | None
    parked: int
    died: int
    restored: int
    retried: int
    archived: int
    discarded: int
    delivered: int
    died_again: int
    timed_out: int
    deleted: int
    recalled: int

    @property
    def added(self) -> int:
        """Events that became dead in the outbox on the day."""
        return self.died + self.restored + self.recalled

    @property
    def removed(self) -> int:
        """Dead events that were retried or archived on the day."""
        return self.retried + self.archived

    @property
    def unexplained(self) -> int:
        """Dead events that are missing at the end of the day and were neither retried nor archived.

        They were deleted or changed outside dlq-pipelines. Negative: there are more than expected.
        """
        return self.dead_at_start + self.added - self.removed - self.dead_at_end


@dataclass(frozen=True)
class UpcomingFigures:
    """Events that pass their retention within seven days after the day.

    Attributes:
        archived: dead events that will be archived.
        purged: archived events that will be purged; None: the archive is never purged.
    """

    archived: int
    purged: int | None


@dataclass(frozen=True)
class ReconciliationFigures:
    """The last reconciliation before the end of the day.

    Attributes:
        checked_at: when it ran.
        missing: events with a death that are neither in the outbox nor in the archive.
        duplicated: events that are in both.
        missed: deaths that no trigger saw, which it recorded.
        event_ids: some of them.
    """

    checked_at: datetime
    missing: int
    duplicated: int
    missed: int
    event_ids: tuple[EventId, ...]


@dataclass(frozen=True)
class HealedFigures:
    """What probes healed on the day, without a person.

    Attributes:
        events: events that were found delivered on the day, and that no person retried.
        causes: the causes whose fix by a probe was verified on the day.
    """

    events: int
    causes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ReportFigures:
    """All figures of a report.

    Attributes:
        causes: by harm, muted ones last; at most 1,000 and the deaths without a cause.
        days: deaths by day, indexed by date. The column `ALL` is the sum of the others: one for
            each listed cause, `UNCLASSIFIED`, and `OTHER` for causes that are not listed.
        hours: deaths by hour, with the columns `hour` (its start, local), `label` and `deaths`.
        matrix: deaths of the day by cause (rows, in the order of `causes`) and event type
            (columns), with `OTHER` in both for the rest. The cells add up to all deaths.
        upcoming: events that pass their retention soon.
        fixes: at most 50, those that ended on the day first.
        fixes_found: number of fixes that were open at the end of the day or ended on it.
        healed: by probes on the day; None: no event was delivered by them.
        reconciliation: None if none ran before the end of the day.
        first_recorded_day: the first day with a classified death; None without one.
        recorded_since: the day of the installation, or the first recorded day if it is earlier.
            The means ignore days before it.
    """

    window: ReportWindow
    policy: ReportPolicy
    totals: DayTotals
    causes: tuple[CauseFigures, ...]
    days: pd.DataFrame
    hours: pd.DataFrame
    matrix: pd.DataFrame
    backlog: BacklogFigures
    upcoming: UpcomingFigures
    fixes: tuple[FixFigures, ...]
    fixes_found: int
    healed: HealedFigures | None
    reconciliation: ReconciliationFigures | None
    first_recorded_day: date | None
    recorded_since: date

    @property
    def recorded_days(self) -> int:
        """How many of the 14 days before are recorded."""
        return min(max((self.window.day - self.recorded_since).days, 0), DAYS_BEFORE)

    @property
    def mean(self) -> float:
        """Mean deaths a day in the recorded ones of the 14 days before; 0 without one."""
        before = self.days[ALL].iloc[:-1].tail(self.recorded_days)
        return float(before.mean()) if self.recorded_days else 0.0

    @property
    def weekday_mean(self) -> float | None:
        """Mean deaths on the same weekday of the two weeks before; None if it is not recorded."""
        weeks = self.recorded_days // 7
        return float(self.days[ALL].iloc[[7, 0][:weeks]].mean()) if weeks else None

    @property
    def change(self) -> float | None:
        """Change of the deaths against the mean: 0.4 is 40 % more. None if the mean is 0."""
        return self.totals.deaths / self.mean - 1 if self.mean else None

    @property
    def hidden_deaths(self) -> int:
        """Deaths of causes that are not listed."""
        return self.totals.deaths - sum(cause.deaths for cause in self.causes)

    @property
    def hidden_causes(self) -> int:
        """Number of causes that are not listed."""
        return self.totals.causes - sum(bool(cause.cause_id) for cause in self.causes)

    def list_causes(self, state: CauseState) -> list[CauseFigures]:
        """Return the listed causes in a state."""
        return [cause for cause in self.causes if cause.state is state]

    def count_details(self, state: CauseState) -> int:
        """Return the number of details of the listed causes that are in a state."""
        return sum(detail.state is state for cause in self.causes for detail in cause.details)

    def list_ended_fixes(self, status: str) -> list[FixFigures]:
        """Return the fixes that ended on the day with a status."""
        return [fix for fix in self.fixes if fix.ended and fix.status == status]


def select_detailed_causes(states: list[CauseState]) -> list[bool]:
    """Return for each cause, by its state, whether the page shows it with details.

    Args:
        states: of the causes, in the order of their harm.
    """
    detailed = [
        position < _DETAILED_CAUSES or state is CauseState.UNCLASSIFIED
        for position, state in enumerate(states)
    ]
    urgent = [
        position
        for position, state in enumerate(states)
        if state in URGENT_STATES and not detailed[position]
    ]
    for position in urgent[:_DETAILED_URGENT_CAUSES]:
        detailed[position] = True
    return detailed


def group_deaths_by_day(
    rows: list[dict[str, Any]], window: ReportWindow, *, causes: list[str]
) -> pd.DataFrame:
    """Build `ReportFigures.days` from rows with `day`, `cause_id` and `deaths`."""
    days = window.days
    columns = {name: [0] * len(days) for name in (*causes, UNCLASSIFIED, OTHER)}
    positions = {day: position for position, day in enumerate(days)}
    for row in rows:
        columns[row["cause_id"]][positions[row["day"]]] += row["deaths"]
    table = pd.DataFrame(columns, index=pd.Index(days, name="day"), dtype="int64")
    return pd.concat([table.sum(axis=1).rename(ALL), table], axis=1)


def group_deaths_by_hour(rows: list[dict[str, Any]], window: ReportWindow) -> pd.DataFrame:
    """Build `ReportFigures.hours` from rows with `position` (of the hour) and `deaths`."""
    counted = {row["position"]: row["deaths"] for row in rows}
    deaths = [counted.get(position, 0) for position in range(len(window.hours))]
    return pd.DataFrame({"hour": window.hours, "label": window.hour_labels, "deaths": deaths})


def group_deaths_by_type(
    rows: list[dict[str, Any]], causes: list[CauseFigures], deaths: int
) -> pd.DataFrame:
    """Build `ReportFigures.matrix`.

    Args:
        rows: with `cause_id` (None: a cause without a row), `event_type` and `deaths`, ordered by
            the position of the type.
        causes: the causes with a row, in order.
        deaths: all deaths of the day.
    """
    types = list(dict.fromkeys(row["event_type"] for row in rows))
    cause_ids = [cause.cause_id for cause in causes]
    table = pd.DataFrame(0, index=[*cause_ids, OTHER], columns=[*types, OTHER], dtype="int64")
    for row in rows:
        cause_id = OTHER if row["cause_id"] is None else row["cause_id"]
        table.loc[cause_id, row["event_type"]] += row["deaths"]
    for cause in causes:
        table.loc[cause.cause_id, OTHER] = cause.deaths - table.loc[cause.cause_id].sum()
    table.loc[OTHER, OTHER] = deaths - table.to_numpy().sum()
    return table
