"""Which days get an export and a report, and what becomes of the others when one of them is refused?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import psycopg

from dlq_pipelines.alerts.jobs import record_job_success
from dlq_pipelines.day import CATCH_UP_DAYS
from dlq_pipelines.defs.health import DAILY, report_check_result
from dlq_pipelines.defs.resources import OWNERS, OutboxResource, Session, get_utc_now
from dlq_pipelines.errors import DlqError
from dlq_pipelines.settings import read_settings

_settings = read_settings()

TIMEZONE = _settings.timezone
DAYS = dg.DailyPartitionsDefinition(start_date=_settings.partitions_start, timezone=TIMEZONE)
# All days of a backfill in one run, or so many a run: a run has one step for its days, so it is runs that spread over
# machines. A run by default, because starting one takes seconds and a day of an export often less.
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
_Do = Callable[[str], tuple[Metadata, list[str]]]
# Days that a failure names; the others fail for the same reasons.
_NAMED = 10


def build_daily_schedule(
    job: Any, *, name: str, cron: str, missing: str, description: str
) -> dg.ScheduleDefinition:
    """A schedule of the day before, which also makes up for days that it missed or that were refused.

    After an outage Dagster asks for the last tick alone. What is missing is read from the database; where that is away,
    the day before is asked for all the same, and its run says what is wrong.

    Args:
        job: of an asset with days.
        name: of the schedule.
        cron: when, on the wall clock of `DLQ_TIMEZONE`.
        missing: the statement that picks the days to do.
        description: for the UI.
    """

    def ask(
        context: dg.ScheduleEvaluationContext, outbox: OutboxResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        at = context.scheduled_execution_time
        days = DAYS.get_partition_keys(current_time=at)[-CATCH_UP_DAYS:]
        if not days:
            yield dg.SkipReason("No day is over yet.")
        for day in [*_missing(outbox, missing, days[:-1]), *days[-1:]]:
            # The tick is in the key: asked twice at one tick it is one run, and a day that was refused has another one.
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
    return decorate(ask)


def _missing(outbox: OutboxResource, statement: str, keys: Sequence[str]) -> list[str]:
    try:
        with outbox.session() as session:
            days = [session.day(key) for key in keys]
            where = {
                "days": [day.date for day in days],
                "starts": [day.start for day in days],
                "ends": [day.until for day in days],
            }
            return [row["day"].isoformat() for row in session.connection.run(statement, **where)]
    except (dg.Failure, DlqError, psycopg.Error):
        return []


def process_days(
    context: dg.AssetExecutionContext, session: Session, check: str, do: _Do
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Do a run's days one after the other. A day that is refused stops no other one, and what is done stays on record.

    Args:
        context: of the asset.
        session: where it is written down that a day succeeded, whichever job or backfill asked for it.
        check: the asset's check, which passes where no day differs.
        do: does a day; returns its metadata, and what differs from what it should be.

    Raises:
        dagster.Failure: days were refused; it names them with their reasons.
    """
    done: dict[str, Metadata] = {}
    job = DAILY[context.asset_key.to_user_string()]

    def do_and_record(key: str) -> tuple[Metadata, list[str]]:
        metadata, differences = do(key)
        if not differences:
            record_job_success(session.connection, job, day=key, at=get_utc_now())
        return metadata, differences

    try:
        differ = _do_all(context.partition_keys, do_and_record, done)
        result = report_check_result(
            session, check, passed=not differ, figures={"differences": differ[:100]}
        )
    except (
        Exception
    ):  # a failed step materializes nothing: its good days are written down one by one
        for key, metadata in done.items():
            context.log_event(
                dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata)
            )
        raise
    for key, metadata in done.items():
        context.add_asset_metadata(metadata, partition_key=key)
    return dg.MaterializeResult(check_results=[result])


def _do_all(days: Sequence[str], do: _Do, done: dict[str, Metadata]) -> list[str]:
    """What differs. The days that went well are in `done`, also where it raises."""
    refused, differ = [], []
    for key in days:
        try:
            done[key], differences = do(key)
        except DlqError as error:
            refused.append(f"{key}: {error}")
        else:
            differ += differences
    if refused:
        raise _refusal(refused, differ, len(days))
    return differ


def _refusal(refused: list[str], differ: list[str], days: int) -> dg.Failure:
    if days == 1:
        return dg.Failure(refused[0])
    were = "was" if len(refused) == 1 else "were"
    others = ", the others are done" if len(refused) < days else ""
    more = [f"and {len(refused) - _NAMED} more."] if len(refused) > _NAMED else []
    said = [
        f"{len(refused)} of {days} days {were} refused{others}.",
        *refused[:_NAMED],
        *more,
        *differ[:_NAMED],
    ]
    return dg.Failure(
        " ".join(said), metadata={"refused": refused[:100], "differences": differ[:100]}
    )
