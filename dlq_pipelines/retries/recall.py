"""Recalls released events that no worker has taken: they are dead of the same death again.

Each batch is a transaction of its own that locks the events and decides on what it finds. A recall
that is killed is completed by the next one.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import (
    FIRST_CURSOR,
    build_cursor_parameters,
    summarize_selection,
)
from dlq_pipelines.outbox.offers import require_offer
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.conflicts import retry_after_conflict
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import FixStatus, StoppedFix
from dlq_pipelines.retries.fixes import build_fix, build_unknown_fix_error, get_fix

# The states in which a fix releases nothing, and what it released is recalled.
STOPPED = (
    *(FixStatus.PAUSED, FixStatus.HALTED, FixStatus.WITHDRAWN),
    *(FixStatus.EXPIRED, FixStatus.REJECTED),
)


@dataclass(frozen=True)
class RecallResult:
    """What became of released events.

    Attributes:
        recalled: events that are dead again, because no worker had taken them.
        with_worker: events without an outcome that a worker has taken or that are due.
    """

    recalled: int
    with_worker: int


def recall_fix(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> RecallResult:
    """Recall what a fix released and no worker has taken. Repeatable.

    Args:
        connection: in autocommit mode.
        fix_id: a fix that is paused or has ended.
        audit: who makes the change, and why.
        options: how the change runs.

    Raises:
        NotFoundError: the fix does not exist.
        RefusedError: the fix is active: it would release the events again. Or the mapping of the
            outbox sets no due time that a worker waits for.
    """
    fix = get_fix(connection, fix_id)
    if fix.status is FixStatus.ACTIVE:
        raise RefusedError(
            f"Fix {fix_id} is active: it would release the events again.",
            f"`dlq fixes pause {fix_id} --reason ...` recalls them, and so does withdraw.",
        )
    require_offer(connection, "pace")
    return recall_released(connection, fix_id, audit=audit, options=options)


def recall_released(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> RecallResult:
    """Recall what a stopped fix released; nothing if the worker waits for no due time.

    Also recalls nothing once a person has resumed the fix: each batch checks that under its lock.

    Raises:
        NotFoundError: the fix does not exist.
    """

    def lock_stopped() -> bool:
        row = connection.run("fix.lock_waiting", fix_id=fix_id).fetchone()
        if row is None:
            raise build_unknown_fix_error(fix_id)
        return build_fix(row).status is not FixStatus.ACTIVE

    where = {"fix_id": fix_id, "selection": None, "causes": None}
    return _recall(
        connection, where, {"fix": fix_id}, audit=audit, options=options, permit=lock_stopped
    )


def recall_stopped_fix(connection: Connection, fix_id: int, *, audit: AuditContext) -> StoppedFix:
    """Recall what a fix released that was just stopped, and return the fix with the figures."""
    done = recall_released(connection, fix_id, audit=audit)
    return StoppedFix(**vars(get_fix(connection, fix_id)), **vars(done))


def recall_retries(
    connection: Connection,
    selection: Selection,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> RecallResult:
    """Recall what people retried without a fix and no worker has taken. Repeatable.

    Args:
        connection: in autocommit mode.
        selection: the events, by the deaths after which they were retried.
        audit: who makes the change, and why.
        options: how the change runs.

    Raises:
        NotFoundError: the cause does not exist, or none of the named events was ever retried by a
            person.
        RefusedError: the mapping of the outbox sets no due time that a worker waits for.
    """
    require_offer(connection, "pace")
    where = build_selection_parameters(connection, selection, before=None)
    if selection.all:
        where["selection"] = None

    def lock_others() -> bool:
        connection.run("recall.lock")
        return True

    done = _recall(
        connection,
        where | {"fix_id": None},
        summarize_selection(selection),
        audit=audit,
        options=options,
        permit=lock_others,
    )
    if selection.names_only and done == RecallResult(0, 0):
        ids = [str(id_) for id_ in selection.event_ids or ()]
        if not connection.fetch_one("recall.is_known", event_ids=ids)["found"]:
            raise NotFoundError(
                "None of these events was ever retried by a person.",
                "`dlq dead-events show ID` shows the life of an event.",
            )
    return done


def _recall(
    connection: Connection,
    where: dict[str, Any],
    summary: dict[str, Any],
    *,
    audit: AuditContext,
    options: RunOptions,
    permit: Callable[[], bool],
) -> RecallResult:
    """Recall batch by batch; a dry run is one transaction that is rolled back."""
    cursor, recalled = FIRST_CURSOR, 0

    def recall_batch() -> dict[str, Any] | None:
        with connection.transaction():
            if not permit():
                return None
            batch = connection.fetch_one(
                "recall.take",
                **where,
                **build_cursor_parameters(cursor),
                rows=BATCH,
                now=audit.now,
                actor=audit.actor,
                reason=audit.reason,
            )
            if batch["recalled"]:
                record_audit_entry(
                    connection, "retry.recall", summary, audit=audit, events=batch["recalled"]
                )
                if where["fix_id"] is not None:
                    connection.run("recall.reset_pace", fix_id=where["fix_id"], now=audit.now)
            return batch

    with connection.transaction(force_rollback=True) if options.dry_run else nullcontext():
        while batch := retry_after_conflict(recall_batch):
            recalled += batch["recalled"]
            options.progress(recalled)
            if batch["rows"] < BATCH:
                break
            cursor = batch["last_time"], batch["last_id"]
        left = connection.fetch_one("recall.count_with_worker", **where)["events"]
    return RecallResult(recalled, left)
