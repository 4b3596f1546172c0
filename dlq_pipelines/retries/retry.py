"""How does a person bring dead events back, paced, each exactly once?"""

from collections.abc import Sequence
from datetime import timedelta

import psycopg

from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.operation import Act, record_operation
from dlq_pipelines.outbox.event import Selector, event_ids, positive, storable
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import BATCH
from dlq_pipelines.retries.page import (
    Asked,
    Page,
    Retried,
    dead_now,
    lock_page,
    release_page,
    seconds_each,
    shown,
    take_selected,
)

# Of a payload that a person writes, in characters: far more than anybody does.
_LONGEST_PAYLOAD = 10_000_000


def retry_events(connection: Connection, ids: Sequence[int], *, act: Act, rate: float | None = None) -> Retried:
    """Retry these events, also parked ones; those that are not dead are passed over.

    Args:
        connection: in autocommit mode.
        ids: event ids, any number; they are released in transactions of `BATCH`, in the order of their ids.
        act: who asks for it, and why.
        rate: events a second at which they fall due; None: all now, as fits a handful chosen by a person.

    Raises:
        ValueError: there are no ids, or one is no event id.
    """
    wanted = event_ids("ids", ids)
    total = Retried(0, 0)
    for start in range(0, len(wanted), BATCH):
        batch = Selector(event_ids=tuple(wanted[start : start + BATCH]))
        total += retry_selected(connection, batch, act=act, rate=rate, max_retries=None, already=total.events)
    return total


def retry_selected(  # noqa: PLR0913 - keyword-only past the selector
    connection: Connection,
    selector: Selector,
    *,
    act: Act,
    rate: float | None,
    max_retries: int | None,
    already: int = 0,
) -> Retried:
    """Retry all that a selector means and that is dead now, oldest death first.

    Args:
        connection: in autocommit mode.
        selector: the dead events.
        act: who asks for it, and why.
        rate: events a second at which they fall due; None: all now.
        max_retries: events that died again after so many retries are parked and passed over; None: take them too.
        already: events that the same act has retried before: these fall due behind them.

    Raises:
        NotFoundError: no such cause.
    """

    def take(asked: Asked, taken: int) -> Page:
        if act.dry_run:
            return lock_page(connection, asked)
        due = act.now + timedelta(seconds=taken * seconds_each(rate))
        page = release_page(connection, asked, act=act, rate=rate, due=due)
        if page.taken:
            record_operation(connection, "retry.selected", shown(selector), act=act, events=page.taken)
        return page

    return take_selected(connection, selector, take, max_retries=max_retries, act=act, already=already)


def retry_event(
    connection: Connection, event_id: int, *, act: Act, payload: str | None = None, allow_edit: bool = False
) -> None:
    """Retry one dead event, due now, also a parked one.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        act: who asks for it, and why.
        payload: with this payload instead, as JSON text; None: with its own.
        allow_edit: whether this installation allows another payload.

    Raises:
        NotFoundError: the event is not dead.
        RefusedError: another payload is not allowed here, or another transaction holds the event.
        ValueError: the payload is no JSON that PostgreSQL can store.
    """
    if payload is not None:
        retry_with_payload(connection, event_id, payload, act=act, allowed=allow_edit)
    elif not retry_events(connection, [event_id], act=act).events:
        selector = Selector(event_ids=(event_id,))
        with connection.transaction(force_rollback=True):
            raise _not_retried(event_id, lock_page(connection, dead_now(connection, selector)))


def retry_with_payload(connection: Connection, event_id: int, payload: str, *, act: Act, allowed: bool) -> None:
    """Retry one dead event with another payload. The ledger keeps the one that it had.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        payload: as JSON text, because numbers that are read and written again may lose digits.
        act: who asks for it, and why.
        allowed: whether this installation allows it.

    Raises:
        RefusedError: this installation does not allow it, or another transaction holds the event.
        ValueError: the payload is no JSON that PostgreSQL can store.
        NotFoundError: the event is not dead.
    """
    if not allowed:
        raise RefusedError("Payloads may not be edited here. Set DLQ_ALLOW_EDIT=true where that is decided.")
    selector = Selector(event_ids=(positive("event_id", event_id),))
    _require_json(connection, payload)
    with connection.transaction(force_rollback=act.dry_run):
        asked = dead_now(connection, selector)
        page = lock_page(connection, asked)
        if not page.taken:
            raise _not_retried(event_id, page)
        if act.dry_run:
            return
        release_page(connection, asked, act=act)
        connection.run("retry.replace_payload", event_id=event_id, deaths=page.deaths, payload=payload)
        record_operation(connection, "retry.payload", {"event_ids": [event_id]}, act=act, events=1)


def _not_retried(event_id: int, page: Page) -> DlqError:
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
        connection.run("retry.read_payload", payload=storable("payload", payload, most=_LONGEST_PAYLOAD))
    except psycopg.DataError as error:
        why = " ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
        raise ValueError(f"The payload is no JSON that PostgreSQL can store: {why}") from None
