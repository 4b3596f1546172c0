"""`DLQ_EXECUTOR`: does each of its values lead to Dagster's executor, and is it said what one lacks?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dlq_pipelines.defs.executor import select_executor
from dlq_pipelines.errors import DlqError
from dlq_pipelines.settings import Executor, Settings

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
def test_every_job_has_the_executor_and_nobody_pays_for_another(
    executor: str, name: str, imported: list[str]
) -> None:
    """In a process of its own, as a code location loads them."""
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
def test_an_extra_that_is_missing_is_said_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, executor: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DlqError) as raised:
        select_executor(Settings(executor=Executor(executor)))
    assert str(raised.value) == (
        f"DLQ_EXECUTOR={executor} needs packages that are not installed. "
        f"Run `pip install 'dlq-pipelines[{executor}]'`, or unset DLQ_EXECUTOR."
    )


def test_celery_without_its_redis_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a run waits for a worker that nobody can reach."""
    monkeypatch.delenv("DLQ_CELERY_URL", raising=False)
    with pytest.raises(DlqError, match="needs DLQ_CELERY_URL"):
        select_executor(Settings(executor=Executor.CELERY))


@pytest.mark.parametrize(("days", "most"), [("", None), ("1", 1), ("7", 7)])
def test_the_days_of_a_backfill_share_a_run_or_so_many_of_them_do(
    days: str, most: int | None
) -> None:
    """Exports and reports alike."""
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


def test_days_wait_for_no_other_and_writers_of_the_same_rows_take_turns() -> None:
    """A pool of one slot for the exports would spread a month over workers that wait for each other."""
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
    assert set(pools.values()) == {None, "dlq_write"}
