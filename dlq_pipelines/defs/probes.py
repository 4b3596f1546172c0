"""Probes transient causes: releases single events, and flags a fix once one is delivered."""

from collections.abc import Iterator

import dagster as dg

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.sensors import request_run
from dlq_pipelines.defs.tables import build_table
from dlq_pipelines.installation import build_probe_policy
from dlq_pipelines.retries.probes import ACTOR, list_due_probes, run_probes


def define_probes(outbox: Outbox) -> dg.Definitions:
    """Define the job of probes and its sensor."""
    probe_causes = _define_probe_causes(outbox)
    return dg.Definitions(jobs=[probe_causes], sensors=[_define_sensor(outbox, probe_causes)])


def _define_probe_causes(outbox: Outbox) -> dg.JobDefinition:
    @dg.op(name=outbox.build_name("probe_causes_op"), pool=outbox.pool)
    def probe_causes_op(context: dg.OpExecutionContext) -> None:
        """Take the due step of each probed cause."""
        with outbox.session() as session:
            done = run_probes(
                session.connection,
                policy=build_probe_policy(session.settings),
                zone=session.settings.zone,
                audit=AuditContext(ACTOR, "a step is due", session.now, context.run_id),
            )
            session.record_success("probe_causes")
        context.log.info(
            f"Released {len(done.released)} events, flagged {len(done.fixes)} fixes; "
            f"{len(done.healed)} causes healed, {len(done.failed)} still fail."
        )
        context.add_output_metadata(
            {
                "released": build_table(("cause", "event"), list(done.released.items())),
                "fixes": ", ".join(map(str, done.fixes)) or "none",
                "healed": ", ".join(done.healed) or "none",
                "failed": ", ".join(done.failed) or "none",
                "skipped": ", ".join(done.skipped) or "none",
            }
        )

    @dg.job(name=outbox.build_name("probe_causes"), owners=outbox.owners or None, tags=outbox.tags)
    @outbox.fill_in
    def probe_causes_job() -> None:
        """Releases **single events** of transient causes, and flags a fix once one is delivered.

        A transient cause, such as a time-out, passes without a change of code or data. Off unless
        `DLQ_PROBES` is set, or a person switched a cause on with `dlq causes probe`.

        - **When:** 5, 10, 20 ... minutes after the last death or probe of a cause, at most 6 hours,
          by `{probe_sensor}`; at most `DLQ_PROBES_PER_DAY` events a day.
        - **Changes:** releases an event with a row in `{schema}.retry`; judges its outcome in
          `{schema}.probe`; flags a fix by `probe`. Each has an audit entry.
        - **Rerun:** at any time, even twice at once: a cause has one probe at a time.
        """
        probe_causes_op()

    return probe_causes_job


def _define_sensor(outbox: Outbox, probe_causes_job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=outbox.build_name("probe_sensor"),
        job=probe_causes_job,
        minimum_interval_seconds=60,
        default_status=outbox.sensor_status,
        owners=outbox.owners,
        description=describe_automation(
            outbox,
            "Requests a run of {probe_causes} when the probe of a cause has a due step.",
            when="Every minute; without a due step no run starts.",
            changes="Nothing: the sensor reads, and the run that it requests writes.",
            rerun="The next tick reads the database again, so a missed tick loses no probe.",
        ),
    )
    def probe_sensor(
        context: dg.SensorEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Request a run when a step is due and no run is in progress."""
        with outbox.session() as session:
            now = session.now
            due = list_due_probes(
                session.connection,
                policy=build_probe_policy(session.settings),
                zone=session.settings.zone,
                now=now,
            )
        yield request_run(
            context,
            outbox,
            "probe_causes",
            now=now,
            has_work=bool(due),
            idle="No step of a probe is due.",
        )

    return probe_sensor
