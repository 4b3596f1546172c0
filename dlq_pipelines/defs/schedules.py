"""Defines the schedule of a job, at the outbox's hours and in its time zone."""

from typing import Any

import dagster as dg

from dlq_pipelines.defs.outbox import Outbox


def define_schedule(
    outbox: Outbox, name: str, *, job: Any, run_config: dg.RunConfig | None, description: str
) -> list[dg.ScheduleDefinition]:
    """Return the schedule in a list, which is empty if the outbox has no cron for it."""
    if name not in outbox.crons:
        return []
    return [
        dg.ScheduleDefinition(
            name=outbox.build_name(name),
            job=job,
            run_config=run_config,
            cron_schedule=outbox.crons[name],
            execution_timezone=outbox.settings.timezone,
            default_status=outbox.schedule_status,
            owners=outbox.owners,
            description=description,
        )
    ]
