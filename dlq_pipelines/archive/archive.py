"""Moves dead events from the outbox to the archive, by age or because a person discards them.

Events move in batches. One statement deletes and inserts a batch, in one transaction with its
audit entry. A killed run leaves whole batches moved and all other events in place; the next run
continues.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import (
    BatchParameters,
    DeathBatch,
    RetryResult,
    lock_batch,
    process_selection,
    summarize_selection,
)
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.conflicts import retry_after_conflict
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import sanitize_line

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ArchiveResult:
    """Result of an archive run; of a dry run, what a real run would do.

    Attributes:
        moved: number of events.
        batches: number of transactions.
        left: number of events that are old enough and stay, because an open fix targets them, their
            day is not exported, a row of the application refers to them, or the limit was reached.
            Excludes rows that other transactions lock; the next run moves those.
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
    """Archive events that died before a time and that no open fix targets.

    Args:
        connection: in autocommit mode.
        before: archive events that died before this time.
        only_exported: archive only events of days whose export holds every death.
        audit: who archives, and why. Its time becomes `archived_at`.
        options: how the run goes.

    Raises:
        SchemaError: the archive lacks a column of the outbox table, or archiving an event would
            change rows that refer to it.
    """
    where: dict[str, Any] = {"before": before, "times": None}
    if only_exported:
        where["times"] = connection.fetch_one("archive.exported_times", before=before)["times"]
    if options.dry_run:
        return _count_movable(connection, where)
    moved = batches = left = 0
    after: dict[str, Any] = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        room = options.remaining_in_batch(moved, BATCH)
        batch = retry_after_conflict(
            partial(_move_batch, connection, where | after | {"room": room}, audit)
        )
        moved, batches = moved + batch["moved"], batches + bool(batch["moved"])
        left += batch["rows"] - batch["moved"] - batch["locked"]
        options.progress(moved)
        if batch["rows"] < BATCH:
            return ArchiveResult(moved, batches, left)
        after = {"after_time": batch["last_time"], "after_id": batch["last_id"]}


def _count_movable(connection: Connection, where: dict[str, Any]) -> ArchiveResult:
    movable = connection.fetch_one("archive.count_movable", **where)["events"]
    old = connection.fetch_one("archive.count_old", before=where["before"])["events"]
    return ArchiveResult(movable, -(-movable // BATCH), max(0, old - movable))


def _move_batch(connection: Connection, where: dict[str, Any], audit: AuditContext) -> DictRow:
    with connection.transaction():
        with explain_archive_refusal():
            batch = connection.fetch_one("archive.move_batch", limit=BATCH, now=audit.now, **where)
        if batch["rows"] == BATCH:
            # The next batch follows at once. A crash of the server may lose the last batches as a
            # whole, the next run moves them again, and the last commit flushes all of them.
            connection.execute("set local synchronous_commit = off")
        if batch["moved"]:
            record_audit_entry(
                connection,
                "archive.move",
                {"before": where["before"].isoformat()},
                audit=audit,
                events=batch["moved"],
            )
        return batch


def discard_events(
    connection: Connection,
    selection: Selection,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> RetryResult:
    """Discard dead events: archive them at once, so that only their ids restore them.

    Args:
        connection: in autocommit mode.
        selection: the dead events, including events that are not exported or that an open fix
            targets; the fix continues without them. An event stays if a row of the application
            refers to it.
        audit: who discards, and why; the ledger keeps both with each event.
        options: how the change runs.

    Raises:
        NotFoundError: the cause does not exist.
        SchemaError: the archive lacks a column of the outbox table, or archiving an event would
            change rows that refer to it.
    """

    def discard_batch(parameters: BatchParameters, _: int) -> DeathBatch:
        page = lock_batch(connection, parameters)
        with explain_archive_refusal():
            # Also in a dry run, which rolls back: rows that refer to an event keep it here.
            events = connection.fetch_one(
                "archive.discard",
                deaths=page.deaths,
                actor=audit.actor,
                reason=audit.reason,
                now=audit.now,
            )["events"]
        if events:
            record_audit_entry(
                connection,
                "archive.discard",
                summarize_selection(selection),
                audit=audit,
                events=events,
            )
        return replace(page, taken=events, free=page.free - page.taken + events)

    return process_selection(
        connection, selection, discard_batch, max_retries=None, options=options
    )


@contextmanager
def explain_archive_refusal() -> Iterator[None]:
    """Turn a rejected insert into an error that says why the table rejects the events.

    Raises:
        SchemaError: names the missing columns, or the constraint and the conflicting row.
    """
    try:
        yield
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise SchemaError(error.diag.message_primary or "", error.diag.message_hint or "") from None
    except psycopg.errors.UniqueViolation as error:
        table = f"{error.diag.schema_name}.{error.diag.table_name}"
        constraint = error.diag.constraint_name
        raise SchemaError(
            f"The constraint {constraint} of {table} rejects an event: "
            f"{sanitize_line(error.diag.message_detail or '', 500)} "
            "No event of this batch was moved.",
            "Change one of the two rows, or drop the constraint with "
            f"`alter table {table} drop constraint {constraint};` (`drop index` for an index), "
            "and run the command again.",
        ) from None
