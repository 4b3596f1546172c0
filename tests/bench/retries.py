"""Measures what ledger, order, pace and recall cost, compared with a plain update of the rows.

Also measures the sensor's query, which runs twice a minute, with many dead events and open retries.
Each release begins on rows that were just written, releases and updates alternate, and a figure is
the median of its rounds.
"""

import statistics
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.retries.advance import Patience, advance_fix
from dlq_pipelines.retries.fix import FixStatus, FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, list_due_fixes
from dlq_pipelines.retries.recall import recall_retries
from dlq_pipelines.retries.retry import retry_selected
from dlq_pipelines.retries.settle import settle_outcomes
from tests.bench.figure import Figure, sized
from tests.databases import scratch_server

ROUNDS, EVENTS, HALF = 3, sized(100_000), sized(50_000)
CHAIN, STORM = sized(20_000), sized(50_000)
FIXES, DEAD, OUTSTANDING = sized(1_000), sized(1_000_000), 200
ERROR = "requests.exceptions.ReadTimeout: no answer within 5 seconds"
# Few stages, so that releases are timed, and a rate at which all is due before the next step.
POLICY = RetryPolicy(canary=BATCH, growth=1000.0, rate=100_000.0)
TERMS = FixTerms()
EMPTY = """
    truncate outbox_event, dlq.death, dlq.dead, dlq.cause_day, dlq.cause_alias, dlq.cause,
        dlq.retry, dlq.recalled, dlq.fix_outcome, dlq.fix_stage, dlq.fix, dlq.audit
        restart identity cascade
"""
FILL = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
        last_error_at)
    select 'order', n::text, 'order.placed',
        jsonb_build_object('order', n, 'text', repeat('x', 200)), 'dead', 5, %(error)s, now()
    from generate_series(1, %(rows)s) n
"""
UPDATE = """
    update outbox_event set status = 'pending', attempts = 0, next_run_at = %(now)s
    where id = any(%(ids)s)
"""
UPDATE_BACK = """
    update outbox_event set status = 'dead', attempts = 5, next_run_at = %(now)s
    where id = any(%(ids)s)
"""
# The rows that the sensor's query has to read: of each fix the retries that are due first.
READ_DUE = """
    select count(*) as due, count(*) filter (where o.status = 'done') as done
    from dlq.fix f
    cross join lateral (
        select r.event_id, r.due_at from dlq.retry r
        where r.fix_id = f.id and r.outcome is null and r.due_at <= now()
        order by r.due_at limit 20) r
    join outbox_event o on o.id = r.event_id
"""
# A worker that delivers each event as soon as it is due.
DELIVER_DUE = """
    update outbox_event set status = 'done' where id in (
        select id from outbox_event
        where status in ('pending', 'retry') and next_run_at <= now()
        order by next_run_at limit 50 for update skip locked)
"""
DELIVERED = "update outbox_event set status = 'done' where status = 'pending'"
# A thousand fixes, each with its own cause, a thousand dead events, and a stage that is waiting.
# What a storm leaves: the deaths of events that no job has seen.
DIE = """
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error)
    select 'order', n::text, 'order.placed', '{}', 'dead', %(error)s
    from generate_series(1, %(events)s) n
"""
CROWD = """
    alter table outbox_event disable trigger user;
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
        next_run_at)
    select 'order', n::text, 'order.placed', '{{}}', 'dead', 5,
        'Error' || mod(n, {fixes}) || ': x', '2026-11-19Z'::timestamptz + n * interval '1 ms'
    from generate_series(1, {dead}) n;
    alter table outbox_event enable trigger user;
    insert into dlq.cause (id, exception_type, template, first_seen, last_seen)
    select 'cause ' || n, 'Error' || n, 'x', '2026-11-19Z', '2026-11-19Z'
    from generate_series(0, {fixes} - 1) n;
    insert into dlq.death
        (event_id, event_created_at, aggregate_type, aggregate_id, event_type, attempts,
        died_at, error, cause_id)
    select id, created_at, aggregate_type, aggregate_id, event_type, attempts, next_run_at,
        last_error,
        'cause ' || mod(id, {fixes})
    from outbox_event order by id;
    insert into dlq.dead
    select id, event_id, event_created_at, aggregate_type, aggregate_id, event_type, died_at,
        cause_id
    from dlq.death;
    insert into dlq.fix
        (cause_id, note, flagged_by, flagged_at, expires_at, canary, growth, rate, min_success,
        settle_seconds, max_retries, "order", stage)
    select 'cause ' || n, 'n', 'ann', '2026-11-20Z', 'infinity', {outstanding}, 10, 50, 0.9, 900, 3,
        'aggregate', 1
    from generate_series(0, {fixes} - 1) n;
    insert into dlq.retry
        (death_id, event_id, event_created_at, aggregate_type, aggregate_id, fix_id, stage, actor,
        reason, retried_at, due_at)
    select d.id, d.event_id, d.event_created_at, d.aggregate_type, d.aggregate_id, f.id, 1, 'a',
        'r', now(), now()
    from dlq.death d join dlq.fix f using (cause_id) where d.event_id <= {fixes} * {outstanding};
    update outbox_event set status = 'pending', next_run_at = now()
    where id <= {fixes} * {outstanding};
