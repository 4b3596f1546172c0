"""Who changed what, why, when? Every mutation writes it into `dlq.operation` in its own transaction."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.outbox.event import required
from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class Act:
    """Somebody does something for a reason.

    Attributes:
        actor: who asks for it: a person, or the job that runs by itself.
        reason: why, for whoever asks later.
        now: the moment; nothing below the faces reads the clock.
        run_id: the Dagster run that does it, if one does.
        dry_run: nothing is to be changed, only said what would be.

    Raises:
        ValueError: actor or reason is blank.
    """

    actor: str
    reason: str
    now: datetime
    run_id: str | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        required("actor", self.actor)
        required("reason", self.reason)


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
