"""Records what became of retried events."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import psycopg

from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import FIRST_CURSOR, DeathCursor, build_cursor_parameters
from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class SettledPage:
    """A page of retries without an outcome, and the outcomes that it recorded.

    Attributes:
        events: outcomes that were recorded.
        delivered: the deaths of those that were delivered, as the text of a PostgreSQL array.
        next: the cursor after which the next page begins; None: this is the last page.
    """

    events: int
    delivered: str
    next: DeathCursor | None


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
    settled, cursor = 0, FIRST_CURSOR
    while True:
        page = settle_page(
            connection, now=now, settle_seconds=settle_seconds, fix_id=fix_id, after=cursor
        )
        settled += page.events
        if page.next is None:
            return settled
        cursor = page.next


def settle_page(
    connection: Connection,
    *,
    now: datetime,
    settle_seconds: int,
    fix_id: int | None,
    after: DeathCursor,
) -> SettledPage:
    """Record the outcomes of the next `BATCH` retries after a cursor. See `settle_outcomes`."""
    row = connection.fetch_one(
        "retry.settle",
        now=now,
        settle_seconds=settle_seconds,
        fix_id=fix_id,
        rows=BATCH,
        **build_cursor_parameters(after),
    )
    following = None if row["rows"] < BATCH else (row["last_time"], row["last_id"])
    return SettledPage(row["events"], row["delivered"], following)


def settle_retries(connection: Connection, *, now: datetime, settle_seconds: int) -> int:
    """Record outcomes that no active fix waits for. Returns how many.

    These are retries without a fix, and those that ended or paused fixes left. Also notes up to
    `BATCH` events that were delivered after their retry timed out.
    """
    left = [row["id"] for row in connection.run("retry.left_by_fixes")]
    total = 0
    for fix_id in (None, *left):
        # A stage that was deleted or renumbered by hand; the check `stages_match_ledger` fails.
        with suppress(psycopg.IntegrityError):
            total += settle_outcomes(
                connection, now=now, settle_seconds=settle_seconds, fix_id=fix_id
            )
    connection.run("retry.note_late", now=now, limit=BATCH)
    return total


def has_unsettled_retries(connection: Connection, *, due_before: datetime) -> bool:
    """Return whether `settle_retries` has to look at a retry that was due by then."""
    return bool(connection.fetch_one("retry.has_unsettled", due_before=due_before)["found"])


def list_inconsistent_stages(connection: Connection) -> list[tuple[int, int]]:
    """Return fix and number of up to 20 stages whose counted outcomes differ from the ledger."""
    return [(row["fix_id"], row["stage"]) for row in connection.run("fix.stages_difference")]