"""


def measure() -> Iterator[Figure]:
    """Yield the cost of releases, recalls, the sensor's query and a preview."""
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("retries"))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            yield _measure_release(connection)
            yield _measure_storm(Database(server.ensure_database(name)) for name in ("a", "b"))
            yield _measure_recall(connection)
            yield _measure_chain(database, connection)
            yield _measure_memory(connection)
            yield _measure_sensor_query(connection)
            yield _measure_preview(connection)


def _measure_release(connection: Connection) -> Figure:
    ours: list[float] = []
    peer: list[float] = []
    for turn in range(ROUNDS):
        # The one that goes first changes each round.
        works = ((ours, _release_in_stages), (peer, _update_rows))
        for times, work in works[:: 1 if turn % 2 else -1]:
            _prepare(connection, EVENTS)
            times.append(work(connection, EVENTS))
    return Figure(
        f"release {EVENTS:,} events of a fix",
        statistics.median(ours),
        statistics.median(peer),
        2.5,
        f"an update, {BATCH:,} rows a statement",
    )


def _measure_storm(databases: Iterable[Database]) -> Figure:
    """Measure a retry by hand right after events died: without causes and statistics."""
    times = []
    for database, is_known in zip(databases, (False, True), strict=True):
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            for table in ("dlq.dead", "dlq.death", "dlq.retry", "outbox_event"):
                connection.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
            connection.execute(DIE, {"events": STORM, "error": ERROR})
            if is_known:
                classify_deaths(connection, zone=ZoneInfo("UTC"))
                connection.execute("vacuum analyze")
            started = time.perf_counter()
            _release_by_hand(connection)
            times.append(time.perf_counter() - started)
    return Figure(
        f"retry {STORM:,} events that just died",
        times[0],
        times[1],
        2.5,
        "the same once they have causes and statistics",
    )


def _measure_recall(connection: Connection) -> Figure:
    ours: list[float] = []
    peer: list[float] = []
    for turn in range(ROUNDS):
        works = ((ours, _recall), (peer, _update_back))
        for times, work in works[:: 1 if turn % 2 else -1]:
            _prepare(connection, EVENTS)
            _release_by_hand(connection)
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")
            times.append(work(connection, EVENTS))
    return Figure(
        f"recall {EVENTS:,} events",
        statistics.median(ours),
        statistics.median(peer),
        2.0,
        f"an update, {BATCH:,} rows a statement",
    )


def _measure_chain(database: Database, connection: Connection) -> Figure:
    """Measure events of one aggregate, each released when its predecessor is delivered."""
    times = {}
    for name, work in (("ours", _follow_chain), ("peer", _update_one_by_one)):
        _prepare(connection, CHAIN)
        connection.execute("update outbox_event set aggregate_id = '7'")
        connection.execute("update dlq.death set aggregate_id = '7'")
        connection.execute("update dlq.dead set aggregate_id = '7'")
        connection.execute("vacuum analyze")
        with _worker(database):
            started = time.perf_counter()
            work(connection, CHAIN)
            times[name] = time.perf_counter() - started
    return Figure(
        f"{CHAIN:,} events of one aggregate in order",
        times["ours"],
        times["peer"],
        15.0,
        "a script that updates the next row when the last one is delivered",
    )


@contextmanager
def _worker(database: Database) -> Iterator[None]:
    """Run a worker on a thread."""
    stop = threading.Event()

    def work() -> None:
        with database.connect() as own:
            while not stop.is_set():
                if not own.execute(DELIVER_DUE).rowcount:
                    time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow_chain(connection: Connection, events: int) -> None:
    """Run steps of a fix, one after the other, until it is verified."""
    fix = flag_fix(
        connection,
        FixFlag(Selection(cause=compute_cause_id(ERROR)), RetryPolicy(rate=100_000.0)),
        audit=AuditContext("ann", "resolved", datetime.now(UTC)),
    )
    patience, released = Patience(5, lambda: datetime.now(UTC)), 0
    while fix.closed_at is None:
        audit = AuditContext("sensor", "due", datetime.now(UTC))
        done = advance_fix(connection, fix.id, audit=audit, terms=TERMS, patience=patience)
        fix, released = done.fix, released + done.released
    assert (fix.status, released) == (FixStatus.VERIFIED, events)


