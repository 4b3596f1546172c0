"""Defines the event: one row of the outbox."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from dlq_pipelines.validate import EventId

if TYPE_CHECKING:  # the command line reads filters before it needs a database
    from psycopg.rows import DictRow


@dataclass(frozen=True)
class OutboxEvent:
    """One row of the outbox table.

    Attributes:
        payload: the payload; its JSON text if it has too many levels or digits to be parsed.
        status: pending, retry, done or dead.
        attempts: attempts since the event was written or last retried from dead.
        next_run_at: when a worker may take the event next.
        last_error: text of the last failed attempt, normally a traceback; None before the first
            failure.
        dead_at: when the event died; None unless it is dead.
    """

    id: EventId
    aggregate_type: str
    aggregate_id: str
    event_type: str
    payload: Any
    status: str
    attempts: int
    next_run_at: datetime
    created_at: datetime
    last_error: str | None = None
    last_error_at: datetime | None = None
    dead_at: datetime | None = None

    @classmethod
    def from_row(cls, row: "DictRow") -> Self:
        """Build from a row that has these columns."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})
