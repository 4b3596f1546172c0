"""What has become of one event: when did it die, of what, who retried it, and where is it now?"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import DictRow

from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import Fix
from dlq_pipelines.retries.fixes import build_fix
from dlq_pipelines.text import RawJson
from dlq_pipelines.validate import validate_positive

# Of deaths and retries, the last: an event that has died more often is looked at for its last ones.
_SHOWN = 100


@dataclass(frozen=True)
class EventDeath:
    """One time that the event died.

    Attributes:
        attempts: the worker's tries before it.
        cause_id: as it is shown; None: not classified yet.
        discarded_at: when a person gave this death up; then `discarded_by` and `discard_reason` say who, and why.
    """

    id: int
    died_at: datetime
    attempts: int
    cause_id: str | None
    error: str | None
    discarded_at: datetime | None
    discarded_by: str | None
    discard_reason: str | None


@dataclass(frozen=True)
class EventRetry:
    """One time that it went back to the worker.

    Attributes:
        death_id: the death that it answers.
        fix_id: the fix that released it, in which `stage`; None: a person retried it.
        payload_before: what the event carried before a person replaced it; None: it was not replaced.
        outcome: delivered, died_again, timed_out or deleted; None: not known yet.
    """

    death_id: int
    fix_id: int | None
    stage: int | None
    actor: str
    reason: str
    retried_at: datetime
    due_at: datetime
    payload_before: Any
    outcome: str | None
    settled_at: datetime | None


@dataclass(frozen=True)
class EventHistory:
    """All that is known of an event that died.

    Attributes:
        place: where it is now: `outbox`, `archive`, `purged` (deleted from the archive by its retention), or `gone`.
        event: as it is there, its payload unread `Json` as `payload_before` is; None where it is no more.
        deaths: the last hundred, the last first.
        retries: the last hundred, the last first.
        fix: an open one that targets it, or the last one that released it.
    """

    event_id: int
    place: str
    event: OutboxEvent | None
    deaths: tuple[EventDeath, ...]
    retries: tuple[EventRetry, ...]
    fix: Fix | None


def get_event_history(connection: Connection, event_id: int) -> EventHistory:
    """What has become of the event, as of one moment.

    Args:
        connection: in autocommit mode.
        event_id: the event.

    Raises:
        NotFoundError: there is no such event, or it has never died.
    """
    asked = {"event_id": validate_positive("event_id", event_id), "limit": _SHOWN}
    with connection.transaction():
        connection.run("session.one_moment")
        place = connection.fetch_one("retry.place", event_id=event_id)["place"]
        deaths = tuple(EventDeath(**row) for row in connection.run("retry.deaths_of", **asked))
        retries = tuple(
            EventRetry(**_unread(row, "payload_before"))
            for row in connection.run("retry.retries_of", **asked)
        )
        row = connection.run("retry.event", event_id=event_id).fetchone()
        fix = connection.run("retry.fix_of", event_id=event_id).fetchone()
    if not deaths:
        there = (
            f"Event {event_id} has never died"
            if row
            else f"There is no event {event_id} that ever died"
        )
        raise NotFoundError(f"{there}. `dlq dead-events list` says what is dead.")
    event = OutboxEvent.from_row(_unread(row, "payload")) if row else None
    return EventHistory(event_id, place, event, deaths, retries, build_fix(fix) if fix else None)


def _unread(row: DictRow, column: str) -> DictRow:
    return row | {column: None if row[column] is None else RawJson(row[column])}
