"""How does an archived dead event come back, for a fix that came late?

As dead, with the moment of its death: the ledger knows that death already and records no second one. In batches, each
deleted and inserted by one statement in a transaction of its own with its audit row.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from dlq_pipelines.archive.archive import BATCH, explain_archive_refusal
from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.outbox.batches import build_locked_error, summarize_selection
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import format_count

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RestoreResult:
    """What came back; of a dry run, what would.

    Attributes:
        events: dead in the outbox again.
        batches: transactions.
        blocked: stay, because the outbox has an event of their id.
        discarded: stay, because a person gave them up and they were not named by id.
        locked: stay, because other transactions hold them.
    """

    events: int
    batches: int
    blocked: int
    discarded: int
    locked: int


def restore_events(
    connection: Connection,
    selection: Selection,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> RestoreResult:
    """Bring back the archived dead events that a selection means.

    Args:
        connection: in autocommit mode.
        selection: of their last death. With `event_ids` also those that a person gave up.
        audit: who makes the change, and why.
        options: how the change runs.

    Raises:
        NotFoundError: no such cause.
        SchemaError: the archive table lacks a column of the outbox table, or an event breaks a constraint of that one.
    """
    where = build_selection_parameters(connection, selection, before=None)
    total = RestoreResult(0, 0, 0, 0, 0)
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction():
            page = connection.fetch_one("archive.restorable", limit=BATCH, **where, **after)
            ids = page["ids"][: options.remaining_in_batch(total.events, BATCH)]
            if ids and not options.dry_run:
                with explain_archive_refusal():
                    connection.fetch_one("archive.restore", ids=ids, now=audit.now)
                record_audit_entry(
                    connection,
                    "archive.restore",
                    summarize_selection(selection),
                    audit=audit,
                    events=len(ids),
                )
        total = RestoreResult(
            total.events + len(ids),
            total.batches + bool(ids),
            total.blocked + page["blocked"],
            total.discarded + page["discarded"],
            total.locked + page["locked"],
        )
        options.progress(total.events)
        if page["rows"] < BATCH:
            return total
        after = {"after_time": page["last_time"], "after_id": page["last_id"]}


def build_nothing_restored_error(done: RestoreResult) -> DlqError:
    """Why none of the events came back that somebody named by their ids."""
    if done.locked:
        return build_locked_error(done.locked)
    if done.blocked:
        return RefusedError(
            f"{format_count(done.blocked, 'event stays', 'events stay')} archived: the outbox has the same id."
        )
    return NotFoundError(
        "None of these events is archived as dead. `dlq dead-events show ID` says where one is."
    )
