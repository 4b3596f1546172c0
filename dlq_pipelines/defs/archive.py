"""Which dead events leave the hot table?"""

from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from dlq_pipelines.alerts.checks import CHECKS
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.books import check_books
from dlq_pipelines.archive.purge import Purged, count_purgeable, forget_deaths, purge_archive
from dlq_pipelines.defs.exports import dead_event_export
from dlq_pipelines.defs.health import checked, job_success
from dlq_pipelines.defs.partitions import SCHEDULES_START, TIMEZONE
from dlq_pipelines.defs.resources import GROUP, OWNERS, POOL, OutboxResource, Session
from dlq_pipelines.operation import Act
from dlq_pipelines.outbox.event import not_negative


class ArchiveConfig(dg.Config):
    """What the Launchpad offers."""

    older_than_days: int | None = Field(
        default=None, description="Days since death, 0 to 36,500. Empty: DLQ_DEAD_RETENTION_DAYS."
    )
    reason: str = Field(default="retention", description="Why, for the audit.")
    dry_run: bool = Field(default=True, description="Only count what would move. Set to false to move it.")


class PurgeConfig(dg.Config):
    """What the Launchpad offers. How long what is kept is the installation's to say, not a run's."""

    dry_run: bool = Field(
        default=True, description="Only count what would be deleted. Set to false to delete it for good."
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
)
def dead_event_archive(
    context: dg.AssetExecutionContext, config: ArchiveConfig, outbox: OutboxResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Moves dead events that are **older than the retention** to the archive table.

    Runs at 03:00. Materialized by hand it only counts, unless `dry_run` is set to false. Only events whose day is
    exported completely and that no active fix targets, in batches of 5,000, each one statement in a transaction of its
    own. Safe to run again: it goes on with what is left.
    """
    with outbox.session() as session:
        settings = session.settings
        entered = config.older_than_days
        days = settings.dead_retention_days if entered is None else not_negative("older_than_days", entered, most=36500)
        act = Act("dead_event_archive", config.reason, session.now, context.run.run_id, config.dry_run)
        archived = archive_dead_events(
            session.connection,
            before=act.now - timedelta(days=days),
            only_exported=settings.archive_requires_export,
            act=act,
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
    rows = session.connection.one("archive.rows")["rows"]
    return session.table(settings.outbox_schema, settings.archive_table) | {"dagster/row_count": rows}


def _purged_within_a_week(session: Session) -> int:
    """What people who want to look at it again have to restore soon."""
    days = session.settings.archive_retention_days
    return count_purgeable(session.connection, before=session.now - timedelta(days=days - 7)) if days else 0


@dg.asset(
    deps=[dead_event_archive],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    pool=POOL,
    freshness_policy=dg.FreshnessPolicy.cron(
        deadline_cron="0 6 * * 0", lower_bound_delta=timedelta(hours=2), timezone=TIMEZONE
    ),
)
def archive_purge(
    context: dg.AssetExecutionContext, config: PurgeConfig, outbox: OutboxResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Deletes archived dead events past `DLQ_ARCHIVE_RETENTION_DAYS`, and of the ledger what is past its own retention.

    Runs on Sundays at 04:00. Materialized by hand it only counts, unless `dry_run` is set to false. Which events were
    deleted stays known, each batch is an audit row, and the daily rollup stays for good. Safe to run again: it goes on
    with what is left.
    """
    with outbox.session() as session:
        settings = session.settings
        act = Act("archive_purge", "retention", session.now, context.run.run_id, config.dry_run)
        purged = forgotten = Purged(0, 0)
        if settings.archive_retention_days:
            before = act.now - timedelta(days=settings.archive_retention_days)
            purged = purge_archive(session.connection, before=before, act=act)
        if settings.ledger_retention_days:
            before = act.now - timedelta(days=settings.ledger_retention_days)
            forgotten = forget_deaths(session.connection, before=before, act=act)
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


@dg.asset_check(asset=dead_event_archive, description=CHECKS["books_balance"].promise)
def books_balance(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Look for events of the ledger that are nowhere, or in both tables."""
    with outbox.session() as session:
        found = check_books(session.connection, now=session.now)
        figures = {"missing": found.missing, "doubled": found.doubled, "examples": list(found.examples)}
        return checked(session, "books_balance", passed=found.balance, figures=figures)


@dg.asset_check(asset=dead_event_archive, description=CHECKS["archive_has_every_column"].promise)
def archive_has_every_column(outbox: OutboxResource) -> dg.AssetCheckResult:
    """A column that it lacks would be lost, so nothing is archived then; another type may not hold the value."""
    with outbox.session() as session:
        rows = session.connection.run("archive.columns_lacking").fetchall()
        wrong = [f"{row['column']} {row['type']} is archived as {row['archived_as'] or 'nothing'}" for row in rows]
        figures: dict[str, object] = {"wrong": ", ".join(wrong) or "none"}
        return checked(session, "archive_has_every_column", passed=not wrong, figures=figures)


@dg.asset_check(asset=dead_event_archive, description=CHECKS["nothing_stays_too_long"].promise)
def nothing_stays_too_long(outbox: OutboxResource) -> dg.AssetCheckResult:
    """What stays is of a day that is not exported completely: a warning, because nothing is lost."""
    with outbox.session() as session:
        days = session.settings.dead_retention_days + 1
        left = session.connection.one("archive.count_movable", before=session.now - timedelta(days=days), times=None)[
            "events"
        ]
        figures = {"events": left, "older_than_days": days}
        return checked(session, "nothing_stays_too_long", passed=not left, severity=Severity.WARNING, figures=figures)


archive_job = dg.define_asset_job(
    "archive_dead_events",
    selection=dg.AssetSelection.assets(dead_event_archive),
    description="Archives dead events past their retention.",
    hooks={job_success},
)

purge_job = dg.define_asset_job(
    "purge_archive",
    selection=dg.AssetSelection.assets(archive_purge),
    description="Deletes what is past the archive's and the ledger's retention.",
    hooks={job_success},
)

purge_schedule = dg.ScheduleDefinition(
    name="purge_weekly",
    job=purge_job,
    run_config=dg.RunConfig(ops={"archive_purge": PurgeConfig(dry_run=False)}),
    cron_schedule="0 4 * * 0",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    description="Keeps the archive to its retention.",
)

archive_schedule = dg.ScheduleDefinition(
    name="archive_daily",
    job=archive_job,
    run_config=dg.RunConfig(ops={"dead_event_archive": ArchiveConfig(dry_run=False)}),
    cron_schedule="0 3 * * *",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    description="Keeps the hot table small.",
)
