"""Measures how far the workers are behind, and finds events that they pass over."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import DictRow

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import format_count, sanitize_line
from dlq_pipelines.validate import EventId, parse_event_id

# Events that wait for longer although later ones were taken are reported. A worker that is healthy
# takes an event within minutes, and one that was away for a while catches up within an hour.
STUCK_AFTER = timedelta(hours=1)
_MOST_READ = 1_000


@dataclass(frozen=True)
class StuckEvents:
    """Events of a type that no worker takes, although it takes others that fell due later.

    Attributes:
        event_type: the type; None: they have none.
        events: how many of the first 1,000 events that no worker takes.
        has_more: there may be more of this type, and of others.
        event_id: the one that fell due first.
        due_at: when it fell due.
    """

    event_type: str | None
    events: int
    event_id: EventId
    due_at: datetime
    has_more: bool = False

    def __str__(self) -> str:
        least = "at least " if self.has_more else ""
        type_ = sanitize_line(self.event_type or "no type", 100)
        return f"{least}{format_count(self.events, 'event')} of {type_}"


def measure_queue_lag(connection: Connection, *, now: datetime, most: float) -> tuple[float, float]:
    """Return the queue lag and the time for which the oldest due event waits, in seconds.

    The two differ if workers pass that event over. Only if it waits for more than `most` seconds
    is that looked up.
    """
    oldest = connection.fetch_one("queue.oldest_due", now=now)["seconds"] or 0.0
    if oldest <= most:
        return oldest, oldest
    lag = next(row for row in _read_waiting(connection, now) if row["kind"] == "lag")
    return (now - lag["due_at"]).total_seconds() if lag["events"] else 0.0, oldest


def list_stuck_events(connection: Connection, *, now: datetime) -> list[StuckEvents]:
    """Return what has waited for more than an hour although later events were taken, by type.

    At most 20 types, the one that waits longest first. Such events stop no fix: see the queue lag.
    """
    oldest = connection.fetch_one("queue.oldest_due", now=now)["seconds"] or 0.0
    if oldest <= STUCK_AFTER.total_seconds():
        return []
    rows = [row for row in _read_waiting(connection, now) if row["kind"] == "stuck"]
    has_more = sum(row["events"] for row in rows) >= _MOST_READ
    return [
        StuckEvents(
            row["event_type"],
            row["events"],
            parse_event_id(row["event_id"]),
            row["due_at"],
            has_more,
        )
        for row in rows
    ]


def _read_waiting(connection: Connection, now: datetime) -> list[DictRow]:
    return connection.run(
        "queue.waiting", now=now, stuck_before=now - STUCK_AFTER, rows=_MOST_READ
    ).fetchall()
