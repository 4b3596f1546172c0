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
from dlq_pipelines.text import plain_line

BATCH = 5_000
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Archived:
    """What an archive run did; of a dry run, what it would do.

    Attributes:
        moved: events.
        batches: transactions.
        left: events that are old enough and stay: targeted by an open fix, of a day that is not exported, or with an id
            that is in the archive already, or past what was agreed to. Not what others hold at the moment; the next
            run judges it.
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
        SchemaError: the archive table lacks a column of the outbox table, which the events would lose, or has a
            constraint that they break.
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
                batch = connection.one(
                    "archive.move_batch", limit=BATCH, room=act.room(moved, BATCH), now=act.now, **where, **after
                )
            if batch["moved"]:
                asked = {"before": before.isoformat()}
                record_operation(connection, "archive.move", asked, act=act, events=batch["moved"])
        moved, batches = moved + batch["moved"], batches + bool(batch["moved"])
        left += batch["rows"] - batch["moved"]
        act.progress(moved)
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
        NotFoundError: no such cause.
        SchemaError: the archive table lacks a column of the outbox table, which the events would lose, or has a
            constraint that they break.
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

    return take_selected(connection, selector, take, max_retries=None, act=act)


@contextmanager
def whole_rows() -> Iterator[None]:
    """Say why a table does not take the events: it lacks columns, or has a constraint of its own that they break.

    Raises:
        SchemaError: it names the columns, or the constraint and the row that is there.
    """
    try:
        yield
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise SchemaError(error.diag.message_primary) from None
    except psycopg.errors.UniqueViolation as error:
        table, constraint = f"{error.diag.schema_name}.{error.diag.table_name}", error.diag.constraint_name
        raise SchemaError(
            f"The constraint {constraint} of {table} refuses an event: "
            f"{plain_line(error.diag.message_detail or '', 500)} No event of this batch was moved. Change one of the "
            f"two rows, or drop the constraint: `alter table {table} drop constraint {constraint};`, of an index "
            "`drop index`. Then run it again."
        ) from None
