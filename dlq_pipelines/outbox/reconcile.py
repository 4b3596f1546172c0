"""Compares the ledger with outbox and archive: finds events that are missing or in both."""

from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class ReconciliationResult:
    """The result of a reconciliation of the whole ledger.

    Attributes:
        missing: events in neither table that no retry delivered and no purge deleted.
        doubled: events in both tables.
        examples: ids of at most 20 of them.
    """

    missing: int
    doubled: int
    examples: tuple[int, ...] = ()

    @property
    def balance(self) -> bool:
        """Whether no event is missing and none is in both tables."""
        return not self.missing and not self.doubled


def reconcile_events(connection: Connection, *, now: datetime) -> ReconciliationResult:
    """Look for every event of the ledger; store the result for the report of the day."""
    with connection.transaction():
        found = connection.fetch_one("archive.unaccounted")
        found["examples"] = found["examples"] or []
        connection.run("archive.record_books", now=now, **found)
    return ReconciliationResult(found["missing"], found["doubled"], tuple(found["examples"]))


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
    """Read the state of the outbox from its two partial indexes."""
    found = connection.fetch_one("outbox.observe")
    return OutboxState(**found, rows=connection.fetch_one("outbox.rows")["rows"])
