"""Killed processes, crashed servers and races: targets are released once, no event is lost."""

import importlib.util
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psutil
import pytest

from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.embedded import start_server
from dlq_pipelines.postgres.embedded.programs import PACKAGE
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.retries.advance import advance_fix, withdraw_fix
from dlq_pipelines.retries.fix import Fix, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, list_fixes
from dlq_pipelines.retries.retry import retry_events
from dlq_pipelines.retries.settle import settle_retries
from tests.retries.fire import (
    ERROR,
    TERMS,
    archive,
    at_work,
    audit,
    change_minds,
    no_event_is_missing,
    probe,
    processes,
    purge,
    restore,
    sense,
    work,
)
from tests.retries.machine import RECALLED
from tests.rows import one

FAILS, DELIVERED = "fails", "delivered"
PATIENCE = 120.0
POLICIES = {
    DELIVERED: RetryPolicy(canary=5, growth=2.0, rate=100_000.0),
    FAILS: RetryPolicy(canary=40, growth=2.0, rate=100_000.0, min_success=0.01, order="none"),
}
# Deliveries as the table itself has seen them.
DELIVERIES = """
    create table delivery (event_id bigint not null);
    create function note_delivery() returns trigger language plpgsql as
        $$ begin insert into delivery values (new.id); return null; end $$;
    create trigger note_delivery after update on outbox_event
        for each row when (new.status = 'done' and old.status <> 'done')
        execute function note_delivery()
"""
DELIVERED_TWICE = "select event_id from delivery group by 1 having count(*) > 1"
# Causes with two probes that were released and have no outcome.
PROBED_TWICE = """
    select d.cause_id from dlq.retry r join dlq.death d on d.id = r.death_id
    where r.actor = 'probe' and r.outcome is null group by 1 having count(*) > 1
"""
PROBES = """
    select (select count(*) from dlq.retry where actor = 'probe') as kept,
        (select sum(events) from dlq.audit where kind = 'probe.release') as audited
"""
# Open fixes, events with the worker, and dead events that are not parked.
LEFT = """
    select (select count(*) from dlq.fix where closed_at is null)
        + (select count(*) from outbox_event e where e.status in ('pending', 'retry'))
        + (select count(*) from outbox_event e where e.status = 'dead'
            and 3 > (select count(*) from dlq.retry r where r.event_id = e.id)) as n
"""
SCHEDULED = """
    select count(*) as n from dlq.retry r
    join outbox_event e on e.id = r.event_id and e.status = 'pending' and e.next_run_at = r.due_at
    where r.outcome is null and r.due_at > now()
"""
AUDIT_ENTRIES = "select count(*) as n from dlq.audit where kind in ('retry.stage', 'retry.recall')"
PENDING = "select count(*) as n from outbox_event where status in ('pending', 'retry')"


class Wave(NamedTuple):
    """Dead events and the fix that means them."""

    fix: Fix
    events: list[int]


def wave(
    connection: Connection, number: int, count: int, policy: RetryPolicy | None = None
) -> Wave:
    """Add three events an aggregate. Those of odd waves, which need no order, may die again."""
    kind = FAILS if number % 2 else DELIVERED
    rows = connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " last_error)"
        " select 'order', %(number)s || '-' || n / 3, %(kind)s || %(number)s, '{}', 'dead',"
        " %(error)s"
        " from generate_series(1, %(count)s) n returning id",
        {"number": number, "kind": kind, "error": ERROR, "count": count},
    ).fetchall()
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    fix = flag_fix(
        connection,
        FixFlag(Selection(event_type=f"{kind}{number}"), policy or POLICIES[kind]),
        audit=audit(),
    )
    return Wave(fix, sorted(row["id"] for row in rows))


def each_released_once(connection: Connection, waves: list[Wave]) -> None:
    """By its own fix."""
    for fix, events in waves:
        rows = connection.execute(
            "select event_id from dlq.retry where fix_id = %s order by 1", [fix.id]
        ).fetchall()
        assert [row["event_id"] for row in rows] == events


def wait_until(done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.02)


