"""Archives old dead events and purges the archive."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.check import (
    count_archive_rows,
    count_overdue_events,
    list_column_differences,
)
from dlq_pipelines.archive.purge import PurgeResult, count_purgeable, purge_archive, purge_deaths
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.health import report_check_result
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.schedules import define_schedule
from dlq_pipelines.defs.session import Session
from dlq_pipelines.defs.tables import ARCHIVE, OUTBOX, build_lineage, describe_table
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.validate import validate_not_negative


class ArchiveConfig(dg.Config):
    """Which dead events to archive, and why."""

    older_than_days: int | None = Field(
        default=None,
        description="Days since the death, 0 to 36,500. Empty: the usual retention.",
    )
    reason: str = Field(default="retention", description="Reason for the audit log.")
    dry_run: bool = Field(
        default=True, description="Only count the events. Set to false to archive them."
    )


class PurgeConfig(dg.Config):
    """Whether to delete. The installation sets the retention, not the run."""

    dry_run: bool = Field(
        default=True,
        description="Only count the rows. Set to false to delete them permanently.",
    )


def define_archive(outbox: Outbox) -> dg.Definitions:
    """Define the archive, its purge, their checks, jobs and schedules."""
    archive_job, purge_job = _define_jobs(outbox)
    archive_schedule = define_schedule(
        outbox,
        "archive_daily",
        job=archive_job,
        run_config=outbox.build_asset_config("dead_event_archive", ArchiveConfig(dry_run=False)),
        description=describe_automation(
            outbox,
            "Starts {archive_dead_events} with dry_run: false, so that old dead events leave the "
            "table that workers poll.",
            when="{archive_daily_at} in {timezone}, after the exports.",
            changes="Moves rows from the outbox table to the archive.",
            rerun="The next tick moves what a missed one left; launch {archive_dead_events} with "
            "dry_run: false to archive now.",
        ),
    )
    purge_schedule = define_schedule(
        outbox,
        "purge_weekly",
        job=purge_job,
        run_config=outbox.build_asset_config("archive_purge", PurgeConfig(dry_run=False)),
        description=describe_automation(
            outbox,
            "Starts {purge_archive} with dry_run: false, which permanently deletes rows and files "
            "past their retention.",
            when="{purge_weekly_at} in {timezone}.",
            changes="The archive, the ledger of deaths, and files; {schema}.audit keeps their "
            "numbers.",
            rerun="A missed tick can wait for the next one; launch {purge_archive} with dry_run: "
            "false to purge now.",
        ),
    )
    return dg.Definitions(
        assets=[_define_archive_asset(outbox), _define_purge_asset(outbox)],
        asset_checks=_define_checks(outbox),
        jobs=[archive_job, purge_job, _define_reconcile_job(outbox)],
        schedules=[*archive_schedule, *purge_schedule],
    )


def _define_archive_asset(outbox: Outbox) -> dg.AssetsDefinition:
    @dg.asset(
        key=outbox.build_key("dead_event_archive"),
        deps=[
            dg.AssetDep(
                outbox.build_key("dead_event_export"), partition_mapping=dg.AllPartitionMapping()
            )
        ],
        group_name=outbox.group,
        owners=outbox.owners,
        kinds={"postgres"},
        pool=outbox.pool,
        output_required=False,  # a dry run materializes nothing
        freshness_policy=outbox.build_freshness("archive_daily", "0 5 * * *", hours=26),
        metadata=_describe_archive(outbox),
    )
    @outbox.fill_in
    def dead_event_archive(
        context: dg.AssetExecutionContext, config: ArchiveConfig
    ) -> Iterator[dg.MaterializeResult[None]]:
        """Moves dead events that are older than the retention to the archive table.

        Only moves events whose day is completely exported and that no open fix targets, in batches
        of 5,000; each batch is one statement in its own transaction.

        - **When:** {archive_daily_at}, with `dry_run: false`. Materialized by hand it is a dry run
          by default, which is an observation, runs no checks, and ends no alert.
        - **Changes:** rows leave the outbox table for the archive, with one audit entry for each
          batch.
        - **Rerun:** at any time: it moves the remaining events. `dlq archive restore` moves them
          back.
        """
        with outbox.session() as session:
            settings = session.settings
            days = (
                settings.dead_retention_days
                if config.older_than_days is None
                else validate_not_negative("older_than_days", config.older_than_days, most=36500)
            )
            audit = AuditContext(
                "dead_event_archive", config.reason, session.now, context.run.run_id
            )
            archived = archive_dead_events(
                session.connection,
                before=audit.now - timedelta(days=days),
                only_exported=settings.archive_requires_export,
                audit=audit,
                options=RunOptions(dry_run=config.dry_run),
            )
            yield from _report_result(
                context,
                session,
                "archive_dead_events",
                dry_run=config.dry_run,
                figures={
                    "moved": archived.moved,
                    "batches": archived.batches,
                    "old_enough_but_left": archived.left,
                    "older_than_days": days,
                },
            )

    return dead_event_archive


def _define_purge_asset(outbox: Outbox) -> dg.AssetsDefinition:
    @dg.asset(
        key=outbox.build_key("archive_purge"),
        deps=[outbox.build_key("dead_event_archive")],
        group_name=outbox.group,
        owners=outbox.owners,
        kinds={"postgres"},
        pool=outbox.pool,
        output_required=False,  # a dry run materializes nothing
        freshness_policy=outbox.build_freshness("purge_weekly", "0 6 * * 0", hours=170),
        metadata=_describe_archive(outbox),
    )
    @outbox.fill_in
    def archive_purge(
        context: dg.AssetExecutionContext, config: PurgeConfig
    ) -> Iterator[dg.MaterializeResult[None]]:
        """Deletes archived events, deaths and files that are past their retention.

        `DLQ_ARCHIVE_RETENTION_DAYS` applies to the archive, `DLQ_LEDGER_RETENTION_DAYS` to the
        ledger, `DLQ_EXPORT_RETENTION_DAYS` and `DLQ_REPORT_RETENTION_DAYS` to files. The ids of
        deleted events stay known, days without files still count as exported, and the daily rollup
        is kept.

        - **When:** {purge_weekly_at}, with `dry_run: false`. By hand it is a dry run by default.
        - **Changes:** **permanently** deletes rows of the archive and of the ledger, and files of
          exports and reports, with one audit entry for each batch and for each day.
        - **Rerun:** at any time: it deletes what is left. Deleted rows cannot be restored.
        """
        with outbox.session() as session:
            settings, connection = session.settings, session.connection
            audit = AuditContext("archive_purge", "retention", session.now, context.run.run_id)
            options = RunOptions(dry_run=config.dry_run)
            events = deaths = PurgeResult(0, 0)
            if settings.archive_retention_days:
                before = audit.now - timedelta(days=settings.archive_retention_days)
                events = purge_archive(connection, before=before, audit=audit, options=options)
            if settings.ledger_retention_days:
                before = audit.now - timedelta(days=settings.ledger_retention_days)
                deaths = purge_deaths(connection, before=before, audit=audit, options=options)
            exports, reports = _purge_files(session, audit, options)
            yield from _report_result(
                context,
                session,
                "purge_archive",
                dry_run=config.dry_run,
                figures={
                    "events_purged": events.events,
                    "deaths_purged": deaths.events,
                    "export_files_deleted": exports,
                    "report_files_deleted": reports,
                },
            )

    return archive_purge


def _describe_archive(outbox: Outbox) -> dict[str, Any]:
    settings, source = outbox.settings, outbox.build_key("outbox_event")
    lineage = build_lineage({column: (source, column) for column, *_ in OUTBOX})
    return describe_table(settings, settings.schema_name, "archived", ARCHIVE) | {
        "dagster/column_lineage": lineage
    }


def _report_result(
    context: dg.AssetExecutionContext,
    session: Session,
    job: str,
    *,
    dry_run: bool,
    figures: dict[str, Any],
) -> Iterator[dg.MaterializeResult[None]]:
    """Yield what a run did as a materialization; log a dry run as an observation."""
    metadata = _build_table_metadata(session) | figures | {"dry_run": dry_run}
    if dry_run:
        context.log_event(dg.AssetObservation(context.asset_key, metadata=metadata))
        return
    session.record_success(job)
    yield dg.MaterializeResult(metadata=metadata)


def _build_table_metadata(session: Session) -> dict[str, Any]:
    """Describe the archive after a run, and what the next purges delete."""
    settings = session.settings
    return session.describe_table(settings.schema_name, "archived") | {
        "dagster/row_count": count_archive_rows(session.connection),
        "purged_within_a_week": _count_purged_within_a_week(session),
    }


def _count_purged_within_a_week(session: Session) -> int:
    """Count the events that a person who still needs them has to restore soon."""
    days = session.settings.archive_retention_days
    if not days:
        return 0
    return count_purgeable(session.connection, before=session.now - timedelta(days=days - 7))


def _purge_files(session: Session, audit: AuditContext, options: RunOptions) -> tuple[int, int]:
    """Return the files of exports and of reports deleted because they are past their retention."""
    from dlq_pipelines.exports.purge import purge_export_files
    from dlq_pipelines.reports.purge import purge_report_files

    settings, connection = session.settings, session.connection
    today = audit.now.astimezone(settings.zone).date()
    exports = reports = 0
    if settings.export_retention_days:
        exports = purge_export_files(
            connection,
            before=today - timedelta(days=settings.export_retention_days),
            target=session.exports_target,
            audit=audit,
            options=options,
        ).files
    if settings.report_retention_days:
        reports = purge_report_files(
            connection,
            before=today - timedelta(days=settings.report_retention_days),
            zone=settings.zone,
            target=session.reports_target,
            audit=audit,
            options=options,
        ).files
    return exports, reports


def _define_checks(outbox: Outbox) -> list[dg.AssetChecksDefinition]:
    archive = outbox.build_key("dead_event_archive")

    @dg.asset_check(asset=archive, description=describe_check(outbox, "no_event_is_missing"))
    def no_event_is_missing(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Find events of the ledger that are in neither table, or in both, and deaths it missed."""
        with outbox.session() as session:
            found = reconcile_events(session.connection, now=session.now)
            if context.run.job_name == outbox.build_name("reconcile_events"):
                session.record_success("reconcile_events")
            figures = {
                "missing": found.missing,
                "duplicated": found.duplicated,
                "missed": found.missed,
                "event_ids": list(found.event_ids),
            }
            return report_check_result(
                session, "no_event_is_missing", passed=found.is_balanced, figures=figures
            )

    @dg.asset_check(asset=archive, description=describe_check(outbox, "archive_has_every_column"))
    def archive_has_every_column() -> dg.AssetCheckResult:
        """Find columns that the archive lacks or has in another type, and would lose."""
        with outbox.session() as session:
            wrong = ", ".join(list_column_differences(session.connection))
            return report_check_result(
                session,
                "archive_has_every_column",
                passed=not wrong,
                figures={"wrong": wrong or "none"},
            )

    @dg.asset_check(asset=archive, description=describe_check(outbox, "nothing_stays_too_long"))
    def nothing_stays_too_long() -> dg.AssetCheckResult:
        """Count events that should be archived. A warning, because no event is lost."""
        with outbox.session() as session:
            days = session.settings.dead_retention_days + 1
            events = count_overdue_events(
                session.connection, before=session.now - timedelta(days=days)
            )
            return report_check_result(
                session,
                "nothing_stays_too_long",
                passed=not events,
                severity=Severity.WARNING,
                figures={"events": events, "older_than_days": days},
            )

    return [no_event_is_missing, archive_has_every_column, nothing_stays_too_long]


