"""Checks arguments: numbers, ids, texts and times that PostgreSQL can store."""

from collections.abc import Sequence
from datetime import datetime

BIGINT_MAX = 2**63 - 1
INTEGER_MAX = 2**31 - 1
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


def validate_event_ids(name: str, values: Sequence[int]) -> list[int]:
    """Return the distinct ids in ascending order, which is the order in which rows are locked.

    Raises:
        ValueError: there are no ids, or one is not an event id; the message names the argument.
    """
    ids = sorted({validate_positive(name, value) for value in values})
    if not ids:
        raise ValueError(f"{name} must hold at least one event id")
    return ids


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
