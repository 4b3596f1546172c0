"""Who is told when something goes wrong, with the outbox or with us?"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
import psycopg

from dlq_pipelines.alerts.alert import evaluate, turns
from dlq_pipelines.alerts.delivery import announce_deaths, deliver, work_waits
from dlq_pipelines.alerts.figures import FailedRun, record_failures, unknown_failures
from dlq_pipelines.defs.health import JOBS, job_success
from dlq_pipelines.defs.partitions import SENSORS_START
from dlq_pipelines.defs.resources import OutboxResource, unfinished
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import alert_policy, alert_sender
from dlq_pipelines.settings import read_settings
from dlq_pipelines.text import markdown_table

if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import RunRecord

# An address that cannot be used is said when the definitions load, not when something is on fire.
alert_sender(read_settings())
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


@dg.op  # without the writers' pool: what is to be told must not wait for a long archive
def send_alerts_op(context: dg.OpExecutionContext, outbox: OutboxResource) -> None:
    """Decide, write down, send."""
    with outbox.session() as session:
        sender = alert_sender(session.settings)
        record_failures(session.connection, failed_runs(context.instance))
        try:
            changed = evaluate(session.connection, now=session.now, policy=alert_policy(session.settings))
        finally:  # what was decided before is sent, also where deciding takes too long now
            sent = deliver(session.connection, sender, now=session.now)
            deaths, wrong = announce_deaths(session.connection, sender, now=session.now)
    told = [(one.alert.key, one.notice or "not told", one.alert.severity, one.alert.summary) for one in changed or ()]
    context.add_output_metadata(
        {
            "alerts": dg.MetadataValue.md(markdown_table(("alert", "told", "severity", "what"), told[:100])),
            "channels": dg.MetadataValue.md(
                markdown_table(("channel", "result"), [(name, error or "sent") for name, error in sent.items()])
            ),
            "deaths_announced": deaths,
        }
    )
    for channel, error in {**sent, "the webhook of deaths": wrong}.items():
        if error is not None:
            context.log.warning(f"{channel}: {error}. It is tried again, later each time.")


@dg.job(name="send_alerts", hooks={job_success})
def send_alerts_job() -> None:
    """Decides which **alerts** fire, repeat or are over, and tells the channels of `DLQ_ALERT_URLS`.

    The `dead_event_alert_sensor` launches it when there is something to do. Running it again tells nothing twice; a run
    that is killed between sending and writing it down sends once more. Changes only `dlq.alert` and what belongs to it.
    """
    send_alerts_op()


@dg.sensor(
    job=send_alerts_job,
    minimum_interval_seconds=60,
    default_status=SENSORS_START,
    description=(
        "Looks each minute whether an alert fires, repeats or is over, a run of a job failed, or something waits to be "
        "sent, and requests a `send_alerts` run then. Reads only, a bounded part of indexes."
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
                    work_waits(connection, alert_sender(settings), now=now)
                    or unknown_failures(connection, _others_failed(context.instance))
                    or turns(connection, now=now, policy=alert_policy(settings))
                )
    except (dg.Failure, DlqError, psycopg.Error) as error:
        yield dg.SkipReason(error.description or "" if isinstance(error, dg.Failure) else type(error).__name__)
        return
    if not work:
        yield dg.SkipReason("Nothing is to be told.")
    elif context.instance.get_run_records(unfinished(job_name=send_alerts_job.name), limit=1):
        yield dg.SkipReason("A run is at it already.")
    else:
        # The time makes the key new each tick: a key is for ever, and that of a failed run would lose the alert.
        yield dg.RunRequest(run_key=f"alerts {now:%Y-%m-%dT%H:%M:%S}")


def failed_runs(instance: dg.DagsterInstance) -> list[FailedRun]:
    """Of each of our jobs the last run that ended, if it failed for good: Dagster does not try it again."""
    return [run for job in JOBS if (run := _failed(job, instance)) is not None]


def _others_failed(instance: dg.DagsterInstance) -> list[FailedRun]:
    """Without our own job, whose failure would ask for the next one each minute."""
    return [run for run in failed_runs(instance) if run.job != send_alerts_job.name]


def _failed(job: str, instance: dg.DagsterInstance) -> FailedRun | None:
    records = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=_ENDED), limit=1)
    if not records or records[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return None
    run = records[0].dagster_run
    # Dagster launches it again by itself; that run will tell.
    return None if run.tags.get("dagster/will_retry") == "true" else FailedRun(job, run.run_id, _ended(records[0]))


def _ended(record: "RunRecord") -> datetime:
    return record.update_timestamp if record.end_time is None else datetime.fromtimestamp(record.end_time, UTC)
