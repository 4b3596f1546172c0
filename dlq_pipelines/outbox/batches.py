"""How does an act go through all that a selection means, page by page, each event taken once?

A page is one statement: it reads so many deaths by key, locks what may go, and where that is to be released makes it
pending with its due time and writes it into the ledger. A process that dies leaves either all of a page or nothing of
it, and whoever comes next goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection

# Of a death: when, and of which event. A walk goes in this order and on behind what it saw last.
DeathCursor = tuple[datetime, int]
# What a page of deaths is asked for, by the names of the statement.
BatchParameters = dict[str, Any]
FIRST_CURSOR: DeathCursor = (datetime(1, 1, 1, tzinfo=UTC), 0)


@dataclass(frozen=True)
class RetryResult:
    """How many of the events that were meant were dead and are pending now, in how many transactions.

    `locked` more are dead too, and were passed over: other transactions hold them, or they died after it was agreed how
    many go.
    """

    events: int
    batches: int
    locked: int = 0

    def __add__(self, more: "RetryResult") -> "RetryResult":
        return RetryResult(
            self.events + more.events, self.batches + more.batches, self.locked + more.locked
        )


@dataclass(frozen=True)
class DeathBatch:
    """What stands at one page of deaths.

    Attributes:
        taken: events that this transaction locked, or released.
        deaths: theirs, oldest first, where they were only locked. An array as PostgreSQL writes it: it goes back as it
            came, and thousands of numbers need not be read and written here.
        free: events that may go; more than were taken, where there was no room for all, or others hold them.
        waiting: events that follow one of their aggregate which is under way.
        held: events that follow a dead one of their aggregate.
        parked: events that were retried too often.
        rows: deaths that were read; fewer than `BATCH` in the last page.
        last_time: when the last of them was; of a page without any, that behind which it was to begin.
        last_id: which event the last of them was of, likewise.
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
        """Nothing comes behind it."""
        return self.rows < BATCH

    @property
    def last(self) -> DeathCursor:
        """Behind which death the next one begins."""
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
    """Do something with all that a selection means and that is dead as this begins, oldest death first.

    Args:
        connection: in autocommit mode.
        selection: the dead events.
        take: is given what a page of at most `BATCH` is asked for, and how many were done before, in a transaction of
            its own; returns the page, with how many of it were taken, or in a dry run would be.
        max_retries: events that died again after so many retries are passed over; None: taken too.
        act: who asks for it. Of a dry run each transaction is rolled back: also a look runs the application's own
            triggers of statements.
        already: events that were done before, of the same act.

    Raises:
        NotFoundError: no such cause.
    """
    asked = build_batch_parameters(connection, selection, max_retries=max_retries)
    total = RetryResult(0, 0)
    while True:
        asked["room"] = options.remaining_in_batch(already + total.events, BATCH)
        with connection.transaction(force_rollback=options.dry_run):
            page = take(asked, already + total.events)
        total += RetryResult(page.taken, int(page.taken > 0), page.free - page.taken)
        options.progress(already + total.events)
        if page.ended:
            return total
        asked |= build_cursor_parameters(page.last)


def lock_batch(connection: Connection, asked: BatchParameters) -> DeathBatch:
    """Lock what may go of a page, until the transaction ends."""
    return _page(
        connection,
        asked,
        release=False,
        due=None,
        seconds_each=None,
        now=None,
        actor=None,
        reason=None,
    )


def release_batch(
    connection: Connection,
    asked: BatchParameters,
    *,
    audit: AuditContext,
    rate: float | None = None,
    due: datetime | None = None,
) -> DeathBatch:
    """Release what may go of a page, the first of it due then or at once."""
    pace = {"seconds_each": compute_release_interval(rate), "due": due or audit.now}
    return _page(
        connection,
        asked,
        release=True,
        now=audit.now,
        actor=audit.actor,
        reason=audit.reason,
        **pace,
    )


def build_batch_parameters(
    connection: Connection, selection: Selection, *, max_retries: int | None = None
) -> BatchParameters:
    """What a person's retry asks for: what is dead as it begins, so that what dies again meanwhile does not follow."""
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
    """Where a page begins, by the names of the statement."""
    return {"after_time": key[0], "after_id": key[1]}


def compute_release_interval(rate: float | None) -> float:
    """Between two that fall due at so many events a second; None: all at once."""
    return 1 / rate if rate else 0.0


def build_locked_error(events: int) -> RefusedError:
    """What is said of events that were named and that other transactions hold."""
    held = "this event" if events == 1 else f"these {events:,} events"
    return RefusedError(f"Other transactions hold {held}. Try again when those have ended.")


def build_nothing_taken_error(done: RetryResult, kind: str) -> DlqError:
    """Why nothing happened to events that somebody named, which had to be of that kind: "dead" or "parked"."""
    if done.locked:
        return build_locked_error(done.locked)
    return NotFoundError(
        f"None of these events is {kind}. `dlq dead-events show ID` says what became of one."
    )


def summarize_selection(selection: Selection) -> dict[str, Any]:
    """What was asked for, for the audit: of many ids the first hundred, and how many more there were."""
    asked = selection.to_json()
    ids = asked.pop("event_ids", None)
    return (
        asked
        if ids is None
        else {**asked, "event_ids": list(ids[:100]), "more": max(0, len(ids) - 100)}
    )


def _page(connection: Connection, asked: BatchParameters, **release: object) -> DeathBatch:
    return DeathBatch(**connection.fetch_one("retry.take", **asked, **release, rows=BATCH))
