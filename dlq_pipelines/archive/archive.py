"""Which dead events are old enough to leave the hot table, and are they safe where they go?

They move in batches, each deleted and inserted by one statement in a transaction of its own with its audit row. A
killed run leaves whole batches moved and the rest where it was; the next run goes on.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.day import Day
from dlq_pipelines.operation import Act, record_operation
from dlq_pipelines.postgres.connect import Connection

BATCH = 5_000
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Archived:
    """What an archive run did; of a dry run, what it would do.

    Attributes:
        moved: events.
        batches: transactions.
        left: events that are old enough and stay: locked, targeted by an active fix, of a day that is not exported, or
            with an id that is in the archive already.
    """

    moved: int
    batches: int
    left: int


@dataclass(frozen=True)
class ExportedOnly:
    """Archive only events whose day, in this time zone, is exported completely."""

    zone: ZoneInfo


def archive_dead_events(  # noqa: PLR0913 - keyword-only
    connection: Connection,
    *,
    before: datetime,
    now: datetime,
    actor: str,
    reason: str,
    only: ExportedOnly | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Archived:
    """Move the events that died before that moment, and that no active fix targets, to the archive table.

    Args:
        connection: in autocommit mode.
        before: events that died earlier go.
        now: the moment that is written as `archived_at`.
        actor: who asks for it, for the audit.
        reason: why, for the audit.
        only: move nothing that is not exported; None: export is not asked for.
        run_id: the Dagster run that does it.
        dry_run: only count what would be moved, with the same conditions.
    """
    act = Act(actor, reason, now, run_id, dry_run)
    where = _conditions(connection, before, only)
    if dry_run:
        movable = connection.one("archive.count_movable", **where)["events"]
        return Archived(movable, -(-movable // BATCH), _left(connection, before) - movable)
    moved = batches = 0
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction():
            batch = connection.one("archive.move_batch", now=now, limit=BATCH, **where, **after)
            if batch["moved"]:
                record_operation(
                    connection, "archive.move", {"before": before.isoformat()}, act=act, events=batch["moved"]
                )
        if not batch["moved"]:
            return Archived(moved, batches, _left(connection, before))
        moved, batches = moved + batch["moved"], batches + 1
        after = {"after_time": batch["last_time"], "after_id": batch["last_id"]}


def _left(connection: Connection, before: datetime) -> int:
    return int(connection.one("archive.count_old", before=before)["events"])


def _conditions(connection: Connection, before: datetime, only: ExportedOnly | None) -> dict[str, object]:
    return {"before": before, "times": None if only is None else _exported_times(connection, before, only.zone)}


def _exported_times(connection: Connection, before: datetime, zone: ZoneInfo) -> str:
    """The times of the days that are exported completely, as a PostgreSQL multirange."""
    rows = connection.run("archive.exported_days", last_day=before.astimezone(zone).date())
    days = [Day.of(row["day"], zone) for row in rows]
    return str(
        connection.one(
            "archive.complete_days",
            days=[day.date for day in days],
            starts=[day.start for day in days],
            untils=[day.until for day in days],
        )["times"]
    )
