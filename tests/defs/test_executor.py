"""`DLQ_EXECUTOR`: each value selects an executor, and a missing extra is named."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from dlq_pipelines.defs.executor import select_executor
from dlq_pipelines.errors import DlqError
from dlq_pipelines.outbox.reconcile import read_first_day
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.serving import set_pool_limit
from dlq_pipelines.settings import Executor, Settings
from tests.rows import add_events, kill

ROOT = Path(__file__).parents[2]
LOAD = (
    "import json, sys; from dlq_pipelines.definitions import defs;"
    "jobs = [j for j in defs.get_repository_def().get_all_jobs()];"
    "print(json.dumps([sorted({j.executor_def.name for j in jobs}),"
    " sorted({m.partition('.')[0] for m in sys.modules} & {'dagster_celery', 'celery',"
    " 'dagster_k8s', 'kubernetes'})]))"
)
REDIS = "redis://:s3cr3t@127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("executor", "name", "imported"),
    [
        ("in_process", "in_process", []),
        ("multiprocess", "multiprocess", []),
        ("celery", "celery", ["dagster_celery"]),
        ("k8s", "k8s", ["dagster_k8s", "kubernetes"]),
    ],
)
def test_every_job_has_the_executor_and_no_other_is_imported(
    executor: str, name: str, imported: list[str]
) -> None:
    """In its own process, as a code location loads the definitions."""
    given = os.environ | {"DLQ_EXECUTOR": executor, "DLQ_CELERY_URL": REDIS}
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env=given,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert json.loads(done.stdout) == [[name], imported]


@pytest.mark.parametrize(
    ("executor", "package"), [("celery", "dagster_celery"), ("k8s", "dagster_k8s")]
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, executor: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DlqError) as raised:
        select_executor(Settings(executor=Executor(executor)))
    assert str(raised.value) == (
        f"DLQ_EXECUTOR={executor} needs packages that are not installed. "
        f"Run `pip install 'dlq-pipelines[{executor}]'`, or unset DLQ_EXECUTOR."
    )


def test_celery_without_its_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the definitions load, before a run waits for a worker."""
    monkeypatch.delenv("DLQ_CELERY_URL", raising=False)
    with pytest.raises(DlqError, match="needs DLQ_CELERY_URL"):
        select_executor(Settings(executor=Executor.CELERY))


@pytest.mark.parametrize(("days", "most"), [("", None), ("1", 1), ("7", 7)])
def test_a_run_of_a_backfill_has_all_days_or_the_configured_number(
    days: str, most: int | None
) -> None:
    """Of exports and of reports."""
    code = (
        "import json; from dlq_pipelines.definitions import defs;"
        "print(json.dumps([defs.resolve_assets_def(n).backfill_policy.max_partitions_per_run"
        " for n in ('dead_event_export', 'failure_report')]))"
    )
    given = os.environ | {"DLQ_DAYS_PER_RUN": days}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=given,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert json.loads(done.stdout) == [most, most]


def test_days_run_in_parallel_and_writers_of_the_same_rows_take_turns() -> None:
    """With the writers' pool, the exports of a month would wait for each other."""
    from dlq_pipelines.definitions import defs

    pools = {
        op.name: op.pool
        for name in (
            "dead_event_causes",
            "dead_event_archive",
            "archive_purge",
            "dead_event_export",
            "failure_report",
        )
        for op in [defs.resolve_assets_def(name).op]
        if isinstance(op, dg.OpDefinition)
    }
    assert {name for name, pool in pools.items() if pool is None} == {
        "dead_event_export",
        "failure_report",
    }
    assert set(pools.values()) == {None, "dlq_outbox"}


def test_dlq_up_gives_the_pool_of_writers_one_slot(instance: dg.DagsterInstance) -> None:
    """Also where another location has pools: there is no default limit."""
    before = {pool.name for pool in instance.event_log_storage.get_pool_limits()}
    set_pool_limit(Settings(name="orders"), os.environ)
    limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert before == set()
    assert limits == {"dlq_orders": 1}


def test_partitions_begin_at_the_first_recorded_death(connection: Connection) -> None:
    assert read_first_day(connection, ZoneInfo("UTC")) is None
    add_events(connection, 2)
    kill(connection, "boom")
    for event, at in ((1, "2026-03-30 23:30+00"), (2, "-infinity")):
        change = "update dlq.death set died_at = %s where event_id = %s"
        connection.execute(change, [at, event])
    assert read_first_day(connection, ZoneInfo("Europe/Berlin")) == date(2026, 3, 31)
