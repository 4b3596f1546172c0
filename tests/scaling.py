"""What grows how? Times, memory and bytes at one, five and ten million dead events: `make scaling`, half an hour.

The events died over thirty days of 20,000 texts. What is measured is what people wait for and what the disk holds; the
table that it prints is the one in docs/scaling.md.
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
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import apply_migrations, create_host_tables, load_migrations
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
        (id, aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, dead_at, next_run_at)
    select n, 'order', n::text, 'order.type' || mod(n, 12), jsonb_build_object('order', n, 'text', repeat('x', 200)),
        'dead', 5, 'requests.exceptions.HTTPError: ' || 400 + mod(n * 7919, 40)
        || ' Client Error for url: https://pay.example/v1/orders/' || mod(n * 7919, 20000),
        '2026-03-01Z'::timestamptz + n * interval '30 days' / %(events)s, '2026-03-01Z'
    from generate_series(1::bigint, %(events)s) n
"""
LEDGER = """
    insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    select id, aggregate_type, aggregate_id, event_type, attempts, dead_at, last_error from outbox_event order by id
"""
SIZES = """
    select pg_table_size('outbox_event') as outbox, pg_indexes_size('outbox_event') as outbox_indexes,
        (select sum(pg_relation_size(indexrelid)) from pg_index where indrelid = 'outbox_event'::regclass
            and indexrelid::regclass::text like '%%dlq\\_%%') as ours,
        pg_table_size('dlq.death') as ledger, pg_indexes_size('dlq.death') as ledger_indexes
"""


def main(sizes: list[int]) -> int:
    """Measure each size in a process of its own server, and print the table."""
    columns = [measured(size) for size in sizes]
    print("|", *(f"| {size:,}" for size in sizes), "|")
    print("| --- |" + " ---: |" * len(sizes))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")
    return 0


def measured(events: int) -> dict[str, str]:
    """Every figure at that size, by its name."""
    with scratch_server() as (folder, server):
        database = Database(server.ensure_database("scaling"), statement_timeout=3600)
        with database.connect() as connection:
            _fill(connection, events)
            said = {"classify all of it": _took(lambda: classify_deaths(connection, zone=UTC_DAYS))}
            connection.execute("vacuum analyze")
            sizes = connection.execute(SIZES.encode()).fetchone() or {}
            said |= _asked(connection, database)
            said |= _a_day(connection, database, folder)
            said["check the books of all of it"] = _took(
                lambda: reconcile_events(connection, now=NOW)
            )
            said |= {
                "outbox table": _megabytes(sizes["outbox"]),
                "its indexes, of these ours": f"{_megabytes(sizes['outbox_indexes'])}, {_megabytes(sizes['ours'])}",
                "ledger of deaths": _megabytes(sizes["ledger"]),
                "its indexes": _megabytes(sizes["ledger_indexes"]),
                "peak of this process": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB",
            }
    print(f"{events:,} done", file=sys.stderr, flush=True)
    return said


def _fill(connection: Connection, events: int) -> None:
    create_host_tables(connection)
    apply_migrations(connection, load_migrations())
    connection.execute(
        "set session_replication_role = replica"
    )  # the ledger is written below, at once
    connection.execute(EVENTS, {"events": events})
    connection.execute(LEDGER.encode())
    connection.execute("set session_replication_role = origin")
    connection.execute("vacuum analyze")


def _asked(connection: Connection, database: Database) -> dict[str, str]:
    """What is asked all day."""
    registry = CollectorRegistry()
    registry.register(
        DeadLetterCollector(
            build_snapshot_reader(database.connect, max_retries=3, archive_retention_days=365)
        )
    )
    kinds = (StatsDimension.EVENT_TYPE, StatsDimension.AGGREGATE_TYPE)
    return {
        "first page of dead events": _took(lambda: list_dead_events(connection), rounds=5),
        "total and by types": _took(
            lambda: get_dead_event_stats(connection, now=NOW, by=kinds), rounds=5
        ),
        "a scrape of /metrics": _took(lambda: generate_latest(registry), rounds=5),
        "the question of fix_flag_sensor": _took(
            lambda: list_due_fixes(connection, now=NOW, max_backlog=timedelta(minutes=5)), rounds=5
        ),
    }


def _a_day(connection: Connection, database: Database, folder: Path) -> dict[str, str]:
    """A thirtieth of it, and a fix of ten thousand."""
    day, reports = Day.of(FIRST + timedelta(days=1), UTC_DAYS), open_local_target(folder, "reports")
    exports, audit = open_local_target(folder / "exports"), AuditContext("scaling", "measured", NOW)
    policy = RetryPolicy(canary=BATCH, growth=1.0, rate=100_000.0, order="none")
    ids = Selection(event_ids=tuple(range(1, 10_001)))
    fix = flag_fix(connection, FixFlag(ids, policy), audit=audit)
    said = {
        "export and verify a day": _took(
            lambda: (
                export_day(connection, url=database.url, day=day, target=exports, now=NOW),
                verify_day(connection, day=day, target=exports, now=NOW),
            )
        ),
        "report of a day": _took(
            lambda: build_report(
                connection,
                day=day.date,
                zone=UTC_DAYS,
                target=reports,
                policy=ReportPolicy(),
                now=NOW,
            )
        ),
        f"release {BATCH:,} events of a fix": _took(
            lambda: advance_fix(connection, fix.id, audit=audit, terms=FixTerms())
        ),
        "archive a day, with that fix open": _took(
            lambda: archive_dead_events(
                connection, before=day.until, only_exported=True, audit=audit
            )
        ),
    }
    size = sum(path.stat().st_size for path in (folder / "exports").rglob("*.parquet"))
    return said | {"a day as Parquet": _megabytes(size)}


def _took(work: Callable[[], object], *, rounds: int = 1) -> str:
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    middle = statistics.median(seconds)
    return f"{middle * 1000:.0f} ms" if middle < 1 else f"{middle:.1f} s"


def _megabytes(size: int) -> str:
    return f"{int(size) / 1e6:,.0f} MB"


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or [1_000_000, 5_000_000, 10_000_000]))
