"""Measures what triggers and indexes cost a worker that does not know this project.

There are two databases on one server: the application's table as it is, and after `dlq migrate`. A
worker alternates between them in short blocks, so that other load affects both alike. The time of a
block is the median of its transactions, and the figure is the median over blocks.
"""

import statistics
import time
from collections.abc import Iterator

import psycopg

from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.bench.figure import Figure
from tests.databases import scratch_server

BLOCKS = 30
BLOCK = 200
ERROR = (
    "Traceback (most recent call last):\n"
    + '  File "/app/worker.py", line 42, in handle\n' * 30
    + "TimeoutError"
)
# Statements of a worker for its last attempt and for a success; each is a transaction.
DIE = """
    update outbox_event set status = 'dead', attempts = attempts + 1, last_error = %(error)s
    where id = %(id)s
"""
SUCCEED = "update outbox_event set status = 'done', attempts = attempts + 1 where id = %(id)s"
FILL = """
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)
    select 'order', n::text, 'order.placed',
        jsonb_build_object('order', n, 'text', repeat('x', 500))
    from generate_series(1, %(rows)s) n
"""


def measure() -> Iterator[Figure]:
    """Yield the seconds of a death and of a success, with and without dlq-pipelines."""
    with scratch_server() as (_, server):
        bare = Database(server.ensure_database("bare"))
        ours = Database(server.ensure_database("migrated"))
        for database in (bare, ours):
            with database.connect() as connection:
                create_host_tables(connection)
        with bare.connect() as connection:
            # The worker stores its error in both, so both write the same row.
            connection.execute("alter table outbox_event add column last_error text")
        with ours.connect() as connection:
            install_outbox(connection)
        for operation, statement, bound in (("a death", DIE, 1.35), ("a success", SUCCEED, 1.15)):
            with (
                psycopg.connect(ours.url, autocommit=True) as migrated,
                psycopg.connect(bare.url, autocommit=True) as plain,
            ):
                yield _compare(operation, statement, migrated, plain, bound)


def _compare(
    operation: str, statement: str, ours: psycopg.Connection, peer: psycopg.Connection, bound: float
) -> Figure:
    for connection in (ours, peer):
        connection.execute("truncate outbox_event restart identity")
        connection.execute(FILL, {"rows": BLOCKS * BLOCK})
        connection.execute("vacuum analyze outbox_event")
    times: dict[psycopg.Connection, list[float]] = {ours: [], peer: []}
    for block in range(BLOCKS):
        # The one that goes first changes each time: a checkpoint may delay the second.
        for connection in (ours, peer)[:: 1 if block % 2 else -1]:
            times[connection].append(_measure_block(connection, statement, block))
    return Figure(
        operation,
        statistics.median(times[ours]),
        statistics.median(times[peer]),
        bound,
        "the table without dlq-pipelines",
    )


def _measure_block(connection: psycopg.Connection, statement: str, block: int) -> float:
    """Return the median seconds of a transaction in a block."""
    seconds = []
    for row in range(block * BLOCK + 1, (block + 1) * BLOCK + 1):
        started = time.perf_counter()
        connection.execute(statement, {"id": row, "error": ERROR}, prepare=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
