"""What does Dagster find here? Everything that `defs/` defines, and the resource that all of it uses."""

import warnings

import dagster as dg

# Single-run backfills are marked beta by Dagster; the notice at every start would bury the messages that matter.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

from dlq_pipelines.defs import alerts, archive, causes, exports, reports, retries, runs  # noqa: E402 - after the filter
from dlq_pipelines.defs.executor import select_executor  # noqa: E402 - after the filter
from dlq_pipelines.defs.resources import OutboxResource  # noqa: E402 - after the filter
from dlq_pipelines.settings import read_settings  # noqa: E402 - after the filter

defs = dg.Definitions(
    assets=[
        causes.outbox_event,
        causes.dead_event_causes,
        exports.dead_event_export,
        reports.failure_report,
        archive.dead_event_archive,
        archive.archive_purge,
    ],
    asset_checks=[
        causes.backlog_is_small,
        causes.rollup_matches_ledger,
        causes.stages_match_ledger,
        archive.books_balance,
        archive.archive_has_every_column,
        archive.nothing_stays_too_long,
    ],
    jobs=[
        causes.causes_job,
        exports.export_job,
        reports.report_job,
        archive.archive_job,
        archive.purge_job,
        retries.flag_fix_job,
        retries.retry_stage_job,
        retries.retry_dead_events_job,
        alerts.send_alerts_job,
        runs.clean_up_runs_job,
    ],
    schedules=[
        causes.causes_schedule,
        exports.export_schedule,
        reports.report_schedule,
        archive.archive_schedule,
        archive.purge_schedule,
        runs.clean_up_runs_schedule,
    ],
    sensors=[retries.fix_flag_sensor, alerts.dead_event_alert_sensor],
    resources={"outbox": OutboxResource()},
    executor=select_executor(read_settings()),
)
