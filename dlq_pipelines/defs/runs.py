"""Deletes Dagster's records of old runs, and keeps the latest record of every asset, day and check.

Dagster keeps runs and their events permanently, and a job that runs every five minutes fills its
database. Deleting a run deletes its events, and with them what Dagster knows about assets: when a
day was last exported, with which files, and whether at all. So a run is kept while it holds the
latest materialization, observation or attempt of an asset or of one of its days, or the latest
result of a check.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg
from dagster import DagsterEventType as Type
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from pydantic import Field

from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.schedules import define_schedule
from dlq_pipelines.defs.session import get_location_tag
from dlq_pipelines.links import OUTBOX_TAG

_ROOT_TAG = "dagster/root_run_id"
_BACKFILL_TAG = "dagster/backfill"
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_IN_PROGRESS = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
_PAGE = 200
# A day has about 300 runs; deleting this many takes about a minute.
_MAX_DELETED = 5_000
# Events of a run that say something about an asset, and the later events that supersede each. A
# later attempt supersedes an attempt, and so does any success, also the attempt's own.
_SUPERSEDED_BY = {
    Type.ASSET_MATERIALIZATION: [Type.ASSET_MATERIALIZATION],
    Type.ASSET_OBSERVATION: [Type.ASSET_OBSERVATION],
    Type.ASSET_MATERIALIZATION_PLANNED: [
        Type.ASSET_MATERIALIZATION_PLANNED,
        Type.ASSET_MATERIALIZATION,
    ],
    Type.ASSET_CHECK_EVALUATION: [],
}


@dataclass(frozen=True)
class CleanUpResult:
    """What a clean-up did, or would do as a dry run.

    Attributes:
        deleted: deleted runs.
        kept: runs that are old enough and hold the latest record of an asset, a day or a check.
    """

    deleted: int
    kept: int


def clean_up_runs(
    instance: dg.DagsterInstance,
    outbox: Outbox,
    *,
    before: datetime,
    location_tag: Mapping[str, str] | None = None,
    limit: int = _MAX_DELETED,
    dry_run: bool = False,
) -> CleanUpResult:
    """Delete an outbox's runs that ended before that time, oldest first, with events and logs.

    Its runs are those with the tag of its jobs, and those of its assets alone: a run that is
    launched from the page of an asset has no job. Other runs of the location are never touched.

    Events are deleted before their run: if the process is killed between the two, the next
    clean-up finds the run again.

    Args:
        instance: Dagster's instance, on persistent storage.
        outbox: whose runs are deleted.
        before: runs that ended at or after this time are kept.
        location_tag: the tag of the location's runs; None: the usual one. Outboxes of two
            locations may have the same label.
        limit: delete at most this many runs.
        dry_run: only count.
    """
    latest = _LatestRecords(instance)
    deleted = kept = 0
    tag = get_location_tag() if location_tag is None else location_tag
    for run_id in _list_old_runs(instance, outbox, before, tag):
        if deleted >= limit:
            break
        if latest.are_in(run_id):
            kept += 1
            continue
        if not dry_run:
            instance.event_log_storage.delete_events(run_id)
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.delete_run(run_id)
        deleted += 1
    return CleanUpResult(deleted, kept)


def _list_old_runs(
    instance: dg.DagsterInstance,
    outbox: Outbox,
    before: datetime,
    location_tag: Mapping[str, str],
) -> list[str]:
    """List all old runs before any is deleted: the cursor of a page is a run that must exist."""
    wanted = dg.RunsFilter(statuses=_FINISHED, tags=location_tag, updated_before=before)
    open_backfills = {
        backfill.backfill_id
        for backfill in instance.get_backfills(BulkActionsFilter(statuses=_IN_PROGRESS))
    }
    found: list[str] = []
    cursor = None
    while page := instance.get_run_records(wanted, limit=_PAGE, cursor=cursor, ascending=True):
        found += [
            record.dagster_run.run_id
            for record in page
            if record.end_time is not None
            and record.end_time < before.timestamp()
            and record.dagster_run.tags.get(_BACKFILL_TAG) not in open_backfills
            and _is_run_of(record.dagster_run, outbox)
        ]
        cursor = page[-1].dagster_run.run_id
    return found


def _is_run_of(run: dg.DagsterRun, outbox: Outbox) -> bool:
    if OUTBOX_TAG in run.tags:
        return run.tags[OUTBOX_TAG] == outbox.label
    selected = run.asset_selection or frozenset()
    return bool(selected) and selected <= outbox.asset_keys


class _LatestRecords:
    """The latest records of each asset and of each of its days, read once for all runs."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._latest: dict[tuple[dg.AssetKey, Type], dict[str | None, int]] = {}
        self._checks: dict[dg.AssetCheckKey, str] = {}

    def are_in(self, run_id: str) -> bool:
        """Return whether the run holds a latest record, or is the root of retried runs."""
        if self._instance.get_runs_count(dg.RunsFilter(tags={_ROOT_TAG: run_id})):
            # The UI shows a run with the runs that it was retried from, and fails without the root.
            return True
        cursor = None
        while True:
            page = self._instance.get_records_for_run(
                run_id, cursor, set(_SUPERSEDED_BY), limit=1_000
            )
            if any(
                self._is_latest(
                    record.storage_id, record.event_log_entry.get_dagster_event(), run_id
                )
                for record in page.records
            ):
                return True
            if not page.has_more:
                return False
            cursor = page.cursor

    def _is_latest(self, storage_id: int, event: dg.DagsterEvent, run_id: str) -> bool:
        if event.event_type is Type.ASSET_CHECK_EVALUATION:
            key = event.asset_check_evaluation_data.asset_check_key
            return self._find_run_of_check(key) == run_id
        if event.asset_key is None:
            return False
        days = (
            event.partitions_subset.get_partition_keys()
            if event.partitions_subset
            else [event.partition]
        )
        return any(
            all(
                storage_id >= self._find_latest_id(event.asset_key, type_, day)
                for type_ in _SUPERSEDED_BY[event.event_type]
            )
            for day in days
        )

    def _find_run_of_check(self, key: dg.AssetCheckKey) -> str:
        if key not in self._checks:
            latest = self._instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
            self._checks[key] = latest[key].run_id if key in latest else ""
        return self._checks[key]

    def _find_latest_id(self, asset: dg.AssetKey, type_: Type, day: str | None) -> int:
        """Return the storage id of the latest such event; 0 if there is no such event."""
        if (asset, type_) not in self._latest:
            by_day = self._instance.event_log_storage.get_latest_storage_id_by_partition(
                asset, type_
            )
            of_asset = self._find_latest_id_of_asset(asset, type_)
            self._latest[asset, type_] = {None: of_asset} | dict(by_day)
        return self._latest[asset, type_].get(day, 0)

    def _find_latest_id_of_asset(self, asset: dg.AssetKey, type_: Type) -> int:
        if type_ is Type.ASSET_MATERIALIZATION_PLANNED:
            planned = self._instance.event_log_storage.get_latest_planned_materialization_info(
                asset
            )
            return planned.storage_id if planned else 0
        fetch = (
            self._instance.fetch_observations
            if type_ is Type.ASSET_OBSERVATION
            else self._instance.fetch_materializations
        )
        return max((record.storage_id for record in fetch(asset, limit=1).records), default=0)


