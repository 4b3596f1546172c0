"""How long does a caller wait for a page or for the figures, where a million events are dead?

Asked of the functions that every face calls, without HTTP: what is timed is the question, the answer and the rows as
Python has them. A figure is the median of its rounds.
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
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import apply_migrations, create_host_tables, load_migrations
from tests.bench.figure import Figure, sized
from tests.databases import scratch_server

DEAD, ROUNDS = sized(1_000_000), 11
# Twenty types, fifty causes, a death every 2.6 seconds for thirty days.
FILL = """
    alter table outbox_event disable trigger user;
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, dead_at)
    select 'kind' || mod(n, 5), n::text, 'type' || mod(n, 20), jsonb_build_object('order', n, 'text', repeat('x', 200)),
        'dead', 5, 'requests.exceptions.ReadTimeout: no answer within ' || n || ' seconds',
        '2026-10-25Z'::timestamptz + n * interval '2.6 s'
    from generate_series(1, {dead}) n;
    alter table outbox_event enable trigger user;
    insert into dlq.cause (id, exception_type, template, sample, first_seen, last_seen)
    select 'cause ' || n, 'Error', 'x' || n, 'x', now(), now() from generate_series(0, 49) n;
    insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error, cause_id)
    select id, aggregate_type, aggregate_id, event_type, attempts, dead_at, last_error, 'cause ' || mod(id, 50)
    from outbox_event order by id;
"""
BY_CAUSE = "select cause_id, count(*) from dlq.dead_event group by 1"
PROMISED = "what is promised"


def measure() -> Iterator[Figure]:
    """The first and the last page, and the figures."""
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("api"))
        with database.connect() as connection:
            create_host_tables(connection)
            apply_migrations(connection, load_migrations())
            connection.execute(FILL.format(dead=DEAD).encode())
            connection.execute("vacuum analyze")
            yield from _pages(connection)
            yield from _figures(connection)


def _pages(connection: Connection) -> Iterator[Figure]:
    deepest = _before_last(connection)
    yield Figure(
        f"first page of {DEAD:,} dead",
        _median(lambda: list_dead_events(connection)),
        0.01,
        1.0,
        PROMISED,
    )
    by_key = _median(lambda: _last(list_dead_events(connection, after=deepest)))
    by_offset = _median(lambda: _last(list_dead_events(connection, offset=DEAD - 100)))
    yield Figure("last page, by key", by_key, 0.01, 1.0, PROMISED)
    yield Figure("last page, by key", by_key, by_offset, 0.5, "the same page by offset")
    of_type = Selection(event_type="type3")
    yield Figure(
        "first page of a type",
        _median(lambda: list_dead_events(connection, of_type)),
        0.02,
        1.0,
        "twice that",
    )


def _figures(connection: Connection) -> Iterator[Figure]:
    def stats(*by: StatsDimension) -> Callable[[], object]:
        return lambda: get_dead_event_stats(connection, now=datetime.now(UTC), by=by)

    types = _median(stats(StatsDimension.EVENT_TYPE, StatsDimension.AGGREGATE_TYPE))
    yield Figure("total and by types", types, 0.05, 1.0, PROMISED)
    yield Figure("by age", _median(stats(StatsDimension.AGE)), 0.05, 1.0, PROMISED)
    plain = _median(lambda: connection.execute(BY_CAUSE).fetchall())
    yield Figure(
        "by all sides, cause too",
        _median(stats(*StatsDimension)),
        plain,
        1.0,
        "by cause alone, from the view",
    )


def _before_last(connection: Connection) -> str:
    """Where the last page begins: the key of the hundred-and-first event from the end."""
    page = list_dead_events(connection, limit=1, offset=DEAD - 101)
    assert page.next is not None
    return page.next


def _last(page: DeadEventPage) -> None:
    assert (len(page.events), page.next, page.events[-1].id) == (100, None, 1)


def _median(ask: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)
