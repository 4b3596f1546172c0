"""Checks arguments: numbers, ids, texts and times that PostgreSQL can store."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isnan
from typing import Any
from urllib.parse import urlsplit

BIGINT_MAX = 2**63 - 1
INTEGER_MAX = 2**31 - 1
# The key of an event: a number, or a uuid or a text as text.
EventId = int | str
# Far more than fits into an index of PostgreSQL.
_MAX_ID_LENGTH = 10_000
NOT_STORABLE = "is not valid UTF-8 or contains NUL"
_MAX_SHOWN = 60
# What a value is not, by the type of pydantic's error.
_EXPECTED = {
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of this size",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "dict_type": "an object",
    "greater_than": "more than {gt:,}",
    "less_than": "less than {lt:,}",
    "greater_than_equal": "at least {ge:,}",
    "less_than_equal": "at most {le:,}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}
# What is wrong with an argument, by the type of pydantic's error.
_WRONG = {
    "missing": "is required",
    "extra_forbidden": "is unknown",
    "string_too_long": "has more than {max_length:,} characters",
    "string_too_short": "has fewer characters than {min_length:,}",
    "too_long": "has more than {max_length:,} items",
    "too_short": "has fewer items than {min_length:,}",
}


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


def parse_host_name(host: str) -> str:
    """Return the name in a Host header in lower case, without port and brackets; else empty."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


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


def describe_invalid_value(name: str, error: Mapping[str, Any]) -> str:
    """Return an error of pydantic as a sentence: the argument, its value, and what is expected.

    Args:
        name: of the argument, as the caller knows it.
        error: one of `errors()`. The value is shown if the error has an `input`.
    """
    kind, value = error["type"], error.get("input")
    context = {
        key: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for key, bound in error.get("ctx", {}).items()
    }
    if isinstance(value, float) and isnan(value):
        return f"{name}: NaN is not a number."
    if kind in _EXPECTED:
        return f"{name}: {_format_value(error)} is not {_EXPECTED[kind].format(**context)}."
    if kind in _WRONG:
        empty = context.get("min_length") == 1
        return f"{name} {'must not be empty' if empty else _WRONG[kind].format(**context)}."
    return f"{name}: {error['msg'].removeprefix('Value error, ').rstrip('.')}."


def _format_value(error: Mapping[str, Any]) -> str:
    match error.get("input", ...):
        case str(text):
            return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
        case bool(flag):
            return str(flag).lower()
        case int(number) | float(number):
            return str(number)[:_MAX_SHOWN]
        case None:
            return "null"
        case _:
            return "the value"


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store the text."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
