"""Encodes and decodes the cursors of keyset pagination.

A cursor holds the sort key of the last row of a page, as an opaque text. The cost of a page does
not grow with the rows before it. A row that keeps its place is listed once, even if other rows are
added or removed between two pages.
"""

import base64
import json

from dlq_pipelines.validate import BIGINT_MAX

INVALID_CURSOR = "Invalid cursor: pass the `next` value of the previous page."
CursorPart = int | str


def encode_cursor(*parts: CursorPart) -> str:
    """Return the cursor of a row from the parts of its sort key."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def decode_cursor(key: str, *kinds: type[CursorPart]) -> tuple[CursorPart, ...]:
    """Return the parts of a cursor.

    Args:
        key: the cursor.
        kinds: the types of its parts.

    Raises:
        ValueError: the cursor is not one of such a list.
    """
    try:
        parts = tuple(json.loads(base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))))
    except (ValueError, TypeError, RecursionError):
        parts = ()
    numbers = (part for part in parts if isinstance(part, int))
    if tuple(map(type, parts)) != kinds or any(abs(number) > BIGINT_MAX for number in numbers):
        raise ValueError(INVALID_CURSOR)
    return parts
