"""Keeps a sample of delivered payloads, to compare dead events with."""

from datetime import UTC

import dagster as dg

from dlq_pipelines.causes.explain import sample_delivered_events
from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.schedules import define_schedule
from dlq_pipelines.installation import build_redact_payload


def define_samples(outbox: Outbox) -> dg.Definitions:
    """Define the job of the sample and its schedule, unless DLQ_SAMPLE_DELIVERED is off."""
    if not outbox.settings.sample_delivered:
        return dg.Definitions()
    sample_job = _define_job(outbox)
    schedules = define_schedule(
        outbox,
        "sample_daily",
        job=sample_job,
        run_config=None,
        description=describe_automation(
            outbox,
            "Starts {sample_delivered_events}, so that dead events can be compared with delivered "
            "ones that the application deletes.",
            when="{sample_daily_at} in DLQ_TIMEZONE.",
            changes="At most 200 payloads of each event type, kept for thirty days.",
            rerun="Not needed after a missed tick: the next one goes on.",
        ),
    )
    return dg.Definitions(jobs=[sample_job], schedules=schedules)


def _define_job(outbox: Outbox) -> dg.JobDefinition:
    @dg.op(name=outbox.build_name("sample_delivered_events_op"), pool=outbox.pool)
    def sample_delivered_events_op(context: dg.OpExecutionContext) -> None:
        """Add payloads to the sample, and delete those past the retention."""
        with outbox.session() as session:
            kept = sample_delivered_events(
                session.connection,
                now=session.now.astimezone(UTC),
                redact_payload=build_redact_payload(session.settings),
            )
            session.record_success("sample_delivered_events")
        context.log.info(f"Added {kept:,} payloads to the sample.")
        context.add_output_metadata({"added": kept})

    @dg.job(
        name=outbox.build_name("sample_delivered_events"),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )
    @outbox.fill_in
    def sample_delivered_events_job() -> None:
        """Keeps a **sample** of payloads of event types whose delivered events are deleted.

        What sets dead events apart is seen by a comparison with delivered ones. Of a type with 200
        delivered events among the last 50,000 rows no sample is needed, and none is kept.

        - **When:** {sample_daily_by}, unless `DLQ_SAMPLE_DELIVERED` is false.
        - **Changes:** `{schema}.delivered_sample`: at most 200 payloads of a type, without what
          `DLQ_EXPORT_REDACT_PAYLOAD` hides, for thirty days.
        - **Rerun:** at any time: an event is kept once.
        """
        sample_delivered_events_op()

    return sample_delivered_events_job
