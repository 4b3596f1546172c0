"""How does a worker take and report events, and how does application code look at dead ones?

`OutboxRepository` is the programmer's face of this project, as the command line is the operator's: thin, over the
same operations and the same ledger. One object is for one thread; several workers each have their own.
"""

import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import psycopg

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
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.retries.retry import retry_events
from dlq_pipelines.validate import validate_aware, validate_not_negative, validate_positive

_ACTOR = "OutboxRepository"
# Longer than any traceback that people read; a runaway message must not bloat the hot table.
_ERROR_LENGTH = 65_536


class OutboxRepository:
    """The outbox, for a worker and for application code.

    Args:
        dsn: libpq connection string or URI.
        retry_backoff_seconds: how long after a failed attempt the next one is due.
        connect_timeout: seconds to wait for a connection.
        query_timeout: seconds that one statement may take.
        max_attempts: failed attempts after which an event is dead.
        lease_seconds: how long a fetched event belongs to its worker. A worker that dies with events gives them back
            after that time, so keep it longer than a batch's work. Default five minutes.
        names: the tables, where they are not called `public.outbox_event`.

    Raises:
        ValueError: an argument is out of its range; the message names it.
        DatabaseUnavailableError: no server answers.
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
        """Take up to `batch_size` due events, oldest due first. No other worker gets them during the lease."""
        limit = validate_positive("batch_size", batch_size, most=10_000)
        rows = (
            self._connected()
            .run("outbox.fetch_pending", limit=limit, lease=self.lease_seconds)
            .fetchall()
        )
        return [OutboxEvent.from_row(row) for row in rows]

    def mark_success(self, event_id: int) -> None:
        """Record that the event was delivered: done."""
        self._connected().run("outbox.mark_success", id=validate_positive("event_id", event_id))

    def mark_retry(self, event_id: int, error: str | BaseException | None = None) -> None:
        """Record a failed attempt: due again after the back-off, or dead when `max_attempts` is reached.

        Args:
            event_id: the event that failed.
            error: what went wrong. Inside an `except` block it can be left out: the exception being handled is
                taken, with its traceback. An exception given here is written with its traceback too.
        """
        self._connected().run(
            "outbox.mark_retry",
            id=validate_positive("event_id", event_id),
            error=format_error_text(sys.exception() if error is None else error),
            max_attempts=self.max_attempts,
            backoff=self.retry_backoff_seconds,
        )

    def fetch_dead_events(
        self,
        limit: int = 100,
        offset: int = 0,
        aggregate_type: str | None = None,
        event_type: str | None = None,
        since: datetime | None = None,
    ) -> list[OutboxEvent]:
        """Dead events, last death first. `since` means dead after that moment (with a time zone)."""
        rows = self._connected().run(
            "outbox.dead_events",
            limit=validate_positive("limit", limit, most=10_000),
            offset=validate_not_negative("offset", offset),
            aggregate_type=aggregate_type,
            event_type=event_type,
            since=validate_aware("since", since),
        )
        return [OutboxEvent.from_row(row) for row in rows]

    def list_dead_events(
        self,
        selection: Selection = ALL_DEAD_EVENTS,
        *,
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
    ) -> DeadEventPage:
        """Dead events that a selection means, the last death first; `after` is `next` of the page before."""
        return list_dead_events(
            self._connected(), selection, limit=limit, offset=offset, after=after
        )

    def get_dead_event_stats(self, selection: Selection = ALL_DEAD_EVENTS) -> DeadEventStats:
        """How many events are dead that a selection means, by type, cause and age."""
        return get_dead_event_stats(self._connected(), selection, now=datetime.now(UTC))

    def count_dead_events(
        self,
        aggregate_type: str | None = None,
        event_type: str | None = None,
        since: datetime | None = None,
        *,
        selection: Selection | None = None,
    ) -> int:
        """How many events are dead, with the filters of `fetch_dead_events`, or that a selection means."""
        if selection is not None:
            return count_dead_events(self._connected(), selection)
        row = self._connected().fetch_one(
            "outbox.count_dead_events",
            aggregate_type=aggregate_type,
            event_type=event_type,
            since=validate_aware("since", since),
        )
        return int(row["events"])

    def get_dead_event(self, event_id: int) -> OutboxEvent | None:
        """The event, if it is dead; None if it is not, or is not there."""
        row = (
            self._connected()
            .run("outbox.dead_event", id=validate_positive("event_id", event_id))
            .fetchone()
        )
        return OutboxEvent.from_row(row) if row else None

    def retry_dead_event(self, event_id: int) -> bool:
        """Make a dead event pending again, with no attempts and due now. False if it is not dead, or is held."""
        return self.retry_dead_events_batch([validate_positive("event_id", event_id)]) == 1

    def retry_dead_events_batch(self, ids: Sequence[int]) -> int:
        """Retry those of the events that are dead and return how many they were; the deaths stay in the ledger."""
        audit = AuditContext(_ACTOR, "retry_dead_events_batch", datetime.now(UTC))
        return retry_events(self._connected(), ids, audit=audit).events

    def cleanup_old_dead_events(self, older_than_days: int = 30) -> int:
        """Move events that died longer ago to the archive table and return how many. Nothing is deleted unarchived."""
        days = validate_not_negative("older_than_days", older_than_days, most=36_500)
        audit = AuditContext(_ACTOR, f"cleanup_old_dead_events({days})", datetime.now(UTC))
        before = audit.now - timedelta(days=days)
        return archive_dead_events(
            self._connected(), before=before, only_exported=False, audit=audit
        ).moved

    def is_connected(self) -> bool:
        """Whether the server answers on this connection. Does not reconnect."""
        try:
            self._connection.run("session.ping")
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        """Close the connection. What was fetched and not reported comes back after its lease."""
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

    def _connected(self) -> Connection:
        """The connection, opened again if the server dropped it: a worker outlives a restart of its database."""
        if self._closed:
            raise DatabaseUnavailableError("This OutboxRepository is closed. Make a new one.")
        if not self.is_connected():
            self._connection.close()
            self._connection = self._database.open()
        return self._connection


def format_error_text(error: str | BaseException | None) -> str | None:
    """The text that is stored: an exception with its traceback, made storable and bounded.

    PostgreSQL's text holds neither NUL nor lone surrogates; both are written as escapes. Of a text over 65,536
    characters the middle goes, because an exception's type is at one end and its root at the other.
    """
    if isinstance(error, BaseException):
        error = "".join(traceback.format_exception(error))
    if error is None:
        return None
    text = error.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= _ERROR_LENGTH:
        return text
    half = _ERROR_LENGTH // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