class CleanUpConfig(dg.Config):
    """Whether to delete. The installation sets the retention, not the run."""

    dry_run: bool = Field(
        default=True, description="Only count the runs. Set to false to delete them."
    )


def define_clean_up(outbox: Outbox) -> dg.Definitions:
    """Define the clean-up of runs and its schedule."""

    @dg.op(name=outbox.build_name("clean_up_runs_op"))
    @outbox.fill_in
    def clean_up_runs_op(context: dg.OpExecutionContext, config: CleanUpConfig) -> None:
        """Delete runs past `DLQ_RUN_RETENTION_DAYS`; with `dry_run`, count them."""
        with outbox.session() as session:
            days, now = session.settings.run_retention_days, session.now
        if not days:
            context.log.info(
                outbox.fill_in_names("DLQ_RUN_RETENTION_DAYS is 0: no run is deleted.")
            )
            return
        if type(context.instance).__module__.startswith("dagster_cloud"):
            context.log.info("Dagster+ keeps runs by its own retention: no run is deleted.")
            return
        result = clean_up_runs(
            context.instance,
            outbox,
            before=now - timedelta(days=days),
            location_tag=get_location_tag(context, outbox.name),
            dry_run=config.dry_run,
        )
        deleted = "Dry run: would delete" if config.dry_run else "Deleted"
        context.log.info(
            f"{deleted} {result.deleted:,} runs that ended more than {days} days ago. "
            f"{result.kept:,} are kept: they hold the latest record of an asset, a day or a check."
        )
        if not config.dry_run:
            with outbox.session() as session:
                session.record_success("clean_up_runs")
        context.add_output_metadata(
            {"runs_deleted": result.deleted, "runs_kept": result.kept, "dry_run": config.dry_run}
        )

    @dg.job(name=outbox.build_name("clean_up_runs"), owners=outbox.owners or None, tags=outbox.tags)
    @outbox.fill_in
    def clean_up_runs_job() -> None:
        """Deletes Dagster's records of **this outbox's old runs**.

        A run is old when it ended more than `DLQ_RUN_RETENTION_DAYS` ago. Keeps all runs that are
        not of this outbox's jobs or assets, runs of backfills in progress, and runs that hold the
        latest record of an asset, of one of its days or of a check.

        - **When:** {clean_up_runs_daily_by}. Launched by hand it is a dry run, unless
          `dry_run` is false.
        - **Changes:** deletes runs from Dagster's own database with their events and captured logs,
          at most 5,000, oldest first. Changes nothing in the outbox.
        - **Rerun:** at any time: it deletes the remaining runs.
        """
        clean_up_runs_op()

    schedule = define_schedule(
        outbox,
        "clean_up_runs_daily",
        job=clean_up_runs_job,
        run_config=outbox.build_run_config("clean_up_runs_op", CleanUpConfig(dry_run=False)),
        description=describe_automation(
            outbox,
            "Starts {clean_up_runs} with dry_run: false, so that Dagster's database stops growing.",
            when="{clean_up_runs_daily_at} in {timezone}.",
            changes="Deletes this outbox's runs that are older than DLQ_RUN_RETENTION_DAYS.",
            rerun="Not needed after a missed tick: the next one deletes those runs.",
        ),
    )
    return dg.Definitions(jobs=[clean_up_runs_job], schedules=schedule)
