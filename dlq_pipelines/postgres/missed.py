"""Records deaths that no trigger saw."""

import time
from collections.abc import Callable
from datetime import datetime

from dlq_pipelines.postgres.connect import Connection

_BATCH = 5_000
# Seconds between two batches, so that reading a whole table leaves the disk to the application.
PAUSE_SECONDS = 0.01


def record_missed_deaths(
    connection: Connection,
    *,
    now: datetime,
    is_missed: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Record the deaths of events that are dead and not known as dead. Return how many.

    Reads the outbox in the order of its ids, in batches with a pause between them.

    Args:
        connection: in autocommit mode.
        now: the time of the reconciliation.
        is_missed: mark the deaths as missed; False for those from before the triggers.
        progress: called after each batch with the number of events read.
    """
    recorded: int = 0
    read: int = 0
    after: str | None = None
    while True:
        batch = connection.fetch_one(
            "reconcile.record_missed", after=after, now=now, is_missed=is_missed, limit=_BATCH
        )
        recorded, read = recorded + batch["recorded"], read + batch["rows"]
        progress(read)
        if batch["rows"] < _BATCH:
            return recorded
        after = batch["last_id"]
        time.sleep(PAUSE_SECONDS)
