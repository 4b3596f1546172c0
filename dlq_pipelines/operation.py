"""Who changed what, why, when? Every mutation writes it into `dlq.operation` in its own transaction."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from dlq_pipelines.outbox.event import positive, required, storable
from dlq_pipelines.postgres.connect import Connection

T = TypeVar("T")
# More events than this are changed only where somebody says so twice.
ASKED_ABOVE = 1_000
# Of the sentence that people read in the audit, in characters: a page of them.
LONGEST_REASON = 10_000
# A person's name and that of the token by which they ask.
_LONGEST_ACTOR = 300


@dataclass(frozen=True)
class Act:
    """Somebody does something for a reason.

    Attributes:
        actor: who asks for it: a person, or the job that runs by itself.
        reason: why, for whoever asks later.
        now: the moment; nothing below the faces reads the clock.
        run_id: the Dagster run that does it, if one does.
        dry_run: nothing is to be changed, only said what would be.
        at_most: change no more events than these, the number that was agreed to; None: all that are meant.
        progress: is told how many events are done so far, after each batch.

    Raises:
        ValueError: actor or reason is blank, too long, or cannot be stored; the message names it.
    """

    actor: str
    reason: str
    now: datetime
    run_id: str | None = None
    dry_run: bool = False
    at_most: int | None = None
    progress: Callable[[int], None] = lambda _: None

    def __post_init__(self) -> None:
        storable("actor", required("actor", self.actor), most=_LONGEST_ACTOR)
        storable("reason", required("reason", self.reason), most=LONGEST_REASON)

    def room(self, done: int, batch: int) -> int:
        """How many events the next batch may take, after so many: a whole batch, or what is left of `at_most`."""
        return batch if self.at_most is None else min(batch, self.at_most - done)


def record_operation(
    connection: Connection, kind: str, filter_: Mapping[str, object], *, act: Act, events: int = 0
) -> int:
    """Write one audit row, in the transaction of the change itself; returns its number.

    Args:
        connection: in a transaction.
        kind: concept and act, such as `archive.move`.
        filter_: what it was done to.
        act: who, why, when.
        events: how many events it changed.
    """
    row = connection.one(
        "operation.record",
        kind=kind,
        filter=json.dumps(filter_),
        events=events,
        now=act.now,
        actor=act.actor,
        reason=act.reason,
        run_id=act.run_id,
    )
    return int(row["id"])


def carry_out(
    do: Callable[[Act], T], act: Act, *, events: Callable[[T], int], permit: Callable[[int], None] | None
) -> T:
    """Do something to many events, once it is permitted for so many, and then to no more of them than were counted.

    What would be meant only by the time that a person has answered stays. A dry run needs no permission.

    Args:
        do: does it, or in a dry run counts it.
        act: who asks for it, and why.
        events: how many a result is of.
        permit: raises RefusedError where so many are not meant; None: any number is.
    """
    if permit is not None and not act.dry_run:
        found = do(replace(act, dry_run=True))
        if not events(found):
            return found
        permit(events(found))
        act = replace(act, at_most=events(found))
    return do(act)


@dataclass(frozen=True)
class Operation:
    """An audit row: who changed what, why and when.

    Attributes:
        kind: concept and act, such as `archive.move`.
        filter: what it was done to.
        events: how many events it changed.
        run_id: the Dagster run that did it, if one did.
    """

    id: int
    kind: str
    actor: str
    reason: str
    filter: dict[str, Any]
    events: int
    at: datetime
    run_id: str | None


def list_operations(connection: Connection, *, limit: int = 50, before: int | None = None) -> list[Operation]:
    """What was done, the last first.

    Args:
        connection: to the ledger.
        limit: how many at most, 1 to 1,000.
        before: only operations with a smaller number: the last one of the page before.
    """
    asked = {"limit": positive("limit", limit, most=1000), "before": before and positive("before", before)}
    return [Operation(**row) for row in connection.run("operation.list", **asked)]
