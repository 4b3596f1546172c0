"""`/api/operations`: who changed what, why and when?"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from dlq_pipelines.api.auth import Reader
from dlq_pipelines.api.filters import Limit
from dlq_pipelines.api.session import Outbox
from dlq_pipelines.operation import Operation, list_operations
from dlq_pipelines.outbox.event import BIGINT_MAX

router = APIRouter(prefix="/api/operations", tags=["operations"])


@dataclass(frozen=True)
class OperationPage:
    """Audit rows, the last first; `next` is the `before` of the next page, null on the last."""

    operations: list[Operation]
    count: int
    limit: int
    next: int | None


@router.get("")
def list_(
    _: Reader,
    outbox: Outbox,
    limit: Limit = 50,
    before: Annotated[int | None, Query(ge=1, le=BIGINT_MAX, description="Only those with a smaller number.")] = None,
) -> OperationPage:
    """What was done, by whom and why, the last first."""
    found = list_operations(outbox, limit=limit, before=before)
    return OperationPage(found, len(found), limit, found[-1].id if len(found) == limit else None)
