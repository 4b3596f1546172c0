"""Checks arguments: numbers, ids, texts and times that PostgreSQL can store."""

from collections.abc import Sequence
from datetime import datetime

BIGINT_MAX = 2**63 - 1
INTEGER_MAX = 2**31 - 1
# The key of an event: a number, or a uuid or a text as text.
EventId = int | str
# Far more than fits into an index of PostgreSQL.
_MAX_ID_LENGTH = 10_000
NOT_STORABLE = "contains NUL or half of a surrogate pair, which PostgreSQL cannot store"


def validate_positive(name: str, value: int, *, most: int = BIGINT_MAX) -> int:
    """Return the value if it is a whole number from 1 to `most`.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    return _validate_whole_number(name, value, least=1, most=most)


def validate_not_negative(name: str, value: int, *, most: int = BIGINT_MAX) -> int:
    """Return the value if it is a whole number from 0 to `most`.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    return _validate_whole_number(name, value, least=0, most=most)


def _validate_whole_number(name: str, value: int, *, least: int, most: int) -> int:
    # bool is a subclass of int, but True is not an id or a limit.
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return value


def parse_event_id(text: str) -> EventId:
    """Return the id that a text stands for: a number if it is written as one, else the text."""
    is_number = text.removeprefix("-").isdecimal() and text.isascii() and str(int(text)) == text
    return int(text) if is_number and abs(int(text)) <= BIGINT_MAX else text


def validate_event_id(name: str, value: EventId) -> EventId:
    """Return the id if it is a number, or a text that PostgreSQL can store.

    PostgreSQL finds out whether it is an id of this outbox, whose key has one type.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    if isinstance(value, str):
        return validate_storable(name, validate_not_blank(name, value), most=_MAX_ID_LENGTH)
    return _validate_whole_number(name, value, least=-BIGINT_MAX - 1, most=BIGINT_MAX)


def validate_event_ids(name: str, values: Sequence[EventId]) -> list[EventId]:
    """Return the distinct ids in a fixed order.

    Raises:
        ValueError: there are no ids, or one is not an event id; the message names the argument.
    """
    ids = {validate_event_id(name, value) for value in values}
    if not ids:
        raise ValueError(f"{name} must hold at least one event id")
    return sorted(ids, key=lambda id_: (isinstance(id_, str), id_))


def validate_not_blank(name: str, text: str) -> str:
    """Return the text if it is not blank.

    Raises:
        ValueError: the text is blank; the message names the argument.
    """
    if not text.strip():
        raise ValueError(f"{name} must not be empty")
    return text


def validate_aware(name: str, value: datetime | None) -> datetime | None:
    """Return the time if it has a time zone.

    Raises:
        ValueError: it has none; the message names the argument.
    """
    if value is not None and value.tzinfo is None:
        raise ValueError(
            f"{name} must have a time zone, such as datetime(2026, 1, 31, tzinfo=timezone.utc)"
        )
    return value


def validate_storable(name: str, text: str, *, most: int) -> str:
    """Return the text if PostgreSQL can store it and it has at most `most` characters.

    Raises:
        ValueError: the text is longer or not storable; the message names the argument.
    """
    if len(text) > most:
        raise ValueError(f"{name} has {len(text)} characters; the maximum is {most}")
    if not is_storable(text):
        raise ValueError(f"{name} {NOT_STORABLE}")
    return text


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store the text."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
