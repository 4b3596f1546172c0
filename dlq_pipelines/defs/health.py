"""Records the results of checks, for metrics and alerts."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dlq_pipelines.alerts.figures import record_check_result
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.defs.session import Session


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
