"""Evaluates alerts, sends them, and records which of our jobs failed."""

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
from dlq_pipelines.defs.collect import list_job_names, map_daily_assets
from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.health import record_success_hook
from dlq_pipelines.defs.partitions import DAYS, SENSORS_START
from dlq_pipelines.defs.resources import (
    OWNERS,
    OutboxResource,
    describe_skip,
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

# An invalid address fails when the definitions load, not when the first alert is sent.
build_alert_sender(read_settings())
_RUNS_PER_SCAN = 200
# Runs that end within the same minute may be seen in another order, so the next scan reads that
# minute again. A run that is read twice changes nothing.
_OVERLAP = timedelta(minutes=1)


@dg.op  # outside the writers' pool: an alert must not wait for a long archive run
def send_alerts_op(context: dg.OpExecutionContext, outbox: OutboxResource) -> None:
    """Record failed jobs, evaluate the alerts and send what is due."""
    with outbox.session() as session:
        sender = build_alert_sender(session.settings)
        record_job_failures(
            session.connection,
            scan_failed_runs(
                context.instance,
                since=get_scan_start(session.connection),
                location_tag=get_location_tag(context),
                now=session.now,
            ),
        )
        try:
            changed = evaluate_alerts(
                session.connection, now=session.now, policy=build_alert_policy(session.settings)
            )
        finally:  # earlier notices are sent even if the evaluation times out
            sent = deliver_messages(session.connection, sender, now=session.now)
            deaths, error = send_death_events(session.connection, sender, now=session.now)
    results = {**sent, "the webhook of deaths": error}
    rows = [
        (one.alert.key, one.notice or "none", one.alert.severity, one.alert.summary)
        for one in changed or ()
    ]
    context.add_output_metadata(
        {
            "alerts": dg.MetadataValue.md(
                render_markdown_table(("alert", "notice", "severity", "summary"), rows[:100])
            ),
            "channels": dg.MetadataValue.md(
                render_markdown_table(
                    ("channel", "result"),
                    [(name, result or "sent") for name, result in sent.items()],
                )
            ),
            "deaths_announced": deaths,
        }
    )
    for channel, result in results.items():
        if result is not None:
            context.log.warning(f"{channel}: {result}. Sending is retried with a growing delay.")


@dg.job(name="send_alerts", hooks={record_success_hook}, owners=OWNERS)
def send_alerts_job() -> None:
    """Decides which **alerts** fire, are repeated or have ended, and notifies `DLQ_ALERT_URLS`.

    - **When:** the `dead_event_alert_sensor` launches it when there is work.
    - **Changes:** `dlq.alert` and the tables of its notices; sends messages.
    - **Rerun:** at any time: a notice is sent once, except one that a killed run sent and had not
      recorded.
    """
    send_alerts_op()


@dg.sensor(
    job=send_alerts_job,
    minimum_interval_seconds=60,
    default_status=SENSORS_START,
    owners=OWNERS,
    description=describe_automation(
        "Requests a send_alerts run when an alert fires, is due again or has ended, when a run of "
        "a job failed, or when a message waits to be sent.",
        when="Every minute.",
        # A run every minute would add 1,440 runs a day to Dagster's records.
        changes="Nothing: the sensor reads a bounded part of indexes, and the run that it requests "
        "writes.",
        rerun="The next tick reads the database again, so a missed tick loses no alert.",
    ),
)
def dead_event_alert_sensor(
    context: dg.SensorEvaluationContext, outbox: OutboxResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request a run when there is work and no run is in progress."""
    try:
        with outbox.session() as session:
            now, settings, connection = session.now, session.settings, session.connection
            with connection.transaction():
                # The cheapest question first: a waiting message is sent even if the rules time out.
                has_work = bool(
                    list_ready_channels(connection, build_alert_sender(settings), now=now)
                    or _has_new_failures(connection, context, now)
                    or list_transitions(connection, now=now, policy=build_alert_policy(settings))
                )
    except (dg.Failure, DlqError, psycopg.Error) as error:
        yield dg.SkipReason(describe_skip(error))
        return
    if not has_work:
        yield dg.SkipReason("No alert has changed and no message waits.")
    elif is_run_in_progress(context, job=send_alerts_job.name):
        yield dg.SkipReason("A send_alerts run is in progress.")
    else:
        # A run key is used once, even if its run fails. The time makes the key new at each tick.
        yield dg.RunRequest(run_key=f"alerts {now:%Y-%m-%dT%H:%M:%S}")


def scan_failed_runs(
    instance: dg.DagsterInstance, *, since: datetime, location_tag: Mapping[str, str], now: datetime
) -> RunScan:
    """Return the runs of this location that failed since then and that Dagster does not retry.

    Args:
        instance: Dagster's instance.
        since: runs that ended before were scanned earlier.
        location_tag: the tag of this location's runs.
        now: the current time.
    """
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE], tags=dict(location_tag), updated_after=since
    )
    records = instance.get_run_records(
        wanted, limit=_RUNS_PER_SCAN, order_by="update_timestamp", ascending=True
    )
    more = len(records) == _RUNS_PER_SCAN
    failed = tuple(run for record in records for run in _list_failures(record))
    return RunScan(failed, records[-1].update_timestamp if more else now - _OVERLAP, more)


def _has_new_failures(
    connection: Connection, context: dg.SensorEvaluationContext, now: datetime
) -> bool:
    """Return whether a failed run is not recorded yet.

    A failed run of send_alerts itself does not count: it would request a run every minute.
    """
    scan = scan_failed_runs(
        context.instance,
        since=get_scan_start(connection),
        location_tag=get_location_tag(context),
        now=now,
    )
    others = [run for run in scan.failed if run.job != send_alerts_job.name]
    return scan.more or bool(select_new_failures(connection, others))


def _list_failures(record: "RunRecord") -> Iterator[FailedRun]:
    """Yield the failures of a run: of its job, or of the days of assets without a job.

    A backfill from the page of an asset runs in no job of ours.
    """
    run = record.dagster_run
    if run.tags.get("dagster/will_retry") == "true":
        return  # Dagster launches the run again, and that run counts
    days = _parse_days(run.tags)
    if run.job_name in list_job_names():
        jobs = [run.job_name]
    else:
        assets = [key.to_user_string() for key in run.asset_selection or ()] if days else []
        job_of = map_daily_assets()
        jobs = sorted(job_of[asset] for asset in assets if asset in job_of)
    began = (
        record.create_timestamp
        if record.start_time is None
        else datetime.fromtimestamp(record.start_time, UTC)
    )
    ended = (
        record.update_timestamp
        if record.end_time is None
        else datetime.fromtimestamp(record.end_time, UTC)
    )
    for job in jobs:
        yield FailedRun(job, run.run_id, ended, days, began)


def _parse_days(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the days of a run; empty for a job without days, or if the tags name no valid days."""
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