def _define_jobs(outbox: Outbox) -> tuple[Any, Any]:
    archive_job = dg.define_asset_job(
        outbox.build_name("archive_dead_events"),
        selection=outbox.select("dead_event_archive"),
        description=describe_definition(
            outbox,
            "Moves dead events past `DLQ_DEAD_RETENTION_DAYS` to the **archive** table, and checks "
            "that no event is missing.",
            when="{archive_daily_by}. Launched by hand it is a dry run, unless `dry_run` is false.",
            changes="The outbox table, the archive and `{schema}.audit`.",
            rerun="Re-execute it with the same configuration: an event moves once.",
        ),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )

    purge_job = dg.define_asset_job(
        outbox.build_name("purge_archive"),
        selection=outbox.select("archive_purge"),
        description=describe_definition(
            outbox,
            "**Permanently** deletes archived events past `DLQ_ARCHIVE_RETENTION_DAYS`, deaths "
            "past `DLQ_LEDGER_RETENTION_DAYS`, and files past the retention of exports and "
            "reports.",
            when="{purge_weekly_by}. Launched by hand it is a dry run, unless `dry_run` is false.",
            changes="The archive, `{schema}.death`, `{schema}.audit`, and files of exports and "
            "reports.",
            rerun="Re-execute it with the same configuration: it deletes what is left.",
        ),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )
    return archive_job, purge_job


def _define_reconcile_job(outbox: Outbox) -> Any:
    return dg.define_asset_job(
        outbox.build_name("reconcile_events"),
        selection=outbox.select_check("dead_event_archive", "no_event_is_missing"),
        description=describe_definition(
            outbox,
            "Compares outbox, archive and **ledger**: finds missing and duplicated events, and "
            "records deaths that no trigger saw.",
            when="Launched by hand, such as after a restore. Each archive run does the same.",
            changes="Missed deaths in `{schema}.death`, and the result of the check.",
            rerun="At any time: a missed death is recorded once.",
        ),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )
