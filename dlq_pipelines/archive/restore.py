"""Restores archived events to the outbox as dead, for a fix that came late.

An event returns as dead of the same death, so that the ledger records no second one. One
statement deletes and inserts a batch, in one transaction with its audit entry.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from dlq_pipelines.archive.archive import explain_archive_refusal
from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import build_locked_error, summarize_selection
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import format_count

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RestoreResult:
    """Result of a restore; of a dry run, what a real run would do.

    Attributes:
        events: number of events that are in the outbox again.
        batches: number of transactions.
        blocked: number of events that stay because the outbox has an event of the same id.
        discarded: number of events that stay because they were discarded and not named by id.
        locked: number of events that stay because other transactions lock them.
        erased: number of events that stay because their payloads were erased.
    """

    events: int
    batches: int
    blocked: int
    discarded: int
    locked: int
    erased: int = 0


def restore_events(
    connection: Connection,
    selection: Selection,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> RestoreResult:
    """Restore the selected archived events to the outbox as dead.

    Args:
        connection: in autocommit mode.
        selection: compared with the last death of each event. `event_ids` restores discarded
            events too.
        audit: who makes the change, and why.
        options: how the change runs.

    Raises:
        NotFoundError: the cause does not exist.
        SchemaError: the archive lacks a column of the outbox table, or a constraint of the outbox
            table rejects an event.
    """
    where = build_selection_parameters(connection, selection, before=None)
    total = RestoreResult(0, 0, 0, 0, 0)
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction():
            page = connection.fetch_one("archive.restorable", limit=BATCH, **where, **after)
            deaths = page["deaths"][: options.remaining_in_batch(total.events, BATCH)]
            if deaths and not options.dry_run:
                with explain_archive_refusal():
                    connection.fetch_one("archive.restore", deaths=deaths, now=audit.now)
                record_audit_entry(
                    connection,
                    "archive.restore",
                    summarize_selection(selection),
                    audit=audit,
                    events=len(deaths),
                )
        total = RestoreResult(
            total.events + len(deaths),
            total.batches + bool(deaths),
            total.blocked + page["blocked"],
            total.discarded + page["discarded"],
            total.locked + page["locked"],
            total.erased + page["erased"],
        )
        options.progress(total.events)
        if page["rows"] < BATCH:
            return total
        after = {"after_time": page["last_time"], "after_id": page["last_id"]}


def build_nothing_restored_error(done: RestoreResult) -> DlqError:
    """Return the error that says why none of the named events was restored."""
    if done.locked:
        return build_locked_error(done.locked)
    if done.blocked:
        return RefusedError(
            f"{format_count(done.blocked, 'event stays', 'events stay')} archived: "
            "the outbox has an event of the same id."
        )
    if done.erased:
        return RefusedError(
            f"The payload of {format_count(done.erased, 'event')} was erased: "
            "a retry would deliver an empty one."
        )
    return NotFoundError(
        "None of these events is archived as dead.",
        "`dlq dead-events show ID` shows where an event is.",
    )
