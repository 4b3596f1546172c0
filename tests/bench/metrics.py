"""How long does a scrape take where a million events are dead, and the question of the alert sensor?

Once with all of them classified, as they are five minutes later, and once with none: when the jobs stand still, metrics
matter most. With a million retries and ten thousand audit rows, of 50 million archived events, behind them.
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
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import apply_migrations, create_host_tables, load_migrations
from tests.bench.figure import Figure, sized
from tests.databases import scratch_server

EVENTS = sized(1_000_000)
SCRAPES = 21
FILL = f"""
    alter table outbox_event disable trigger user;
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, last_error_at, dead_at)
    select 'aggregate' || mod(n, 3), n::text, 'order.kind' || mod(n, 12), jsonb_build_object('order', n), 'dead',
        1 + mod(n, 5), 'Error' || mod(n, 100) || ': no answer', at, at
    from (select n, '2026-11-01Z'::timestamptz + n * interval '864 ms' as at from generate_series(1, {EVENTS}) n) d;
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)
    select 'aggregate1', n::text, 'order.kind1', '{{}}', 'done' from generate_series(1, {EVENTS}) n;
    alter table outbox_event enable trigger user;
    insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    select id, aggregate_type, aggregate_id, event_type, attempts, dead_at, last_error
    from outbox_event where status = 'dead' order by id;
    insert into dlq.retry (death_id, event_id, aggregate_type, aggregate_id, actor, reason, retried_at, due_at, outcome,
        settled_at)
    select -n, {EVENTS} + n, 'aggregate1', n::text, 'ann', 'asked', now(), now(), 'delivered', now()
    from generate_series(1, {EVENTS}) n;
    insert into dlq.audit (kind, actor, reason, filter, events, at)
    select 'archive.move', 'ann', 'retention', '{{}}', 5000, now() from generate_series(1, 10000);
"""


def measure() -> Iterator[Figure]:
    """A whole scrape: connecting, reading, writing the text."""
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("metrics"))
        with database.connect() as connection:
            create_host_tables(connection)
            apply_migrations(connection, load_migrations())
            connection.execute(FILL.encode())
            yield _scraped(
                database,
                connection,
                f"a scrape, {EVENTS:,} dead, none classified",
                unclassified=EVENTS,
            )
            classify_deaths(connection, zone=ZoneInfo("UTC"))
            yield _scraped(database, connection, f"a scrape, {EVENTS:,} dead", unclassified=0)
            yield _asked(connection)


def _scraped(database: Database, connection: Connection, what: str, *, unclassified: int) -> Figure:
    connection.execute("vacuum analyze")
    registry = CollectorRegistry()
    registry.register(
        DeadLetterCollector(
            build_snapshot_reader(database.connect, max_retries=3, archive_retention_days=365)
        )
    )
    seconds = []
    for _ in range(SCRAPES):
        begun = time.perf_counter()
        text = generate_latest(registry).decode()
        seconds.append(time.perf_counter() - begun)
    assert _sum(text, "dlq_unclassified_deaths") == unclassified
    assert (
        _sum(text, "dispatchbox_dead_events_total")
        == _sum(text, "dispatchbox_dead_events_current")
        == EVENTS
    )
    # A million without a cause are counted as well, for the five minutes until they have one.
    promised = 0.25 if unclassified else 0.1
    return Figure(what, statistics.median(seconds), promised, 1.0, "what is promised")


def _asked(connection: Connection) -> Figure:
    """What the sensor asks each minute, where all of it died within the hour."""
    connection.execute(
        "update dlq.death set died_at = now() - interval '1 minute' where id <= 200000"
    )
    connection.execute("vacuum analyze dlq.death")
    seconds = []
    for _ in range(11):
        begun = time.perf_counter()
        with connection.transaction():
            assert list_transitions(connection, now=datetime.now(UTC), policy=AlertPolicy())
        seconds.append(time.perf_counter() - begun)
    what = f"the alert sensor's question, {EVENTS:,} dead"
    return Figure(what, statistics.median(seconds), 0.25, 1.0, "what is promised")


def _sum(text: str, name: str) -> float:
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    )
