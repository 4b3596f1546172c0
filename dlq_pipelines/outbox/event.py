"""What is an outbox event, which of them are meant, and which ids, limits and texts are acceptable?"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from dlq_pipelines.day import written

if TYPE_CHECKING:  # the command line reads filters before it needs a database
    from psycopg.rows import DictRow

BIGINT_MAX = 2**63 - 1
_INTEGER_MAX = 2**31 - 1


@dataclass(frozen=True)
class OutboxEvent:
    """One row of the outbox table.

    Attributes:
        payload: what the application wrote; its JSON text where Python cannot read it.
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
    def from_row(cls, row: "DictRow") -> Self:
        """Build from a row that has these columns."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Selector:
    """Which dead events are meant: those that all of its fields say together; a field that is None says nothing.

    Attributes:
        cause_id: of this cause, or of one that is merged into it.
        event_type: of this type.
        aggregate_type: of this type of aggregate.
        event_ids: these events, at most 10,000.
        attempts: that died after exactly so many attempts of the worker.
        error_contains: whose error has this text in it, letter by letter, at most 1,000 characters.
        died_since: that died at this moment or later.
        died_until: that died before this moment.
        every: all of them. Said aloud, because no filter may also be a filter that somebody forgot.

    Raises:
        ValueError: nothing is asked for, or everything beside something; a text is blank or too long; a moment has no
            time zone; the times are the wrong way round.
    """

    cause_id: str | None = None
    event_type: str | None = None
    aggregate_type: str | None = None
    event_ids: tuple[int, ...] | None = None
    attempts: int | None = None
    error_contains: str | None = None
    died_since: datetime | None = None
    died_until: datetime | None = None
    every: bool = False

    def __post_init__(self) -> None:
        said = any(getattr(self, field.name) is not None for field in fields(self) if field.name != "every")
        if self.every == said:
            raise ValueError(
                "every dead event and a filter were both asked for: leave one of them out"
                if said
                else "no filter was given: name a cause, a type, ids, a text or times, or say that all are meant"
            )
        for name in ("cause_id", "event_type", "aggregate_type", "error_contains"):
            if (text := getattr(self, name)) is not None:
                asked = name.removesuffix("_id")  # as people call it
                storable(asked, required(asked, text), most=_LONGEST_FILTER)
        if self.event_ids is not None and len(event_ids("event_ids", self.event_ids)) > _MOST_IDS:
            raise ValueError(f"event_ids must hold at most {_MOST_IDS} ids")
        if self.attempts is not None:
            not_negative("attempts", self.attempts, most=_INTEGER_MAX)
        since, until = aware("died_since", self.died_since), aware("died_until", self.died_until)
        if since is not None and until is not None and since >= until:
            raise ValueError("since must be before until")

    def __str__(self) -> str:
        """In words. The texts in it are as they were given."""
        said = [
            f"{words} {_in_words(value)}"
            for name, words in _WORDS.items()
            if (value := getattr(self, name)) is not None
        ]
        return "all dead events" if self.every else ", ".join(said)

    def as_json(self) -> dict[str, Any]:
        """What it asks for, as JSON holds it."""
        asked = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asked.items()}


_LONGEST_FILTER = 1_000
_NAMED_IDS = 10
_WORDS = {
    "cause_id": "cause",
    "event_type": "event type",
    "aggregate_type": "aggregate type",
    "event_ids": "events",
    "attempts": "attempts",
    "error_contains": "error with",
    "died_since": "dead since",
    "died_until": "dead before",
}


def _in_words(value: str | int | datetime | tuple[int, ...]) -> str:
    if isinstance(value, datetime):
        return written(value)
    if isinstance(value, tuple):
        more = len(value) - _NAMED_IDS
        return ", ".join(map(str, value[:_NAMED_IDS])) + (f" and {more:,} more" if more > 0 else "")
    return str(value)


_MOST_IDS = 10_000


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


def storable(name: str, text: str, *, most: int) -> str:
    """Return the text if PostgreSQL can hold it and it has at most that many characters.

    Raises:
        ValueError: it is longer, or holds a NUL or half a surrogate pair; the message names the argument.
    """
    if len(text) > most:
        raise ValueError(f"{name} has {len(text)} characters, at most {most} are kept")
    if not is_storable(text):
        raise ValueError(f"{name} {UNSTORABLE}")
    return text


UNSTORABLE = "holds NUL, or half of a character, which cannot be stored"


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
