"""Reads the figures that the alert rules evaluate.

Each statement reads a bounded part of an index, so that it can run every minute on an outbox with
millions of dead events. Results of asset checks and jobs are read as they were recorded, because
computing them again takes too long.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, TypeVar

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.alerts.rules import (
    BASELINE_WINDOW,
    DEATHS_LOOKBACK,
    LOOKBACK,
    OTHER_TYPES,
    SPIKE_WINDOW,
    AlertCause,
    AlertFigures,
    EscalatingCause,
    FailedCheck,
    FailedJob,
    HaltedFix,
    HealedCause,
    Severity,
    Thresholds,
)
from dlq_pipelines.causes.counts import LABELS
from dlq_pipelines.causes.escalation import DAYS_COMPARED, MIN_DEATHS, is_escalating
from dlq_pipelines.day import compute_midnight
from dlq_pipelines.deployments import Deployment
from dlq_pipelines.outbox.queue import list_stuck_events
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RedactTexts

_Row = TypeVar("_Row")
_log = logging.getLogger("dlq.alerts")
# Timeout of each statement. All together stay below the 60 seconds of a sensor tick.
_STATEMENT_TIMEOUT = "3s"
# Dead events that are read to find events of causes that are not muted: a million take a second.
_MUTED_LOOKBACK = 1_000_000
_MAX_LISTED = 50
# Days of a job, and details of a cause, that an alert names.
_NAMED_DAYS, _NAMED_DETAILS = 3, 3
_NEW, _HALTED, _PURGE_AHEAD = timedelta(days=1), timedelta(days=3), timedelta(days=7)
_HEALED = timedelta(days=1)


def read_alert_figures(
    connection: Connection,
    *,
    now: datetime,
    thresholds: Thresholds,
    max_retries: int,
    archive_retention_days: int,
    zone: tzinfo = UTC,
    redact: RedactTexts = list,
) -> AlertFigures:
    """Read all figures, each statement within three seconds.

    A statement that times out is logged and named in `timed_out`.

    Args:
        connection: in a transaction.
        now: the present time.
        thresholds: the bounds of the rules, which limit what is counted.
        max_retries: number of retries after which an event is parked.
        archive_retention_days: days that archived events are kept; 0: without limit.
        zone: the time zone of days.
        redact: hides parts of the titles and details of causes, which come from errors.
    """
    connection.run("session.set_statement_timeout", timeout=_STATEMENT_TIMEOUT)
    muted = connection.fetch_one("alert.muted", now=now)["ids"]
    reader = _FigureReader(connection)
    counts = _count_events(reader, muted, now, thresholds, max_retries, archive_retention_days)
    figures = _read_lists(reader, counts, muted)
    escalating = _read_escalating(reader, muted, now, zone)
    return replace(
        figures,
        new_causes=_redact_causes(figures.new_causes, redact),
        new_details=_redact_causes(figures.new_details, redact),
        regressed=_redact_causes(figures.regressed, redact),
        escalating=tuple(
            replace(found, cause=_redact_causes([found.cause], redact)[0]) for found in escalating
        ),
        muted=frozenset(muted),
        timed_out=frozenset(reader.timed_out),
        cut=frozenset(reader.cut),
    )


def _count_events(
    reader: "_FigureReader",
    muted: Sequence[str],
    now: datetime,
    thresholds: Thresholds,
    max_retries: int,
    archive_retention_days: int,
) -> AlertFigures:
    most = thresholds.count_limit
    # If nothing is muted, the first rows are the answer.
    look, first = (max(_MUTED_LOOKBACK, most), _MUTED_LOOKBACK) if muted else (most, 1)
    oldest = reader.read_rows("oldest", "alert.oldest", muted=muted, look=first)
    deaths = _read_deaths(reader, muted, now, thresholds)
    purged = None
    if archive_retention_days:
        purged = now - timedelta(days=archive_retention_days) + _PURGE_AHEAD
    return AlertFigures(
        now=now,
        backlog=reader.sum_events("backlog", "alert.backlog", muted=muted, most=most, look=look),
        oldest=oldest[0]["died_at"] if oldest else None,
        **deaths,
        parked=reader.sum_events("parked", "alert.parked", max_retries=max_retries, muted=muted),
        purged_soon=reader.sum_events(
            "purge_ahead", "alert.purged_soon", before=purged, look=LOOKBACK
        ),
    )


def _read_lists(
    reader: "_FigureReader", figures: AlertFigures, muted: Sequence[str]
) -> AlertFigures:
    """Add the lists of causes, fixes, checks and jobs to the figures."""
    now, limit = figures.now, _MAX_LISTED
    return replace(
        figures,
        new_causes=_build_new_causes(
            reader.read_list(
                "new_cause", "alert.new_causes", since=now - _NEW, muted=muted, limit=limit
            )
        ),
        new_details=_build_causes(
            reader.read_list(
                "new_detail",
                "alert.new_details",
                since=now - _NEW,
                age=_NEW,
                muted=muted,
                limit=limit,
                details=_NAMED_DETAILS,
            )
        ),
        regressed=_build_causes(
            reader.read_list(
                "regressed", "alert.regressed", muted=muted, limit=limit, details=_NAMED_DETAILS
            )
        ),
        halted=_build_halted_fixes(
            reader.read_list(
                "halted", "alert.halted", since=now - _HALTED, muted=muted, limit=limit
            )
        ),
        healed=tuple(
            HealedCause(**row)
            for row in reader.read_list(
                "healed", "alert.healed", since=now - _HEALED, muted=muted, limit=limit
            )
        ),
        stuck=tuple(reader.read("stuck", list_stuck_events, now=now)),
        failed_checks=_build_failed_checks(
            reader.read_list("check", "alert.failed_checks", limit=limit)
        ),
        failed_jobs=_build_failed_jobs(
            reader.read_list("job", "alert.failed_jobs", limit=limit, days=_NAMED_DAYS)
        ),
    )


class _FigureReader:
    """Runs each statement in its own savepoint, so that a timeout of one affects no other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.timed_out: set[str] = set()
        self.cut: set[str] = set()

    def read_rows(self, rule: str, statement: str, **values: object) -> list[DictRow]:
        def run(connection: Connection) -> list[DictRow]:
            return connection.run(statement, **values).fetchall()

        return self.read(rule, run)

    def read(self, rule: str, read: Callable[..., list[_Row]], **values: object) -> list[_Row]:
        """Read with a function that takes the connection."""
        try:
            with self._connection.transaction():
                return read(self._connection, **values)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            _log.warning("Alert rule %s timed out.", rule)
            self.timed_out.add(rule)
            return []

    def read_list(
        self, rule: str, statement: str, *, limit: int, **values: object
    ) -> list[DictRow]:
        """Read a list. A list of the maximum length is incomplete."""
        found = self.read_rows(rule, statement, limit=limit, **values)
        if len(found) == limit:
            self.cut.add(rule)
        return found

    def sum_events(self, rule: str, statement: str, **values: object) -> int:
        return sum(row["events"] for row in self.read_rows(rule, statement, **values))


