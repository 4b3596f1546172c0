"""Measures the report of a bad day: seconds, peak memory and size of the page.

The day has a million deaths of 500 causes, fourteen days before it, and every event is dead in the
outbox. Each run is a process of its own. The import of its libraries is not counted.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from dlq_pipelines.day import Day
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.bench.figure import TARGET, Figure, measure_peak, run_module, sized
from tests.databases import scratch_server

DEATHS, CAUSES, ROUNDS = sized(1_000_000), 500, 3
DAY = Day.of(date(2026, 3, 10), ZoneInfo("UTC"))
NOW = datetime(2026, 12, 1, tzinfo=UTC)
EVENTS = """
    insert into outbox_event
        (id, aggregate_type, aggregate_id, event_type, payload, status, attempts,
        next_run_at)
    select n, 'order', mod(n * 7919, 800000)::text, 'order.type' || mod(n, 12), '{}', 'dead', 5,
        '2026-03-10 00:00+00'::timestamptz + n * interval '80 ms'
    from generate_series(1::bigint, %(deaths)s) n
"""
LEDGER = """
    insert into dlq.death
        (event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,
        died_at, error, cause_id)
    select id, created_at, aggregate_type, aggregate_id, event_type, attempts, next_run_at,
        E'Traceback (most recent call last):\n'
        || repeat(E'  File "/app/pay.py", line 42, in pay\n    send(order)\n', 8)
        || 'requests.exceptions.HTTPError: ' || 400 + mod(id * 7919, 40)
        || ' Client Error for url: https://pay.example/v1/orders/' || mod(id * 7919, 20000),
        'v2-' || floor(%(causes)s * power(mod(id * 7919, 10007) / 10007.0, 2))
    from outbox_event
"""
CATALOGUE = """
    insert into dlq.cause (id, exception_type, template, first_seen, last_seen)
    select 'v2-' || n, 'requests.exceptions.HTTPError',
        (400 + n) || ' Client Error for url: <url>', '2026-02-01Z', '2026-03-10Z'
    from generate_series(0, %(causes)s - 1) n
"""
HISTORY = """
    insert into dlq.cause_day (day, cause_id, event_type, aggregate_type, deaths)
    select '2026-03-10'::date - ago, 'v2-' || n, 'order.type' || kind, 'order',
        10 + mod(n * ago, 100)
    from generate_series(1, 14) ago,
        generate_series(0, %(causes)s - 1) n,
        generate_series(0, 11) kind
"""


def measure() -> Iterator[Figure]:
    """Yield the median seconds, the peak memory and the size of the largest page."""
    with scratch_server() as (folder, server):
        database = Database(server.ensure_database("deaths"), statement_timeout=3600)
        with database.connect() as connection:
            _fill(connection)
        runs = [run_module("tests.bench.reports", database.url, str(folder)) for _ in range(ROUNDS)]
    operation = f"report of {DEATHS:,} deaths, {CAUSES} causes"
    yield Figure(operation, statistics.median(run["seconds"] for run in runs), 5.0, 1.0, TARGET)
    peak = max(run["megabytes"] for run in runs)
    yield Figure("its peak memory", peak, 400.0, 1.0, TARGET, unit="MB")
    yield Figure("its page", max(run["page"] for run in runs), 1.0, 1.0, TARGET, unit="MB")


def _fill(connection: Connection) -> None:
    create_host_tables(connection)
    install_outbox(connection)
    # No triggers: LEDGER writes the ledger at once.
    connection.execute("set session_replication_role = replica")
    connection.execute(EVENTS, {"deaths": DEATHS})
    for statement in (LEDGER, CATALOGUE, HISTORY):
        connection.execute(statement, {"causes": CAUSES})
    connection.execute("vacuum analyze")


def _measure_report(url: str, folder: Path) -> dict[str, float]:
    """Build one report; return its seconds, peak memory and page size."""
    from dlq_pipelines.exports.target import open_local_target
    from dlq_pipelines.reports.figures import ReportPolicy
    from dlq_pipelines.reports.report import build_report

    target = open_local_target(folder, "reports")
    with Database(url).connect() as connection:
        started = time.perf_counter()
        built = build_report(
            connection,
            day=DAY.date,
            zone=ZoneInfo("UTC"),
            target=target,
            policy=ReportPolicy(),
            now=NOW,
        )
        seconds = time.perf_counter() - started
    assert built.figures.totals.deaths == DEATHS
    page = Path(built.places["html"]).stat().st_size / 1e6
    return {"seconds": seconds, "megabytes": measure_peak(), "page": page}


if __name__ == "__main__":
    print(json.dumps(_measure_report(sys.argv[1], Path(sys.argv[2]))))
