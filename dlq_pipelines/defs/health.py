"""Which jobs have we, and where is written down that they and their checks went well?"""

from typing import Any

import dagster as dg

from dlq_pipelines.alerts.figures import record_check_result
from dlq_pipelines.alerts.jobs import record_job_success
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.defs.resources import Session, get_utc_now

# The jobs whose failures are alerts, and the step of each that does its work.
JOBS = {
    "classify_deaths": "dead_event_causes",
    "export_day": "dead_event_export",
    "build_report": "failure_report",
    "archive_dead_events": "dead_event_archive",
    "purge_archive": "archive_purge",
    "flag_fix": "flag_fix_op",
    "retry_stage": "retry_stage_op",
    "retry_dead_events": "retry_dead_events_op",
    "send_alerts": "send_alerts_op",
    "clean_up_runs": "clean_up_runs_op",
}
# The assets with days and their jobs: of these each day succeeds and fails for itself.
DAILY = {JOBS[job]: job for job in ("export_day", "build_report")}


@dg.success_hook(required_resource_keys={"outbox"})
def record_success_hook(context: dg.HookContext) -> None:
    """Write down when the job last succeeded: the run itself does. Of a killed run Dagster tells that it failed.

    Dagster calls it after each step, and a check is a step too: what counts is the one that does the work.
    """
    if context.op.name == JOBS[context.job_name]:
        with context.resources.outbox.session() as session:
            record_job_success(session.connection, context.job_name, at=get_utc_now())


def report_check_result(
    session: Session,
    name: str,
    *,
    passed: bool,
    severity: Severity = Severity.CRITICAL,
    figures: dict[str, object],
) -> dg.AssetCheckResult:
    """A check's result, written down for metrics and alerts."""
    record_check_result(
        session.connection, name, passed=passed, severity=severity, figures=figures, now=session.now
    )
    shown = (
        dg.AssetCheckSeverity.ERROR if severity is Severity.CRITICAL else dg.AssetCheckSeverity.WARN
    )
    metadata: Any = dict(figures)
    return dg.AssetCheckResult(check_name=name, passed=passed, severity=shown, metadata=metadata)
