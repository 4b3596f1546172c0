"""Records who changed what, when and why: every mutation writes `dlq.audit` in its transaction."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.validate import validate_not_blank, validate_positive, validate_storable

T = TypeVar("T")
# A change of more events than this needs a confirmation.
CONFIRM_ABOVE = 1_000
# Characters of a reason, about one page: people read it in the audit log.
MAX_REASON_LENGTH = 10_000
# Characters of an actor: a person's name and the name of the token that the person used.
_MAX_ACTOR_LENGTH = 300


@dataclass(frozen=True)
class AuditContext:
    """Who makes a change, and why.

    Attributes:
        actor: a person, or the job that runs on schedule.
        reason: the reason that the audit log keeps.
        now: the time of the change. Nothing below the faces reads the clock.
        run_id: the Dagster run that makes the change; None outside Dagster.

    Raises:
        ValueError: actor or reason is blank, too long, or not storable; the message names it.
    """

    actor: str
    reason: str
    now: datetime
    run_id: str | None = None

    # Validated here and not in each face, so that all of them refuse the same input. A dry run
    # refuses it too.
    def __post_init__(self) -> None:
        for name, text, most in (
            ("actor", self.actor, _MAX_ACTOR_LENGTH),
            ("reason", self.reason, MAX_REASON_LENGTH),
        ):
            validate_storable(name, validate_not_blank(name, text), most=most)


@dataclass(frozen=True)
class RunOptions:
    """How a mutation runs.

    Attributes:
        dry_run: change nothing; return what a real run would return.
        limit: change at most this many events, the number that was confirmed; None: no limit.
        progress: called after each batch with the number of events done so far.
    """

    dry_run: bool = False
    limit: int | None = None
    progress: Callable[[int], None] = lambda _: None

    def remaining_in_batch(self, done: int, batch: int) -> int:
        """Return how many events the next batch may change after `done` events."""
        return batch if self.limit is None else min(batch, self.limit - done)


def record_audit_entry(
    connection: Connection,
    kind: str,
    filter_: Mapping[str, object],
    *,
    audit: AuditContext,
    events: int = 0,
) -> int:
    """Write one audit entry in the transaction of the change; return its id.

    Args:
        connection: in a transaction.
        kind: concept and verb, such as `archive.move`.
        filter_: what the change selected.
        audit: who makes the change, and why.
        events: the number of events changed.
    """
    row = connection.fetch_one(
        "audit.record",
        kind=kind,
        filter=json.dumps(filter_),
        events=events,
        now=audit.now,
        actor=audit.actor,
        reason=audit.reason,
        run_id=audit.run_id,
    )
    return int(row["id"])


def run_after_permission(
    change: Callable[[RunOptions], T],
    options: RunOptions,
    *,
    count: Callable[[T], int],
    permit: Callable[[int], None] | None,
) -> T:
    """Count the events of a change, ask for permission, then change at most that many events.

    Events that match only after the count stay unchanged. A dry run needs no permission.

    Args:
        change: makes the change, or counts it in a dry run.
        options: how the change runs.
        count: returns the number of events in a result.
        permit: raises RefusedError if that many events are not permitted; None permits any number.
    """
    if permit is not None and not options.dry_run:
        counted = change(replace(options, dry_run=True))
        if not count(counted):
            return counted
        permit(count(counted))
        options = replace(options, limit=count(counted))
    return change(options)


@dataclass(frozen=True)
class AuditEntry:
    """One entry of the audit log.

    Attributes:
        kind: concept and verb, such as `archive.move`.
        filter: what the change selected.
        events: the number of events changed.
        run_id: the Dagster run that made the change; None outside Dagster.
    """

    id: int
    kind: str
    actor: str
    reason: str
    filter: dict[str, Any]
    events: int
    at: datetime
    run_id: str | None


def list_audit_entries(
    connection: Connection,
    *,
    limit: int = 50,
    after: int | None = None,
    since: datetime | None = None,
) -> list[AuditEntry]:
    """Return audit entries, the latest first.

    Args:
        connection: to the ledger.
        limit: 1 to 1,000 entries.
        after: the id of the last entry of the previous page.
        since: only entries from this time on; None: all.
    """
    rows = connection.run(
        "audit.list",
        limit=validate_positive("limit", limit, most=1000),
        after=after and validate_positive("after", after),
        since=since,
    )
    return [AuditEntry(**row) for row in rows]
