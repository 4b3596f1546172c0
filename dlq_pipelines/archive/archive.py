"""Which dead events are old enough to leave the hot table, and are they safe where they go?

They move in batches, each deleted and inserted by one statement in a transaction of its own with its audit row. A
killed run leaves whole batches moved and the rest where it was; the next run goes on. What a person gives up goes at
once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.outbox.batches import (
    BatchParameters,
    DeathBatch,
    RetryResult,
    lock_batch,
    process_selection,
    summarize_selection,
)
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import sanitize_line

BATCH = 5_000
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ArchiveResult:
    """What an archive run did; of a dry run, what it would do.

    Attributes:
        moved: events.
        batches: transactions.
        left: events that are old enough and stay: targeted by an open fix, of a day that is not exported, or with an id
            that is in the archive already, or past what was agreed to. Not what others hold at the moment; the next
            run judges it.
    """

    moved: int
    batches: int
    left: int


def archive_dead_events(
    connection: Connection,
    *,
    before: datetime,
    only_exported: bool,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> ArchiveResult:
    """Move the events that died before that moment, and that no open fix targets, to the archive table.

    Args:
        connection: in autocommit mode.
        before: events that died earlier go.
        only_exported: move only events of days whose export holds every death.
        act: who asks for it, and why. Its moment is written as `archived_at`.

    Raises:
        SchemaError: the archive table lacks a column of the outbox table, which the events would lose, or has a
            constraint that they break.
    """
    where: dict[str, object] = {"before": before, "times": None}
    if only_exported:
        where["times"] = connection.fetch_one("archive.exported_times", before=before)["times"]
    if options.dry_run:
        movable = connection.fetch_one("archive.count_movable", **where)["events"]
        old = connection.fetch_one("archive.count_old", before=before)["events"]
        return ArchiveResult(movable, -(-movable // BATCH), max(0, old - movable))
    moved = batches = left = 0
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction():
            with explain_archive_refusal():
                batch = connection.fetch_one(
                    "archive.move_batch",
                    limit=BATCH,
                    room=options.remaining_in_batch(moved, BATCH),
                    now=audit.now,
                    **where,
                    **after,
                )
            if batch["moved"]:
                asked = {"before": before.isoformat()}
                record_audit_entry(
                    connection,
                    "archive.move",
                    asked,
                    audit=audit,
                    events=batch["moved"],
                )
        moved, batches = moved + batch["moved"], batches + bool(batch["moved"])
        left += batch["rows"] - batch["moved"]
        options.progress(moved)
        if batch["rows"] < BATCH:
            return ArchiveResult(moved, batches, left)
        after = {"after_time": batch["last_time"], "after_id": batch["last_id"]}


def discard_events(
    connection: Connection,
    selection: Selection,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> RetryResult:
    """Give dead events up: they go to the archive at once, and no filter brings them back.

    Args:
        connection: in autocommit mode.
        selection: the dead events, also such that are not exported or that an open fix targets: it goes on without them.
            One whose id is in the archive already stays.
        act: who gives them up, and why; both are kept with each event.

    Raises:
        NotFoundError: no such cause.
        SchemaError: the archive table lacks a column of the outbox table, which the events would lose, or has a
            constraint that they break.
    """

    def take(asked: BatchParameters, _: int) -> DeathBatch:
        page = lock_batch(connection, asked)
        free = connection.fetch_one("archive.discardable", deaths=page.deaths)
        if free["events"] and not options.dry_run:
            who = {"actor": audit.actor, "reason": audit.reason, "now": audit.now}
            with explain_archive_refusal():
                connection.fetch_one("archive.discard", deaths=free["deaths"], **who)
            record_audit_entry(
                connection,
                "archive.discard",
                summarize_selection(selection),
                audit=audit,
                events=free["events"],
            )
        return replace(page, taken=free["events"], free=page.free - page.taken + free["events"])

    return process_selection(connection, selection, take, max_retries=None, options=options)


@contextmanager
def explain_archive_refusal() -> Iterator[None]:
    """Say why a table does not take the events: it lacks columns, or has a constraint of its own that they break.

    Raises:
        SchemaError: it names the columns, or the constraint and the row that is there.
    """
    try:
        yield
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise SchemaError(error.diag.message_primary or "") from None
    except psycopg.errors.UniqueViolation as error:
        table, constraint = (
            f"{error.diag.schema_name}.{error.diag.table_name}",
            error.diag.constraint_name,
        )
        raise SchemaError(
            f"The constraint {constraint} of {table} refuses an event: "
            f"{sanitize_line(error.diag.message_detail or '', 500)} No event of this batch was moved. Change one of the "
            f"two rows, or drop the constraint: `alter table {table} drop constraint {constraint};`, of an index "
            "`drop index`. Then run it again."
        ) from None
