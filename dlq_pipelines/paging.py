"""Where does the next page of a list begin? Behind a key: what the last row is ordered by, as an opaque text.

A page is read by key, so its cost does not grow with what stands before it, and a row that keeps its place is met once
whatever comes and goes between two pages.
"""

import base64
import json

CursorPart = int | str
# The largest number that the database can compare with.
_MOST = 2**63 - 1


def encode_cursor(*parts: CursorPart) -> str:
    """The key of a row."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def decode_cursor(key: str, *kinds: type[CursorPart]) -> tuple[CursorPart, ...]:
    """What a key is made of.

    Raises:
        ValueError: it is none of such a list.
    """
    try:
        parts = tuple(json.loads(base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))))
    except (ValueError, TypeError, RecursionError):
        parts = ()
    numbers = (part for part in parts if isinstance(part, int))
    if tuple(map(type, parts)) != kinds or any(not -_MOST <= number <= _MOST for number in numbers):
        raise ValueError(
            "after is none that a page gave as its `next`: take it from there, or leave it out"
        )
    return parts
