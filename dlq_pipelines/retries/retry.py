"""How does a person bring dead events back, paced, each exactly once?"""

from collections.abc import Sequence
from datetime import timedelta

import psycopg

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import (
    BatchParameters,
    DeathBatch,
    RetryResult,
    build_batch_parameters,
    compute_release_interval,
    lock_batch,
    process_selection,
    release_batch,
    summarize_selection,
)
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.validate import validate_event_ids, validate_positive, validate_storable

# Of a payload that a person writes, in characters: far more than anybody does.
_LONGEST_PAYLOAD = 10_000_000


def retry_events(
    connection: Connection,
    ids: Sequence[int],
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    rate: float | None = None,
) -> RetryResult:
    """Retry these events, also parked ones; those that are not dead are passed over.

    Args:
        connection: in autocommit mode.
        ids: event ids, any number; they are released in transactions of `BATCH`, in the order of their ids.
        audit: who makes the change, and why.
        options: how the change runs.
        rate: events a second at which they fall due; None: all now, as fits a handful chosen by a person.

    Raises:
        ValueError: there are no ids, or one is no event id.
    """
    wanted = validate_event_ids("ids", ids)
    total = RetryResult(0, 0)
    for start in range(0, len(wanted), BATCH):
        batch = Selection(event_ids=tuple(wanted[start : start + BATCH]))
        total += retry_selected(
            connection,
            batch,
            audit=audit,
            options=options,
            rate=rate,
            max_retries=None,
            already=total.events,
        )
    return total


def retry_selected(
    connection: Connection,
    selection: Selection,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    rate: float | None,
    max_retries: int | None,
    already: int = 0,
) -> RetryResult:
    """Retry all that a selection means and that is dead now, oldest death first.

    Args:
        connection: in autocommit mode.
        selection: the dead events.
        audit: who makes the change, and why.
        options: how the change runs.
        rate: events a second at which they fall due; None: all now.
        max_retries: events that died again after so many retries are parked and passed over; None: take them too.
        already: events that the same act has retried before: these fall due behind them.

    Raises:
        NotFoundError: no such cause.
    """

    def take(asked: BatchParameters, taken: int) -> DeathBatch:
        if options.dry_run:
            return lock_batch(connection, asked)
        due = audit.now + timedelta(seconds=taken * compute_release_interval(rate))
        page = release_batch(connection, asked, audit=audit, rate=rate, due=due)
        if page.taken:
            record_audit_entry(
                connection,
                "retry.selected",
                summarize_selection(selection),
                audit=audit,
                events=page.taken,
            )
        return page

    return process_selection(
        connection,
        selection,
        take,
        max_retries=max_retries,
        options=options,
        already=already,
    )


def retry_event(
    connection: Connection,
    event_id: int,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    payload: str | None = None,
    allow_edit: bool = False,
) -> None:
    """Retry one dead event, due now, also a parked one.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        audit: who makes the change, and why.
        options: how the change runs.
        payload: with this payload instead, as JSON text; None: with its own.
        allow_edit: whether this installation allows another payload.

    Raises:
        NotFoundError: the event is not dead.
        RefusedError: another payload is not allowed here, or another transaction holds the event.
        ValueError: the payload is no JSON that PostgreSQL can store.
    """
    if payload is not None:
        retry_with_payload(
            connection, event_id, payload, audit=audit, options=options, allowed=allow_edit
        )
    elif not retry_events(connection, [event_id], audit=audit, options=options).events:
        selection = Selection(event_ids=(event_id,))
        with connection.transaction(force_rollback=True):
            raise _not_retried(
                event_id, lock_batch(connection, build_batch_parameters(connection, selection))
            )


def retry_with_payload(
    connection: Connection,
    event_id: int,
    payload: str,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    allowed: bool,
) -> None:
    """Retry one dead event with another payload. The ledger keeps the one that it had.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        payload: as JSON text, because numbers that are read and written again may lose digits.
        audit: who makes the change, and why.
        options: how the change runs.
        allowed: whether this installation allows it.

    Raises:
        RefusedError: this installation does not allow it, or another transaction holds the event.
        ValueError: the payload is no JSON that PostgreSQL can store.
        NotFoundError: the event is not dead.
    """
    if not allowed:
        raise RefusedError(
            "Payloads may not be edited here. Set DLQ_ALLOW_EDIT=true where that is decided."
        )
    selection = Selection(event_ids=(validate_positive("event_id", event_id),))
    _require_json(connection, payload)
    with connection.transaction(force_rollback=options.dry_run):
        asked = build_batch_parameters(connection, selection)
        page = lock_batch(connection, asked)
        if not page.taken:
            raise _not_retried(event_id, page)
        if options.dry_run:
            return
        release_batch(connection, asked, audit=audit)
        connection.run(
            "retry.replace_payload", event_id=event_id, deaths=page.deaths, payload=payload
        )
        record_audit_entry(
            connection,
            "retry.payload",
            {"event_ids": [event_id]},
            audit=audit,
            events=1,
        )


def _not_retried(event_id: int, page: DeathBatch) -> DlqError:
    """Why an event that somebody named was not there to be taken."""
    if page.free:
        return RefusedError(
            f"Event {event_id} is dead, but another transaction holds it. Retry it when that has ended."
        )
    return NotFoundError(
        f"Event {event_id} is not dead, so there is nothing to retry. `dlq dead-events show {event_id}` says what "
        "became of it."
    )


def _require_json(connection: Connection, payload: str) -> None:
    try:
        connection.run(
            "retry.read_payload",
            payload=validate_storable("payload", payload, most=_LONGEST_PAYLOAD),
        )
    except psycopg.DataError as error:
        why = " ".join(
            part for part in (error.diag.message_primary, error.diag.message_detail) if part
        )
        raise ValueError(f"The payload is no JSON that PostgreSQL can store: {why}") from None
