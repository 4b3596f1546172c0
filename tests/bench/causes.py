"""Measures how long the deaths of a bad day take to classify, and with how much memory.

200,000 deaths of 20,000 distinct texts, a fifth of the promised day (1,000,000 in 20 s). The peer
is the minimum work of a classification in the database: one statement a batch locks and reads the
same rows and sets their cause. Then what sets 2,000 dead events apart from 2,000 delivered ones,
with payloads of 2 kB, against one sequential read of the same payloads.
"""

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

from dlq_pipelines.causes.classify import BATCH, classify_deaths
from dlq_pipelines.causes.explain import explain_cause
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
# Forty fields, about 2 kB. Half of the events is of one acquirer.
PAYLOADS = """
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, last_error)
    select 'order', n::text, 'order.placed',
        jsonb_build_object(
            'order', n,
            'acquirer', case when mod(n, 2) = 0 then 'northbank' else 'southbank' end,
            'amount', mod(abs(hashint4(n)), 1000),
            'customer', jsonb_build_object(
                'id', md5(n::text), 'country', mod(abs(hashint4(-n)), 7)::text),
            'lines', (
                select jsonb_agg(jsonb_build_object(
                    'sku', mod(abs(hashint4(n * 16 + m)), 500), 'name', md5(m::text)))
                from generate_series(1, 10) m))
        || (
            select jsonb_object_agg('field_' || m, md5((n * m)::text))
            from generate_series(1, 20) m),
        'HTTPError: HTTP Error 503'
    from generate_series(1, 4000) n
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
    yield _measure_explanation()


def _measure_explanation() -> Figure:
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("explained"))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            connection.execute(PAYLOADS.encode())
            connection.execute("update outbox_event set status = 'dead' where mod(id, 2) = 0")
            connection.execute("update outbox_event set status = 'done' where mod(id, 2) = 1")
            classify_deaths(connection, zone=ZoneInfo("UTC"))
            connection.execute("vacuum analyze")
            (cause,) = connection.execute("select id from dlq.cause").fetchall()

            def explain() -> None:
                found = explain_cause(
                    connection, cause["id"], zone=ZoneInfo("UTC"), is_hidden=lambda _: False
                )
                assert (found.separation.dead, found.separation.delivered) == (2_000, 2_000)
                assert found.separation.findings[0].condition == "$.acquirer = northbank"

            def read() -> None:
                rows = connection.execute("select payload::text from outbox_event").fetchall()
                assert len(rows) == 4_000

            ours: list[float] = []
            peer: list[float] = []
            for _ in range(5):
                for times, work in ((ours, explain), (peer, read)):
                    started = time.perf_counter()
                    work()
                    times.append(time.perf_counter() - started)
    return Figure(
        "what sets 2,000 dead events apart from 2,000",
        statistics.median(ours),
        statistics.median(peer),
        10.0,
        "a sequential read of the payloads",
    )


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
