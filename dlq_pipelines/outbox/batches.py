"""Processes the selected dead events in batches, each event once.

A batch is one statement: it reads deaths in the order of the cursor and locks the events that may
be released. If they are to be released, it makes them pending with their due times and writes them
to the ledger. A process that dies leaves all of a batch or nothing, and the next run goes on.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.dead_events import OtherEvent
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.conflicts import retry_after_conflict
from dlq_pipelines.postgres.connect import Connection

# Keyset cursor of deaths: (died_at, death_id).
DeathCursor = tuple[datetime, int]
# Parameters of the statement that takes a batch, by their names.
BatchParameters = dict[str, Any]
FIRST_CURSOR: DeathCursor = (datetime(1, 1, 1, tzinfo=UTC), 0)


@dataclass(frozen=True)
class RetryResult:
    """How many selected events were retried, or processed in another way.

    Attributes:
        events: dead events that were processed.
        batches: transactions that it took.
        locked: dead events that were skipped: locked by other transactions, or died after the count
            that was confirmed.
        parked: parked events that were skipped: they were retried too often.
    """

    events: int
    batches: int
    locked: int = 0
    parked: int = 0

    def __add__(self, more: "RetryResult") -> "RetryResult":
        return RetryResult(
            self.events + more.events,
            self.batches + more.batches,
            self.locked + more.locked,
            self.parked + more.parked,
        )


@dataclass(frozen=True)
class DeathBatch:
    """One batch of deaths.

    Attributes:
        taken: events that this transaction locked or released.
        deaths: their deaths, oldest first, if they were only locked. The text of a PostgreSQL
            array, which goes back as it came: thousands of numbers are not parsed.
        free: events that may be released; more than `taken` if there was no room for all, or if
            other transactions hold some.
        waiting: events that wait for an earlier event of their aggregate, which is in progress.
        held: events after a dead event of their aggregate.
        parked: events that were retried too often.
        rows: deaths that were read; fewer than `BATCH` in the last batch.
        last_time: the cursor's time after this batch.
        last_id: the cursor's death after this batch.
    """

    taken: int
    deaths: str
    free: int
    waiting: int
    held: int
    parked: int
    rows: int
    last_time: datetime
    last_id: int

    @property
    def ended(self) -> bool:
        """Whether this is the last batch."""
        return self.rows < BATCH

    @property
    def last(self) -> DeathCursor:
        """The cursor after which the next batch begins."""
        return self.last_time, self.last_id


def process_selection(
    connection: Connection,
    selection: Selection,
    take: Callable[[BatchParameters, int], DeathBatch],
    *,
    max_retries: int | None,
    options: RunOptions = RunOptions(),
    already: int = 0,
) -> RetryResult:
    """Process the selected events that are dead as this begins, oldest death first.

    Args:
        connection: in autocommit mode.
        selection: the dead events.
        take: called in a transaction for each batch, with the parameters of the batch and the
            number of events processed before. Returns the batch, with the events that it took, or
            would take in a dry run.
        max_retries: retries after which an event is parked and skipped; None: it is taken too.
        options: how the change runs. A dry run rolls each transaction back, because even locking
            rows runs the application's statement triggers.
        already: events that the same change processed before.

    Raises:
        NotFoundError: the cause does not exist.
    """
    parameters = build_batch_parameters(connection, selection, max_retries=max_retries)
    total = RetryResult(0, 0)

    def run_batch() -> DeathBatch:
        with connection.transaction(force_rollback=options.dry_run):
            return take(parameters, already + total.events)

    while True:
        parameters["room"] = options.remaining_in_batch(already + total.events, BATCH)
        batch = retry_after_conflict(run_batch)
        skipped = batch.free - batch.taken
        total += RetryResult(batch.taken, int(batch.taken > 0), skipped, batch.parked)
        options.progress(already + total.events)
        if batch.ended:
            return total
        parameters |= build_cursor_parameters(batch.last)


def lock_batch(connection: Connection, parameters: BatchParameters) -> DeathBatch:
    """Lock the events of a batch that may be released, until the transaction ends."""
    return _take_batch(
        connection,
        parameters,
        release=False,
        due=None,
        seconds_each=None,
        now=None,
        actor=None,
        reason=None,
    )


def release_batch(
    connection: Connection,
    parameters: BatchParameters,
    *,
    audit: AuditContext,
    rate: float | None = None,
    due: datetime | None = None,
) -> DeathBatch:
    """Release the events of a batch, the first of them due at `due`; None: now."""
    pace = {"seconds_each": compute_release_interval(rate), "due": due or audit.now}
    return _take_batch(
        connection,
        parameters,
        release=True,
        now=audit.now,
        actor=audit.actor,
        reason=audit.reason,
        **pace,
    )


def build_batch_parameters(
    connection: Connection, selection: Selection, *, max_retries: int | None = None
) -> BatchParameters:
    """Return the parameters of a retry without a fix.

    Only events that are dead now match, so an event that dies again meanwhile is not retried twice.
    """
    before = connection.fetch_one("session.clock")["now"]
    where = build_selection_parameters(connection, selection, before=before)
    own = {
        "before": before,
        "fix_id": None,
        "stage": None,
        "max_retries": max_retries,
        "ordered": False,
    }
    return {**where, **own, **build_cursor_parameters(FIRST_CURSOR), "room": BATCH}


def build_cursor_parameters(key: DeathCursor) -> BatchParameters:
    """Return the parameters that a batch after this cursor needs."""
    return {"after_time": key[0], "after_id": key[1]}


def compute_release_interval(rate: float | None) -> float:
    """Return the seconds between the due times of two events; a rate of None: 0."""
    return 1 / rate if rate else 0.0


def build_locked_error(events: int) -> RefusedError:
    """Return the error for named events that other transactions hold."""
    held = "this event" if events == 1 else f"these {events:,} events"
    return RefusedError(
        f"Other transactions hold {held}.", "Try again when those transactions have ended."
    )


def build_nothing_taken_error(
    done: RetryResult, kind: str, others: Collection[OtherEvent] = ()
) -> DlqError:
    """Return the error if no named event is of a `kind`, "dead" or "parked".

    Args:
        done: the result.
        kind: the kind of events.
        others: what the named events are instead, if it is known.
    """
    if done.locked:
        return build_locked_error(done.locked)
    states = Counter(other.state for other in others)
    found = ", ".join(f"{events:,} {state}" for state, events in states.items())
    return NotFoundError(
        f"None of these events is {kind}{f': {found}' if found else ''}.",
        "`dlq dead-events show ID` shows the history of one.",
    )


def summarize_selection(selection: Selection) -> dict[str, Any]:
    """Return the filters for the audit log, with at most a hundred ids."""
    filters = selection.to_json()
    ids = filters.pop("event_ids", None)
    if ids is None:
        return filters
    return {**filters, "event_ids": list(ids[:100]), "more": max(0, len(ids) - 100)}


def _take_batch(
    connection: Connection, parameters: BatchParameters, **release: object
) -> DeathBatch:
    return DeathBatch(**connection.fetch_one("retry.take", **parameters, **release, rows=BATCH))
