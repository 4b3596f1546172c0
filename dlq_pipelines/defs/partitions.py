"""Runs assets a day at a time: which days a schedule requests, and what a refused day stops."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
from dagster._utils.schedules import schedule_execution_time_iterator

from dlq_pipelines.alerts.jobs import record_job_success
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.day import Day
from dlq_pipelines.defs.describe import describe_check
from dlq_pipelines.defs.health import report_check_result
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.session import Session, get_utc_now
from dlq_pipelines.errors import DlqError
from dlq_pipelines.postgres.connect import Connection

Metadata = Mapping[str, Any]
_ProcessDay = Callable[[str], tuple[Metadata, list[str]]]
_ListDays = Callable[[Connection, Sequence[Day]], list[date]]
# Days that a failure names. The others usually fail for the same reasons.
_NAMED_DAYS = 10
# Time that the runs of a schedule have before their days count as missing.
_GRACE = timedelta(hours=2)


def define_daily_schedule(
    outbox: Outbox, name: str, *, job: Any, list_missing: _ListDays, description: str
) -> list[dg.ScheduleDefinition]:
    """Return a schedule that requests the day before and the days that it missed.

    After an outage Dagster evaluates only the last tick, so the schedule reads the missing days
    from the database. If the database is unavailable, the tick fails with the reason, and the next
    one requests its day.

    Args:
        outbox: the schedule is left out, and the list empty, if it has no cron for it.
        name: of the schedule.
        job: of an asset with daily partitions.
        list_missing: of all past days, returns those that still have to be done.
        description: for the UI.
    """
    if name not in outbox.crons:
        return []

    def request_days(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        at = context.scheduled_execution_time
        days = outbox.days.get_partition_keys(current_time=at)
        if not days:
            yield dg.SkipReason("No day has ended yet.")
        missing = _read_missing_days(outbox, list_missing, days)
        for day in [*(day for day in missing if day not in days[-1:]), *days[-1:]]:
            # The run key holds the tick: a tick that is evaluated twice requests one run, and the
            # next tick requests a refused day again.
            yield dg.RunRequest(run_key=f"{day} at {at:%Y-%m-%d %H:%M}", partition_key=day)

    decorate = dg.schedule(
        job=job,
        name=outbox.build_name(name),
        cron_schedule=outbox.crons[name],
        execution_timezone=outbox.settings.timezone,
        default_status=outbox.schedule_status,
        owners=outbox.owners,
        description=description,
    )
    return [decorate(request_days)]


def define_currency_check(
    outbox: Outbox, name: str, *, asset: str, schedule: str, list_missing: _ListDays
) -> list[dg.AssetChecksDefinition]:
    """Return a check that the last day that is due is done; none without the schedule.

    Dagster's freshness policies look at the last materialization of any day, and a backfill of old
    days would pass them.

    Args:
        outbox: of the asset.
        name: of the check.
        asset: with daily partitions.
        schedule: requests the day before. That day must be done `_GRACE` later.
        list_missing: of all past days, returns those that still have to be done.
    """
    cron = outbox.crons.get(schedule)
    if cron is None:
        return []

    @dg.asset_check(
        asset=outbox.build_key(asset), name=name, description=describe_check(outbox, name)
    )
    def check() -> dg.AssetCheckResult:
        with outbox.session() as session:
            requested_at = next(
                schedule_execution_time_iterator(
                    (session.now - _GRACE).timestamp(), cron, outbox.settings.timezone, False
                )
            )
            days = outbox.days.get_partition_keys(current_time=requested_at)
            missing = _list_missing_days(session, list_missing, days)
            return report_check_result(
                session,
                name,
                passed=not days or days[-1] not in missing,
                severity=Severity.WARNING,
                figures={"last_day_due": days[-1] if days else "none", "missing": missing[:100]},
            )

    return [check]


def _read_missing_days(outbox: Outbox, list_missing: _ListDays, keys: Sequence[str]) -> list[str]:
    with outbox.session() as session:
        return _list_missing_days(session, list_missing, keys)


def _list_missing_days(session: Session, list_missing: _ListDays, keys: Sequence[str]) -> list[str]:
    days = [session.parse_day(key) for key in keys]
    return [day.isoformat() for day in list_missing(session.connection, days)]


def process_days(
    context: dg.AssetExecutionContext,
    session: Session,
    process_day: _ProcessDay,
    *,
    job: str,
    check: str,
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster expects it without arguments
    """Process the days of a run one by one. A refused day stops no other day.

    Args:
        context: of the asset.
        session: records each day's success, in a job or a backfill.
        process_day: processes a day; returns its metadata and the differences that it found.
        job: the name of the asset's job without a prefix.
        check: the asset's check, which passes if no day has a difference.

    Raises:
        dagster.Failure: days were refused; the message names them and the reasons.
    """
    done: dict[str, Metadata] = {}

    def process_and_record(key: str) -> tuple[Metadata, list[str]]:
        metadata, differences = process_day(key)
        if not differences:
            record_job_success(session.connection, job, day=key, at=get_utc_now())
        return metadata, differences

    try:
        differences = _process_all(session, context.partition_keys, process_and_record, done)
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
    session.record_success(job)
    for key, metadata in done.items():
        context.add_asset_metadata(metadata, partition_key=key)
    return dg.MaterializeResult(check_results=[result])


def _process_all(
    session: Session, days: Sequence[str], process_day: _ProcessDay, done: dict[str, Metadata]
) -> list[str]:
    """Return the differences; `done` holds the days that succeeded, also if this raises."""
    refused, differences = [], []
    for key in days:
        try:
            done[key], found = process_day(key)
        except DlqError as error:
            refused.append(f"{key}: {session.settings.name_settings(str(error))}")
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
