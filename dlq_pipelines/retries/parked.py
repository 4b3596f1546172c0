"""Lists and releases parked events: dead events that only a person may release."""

from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import RetryResult
from dlq_pipelines.outbox.offers import require_offer
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.retry import retry_selected
from dlq_pipelines.validate import EventId, validate_not_negative, validate_positive

_ALL = Selection(all=True)


@dataclass(frozen=True)
class ParkedEvent:
    """A dead event that died again after the maximum of retries.

    Attributes:
        death_id: its last death, which is the cursor of the next page.
        cause_id: the cause that its last death is shown as; None: not classified yet.
        detail: what its last error names; empty if it names nothing.
        retries: how often it was retried.
        died_at: the time of its last death.
    """

    death_id: int
    event_id: EventId
    event_type: str
    aggregate_type: str
    aggregate_id: str
    cause_id: str | None
    detail: str | None
    retries: int
    died_at: datetime


def list_parked_events(
    connection: Connection,
    *,
    max_retries: int,
    selection: Selection = _ALL,
    fix_id: int | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[ParkedEvent]:
    """Return parked events in the order of their ids.

    Args:
        connection: to the outbox.
        max_retries: retries after which an event is parked.
        selection: return only selected events.
        fix_id: return only events that this fix retried or targets, whenever they died.
        after: the death of the last event of the previous page.
        limit: 1 to 5,000 events.
    """
    rows = connection.run(
        "retry.parked",
        **build_selection_parameters(
            connection, selection, before=connection.fetch_one("session.clock")["now"]
        ),
        fix_id=fix_id,
        max_retries=validate_positive("max_retries", max_retries),
        after=validate_not_negative("after", after),
        limit=validate_positive("limit", limit, most=BATCH),
    )
    return [ParkedEvent(**row) for row in rows]


def release_parked(
    connection: Connection,
    selection: Selection,
    *,
    max_retries: int,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    rate: float,
    fix_id: int | None = None,
) -> RetryResult:
    """Retry parked events. Dead events that are not parked are skipped.

    Args:
        connection: in autocommit mode.
        selection: retry only selected events.
        max_retries: retries after which an event is parked.
        audit: who makes the change, and why.
        options: how the change runs.
        rate: events a second at which they fall due.
        fix_id: retry only events that this fix retried or targets.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the mapping of the outbox offers no retries.
    """
    require_offer(connection, "retries")
    result, after = RetryResult(0, 0), 0
    while page := list_parked_events(
        connection,
        max_retries=max_retries,
        selection=selection,
        fix_id=fix_id,
        after=after,
        limit=BATCH,
    ):
        after = page[-1].death_id
        result += retry_selected(
            connection,
            Selection(event_ids=tuple(event.event_id for event in page)),
            audit=audit,
            options=options,
            rate=rate,
            max_retries=None,
            already=result.events,
        )
    return result
