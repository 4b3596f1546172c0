"""What is the case now, as rules want to know it?

Each statement reads a bounded part of an index, so it can be asked every minute of an outbox with millions of dead
events; and what the asset checks and the jobs wrote down themselves, because finding it out anew takes too long.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.alerts.rules import (
    BASELINE_WINDOW,
    DEATHS_LOOKBACK,
    LOOKBACK,
    SPIKE_WINDOW,
    AlertCause,
    AlertFigures,
    FailedCheck,
    FailedJob,
    HaltedFix,
    Severity,
    Thresholds,
)
from dlq_pipelines.postgres.connect import Connection

# What each statement of a minute's question may take; all of them together stay below the minute of a sensor's tick.
_PATIENCE = "3s"
# So many of the dead are looked through for those that are not muted: of a million muted ones it takes a second.
_LOOK_PAST_MUTED = 1_000_000
_LIST = 50
# Days of a job that its alert names.
_DAYS_NAMED = 3
_NEW, _HALTED, _PURGE_AHEAD = timedelta(days=1), timedelta(days=3), timedelta(days=7)


def read_alert_figures(
    connection: Connection,
    *,
    now: datetime,
    thresholds: Thresholds,
    max_retries: int,
    archive_retention_days: int,
) -> AlertFigures:
    """Ask for all of it, each statement within three seconds. What is not known by then is said in `slow`.

    Args:
        connection: in a transaction.
        now: the moment.
        thresholds: of the rules: no more is counted than they need.
        max_retries: after so many retries an event is parked.
        archive_retention_days: how long archived events are kept; 0: for ever.
    """
    connection.run("session.hurry", timeout=_PATIENCE)
    muted = connection.fetch_one("alert.muted", now=now)["ids"]
    ask = _Questions(connection)
    listed = {"muted": muted, "limit": _LIST}
    most = thresholds.look
    # Where nothing is muted the first rows are the answer.
    look, first = (max(_LOOK_PAST_MUTED, most), _LOOK_PAST_MUTED) if muted else (most, 1)
    deaths = ask.rows(
        "deaths",
        "alert.window",
        since=now - SPIKE_WINDOW,
        muted=muted,
        most=DEATHS_LOOKBACK,
        look=_LOOK_PAST_MUTED,
    )
    window = {row["event_type"]: row["deaths"] for row in deaths}
    many = [event_type for event_type, deaths in window.items() if deaths >= thresholds.min_deaths]
    purged = (
        now - timedelta(days=archive_retention_days) + _PURGE_AHEAD
        if archive_retention_days
        else None
    )
    figures = AlertFigures(
        now=now,
        backlog=ask.count("backlog", "alert.backlog", muted=muted, most=most, look=look),
        oldest=next(
            (row["died_at"] for row in ask.rows("oldest", "alert.oldest", muted=muted, look=first)),
            None,
        ),
        window=window,
        usual=_usual(ask, many, now),
        new_causes=_causes(ask.listed("new_cause", "alert.new_causes", since=now - _NEW, **listed)),
        regressed=_causes(ask.listed("regressed", "alert.regressed", **listed)),
        halted=_halted(ask.listed("halted", "alert.halted", since=now - _HALTED, **listed)),
        parked=ask.count("parked", "alert.parked", max_retries=max_retries, muted=muted),
        purged_soon=ask.count("purge_ahead", "alert.purged_soon", before=purged, look=LOOKBACK),
        failed_checks=_failed_checks(ask.listed("check", "alert.failed_checks", limit=_LIST)),
        failed_jobs=_failed_jobs(
            ask.listed("job", "alert.failed_jobs", limit=_LIST, days=_DAYS_NAMED)
        ),
    )
    return replace(
        figures, muted=frozenset(muted), slow=frozenset(ask.slow), cut=frozenset(ask.cut)
    )


class _Questions:
    """Asks what rules want to know, each question for itself: one that takes too long costs no other its answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.slow: set[str] = set()
        self.cut: set[str] = set()

    def rows(self, rule: str, statement: str, **values: object) -> list[DictRow]:
        try:
            with self._connection.transaction():
                return self._connection.run(statement, **values).fetchall()
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            self.slow.add(rule)
            return []

    def listed(self, rule: str, statement: str, *, limit: int, **values: object) -> list[DictRow]:
        """A list; one that is as long as it may be does not tell what is over."""
        found = self.rows(rule, statement, limit=limit, **values)
        if len(found) == limit:
            self.cut.add(rule)
        return found

    def count(self, rule: str, statement: str, **values: object) -> int:
        return sum(row["events"] for row in self.rows(rule, statement, **values))


def _causes(rows: Iterable[DictRow]) -> tuple[AlertCause, ...]:
    return tuple(AlertCause(**row) for row in rows)


def _halted(rows: Iterable[DictRow]) -> tuple[HaltedFix, ...]:
    return tuple(HaltedFix(**row | {"verdict": row["verdict"] or ""}) for row in rows)


def _failed_checks(rows: Iterable[DictRow]) -> tuple[FailedCheck, ...]:
    return tuple(FailedCheck(**row | {"severity": Severity(row["severity"])}) for row in rows)


def _failed_jobs(rows: Iterable[DictRow]) -> tuple[FailedJob, ...]:
    return tuple(FailedJob(**row | {"days": tuple(row["days"])}) for row in rows)


def _usual(ask: _Questions, event_types: Sequence[str], now: datetime) -> dict[str, list[int]]:
    """The hours of two weeks before the window, those without deaths as 0; none from before anything was recorded."""
    if not event_types:
        return {}
    began = next((row["began"] for row in ask.rows("deaths", "alert.hours_began")), None)
    until = (now - SPIKE_WINDOW).replace(minute=0, second=0, microsecond=0)
    since = max(until - BASELINE_WINDOW, began or until)
    hours = max(round((until - since) / timedelta(hours=1)), 0)
    rows = ask.rows(
        "deaths", "alert.usual", since=since, until=until, event_types=list(event_types)
    )
    known = {row["event_type"]: row["hours"] for row in rows}
    return {
        name: known.get(name, []) + [0] * (hours - len(known.get(name, []))) for name in event_types
    }


def record_check_result(
    connection: Connection,
    name: str,
    *,
    passed: bool,
    severity: Severity,
    figures: Mapping[str, object],
    now: datetime,
) -> None:
    """Write down what a check found, for rules and metrics."""
    connection.run(
        "alert.record_check",
        name=name,
        passed=passed,
        severity=severity,
        figures=json.dumps(figures, default=str),
        now=now,
    )
