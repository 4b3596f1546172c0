"""What is the case now, as rules want to know it?

Each statement reads a bounded part of an index, so it can be asked every minute of an outbox with millions of dead
events; and what the asset checks and the jobs wrote down themselves, because finding it out anew takes too long.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import DictRow

from dlq_pipelines.alerts.rules import (
    LOOK,
    LOOK_AT_DEATHS,
    USUAL,
    WINDOW,
    CauseFigure,
    FailedCheck,
    FailedJob,
    Figures,
    HaltedFix,
    Severity,
    Thresholds,
)
from dlq_pipelines.postgres.connect import Connection

# What each statement of a minute's question may take; all of them together stay below the minute of a sensor's tick.
_PATIENCE = "3s"
# Where causes are muted each event has to be looked up, so fewer are looked at.
_LOOK_WHERE_MUTED = 20_000
_LIST = 50
_NEW, _HALTED, _PURGE_AHEAD = timedelta(days=1), timedelta(days=3), timedelta(days=7)


@dataclass(frozen=True)
class FailedRun:
    """A run of a job that failed for good, as Dagster knows it."""

    job: str
    run_id: str
    at: datetime


def read_figures(
    connection: Connection, *, now: datetime, thresholds: Thresholds, max_retries: int, archive_retention_days: int
) -> Figures:
    """Ask for all of it, each statement within three seconds.

    Args:
        connection: in a transaction.
        now: the moment.
        thresholds: of the rules; below the least number of deaths nobody asks what is usual.
        max_retries: after so many retries an event is parked.
        archive_retention_days: how long archived events are kept; 0: for ever.
    """
    connection.run("session.hurry", timeout=_PATIENCE)
    muted = connection.one("alert.muted", now=now)["ids"]
    look = {"muted": muted, "look": _LOOK_WHERE_MUTED if muted else LOOK}
    listed = {"muted": muted, "limit": _LIST}
    deaths = connection.run("alert.window", since=now - WINDOW, muted=muted, look=LOOK_AT_DEATHS)
    window = {row["event_type"]: row["deaths"] for row in deaths}
    many = [event_type for event_type, deaths in window.items() if deaths >= thresholds.min_deaths]
    halted = connection.run("alert.halted", since=now - _HALTED, **listed)
    checks = connection.run("alert.failed_checks", limit=_LIST)
    soon = 0
    if archive_retention_days:
        before = now - timedelta(days=archive_retention_days) + _PURGE_AHEAD
        soon = connection.one("alert.purged_soon", before=before, look=LOOK)["events"]
    return Figures(
        now=now,
        backlog=connection.one("alert.backlog", **look)["events"],
        oldest=connection.one("alert.oldest", muted=muted, look=1_000)["died_at"],
        window=window,
        usual=_usual(connection, many, now),
        new_causes=_causes(connection.run("alert.new_causes", since=now - _NEW, **listed)),
        regressed=_causes(connection.run("alert.regressed", **listed)),
        halted=tuple(HaltedFix(**row | {"verdict": row["verdict"] or ""}) for row in halted),
        parked=connection.one("alert.parked", max_retries=max_retries, muted=muted)["events"],
        purged_soon=soon,
        failed_checks=tuple(FailedCheck(**row | {"severity": Severity(row["severity"])}) for row in checks),
        failed_jobs=tuple(FailedJob(**row) for row in connection.run("alert.failed_jobs", limit=_LIST)),
    )


def _causes(rows: Iterable[DictRow]) -> tuple[CauseFigure, ...]:
    return tuple(CauseFigure(**row) for row in rows)


def _usual(connection: Connection, event_types: Sequence[str], now: datetime) -> dict[str, list[int]]:
    """The hours of two weeks before the window, those without deaths as 0; none from before anything was recorded."""
    if not event_types:
        return {}
    began = connection.one("alert.hours_began")["began"]
    until = (now - WINDOW).replace(minute=0, second=0, microsecond=0)
    since = max(until - USUAL, began or until)
    hours = max(round((until - since) / timedelta(hours=1)), 0)
    rows = connection.run("alert.usual", since=since, until=until, event_types=list(event_types))
    known = {row["event_type"]: row["hours"] for row in rows}
    return {name: known.get(name, []) + [0] * (hours - len(known.get(name, []))) for name in event_types}


def record_check(  # noqa: PLR0913 - keyword-only past the name
    connection: Connection, name: str, *, passed: bool, severity: Severity, figures: Mapping[str, object], now: datetime
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


def record_success(connection: Connection, job: str, *, at: datetime) -> None:
    """Write down that a run of a job succeeded."""
    connection.run("alert.record_success", job=job, at=at)


def record_failures(connection: Connection, runs: Sequence[FailedRun]) -> None:
    """Write down runs that failed for good; older ones than are known change nothing."""
    for run in runs:
        connection.run("alert.record_failure", job=run.job, at=run.at, run_id=run.run_id)


def unknown_failures(connection: Connection, runs: Sequence[FailedRun]) -> list[FailedRun]:
    """Those that are not written down yet."""
    known = {row["job"]: row["failed_run"] for row in connection.run("alert.known_failures")}
    return [run for run in runs if known.get(run.job) != run.run_id]
