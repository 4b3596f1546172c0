"""What may be deleted for good, and does anybody know afterwards that it was there?

The purge deletes archived dead events past their retention and keeps which they were, so the books still balance.
Later the ledger forgets deaths past its own, longer retention, of events that are nowhere any more. The daily rollup
stays. A retry whose outcome nobody has written down yet keeps the deaths of its event in the ledger, by which that is
told. It does not keep the archived event: one that is dead there died again since, and the ledger says so.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.postgres.connect import Connection

BATCH = 5_000
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PurgeResult:
    """How many rows were deleted, in how many transactions; of a dry run, how many would be."""

    events: int
    batches: int


def purge_archive(
    connection: Connection,
    *,
    before: datetime,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> PurgeResult:
    """Delete dead events that were archived before that moment.

    Args:
        connection: in autocommit mode.
        before: what was archived earlier goes.
        audit: who makes the change, and why.
        options: how the change runs.
    """
    if options.dry_run:
        events = count_purgeable(connection, before=before)
        return PurgeResult(events, -(-events // BATCH))
    events = batches = 0
    while limit := options.remaining_in_batch(events, BATCH):
        with connection.transaction():
            gone = connection.fetch_one("archive.purge", before=before, limit=limit)
            ids = gone["ids"]
            if ids:
                asked = {"before": before.isoformat()}
                audit_id = record_audit_entry(
                    connection,
                    "archive.purge",
                    asked,
                    audit=audit,
                    events=len(ids),
                )
                connection.run("archive.note_purged", **gone, audit_id=audit_id, now=audit.now)
        if not ids:
            break
        events, batches = events + len(ids), batches + 1
        options.progress(events)
    return PurgeResult(events, batches)


def count_purgeable(connection: Connection, *, before: datetime) -> int:
    """How many dead events were archived before that moment."""
    return int(connection.fetch_one("archive.count_purgeable", before=before)["events"])


def purge_deaths(
    connection: Connection,
    *,
    before: datetime,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> PurgeResult:
    """Delete deaths before that moment from the ledger, of events that are delivered or purged, with their retries.

    Args:
        connection: in autocommit mode.
        before: deaths that happened earlier go. The rollup of their days stays.
        act: who asks for it, and why. A dry run deletes and rolls back: what would go depends on each event.
    """
    events = batches = 0
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction(force_rollback=options.dry_run):
            page = connection.fetch_one("archive.forget", before=before, limit=BATCH, **after)
            if page["forgotten"]:
                asked = {"before": before.isoformat()}
                record_audit_entry(
                    connection,
                    "ledger.forget",
                    asked,
                    audit=audit,
                    events=page["forgotten"],
                )
        events, batches = events + page["forgotten"], batches + bool(page["forgotten"])
        if page["rows"] < BATCH:
            return PurgeResult(events, batches)
        after = {"after_time": page["last_time"], "after_id": page["last_id"]}
