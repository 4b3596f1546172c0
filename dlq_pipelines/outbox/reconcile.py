"""Is every event that ever died in exactly one place, and what did earlier looks find?"""

from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class ReconciliationResult:
    """What a check of the whole ledger found.

    Attributes:
        missing: events that are in neither table, though no retry delivered them and no purge counted them.
        doubled: events that are in both.
        examples: ids of up to 20 of them.
    """

    missing: int
    doubled: int
    examples: tuple[int, ...] = ()

    @property
    def balance(self) -> bool:
        """Whether nothing is lost and nothing is there twice."""
        return not self.missing and not self.doubled


def reconcile_events(connection: Connection, *, now: datetime) -> ReconciliationResult:
    """Look for every event of the ledger, and write down what was found and when: reports of that day say it."""
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
