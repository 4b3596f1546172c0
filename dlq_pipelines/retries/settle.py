"""What became of the events that were retried?"""

from datetime import datetime

from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import FIRST_CURSOR, build_cursor_parameters
from dlq_pipelines.postgres.connect import Connection


def settle_outcomes(
    connection: Connection, *, now: datetime, settle_seconds: int, fix_id: int | None = None
) -> int:
    """Write down what became of retried events: delivered, died again, timed out or deleted. Returns how many.

    Of the retries that this fix has released; without a fix, of those that people asked for.

    Args:
        connection: in autocommit mode: outcomes and counters are written `BATCH` retries a transaction.
        now: what falls due later is not looked at.
        settle_seconds: how long after its due time an event may stay without outcome.
        fix_id: the fix.
    """
    asked = {"now": now, "settle_seconds": settle_seconds, "fix_id": fix_id, "rows": BATCH}
    settled: int = 0
    key = FIRST_CURSOR
    while True:
        page = connection.fetch_one("retry.settle", **asked, **build_cursor_parameters(key))
        settled += page["events"]
        if page["rows"] < BATCH:
            return settled
        key = page["last_time"], page["last_id"]


def settle_retries(connection: Connection, *, now: datetime, settle_seconds: int) -> int:
    """`settle` what no active fix waits for: retries of people, and what ended or paused fixes left. Returns how many.

    Also notes up to `BATCH` events that were delivered only after their retry was given up.
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
