"""What is an outbox event, and which ids, limits and filters are acceptable?"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

from psycopg.rows import DictRow

BIGINT_MAX = 2**63 - 1


@dataclass(frozen=True)
class OutboxEvent:
    """One row of the outbox table.

    Attributes:
        status: pending, retry, done or dead.
        attempts: failed and successful tries since the event was written or last retried by an operator.
        next_run_at: when a worker may take it next.
        last_error: text of the last failed attempt, normally a traceback; None before the first failure.
        dead_at: when it died; None unless it is dead.
    """

    id: int
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
    def from_row(cls, row: DictRow) -> Self:
        """Build from a row that has these columns."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})


def positive(name: str, value: int, *, most: int = BIGINT_MAX) -> int:
    """Return the value if it is a whole number from 1 to `most`.

    Raises:
        ValueError: the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}, not {value!r}")
    return value


def not_negative(name: str, value: int, *, most: int = BIGINT_MAX) -> int:
    """Return the value if it is a whole number from 0 to `most`.

    Raises:
        ValueError: the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 0 to {most}, not {value!r}")
    return value


def event_ids(name: str, values: Sequence[int]) -> list[int]:
    """The ids, each once, in ascending order: the order in which rows are locked.

    Raises:
        ValueError: there is none, or one is no event id; the message names the argument.
    """
    ids = sorted({positive(name, value) for value in values})
    if not ids:
        raise ValueError(f"{name} must hold at least one event id")
    return ids


def required(name: str, text: str) -> str:
    """Return the text if it says something.

    Raises:
        ValueError: it is blank; the message names the argument.
    """
    if not text.strip():
        raise ValueError(f"{name} must not be empty")
    return text


def aware(name: str, value: datetime | None) -> datetime | None:
    """Return the moment if it says its time zone.

    Raises:
        ValueError: it does not; the message names the argument.
    """
    if value is not None and value.tzinfo is None:
        raise ValueError(f"{name} must have a time zone, such as datetime(2026, 1, 31, tzinfo=timezone.utc)")
    return value
