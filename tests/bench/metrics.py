"""Measures a scrape and the alert sensor's query with a million dead events.

Once with all of them classified, as they are after five minutes, and once with none: metrics matter
most while the jobs do not run. A million retries and ten thousand rows of the audit log, of 50
million archived events, are in the database.
"""

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry, generate_latest

from dlq_pipelines.alerts.alert import AlertPolicy, list_transitions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.metrics import DeadLetterCollector, build_snapshot_reader
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.bench.figure import TARGET, Figure, sized
from tests.databases import scratch_server

EVENTS = sized(1_000_000)
SCRAPES = 21
FILL = f"""
    alter table outbox_event disable trigger user;
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
        last_error_at, next_run_at)
    select 'aggregate' || mod(n, 3), n::text, 'order.kind' || mod(n, 12),
        jsonb_build_object('order', n), 'dead', 1 + mod(n, 5),
        'Error' || mod(n, 100) || ': no answer', at, at
    from (
        select n, '2026-11-01Z'::timestamptz + n * interval '864 ms' as at
        from generate_series(1, {EVENTS}) n
    ) d;
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)
    select 'aggregate1', n::text, 'order.kind1', '{{}}', 'done' from generate_series(1, {EVENTS}) n;
    alter table outbox_event enable trigger user;
    insert into dlq.death
        (event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,
        died_at, error)
    select id, created_at, aggregate_type, aggregate_id, event_type, attempts, next_run_at,
        last_error
    from outbox_event where status = 'dead' order by id;
    insert into dlq.retry
        (death_id, event_id, aggregate_type, aggregate_id, actor, reason, retried_at, due_at,
        outcome, settled_at)
    select -n, {EVENTS} + n, 'aggregate1', n::text, 'ann', 'asked', now(), now(), 'delivered', now()
    from generate_series(1, {EVENTS}) n;
    insert into dlq.audit (kind, actor, reason, filter, events, at)
    select 'archive.move', 'ann', 'retention', '{{}}', 5000, now() from generate_series(1, 10000);
"""


def measure() -> Iterator[Figure]:
    """Yield the seconds of whole scrapes, from connection to text, and of the alert query."""
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("metrics"))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            connection.execute(FILL.encode())
            yield _measure_scrape(
                database,
                connection,
                f"scrape, {EVENTS:,} dead and unclassified",
                unclassified=EVENTS,
            )
            classify_deaths(connection, zone=ZoneInfo("UTC"))
            yield _measure_scrape(database, connection, f"scrape, {EVENTS:,} dead", unclassified=0)
            yield _measure_alert_query(connection)


def _measure_scrape(
    database: Database, connection: Connection, operation: str, *, unclassified: int
) -> Figure:
    connection.execute("vacuum analyze")
    registry = CollectorRegistry()
    registry.register(
        DeadLetterCollector(
            build_snapshot_reader(database.connect, max_retries=3, archive_retention_days=365),
            outbox="orders",
        )
    )
    seconds = []
    for _ in range(SCRAPES):
        started = time.perf_counter()
        text = generate_latest(registry).decode()
        seconds.append(time.perf_counter() - started)
    assert _sum_samples(text, "dlq_unclassified_deaths") == unclassified
    assert (
        _sum_samples(text, "dispatchbox_dead_events_total")
        == _sum_samples(text, "dispatchbox_dead_events_current")
        == EVENTS
    )
    # A million unclassified deaths are counted as well, until the job classifies them.
    target = 0.25 if unclassified else 0.1
    return Figure(operation, statistics.median(seconds), target, 1.0, TARGET)


def _measure_alert_query(connection: Connection) -> Figure:
    """Measure the query of the sensor, which runs each minute, with deaths of the last hour."""
    connection.execute(
        "update dlq.death set died_at = now() - interval '1 minute' where id <= 200000"
    )
    connection.execute("vacuum analyze dlq.death")
    seconds = []
    for _ in range(11):
        started = time.perf_counter()
        with connection.transaction():
            assert list_transitions(connection, now=datetime.now(UTC), policy=AlertPolicy())
        seconds.append(time.perf_counter() - started)
    operation = f"alert sensor, {EVENTS:,} dead"
    return Figure(operation, statistics.median(seconds), 0.25, 1.0, TARGET)


def _sum_samples(text: str, name: str) -> float:
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    )
