"""Measures times, memory and bytes at one, five and ten million dead events.

`make scaling` takes half an hour and prints the table of docs/scaling.md. The events died over
thirty days, with 20,000 distinct error texts.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry, generate_latest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.metrics import DeadLetterCollector, build_snapshot_reader
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.dead_events import StatsDimension, get_dead_event_stats, list_dead_events
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.reports.figures import ReportPolicy
from dlq_pipelines.reports.report import build_report
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, list_due_fixes
from tests.databases import scratch_server

UTC_DAYS = ZoneInfo("UTC")
FIRST = date(2026, 3, 1)
NOW = datetime(2026, 4, 20, tzinfo=UTC)
EVENTS = """
    insert into outbox_event
        (id, aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
        next_run_at)
    select n, 'order', n::text, 'order.type' || mod(n, 12),
        jsonb_build_object('order', n, 'text', repeat('x', 200)), 'dead', 5,
        'requests.exceptions.HTTPError: ' || 400 + mod(n * 7919, 40)
        || ' Client Error for url: https://pay.example/v1/orders/' || mod(n * 7919, 20000),
        '2026-03-01Z'::timestamptz + n * interval '30 days' / %(events)s
    from generate_series(1::bigint, %(events)s) n
"""
LEDGER = """
    insert into dlq.death
        (event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,
        died_at, error)
    select id, created_at, aggregate_type, aggregate_id, event_type, attempts, next_run_at,
        last_error
    from outbox_event order by id
"""
SIZES = """
    select pg_table_size('outbox_event') as outbox,
        pg_indexes_size('outbox_event') as outbox_indexes,
        pg_table_size('dlq.dead') as dead,
        pg_indexes_size('dlq.dead') as dead_indexes,
        pg_table_size('dlq.death') as ledger,
        pg_indexes_size('dlq.death') as ledger_indexes
"""


def main(sizes: list[int]) -> int:
    """Measure each size on a server of its own, and print the table."""
    columns = [measure_size(size) for size in sizes]
    print("|", *(f"| {size:,}" for size in sizes), "|")
    print("| --- |" + " ---: |" * len(sizes))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")
    return 0


def measure_size(events: int) -> dict[str, str]:
    """Return each figure of this number of dead events, by its row of docs/scaling.md."""
    with scratch_server() as (folder, server):
        database = Database(server.ensure_database("scaling"), statement_timeout=3600)
        with database.connect() as connection:
            _fill(connection, events)
            classified = _measure_time(lambda: classify_deaths(connection, zone=UTC_DAYS))
            figures = {"classify all deaths": classified}
            connection.execute("vacuum analyze")
            sizes = connection.execute(SIZES.encode()).fetchone() or {}
            figures |= _measure_frequent_queries(connection, database)
            figures |= _measure_day(connection, database, folder)
            figures["reconciliation"] = _measure_time(lambda: reconcile_events(connection, now=NOW))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            figures |= {
                "outbox table": _format_megabytes(sizes["outbox"]),
                "indexes of the outbox table": _format_megabytes(sizes["outbox_indexes"]),
                "ledger of deaths": _format_megabytes(sizes["ledger"]),
                "indexes of the ledger": _format_megabytes(sizes["ledger_indexes"]),
                "table of dead events": _format_megabytes(sizes["dead"]),
                "indexes of the dead events": _format_megabytes(sizes["dead_indexes"]),
                "peak memory of the process": f"{peak:.0f} MB",
            }
    print(f"{events:,} done", file=sys.stderr, flush=True)
    return figures


def _fill(connection: Connection, events: int) -> None:
    create_host_tables(connection)
    install_outbox(connection)
    # No triggers: LEDGER writes the ledger at once.
    connection.execute("set session_replication_role = replica")
    connection.execute(EVENTS, {"events": events})
    connection.execute(LEDGER.encode())
    connection.execute("set session_replication_role = origin")
    connection.execute("vacuum analyze")


def _measure_frequent_queries(connection: Connection, database: Database) -> dict[str, str]:
    """Measure a page, the counts, a scrape and a tick of a sensor."""
    registry = CollectorRegistry()
    registry.register(
        DeadLetterCollector(
            build_snapshot_reader(database.connect, max_retries=3, archive_retention_days=365),
            outbox="orders",
        )
    )
    by_type = (StatsDimension.EVENT_TYPE, StatsDimension.AGGREGATE_TYPE)
    return {
        "first page of dead events": _measure_time(lambda: list_dead_events(connection), rounds=5),
        "total and counts by type": _measure_time(
            lambda: get_dead_event_stats(connection, now=NOW, by=by_type), rounds=5
        ),
        "a scrape of /metrics": _measure_time(lambda: generate_latest(registry), rounds=5),
        "a tick of fix_flag_sensor": _measure_time(
            lambda: list_due_fixes(connection, now=NOW, max_backlog=timedelta(minutes=5)), rounds=5
        ),
    }


def _measure_day(connection: Connection, database: Database, folder: Path) -> dict[str, str]:
    """Measure the jobs of a day, a thirtieth of the deaths, and a fix of ten thousand events."""
    day, reports = Day.of(FIRST + timedelta(days=1), UTC_DAYS), open_local_target(folder, "reports")
    exports, audit = (
        open_local_target(folder / "exports"),
        AuditContext("scaling", "measurement", NOW),
    )
    policy = RetryPolicy(canary=BATCH, growth=1.0, rate=100_000.0, order="none")
    ids = Selection(event_ids=tuple(range(1, 10_001)))
    fix = flag_fix(connection, FixFlag(ids, policy), audit=audit)
    figures = {
        "export and verify a day": _measure_time(
            lambda: (
                export_day(connection, url=database.url, day=day, target=exports, now=NOW),
                verify_day(connection, day=day, target=exports, now=NOW),
            )
        ),
        "report of a day": _measure_time(
            lambda: build_report(
                connection,
                day=day.date,
                zone=UTC_DAYS,
                target=reports,
                policy=ReportPolicy(),
                now=NOW,
            )
        ),
        f"release {BATCH:,} events of a fix": _measure_time(
            lambda: advance_fix(connection, fix.id, audit=audit, terms=FixTerms())
        ),
        "archive a day, with that fix open": _measure_time(
            lambda: archive_dead_events(
                connection, before=day.until, only_exported=True, audit=audit
            )
        ),
    }
    size = sum(path.stat().st_size for path in (folder / "exports").rglob("*.parquet"))
    return figures | {"a day as Parquet": _format_megabytes(size)}


def _measure_time(work: Callable[[], object], *, rounds: int = 1) -> str:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    return f"{median * 1000:.0f} ms" if median < 1 else f"{median:.1f} s"


def _format_megabytes(size: int) -> str:
    return f"{int(size) / 1e6:,.0f} MB"


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or [1_000_000, 5_000_000, 10_000_000]))
