"""Who is told when something goes wrong, with the outbox or with us?"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import psycopg

from dlq_pipelines.alerts.alert import evaluate_alerts, list_transitions
from dlq_pipelines.alerts.delivery import deliver_messages, list_ready_channels, send_death_events
from dlq_pipelines.alerts.jobs import (
    FailedRun,
    RunScan,
    get_scan_start,
    record_job_failures,
    select_new_failures,
)
from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.health import DAILY, JOBS, record_success_hook
from dlq_pipelines.defs.partitions import DAYS, SENSORS_START
from dlq_pipelines.defs.resources import (
    OWNERS,
    OutboxResource,
    get_location_tag,
    is_run_in_progress,
)
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import build_alert_policy, build_alert_sender
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import read_settings
from dlq_pipelines.text import render_markdown_table

if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import RunRecord

# An address that cannot be used is said when the definitions load, not when something is on fire.
build_alert_sender(read_settings())
_RUNS_A_LOOK = 200
# What ends within the same minute may be seen in another order: so much is looked at again, which changes nothing.
_OVERLAP = timedelta(minutes=1)


@dg.op  # without the writers' pool: what is to be told must not wait for a long archive
def send_alerts_op(context: dg.OpExecutionContext, outbox: OutboxResource) -> None:
    """Decide, write down, send."""
    with outbox.session() as session:
        sender = build_alert_sender(session.settings)
        record_job_failures(
            session.connection,
            scan_failed_runs(
                context.instance,
                since=get_scan_start(session.connection),
                ours=get_location_tag(context),
                now=session.now,
            ),
        )
        try:
            changed = evaluate_alerts(
                session.connection, now=session.now, policy=build_alert_policy(session.settings)
            )
        finally:  # what was decided before is sent, also where deciding takes too long now
            sent = deliver_messages(session.connection, sender, now=session.now)
            deaths, wrong = send_death_events(session.connection, sender, now=session.now)
    told = [
        (one.alert.key, one.notice or "not told", one.alert.severity, one.alert.summary)
        for one in changed or ()
    ]
    context.add_output_metadata(
        {
            "alerts": dg.MetadataValue.md(
                render_markdown_table(("alert", "told", "severity", "what"), told[:100])
            ),
            "channels": dg.MetadataValue.md(
                render_markdown_table(
                    ("channel", "result"), [(name, error or "sent") for name, error in sent.items()]
                )
            ),
            "deaths_announced": deaths,
        }
    )
    for channel, error in {**sent, "the webhook of deaths": wrong}.items():
        if error is not None:
            context.log.warning(f"{channel}: {error}. It is tried again, later each time.")


@dg.job(name="send_alerts", hooks={record_success_hook}, owners=OWNERS)
def send_alerts_job() -> None:
    """Decides which **alerts** fire, repeat or are over, and tells the channels of `DLQ_ALERT_URLS`.

    - **When:** the `dead_event_alert_sensor` launches it when there is something to do.
    - **Changes:** `dlq.alert` and what belongs to it, and it sends messages.
    - **Rerun:** at any time: nothing is told twice, but for what a killed run sent and had not written down.
    """
    send_alerts_op()


@dg.sensor(
    job=send_alerts_job,
    minimum_interval_seconds=60,
    default_status=SENSORS_START,
    owners=OWNERS,
    description=describe_automation(
        "Looks whether an alert fires, repeats or is over, a run of a job failed, or something waits to be sent, and "
        "requests a send_alerts run then.",
        when="Each minute.",
        changes="Nothing: it reads a bounded part of indexes, and the run that it requests writes.",
        rerun="The next tick asks the database anew, so a missed tick loses no alert.",
    ),
)
def dead_event_alert_sensor(
    context: dg.SensorEvaluationContext, outbox: OutboxResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request a run when there is something to do and none is under way."""
    try:
        with outbox.session() as session:
            now, settings, connection = session.now, session.settings, session.connection
            with connection.transaction():
                # The cheapest question first: what waits is sent, also where asking the rules takes too long now.
                work = (
                    list_ready_channels(connection, build_alert_sender(settings), now=now)
                    or _failed_since(connection, context, now)
                    or list_transitions(connection, now=now, policy=build_alert_policy(settings))
                )
    except (dg.Failure, DlqError, psycopg.Error) as error:
        yield dg.SkipReason(
            error.description or "" if isinstance(error, dg.Failure) else type(error).__name__
        )
        return
    if not work:
        yield dg.SkipReason("Nothing is to be told.")
    elif is_run_in_progress(context, job=send_alerts_job.name):
        yield dg.SkipReason("A run is at it already.")
    else:
        # The time makes the key new each tick: a key is for ever, and that of a failed run would lose the alert.
        yield dg.RunRequest(run_key=f"alerts {now:%Y-%m-%dT%H:%M:%S}")


def scan_failed_runs(
    instance: dg.DagsterInstance, *, since: datetime, ours: Mapping[str, str], now: datetime
) -> RunScan:
    """The runs of ours that failed for good since then: Dagster does not try them again. The first that ended first.

    Args:
        instance: Dagster's.
        since: what ended before was looked at.
        ours: the tag of our runs.
        now: the moment.
    """
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE], tags=dict(ours), updated_after=since
    )
    records = instance.get_run_records(
        wanted, limit=_RUNS_A_LOOK, order_by="update_timestamp", ascending=True
    )
    more = len(records) == _RUNS_A_LOOK
    failed = tuple(run for record in records for run in _failed(record))
    return RunScan(failed, records[-1].update_timestamp if more else now - _OVERLAP, more)


def _failed_since(
    connection: Connection, context: dg.SensorEvaluationContext, now: datetime
) -> bool:
    """Whether there is anything to write down. Our own job's failure would ask for the next one each minute."""
    seen = scan_failed_runs(
        context.instance, since=get_scan_start(connection), ours=get_location_tag(context), now=now
    )
    others = [run for run in seen.failed if run.job != send_alerts_job.name]
    return seen.more or bool(select_new_failures(connection, others))


def _failed(record: "RunRecord") -> Iterator[FailedRun]:
    """What failed with a run: a job of ours, or days of assets that were materialized without one, as in a backfill."""
    run = record.dagster_run
    if run.tags.get("dagster/will_retry") == "true":
        return  # Dagster launches it again by itself; that run will tell
    days = _days(run.tags)
    if run.job_name in JOBS:
        jobs = [run.job_name]
    else:
        assets = [key.to_user_string() for key in run.asset_selection or ()] if days else []
        jobs = sorted(DAILY[asset] for asset in assets if asset in DAILY)
    began = (
        record.create_timestamp
        if record.start_time is None
        else datetime.fromtimestamp(record.start_time, UTC)
    )
    for job in jobs:
        yield FailedRun(job, run.run_id, _ended(record), days, began)


def _days(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Which days a run was for; none where its job has none, or where they are no days of ours any more."""
    only = tags.get("dagster/partition")
    first = tags.get("dagster/asset_partition_range_start", only)
    last = tags.get("dagster/asset_partition_range_end", only)
    if first is None or last is None:
        return ()
    try:
        begin, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return ()
    days = range(max(begin, DAYS.start.date()).toordinal(), end.toordinal() + 1)
    return tuple(date.fromordinal(day).isoformat() for day in days)


def _ended(record: "RunRecord") -> datetime:
    return (
        record.update_timestamp
        if record.end_time is None
        else datetime.fromtimestamp(record.end_time, UTC)
    )
