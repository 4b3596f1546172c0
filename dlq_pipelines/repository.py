"""Provides `OutboxRepository`, with which workers and application code use the outbox.

It calls the same functions as the command line. An object is for one thread: each worker has its
own. A statement or batch that ends in a deadlock or a serialization failure is tried up to five
times.
"""

import codecs
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.outbox.dead_events import (
    ALL_DEAD_EVENTS,
    DeadEventPage,
    DeadEventStats,
    count_dead_events,
    get_dead_event_stats,
    list_dead_events,
)
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.conflicts import retry_after_conflict
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.retries.retry import retry_events
from dlq_pipelines.text import parse_json_or_text
from dlq_pipelines.validate import (
    EventId,
    validate_aware,
    validate_event_id,
    validate_not_negative,
    validate_positive,
)

_ACTOR = "OutboxRepository"
# Characters of a stored error: more than any useful traceback. Longer texts would bloat the table.
_MAX_ERROR_LENGTH = 65_536
# Seconds that a pause between two attempts grows to, unless its base is longer.
_LONGEST_BACKOFF = 3_600


class OutboxRepository:
    """The outbox, for a worker and for application code.

    Args:
        dsn: libpq connection string or URI.
        retry_backoff_seconds: seconds from the first failed attempt to the next one. Each later
            pause is twice as long, up to an hour, and each is up to a quarter longer or shorter.
        connect_timeout: seconds to wait for a connection.
        query_timeout: seconds that one statement may take.
        max_attempts: failed attempts after which an event is dead.
        lease_seconds: seconds for which a fetched event belongs to its worker. After a crash of the
            worker, others get its events when the lease ends, so it must be longer than the work on
            a batch. Default five minutes.
        names: the names of the tables. Default: `public.outbox_event` and schema `dlq`.

    Raises:
        ValueError: an argument is out of its range; the message names it.
        DatabaseUnavailableError: the server does not answer.
    """

    def __init__(
        self,
        dsn: str,
        retry_backoff_seconds: int = 30,
        connect_timeout: int = 10,
        query_timeout: int = 30,
        max_attempts: int = 5,
        *,
        lease_seconds: int = 300,
        names: TableNames = TableNames(),
    ) -> None:
        if not dsn.strip():
            raise ValueError("dsn must not be empty")
        self.retry_backoff_seconds = validate_not_negative(
            "retry_backoff_seconds", retry_backoff_seconds, most=31_536_000
        )
        self.max_attempts = validate_positive("max_attempts", max_attempts, most=2**31 - 1)
        self.lease_seconds = validate_positive("lease_seconds", lease_seconds, most=31_536_000)
        self._database = Database(
            dsn.strip(),
            names,
            connect_timeout=validate_positive("connect_timeout", connect_timeout, most=3_600),
            statement_timeout=validate_positive("query_timeout", query_timeout, most=86_400),
        )
        self._connection = self._database.open()
        self._closed = False

    def fetch_pending(self, batch_size: int) -> list[OutboxEvent]:
        """Lease up to `batch_size` due events, oldest due first."""
        limit = validate_positive("batch_size", batch_size, most=10_000)
        rows = self._run("outbox.fetch_pending", limit=limit, lease=self.lease_seconds)
        return [OutboxEvent.from_row(row) for row in rows]

    def mark_success(self, event_id: EventId) -> None:
        """Record that the event was delivered."""
        self._run("outbox.mark_success", id=validate_event_id("event_id", event_id))

    def mark_retry(self, event_id: EventId, error: str | BaseException | None = None) -> None:
        """Record a failed attempt: the event is due again later, or dead after `max_attempts`.

        Args:
            event_id: the event that failed.
            error: the error; an exception is stored with its traceback. None: the exception that is
                being handled, so inside an `except` block the argument can be omitted.
        """
        values = {
            "id": validate_event_id("event_id", event_id),
            "max_attempts": self.max_attempts,
            "backoff": self.retry_backoff_seconds,
            "longest_backoff": _LONGEST_BACKOFF,
        }
        text = format_error_text(sys.exception() if error is None else error)
        for encoding in (None, self._read_server_codec()):
            try:
                self._run("outbox.mark_retry", error=_escape_text(text, encoding), **values)
            except psycopg.errors.UntranslatableCharacter:
                continue
            return
        self._run("outbox.mark_retry", error=_escape_text(text, "ascii"), **values)

    def fetch_dead_events(
        self,
        limit: int = 100,
        offset: int = 0,
        aggregate_type: str | None = None,
        event_type: str | None = None,
        since: datetime | None = None,
    ) -> list[OutboxEvent]:
        """Return dead events, the latest death first. `since`: only deaths after this time."""
        rows = self._run(
            "outbox.dead_events",
            limit=validate_positive("limit", limit, most=10_000),
            offset=validate_not_negative("offset", offset),
            aggregate_type=aggregate_type,
            event_type=event_type,
            since=validate_aware("since", since),
        )
        return [_build_event(row) for row in rows]

    def list_dead_events(
        self,
        selection: Selection = ALL_DEAD_EVENTS,
        *,
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
    ) -> DeadEventPage:
        """Return selected dead events, the latest death first.

        Args:
            selection: list only selected events.
            limit: 1 to 1,000 events.
            offset: events to skip; prefer `after`.
            after: the `next` value of the previous page.
        """
        return list_dead_events(
            self._connected(), selection, limit=limit, offset=offset, after=after
        )

    def get_dead_event_stats(self, selection: Selection = ALL_DEAD_EVENTS) -> DeadEventStats:
        """Count selected dead events by type, cause and age."""
        return get_dead_event_stats(self._connected(), selection, now=datetime.now(UTC))

    def count_dead_events(
        self,
        aggregate_type: str | None = None,
        event_type: str | None = None,
        since: datetime | None = None,
        *,
        selection: Selection | None = None,
    ) -> int:
        """Count dead events by the filters of `fetch_dead_events`, or by a selection."""
        if selection is not None:
            return count_dead_events(self._connected(), selection)
        row = self._connected().fetch_one(
            "outbox.count_dead_events",
            aggregate_type=aggregate_type,
            event_type=event_type,
            since=validate_aware("since", since),
        )
        return int(row["events"])

    def get_dead_event(self, event_id: EventId) -> OutboxEvent | None:
        """Return the event; None if it is not dead or does not exist."""
        row = self._run("outbox.dead_event", id=validate_event_id("event_id", event_id)).fetchone()
        return _build_event(row) if row else None

    def retry_dead_event(self, event_id: EventId) -> bool:
        """Retry a dead event now. Return False if it is not dead or is locked by others."""
        return self.retry_dead_events_batch([validate_event_id("event_id", event_id)]) == 1

    def retry_dead_events_batch(self, ids: Sequence[EventId]) -> int:
        """Retry those of the events that are dead; return how many were retried."""
        audit = AuditContext(_ACTOR, "retry_dead_events_batch", datetime.now(UTC))
        return retry_events(self._connected(), ids, audit=audit).events

    def cleanup_old_dead_events(self, older_than_days: int = 30) -> int:
        """Move events that died longer ago to the archive; return how many."""
        days = validate_not_negative("older_than_days", older_than_days, most=36_500)
        audit = AuditContext(_ACTOR, f"cleanup_old_dead_events({days})", datetime.now(UTC))
        before = audit.now - timedelta(days=days)
        return archive_dead_events(
            self._connected(), before=before, only_exported=False, audit=audit
        ).moved

    def is_connected(self) -> bool:
        """Return whether the server answers on this connection. Does not reconnect."""
        try:
            self._connection.run("session.ping")
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        """Close the connection. Events without a result are due again when their lease ends."""
        self._closed = True
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, name: str, **values: Any) -> psycopg.Cursor[DictRow]:
        """Run one statement; again after a conflict with another transaction."""
        connection = self._connected()
        return retry_after_conflict(lambda: connection.run(name, **values))

    def _read_server_codec(self) -> str:
        """Return Python's name of the database's encoding; ASCII if Python has none."""
        name = self._connection.info.parameter_status("server_encoding") or ""
        try:
            return codecs.lookup(re.sub("^WIN", "cp", name)).name
        except LookupError:
            return "ascii"

    def _connected(self) -> Connection:
        """Return the connection, reopened if the server closed it, as after a restart."""
        if self._closed:
            raise DatabaseUnavailableError("This OutboxRepository is closed.", "Create a new one.")
        if not self.is_connected():
            self._connection.close()
            self._connection = self._database.open()
        return self._connection


def _build_event(row: DictRow) -> OutboxEvent:
    """Build an event whose payload is text: parsed if it is JSON."""
    payload = row["payload"]
    return OutboxEvent.from_row(
        row | {"payload": None if payload is None else parse_json_or_text(payload)}
    )


def _escape_text(text: str | None, encoding: str | None) -> str | None:
    """Escape the characters that an encoding lacks; None: no character."""
    if text is None or encoding is None:
        return text
    return format_error_text(text.encode(encoding, "backslashreplace").decode(encoding))


def format_error_text(error: str | BaseException | None) -> str | None:
    """Return the error text to store: an exception with its traceback, storable and bounded.

    PostgreSQL cannot store NUL and lone surrogates; they are stored as escapes. A text of more than
    65,536 characters loses its middle, because the type of an exception is at one end and its root
    cause at the other.
    """
    if isinstance(error, BaseException):
        error = "".join(traceback.format_exception(error))
    if error is None:
        return None
    text = error.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= _MAX_ERROR_LENGTH:
        return text
    half = _MAX_ERROR_LENGTH // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
