"""Runs work again that PostgreSQL undid in favour of another transaction."""

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

_T = TypeVar("_T")
_TRIES = 5
# Seconds before the second try; each later pause is twice as long.
_FIRST_PAUSE_SECONDS = 0.01
_CONFLICTS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


def retry_after_conflict(work: Callable[[], _T]) -> _T:
    """Run the work, up to five times while it ends in a deadlock or a serialization failure.

    Args:
        work: one transaction, or one statement in autocommit mode. PostgreSQL has undone all of it
            before it runs again.

    Raises:
        psycopg.Error: the last try failed, or the error is of another kind.
    """
    for attempt in range(_TRIES - 1):
        try:
            return work()
        except _CONFLICTS:
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    return work()
