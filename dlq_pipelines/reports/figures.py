"""How many events died on a day, of which causes, and is that more than usual?

`read_figures` asks the ledger for sums, never for all rows, in one snapshot; everything else here is calculation.
Every figure is of deaths between the day's first and last instant in its time zone and as of the day's end: what was
retried, archived or died later changes none of them. Texts come out of here fit to be shown: without terminal codes,
control characters and characters that turn the direction of writing.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from dlq_pipelines.day import midnight
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import plain_line, plain_text

DAYS_BEFORE = 14  # what a day is compared with: two whole weeks, so weekdays weigh the same
CAUSES_SHOWN = 50
SAMPLE_CHARACTERS = 4_000
_EVENT_TYPES_SHOWN = 5
# Columns of `Figures.days` that are no cause's id.
ALL, OTHER, UNCLASSIFIED = "(all)", "(other)", ""
_HOUR = timedelta(hours=1)

# In the order of the table; the types of an empty one.
_CAUSE_COLUMNS = {
    "cause_id": "object",
    "cause": "object",
    "exception_type": "object",
    "template": "object",
    "state": "object",
    "deaths": "int64",
    "share": "float64",
    "aggregates": "int64",
    "event_types": "object",
    "more_event_types": "int64",
    "first_seen": "datetime64[us, UTC]",
    "last_seen": "datetime64[us, UTC]",
    "trend": "object",
    "sample": "object",
    "sample_event": "object",
    "sample_characters": "int64",
}


class CauseState(StrEnum):
    """What is known about a row of the table, in the word that is shown."""

    NEW = "new"  # first seen on the day
    ONGOING = "ongoing"
    UNCLASSIFIED = "not classified"


@dataclass(frozen=True)
class Window:
    """A day in a time zone and the 14 days before it.

    Attributes:
        day: the day.
        zone: where it is that day.
    """

    day: date
    zone: ZoneInfo

    @property
    def start(self) -> datetime:
        """The day's first instant, in UTC."""
        return midnight(self.day, self.zone)

    @property
    def end(self) -> datetime:
        """The next day's first instant, in UTC."""
        return midnight(self.day + timedelta(days=1), self.zone)

    @property
    def days(self) -> list[date]:
        """The 14 days before, oldest first, and last the day."""
        return [self.day - timedelta(days=ago) for ago in range(DAYS_BEFORE, -1, -1)]

    @property
    def day_bounds(self) -> list[datetime]:
        """The instants at which `days` begin and, last, the end of the day."""
        return [midnight(day, self.zone) for day in self.days] + [self.end]

    @property
    def hours(self) -> list[datetime]:
        """The instants at which the day's hours begin, in its zone: 24, or 23 or 25 when the clocks change."""
        count = -((self.start - self.end) // _HOUR)
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
class Totals:
    """The day in single numbers.

    Attributes:
        deaths: transitions to dead.
        events: distinct events that died; fewer than deaths when one was retried and died again.
        unclassified: deaths whose cause is not known yet.
        causes: distinct causes, the unknown not counted.
        new_causes: causes never seen before the day.
        ledger_begin: when the first death was recorded; None when there never was one.
    """

    deaths: int
    events: int
    unclassified: int
    causes: int
    new_causes: int
    ledger_begin: datetime | None


@dataclass(frozen=True, eq=False)
class Figures:
    """All figures of a report.

    Attributes:
        window: the day and what it is compared with.
        totals: of the day.
        causes: a row a cause, most deaths first, at most 50 and the unclassified; `trend` is deaths by day.
        days: deaths by day, indexed by date. Column `ALL`; then one a shown cause by its id, `UNCLASSIFIED`, and
            `OTHER` for causes that are not shown: together they are `ALL`.
        hours: `hour` (its first instant, local), `label`, `deaths`.
    """

    window: Window
    totals: Totals
    causes: pd.DataFrame
    days: pd.DataFrame
    hours: pd.DataFrame

    @property
    def mean(self) -> float:
        """Deaths a day in the 14 days before; a day without deaths, or before the ledger began, counts as 0."""
        return float(self.days[ALL].iloc[:-1].mean())

    @property
    def change(self) -> float | None:
        """The day against that mean: 0.4 is 40 % above it. None when nothing died in those days."""
        return self.totals.deaths / self.mean - 1 if self.mean else None

    @property
    def hidden_deaths(self) -> int:
        """Deaths of causes that did not fit into the table."""
        return self.totals.deaths - int(self.causes["deaths"].sum())

    @property
    def hidden_causes(self) -> int:
        """How many causes did not fit into the table."""
        return self.totals.causes - int(self.causes["cause_id"].ne(UNCLASSIFIED).sum())


def read_figures(connection: Connection, window: Window) -> Figures:
    """Read the day's figures in one snapshot of the database.

    Args:
        connection: in autocommit mode and outside a transaction: the snapshot is a transaction of its own.
        window: the day.
    """
    span = {"start": window.start, "end": window.end}
    with connection.transaction():
        connection.run("report.snapshot")
        totals = connection.one("report.totals", **span) | {"new_causes": _new_causes(connection, window)}
        rows = connection.run("report.causes", limit=CAUSES_SHOWN, **span).fetchall()
        ids = [row["cause_id"] for row in rows if row["cause_id"] is not None]
        types = connection.run("report.event_types", causes=ids, limit=_EVENT_TYPES_SHOWN, **span).fetchall()
        samples = connection.run("report.samples", causes=ids, length=SAMPLE_CHARACTERS, **span).fetchall()
        by_day = connection.run("report.days", causes=ids, bounds=window.day_bounds[:-1], end=window.end).fetchall()
        by_hour = connection.run("report.hours", bounds=window.hours, **span).fetchall()
    days = deaths_by_day(by_day, window, causes=ids)
    return Figures(
        window=window,
        totals=Totals(**totals),
        causes=cause_table(rows, types=types, samples=samples, days=days),
        days=days,
        hours=deaths_by_hour(by_hour, window),
    )


def _new_causes(connection: Connection, window: Window) -> int:
    return int(connection.one("report.new_causes", start=window.start, end=window.end)["causes"])


def deaths_by_day(rows: list[dict[str, Any]], window: Window, *, causes: list[str]) -> pd.DataFrame:
    """The rows of `report.days` as `Figures.days`: every day and every column is there, with 0 where nothing died."""
    columns = [*causes, UNCLASSIFIED, OTHER]
    table = pd.DataFrame(0, index=pd.Index(window.days, name="day"), columns=columns, dtype="int64")
    for row in rows:
        column = (row["cause_id"] or OTHER) if row["classified"] else UNCLASSIFIED
        table.iloc[row["position"], columns.index(column)] += row["deaths"]
    table.insert(0, ALL, table.sum(axis=1))
    return table


def deaths_by_hour(rows: list[dict[str, Any]], window: Window) -> pd.DataFrame:
    """The rows of `report.hours` as `Figures.hours`: every hour is there, with 0 where nothing died."""
    found = {row["position"]: row["deaths"] for row in rows}
    deaths = [found.get(position, 0) for position in range(len(window.hours))]
    return pd.DataFrame({"hour": window.hours, "label": window.hour_labels, "deaths": deaths})


def cause_table(
    rows: list[dict[str, Any]],
    *,
    types: list[dict[str, Any]],
    samples: list[dict[str, Any]],
    days: pd.DataFrame,
) -> pd.DataFrame:
    """The rows of `report.causes` with their event types, samples, trends and shares, in the same order.

    The unclassified have `UNCLASSIFIED` as cause_id. Shares are of all deaths of the day: causes that are not shown
    count.
    """
    kinds = {row["cause_id"]: row["kinds"] for row in types}
    names = {cause: [plain_line(t["event_type"], 80) for t in types if t["cause_id"] == cause] for cause in kinds}
    sample = {row["cause_id"]: row for row in samples}
    total = int(days[ALL].iloc[-1])
    table = [
        _described(row)
        | {"share": row["deaths"] / total, "event_types": names[row["cause_id"]]}
        | {"more_event_types": kinds[row["cause_id"]] - len(names[row["cause_id"]])}
        | {"trend": [int(deaths) for deaths in days[row["cause_id"] or UNCLASSIFIED]]}
        | _sampled(sample[row["cause_id"]])
        for row in rows
    ]
    return pd.DataFrame(table, columns=list(_CAUSE_COLUMNS)).astype(_CAUSE_COLUMNS)


def _described(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: row[key] for key in ("deaths", "aggregates", "first_seen", "last_seen")}
    if row["cause_id"] is None:
        words = {
            "cause_id": UNCLASSIFIED,
            "cause": "not classified yet",
            "exception_type": "not classified yet",
            "template": "",
        }
        return kept | words | {"state": CauseState.UNCLASSIFIED.value}
    exception, template = plain_line(row["exception_type"], 120), plain_line(row["template"], 300)
    state = CauseState.NEW if row["is_new"] else CauseState.ONGOING
    return kept | {
        "cause_id": row["cause_id"],
        "cause": plain_line(row["name"], 120) if row["name"] else cause_label(exception, template),
        "exception_type": exception,
        "template": template,
        "state": state.value,
    }


def _sampled(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "sample": plain_text(row["sample"] or ""),
        "sample_event": row["event_id"],
        "sample_characters": row["characters"] or 0,
    }


def cause_label(exception: str, template: str, *, limit: int = 120) -> str:
    """A cause in one line, `TimeoutError: no answer in <n> s`; the type is not said twice."""
    said = template.startswith(exception) or not template
    return plain_line((template or exception) if said else f"{exception}: {template}", limit)
