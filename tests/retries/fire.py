"""Processes that work on one outbox until they are stopped or killed.

Each does what runs in production: a worker, a sensor with its runs, the jobs of the archive. They
wait for a server that does not answer, as their next run would.
"""

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from dlq_pipelines import OutboxRepository
from dlq_pipelines.archive import archive as archive_
from dlq_pipelines.archive import purge as purge_
from dlq_pipelines.archive import restore as restore_
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.purge import purge_archive
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import DatabaseUnavailableError, RefusedError
from dlq_pipelines.outbox import batches
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries import advance, fix, probes, recall, settle
from dlq_pipelines.retries import probe as probe_
from dlq_pipelines.retries.advance import pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import FixTerms
from dlq_pipelines.retries.fixes import list_due_fixes, list_fixes
from tests.retries.machine import (
    ASTRAY,
    AUDITED,
    DEAD,
    IN_ONE_PLACE,
    KNOWN_AS_DEAD,
    build_words,
)
from tests.shapes import adapt_connection

ERROR = "TimeoutError: no answer"
# A short look-ahead, so that stages are refilled within a test.
TERMS = FixTerms(max_backlog=timedelta(days=1), lookahead=timedelta(seconds=3))
PROBES = probe_.ProbePolicy(
    enabled=True, per_day=1_000_000, settle_seconds=60, max_backlog=timedelta(days=1)
)
# Shorter than those of a run, so that a kill interrupts all parts of a step.
PATIENCE = advance.Patience(0.2, lambda: datetime.now(UTC), total=1)
# Children are forks of a process that has imported everything, so they start in milliseconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([__name__])


def audit() -> AuditContext:
    """Return an audit context."""
    return AuditContext("job", "scheduled", datetime.now(UTC))


@contextmanager
def at_work(stop: Event, *jobs: tuple[Callable[..., None], Any]) -> Iterator[list[BaseProcess]]:
    """Run these jobs in processes. At the end of the block they stop; none may have failed."""
    started: list[BaseProcess] = [
        processes.Process(target=job, args=(*args, stop)) for job, args in jobs
    ]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        stop.set()
        for process in started:
            process.join(60)
            process.kill()
    assert {process.exitcode for process in started} == {0}


def work(url: str, failing: str, lease: int, stop: Event) -> None:
    """Run a worker: every other attempt at an event of a failing type fails, the rest is delivered.

    Another worker gets the events of a broken connection when the lease ends.
    """
    while not stop.is_set():
        try:
            with OutboxRepository(url, max_attempts=1, lease_seconds=lease) as worker:
                while not stop.is_set():
                    events = worker.fetch_pending(50)
                    for event in events:
                        if event.event_type.startswith(failing) and random.random() < 0.5:
                            worker.mark_retry(event.id, ERROR)
                        else:
                            worker.mark_success(event.id)
                    time.sleep(0 if events else 0.01)
        except (psycopg.OperationalError, DatabaseUnavailableError):
            time.sleep(0.05)


def sense(url: str, batch: int, stop: Event) -> None:
    """Run a sensor and its runs: they advance each fix that needs a step, in small batches."""
    for module in (fix, batches, settle, recall):
        vars(module)["BATCH"] = batch

    def step(connection: Connection) -> None:
        for due in list_due_fixes(connection, now=datetime.now(UTC), max_backlog=TERMS.max_backlog):
            advance.advance_fix(connection, due.id, audit=audit(), terms=TERMS, patience=PATIENCE)
        settle.settle_retries(connection, now=datetime.now(UTC), settle_seconds=60)

    _again(url, step, stop)


def probe(url: str, stop: Event) -> None:
    """Classify deaths and run probes, which wait for milliseconds instead of minutes."""
    vars(probes)["FIRST_WAIT"] = vars(probe_)["FIRST_WAIT"] = timedelta(milliseconds=20)
    vars(probe_)["MAX_WAIT"] = timedelta(milliseconds=100)

    def step(connection: Connection) -> None:
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        probes.run_probes(connection, policy=PROBES, zone=ZoneInfo("UTC"), audit=audit())

    _again(url, step, stop)


def change_minds(url: str, batch: int, stop: Event) -> None:
    """Pause and resume open fixes, withdraw some, and recall what they released, again and again.

    In small batches, so that a kill can interrupt many.
    """
    vars(recall)["BATCH"] = batch

    def change(connection: Connection) -> None:
        for found in list_fixes(connection, limit=3):
            decide = random.choice([pause_fix] * 4 + [resume_fix] * 8 + [withdraw_fix])
            for act in (decide, recall.recall_fix):
                with suppress(RefusedError):
                    act(connection, found.id, audit=audit())
        time.sleep(0.2)

    _again(url, change, stop)


def archive(url: str, stop: Event) -> None:
    """Run the job of the archive."""
    _again(
        url,
        lambda c: archive_dead_events(
            c, before=datetime.now(UTC), only_exported=False, audit=audit()
        ),
        stop,
    )


def restore(url: str, stop: Event) -> None:
    """Restore archived events again and again."""
    _again(url, lambda c: restore_events(c, Selection(all=True), audit=audit()), stop)


def purge(url: str, stop: Event) -> None:
    """Run the purge of events that were just archived."""
    _again(
        url,
        lambda c: purge_archive(
            c, before=datetime.now(UTC) - timedelta(seconds=0.02), audit=audit()
        ),
        stop,
    )


def in_small_batches(job: Callable[[str, Event], None], url: str, stop: Event) -> None:
    """Run a job in small batches, so that a kill can interrupt many."""
    for module in (archive_, restore_, purge_):
        vars(module)["BATCH"] = 7
    job(url, stop)


def _again(url: str, do: Callable[[Connection], object], stop: Event) -> None:
    while not stop.is_set():
        try:
            with Database(url).connect() as connection:
                while not stop.is_set():
                    do(connection)
                    time.sleep(0.01)
        except (psycopg.OperationalError, DatabaseUnavailableError):
            time.sleep(0.05)


def no_event_is_missing(connection: Connection, *, events: int) -> None:
    """Nothing is lost or doubled; outbox, ledger, stages and audit agree."""
    assert connection.fetch_one("reconcile.unaccounted") == {
        "missing": 0,
        "duplicated": 0,
        "event_ids": None,
    }
    words = build_words(adapt_connection(connection))
    assert connection.execute(IN_ONE_PLACE.format(**words).encode()).fetchone() == {"n": events}
    assert connection.execute(ASTRAY.format(**words).encode()).fetchall() == []
    assert (
        connection.execute(KNOWN_AS_DEAD.encode()).fetchall()
        == connection.execute(DEAD.format(**words).encode()).fetchall()
    )
    assert (
        connection.execute(AUDITED).fetchone()
        == connection.execute("select count(*) as n from dlq.retry").fetchone()
    )
    assert connection.run("fix.stages_difference").fetchall() == []
