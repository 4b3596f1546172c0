"""Exports on two workers while one worker is killed in the middle of a day."""

import json
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import Settings
from tests.rows import date_deaths_by_due_times, one
from tests.spread import NO_REDIS, REDIS, exporting, kill, read_results, redis, worker

pytestmark = pytest.mark.skipif(REDIS is None, reason=NO_REDIS)
DAYS = [(date(2026, 3, 31) - timedelta(days=n)).isoformat() for n in range(4, -1, -1)]
SLOW = DAYS[2]
A_DAY = 20
# The first export of one day sleeps until the test has found and killed its worker.
SLOWLY = f"""
    create sequence attempts;
    create function slowly() returns trigger language plpgsql as $$ begin
        if new.day = '{SLOW}' and nextval('attempts') = 1 then perform pg_sleep(60); end if;
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
def test_five_days_are_exported_although_a_worker_is_killed(
    connection: Connection, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """The other worker takes over the day; each death is in the files of its day, once."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " last_error, next_run_at)"
        " select 'order', n::text, 'e', '{}', 'dead', 'boom', day::timestamptz + n * interval '1"
        " hour'"
        " from unnest(%s::date[]) day, generate_series(1, %s) n",
        [DAYS, A_DAY],
    )
    date_deaths_by_due_times(connection)
    classify_deaths(connection, zone=Settings().zone)
    connection.execute(SLOWLY.encode())
    with (
        worker("one", tmp_path, visibility_seconds=20) as first,
        worker("two", tmp_path, visibility_seconds=20) as second,
        exporting(DAYS) as runs,
    ):
        killed = _busy_with_the_slow_day(connection, instance)
        kill({"one": first, "two": second}[killed])
        succeeded = read_results(runs)

    assert succeeded == dict.fromkeys(DAYS, True)
    workers = {day: _workers(instance, day) for day in DAYS}
    assert workers[SLOW] == [killed, "two" if killed == "one" else "one"]
    assert {name for names in workers.values() for name in names} == {"one", "two"}
    assert all(len(names) == 1 for day, names in workers.items() if day != SLOW)
    recorded = (
        "select count(*), sum(rows) as rows, count(verified_at) as verified from dlq.export_day"
    )
    assert one(connection, recorded) == {
        "count": len(DAYS),
        "rows": len(DAYS) * A_DAY,
        "verified": len(DAYS),
    }
    _assert_files_match_ledger(connection, Settings().home / "exports" / "dead_events")
    assert set(instance.get_materialized_partitions(dg.AssetKey("dead_event_export"))) == set(DAYS)


def _busy_with_the_slow_day(connection: Connection, instance: dg.DagsterInstance) -> str:
    until = time.monotonic() + 600
    while not one(connection, ASLEEP)["count"]:
        assert time.monotonic() < until, "no worker has started the slow day"
        time.sleep(0.1)
    (name,) = _workers(instance, SLOW)
    return name


def _workers(instance: dg.DagsterInstance, day: str) -> list[str]:
    """Return the workers that executed the day's step, first to last."""
    (run_id,) = instance.get_run_ids(dg.RunsFilter(tags={"dagster/partition": day}))
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    workers = [
        entry.get_dagster_event().engine_event_data.metadata.get("Celery worker")
        for entry in events
    ]
    return [str(value.value).partition("@")[0] for value in workers if value]


def _assert_files_match_ledger(connection: Connection, folder: Path) -> None:
    ledger = connection.execute(
        "select id, died_at::date::text as day from dlq.death order by id"
    ).fetchall()
    expected: dict[str, list[int]] = {day: [] for day in DAYS}
    for row in ledger:
        expected[row["day"]].append(row["id"])
    for day in DAYS:
        place = folder / f"died_on={day}"
        ids = (
            pq.read_table(place / "part-00000.parquet", columns=["death_id"])
            .column("death_id")
            .to_pylist()
        )
        assert sorted(ids) == expected[day]
        assert json.loads((place / "_manifest.json").read_bytes())["rows"] == len(ids) == A_DAY
