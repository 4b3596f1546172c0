"""Serves `/api/audit`: who changed what, when and why."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from dlq_pipelines.api.auth import Reader
from dlq_pipelines.api.filters import Limit
from dlq_pipelines.api.session import ApiSettings, Outbox
from dlq_pipelines.audit import AuditEntry, list_audit_entries
from dlq_pipelines.day import parse_past_time
from dlq_pipelines.validate import BIGINT_MAX

router = APIRouter(prefix="/api/audit", tags=["audit"])


@dataclass(frozen=True)
class AuditPage:
    """Audit entries, the latest first; `next` is the `after` of the next page, null on the last."""

    entries: list[AuditEntry]
    count: int
    limit: int
    next: int | None


@router.get("")
def get_audit_entries(
    _: Reader,
    outbox: Outbox,
    settings: ApiSettings,
    since: Annotated[
        str | None,
        Query(max_length=100, description="From this time on: 2h, today or an ISO time."),
    ] = None,
    limit: Limit = 50,
    after: Annotated[
        int | None, Query(ge=1, le=BIGINT_MAX, description="`next` of the previous page.")
    ] = None,
) -> AuditPage:
    """List the audit log: what was changed, by whom, when and why; the latest first."""
    at = since and parse_past_time("since", since, settings.zone, now=datetime.now(UTC))
    entries = list_audit_entries(outbox, limit=limit, after=after, since=at or None)
    return AuditPage(
        entries, len(entries), limit, entries[-1].id if len(entries) == limit else None
    )
