"""Lists what happened lately: causes that began, that are back, that rose, and the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from psycopg.rows import DictRow

from dlq_pipelines.causes.catalogue import Cause, get_causes
from dlq_pipelines.causes.escalation import DAYS_COMPARED, is_above_limit
from dlq_pipelines.day import convert_to_zone
from dlq_pipelines.postgres.connect import Connection

# Deaths and causes of one list: a storm of millions must not make the list wait.
_MAX_DEATHS = 100_000
_MAX_CAUSES = 100
_DAY = timedelta(days=1)


class Recency(StrEnum):
    """Why a cause is in the list, what needs attention first."""

    NEW = "new"
    REGRESSED = "regressed"
    ROSE = "rose"
    ONGOING = "ongoing"


@dataclass(frozen=True)
class RecentCause:
    """A cause with deaths since a time.

    Attributes:
        recency: new: first seen since; regressed: a fixed cause or detail of it died again; rose:
            more deaths than the days before explain; ongoing: the others.
        deaths: since the time, at most 100,000 of all causes.
        usual: deaths of a period of this length, by the mean of the fourteen days before; None:
            the cause is not older.
        first_death: the first of them.
    """

    cause: Cause
    recency: Recency
    deaths: int
    usual: float | None
    first_death: datetime


@dataclass(frozen=True)
class RecentDeaths:
    """Causes with deaths since a time, and deaths that have no cause yet."""

    causes: tuple[RecentCause, ...]
    unclassified: int


def list_recent_causes(
    connection: Connection, *, since: datetime, now: datetime, zone: ZoneInfo
) -> RecentDeaths:
    """Return causes with deaths since a time: new, regressed and rising ones first.

    A cause rose if its deaths are above the limit of `compute_escalation_limit`, of the deaths of
    the fourteen days before, each scaled to the length of the period.

    Args:
        connection: to the ledger.
        since: the time, before now.
        now: the present time.
        zone: the time zone of days.

    Raises:
        ValueError: the time is not before now.
    """
    if since >= now:
        raise ValueError("since must be before now")
    last_day = convert_to_zone(since, zone).date() - _DAY
    first_day = last_day - (DAYS_COMPARED - 1) * _DAY
    rows = connection.run(
        "cause.recent",
        since=since,
        first_day=first_day,
        last_day=last_day,
        limit=_MAX_DEATHS,
        causes=_MAX_CAUSES + 1,  # one may be that of unclassified deaths
    ).fetchall()
    share = (now - since) / _DAY
    causes = get_causes(connection, [row["cause_id"] for row in rows if row["cause_id"]])
    found = [
        _build_recent(causes[row["cause_id"]], row, share=share, since=since, zone=zone)
        for row in rows
        if row["cause_id"] in causes
    ]
    order = list(Recency)
    found.sort(key=lambda item: (order.index(item.recency), -item.deaths, item.cause.id))
    unclassified = sum(row["deaths"] for row in rows if row["cause_id"] is None)
    return RecentDeaths(tuple(found), unclassified)


def count_daily_deaths(
    connection: Connection, cause_ids: Sequence[str], *, last_day: date, days: int = DAYS_COMPARED
) -> list[int]:
    """Return the deaths of causes on each of so many days, the last day last."""
    first_day = last_day - (days - 1) * _DAY
    rows = connection.run(
        "cause.daily", ids=list(cause_ids), first_day=first_day, last_day=last_day
    )
    counts = {row["day"]: row["deaths"] for row in rows}
    return [counts.get(first_day + number * _DAY, 0) for number in range(days)]


def _build_recent(
    cause: Cause, row: DictRow, *, share: float, since: datetime, zone: ZoneInfo
) -> RecentCause:
    # Only the days since the cause was first seen: earlier ones say nothing about it.
    first_day = convert_to_zone(cause.first_seen, zone).date()
    age = (convert_to_zone(since, zone).date() - first_day).days
    before = [deaths * share for deaths in row["days"][-age:]] if age > 0 else []
    return RecentCause(
        cause,
        _judge(cause, row["deaths"], before, since),
        row["deaths"],
        sum(before) / len(before) if before else None,
        row["first_death"],
    )


def _judge(cause: Cause, deaths: int, before: list[float], since: datetime) -> Recency:
    if cause.first_seen >= since:
        return Recency.NEW
    if cause.status == "regressed" or any(detail.status == "regressed" for detail in cause.details):
        return Recency.REGRESSED
    if is_above_limit(deaths, [round(usual) for usual in before]):
        return Recency.ROSE
    return Recency.ONGOING
