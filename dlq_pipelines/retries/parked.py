"""Which events died again so often that only a person may release them, and how does a person do it?"""

from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.operation import Act
from dlq_pipelines.outbox.event import Selector, not_negative, positive
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import BATCH
from dlq_pipelines.retries.ledger import means
from dlq_pipelines.retries.page import Retried
from dlq_pipelines.retries.retry import retry_selected

_EVERY = Selector(every=True)


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


def parked_events(  # noqa: PLR0913 - keyword-only past the connection
    connection: Connection,
    *,
    max_retries: int,
    selector: Selector = _EVERY,
    fix_id: int | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[ParkedEvent]:
    """Parked events in the order of their ids.

    Args:
        connection: to the outbox.
        max_retries: after so many retries an event is parked.
        selector: which of them.
        fix_id: only those that this fix retried or targets, whenever they died.
        after: only events with a larger id: the last one of the page before.
        limit: how many at most, 1 to 5,000.
    """
    rows = connection.run(
        "retry.parked",
        **means(connection, selector, before=connection.one("session.clock")["now"]),
        fix_id=fix_id,
        max_retries=positive("max_retries", max_retries),
        after=not_negative("after", after),
        limit=positive("limit", limit, most=BATCH),
    )
    return [ParkedEvent(**row) for row in rows]


def release_parked(  # noqa: PLR0913 - keyword-only past the selector
    connection: Connection,
    selector: Selector,
    *,
    max_retries: int,
    act: Act,
    rate: float,
    fix_id: int | None = None,
) -> Retried:
    """Retry parked events; what is dead and not parked is passed over.

    Args:
        connection: in autocommit mode.
        selector: which of them.
        max_retries: after so many retries an event is parked.
        act: who asks for it, and why.
        rate: events a second at which they fall due.
        fix_id: only those that this fix retried or targets.

    Raises:
        NotFoundError: no such cause.
    """
    done, after = Retried(0, 0), 0
    while page := parked_events(
        connection, max_retries=max_retries, selector=selector, fix_id=fix_id, after=after, limit=BATCH
    ):
        after = page[-1].event_id
        named = Selector(event_ids=tuple(event.event_id for event in page))
        done += retry_selected(connection, named, act=act, rate=rate, max_retries=None, already=done.events)
    return done
