"""Which dead events leave the hot table?"""

from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.purge import PurgeResult, count_purgeable, purge_archive, purge_deaths
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.exports import dead_event_export
from dlq_pipelines.defs.health import record_success_hook, report_check_result
from dlq_pipelines.defs.partitions import SCHEDULES_START, TIMEZONE
from dlq_pipelines.defs.resources import GROUP, OWNERS, POOL, OutboxResource, Session
from dlq_pipelines.defs.tables import ARCHIVE, describe_table
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.settings import read_settings
from dlq_pipelines.validate import validate_not_negative

_settings = read_settings()
_KNOWN = describe_table(_settings, _settings.outbox_schema, _settings.archive_table, ARCHIVE)


class ArchiveConfig(dg.Config):
    """What the Launchpad offers."""

    older_than_days: int | None = Field(
        default=None, description="Days since death, 0 to 36,500. Empty: DLQ_DEAD_RETENTION_DAYS."
    )
    reason: str = Field(default="retention", description="Why, for the audit.")
    dry_run: bool = Field(
        default=True, description="Only count what would move. Set to false to move it."
    )


class PurgeConfig(dg.Config):
    """What the Launchpad offers. How long what is kept is the installation's to say, not a run's."""

    dry_run: bool = Field(
        default=True,
        description="Only count what would be deleted. Set to false to delete it for good.",
    )


