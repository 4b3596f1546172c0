"""Which of Dagster's records of our runs are old enough to go, and would anything that people look at go with them?

Dagster keeps runs and their events for ever; a job that runs every five minutes fills its database. Deleting a run
deletes its events, and with them what Dagster knows of assets: when a day was exported last, with which files, and that
it was at all. So a run stays while it is the last word on anything: the last materialization, observation or attempt of
an asset or of one of its days, or the last result of a check.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterEventType as Type
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from pydantic import Field

from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.health import record_success_hook
from dlq_pipelines.defs.partitions import SCHEDULES_START, TIMEZONE
from dlq_pipelines.defs.resources import OWNERS, get_location_tag
from dlq_pipelines.settings import read_settings

_ROOT = "dagster/root_run_id"
_BACKFILL = "dagster/backfill"
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_UNDER_WAY = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
_PAGE = 200
# A day has some 300 runs of ours; a minute of deleting.
_LIMIT = 5_000


@dataclass(frozen=True)
class CleanUpResult:
    """What a clean-up did; of a dry run, what it would do.

    Attributes:
        deleted: runs.
        kept: runs that are as old, and the last word on something.
    """

    deleted: int
    kept: int


def clean_up_runs(
    instance: dg.DagsterInstance,
    *,
    before: datetime,
    ours: Mapping[str, str] | None = None,
    limit: int = _LIMIT,
    dry_run: bool = False,
) -> CleanUpResult:
    """Delete our runs that ended before that moment, oldest first, with their events and captured logs.

    The events go before the run: killed between the two, it finds the run again.

    Args:
        instance: Dagster's, on persistent storage.
        before: runs that ended later stay.
        ours: the tag of our runs; None: the usual one.
        limit: most runs to delete.
        dry_run: only count.
    """
    last_words = _LastWords(instance)
    deleted = kept = 0
    for run_id in _old_runs(instance, before, get_location_tag() if ours is None else ours):
        if deleted >= limit:
            break
        if last_words.has(run_id):
            kept += 1
            continue
        if not dry_run:
            instance.event_log_storage.delete_events(run_id)
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.delete_run(run_id)
        deleted += 1
    return CleanUpResult(deleted, kept)


def _old_runs(instance: dg.DagsterInstance, before: datetime, ours: Mapping[str, str]) -> list[str]:
    """All of them first, by pages: the cursor is a run, and would lead nowhere once it is deleted."""
    wanted = dg.RunsFilter(statuses=_FINISHED, tags=ours, updated_before=before)
    open_backfills = {
        backfill.backfill_id
        for backfill in instance.get_backfills(BulkActionsFilter(statuses=_UNDER_WAY))
    }
    found: list[str] = []
    cursor = None
    while page := instance.get_run_records(wanted, limit=_PAGE, cursor=cursor, ascending=True):
        found += [
            record.dagster_run.run_id
            for record in page
            if record.end_time is not None
            and record.end_time < before.timestamp()
            and record.dagster_run.tags.get(_BACKFILL) not in open_backfills
        ]
        cursor = page[-1].dagster_run.run_id
    return found


class _LastWords:
    """What is known last of each asset and of each of its days, asked once for all runs."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._newest: dict[tuple[dg.AssetKey, Type], dict[str | None, int]] = {}
        self._checks: dict[dg.AssetCheckKey, str] = {}

    def has(self, run_id: str) -> bool:
        """Whether something would be unknown, or a run lose its origin, without this run."""
        if self._instance.get_runs_count(dg.RunsFilter(tags={_ROOT: run_id})):
            return True  # the UI shows a run with those it was retried from, and fails where the first one is missing
        cursor = None
        while True:
            page = self._instance.get_records_for_run(run_id, cursor, set(_SPOKEN), limit=1_000)
            if any(
                self._is_last(record.storage_id, record.event_log_entry.get_dagster_event(), run_id)
                for record in page.records
            ):
                return True
            if not page.has_more:
                return False
            cursor = page.cursor

    def _is_last(self, storage_id: int, event: dg.DagsterEvent, run_id: str) -> bool:
        if event.event_type is Type.ASSET_CHECK_EVALUATION:
            return self._run_of_check(event.asset_check_evaluation_data.asset_check_key) == run_id
        if event.asset_key is None:
            return False
        days = (
            event.partitions_subset.get_partition_keys()
            if event.partitions_subset
            else [event.partition]
        )
        return any(
            all(
                storage_id >= self._last(event.asset_key, type_, day)
                for type_ in _SPOKEN[event.event_type]
            )
            for day in days
        )

    def _run_of_check(self, key: dg.AssetCheckKey) -> str:
        if key not in self._checks:
            latest = self._instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
            self._checks[key] = latest[key].run_id if key in latest else ""
        return self._checks[key]

    def _last(self, asset: dg.AssetKey, type_: Type, day: str | None) -> int:
        """The number of the last such event, 0 where there is none."""
        if (asset, type_) not in self._newest:
            by_day = self._instance.event_log_storage.get_latest_storage_id_by_partition(
                asset, type_
            )
            self._newest[asset, type_] = {None: self._last_of_asset(asset, type_)} | dict(by_day)
        return self._newest[asset, type_].get(day, 0)

    def _last_of_asset(self, asset: dg.AssetKey, type_: Type) -> int:
        if type_ is Type.ASSET_MATERIALIZATION_PLANNED:
            planned = self._instance.event_log_storage.get_latest_planned_materialization_info(
                asset
            )
            return planned.storage_id if planned else 0
        observed = type_ is Type.ASSET_OBSERVATION
        fetch = (
            self._instance.fetch_observations if observed else self._instance.fetch_materializations
        )
        return max((record.storage_id for record in fetch(asset, limit=1).records), default=0)


