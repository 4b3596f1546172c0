"""Measures what it costs to archive in batches with an audit log, and whether a worker notices.

The peer is one statement that moves the same million dead events. During an archive, a worker
fetches and reports events as it did before. Each move begins on rows that were just written, the
two alternate, and a figure is the median of its rounds.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from dlq_pipelines import OutboxRepository
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.bench.figure import TARGET, Figure, sized
from tests.databases import scratch_server

ROUNDS = 3
EVENTS = sized(1_000_000)
PENDING = sized(200_000)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
EMPTY = """
    truncate outbox_event, dlq.archived, dlq.dead, dlq.death, dlq.export_day, dlq.audit
        restart identity cascade
"""
# Ten days of deaths, all classified and exported, and pending events for a worker.
FILL = f"""
    alter table outbox_event disable trigger user;
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
        last_error_at, next_run_at)
    select 'order', n::text, 'order.placed',
        jsonb_build_object('order', n, 'text', repeat('x', 220)), 'dead', 5,
        'TimeoutError: no answer', at, at
    from (
        select n, '2026-10-01Z'::timestamptz + n * interval '864 ms' as at
        from generate_series(1, {EVENTS}) n
    ) d;
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, next_run_at)
    select 'order', n::text, 'order.placed', '{{}}',
        '2026-10-01Z'::timestamptz + n * interval '1 ms'
    from generate_series(1, {PENDING}) n;
    alter table outbox_event enable trigger user;
    insert into dlq.cause (id, exception_type, template, first_seen, last_seen)
    values ('v2-bench', 'TimeoutError', 'no answer', now(), now()) on conflict do nothing;
    insert into dlq.death
        (event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,
        died_at, error, cause_id, detail)
    select id, created_at, aggregate_type, aggregate_id, event_type, attempts, next_run_at,
        last_error, 'v2-bench', ''
    from outbox_event where status = 'dead' order by id;
    insert into dlq.dead (death_id, event_id, event_created_at, aggregate_type, aggregate_id,
        event_type, died_at, cause_id)
    select id, event_id, event_created_at, aggregate_type, aggregate_id, event_type, died_at,
        cause_id
    from dlq.death order by id;
    insert into dlq.export_day (day, starts_at, ends_at, rows, files, exported_at, verified_at)
    select day, day, day + interval '1 day', count(*), '[]', now(), now()
    from (select date_trunc('day', died_at, 'UTC') as day from dlq.death) d group by day;
"""
PEER = """
    with moved as (
        delete from outbox_event where status = 'dead' and next_run_at < %(before)s returning *
    )
    insert into dlq.archived (id, aggregate_type, aggregate_id, event_type, payload, status,
        attempts, next_run_at, created_at, last_error, last_error_at, dlq_death_id, dlq_archived_at)
    select id, aggregate_type, aggregate_id, event_type, payload, status,
        attempts, next_run_at, created_at, last_error, last_error_at, id, now()
    from moved
"""


def measure() -> Iterator[Figure]:
    """Yield the seconds of the archive, its longest transaction, and a worker's fetch during it."""
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("archive"))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            ours: list[float] = []
            peer: list[float] = []
            batches: list[float] = []
            for turn in range(ROUNDS):
                # The one that goes first changes each round.
                moves = ((ours, _archive_in_batches), (peer, _archive_at_once))
                for times, move in moves[:: 1 if turn % 2 else -1]:
                    _prepare(connection)
                    started = time.perf_counter()
                    batches += move(connection)
                    times.append(time.perf_counter() - started)
            yield Figure(
                f"archive {EVENTS:,} events in {EVENTS // BATCH} batches",
                statistics.median(ours),
                statistics.median(peer),
                1.2,
                "one statement",
            )
            yield Figure("its longest transaction", max(batches), 0.5, 1.0, TARGET)
            _prepare(connection)
        alone = _measure_fetch(database, lambda: time.sleep(5))
        with database.connect() as connection:
            during = _measure_fetch(database, lambda: _archive_in_batches(connection))
        yield Figure(
            "a worker's fetch during the archive", during, alone, 2.0, "the same worker alone"
        )


def _prepare(connection: Connection) -> None:
    connection.execute(EMPTY)
    connection.execute(FILL.encode())
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")


def _archive_at_once(connection: Connection) -> list[float]:
    connection.execute(PEER, {"before": NOW})
    return []


def _archive_in_batches(connection: Connection) -> list[float]:
    """Archive all dead events; return the seconds of each transaction."""
    times = [time.perf_counter()]
    result = archive_dead_events(
        connection,
        before=NOW,
        only_exported=True,
        audit=AuditContext("bench", "retention", NOW + timedelta(days=30)),
        options=RunOptions(progress=lambda _: times.append(time.perf_counter())),
    )
    assert (result.moved, result.batches) == (EVENTS, EVENTS // BATCH), result
    return [end - start for start, end in pairwise(times)]


def _measure_fetch(database: Database, during: Callable[[], object]) -> float:
    """Return the median seconds of a worker's fetch while `during` runs."""
    stop = threading.Event()

    def work() -> list[float]:
        seconds = []
        with OutboxRepository(database.url) as repository:
            while not stop.is_set():
                started = time.perf_counter()
                events = repository.fetch_pending(20)
                seconds.append(time.perf_counter() - started)
                for event in events:
                    repository.mark_success(event.id)
        return seconds

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        during()
        stop.set()
        return statistics.median(worker.result())
