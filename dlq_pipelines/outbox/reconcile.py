"""Compares the outbox, the ledger and the archive: finds missed deaths and missing events."""

import time
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.day import convert_to_zone
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import FIRST_CURSOR, build_cursor_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.missed import PAUSE_SECONDS, record_missed_deaths
from dlq_pipelines.validate import EventId, parse_event_id


@dataclass(frozen=True)
class ReconciliationResult:
    """The result of a reconciliation of the whole outbox and ledger.

    Attributes:
        missing: events in neither table that no retry delivered and no purge deleted.
        duplicated: events in both tables.
        missed: deaths that no trigger saw, recorded now.
        event_ids: at most 20 missing or duplicated events.
    """

    missing: int
    duplicated: int
    missed: int = 0
    event_ids: tuple[EventId, ...] = ()

    @property
    def is_balanced(self) -> bool:
        """Whether no event is missing, none is in both tables, and no death was missed."""
        return not (self.missing or self.duplicated or self.missed)


def reconcile_events(connection: Connection, *, now: datetime) -> ReconciliationResult:
    """Compare all events, record missed deaths, and store the result for the report of the day.

    Args:
        connection: in autocommit mode.
        now: the time of the reconciliation.
    """
    missed = record_missed_deaths(connection, now=now, is_missed=True)
    end_stale_deaths(connection)
    with connection.transaction():
        found = connection.fetch_one("reconcile.unaccounted")
        found["event_ids"] = found["event_ids"] or []
        connection.run("reconcile.record", now=now, missed=missed, **found)
    return ReconciliationResult(
        found["missing"],
        found["duplicated"],
        missed,
        tuple(map(parse_event_id, found["event_ids"])),
    )


def end_stale_deaths(connection: Connection) -> int:
    """End deaths of events that are no longer dead, which no trigger saw. Return how many."""
    ended: int = 0
    cursor = FIRST_CURSOR
    while True:
        batch = connection.fetch_one(
            "reconcile.end_stale", limit=BATCH, **build_cursor_parameters(cursor)
        )
        ended += batch["ended"]
        if batch["rows"] < BATCH:
            return ended
        cursor = batch["last_time"], batch["last_id"]
        time.sleep(PAUSE_SECONDS)


@dataclass(frozen=True)
class OutboxState:
    """The outbox as it is now.

    Attributes:
        dead: dead events.
        oldest_dead_at: the oldest death among them; None if no event is dead.
        waiting: events that the worker still has to deliver.
        oldest_due_at: the earliest due time among them; None if no event waits.
        rows: rows of the table; above 100,000 the planner's estimate.
    """

    dead: int
    oldest_dead_at: datetime | None
    waiting: int
    oldest_due_at: datetime | None
    rows: int


def read_outbox_state(connection: Connection) -> OutboxState:
    """Read the state of the outbox from its dead and its waiting events."""
    found = connection.fetch_one("reconcile.observe")
    return OutboxState(**found, rows=connection.fetch_one("reconcile.rows")["rows"])


def read_first_day(connection: Connection, zone: ZoneInfo) -> date | None:
    """Return the day of the first recorded death in a time zone; None if there is no death."""
    first: datetime | None = connection.fetch_one("reconcile.first_death")["died_at"]
    return None if first is None else convert_to_zone(first, zone).date()