# What a run says of assets, and which later events make it old news. An attempt is overtaken by the next attempt, and
# by any success: its own, which then is what counts.
_SPOKEN = {
    Type.ASSET_MATERIALIZATION: [Type.ASSET_MATERIALIZATION],
    Type.ASSET_OBSERVATION: [Type.ASSET_OBSERVATION],
    Type.ASSET_MATERIALIZATION_PLANNED: [
        Type.ASSET_MATERIALIZATION_PLANNED,
        Type.ASSET_MATERIALIZATION,
    ],
    Type.ASSET_CHECK_EVALUATION: [],
}


class CleanUpConfig(dg.Config):
    """What the Launchpad offers. How long what is kept is the installation's to say, not a run's."""

    dry_run: bool = Field(
        default=True, description="Only count the runs. Set to false to delete them."
    )


@dg.op
def clean_up_runs_op(context: dg.OpExecutionContext, config: CleanUpConfig) -> None:
    """Delete what is past `DLQ_RUN_RETENTION_DAYS`, or with `dry_run` say how much that is."""
    days = read_settings().run_retention_days
    if not days:
        context.log.info("DLQ_RUN_RETENTION_DAYS is 0: runs are kept for ever.")
        return
    before = datetime.now(UTC) - timedelta(days=days)
    done = clean_up_runs(
        context.instance, before=before, ours=get_location_tag(context), dry_run=config.dry_run
    )
    context.log.info(
        f"{'Would delete' if config.dry_run else 'Deleted'} {done.deleted:,} runs that ended more than {days} days "
        f"ago; {done.kept:,} stay, because they are the last word on an asset, a day or a check."
    )
    context.add_output_metadata(
        {"runs_deleted": done.deleted, "runs_kept": done.kept, "dry_run": config.dry_run}
    )


@dg.job(name="clean_up_runs", owners=OWNERS, hooks={record_success_hook})
def clean_up_runs_job() -> None:
    """Deletes **Dagster's records of our own runs** that ended more than `DLQ_RUN_RETENTION_DAYS` ago.

    Runs of other code locations and of backfills under way stay. So does a run that is the last word on something: the
    last materialization, observation or attempt of an asset or of one of its days, or the last result of a check.

    - **When:** at 05:00, by `clean_up_runs_daily`. Launched by hand it only counts, unless `dry_run` is false.
    - **Changes:** deletes runs from Dagster's own database with their events and captured logs, at most 5,000, oldest
      first. Nothing of the outbox.
    - **Rerun:** at any time: it goes on with what is left.
    """
    clean_up_runs_op()


clean_up_runs_schedule = dg.ScheduleDefinition(
    name="clean_up_runs_daily",
    job=clean_up_runs_job,
    run_config=dg.RunConfig(ops={"clean_up_runs_op": CleanUpConfig(dry_run=False)}),
    cron_schedule="0 5 * * *",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    owners=OWNERS,
    description=describe_automation(
        "Starts clean_up_runs with dry_run: false, so that Dagster's own database does not grow for ever.",
        when="At 05:00 in DLQ_TIMEZONE.",
        changes="Deletes records of our runs that are older than DLQ_RUN_RETENTION_DAYS, and nothing else.",
        rerun="A missed tick needs nothing: the next one deletes what it left.",
    ),
)
