"""Evaluates alerts, sends them, and records which of our jobs failed."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

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
from dlq_pipelines.defs.outbox import DAILY_JOBS, JOBS, URGENT, Outbox
from dlq_pipelines.defs.sensors import request_run
from dlq_pipelines.defs.session import get_location_tag
from dlq_pipelines.defs.tables import build_table
from dlq_pipelines.installation import build_alert_policy, build_alert_sender
from dlq_pipelines.postgres.connect import Connection

if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import RunRecord

_RUNS_PER_SCAN = 200
# Runs that end within the same minute may be seen in another order, so the next scan reads that
# minute again. A run that is read twice changes nothing.
_OVERLAP = timedelta(minutes=1)


def define_alerts(outbox: Outbox) -> dg.Definitions:
    """Define the job that sends alerts, and its sensor."""
    job = _define_job(outbox)
    return dg.Definitions(jobs=[job], sensors=[_define_sensor(outbox, job)])


def _define_job(outbox: Outbox) -> dg.JobDefinition:
    # Outside the writers' pool: an alert must not wait for a long archive run.
    @dg.op(name=outbox.build_name("send_alerts_op"))
    def send_alerts_op(context: dg.OpExecutionContext) -> None:
        """Record failed jobs, evaluate the alerts and send what is due."""
        with outbox.session() as session:
            sender = build_alert_sender(session.settings)
            record_job_failures(
                session.connection,
                scan_failed_runs(
                    context.instance,
                    outbox,
                    since=get_scan_start(session.connection),
                    location_tag=get_location_tag(context, outbox.name),
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
            session.record_success("send_alerts")
        results = {**sent, "the webhook of deaths": error}
        rows = [
            (one.alert.key, one.notice or "none", one.alert.severity, one.alert.summary)
            for one in changed or ()
        ]
        context.add_output_metadata(
            {
                "alerts": build_table(("alert", "notice", "severity", "summary"), rows[:100]),
                "channels": build_table(
                    ("channel", "result"),
                    [(name, result or "sent") for name, result in sent.items()],
                ),
                "deaths_announced": deaths,
            }
        )
        for channel, result in results.items():
            if result is not None:
                context.log.warning(
                    f"{channel}: {result}. Sending is retried with a growing delay."
                )

    @dg.job(
        name=outbox.build_name("send_alerts"),
        owners=outbox.owners or None,
        tags={**outbox.tags, **URGENT},
    )
    @outbox.fill_in
    def send_alerts_job() -> None:
        """Decides which **alerts** fire, are repeated or have ended, and notifies `DLQ_ALERT_URLS`.

        - **When:** the `{dead_event_alert_sensor}` launches it when there is work.
        - **Changes:** `{schema}.alert` and the tables of its notices; sends messages.
        - **Rerun:** at any time: a notice is sent once, except one that a killed run sent and had
          not recorded.
        """
        send_alerts_op()

    return send_alerts_job


def _define_sensor(outbox: Outbox, send_alerts_job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=outbox.build_name("dead_event_alert_sensor"),
        job=send_alerts_job,
        minimum_interval_seconds=60,
        default_status=outbox.sensor_status,
        owners=outbox.owners,
        description=describe_automation(
            outbox,
            "Requests a run of {send_alerts} when an alert fires, is due again or has ended, when "
            "a run of a job failed, or when a message waits to be sent.",
            when="Every minute.",
            # A run every minute would add 1,440 runs a day to Dagster's records.
            changes="Nothing: the sensor reads a bounded part of indexes, and the run that it "
            "requests writes.",
            rerun="The next tick reads the database again, so a missed tick loses no alert.",
        ),
    )
    def dead_event_alert_sensor(
        context: dg.SensorEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Request a run when there is work and no run is in progress."""
        with outbox.session() as session:
            now, settings, connection = session.now, session.settings, session.connection
            with connection.transaction():
                # The cheapest question first: a waiting message is sent even if the rules time out.
                has_work = bool(
                    list_ready_channels(connection, build_alert_sender(settings), now=now)
                    or _has_new_failures(connection, context, outbox, now)
                    or list_transitions(connection, now=now, policy=build_alert_policy(settings))
                )
        yield request_run(
            context,
            outbox,
            "send_alerts",
            now=now,
            has_work=has_work,
            idle="No alert has changed and no message waits.",
        )

    return dead_event_alert_sensor


def scan_failed_runs(
    instance: dg.DagsterInstance,
    outbox: Outbox,
    *,
    since: datetime,
    location_tag: Mapping[str, str],
    now: datetime,
) -> RunScan:
    """Return the runs of an outbox that failed since then and that Dagster does not retry.

    Args:
        instance: Dagster's instance.
        outbox: whose runs are returned.
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
    failed = tuple(run for record in records for run in _list_failures(outbox, record))
    return RunScan(failed, records[-1].update_timestamp if more else now - _OVERLAP, more)


def _has_new_failures(
    connection: Connection, context: dg.SensorEvaluationContext, outbox: Outbox, now: datetime
) -> bool:
    """Return whether a failed run is not recorded yet.

    A failed run of send_alerts itself does not count: it would request a run every minute.
    """
    scan = scan_failed_runs(
        context.instance,
        outbox,
        since=get_scan_start(connection),
        location_tag=get_location_tag(context, outbox.name),
        now=now,
    )
    others = [run for run in scan.failed if run.job != "send_alerts"]
    return scan.more or bool(select_new_failures(connection, others))


def _list_failures(outbox: Outbox, record: "RunRecord") -> Iterator[FailedRun]:
    """Yield the failures of a run: of its job, or of the days of assets without a job.

    A backfill from the page of an asset runs in no job of ours.
    """
    run = record.dagster_run
    if run.tags.get("dagster/will_retry") == "true":
        return  # Dagster launches the run again, and that run counts
    days = _parse_days(outbox, run.tags)
    jobs = [name for name in JOBS if outbox.build_name(name) == run.job_name]
    if not jobs and days:
        keys = run.asset_selection or frozenset()
        jobs = [job for asset, job in DAILY_JOBS.items() if outbox.build_key(asset) in keys]
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


def _parse_days(outbox: Outbox, tags: Mapping[str, str]) -> tuple[str, ...]:
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
    days = range(max(begin, outbox.days.start.date()).toordinal(), end.toordinal() + 1)
    return tuple(date.fromordinal(day).isoformat() for day in days)
