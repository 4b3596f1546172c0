"""A stopped Celery worker. tests/drills/drill_celery_days.py kills one of two."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dlq_pipelines.postgres.connect import Connection
from tests.rows import one
from tests.spread import NO_REDIS, REDIS, exporting, read_results, redis, worker

pytestmark = pytest.mark.skipif(REDIS is None, reason=NO_REDIS)
DAY = "2026-03-29"
# The export of the day sleeps until the test has stopped its worker.
SLOWLY = """
    create sequence attempts;
    create function slowly() returns trigger language plpgsql as $$ begin
        if nextval('attempts') = 1 then perform pg_sleep(4); end if;
        return new;
    end $$;
    create trigger slowly before insert on dlq.export_day for each row execute function slowly()
"""
ASLEEP = (
    "select count(*) from pg_stat_activity"
    " where datname = current_database() and wait_event = 'PgSleep' and query like '%export_day%'"
)


@pytest.fixture
def _celery(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Give all processes the same instance, Redis and folder of exports."""
    assert instance.is_persistent
    with redis(tmp_path) as url:
        monkeypatch.setenv("DLQ_EXECUTOR", "celery")
        monkeypatch.setenv("DLQ_CELERY_URL", url)
        yield


@pytest.mark.usefixtures("_celery")
def test_a_stopped_worker_finishes_its_step(connection: Connection, tmp_path: Path) -> None:
    """A service manager signals only the process that it started."""
    connection.execute(SLOWLY.encode())
    with worker("one", tmp_path, visibility_seconds=60) as only, exporting([DAY]) as runs:
        _wait_until_busy(connection)
        only.send_signal(signal.SIGTERM)
        assert only.wait(60) == 0
        exported = one(
            connection,
            "select count(verified_at), (select last_value from attempts) as tries from"
            " dlq.export_day",
        )
        succeeded = read_results(runs)
    assert exported == {"count": 1, "tries": 1}
    assert succeeded == {DAY: True}


def _wait_until_busy(connection: Connection) -> None:
    until = time.monotonic() + 600
    while not one(connection, ASLEEP)["count"]:
        assert time.monotonic() < until, "the worker has not started the day"
        time.sleep(0.1)
