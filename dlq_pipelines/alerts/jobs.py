"""What of our jobs failed, and has not succeeded since?

That something succeeded is written down by the run, of a job with days for each day as it is done; that it failed is
read from Dagster, because a killed run writes nothing. A failure stands until what failed has succeeded: the day, or
the job where it has no days.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dlq_pipelines.postgres.connect import Connection

# Of a job without days.
_ITSELF = ""


@dataclass(frozen=True)
class FailedRun:
    """A run of a job that failed for good, as Dagster knows it.

    Attributes:
        at: when it ended.
        days: which days it was for; none: its job has no days.
        began: when it began. Of its days those have not failed that were done since, by itself or by another run.
    """

    job: str
    run_id: str
    at: datetime
    days: tuple[str, ...] = ()
    began: datetime | None = None


@dataclass(frozen=True)
class RunScan:
    """What a look at Dagster's runs found.

    Attributes:
        failed: the runs that failed for good.
        until: runs that ended before are not looked at again.
        more: whether there may be more than one look takes.
    """

    failed: tuple[FailedRun, ...]
    until: datetime
    more: bool


def record_job_success(
    connection: Connection, job: str, *, at: datetime, day: str = _ITSELF
) -> None:
    """Write down that a run of a job succeeded, or one of its days."""
    connection.run("alert.record_success", job=job, day=day, at=at)


def get_scan_start(connection: Connection) -> datetime:
    """From when on runs are to be looked at."""
    until: datetime = connection.fetch_one("alert.last_look")["looked_until"]
    return until


def record_job_failures(connection: Connection, look: RunScan) -> None:
    """Write down what failed, and that it was looked at, in one transaction."""
    with connection.transaction():
        for run in look.failed:
            connection.run("alert.record_failure", **_asked(run), run_id=run.run_id)
        connection.run("alert.looked", until=look.until)


def select_new_failures(connection: Connection, runs: Sequence[FailedRun]) -> list[FailedRun]:
    """Those that are not written down yet. Reads only."""
    return [
        run for run in runs if connection.fetch_one("alert.is_new_failure", **_asked(run))["new"]
    ]


def _asked(run: FailedRun) -> dict[str, Any]:
    since = run.began if run.days and run.began is not None else run.at
    return {
        "job": run.job,
        "days": list(run.days) or [_ITSELF],
        "at": run.at,
        "unless_since": since,
    }
