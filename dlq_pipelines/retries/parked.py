"""Which events died again so often that only a person may release them, and how does a person do it?"""

from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import RetryResult
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.retry import retry_selected
from dlq_pipelines.validate import validate_not_negative, validate_positive

_EVERY = Selection(all=True)


@dataclass(frozen=True)
class ParkedEvent:
    """A dead event that no fix and no filter releases any more.

    Attributes:
        cause_id: of its last death, as it is shown; None: not classified yet.
        retries: how often it was retried.
        died_at: its last death.
    """

    event_id: int
    event_type: str
    aggregate_type: str
    aggregate_id: str
    cause_id: str | None
    retries: int
    died_at: datetime


def list_parked_events(
    connection: Connection,
    *,
    max_retries: int,
    selection: Selection = _EVERY,
    fix_id: int | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[ParkedEvent]:
    """Parked events in the order of their ids.

    Args:
        connection: to the outbox.
        max_retries: after so many retries an event is parked.
        selection: which of them.
        fix_id: only those that this fix retried or targets, whenever they died.
        after: only events with a larger id: the last one of the page before.
        limit: how many at most, 1 to 5,000.
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
    """Retry parked events; what is dead and not parked is passed over.

    Args:
        connection: in autocommit mode.
        selection: which of them.
        max_retries: after so many retries an event is parked.
        audit: who makes the change, and why.
        options: how the change runs.
        rate: events a second at which they fall due.
        fix_id: only those that this fix retried or targets.

    Raises:
        NotFoundError: no such cause.
    """
    done, after = RetryResult(0, 0), 0
    while page := list_parked_events(
        connection,
        max_retries=max_retries,
        selection=selection,
        fix_id=fix_id,
        after=after,
        limit=BATCH,
    ):
        after = page[-1].event_id
        named = Selection(event_ids=tuple(event.event_id for event in page))
        done += retry_selected(
            connection,
            named,
            audit=audit,
            options=options,
            rate=rate,
            max_retries=None,
            already=done.events,
        )
    return done
