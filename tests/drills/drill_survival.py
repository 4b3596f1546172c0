"""Failures of a production instance: each really happens, and the figures are printed."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import psutil
import psycopg
import pytest
from dagster._grpc.client import DagsterGrpcClient

from dlq_pipelines.defs.runs import clean_up_runs
from tests.defs.conftest import OUTBOX
from tests.production import CANARY, Production, run_production, wait_until
from tests.rows import add_events, kill


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """One installation for all failures: it continues after each."""
    with run_production(tmp_path_factory.mktemp("production")) as made:
        first = made.flag("begin")
        print(f"\nfrom the start to the first released fix: {made.wait_for_release(first):.0f} s")
        yield made


def _print_figures(what: str, running: Production, fix: int, seconds: float) -> None:
    runs = [run.status.value for run in running.list_runs(fix)]
    print(
        f"\n{what}: released {running.count_released(fix)[0]} of {CANARY}, each once,"
        f" {seconds:.0f} s"
        f" after; runs: {runs}"
    )


def test_the_database_is_stopped_for_a_minute(running: Production) -> None:
    """A death that waits is classified, and a fix that is flagged afterwards is released."""
    daemon = running.units[1]
    starts = daemon.starts
    running.stop_database(60)
    back = time.time()
    with running.database.connect() as connection:
        add_events(connection, 1, event_type="waits")
        kill(connection, "waits for its cause", where="event_type = 'waits'")
    wait_until(
        lambda: _count_runs_by_request(running), "no death is classified any more", seconds=180
    )
    print(f"\ndeaths were classified {time.time() - back:.0f} s after the database came back")
    fix = running.flag("away")
    _print_figures(
        f"database away for 60 s, daemon started {daemon.starts - starts} times again",
        running,
        fix,
        running.wait_for_release(fix),
    )


def test_the_daemon_is_killed(running: Production) -> None:
    """No run is requested twice."""
    fix = running.flag("daemon")
    daemon = running.units[1]
    killed = 0
    while killed < 3:
        daemon.kill()
        killed += 1
        time.sleep(4)
    _print_figures(f"daemon killed {killed} times", running, fix, running.wait_for_release(fix))


def test_the_code_location_is_reloaded_in_mid_tick(running: Production) -> None:
    """The tick waits for a lock while its process is replaced; a later tick releases the fix."""
    fix = running.flag("reload")
    with psycopg.connect(running.database.url) as lock:
        lock.execute("lock table dlq.fix in access exclusive mode")
        waiting = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and"
            " query like '%fix%'"
        )
        with psycopg.connect(running.database.url, autocommit=True) as watch:
            wait_until(
                lambda: watch.execute(waiting).fetchone() != (0,),
                "no tick looks for fixes",
                seconds=90,
            )
        DagsterGrpcClient(port=running.port, host="127.0.0.1").reload_code(timeout=60)
    _print_figures(
        "code location reloaded in mid-tick", running, fix, running.wait_for_release(fix)
    )


def test_the_code_location_is_killed_with_its_runs(running: Production) -> None:
    """Run monitoring ends the runs in progress; the location answers again."""
    code = running.units[0]
    starts = code.starts
    code.kill()
    wait_until(lambda: code.starts > starts, "the code location is not started again", seconds=30)
    fix = running.flag("code")
    _print_figures("code location killed", running, fix, running.wait_for_release(fix))


def test_a_run_worker_is_killed_with_its_lock_held(running: Production) -> None:
    """The lock ends with its connection, the run is retried, and the events are released once."""
    assert kill_a_run_with_its_lock_held(running, "worker") >= 2


def kill_a_run_with_its_lock_held(running: Production, name: str) -> int:
    """Kill a fix's first run while it holds the lock; return the number of its runs."""
    with psycopg.connect(running.database.url, autocommit=True) as connection:
        connection.execute(
            "create or replace function hold() returns trigger language plpgsql as $$ begin"
            " if nextval('holds') = 1 then perform pg_sleep(120); end if; return null; end $$;"
            " drop sequence if exists holds; create sequence holds;"
            " create or replace trigger hold after insert on dlq.retry for each row execute"
            " function hold()"
        )
        fix = running.flag(name)
        asleep = (
            "select pid from pg_stat_activity where wait_event = 'PgSleep' and datname ="
            " current_database()"
        )
        wait_until(
            lambda: connection.execute(asleep).fetchone(), "no run holds the fix", seconds=90
        )
        assert (
            connection.execute(
                "select from dlq.fix where id = %s for update skip locked", [fix]
            ).fetchall()
            == []
        )
        (run,) = running.list_runs(fix)
        _find_worker(running, run.run_id).kill()
        killed = time.monotonic()
        wait_until(
            lambda: not connection.execute(asleep).fetchone(),
            "the killed run's statement goes on",
            seconds=30,
        )
        print(f"\nthe lock of the killed run was free after {time.monotonic() - killed:.1f} s")
        seconds = running.wait_for_release(fix)
        connection.execute("drop trigger hold on dlq.retry")
    runs = running.list_runs(fix)
    assert runs[0].status.value == "FAILURE"
    _print_figures("run worker killed with its fix locked", running, fix, seconds)
    return len(runs)


def _find_worker(running: Production, run_id: str) -> psutil.Process:
    """Return the process whose id is in the run's log."""
    with running.instance() as instance:
        text = " ".join(
            str(entry.get_dagster_event().message)
            for entry in instance.all_logs(run_id)
            if entry.is_dagster_event
        )
    children = running.units[0].process.children(recursive=True)
    (found,) = [
        child for child in children if f"pid: {child.pid})" in text or f"pid: {child.pid} " in text
    ]
    return found


def test_each_request_of_a_sensor_had_one_run(running: Production) -> None:
    """Through all of the failures above."""
    ticks = _count_runs_by_request(running)
    print(f"\n{len(ticks)} requests of the sensor, runs each: {sorted(ticks.values())}")
    assert ticks
    assert set(ticks.values()) == {1}


def test_the_clean_up_finds_the_runs_of_the_daemon(running: Production) -> None:
    """By their tag. Of two runs of fixes neither holds a latest record."""
    before = datetime.now(UTC) + timedelta(minutes=1)
    with running.instance() as instance:
        assert clean_up_runs(instance, OUTBOX, before=before, dry_run=True).deleted >= 2


def _count_runs_by_request(running: Production) -> Counter[str]:
    """Count the runs of the sensor that classifies deaths by their keys."""
    wanted = dg.RunsFilter(
        job_name="classify_deaths", tags={"dagster/sensor_name": "new_death_sensor"}
    )
    with running.instance() as instance:
        runs = [run for run in instance.get_runs(wanted) if "dagster/parent_run_id" not in run.tags]
    return Counter(run.tags["dagster/run_key"] for run in runs)


def test_two_daemons_run_by_mistake(running: Production) -> None:
    """Both evaluate the sensor; the second finds the fix locked or advanced."""
    second = running.start("dlq-daemon")
    try:
        fixes = [running.flag(f"twice{n}") for n in range(3)]
        seconds = [running.wait_for_release(fix) for fix in fixes]
        for fix in fixes:
            _print_figures("two daemons", running, fix, max(seconds))
        time.sleep(35)  # another tick of both
        assert all(running.count_released(fix) == (CANARY, CANARY, CANARY) for fix in fixes)
    finally:
        second.stop()
