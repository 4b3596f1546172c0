"""Serves `/api/deployments`: notes and lists deployments of services."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from dlq_pipelines.api.auth import Reader, Retrier
from dlq_pipelines.api.filters import Body, DryRun, Limit, Reason
from dlq_pipelines.api.session import ApiSettings, Outbox
from dlq_pipelines.audit import RunOptions
from dlq_pipelines.day import parse_time
from dlq_pipelines.deployments import Deployment, list_deployments, note_deployment
from dlq_pipelines.validate import BIGINT_MAX

router = APIRouter(prefix="/api/deployments", tags=["deployments"])


class NoteDeploymentBody(Body):
    """What was deployed, and when."""

    service: str = Field(min_length=1, max_length=200, description="What was deployed.")
    version: str = Field(min_length=1, max_length=200, description="Its version or commit.")
    link: str | None = Field(default=None, max_length=2_000, description="URL of the change.")
    deployed_at: str | None = Field(
        default=None, max_length=100, description="When it was done: an ISO time; default: now."
    )
    reason: Reason = "deployed"
    dry_run: DryRun = False


@dataclass(frozen=True)
class DeploymentList:
    """Deployments, the one that was noted last first; `next` is the `after` of the next page, null
    on the last.
    """

    deployments: list[Deployment]
    count: int
    limit: int
    next: int | None


@router.get("")
def get_deployments(
    _: Reader,
    outbox: Outbox,
    service: Annotated[
        str | None, Query(min_length=1, max_length=200, description="Only those of this service.")
    ] = None,
    limit: Limit = 50,
    after: Annotated[
        int | None, Query(ge=1, le=BIGINT_MAX, description="`next` of the previous page.")
    ] = None,
) -> DeploymentList:
    """List deployments, the one that was noted last first."""
    found = list_deployments(outbox, service=service, limit=limit, after=after)
    return DeploymentList(found, len(found), limit, found[-1].id if len(found) == limit else None)


@router.post("")
def post_deployment(
    caller: Retrier, body: NoteDeploymentBody, outbox: Outbox, settings: ApiSettings
) -> Deployment:
    """Note a deployment. The same service, version and time are noted once."""
    at = body.deployed_at
    return note_deployment(
        outbox,
        body.service,
        body.version,
        link=body.link,
        deployed_at=None if at is None else parse_time("deployed_at", at, settings.zone),
        audit=caller.sign(body.reason),
        options=RunOptions(dry_run=body.dry_run),
    )
