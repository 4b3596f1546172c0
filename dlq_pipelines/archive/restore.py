"""How does an archived dead event come back, for a fix that came late?

As dead, with the moment of its death: the ledger knows that death already and records no second one. In batches, each
deleted and inserted by one statement in a transaction of its own with its audit row.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from dlq_pipelines.archive.archive import BATCH, whole_rows
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.operation import Act, record_operation
from dlq_pipelines.outbox.event import Selector
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.ledger import means
from dlq_pipelines.retries.page import held_by_others, shown
from dlq_pipelines.text import counted

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Restored:
    """What came back; of a dry run, what would.

    Attributes:
        events: dead in the outbox again.
        batches: transactions.
        blocked: stay, because the outbox has an event of their id.
        discarded: stay, because a person gave them up and they were not named by id.
        locked: stay, because other transactions hold them.
    """

    events: int
    batches: int
    blocked: int
    discarded: int
    locked: int


def restore_events(connection: Connection, selector: Selector, *, act: Act) -> Restored:
    """Bring back the archived dead events that a selector means.

    Args:
        connection: in autocommit mode.
        selector: of their last death. With `event_ids` also those that a person gave up.
        act: who asks for it, and why.

    Raises:
        NotFoundError: no such cause.
        SchemaError: the archive table lacks a column of the outbox table, or an event breaks a constraint of that one.
    """
    where = means(connection, selector, before=None)
    total = Restored(0, 0, 0, 0, 0)
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction():
            page = connection.one("archive.restorable", limit=BATCH, **where, **after)
            ids = page["ids"][: act.room(total.events, BATCH)]
            if ids and not act.dry_run:
                with whole_rows():
                    connection.one("archive.restore", ids=ids, now=act.now)
                record_operation(connection, "archive.restore", shown(selector), act=act, events=len(ids))
        total = Restored(
            total.events + len(ids),
            total.batches + bool(ids),
            total.blocked + page["blocked"],
            total.discarded + page["discarded"],
            total.locked + page["locked"],
        )
        act.progress(total.events)
        if page["rows"] < BATCH:
            return total
        after = {"after_time": page["last_time"], "after_id": page["last_id"]}


def none_restored(done: Restored) -> DlqError:
    """Why none of the events came back that somebody named by their ids."""
    if done.locked:
        return held_by_others(done.locked)
    if done.blocked:
        return RefusedError(
            f"{counted(done.blocked, 'event stays', 'events stay')} archived: the outbox has the same id."
        )
    return NotFoundError("None of these events is archived as dead. `dlq dead-events show ID` says where one is.")
