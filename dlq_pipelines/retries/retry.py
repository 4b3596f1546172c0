"""Retries dead events for a person, at a rate, each exactly once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from dlq_pipelines.outbox.offers import require_offer
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import format_seconds
from dlq_pipelines.validate import (
    EventId,
    validate_event_id,
    validate_event_ids,
    validate_storable,
)

# Characters of a payload that a person writes: far more than anyone needs.
_MAX_PAYLOAD_LENGTH = 10_000_000
_PAYLOAD_NAMES = {
    "pg_catalog.jsonb": "JSON",
    "pg_catalog.json": "JSON",
    "pg_catalog.bytea": "a bytea",
}


def retry_events(
    connection: Connection,
    ids: Sequence[EventId],
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    rate: float | None = None,
) -> RetryResult:
    """Retry these events, also parked ones. Events that are not dead are skipped.

    Args:
        connection: in autocommit mode.
        ids: any number of event ids; released in transactions of `BATCH`, in the order of the ids.
        audit: who makes the change, and why.
        options: how the change runs.
        rate: events a second at which they fall due; None: all now, for a few chosen events.

    Raises:
        ValueError: there are no ids, or one is not an event id.
        RefusedError: the mapping of the outbox offers no retries.
    """
    sorted_ids = validate_event_ids("event_ids", ids)
    total = RetryResult(0, 0)
    for start in range(0, len(sorted_ids), BATCH):
        batch = Selection(event_ids=tuple(sorted_ids[start : start + BATCH]))
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
    """Retry the selected events that are dead now, oldest death first.

    Args:
        connection: in autocommit mode.
        selection: the dead events.
        audit: who makes the change, and why.
        options: how the change runs.
        rate: events a second at which they fall due; None: all now.
        max_retries: retries after which an event is parked and skipped; None: retry it too.
        already: events that the same change retried before; these fall due after them.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the mapping of the outbox offers no retries.
    """
    require_offer(connection, "retries")

    def take(parameters: BatchParameters, taken: int) -> DeathBatch:
        if options.dry_run:
            return lock_batch(connection, parameters)
        due = audit.now + timedelta(seconds=taken * compute_release_interval(rate))
        batch = release_batch(connection, parameters, audit=audit, rate=rate, due=due)
        if batch.taken:
            record_audit_entry(
                connection,
                "retry.selected",
                summarize_selection(selection),
                audit=audit,
                events=batch.taken,
            )
        return batch

    return process_selection(
        connection,
        selection,
        take,
        max_retries=max_retries,
        options=options,
        already=already,
    )


def retry_within_lookahead(
    retry: Callable[[RunOptions], RetryResult],
    options: RunOptions,
    *,
    rate: float,
    lookahead: timedelta,
) -> RetryResult:
    """Retry events unless the last of them would fall due beyond the look-ahead.

    Refused and not released in parts: a second command would not wait for the events of the first
    and would double their rate. A fix releases events as time passes.

    Args:
        retry: retries the events, or counts them in a dry run.
        options: how the change runs.
        rate: events a second at which they fall due.
        lookahead: an event is released at most this long before it falls due.

    Raises:
        RefusedError: the events fall due later; nothing was changed.
    """
    most = int(lookahead.total_seconds() * rate) + 1
    if options.dry_run or options.limit is None or options.limit > most:
        counted = retry(replace(options, dry_run=True))
        if counted.events > most:
            raise RefusedError(
                f"{counted.events:,} events at {rate:g} per second fall due within "
                f"{format_seconds(counted.events / rate)}, but no event is released more than "
                f"{format_seconds(lookahead.total_seconds())} ahead: at most {most:,} at this "
                "rate. Nothing was changed.",
                "Flag a fix, which releases events as time passes: `dlq fixes flag`. Or narrow the "
                "filter, or raise the rate (--rate).",
            )
        if options.dry_run:
            return counted
    return retry(replace(options, limit=min(most, options.limit or most)))


def retry_event(
    connection: Connection,
    event_id: EventId,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    payload: str | None = None,
    allow_edit: bool = False,
) -> None:
    """Retry one dead event now, also a parked one.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        audit: who makes the change, and why.
        options: how the change runs.
        payload: the new payload as text; None: the event keeps its payload.
        allow_edit: whether this installation allows a new payload.

    Raises:
        NotFoundError: the event is not dead.
        RefusedError: the mapping of the outbox offers no retries or no new payload, a new payload
            is not allowed, or another transaction holds the event.
        ValueError: the payload is not a value that PostgreSQL can store.
    """
    if payload is not None:
        retry_with_payload(
            connection, event_id, payload, audit=audit, options=options, allowed=allow_edit
        )
    elif not retry_events(connection, [event_id], audit=audit, options=options).events:
        selection = Selection(event_ids=(event_id,))
        with connection.transaction(force_rollback=True):
            batch = lock_batch(connection, build_batch_parameters(connection, selection))
            raise _build_not_retried_error(event_id, batch)


def retry_with_payload(
    connection: Connection,
    event_id: EventId,
    payload: str,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    allowed: bool,
) -> None:
    """Retry one dead event with a new payload. The ledger keeps the old one.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        payload: text, because numbers of JSON that are parsed and written again may lose digits;
            bytes in hexadecimal, as PostgreSQL prints them.
        audit: who makes the change, and why.
        options: how the change runs.
        allowed: whether this installation allows a new payload.

    Raises:
        RefusedError: a new payload is not allowed, the mapping of the outbox offers none, or
            another transaction holds the event.
        ValueError: the payload is not a value that PostgreSQL can store.
        NotFoundError: the event is not dead.
    """
    if not allowed:
        raise RefusedError(
            "This installation does not allow payloads to be edited.",
            "Set DLQ_ALLOW_EDIT=true to allow it.",
        )
    selection = Selection(event_ids=(validate_event_id("event_id", event_id),))
    require_offer(connection, "edited_payloads")
    _require_payload(connection, payload)
    with connection.transaction(force_rollback=options.dry_run):
        parameters = build_batch_parameters(connection, selection)
        batch = lock_batch(connection, parameters)
        if not batch.taken:
            raise _build_not_retried_error(event_id, batch)
        if options.dry_run:
            return
        release_batch(connection, parameters, audit=audit)
        with _explain_payload_errors(connection):
            connection.run("retry.replace_payload", deaths=batch.deaths, payload=payload)
        filter_ = {"event_ids": [event_id]}
        record_audit_entry(connection, "retry.payload", filter_, audit=audit, events=1)


def _build_not_retried_error(event_id: EventId, batch: DeathBatch) -> DlqError:
    """Return the error for a named event that could not be locked."""
    if batch.free:
        return RefusedError(
            f"Event {event_id} is dead, but another transaction holds it.",
            "Retry it when that transaction has ended.",
        )
    return NotFoundError(
        f"Event {event_id} is not dead.",
        f"`dlq dead-events show {event_id}` shows its history.",
    )


def _require_payload(connection: Connection, payload: str) -> None:
    """Require a payload that PostgreSQL can parse, before any event is locked."""
    text = validate_storable("payload", payload, most=_MAX_PAYLOAD_LENGTH)
    with _explain_payload_errors(connection):
        connection.run("retry.read_payload", payload=text)


@contextmanager
def _explain_payload_errors(connection: Connection) -> Iterator[None]:
    type_ = connection.fetch_one("retry.payload_type")["type"]
    try:
        yield
    except psycopg.DataError as error:
        parts = (error.diag.message_primary, error.diag.message_detail)
        reason = " ".join(part for part in parts if part)
        name = _PAYLOAD_NAMES.get(type_, "a text")
        raise ValueError(f"The payload is not {name} that PostgreSQL can store: {reason}") from None
