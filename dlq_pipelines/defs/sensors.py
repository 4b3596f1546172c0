"""Decides for a sensor whether its tick requests the one run that does all waiting work."""

from datetime import datetime

import dagster as dg

from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.session import is_run_in_progress


def request_run(
    context: dg.SensorEvaluationContext,
    outbox: Outbox,
    job: str,
    *,
    now: datetime,
    has_work: bool,
    idle: str,
) -> dg.RunRequest | dg.SkipReason:
    """Return the request of a run, or why the tick requests none.

    Args:
        context: of the tick.
        outbox: of the job.
        job: the name of the job without a prefix. At most one run of it is in progress.
        now: the time of the tick.
        has_work: whether work waits.
        idle: says that no work waits, in a sentence.
    """
    if not has_work:
        return dg.SkipReason(idle)
    name = outbox.build_name(job)
    if is_run_in_progress(context, job=name, outbox=outbox.name):
        return dg.SkipReason(f"A run of {name} is in progress.")
    # A run key is used once, even if its run fails. The time makes it new at each tick.
    return dg.RunRequest(run_key=f"{job} {now:%Y-%m-%dT%H:%M:%S}", tags=outbox.tags)
