"""Records successful jobs and the results of checks, for metrics and alerts."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dlq_pipelines.alerts.figures import record_check_result
from dlq_pipelines.alerts.jobs import record_job_success
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.defs.collect import list_check_steps
from dlq_pipelines.defs.resources import Session, get_utc_now


@dg.success_hook(required_resource_keys={"outbox"})
def record_success_hook(context: dg.HookContext) -> None:
    """Record when the job last succeeded; a killed run's failure is read from Dagster.

    Dagster calls the hook after each step, and a check is a step too. Only the step that does the
    job's work counts.
    """
    if context.op.name not in list_check_steps():
        with context.resources.outbox.session() as session:
            record_job_success(session.connection, context.job_name, at=get_utc_now())


def report_check_result(
    session: Session,
    name: str,
    *,
    passed: bool,
    severity: Severity = Severity.CRITICAL,
    figures: Mapping[str, object],
) -> dg.AssetCheckResult:
    """Record a check's result for metrics and alerts, and return it as Dagster shows it."""
    record_check_result(
        session.connection,
        name,
        passed=passed,
        severity=severity,
        figures=dict(figures),
        now=session.now,
    )
    shown = (
        dg.AssetCheckSeverity.ERROR if severity is Severity.CRITICAL else dg.AssetCheckSeverity.WARN
    )
    metadata: Any = dict(figures)  # Dagster refuses what it cannot show
    return dg.AssetCheckResult(check_name=name, passed=passed, severity=shown, metadata=metadata)