@dg.asset(
    deps=[dg.AssetDep(dead_event_export, partition_mapping=dg.AllPartitionMapping())],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    pool=POOL,
    freshness_policy=dg.FreshnessPolicy.cron(
        deadline_cron="0 5 * * *", lower_bound_delta=timedelta(hours=2), timezone=TIMEZONE
    ),
    metadata=_KNOWN,
)
def dead_event_archive(
    context: dg.AssetExecutionContext, config: ArchiveConfig, outbox: OutboxResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Moves dead events that are **older than the retention** to the archive table.

    Only events whose day is exported completely and that no open fix targets, in batches of 5,000, each one statement
    in a transaction of its own.

    - **When:** at 03:00, with `dry_run: false`. Materialized by hand it only counts, unless you say the same.
    - **Changes:** rows leave the outbox table for the archive table, with an audit row a batch.
    - **Rerun:** at any time: it goes on with what is left. `dlq archive restore` takes a move back.
    """
    with outbox.session() as session:
        settings = session.settings
        entered = config.older_than_days
        days = (
            settings.dead_retention_days
            if entered is None
            else validate_not_negative("older_than_days", entered, most=36500)
        )
        audit = AuditContext("dead_event_archive", config.reason, session.now, context.run.run_id)
        archived = archive_dead_events(
            session.connection,
            before=audit.now - timedelta(days=days),
            only_exported=settings.archive_requires_export,
            audit=audit,
            options=RunOptions(dry_run=config.dry_run),
        )
        soon = _purged_within_a_week(session)
        table = _table(session)
    return dg.MaterializeResult(
        metadata=table
        | {
            "moved": archived.moved,
            "batches": archived.batches,
            "old_enough_but_left": archived.left,
            "older_than_days": days,
            "dry_run": config.dry_run,
            "purged_within_a_week": soon,
        }
    )


def _table(session: Session) -> dict[str, Any]:
    """What the archive is after the run."""
    settings = session.settings
    rows = session.connection.fetch_one("archive.rows")["rows"]
    return session.table(settings.outbox_schema, settings.archive_table) | {
        "dagster/row_count": rows
    }


def _purged_within_a_week(session: Session) -> int:
    """What people who want to look at it again have to restore soon."""
    days = session.settings.archive_retention_days
    return (
        count_purgeable(session.connection, before=session.now - timedelta(days=days - 7))
        if days
        else 0
    )


@dg.asset(
    deps=[dead_event_archive],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    pool=POOL,
    freshness_policy=dg.FreshnessPolicy.cron(
        deadline_cron="0 6 * * 0", lower_bound_delta=timedelta(hours=2), timezone=TIMEZONE
    ),
    metadata=_KNOWN,
)
def archive_purge(
    context: dg.AssetExecutionContext, config: PurgeConfig, outbox: OutboxResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Deletes archived dead events past `DLQ_ARCHIVE_RETENTION_DAYS`, and of the ledger what is past its own retention.

    Which events were deleted stays known, and the daily rollup stays for good.

    - **When:** on Sundays at 04:00, with `dry_run: false`. By hand it only counts, unless you say the same.
    - **Changes:** deletes rows of the archive table and of the ledger **for good**, with an audit row a batch.
    - **Rerun:** at any time: it goes on with what is left. Nothing brings back what it deleted.
    """
    with outbox.session() as session:
        settings = session.settings
        audit = AuditContext("archive_purge", "retention", session.now, context.run.run_id)
        purged = forgotten = PurgeResult(0, 0)
        if settings.archive_retention_days:
            before = audit.now - timedelta(days=settings.archive_retention_days)
            purged = purge_archive(
                session.connection,
                before=before,
                audit=audit,
                options=RunOptions(dry_run=config.dry_run),
            )
        if settings.ledger_retention_days:
            before = audit.now - timedelta(days=settings.ledger_retention_days)
            forgotten = purge_deaths(
                session.connection,
                before=before,
                audit=audit,
                options=RunOptions(dry_run=config.dry_run),
            )
        soon = _purged_within_a_week(session)
        table = _table(session)
    return dg.MaterializeResult(
        metadata=table
        | {
            "events_purged": purged.events,
            "deaths_forgotten": forgotten.events,
            "purged_within_a_week": soon,
            "dry_run": config.dry_run,
        }
    )


@dg.asset_check(asset=dead_event_archive, description=describe_check("books_balance"))
def books_balance(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Look for events of the ledger that are nowhere, or in both tables."""
    with outbox.session() as session:
        found = reconcile_events(session.connection, now=session.now)
        figures = {
            "missing": found.missing,
            "doubled": found.doubled,
            "examples": list(found.examples),
        }
        return report_check_result(session, "books_balance", passed=found.balance, figures=figures)


@dg.asset_check(asset=dead_event_archive, description=describe_check("archive_has_every_column"))
def archive_has_every_column(outbox: OutboxResource) -> dg.AssetCheckResult:
    """A column that it lacks would be lost, so nothing is archived then; another type may not hold the value."""
    with outbox.session() as session:
        rows = session.connection.run("archive.columns_lacking").fetchall()
        wrong = [
            f"{row['column']} {row['type']} is archived as {row['archived_as'] or 'nothing'}"
            for row in rows
        ]
        figures: dict[str, object] = {"wrong": ", ".join(wrong) or "none"}
        return report_check_result(
            session, "archive_has_every_column", passed=not wrong, figures=figures
        )


@dg.asset_check(asset=dead_event_archive, description=describe_check("nothing_stays_too_long"))
def nothing_stays_too_long(outbox: OutboxResource) -> dg.AssetCheckResult:
    """What stays is of a day that is not exported completely: a warning, because nothing is lost."""
    with outbox.session() as session:
        days = session.settings.dead_retention_days + 1
        left = session.connection.fetch_one(
            "archive.count_movable", before=session.now - timedelta(days=days), times=None
        )["events"]
        figures = {"events": left, "older_than_days": days}
        return report_check_result(
            session,
            "nothing_stays_too_long",
            passed=not left,
            severity=Severity.WARNING,
            figures=figures,
        )


archive_job = dg.define_asset_job(
    "archive_dead_events",
    selection=dg.AssetSelection.assets(dead_event_archive),
    description=describe_definition(
        "Moves dead events past `DLQ_DEAD_RETENTION_DAYS` to the **archive** table, and checks the books.",
        when="At 03:00, by `archive_daily`. Launched by hand it only counts, unless `dry_run` is false.",
        changes="The outbox table and the archive table, and `dlq.audit`.",
        rerun="Re-execute it with the same configuration: what was moved is moved once.",
    ),
    owners=OWNERS,
    hooks={record_success_hook},
)

purge_job = dg.define_asset_job(
    "purge_archive",
    selection=dg.AssetSelection.assets(archive_purge),
    description=describe_definition(
        "Deletes **for good** what is past `DLQ_ARCHIVE_RETENTION_DAYS` in the archive and past "
        "`DLQ_LEDGER_RETENTION_DAYS` in the ledger.",
        when="On Sundays at 04:00, by `purge_weekly`. Launched by hand it only counts, unless `dry_run` is false.",
        changes="The archive table, `dlq.death` and `dlq.audit`.",
        rerun="Re-execute it with the same configuration: it goes on with what is left.",
    ),
    owners=OWNERS,
    hooks={record_success_hook},
)

purge_schedule = dg.ScheduleDefinition(
    name="purge_weekly",
    job=purge_job,
    run_config=dg.RunConfig(ops={"archive_purge": PurgeConfig(dry_run=False)}),
    cron_schedule="0 4 * * 0",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    owners=OWNERS,
    description=describe_automation(
        "Starts purge_archive with dry_run: false: what is past its retention is deleted for good.",
        when="On Sundays at 04:00 in DLQ_TIMEZONE.",
        changes="The archive table and the ledger of deaths; dlq.audit keeps how many.",
        rerun="A missed tick may wait for next Sunday; purge_archive with dry_run: false makes up for it now.",
    ),
)

archive_schedule = dg.ScheduleDefinition(
    name="archive_daily",
    job=archive_job,
    run_config=dg.RunConfig(ops={"dead_event_archive": ArchiveConfig(dry_run=False)}),
    cron_schedule="0 3 * * *",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    owners=OWNERS,
    description=describe_automation(
        "Starts archive_dead_events with dry_run: false: old dead events leave the table that workers poll.",
        when="At 03:00 in DLQ_TIMEZONE, after the exports.",
        changes="Moves rows from the outbox table to the archive table.",
        rerun="The next tick takes what a missed one left; archive_dead_events with dry_run: false takes it now.",
    ),
)
