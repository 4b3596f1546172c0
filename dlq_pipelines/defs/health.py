"""Which jobs have we, and where is written down that they and their checks went well?"""

import dagster as dg

from dlq_pipelines.alerts.figures import record_check, record_success
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.defs.resources import Session, utc_now

# The jobs whose failures are alerts.
JOBS = (
    "classify_deaths",
    "export_day",
    "build_report",
    "archive_dead_events",
    "purge_archive",
    "flag_fix",
    "retry_stage",
    "retry_dead_events",
    "send_alerts",
    "clean_up_runs",
)


@dg.success_hook(required_resource_keys={"outbox"})
def job_success(context: dg.HookContext) -> None:
    """Write down when the job last succeeded: the run itself does. Of a killed run Dagster tells that it failed."""
    with context.resources.outbox.session() as session:
        record_success(session.connection, context.job_name, at=utc_now())


def checked(
    session: Session, name: str, *, passed: bool, severity: Severity = Severity.CRITICAL, figures: dict[str, object]
) -> dg.AssetCheckResult:
    """A check's result, written down for metrics and alerts."""
    record_check(session.connection, name, passed=passed, severity=severity, figures=figures, now=session.now)
    shown = dg.AssetCheckSeverity.ERROR if severity is Severity.CRITICAL else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=passed, severity=shown, metadata=dict(figures))  # type: ignore[arg-type]  # values of ours are plain
