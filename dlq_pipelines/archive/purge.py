"""Purges archived events past their retention, and deaths past the retention of the ledger.

Purging the archive keeps the ids of the events, so that the reconciliation still accounts for
them. Purging the ledger deletes deaths of events that are in no table any more; the daily rollup
stays. A retry without an outcome keeps the deaths of its event in the ledger, because the outcome
follows from them. It does not keep the archived event: an event that is archived as dead died
again after the retry, and the ledger has that death.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.postgres.connect import Connection

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PurgeResult:
    """Number of deleted rows and of transactions; of a dry run, what a real run would delete."""

    events: int
    batches: int


def purge_archive(
    connection: Connection,
    *,
    before: datetime,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> PurgeResult:
    """Delete events that were archived as dead before a time.

    Args:
        connection: in autocommit mode.
        before: delete events that were archived before this time.
        audit: who makes the change, and why.
        options: how the change runs.
    """
    if options.dry_run:
        events = count_purgeable(connection, before=before)
        return PurgeResult(events, -(-events // BATCH))
    events = batches = 0
    while limit := options.remaining_in_batch(events, BATCH):
        with connection.transaction():
            purged = connection.fetch_one("archive.purge", before=before, limit=limit)
            count = len(purged["deaths"])
            if count:
                filter_ = {"before": before.isoformat()}
                audit_id = record_audit_entry(
                    connection, "archive.purge", filter_, audit=audit, events=count
                )
                connection.run("archive.record_purged", **purged, audit_id=audit_id, now=audit.now)
        if not count:
            break
        events, batches = events + count, batches + 1
        options.progress(events)
    return PurgeResult(events, batches)


def count_purgeable(connection: Connection, *, before: datetime) -> int:
    """Count the events that were archived as dead before a time."""
    return int(connection.fetch_one("archive.count_purgeable", before=before)["events"])


def purge_deaths(
    connection: Connection,
    *,
    before: datetime,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> PurgeResult:
    """Delete deaths before a time, with their retries, of events that are delivered or purged.

    Args:
        connection: in autocommit mode.
        before: delete deaths before this time. The rollup of their days stays.
        audit: who makes the change, and why.
        options: how the change runs. A dry run deletes and rolls back, because each event decides
            whether its deaths can go.
    """
    events = batches = 0
    after = {"after_time": _BEGINNING, "after_id": 0}
    while True:
        with connection.transaction(force_rollback=options.dry_run):
            page = connection.fetch_one("archive.purge_deaths", before=before, limit=BATCH, **after)
            if page["purged"]:
                filter_, count = {"before": before.isoformat()}, page["purged"]
                record_audit_entry(connection, "ledger.purge", filter_, audit=audit, events=count)
        events, batches = events + page["purged"], batches + bool(page["purged"])
        if page["rows"] < BATCH:
            return PurgeResult(events, batches)
        after = {"after_time": page["last_time"], "after_id": page["last_id"]}
