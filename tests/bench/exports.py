r"""Measures how long the deaths of a bad day take to export, and with how much memory.

A million deaths with payloads of about 250 bytes. The peers select the same columns in one
statement: `psql \copy` to a CSV file, the fastest common tool, and pandas.read_sql with
to_parquet, the most common code. Each run is a process that prints its seconds, without imports,
and its peak of memory. `LARGE=1` adds 3,000,000 deaths and compares the peaks.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from dlq_pipelines.day import Day
from dlq_pipelines.exports.stream import render_deaths_query
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.bench.figure import TARGET, Figure, measure_peak, run_module, sized
from tests.databases import scratch_server

DEATHS = sized(1_000_000)
ROUNDS = 3
MEGABYTES = 350
DAY = Day.of(date(2026, 3, 10), ZoneInfo("UTC"))
NOW = datetime(2026, 12, 1, tzinfo=UTC)
DAY_DEATHS = Selection(since=DAY.start, until=DAY.until)
EVENTS = """
    insert into outbox_event
        (id, aggregate_type, aggregate_id, event_type, payload, status, attempts, next_run_at)
    select n,
        'order',
        n::text,
        'order.type' || mod(n, 5),
        jsonb_build_object(
            'order_id', n,
            'customer', md5(n::text),
            'email', 'u' || n || '@shop.example',
            'amount', n * 1.37,
            'currency', 'EUR',
            'note', md5((n * 3)::text),
            'items', jsonb_build_array(
                jsonb_build_object('sku', md5((n * 7)::text), 'quantity', mod(n, 9)))),
        'dead',
        5,
        '2026-03-10 00:00+00'::timestamptz + n * interval '20 ms'
    from generate_series(1::bigint, %(deaths)s) n
"""
LEDGER = """
    insert into dlq.death
        (event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,
        died_at, error, cause_id)
    select id,
        created_at,
        aggregate_type,
        aggregate_id,
        event_type,
        attempts,
        next_run_at,
        E'Traceback (most recent call last):\n  File "/app/pay.py", line 42, in pay\n'
        || E'    answer.raise_for_status()\n'
        || 'requests.exceptions.HTTPError: ' || 400 + mod(id * 7919, 40)
        || ' Client Error for url: https://pay.example/v1/orders/' || mod(id * 7919, 20000),
        'v2-' || mod(id * 7919, 40)
    from outbox_event
"""
CAUSES = """
    insert into dlq.cause (id, exception_type, template, first_seen, last_seen)
    select 'v2-' || n,
        'requests.exceptions.HTTPError',
        (400 + n) || ' Client Error for url: <url>',
        now(),
        now()
    from generate_series(0, 39) n
"""
PEER = """
    select d.*, c.cause_id, c.exception_type, c.template
    from (
{deaths}
    ) d left join (
{causes}
    ) c using (fingerprint) order by died_at, death_id
"""


def measure() -> Iterator[Figure]:
    """Yield seconds against both peers, then the peaks of memory."""
    peaks: list[float] = []
    for deaths in (DEATHS, 3 * DEATHS) if os.environ.get("LARGE") else (DEATHS,):
        with scratch_server() as (folder, server):
            database = Database(server.ensure_database("deaths"), statement_timeout=3600)
            with database.connect() as connection:
                _fill(connection, deaths)
            yield from _compare_with_peers(database.url, folder, deaths, peaks)
    if len(peaks) > 1:
        yield Figure(
            f"peak memory of {3 * DEATHS:,} deaths",
            peaks[1],
            peaks[0],
            1.15,
            f"peak memory of {DEATHS:,} deaths",
            unit="MB",
        )


def _compare_with_peers(
    url: str, folder: Path, deaths: int, peaks: list[float]
) -> Iterator[Figure]:
    runs: dict[str, list[float]] = {"copy": [], "parquet": [], "parquet,csv,jsonl": []}
    if deaths == DEATHS:
        runs["pandas"] = []
    megabytes = dict.fromkeys(runs, 0.0)
    for _ in range(ROUNDS):
        for work, seconds in runs.items():
            result = run_module("tests.bench.exports", work, url, str(folder))
            seconds.append(result["seconds"])
            megabytes[work] = max(megabytes[work], result["megabytes"])
    copy, parquet, everything, *pandas = (statistics.median(seconds) for seconds in runs.values())
    operation, csv = f"export {deaths:,} deaths to", "psql \\copy to CSV"
    yield Figure(f"{operation} Parquet", parquet, copy, 1.4, csv)
    yield Figure(f"{operation} all three formats", everything, copy, 4.0, csv)
    for peer in pandas:
        yield Figure(f"{operation} Parquet", parquet, peer, 0.2, "pandas.read_sql and to_parquet")
    peaks.append(megabytes["parquet,csv,jsonl"])
    for formats, name in (("parquet", "Parquet"), ("parquet,csv,jsonl", "all three formats")):
        yield Figure(f"peak memory, {name}", megabytes[formats], MEGABYTES, 1.0, TARGET, unit="MB")


def _fill(connection: Connection, deaths: int) -> None:
    create_host_tables(connection)
    install_outbox(connection)
    # The triggers are off: one statement writes the ledger.
    connection.execute("set session_replication_role = replica")
    connection.execute(EVENTS, {"deaths": deaths})
    connection.execute(LEDGER)
    connection.execute(CAUSES.encode())
    connection.execute("vacuum analyze")


def _measure_seconds(work: str, url: str, folder: Path) -> float:
    """Run an export or a peer in this process."""
    with Database(url).connect() as connection:
        deaths, causes = (
            render_deaths_query(connection, DAY_DEATHS),
            connection.render_query("export.causes"),
        )
        statement = PEER.format(deaths=deaths, causes=causes)
        if work == "copy":
            return _run_copy(url, statement, folder)
        if work == "pandas":
            return _run_pandas(url, statement, folder)
        return _run_export(connection, url, work, folder)


def _run_copy(url: str, statement: str, folder: Path) -> float:
    # psql accepts \copy on one line only.
    lines = (line.strip() for line in statement.splitlines())
    line = " ".join(line for line in lines if not line.startswith("--"))
    script = f"\\copy ({line}) to '{folder / 'copy.csv'}' csv header"
    started = time.perf_counter()
    subprocess.run(["psql", "-qX", url, "-c", script], check=True)
    return time.perf_counter() - started


def _run_pandas(url: str, statement: str, folder: Path) -> float:
    import pandas as pd
    from sqlalchemy import create_engine, text

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1))
    started = time.perf_counter()
    with engine.connect() as connection:
        pd.read_sql(text(statement.replace(":", "\\:")), connection).to_parquet(
            folder / "pandas.parquet"
        )
    return time.perf_counter() - started


def _run_export(connection: Connection, url: str, formats: str, folder: Path) -> float:
    from dlq_pipelines.exports.export import export_day
    from dlq_pipelines.exports.manifest import ExportOptions
    from dlq_pipelines.exports.target import open_local_target
    from dlq_pipelines.settings import ExportFormat

    options = ExportOptions(tuple(ExportFormat(name) for name in formats.split(",")))
    target = open_local_target(folder / "exports")
    started = time.perf_counter()
    export_day(connection, url=url, day=DAY, target=target, now=NOW, options=options)
    return time.perf_counter() - started


if __name__ == "__main__":
    seconds = _measure_seconds(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    print(json.dumps({"seconds": seconds, "megabytes": measure_peak()}))
