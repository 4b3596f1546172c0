"""Tests that kills of the archive, the restore, the purge and the server lose no event."""

import importlib.util
import random
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.embedded.programs import PACKAGE
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.retries.fire import (
    archive,
    at_work,
    in_small_batches,
    no_event_is_missing,
    processes,
    purge,
    restore,
    work,
)
from tests.retries.test_fire import Server, wait_until
from tests.rows import one

DEAD = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, last_error)
    select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1'
    from generate_series(1, 60) n
"""
MOVES = "select count(*) as n from dlq.audit where kind in ('archive.move', 'archive.restore')"


@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="the embedded extra is not installed"
)
def test_a_kill_at_any_moment_loses_no_event(tmp_path: Path) -> None:
    """`make drill` kills more often."""
    kill_jobs(tmp_path, rounds=10)


def kill_jobs(folder: Path, *, rounds: int) -> None:
    """Kill each job in each round while a worker uses the same table, and the server at times."""
    server, stop = Server(folder / "home"), processes.Event()
    try:
        database = Database(server.url)
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
        with at_work(stop, (work, (server.url, "none", 1))):
            for number in range(rounds):
                with database.connect() as connection:
                    connection.execute(DEAD)
                    classify_deaths(connection, zone=ZoneInfo("UTC"))
                    moves = one(connection, MOVES)["n"]
                    # An event for each job: a job that is killed while it reads one locks it.
                    stops = {job: processes.Event() for job in (archive, restore, purge)}
                    jobs = [
                        processes.Process(target=in_small_batches, args=(job, server.url, event))
                        for job, event in stops.items()
                    ]
                    for job in jobs:
                        job.start()
                    while one(connection, MOVES)["n"] == moves:  # there is something to interrupt
                        time.sleep(0.01)
                time.sleep(random.uniform(0, 0.2))
                if number % 8 == 1:
                    server.crash()
                for job in random.sample(jobs, len(jobs)):
                    assert job.is_alive()
                    job.kill()
                    job.join()
        with (
            at_work(processes.Event(), (archive, (server.url,)), (purge, (server.url,))),
            database.connect() as own,
        ):
            wait_until(lambda: one(own, "select count(*) as n from dlq.purged")["n"] == 60 * rounds)
        with database.connect() as connection:
            no_event_is_missing(connection, events=60 * rounds)
            audit = "select sum(events)::int as n from dlq.audit where kind = 'archive.purge'"
            assert one(connection, audit) == {"n": 60 * rounds}
            assert one(connection, MOVES)["n"] >= rounds
    finally:
        server.release()
