"""Measures how long the deaths of a bad day take to classify, and with how much memory.

200,000 deaths of 20,000 distinct texts, a fifth of the promised day (1,000,000 in 20 s). The peer
is the minimum work of a classification in the database: one statement a batch locks and reads the
same rows and sets their cause.
"""

import resource
import time
from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

from dlq_pipelines.causes.classify import BATCH, classify_deaths
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.bench.figure import Figure, sized
from tests.databases import scratch_server

DEATHS = sized(200_000)
FILL = """
    insert into dlq.death
        (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    select n,
        'order',
        n::text,
        'type ' || mod(n, 5),
        5,
        '2026-11-20'::timestamptz + n * interval '400 ms',
        E'Traceback (most recent call last):\n  File "/app/pay.py", line 42, in pay\n'
        || E'    answer.raise_for_status()\n'
        || 'requests.exceptions.HTTPError: ' || 400 + mod(n * 7919, 40)
        || ' Client Error for url: https://pay.example/v1/orders/' || mod(n * 7919, 20000)
    from generate_series(1::bigint, %(deaths)s) n
"""
ONE_CAUSE = """
    with batch as (
        select id, length(error) from dlq.death where cause_id is null and id > %(after)s
        order by id limit %(limit)s for update skip locked
    )
    update dlq.death d set cause_id = 'v2-one' from batch where batch.id = d.id
"""


def measure() -> Iterator[Figure]:
    """Yield the seconds of a classification; the label has its peak of memory."""
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("deaths"))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            peer = _measure_seconds(connection, _assign_one_cause)
            ours = _measure_seconds(connection, _classify)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    operation = f"classify {DEATHS:,} deaths (peak {peak:.0f} MB)"
    yield Figure(operation, ours, peer, 2.0, "one update a batch, without fingerprints")


def _measure_seconds(connection: Connection, work: Callable[[Connection], None]) -> float:
    connection.execute(
        "truncate dlq.death, dlq.dead, dlq.cause_day, dlq.cause_alias, dlq.cause, dlq.retry,"
        " dlq.fix restart identity cascade"
    )
    connection.execute(FILL, {"deaths": DEATHS})
    connection.execute("vacuum analyze dlq.death")
    started = time.perf_counter()
    work(connection)
    return time.perf_counter() - started


def _classify(connection: Connection) -> None:
    found = classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert found.deaths == DEATHS


def _assign_one_cause(connection: Connection) -> None:
    for after in range(0, DEATHS, BATCH):
        connection.execute(ONE_CAUSE, {"after": after, "limit": BATCH})
