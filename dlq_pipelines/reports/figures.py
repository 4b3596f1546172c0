"""What are the figures of a day's failures, and what do they add up to?

Values, and calculation on what `read.py` has counted. Every figure is as of the day's end: what was retried, archived,
purged or said later changes none of them. Texts come out of here fit to be shown: redacted, without terminal codes,
control characters and characters that turn the direction of writing.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from dlq_pipelines.day import compute_midnight, validate_year
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.reports.states import URGENT_STATES, CauseState

DAYS_BEFORE = 14  # what a day is compared with: two whole weeks, so weekdays weigh the same
CAUSES_LISTED = 1_000
# Told in full: the causes with most harm, and further ones that are new, back or worse.
_IN_FULL = 25
_URGENT_IN_FULL = 25
MATRIX_CAUSES, MATRIX_TYPES = 12, 8
# Columns of `Figures.days` and rows of `Figures.matrix` that are no cause's id. No text that is shown has a NUL in it.
ALL, OTHER, UNCLASSIFIED = "\0all", "\0other", ""
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class ReportPolicy:
    """What the installation decides that a report depends on.

    Attributes:
        dead_retention_days: after which dead events are archived.
        archive_retention_days: after which archived ones are purged; 0: never.
        max_retries: after which an event that died again is parked.
        redaction: what errors and templates must not show.
    """

    dead_retention_days: int = 30
    archive_retention_days: int = 365
    max_retries: int = 3
    redaction: Redaction = field(default_factory=Redaction)


@dataclass(frozen=True)
class ReportWindow:
    """A day in a time zone and the 14 days before it.

    Raises:
        ValueError: the day lies outside the years 1900 to 9000.
    """

    day: date
    zone: ZoneInfo

    def __post_init__(self) -> None:
        validate_year(self.day)

    @property
    def start(self) -> datetime:
        """The day's first instant, in UTC."""
        return compute_midnight(self.day, self.zone)

    @property
    def until(self) -> datetime:
        """The next day's first instant, in UTC."""
        return compute_midnight(self.day + timedelta(days=1), self.zone)

    @property
    def days(self) -> list[date]:
        """The 14 days before, oldest first, and last the day."""
        return [self.day - timedelta(days=ago) for ago in range(DAYS_BEFORE, -1, -1)]

    @property
    def day_bounds(self) -> list[datetime]:
        """The instants at which `days` begin."""
        return [compute_midnight(day, self.zone) for day in self.days]

    @property
    def hours(self) -> list[datetime]:
        """The instants at which the day's hours begin, in its zone: 24, or 23 or 25 when the clocks change."""
        count = -((self.start - self.until) // _HOUR)
        return [(self.start + hour * _HOUR).astimezone(self.zone) for hour in range(count)]

    @property
    def hour_labels(self) -> list[str]:
        """`hours` as the clock shows them; an hour that comes twice is told apart by its offset from UTC."""
        clock = [f"{hour:%H:%M}" for hour in self.hours]
        return [
            f"{shown} ({hour:%z})" if clock.count(shown) > 1 else shown
            for shown, hour in zip(clock, self.hours, strict=True)
        ]


@dataclass(frozen=True)
class DayTotals:
    """The day in single numbers.

    Attributes:
        deaths: transitions to dead.
        events: distinct events that died; fewer than deaths when one was retried and died again.
        unclassified: deaths whose cause is not known yet.
        causes: distinct causes, the unknown not counted.
    """

    deaths: int
    events: int
    unclassified: int
    causes: int

    @property
    def classified(self) -> float:
        """The share of deaths whose cause is known; of no deaths all are."""
        return 1 - self.unclassified / self.deaths if self.deaths else 1.0


@dataclass(frozen=True)
class ErrorSample:
    """An error of the day: the last one of its cause.

    Attributes:
        event_id: of which event.
        summary: exception and message in one line.
        text: all of it with its traceback, or both ends of a long one.
        characters: how many it has.
    """

    event_id: int
    summary: str
    text: str
    characters: int


@dataclass(frozen=True)
class StageFigures:
    """What became of one stage of a fix by the day's end."""

    stage: int
    released: int
    delivered: int
    died_again: int
    timed_out: int
    deleted: int

    @property
    def waiting(self) -> int:
        """Released and without outcome then."""
        return self.released - self.delivered - self.died_again - self.timed_out - self.deleted


@dataclass(frozen=True)
class FixEvidence:
    """An error that a halted fix met beside the one that it was to mend, and of how many events."""

    events: int
    before: str
    after: str


@dataclass(frozen=True)
class FixFigures:
    """A fix that was open at the day's end or ended on the day.

    Attributes:
        status: active, paused, or how it ended.
        ended: it ended on this day.
        targets: which dead events it means, in words.
        note: what was mended; `link`: the version or the address of the change, a stranger's text too.
    """

    id: int
    cause_id: str | None
    status: str
    ended: bool
    targets: str
    note: str
    link: str | None
    owner: str | None
    flagged_by: str
    flagged_at: datetime
    closed_at: datetime | None
    verdict: str | None
    stages: tuple[StageFigures, ...]
    evidence: tuple[FixEvidence, ...]

    @property
    def released(self) -> int:
        """Events that it had given back to the worker."""
        return sum(stage.released for stage in self.stages)

    @property
    def delivered(self) -> int:
        """Of these, delivered."""
        return sum(stage.delivered for stage in self.stages)

    @property
    def died_again(self) -> int:
        """Of these, died again."""
        return sum(stage.died_again for stage in self.stages)


@dataclass(frozen=True)
class CauseFigures:
    """A cause on the day; of the deaths without a cause yet `cause_id` is empty.

    Attributes:
        rank: by harm, from 1.
        title: its name, or exception type and template.
        limit: how many deaths its days before explain; None without such days.
        escalating: the day had more than that, whatever the state says.
        share: of the day's deaths.
        aggregates: distinct aggregates that it hit: its harm.
        event_types: the most frequent with their deaths; `kinds`: how many there are.
        trend: deaths by day, the day last.
        attempts: fewest, mean and most attempts before death.
        details: what of the schema its last errors name, such as a constraint or a key, by how many of `read` errors.
        sample: one of its errors; None where none was recorded, or the cause is only listed.
        in_full: told in full, not only listed.
    """

    rank: int
    cause_id: str
    title: str
    exception_type: str
    template: str
    state: CauseState
    escalating: bool
    limit: float | None
    deaths: int
    share: float
    aggregates: int
    event_types: tuple[tuple[str, int], ...]
    kinds: int
    first_seen: datetime
    last_seen: datetime
    trend: tuple[int, ...]
    attempts: tuple[int, float, int]
    owner: str | None = None
    note: str | None = None
    muted_until: datetime | None = None
    details: tuple[tuple[str, int], ...] = ()
    details_of: int = 0
    sample: ErrorSample | None = None
    in_full: bool = False


@dataclass(frozen=True)
class BacklogFigures:
    """What was dead in the outbox, and how it came and went on the day.

    Attributes:
        before: at the day's beginning; `open`: at its end.
        oldest: when the oldest of these died.
        parked: of these, those that died again after too many retries.
        died: on the day; `restored`: came back from the archive.
        retried: given back to the worker.
        archived: left for the archive; `discarded`: of these, given up by a person.
        delivered: retried, on the day or earlier, and found delivered on the day; the next three likewise.
    """

    before: int
    open: int
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

    @property
    def opened(self) -> int:
        """How many became dead in the outbox on the day."""
        return self.died + self.restored

    @property
    def closed(self) -> int:
        """How many left that state by what this project does."""
        return self.retried + self.archived

    @property
    def unexplained(self) -> int:
        """How many more left than were retried or archived: deleted, or made alive by other hands. 0 balances."""
        return self.before + self.opened - self.closed - self.open


@dataclass(frozen=True)
class UpcomingFigures:
    """What retention takes within a week after the day; None: nothing is ever purged."""

    archived: int
    purged: int | None


@dataclass(frozen=True)
class ReconciliationFigures:
    """The last check of the whole ledger before the day's end; see `archive.books`."""

    checked_at: datetime
    missing: int
    doubled: int
    examples: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ReportFigures:
    """All figures of a report.

    Attributes:
        causes: by harm, muted ones last; at most 1,000 and the unclassified.
        days: deaths by day, indexed by date. Column `ALL`; then one a listed cause by its id, `UNCLASSIFIED`, and
            `OTHER` for causes that are not listed: together they are `ALL`.
        hours: `hour` (its first instant, local), `label`, `deaths`.
        matrix: deaths by cause (rows: ids in the order of `causes`) and event type (columns), `OTHER` in both for the
            rest: all of it adds up to the day's deaths.
        fixes: those that ended on the day first; `fixes_found`: how many there are.
        ledger_begin: the first day with a death on record.
    """

    window: ReportWindow
    policy: ReportPolicy
    totals: DayTotals
    causes: tuple[CauseFigures, ...]
    days: pd.DataFrame
    hours: pd.DataFrame
    matrix: pd.DataFrame
    backlog: BacklogFigures
    ahead: UpcomingFigures
    fixes: tuple[FixFigures, ...]
    fixes_found: int
    books: ReconciliationFigures | None
    ledger_begin: date | None

    @property
    def mean(self) -> float:
        """Deaths a day in the 14 days before; a day without deaths, or before the ledger began, counts as 0."""
        return float(self.days[ALL].iloc[:-1].mean())

    @property
    def weekday_mean(self) -> float:
        """Deaths on the same weekday of the two weeks before."""
        return float(self.days[ALL].iloc[[0, 7]].mean())

    @property
    def change(self) -> float | None:
        """The day against the mean: 0.4 is 40 % above it. None when nothing died in those days."""
        return self.totals.deaths / self.mean - 1 if self.mean else None

    @property
    def hidden_deaths(self) -> int:
        """Deaths of causes that are not listed."""
        return self.totals.deaths - sum(cause.deaths for cause in self.causes)

    @property
    def hidden_causes(self) -> int:
        """How many causes are not listed."""
        return self.totals.causes - sum(bool(cause.cause_id) for cause in self.causes)

    def in_state(self, state: CauseState) -> list[CauseFigures]:
        """The listed causes in that state."""
        return [cause for cause in self.causes if cause.state is state]

    def ended(self, status: str) -> list[FixFigures]:
        """The fixes that ended on the day like that."""
        return [fix for fix in self.fixes if fix.ended and fix.status == status]


def select_detailed_causes(states: list[CauseState]) -> list[bool]:
    """Which of the causes, in their order, are told in full."""
    full = [at < _IN_FULL or state is CauseState.UNCLASSIFIED for at, state in enumerate(states)]
    for at in [at for at, state in enumerate(states) if state in URGENT_STATES and not full[at]][
        :_URGENT_IN_FULL
    ]:
        full[at] = True
    return full


def group_deaths_by_day(
    rows: list[dict[str, Any]], window: ReportWindow, *, causes: list[str]
) -> pd.DataFrame:
    """Counts with `day`, `cause_id` and `deaths` as `Figures.days`: every day and column is there, 0 without deaths."""
    days = window.days
    columns = {name: [0] * len(days) for name in (*causes, UNCLASSIFIED, OTHER)}
    place = {day: at for at, day in enumerate(days)}
    for row in rows:
        columns[row["cause_id"]][place[row["day"]]] += row["deaths"]
    table = pd.DataFrame(columns, index=pd.Index(days, name="day"), dtype="int64")
    return pd.concat([table.sum(axis=1).rename(ALL), table], axis=1)


def group_deaths_by_hour(rows: list[dict[str, Any]], window: ReportWindow) -> pd.DataFrame:
    """The rows of `report.hours` as `Figures.hours`: every hour is there, with 0 where nothing died."""
    found = {row["position"]: row["deaths"] for row in rows}
    deaths = [found.get(position, 0) for position in range(len(window.hours))]
    return pd.DataFrame({"hour": window.hours, "label": window.hour_labels, "deaths": deaths})


def group_deaths_by_type(
    rows: list[dict[str, Any]], causes: list[CauseFigures], deaths: int
) -> pd.DataFrame:
    """The rows of `report.types` as `Figures.matrix`: a row a cause, a column a type, the rest of both added up.

    Args:
        rows: with `cause_id` (None: any other), `position` of the type, `event_type` and `deaths`.
        causes: in the order of the rows.
        deaths: of the day.
    """
    names = list(
        dict.fromkeys(row["event_type"] for row in rows)
    )  # in the order of their positions
    table = pd.DataFrame(
        0,
        index=[*(cause.cause_id for cause in causes), OTHER],
        columns=[*names, OTHER],
        dtype="int64",
    )
    for row in rows:
        table.loc[OTHER if row["cause_id"] is None else row["cause_id"], row["event_type"]] += row[
            "deaths"
        ]
    for cause in causes:
        table.loc[cause.cause_id, OTHER] = cause.deaths - table.loc[cause.cause_id].sum()
    table.loc[OTHER, OTHER] = deaths - table.to_numpy().sum()
    return table