class Server:
    """A server of the test's own, which can be crashed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.uses = [start_server(home)]
        self.url = self.uses[0].ensure_database("fire")

    def crash(self) -> None:
        """An immediate shutdown: nothing is flushed, the next start recovers from the log."""
        data = Path(os.path.realpath(self.home / "postgres"))
        main = psutil.Process(int((data / "postmaster.pid").read_text().split("\n", 1)[0]))
        main.send_signal(signal.SIGQUIT)
        main.wait(30)
        self.uses.append(start_server(self.home))

    def release(self) -> None:
        for use in self.uses:
            use.release()


def killed_at_random(folder: Path, *, kills: int, crashes: int, count: int) -> None:
    """Kill steps of fixes, and sometimes the server, until enough were killed."""
    server, stop = Server(folder / "home"), processes.Event()
    try:
        database = Database(server.url)
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
        waves: list[Wave] = []
        with at_work(stop, (work, (server.url, FAILS, 1))):
            for number in range(kills):
                with database.connect() as connection:
                    if not list_fixes(connection, only_open=True):
                        waves.append(wave(connection, len(waves), count))
                # With its own event: a process that is killed while it reads an
                # event leaves the event locked.
                stop_run = processes.Event()
                run = processes.Process(target=sense, args=(server.url, 7, stop_run))
                run.start()
                time.sleep(random.uniform(0.05, 0.4))
                if number % (kills // crashes) == 1:
                    server.crash()
                    time.sleep(random.uniform(0.0, 0.3))
                assert run.is_alive()
                run.kill()
                run.join()
            with (
                at_work(processes.Event(), (sense, (server.url, 500))),
                database.connect() as connection,
            ):
                wait_until(lambda: not list_fixes(connection, only_open=True))
        with database.connect() as connection:
            no_event_is_missing(connection, events=count * len(waves))
            each_released_once(connection, waves)
            assert (
                one(
                    connection,
                    "select count(*) as n from outbox_event where status in ('pending', 'retry')",
                )["n"]
                == 0
            )
    finally:
        server.release()


def _has_begun(connection: Connection, before: dict[str, Any]) -> bool:
    return one(connection, AUDIT_ENTRIES) != before or not list_fixes(connection, only_open=True)


def stopped_at_random(database: Database, *, kills: int, count: int) -> int:
    """Kill those who refill, pause, withdraw and recall, while four workers and the archive run.

    Returns how many events were recalled.
    """
    url, fixes = database.url, list[Fix]()
    # Slow enough that small batches are released ahead of their due times on a busy machine.
    policy = RetryPolicy(canary=count, rate=50.0, min_success=0.5, order="none")
    with database.connect() as connection:
        connection.execute(DELIVERIES)
        jobs = [(work, (url, "nothing", 60))] * 4 + [(archive, (url,))]
        with at_work(processes.Event(), *jobs):
            for number in range(kills):
                if not list_fixes(connection, only_open=True):
                    # The archive takes what is dead and targeted by no fix.
                    with connection.transaction():
                        fixes.append(wave(connection, 2 * number, count, policy).fix)
                # With their own event, as above.
                stop_run = processes.Event()
                runs = [
                    processes.Process(target=job, args=(url, 7, stop_run))
                    for job in (sense, change_minds)
                ]
                before = one(connection, AUDIT_ENTRIES)
                for run in runs:
                    run.start()
                # A process needs long to begin on a busy machine.
                wait_until(partial(_has_begun, connection, before))
                time.sleep(random.uniform(0.0, 0.6))
                for run in runs:
                    assert run.is_alive()
                    run.kill()
                    run.join()
            # Released within seconds and due within minutes: something is recalled on any machine.
            slow = replace(policy, rate=1.0)
            with connection.transaction():
                fixes.append(wave(connection, 2 * kills, count, slow).fix)
            terms = replace(TERMS, lookahead=timedelta(minutes=10))
            advance_fix(connection, fixes[-1].id, audit=audit(), terms=terms)
            for fix in list_fixes(connection, only_open=True):
                withdraw_fix(connection, fix.id, audit=audit())
            # Whatever the kills interrupted, the sensor completes, and nothing falls due later.
            with at_work(processes.Event(), (sense, (url, 500))):
                wait_until(lambda: one(connection, SCHEDULED)["n"] == 0)
            wait_until(lambda: one(connection, PENDING)["n"] == 0)
        settle_retries(connection, now=audit().now, settle_seconds=600)
        no_event_is_missing(connection, events=count * len(fixes))
        # Each delivery was of a release of its own.
        assert connection.execute(DELIVERED_TWICE).fetchall() == []
        recalls = "select kept = audited as agree, kept from (" + RECALLED + ") counted"
        counted = one(connection, recalls)
        assert counted["agree"]
        return int(counted["kept"])


def probed_at_random(database: Database, *, kills: int, count: int) -> int:
    """Kill probes, and those who advance what they flag, with two workers and the fix of a person.

    First every other attempt at half of the events fails; after the kills the failure has passed.
    Returns how many events probes released.
    """
    url = database.url
    errors = ("TimeoutError: no answer", "ConnectionResetError: [Errno 104] reset by peer")
    with database.connect() as connection:
        connection.execute(DELIVERIES)
        # Both fixes are of the same cause. What a person flagged is not a probe's to release.
        with connection.transaction():
            own = wave(connection, 0, count)
            for number, error in enumerate(errors):
                connection.execute(
                    "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload,"
                    " status, last_error) select 'order', %(kind)s || n, %(kind)s, '{}', 'dead',"
                    " %(error)s from generate_series(1, %(count)s) n",
                    {"kind": f"{FAILS}-{number}", "error": error, "count": count},
                )
        with at_work(processes.Event(), *[(work, (url, FAILS, 60))] * 2):
            for number in range(kills):
                stop_run = processes.Event()
                runs = [processes.Process(target=probe, args=(url, stop_run))]
                if number % 2:
                    runs.append(processes.Process(target=sense, args=(url, 7, stop_run)))
                for run in runs:
                    run.start()
                time.sleep(random.uniform(0.2, 0.8))
                for run in runs:
                    assert run.is_alive()
                    run.kill()
                    run.join()
                assert connection.execute(PROBED_TWICE).fetchall() == []
        healing = (work, (url, "nothing", 60)), (probe, (url,)), (sense, (url, 500))
        with at_work(processes.Event(), *healing):
            wait_until(lambda: one(connection, LEFT) == {"n": 0})
        settle_retries(connection, now=audit().now, settle_seconds=600)
        no_event_is_missing(connection, events=3 * count)
        assert connection.execute(DELIVERED_TWICE).fetchall() == []
        each_released_once(connection, [own])
        released = one(connection, PROBES)
        assert released["kept"] == released["audited"]
        return int(released["kept"])


def crowded(database: Database, *, fixes: int, count: int) -> None:
    """Run eight workers, two sensors, archive, restore and purge at once on that many events."""
    url, stop = database.url, processes.Event()
    with database.connect() as connection:
        waves = [wave(connection, number, count) for number in range(fixes)]
        # Eight workers on two cores may stall for seconds: no worker may get another's events.
        crowd = [(work, (url, FAILS, 60))] * 8 + [(sense, (url, 500))] * 2
        with at_work(stop, *crowd, (archive, (url,)), (restore, (url,)), (purge, (url,))):
            wait_until(lambda: not list_fixes(connection, only_open=True))
        no_event_is_missing(connection, events=fixes * count)
        each_released_once(connection, waves)
        audit = (
            "select coalesce(sum(events), 0)::int as n from dlq.audit where kind = 'archive.purge'"
        )
        assert one(connection, audit) == one(
            connection, "select count(*)::int as n from dlq.purged"
        )


@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="the embedded extra is not installed"
)
def test_a_fix_whose_runs_and_server_are_killed_releases_every_target_once(tmp_path: Path) -> None:
    """Ten kills and two crashes of the server, while a worker delivers; `make drill` has more."""
    killed_at_random(tmp_path, kills=10, crashes=2, count=240)


def test_a_fix_that_is_stopped_by_killed_processes_keeps_the_books(database: Database) -> None:
    """Six kills; `make drill` has fifty. Each target is delivered at most once a release."""
    assert stopped_at_random(database, kills=6, count=300) > 0


def test_probes_that_are_killed_keep_the_books(database: Database) -> None:
    """Five kills; `make drill` has a hundred. What is not parked is delivered in the end."""
    assert probed_at_random(database, kills=5, count=60) > 0


def test_a_crowd_on_the_same_events_keeps_the_books(database: Database) -> None:
    """`make drill` has it on 20,000 events."""
    crowded(database, fixes=2, count=1000)


@pytest.mark.parametrize("turn", range(3))
def test_archive_retry_discard_and_stage_of_the_same_events_take_each_once(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """All at once, in small batches: what each says that it took adds up to all there is."""
    for module in ("retries.fix", "outbox.batches", "retries.retry", "archive.archive"):
        monkeypatch.setattr(f"dlq_pipelines.{module}.BATCH", 5)
    fix, events = wave(connection, 1, 300)
    connection.execute("update dlq.fix set canary = 300, event_ids = %s", [events[:200]])
    racers: list[Callable[[Connection], int]] = [
        lambda own: (
            archive_dead_events(own, before=audit().now, only_exported=False, audit=audit()).moved
        ),
        lambda own: retry_events(own, events[turn::2], audit=audit()).events,
        lambda own: (
            discard_events(own, Selection(event_ids=tuple(events[::3])), audit=audit()).events
        ),
        lambda own: advance_fix(own, fix.id, audit=audit(), terms=TERMS).released,
    ]
    together = threading.Barrier(len(racers))

    def race(racer: Callable[[Connection], int]) -> int:
        with database.connect() as own:
            together.wait()
            return racer(own)

    with ThreadPoolExecutor(len(racers)) as pool:
        taken = list(pool.map(race, racers))
    dead = one(connection, "select count(*) as n from outbox_event where status = 'dead'")["n"]
    assert sum(taken) + dead == 300
    no_event_is_missing(connection, events=300)