def _read_escalating(
    reader: _FigureReader, muted: Sequence[str], now: datetime, zone: tzinfo
) -> list[EscalatingCause]:
    """Read the causes that escalate on the day that ended last."""
    day = now.astimezone(zone).date() - timedelta(days=1)
    rows = reader.read_list(
        "escalating",
        "alert.escalating",
        day=day,
        first=day - timedelta(days=DAYS_COMPARED),
        start=compute_midnight(day, zone),
        least=MIN_DEATHS,
        muted=muted,
        limit=_MAX_LISTED,
    )
    found: list[EscalatingCause] = []
    for row in rows:
        age = (day - row["since"].astimezone(zone).date()).days
        days = row.pop("days")[-1 - min(age, DAYS_COMPARED) :]
        if is_escalating(days[-1], days[:-1]):
            found.append(EscalatingCause(AlertCause(**row), day, days))
    return found


def _build_causes(rows: Iterable[DictRow]) -> tuple[AlertCause, ...]:
    return tuple(AlertCause(**row) for row in rows)


def _build_new_causes(rows: Iterable[DictRow]) -> tuple[AlertCause, ...]:
    deployed = [(row, Deployment.from_json(row.pop("deployment"))) for row in rows]
    return tuple(
        AlertCause(**row, beginning=found.describe_delay(row["since"]) if found else "")
        for row, found in deployed
    )


def _redact_causes(causes: Sequence[AlertCause], redact: RedactTexts) -> tuple[AlertCause, ...]:
    """Before the texts are cut: a pattern may not match half of a secret."""
    return tuple(
        replace(cause, title=redact([cause.title])[0], details=redact(cause.details))
        for cause in causes
    )


def _build_halted_fixes(rows: Iterable[DictRow]) -> tuple[HaltedFix, ...]:
    return tuple(HaltedFix(**row | {"verdict": row["verdict"] or ""}) for row in rows)


def _build_failed_checks(rows: Iterable[DictRow]) -> tuple[FailedCheck, ...]:
    return tuple(FailedCheck(**row | {"severity": Severity(row["severity"])}) for row in rows)


def _build_failed_jobs(rows: Iterable[DictRow]) -> tuple[FailedJob, ...]:
    return tuple(FailedJob(**row | {"days": tuple(row["days"])}) for row in rows)


def _read_deaths(
    reader: _FigureReader, muted: Sequence[str], now: datetime, thresholds: Thresholds
) -> dict[str, Any]:
    """Read the deaths of the last hour and those of each hour before."""
    found = reader.read_rows("deaths", "alert.recording")
    if not found:
        return {}
    recording = found[0]
    rows = reader.read_rows(
        "deaths",
        "alert.window",
        since=max(now - SPIKE_WINDOW, recording["counted_since"]),
        muted=muted,
        most=DEATHS_LOOKBACK,
        look=_MUTED_LOOKBACK,
        least=thresholds.min_deaths,
        labels=LABELS,
    )
    window: Counter[str] = Counter()
    unlabelled: set[str] = set()
    for row in rows:
        window[row["event_type"]] += row["deaths"]
        if not row["has_label"] and row["event_type"] != OTHER_TYPES:
            unlabelled.add(row["event_type"])
            window[OTHER_TYPES] += row["deaths"]
    many = [name for name, deaths in window.items() if deaths >= thresholds.min_deaths]
    baseline = _read_baseline(reader, many, unlabelled, now, recording["began"])
    if "deaths" in reader.timed_out:
        return {}  # without its baseline every hour would be unusual
    return {
        "window": dict(window),
        "unlabelled": frozenset(unlabelled),
        "began": recording["began"],
        "baseline": baseline,
    }


def _read_baseline(
    reader: _FigureReader,
    event_types: Sequence[str],
    unlabelled: AbstractSet[str],
    now: datetime,
    began: datetime,
) -> dict[str, list[int]]:
    """Read deaths per hour of the two weeks before the window, since recording began.

    Hours without deaths count as 0. A type without a label is compared with all such types.
    """
    if not event_types:
        return {}
    until = (now - SPIKE_WINDOW).replace(minute=0, second=0, microsecond=0)
    since = max(until - BASELINE_WINDOW, began.replace(minute=0, second=0, microsecond=0))
    hours = max(round((until - since) / timedelta(hours=1)), 0)
    labels = {name: OTHER_TYPES if name in unlabelled else name for name in event_types}
    rows = reader.read_rows(
        "deaths", "alert.usual", since=since, until=until, event_types=sorted(set(labels.values()))
    )
    known = {row["event_type"]: row["hours"] for row in rows}
    return {
        name: known.get(label, []) + [0] * (hours - len(known.get(label, [])))
        for name, label in labels.items()
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
    """Record the result of a check for rules and metrics."""
    connection.run(
        "alert.record_check",
        name=name,
        passed=passed,
        severity=severity,
        figures=json.dumps(figures, default=str),
        now=now,
    )
