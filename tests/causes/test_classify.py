"""Classification counts every death once: concurrent runs, killed runs, late commits."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.causes import classify
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import add_events, kill, one

ROLLUP_OF_LEDGER = """
    select (died_at at time zone 'UTC')::date as day,
        cause_id,
        event_type,
        aggregate_type,
        count(*) as deaths
    from dlq.death group by 1, 2, 3, 4 order by 1, 2, 3, 4
"""
ROLLUP = """
    select day, cause_id, event_type, aggregate_type, deaths
    from dlq.cause_day order by 1, 2, 3, 4
"""


def add_deaths(
    connection: Connection, errors: list[str | None], died_at: datetime | None = None
) -> None:
    """Insert rows into the ledger, in this order."""
    connection.execute(
        "insert into dlq.death"
        " (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)"
        " select given.n, 'order', given.n::text, 'order.placed', 5,"
        " coalesce(%s::timestamptz, '2026-03-10 12:00+00') + given.n * interval '1 us', given.text"
        " from unnest(%s::text[]) with ordinality as given (text, n) order by given.n",
        [died_at, errors],
    )


def assert_rollup_is_ledger(connection: Connection) -> None:
    assert (
        connection.execute(ROLLUP.encode()).fetchall()
        == connection.execute(ROLLUP_OF_LEDGER.encode()).fetchall()
    )


def unclassified(connection: Connection) -> int:
    return int(one(connection, "select count(*) from dlq.death where cause_id is null")["count"])


def test_each_death_gets_the_cause_of_its_text(connection: Connection) -> None:
    """In batches. A second run finds nothing."""
    add_deaths(
        connection,
        [f"KeyError: 'order-{n}'" if n % 3 else f"HTTP 503 after {n} ms" for n in range(12_000)],
    )
    found = classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert (found.deaths, found.batches, len(found.new_causes)) == (12_000, 3, 2)
    assert classify_deaths(connection, zone=ZoneInfo("UTC")) == classify.ClassificationResult(
        0, 0, ()
    )
    causes = connection.execute("select id from dlq.cause").fetchall()
    assert {row["id"] for row in causes} == set(found.new_causes)
    wrong = (
        "select count(*) from dlq.death"
        " where (cause_id = %s) is distinct from (error like 'KeyError%%')"
    )
    assert connection.execute(wrong, [compute_cause_id("KeyError: 'x'")]).fetchone() == {"count": 0}
    assert_rollup_is_ledger(connection)


def test_missing_and_blank_errors_are_one_cause(connection: Connection) -> None:
    add_deaths(connection, [None, "", "  \n", "\x1b[0m"])
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert one(connection, "select template from dlq.cause") == {"template": "no error text"}
    assert_rollup_is_ledger(connection)


def test_concurrent_runs_count_each_death_once(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "BATCH", 50)
    add_deaths(connection, [f"Error{'ABCDEFG'[n % 7]}: {n}" for n in range(3000)])

    def run(_: int) -> classify.ClassificationResult:
        with database.connect() as own:
            return classify_deaths(own, zone=ZoneInfo("UTC"))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(4)))
    assert sum(part.deaths for part in found) == 3000
    assert sorted(cause for part in found for cause in part.new_causes) == sorted(
        row["id"] for row in connection.execute("select id from dlq.cause").fetchall()
    )
    assert unclassified(connection) == 0
    assert_rollup_is_ledger(connection)


def test_next_run_completes_a_killed_run(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the session in the third batch: two batches are committed."""
    monkeypatch.setattr(classify, "BATCH", 10)
    add_deaths(connection, [f"KeyError: {n}" for n in range(35)])
    connection.execute(
        "create function killing() returns trigger language plpgsql as"
        " $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$"
    )
    connection.execute(
        "create trigger killing before update on dlq.death"
        " for each row when (new.id = 25) execute function killing()"
    )
    with database.connect() as dying, pytest.raises(psycopg.errors.AdminShutdown):
        classify_deaths(dying, zone=ZoneInfo("UTC"))
    assert unclassified(connection) == 15
    assert one(connection, "select sum(deaths)::int from dlq.cause_day") == {"sum": 20}
    connection.execute("drop trigger killing on dlq.death")
    assert classify_deaths(connection, zone=ZoneInfo("UTC")).deaths == 15
    assert_rollup_is_ledger(connection)


def test_lower_id_that_commits_later_is_classified(
    connection: Connection, database: Database
) -> None:
    add_events(connection, 2)
    with database.connect() as slow:
        with slow.transaction():
            kill(slow, "boom", where="id = 1")
            kill(connection, "boom", where="id = 2")
            assert classify_deaths(connection, zone=ZoneInfo("UTC")).deaths == 1
        assert one(connection, "select array_agg(event_id order by id) as events from dlq.death")[
            "events"
        ] == [1, 2]
    assert classify_deaths(connection, zone=ZoneInfo("UTC")).deaths == 1
    assert unclassified(connection) == 0


def test_first_and_last_time_of_a_cause_widen(connection: Connection) -> None:
    """An older death that is recorded later moves the first time back."""
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    for days in (0, 2, -3):
        connection.execute(
            "insert into dlq.death"
            " (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)"
            " values (1, 'order', '1', 'order.placed', 5, %s, %s)",
            [noon + timedelta(days=days), f"KeyError: {days}"],
        )
        classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert one(connection, "select first_seen, last_seen from dlq.cause") == {
        "first_seen": noon - timedelta(days=3),
        "last_seen": noon + timedelta(days=2),
    }


@pytest.mark.parametrize(
    ("zone", "day"),
    [("UTC", "2026-03-29"), ("Europe/Berlin", "2026-03-30"), ("America/New_York", "2026-03-29")],
)
def test_rollup_counts_days_of_the_time_zone(connection: Connection, zone: str, day: str) -> None:
    """Half an hour before midnight UTC, in the night after summer time began in Berlin."""
    add_deaths(connection, ["boom"], datetime(2026, 3, 29, 23, 30, tzinfo=UTC))
    classify_deaths(connection, zone=ZoneInfo(zone))
    assert one(connection, "select day::text, deaths from dlq.cause_day") == {
        "day": day,
        "deaths": 1,
    }


def test_alias_decides_the_cause_of_a_fingerprint(connection: Connection) -> None:
    """No new cause is created."""
    add_deaths(connection, ["KeyError: 1"])
    (kept,) = classify_deaths(connection, zone=ZoneInfo("UTC")).new_causes
    alias = compute_cause_id("LookupError: 1")
    connection.execute(
        "insert into dlq.cause_alias (fingerprint, cause_id) values (%s, %s)", [alias, kept]
    )
    add_deaths(connection, ["LookupError: 2"], datetime(2026, 3, 11, tzinfo=UTC))
    assert classify_deaths(connection, zone=ZoneInfo("UTC")).new_causes == ()
    assert one(connection, "select distinct cause_id from dlq.death") == {"cause_id": kept}
    assert_rollup_is_ledger(connection)


def test_queue_is_read_by_its_index(connection: Connection) -> None:
    """Classified deaths are not read again."""
    add_deaths(connection, ["boom"] * 20_000)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    add_deaths(connection, ["boom"] * 10, datetime(2026, 3, 11, tzinfo=UTC))
    connection.execute("vacuum analyze dlq.death")
    values = {"after_time": datetime(1, 1, 1, tzinfo=UTC), "after_id": 0, "limit": 5000}
    statement = f"explain {connection.render_query('cause.take_batch', **values)}".encode()
    plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(statement).fetchall())
    assert "Index Scan using death_unclassified on death" in plan, plan
