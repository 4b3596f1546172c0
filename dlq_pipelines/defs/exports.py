"""Exports each day's deaths as files, and verifies them before the archive may rely on them."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.partitions import (
    Metadata,
    define_currency_check,
    define_daily_schedule,
    process_days,
)
from dlq_pipelines.defs.tables import build_lineage, build_table
from dlq_pipelines.exports.columns import EXPORT_COLUMNS
from dlq_pipelines.exports.missing import list_days_without_export
from dlq_pipelines.installation import build_export_options, get_exports_uri

if TYPE_CHECKING:
    from dlq_pipelines.exports.export import ExportResult

_CHECK = "export_is_complete"
_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn(column.name, column.type, description=column.description)
        for column in EXPORT_COLUMNS
    ]
)


def define_exports(outbox: Outbox) -> dg.Definitions:
    """Define the daily export, its job and its schedule."""
    export_job = dg.define_asset_job(
        outbox.build_name("export_day"),
        selection=outbox.select_days("dead_event_export", "export_is_current", "export_daily"),
        description=describe_definition(
            outbox,
            "Exports the deaths of a day, or of a range of days, as **files**, and reads the files "
            "back.",
            when="{export_daily_by}; by hand for the days that you choose.",
            changes="The files of these days under `DLQ_EXPORT_URI`, and their rows in "
            "`{schema}.export_day`.",
            rerun="Re-execute it, or launch a backfill: the files of a day are replaced.",
        ),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )
    export_schedule = define_daily_schedule(
        outbox,
        "export_daily",
        job=export_job,
        list_missing=list_days_without_export,
        description=describe_automation(
            outbox,
            "Exports the day that ended at midnight, the days of the last two weeks that have no "
            "verified export, and earlier days whose files are not right any more.",
            when="{export_daily_at} in {timezone}, one run for each day.",
            changes="The files of these days, and their rows in {schema}.export_day.",
            rerun="The next tick catches up after a missed one; backfill dead_event_export for "
            "older days.",
        ),
    )
    return dg.Definitions(
        assets=[_define_export_asset(outbox)],
        asset_checks=define_currency_check(
            outbox,
            "export_is_current",
            asset="dead_event_export",
            schedule="export_daily",
            list_missing=list_days_without_export,
        ),
        jobs=[export_job],
        schedules=export_schedule,
    )


def _define_export_asset(outbox: Outbox) -> dg.AssetsDefinition:
    @dg.asset(
        key=outbox.build_key("dead_event_export"),
        deps=[outbox.build_key("dead_event_causes")],
        partitions_def=outbox.days,
        backfill_policy=outbox.backfill_policy,
        group_name=outbox.group,
        owners=outbox.owners,
        kinds={"postgres", "parquet"},
        metadata={
            "dagster/column_lineage": _build_lineage(outbox),
            "dagster/uri": get_exports_uri(outbox.settings),
            "dagster/column_schema": _COLUMNS,
        },
        # Part of the asset: an asset check with partitions of its own is a preview feature of
        # Dagster.
        check_specs=[
            dg.AssetCheckSpec(
                _CHECK,
                asset=outbox.build_key("dead_event_export"),
                blocking=True,
                description=describe_check(outbox, _CHECK),
            )
        ],
    )
    @outbox.fill_in
    def dead_event_export(
        context: dg.AssetExecutionContext,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster expects it without arguments
        """All deaths of a day as Parquet, CSV and JSON Lines.

        The files are in `died_on=YYYY-MM-DD/`, `_csv/` and `_jsonl/`. `DLQ_EXPORT_URI` sets the
        target, `DLQ_EXPORT_FORMATS` the formats; `_manifest.json` next to the Parquet file lists
        the files. A day is refused until it has ended and all of its deaths have a cause, and while
        another run exports it.

        - **When:** {export_daily_at} for the day before, for missed days of the last two weeks, and
          for days with a death that was recorded since, or with other bounds by `DLQ_TIMEZONE`.
        - **Changes:** the day's files and its row in `{schema}.export_day`; no event.
        - **Rerun:** any day, or a backfill of any range in one run: files are replaced, and a
          refused day stops no other day.
        """
        # pyarrow and the driver take half a second, which loading the definitions should not.
        from dlq_pipelines.exports.export import export_day, verify_day

        with outbox.session() as session:
            connection, target = session.connection, session.exports_target
            options = build_export_options(session.settings)

            def export(key: str) -> tuple[Metadata, list[str]]:
                day = session.parse_day(key)
                exported = export_day(
                    connection,
                    url=session.export_url,
                    day=day,
                    target=target,
                    now=session.now,
                    options=options,
                )
                context.log.info(f"{key}: exported {exported.rows} deaths to {exported.folder}")
                differences = verify_day(connection, day=day, target=target, now=session.now)
                return _build_metadata(exported), [f"{key}: {found}" for found in differences]

            return process_days(context, session, export, job="export_day", check=_CHECK)

    return dead_event_export


def _build_lineage(outbox: Outbox) -> dg.TableColumnLineage:
    event, cause = outbox.build_key("outbox_event"), outbox.build_key("dead_event_causes")
    same = ("aggregate_type", "aggregate_id", "event_type", "payload", "created_at", "attempts")
    return build_lineage(
        {
            "event_id": (event, "id"),
            **{column: (event, column) for column in same},
            "error": (event, "last_error"),
            "cause_id": (cause, "id"),
            "exception_type": (cause, "exception_type"),
            "template": (cause, "template"),
        }
    )


def _build_metadata(exported: "ExportResult") -> Metadata:
    folder = exported.folder
    files = [(file.name, file.bytes, file.sha256) for file in exported.files]
    return {
        "dagster/row_count": dg.MetadataValue.int(exported.rows),
        "dagster/uri": dg.MetadataValue.text(folder if "://" in folder else Path(folder).as_uri()),
        "folder": dg.MetadataValue.path(folder),
        "files": build_table(("file", "bytes", "sha256"), files),
        # Null in the files, because no reader can hold them.
        "unrepresentable_times": dg.MetadataValue.json(exported.unrepresentable_times),
    }
