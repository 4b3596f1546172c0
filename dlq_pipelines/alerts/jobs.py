"""Records which jobs, and which days of partitioned jobs, failed and have not succeeded since.

A run records its own success, and a partitioned run the success of each day. Failures are read from
Dagster, because a killed run writes nothing. A failure lasts until the same day, or a job without
partitions, has succeeded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dlq_pipelines.postgres.connect import Connection

# The day of a job without partitions.
_NO_DAY = ""


@dataclass(frozen=True)
class FailedRun:
    """A run that failed after its retries, from Dagster's records.

    Attributes:
        at: time of its end.
        days: its days; empty for a job without partitions.
        began: time of its start. A day that succeeded since then, in any run, has not failed.
    """

    job: str
    run_id: str
    at: datetime
    days: tuple[str, ...] = ()
    began: datetime | None = None


@dataclass(frozen=True)
class RunScan:
    """Result of a scan of Dagster's runs.

    Attributes:
        failed: the runs that failed.
        until: the next scan begins at this time.
        more: whether further runs can be left.
    """

    failed: tuple[FailedRun, ...]
    until: datetime
    more: bool


def record_job_success(
    connection: Connection, job: str, *, at: datetime, day: str = _NO_DAY
) -> None:
    """Record that a job, or one of its days, succeeded."""
    connection.run("alert.record_success", job=job, day=day, at=at)


def get_scan_start(connection: Connection) -> datetime:
    """Return the time at which the next scan begins."""
    until: datetime = connection.fetch_one("alert.scan_start")["scanned_until"]
    return until


def record_job_failures(connection: Connection, scan: RunScan) -> None:
    """Record the failures and the end of the scan in one transaction."""
    with connection.transaction():
        for run in scan.failed:
            connection.run("alert.record_failure", **_build_parameters(run), run_id=run.run_id)
        connection.run("alert.record_scan", until=scan.until)


def select_new_failures(connection: Connection, runs: Sequence[FailedRun]) -> list[FailedRun]:
    """Return the failures that are not recorded yet. Reads only."""
    return [
        run
        for run in runs
        if connection.fetch_one("alert.is_new_failure", **_build_parameters(run))["new"]
    ]


def _build_parameters(run: FailedRun) -> dict[str, Any]:
    since = run.began if run.days and run.began is not None else run.at
    return {
        "job": run.job,
        "days": list(run.days) or [_NO_DAY],
        "at": run.at,
        "unless_since": since,
    }