def _update_one_by_one(connection: Connection, events: int) -> None:
    is_done = "select status = 'done' as done from outbox_event where id = %s"
    for number in range(1, events + 1):
        connection.execute(UPDATE, {"now": datetime.now(UTC), "ids": [number]})
        while not connection.execute(is_done, [number]).fetchall()[0]["done"]:
            time.sleep(0.001)


def _measure_memory(connection: Connection) -> Figure:
    peaks = []
    for events in (HALF, EVENTS):
        _prepare(connection, events)
        tracemalloc.start()
        _release_in_stages(connection, events)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    return Figure(
        f"memory to release {EVENTS:,} events", peaks[1], peaks[0], 1.1, f"{HALF:,} events", "MB"
    )


def _measure_sensor_query(connection: Connection) -> Figure:
    connection.execute(EMPTY)
    connection.execute(CROWD.format(fixes=FIXES, dead=DEAD, outstanding=OUTSTANDING).encode())
    connection.execute("vacuum analyze")
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(11):
        started = time.perf_counter()
        due = list_due_fixes(connection, now=datetime.now(UTC), max_backlog=TERMS.max_backlog)
        ours.append(time.perf_counter() - started)
        assert due == []
        started = time.perf_counter()
        read = connection.execute(READ_DUE).fetchone()
        peer.append(time.perf_counter() - started)
        assert read == {"due": FIXES * 20, "done": 0}
    return Figure(
        f"fix sensor, {FIXES:,} fixes, {DEAD:,} dead",
        statistics.median(ours),
        statistics.median(peer),
        1.5,
        "the same rows, read by their indexes",
    )


def _prepare(connection: Connection, events: int) -> None:
    """Fill the outbox with dead and classified events only."""
    connection.execute(EMPTY)
    connection.execute(FILL, {"rows": events, "error": ERROR})
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")


def _measure_preview(connection: Connection) -> Figure:
    """Measure the preview of a fix of all dead events that the sensor's query left."""
    where = build_selection_parameters(connection, Selection(all=True), before=datetime.now(UTC))
    seconds = {}
    for ordered in (True, False):
        started = time.perf_counter()
        found = connection.fetch_one("fix.preview", max_retries=3, ordered=ordered, **where)
        seconds[ordered] = time.perf_counter() - started
        assert (found["events"], found["held"]) == (DEAD - FIXES * OUTSTANDING, 0)
    return Figure(
        f"preview of {DEAD:,} events, in order",
        seconds[True],
        seconds[False],
        1.5,
        "the same without the order of aggregates",
    )


def _update_rows(connection: Connection, events: int) -> float:
    now = datetime.now(UTC)
    started = time.perf_counter()
    for first in range(1, events + 1, BATCH):
        connection.execute(
            UPDATE, {"now": now, "ids": list(range(first, min(first + BATCH, events + 1)))}
        )
    return time.perf_counter() - started


def _release_by_hand(connection: Connection) -> None:
    """Release all events, due later."""
    later = AuditContext("bob", "asked", datetime.now(UTC) + timedelta(minutes=9))
    retry_selected(connection, Selection(all=True), audit=later, rate=None, max_retries=None)


def _recall(connection: Connection, events: int) -> float:
    started = time.perf_counter()
    done = recall_retries(
        connection, Selection(all=True), audit=AuditContext("eve", "stop", datetime.now(UTC))
    )
    seconds = time.perf_counter() - started
    assert done.recalled == events
    return seconds


def _update_back(connection: Connection, events: int) -> float:
    now = datetime.now(UTC)
    started = time.perf_counter()
    for first in range(1, events + 1, BATCH):
        connection.execute(
            UPDATE_BACK, {"now": now, "ids": list(range(first, min(first + BATCH, events + 1)))}
        )
    return time.perf_counter() - started


def _release_in_stages(connection: Connection, events: int) -> float:
    """Release all events. Deliveries between the stages and their outcomes are not timed."""
    now = datetime.now(UTC)
    fix = flag_fix(
        connection,
        FixFlag(Selection(cause=compute_cause_id(ERROR)), POLICY),
        audit=AuditContext("ann", "resolved", now),
    )
    seconds, released = 0.0, 0
    while released < events:
        started = time.perf_counter()
        done = advance_fix(
            connection, fix.id, audit=AuditContext("sensor", "due", now), terms=TERMS
        )
        seconds += time.perf_counter() - started
        released += done.released
        connection.execute(DELIVERED)
        connection.execute("vacuum analyze outbox_event")
        now += timedelta(minutes=1)
        settle_outcomes(connection, now=now, settle_seconds=POLICY.settle_seconds, fix_id=fix.id)
    assert done.fix.status is FixStatus.ACTIVE
    return seconds
