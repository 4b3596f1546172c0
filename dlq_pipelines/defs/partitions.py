"""Runs assets a day at a time: which days a schedule requests, and what a refused day stops."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import psycopg

from dlq_pipelines.alerts.jobs import record_job_success
from dlq_pipelines.day import Day
from dlq_pipelines.defs.collect import map_daily_assets
from dlq_pipelines.defs.health import report_check_result
from dlq_pipelines.defs.resources import OWNERS, OutboxResource, Session, get_utc_now
from dlq_pipelines.errors import DlqError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import read_settings

_settings = read_settings()

TIMEZONE = _settings.timezone
DAYS = dg.DailyPartitionsDefinition(start_date=_settings.partitions_start, timezone=TIMEZONE)
# All days of a backfill in one run, or DLQ_DAYS_PER_RUN of them. A run has one step for its days,
# so only runs spread over machines. One run by default: starting a run takes seconds, exporting a
# day often less.
BACKFILL = (
    dg.BackfillPolicy.multi_run(_settings.days_per_run)
    if _settings.days_per_run
    else dg.BackfillPolicy.single_run()
)
SCHEDULES_START = (
    dg.DefaultScheduleStatus.RUNNING if _settings.autostart else dg.DefaultScheduleStatus.STOPPED
)
SENSORS_START = (
    dg.DefaultSensorStatus.RUNNING if _settings.autostart else dg.DefaultSensorStatus.STOPPED
)

Metadata = Mapping[str, Any]
_ProcessDay = Callable[[str], tuple[Metadata, list[str]]]
_ListDays = Callable[[Connection, Sequence[Day]], list[date]]
# Days that a failure names. The others usually fail for the same reasons.
_NAMED_DAYS = 10


def build_daily_schedule(
    job: Any, *, name: str, cron: str, list_missing: _ListDays, description: str
) -> dg.ScheduleDefinition:
    """Build a schedule that requests the day before and the days that it missed.

    After an outage Dagster evaluates only the last tick, so the schedule reads the missing days
    from the database. If the database is unavailable, the schedule still requests the day before,
    and that run fails with the reason.

    Args:
        job: of an asset with daily partitions.
        name: of the schedule.
        cron: when, by the clock in `DLQ_TIMEZONE`.
        list_missing: of all past days, returns those that still have to be done.
        description: for the UI.
    """

    def request_days(
        context: dg.ScheduleEvaluationContext, outbox: OutboxResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        at = context.scheduled_execution_time
        days = DAYS.get_partition_keys(current_time=at)
        if not days:
            yield dg.SkipReason("No day has ended yet.")
        missing = _read_missing_days(outbox, list_missing, days)
        for day in [*(day for day in missing if day not in days[-1:]), *days[-1:]]:
            # The run key holds the tick: a tick that is evaluated twice requests one run, and the
            # next tick requests a refused day again.
            yield dg.RunRequest(run_key=f"{day} at {at:%Y-%m-%d %H:%M}", partition_key=day)

    decorate = dg.schedule(
        job=job,
        name=name,
        cron_schedule=cron,
        execution_timezone=TIMEZONE,
        default_status=SCHEDULES_START,
        owners=OWNERS,
        description=description,
    )
    return decorate(request_days)


def _read_missing_days(
    outbox: OutboxResource, list_missing: _ListDays, keys: Sequence[str]
) -> list[str]:
    try:
        with outbox.session() as session:
            days = [session.parse_day(key) for key in keys]
            return [day.isoformat() for day in list_missing(session.connection, days)]
    except (dg.Failure, DlqError, psycopg.Error):
        return []


def process_days(
    context: dg.AssetExecutionContext, session: Session, check: str, process_day: _ProcessDay
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster expects it without arguments
    """Process the days of a run one by one. A refused day stops no other day.

    Args:
        context: of the asset.
        session: records each day's success, in a job or a backfill.
        check: the asset's check, which passes if no day has a difference.
        process_day: processes a day; returns its metadata and the differences that it found.

    Raises:
        dagster.Failure: days were refused; the message names them and the reasons.
    """
    done: dict[str, Metadata] = {}
    job = map_daily_assets()[context.asset_key.to_user_string()]

    def process_and_record(key: str) -> tuple[Metadata, list[str]]:
        metadata, differences = process_day(key)
        if not differences:
            record_job_success(session.connection, job, day=key, at=get_utc_now())
        return metadata, differences

    try:
        differences = _process_all(context.partition_keys, process_and_record, done)
        result = report_check_result(
            session, check, passed=not differences, figures={"differences": differences[:100]}
        )
    except Exception:
        # A failed step materializes nothing, so the days that succeeded are logged one by one.
        for key, metadata in done.items():
            context.log_event(
                dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata)
            )
        raise
    for key, metadata in done.items():
        context.add_asset_metadata(metadata, partition_key=key)
    return dg.MaterializeResult(check_results=[result])


def _process_all(
    days: Sequence[str], process_day: _ProcessDay, done: dict[str, Metadata]
) -> list[str]:
    """Return the differences; `done` holds the days that succeeded, also if this raises."""
    refused, differences = [], []
    for key in days:
        try:
            done[key], found = process_day(key)
        except DlqError as error:
            refused.append(f"{key}: {error}")
        else:
            differences += found
    if refused:
        raise _build_refusal(refused, differences, len(days))
    return differences


def _build_refusal(refused: list[str], differences: list[str], days: int) -> dg.Failure:
    if days == 1:
        return dg.Failure(refused[0])
    were = "was" if len(refused) == 1 else "were"
    others = "; the others are done" if len(refused) < days else ""
    hidden = len(refused) - _NAMED_DAYS
    sentences = [
        f"{len(refused)} of {days} days {were} refused{others}.",
        *refused[:_NAMED_DAYS],
        *([f"and {hidden} more."] if hidden > 0 else []),
        *differences[:_NAMED_DAYS],
    ]
    return dg.Failure(
        " ".join(sentences),
        metadata={"refused": refused[:100], "differences": differences[:100]},
    )
