"""Measures how long a page of dead events and their counts take, with a million dead events.

The functions that every face calls are called directly, without HTTP. The time includes the query,
the answer and the rows as Python objects. A figure is the median of its rounds.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from dlq_pipelines.outbox.dead_events import (
    DeadEventPage,
    StatsDimension,
    get_dead_event_stats,
    list_dead_events,
)
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.bench.figure import TARGET, Figure, sized
from tests.databases import scratch_server

DEAD, ROUNDS = sized(1_000_000), 11
# Twenty types, fifty causes, and a death every 2.6 seconds for thirty days.
FILL = """
    alter table outbox_event disable trigger user;
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
        next_run_at)
    select 'kind' || mod(n, 5), n::text, 'type' || mod(n, 20),
        jsonb_build_object('order', n, 'text', repeat('x', 200)), 'dead', 5,
        'requests.exceptions.ReadTimeout: no answer within ' || n || ' seconds',
        '2026-10-25Z'::timestamptz + n * interval '2.6 s'
    from generate_series(1, {dead}) n;
    alter table outbox_event enable trigger user;
    insert into dlq.cause (id, exception_type, template, first_seen, last_seen)
    select 'cause ' || n, 'Error', 'x' || n, now(), now() from generate_series(0, 49) n;
    insert into dlq.death
        (event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,
        died_at, error, cause_id)
    select id, created_at, aggregate_type, aggregate_id, event_type, attempts, next_run_at,
        last_error,
        'cause ' || mod(id, 50)
    from outbox_event order by id;
    insert into dlq.dead
    select id, event_id, event_created_at, aggregate_type, aggregate_id, event_type, died_at,
        cause_id
    from dlq.death;
"""
COUNT_BY_CAUSE = "select cause_id, count(*) from dlq.dead_event group by 1"


def measure() -> Iterator[Figure]:
    """Yield the seconds of the first and the last page, and of the counts."""
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("api"))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            connection.execute(FILL.format(dead=DEAD).encode())
            connection.execute("vacuum analyze")
            yield from _measure_pages(connection)
            yield from _measure_counts(connection)


def _measure_pages(connection: Connection) -> Iterator[Figure]:
    first = _measure_seconds(lambda: list_dead_events(connection))
    yield Figure(f"first page of {DEAD:,} dead events", first, 0.01, 1.0, TARGET)
    cursor = _find_last_page(connection)
    by_key = _measure_seconds(lambda: _check_last_page(list_dead_events(connection, after=cursor)))
    by_offset = _measure_seconds(
        lambda: _check_last_page(list_dead_events(connection, offset=DEAD - 100))
    )
    yield Figure("last page, by key", by_key, 0.01, 1.0, TARGET)
    yield Figure("last page, by key", by_key, by_offset, 0.5, "the same page by offset")
    of_type = Selection(event_type="type3")
    filtered = _measure_seconds(lambda: list_dead_events(connection, of_type))
    yield Figure("first page of one event type", filtered, 0.02, 1.0, TARGET)


def _measure_counts(connection: Connection) -> Iterator[Figure]:
    def measure_stats(*by: StatsDimension) -> float:
        return _measure_seconds(
            lambda: get_dead_event_stats(connection, now=datetime.now(UTC), by=by)
        )

    by_type = measure_stats(StatsDimension.EVENT_TYPE, StatsDimension.AGGREGATE_TYPE)
    yield Figure("total and counts by type", by_type, 0.05, 1.0, TARGET)
    yield Figure("counts by age", measure_stats(StatsDimension.AGE), 0.05, 1.0, TARGET)
    yield Figure(
        "counts by type, age and cause",
        measure_stats(*StatsDimension),
        _measure_seconds(lambda: connection.execute(COUNT_BY_CAUSE).fetchall()),
        1.0,
        "counts by cause alone, from the view",
    )


def _find_last_page(connection: Connection) -> str:
    """Return the cursor of the last page: the key of the hundred-and-first event from the end."""
    page = list_dead_events(connection, limit=1, offset=DEAD - 101)
    assert page.next is not None
    return page.next


def _check_last_page(page: DeadEventPage) -> None:
    assert (len(page.events), page.next, page.events[-1].id) == (100, None, 1)


def _measure_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
