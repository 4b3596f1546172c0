"""Releases: due times, batches, concurrency and crashes."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from dlq_pipelines.outbox.batches import FIRST_CURSOR
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import (
    AdvanceResult,
    build_target_parameters,
)
from dlq_pipelines.retries.fix import FixStatus, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import (
    get_fix,
    get_stage_outcomes,
)
from tests.retries.helpers import (
    ERROR,
    POLICY,
    add_dead,
    advance,
    count_by_status,
    flag_cause,
    get_now,
    run_worker,
)
from tests.rows import date_deaths, one
from tests.shapes import ShapedOutbox


def test_released_events_have_no_attempts_and_fall_due_at_the_rate(outbox: ShapedOutbox) -> None:
    """Attempts 0, due n / rate apart, oldest death first; the error is kept."""
    connection = outbox.connection
    outbox.add_dead(4)
    advance(connection, flag_cause(connection, policy=RetryPolicy(canary=4, rate=2.0)))
    rows = outbox.read_rows()
    after = [(row["due_at"] - rows[0]["due_at"]).total_seconds() for row in rows]
    assert after == [0, 0.5, 1, 1.5]
    assert {(row["attempts"], row["error"]) for row in rows} == {(0, ERROR)}


def test_runs_at_once_release_nothing_twice(connection: Connection, database: Database) -> None:
    """One run holds the fix; the others return."""
    add_dead(connection, 40)
    fix = flag_cause(connection, policy=RetryPolicy(canary=20, rate=1000.0))

    def run(_: int) -> AdvanceResult:
        with database.connect() as own:
            return advance(own, fix)

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(run, range(6)))
    assert sum(one.released for one in done) == 20
    assert count_by_status(connection) == {"dead": 20, "pending": 20}
    assert one(
        connection, "select count(*) as n, count(distinct event_id) as d from dlq.retry"
    ) == {"n": 20, "d": 20}


@pytest.mark.parametrize("table", ["dlq.retry", "dlq.audit"])
def test_a_release_that_fails_midway_leaves_nothing_of_itself(
    connection: Connection, database: Database, table: str
) -> None:
    """Any of its writes can fail; the next run releases the whole stage."""
    add_dead(connection, 5)
    fix = flag_cause(connection)
    connection.execute(
        "create function die() returns trigger language plpgsql as"
        " $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;"
        f"create trigger die before insert on {table} for each row execute function die()".encode()
    )
    with database.connect() as own, pytest.raises(psycopg.OperationalError):
        advance(own, fix)
    assert count_by_status(connection) == {"dead": 5}
    assert one(connection, "select count(*) as n from dlq.retry")["n"] == 0
    connection.execute(f"drop trigger die on {table}".encode())
    assert advance(connection, fix).released == 3


def test_a_stage_of_many_events_is_released_in_batches_at_one_pace(
    outbox: ShapedOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with equal times of death; an event that was locked at first is released at the end."""
    connection = outbox.connection
    monkeypatch.setattr("dlq_pipelines.retries.fix.BATCH", 10)
    outbox.add_dead(30)
    date_deaths(connection, "timestamptz '2026-11-20 12:00Z'")
    fix = flag_cause(connection, policy=RetryPolicy(canary=40, rate=1.0))
    with outbox.database.connect() as other, other.transaction():
        outbox.lock_rows(other, [4])
        done = advance(connection, fix)
    assert (done.released, done.step) == (29, WaitStep("other transactions hold 1 event"))
    rows = connection.execute(
        "select event_id, due_at - retried_at as after from dlq.retry order by due_at"
    ).fetchall()
    ids = [str(outbox.event_id(n)) for n in range(1, 31) if n != 4]
    assert [str(row["event_id"]) for row in rows] == ids
    assert [row["after"] for row in rows] == [timedelta(seconds=n) for n in range(29)]
    audit = (
        "select array_agg(events order by id) as events from dlq.audit where kind = 'retry.stage'"
    )
    assert one(connection, audit) == {"events": [10, 10, 9]}
    assert advance(connection, fix).released == 1
    others = f"where event_id <> '{outbox.event_id(4)}'"
    last = one(connection, f"select max(due_at) - min(due_at) as after from dlq.retry {others}")[
        "after"
    ]
    late = one(connection, "select max(due_at) - min(due_at) as after from dlq.retry")["after"]
    assert late == last + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("change", "released"),
    [("payload = '[1]'", [1, 2, 3]), ("status = 'done'", [1, 3])],
    ids=["still dead", "no longer dead"],
)
def test_an_event_that_changes_during_the_statement_is_released_only_if_it_is_dead(
    connection: Connection, database: Database, change: str, released: list[int]
) -> None:
    """As it is when it is locked; one that is not dead by then has no row in the ledger."""
    add_dead(connection, 3)
    fix = flag_cause(connection)
    assert fix.policy is not None
    walk = {"after_time": FIRST_CURSOR[0], "after_id": 0, "rows": 5000, "room": 5000, "stage": 1}
    sign = {
        "release": True,
        "due": get_now(),
        "seconds_each": 0.1,
        "now": get_now(),
        "actor": "a",
        "reason": "r",
    }
    text = connection.render_query(
        "retry.take", **build_target_parameters(connection, fix, fix.policy), **walk, **sign
    )
    slow = text.replace(
        "    from page\n    cross join", "    from page cross join pg_sleep(1)\n    cross join"
    )
    assert slow != text
    with database.connect() as other, ThreadPoolExecutor() as pool:
        page = pool.submit(lambda: connection.execute(slow.encode()).fetchone())
        while not one(
            other,
            "select count(*) as n from pg_stat_activity"
            " where datname = current_database() and wait_event = 'PgSleep'",
        )["n"]:
            time.sleep(0.01)
        other.execute(f"update outbox_event set {change} where id = 2".encode())
        found = page.result()
    assert found is not None
    assert (found["free"], found["taken"]) == (3, len(released))
    assert one(
        connection, "select array_agg(event_id order by event_id) as ids from dlq.retry"
    ) == {"ids": released}
    assert one(
        connection,
        "select array_agg(id order by id) as ids from outbox_event where status = 'pending'",
    ) == {"ids": released}
    assert one(connection, f"select {change} as kept from outbox_event where id = 2") == {
        "kept": True
    }
    assert one(connection, "select count(*) from dlq.dead_now") == {"count": 0}


