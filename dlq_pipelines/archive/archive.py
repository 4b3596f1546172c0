"""Which dead events are old enough to leave the hot table, and are they safe where they go?

They move in batches, each deleted and inserted by one statement in a transaction of its own with its audit row. A
killed run leaves whole batches moved and the rest where it was; the next run goes on. What a person gives up goes at
once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg

from dlq_pipelines.errors import SchemaError
from dlq_pipelines.operation import Act, record_operation
from dlq_pipelines.outbox.event import Selector
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.page import Asked, Page, Retried, lock_page, shown, take_selected

BATCH = 5_000
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Archived:
    """What an archive run did; of a dry run, what it would do.

    Attributes:
        moved: events.
        batches: transactions.
        left: events that are old enough and stay: targeted by an open fix, of a day that is not exported, or with an id
            that is in the archive already. Not what others hold at the moment; the next run judges it.
    """

    moved: int
    batches: int
    left: int


def archive_dead_events(connection: Connection, *, before: datetime, only_exported: bool, act: Act) -> Archived:
    """Move the events that died before that moment, and that no open fix targets, to the archive table.

    Args:
        connection: in autocommit mode.
        before: events that died earlier go.
        only_exported: move only events of days whose export holds every death.
        act: who asks for it, and why. Its moment is written as `archived_at`.

    Raises:
        SchemaError: the archive table lacks a column of the outbox table, which the events would lose.
    """
    where: dict[str, object] = {"before": before, "times": None}
    if only_exported:
        where["times"] = connection.one("archive.exported_times", before=before)["times"]
    if act.dry_run:
        movable = connection.one("archive.count_movable", **where)["events"]
        old = connection.one("archive.count_old", before=before)["events"]
        return Archived(movable, -(-movable // BATCH), max(0, old - movable))
    moved = batches = left = 0
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction():
            with whole_rows():
                batch = connection.one("archive.move_batch", limit=BATCH, now=act.now, **where, **after)
            if batch["moved"]:
                asked = {"before": before.isoformat()}
                record_operation(connection, "archive.move", asked, act=act, events=batch["moved"])
        moved, batches = moved + batch["moved"], batches + bool(batch["moved"])
        left += batch["rows"] - batch["moved"]
        if batch["rows"] < BATCH:
            return Archived(moved, batches, left)
        after = {"after_time": batch["last_time"], "after_id": batch["last_id"]}


def discard_events(connection: Connection, selector: Selector, *, act: Act) -> Retried:
    """Give dead events up: they go to the archive at once, and no filter brings them back.

    Args:
        connection: in autocommit mode.
        selector: the dead events, also such that are not exported or that an open fix targets: it goes on without them.
            One whose id is in the archive already stays.
        act: who gives them up, and why; both are kept with each event.

    Raises:
        SchemaError: the archive table lacks a column of the outbox table, which the events would lose.
    """

    def take(asked: Asked, _: int) -> Page:
        page = lock_page(connection, asked)
        free = connection.one("archive.discardable", deaths=page.deaths)
        if free["events"] and not act.dry_run:
            who = {"actor": act.actor, "reason": act.reason, "now": act.now}
            with whole_rows():
                connection.one("archive.discard", deaths=free["deaths"], **who)
            record_operation(connection, "archive.discard", shown(selector), act=act, events=free["events"])
        return replace(page, taken=free["events"], free=page.free - page.taken + free["events"])

    return take_selected(connection, selector, take, max_retries=None, dry_run=act.dry_run)


@contextmanager
def whole_rows() -> Iterator[None]:
    """Say which columns the archive lacks, as the database found it."""
    try:
        yield
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise SchemaError(error.diag.message_primary) from None
