"""Records what became of retried events."""

from datetime import datetime

from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import FIRST_CURSOR, build_cursor_parameters
from dlq_pipelines.postgres.connect import Connection


def settle_outcomes(
    connection: Connection, *, now: datetime, settle_seconds: int, fix_id: int | None = None
) -> int:
    """Record outcomes: delivered, died again, timed out or deleted. Returns how many.

    Args:
        connection: in autocommit mode; outcomes are written `BATCH` retries a transaction.
        now: the time of the look; retries that are due later are skipped.
        settle_seconds: seconds to wait for an outcome after the due time.
        fix_id: the fix whose retries are looked at; None: retries without a fix.
    """
    settled: int = 0
    cursor = FIRST_CURSOR
    while True:
        batch = connection.fetch_one(
            "retry.settle",
            now=now,
            settle_seconds=settle_seconds,
            fix_id=fix_id,
            rows=BATCH,
            **build_cursor_parameters(cursor),
        )
        settled += batch["events"]
        if batch["rows"] < BATCH:
            return settled
        cursor = batch["last_time"], batch["last_id"]


def settle_retries(connection: Connection, *, now: datetime, settle_seconds: int) -> int:
    """Record outcomes that no active fix waits for. Returns how many.

    These are retries without a fix, and those that ended or paused fixes left. Also notes up to
    `BATCH` events that were delivered after their retry timed out.
    """
    left = [row["id"] for row in connection.run("retry.left_by_fixes")]
    total = sum(
        settle_outcomes(connection, now=now, settle_seconds=settle_seconds, fix_id=fix_id)
        for fix_id in (None, *left)
    )
    connection.run("retry.note_late", now=now, limit=BATCH)
    return total


def list_inconsistent_stages(connection: Connection) -> list[tuple[int, int]]:
    """Return fix and number of up to 20 stages whose counted outcomes differ from the ledger."""
    return [(row["fix_id"], row["stage"]) for row in connection.run("fix.stages_difference")]