def test_a_run_that_released_everything_does_not_scan_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six events in pages of two: three that release, and one that finds the end."""
    monkeypatch.setattr("dlq_pipelines.retries.fix.BATCH", 2)
    monkeypatch.setattr("dlq_pipelines.outbox.batches.BATCH", 2)
    add_dead(connection, 6)
    fix = flag_cause(connection, policy=replace(POLICY, canary=10))
    statements: list[str] = []
    run = connection.run

    def recorded(name: str, /, **values: object) -> psycopg.Cursor[dict[str, Any]]:
        statements.append(name)
        return run(name, **values)

    monkeypatch.setattr(connection, "run", recorded)
    assert advance(connection, fix).released == 6
    assert statements.count("retry.take") == 4


def _doomed(
    monkeypatch: pytest.MonkeyPatch, database: Database, killer: Connection, after: int
) -> Connection:
    """Open a connection whose server process is killed after that many statements."""
    own = database.open()
    run, count = own.run, itertools.count(1)

    def counted(name: str, /, **values: object) -> psycopg.Cursor[dict[str, object]]:
        cursor = run(name, **values)
        if next(count) == after:
            killer.execute("select pg_terminate_backend(%s, 5000)", [own.info.backend_pid])
        return cursor

    monkeypatch.setattr(own, "run", counted)
    return own


def test_the_next_run_continues_after_a_kill_at_any_statement(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, ledger and audit log agree after each kill, and nothing is done twice."""
    monkeypatch.setattr("dlq_pipelines.retries.fix.BATCH", 2)  # several releases a stage
    books = """
        select (select count(*) from outbox_event where status <> 'dead') as events,
            (select count(*) from dlq.retry) as ledger,
            (select coalesce(sum(events),
                0)::int from dlq.audit where kind = 'retry.stage') as audit
    """
    for after in itertools.count(1):
        add_dead(connection, 5)
        fix, kills = flag_cause(connection, policy=RetryPolicy(canary=2, rate=1000.0)), 0
        for _ in ("the canary", "the rest", "the verdict"):
            with _doomed(monkeypatch, database, connection, after) as own:
                try:
                    advance(own, fix)
                except psycopg.OperationalError:
                    kills += 1
            assert len(set(one(connection, books).values())) == 1
            advance(connection, fix)
            run_worker(database, delivers=True)
        released = {
            number: (stage.released, stage.delivered)
            for number, stage in get_stage_outcomes(connection, fix.id).items()
        }
        assert (get_fix(connection, fix.id).status, released) == (
            FixStatus.VERIFIED,
            {1: (2, 2), 2: (3, 3)},
        )
        assert (
            one(connection, "select count(*) as n from dlq.audit where kind = 'fix.verified'")["n"]
            == after
        )
        if not kills:
            break
    assert after > 15
