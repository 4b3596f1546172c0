"""A backfill of a month: the daemon splits it into runs, and two workers take their steps."""

import time
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.definitions import defs
from tests.production import UTC as ZONE
from tests.production import Production, run_production, wait_until
from tests.rows import date_deaths_by_due_times, one
from tests.spread import NO_REDIS, REDIS, kill, redis, worker

pytestmark = pytest.mark.skipif(REDIS is None, reason=NO_REDIS)
DAYS = [(date(2026, 3, 31) - timedelta(days=n)).isoformat() for n in range(29, -1, -1)]
A_DAY = 2_000
EXPORT = dg.AssetKey("dead_event_export")


def test_a_backfill_of_thirty_days_goes_on_after_a_worker_is_killed(tmp_path: Path) -> None:
    """Each day is materialized and verified; each death is in the files of its day, once."""
    with redis(tmp_path) as url:
        variables = {
            "DLQ_EXECUTOR": "celery",
            "DLQ_CELERY_URL": url,
            "DLQ_DAYS_PER_RUN": "1",
            "DLQ_AUTOSTART": "false",
        }
        with run_production(tmp_path, **variables) as running:
            _add_month_of_deaths(running)
            start = partial(worker, visibility_seconds=60, environment=running.environment)
            with start("one", tmp_path) as first, start("two", tmp_path):
                started = time.monotonic()
                _start_backfill(running)
                wait_until(
                    lambda: _count_exported_days(running) >= 8, "nothing is exported", seconds=300
                )
                kill(first)
                after = _count_exported_days(running)
                wait_until(
                    lambda: _has_backfill_ended(running), "the backfill does not end", seconds=900
                )
                seconds = time.monotonic() - started
            _assert_complete(running, tmp_path / "dlq" / "exports" / "dead_events")
            figures = (
                f"30 days of {A_DAY:,} deaths in {seconds:.0f} s, one of two workers killed"
                f" after {after} of them"
            )
            print(f"\n{figures}: {_count_runs(running)} runs, each death in one file")


def _add_month_of_deaths(running: Production) -> None:
    with running.database.connect() as connection:
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload,"
            " status, last_error, next_run_at)"
            " select 'order', n::text, 'e', '{}', 'dead', 'boom', day::timestamptz + n *"
            " interval '40 seconds'"
            " from unnest(%s::date[]) day, generate_series(1, %s) n",
            [DAYS, A_DAY],
        )
        date_deaths_by_due_times(connection)
        classify_deaths(connection, zone=ZONE)


def _start_backfill(running: Production) -> None:
    with running.instance() as instance:
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="drill",
                asset_graph=defs.get_repository_def().asset_graph,
                partition_names=DAYS,
                asset_selection=[EXPORT],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )


def _count_exported_days(running: Production) -> int:
    with running.database.connect() as connection:
        return int(one(connection, "select count(*) from dlq.export_day")["count"])


def _has_backfill_ended(running: Production) -> bool:
    with running.instance() as instance:
        found = instance.get_backfill("drill")
    assert found is not None
    assert found.status not in {BulkActionStatus.FAILED, BulkActionStatus.COMPLETED_FAILED}, (
        found.error
    )
    return found.status is BulkActionStatus.COMPLETED_SUCCESS


def _count_runs(running: Production) -> int:
    with running.instance() as instance:
        return instance.get_runs_count()


def _assert_complete(running: Production, folder: Path) -> None:
    with running.database.connect() as connection:
        counted = one(
            connection,
            "select count(*), sum(rows) as rows, count(verified_at) as sound from dlq.export_day",
        )
        ledger = {row["id"] for row in connection.execute("select id from dlq.death")}
    assert counted == {"count": 30, "rows": 30 * A_DAY, "sound": 30}
    files = [
        pq.read_table(path, columns=["death_id"]).column(0).to_pylist()
        for path in folder.glob("*/*.parquet")
    ]
    ids = [death for file in files for death in file]
    assert len(ids) == len(set(ids)) == 30 * A_DAY
    assert set(ids) == ledger
    with running.instance() as instance:
        assert set(instance.get_materialized_partitions(EXPORT)) == set(DAYS)
