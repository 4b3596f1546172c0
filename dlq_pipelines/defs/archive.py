"""Which dead events leave the hot table?"""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from dlq_pipelines.archive.archive import ExportedOnly, archive_dead_events
from dlq_pipelines.defs.exports import dead_event_export
from dlq_pipelines.defs.partitions import SCHEDULES_START, TIMEZONE
from dlq_pipelines.defs.resources import GROUP, OWNERS, POOL, OutboxResource


class ArchiveConfig(dg.Config):
    """What the Launchpad offers."""

    older_than_days: int | None = Field(
        default=None, ge=0, le=36500, description="Days since death. Empty: DLQ_DEAD_RETENTION_DAYS."
    )
    reason: str = Field(default="retention", description="Why, for the audit.")


@dg.asset(
    deps=[dg.AssetDep(dead_event_export, partition_mapping=dg.AllPartitionMapping())],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    pool=POOL,
    metadata={"dagster/table_name": "outbox_event_archive"},
)
def dead_event_archive(
    context: dg.AssetExecutionContext, config: ArchiveConfig, outbox: OutboxResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Moves dead events that are **older than the retention** to the archive table.

    Runs at 03:00. Only events whose day is exported completely and that no active fix targets, in batches of 5,000,
    each one statement in a transaction of its own. Safe to run again: it goes on with what is left.
    """
    with outbox.session() as session:
        days = session.settings.dead_retention_days if config.older_than_days is None else config.older_than_days
        now = session.now
        archived = archive_dead_events(
            session.connection,
            before=now - timedelta(days=days),
            now=now,
            actor="dead_event_archive",
            reason=config.reason,
            only=ExportedOnly(session.settings.zone),
            run_id=context.run.run_id,
        )
    return dg.MaterializeResult(
        metadata={
            "moved": archived.moved,
            "batches": archived.batches,
            "old_enough_but_left": archived.left,
            "older_than_days": days,
        }
    )


@dg.asset_check(
    asset=dead_event_archive, description="Every event that ever died is in the outbox, in the archive, or delivered."
)
def books_balance(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Look for events of the ledger that are nowhere, or in both tables."""
    with outbox.session() as session:
        found = session.connection.one("archive.unaccounted")
    return dg.AssetCheckResult(
        passed=not found["missing"] and not found["doubled"],
        metadata={"missing": found["missing"], "doubled": found["doubled"], "examples": found["examples"] or []},
    )


archive_job = dg.define_asset_job(
    "archive_dead_events",
    selection=dg.AssetSelection.assets(dead_event_archive),
    description="Archives dead events past their retention.",
)

archive_schedule = dg.ScheduleDefinition(
    name="archive_daily",
    job=archive_job,
    cron_schedule="0 3 * * *",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    description="Keeps the hot table small.",
)
