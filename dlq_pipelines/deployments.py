"""Notes deployments of services, and finds the one that precedes the first death of a cause.

People and pipelines note them; nothing is guessed. A deployment precedes a cause if the first death
follows it within the hour, a rule that `dlq.deployment_before` has.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import format_count, sanitize_line
from dlq_pipelines.validate import (
    validate_aware,
    validate_not_blank,
    validate_positive,
    validate_storable,
)

# As `dlq.deployment_before`.
PRECEDING = timedelta(hours=1)
_MAX_NAME_LENGTH, _MAX_LINK_LENGTH = 200, 2_000


@dataclass(frozen=True)
class Deployment:
    """A deployment of a service.

    Attributes:
        service: what was deployed, such as `checkout`.
        version: such as `v42` or a commit.
        link: address of the change; None: it has none.
        deployed_at: when it was done.
        noted_by: person or database role that noted it.
    """

    id: int
    service: str
    version: str
    link: str | None
    deployed_at: datetime
    noted_by: str

    def __str__(self) -> str:
        return sanitize_line(f"{self.service} {self.version}", 200)

    def describe_delay(self, at: datetime) -> str:
        """Return how long after the deployment a time is: `6 minutes after checkout v42`."""
        seconds = int((at - self.deployed_at).total_seconds())
        minutes = seconds // 60
        delay = format_count(minutes, "minute") if minutes else format_count(seconds, "second")
        return f"{delay} after {self}"

    @classmethod
    def from_json(cls, row: Mapping[str, Any] | None) -> "Deployment | None":
        """Build a deployment from a row of `dlq.deployment` as JSON; None: there is no row."""
        if row is None:
            return None
        return cls(
            row["id"],
            row["service"],
            row["version"],
            row["link"],
            datetime.fromisoformat(row["deployed_at"]),
            row["noted_by"],
        )


def note_deployment(
    connection: Connection,
    service: str,
    version: str,
    *,
    link: str | None = None,
    deployed_at: datetime | None = None,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> Deployment:
    """Note a deployment. The same service, version and time are noted once; a new link is kept.

    Args:
        connection: in autocommit mode.
        service: what was deployed, at most 200 characters.
        version: of the service, at most 200 characters.
        link: address of the change, at most 2,000 characters.
        deployed_at: when it was done, not in the future. None: now, or when the same version of
            the service was noted within the last ten minutes: a pipeline may repeat a step.
        audit: who notes it, and why.
        options: how the change runs.

    Raises:
        ValueError: a text is blank, too long or not storable, or the time lies in the future.
    """
    for name, text, most in (
        ("service", service, _MAX_NAME_LENGTH),
        ("version", version, _MAX_NAME_LENGTH),
        ("link", link, _MAX_LINK_LENGTH),
    ):
        if text is not None:
            validate_storable(name, validate_not_blank(name, text), most=most)
    given = {
        "service": service.strip(),
        "version": version.strip(),
        "link": link,
        "deployed_at": validate_aware("deployed_at", deployed_at),
        "noted_by": audit.actor,
    }
    with connection.transaction(force_rollback=options.dry_run):
        try:
            row = connection.fetch_one(
                "deployment.place",
                deployment=json.dumps(given, default=str),
                reason=audit.reason,
                run_id=audit.run_id,
            )
        except psycopg.errors.InvalidParameterValue as error:
            raise ValueError(
                f"{error.diag.message_primary} {error.diag.message_hint or ''}".strip()
            ) from None
        return get_deployment(connection, row["id"])


def get_deployment(connection: Connection, deployment_id: int) -> Deployment:
    """Return the deployment of that id.

    Raises:
        NotFoundError: it does not exist.
    """
    row = connection.run(
        "deployment.get", id=validate_positive("deployment", deployment_id)
    ).fetchone()
    if row is None:
        raise NotFoundError(
            f"There is no deployment {deployment_id}.",
            "`dlq deployments list` lists the deployments.",
        )
    return Deployment(**row)


def list_deployments(
    connection: Connection,
    *,
    service: str | None = None,
    limit: int = 50,
    after: int | None = None,
) -> list[Deployment]:
    """Return deployments, the one that was noted last first.

    Args:
        connection: to the ledger.
        service: only those of this service.
        limit: 1 to 1,000 deployments.
        after: the id of the last deployment of the previous page.
    """
    rows = connection.run(
        "deployment.list",
        service=service and validate_storable("service", service, most=_MAX_NAME_LENGTH),
        limit=validate_positive("limit", limit, most=1000),
        after=after and validate_positive("after", after),
    )
    return [Deployment(**row) for row in rows]


def list_preceding_deployments(
    connection: Connection, at: datetime, *, limit: int = 5
) -> list[Deployment]:
    """Return the deployments of the hour before a time, the latest first."""
    rows = connection.run("deployment.between", since=at - PRECEDING, until=at, limit=limit)
    return [Deployment(**row) for row in rows]
