"""What `OutboxRepository` does not leave to the settings of the database, and after conflicts."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from dlq_pipelines import OutboxRepository
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.conflicts import retry_after_conflict
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.conftest import _new_database, database_url
from tests.rows import add_events, kill, one

Refuse = Callable[[str, int], None]
SETTINGS = {
    "DateStyle": "German, DMY",
    "TimeZone": "America/New_York",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "IntervalStyle": "iso_8601",
    "bytea_output": "escape",
}


@pytest.fixture
def strange_database(database: Database, connection: Connection) -> Database:
    """A database whose sessions begin with other settings than the drivers expect."""
    name = sql.Identifier(connection.info.dbname)
    for setting, value in SETTINGS.items():
        connection.execute(
            sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), value)
        )
    return database


@pytest.fixture
def latin1_database(server_url: str) -> Iterator[Database]:
    """An installed outbox in a database that cannot store every character."""
    with _new_database(server_url, "template0") as name:
        with psycopg.connect(server_url, autocommit=True) as server:
            server.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))
            server.execute(
                sql.SQL(
                    "create database {} encoding 'LATIN1' locale 'C' template template0"
                ).format(sql.Identifier(name))
            )
        database = Database(database_url(server_url, name))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
        yield database


def test_settings_of_the_database_do_not_reach_a_session(strange_database: Database) -> None:
    with strange_database.connect() as connection:
        found = {
            name: one(connection, f"select current_setting('{name}') as value")["value"]
            for name in SETTINGS
        }
        add_events(connection, 3)
        kill(connection, "KeyError: 'Zoë 日本'")
    assert found | {"IntervalStyle": "", "bytea_output": ""} == {
        "DateStyle": "ISO, MDY",
        "TimeZone": "UTC",
        "client_encoding": "UTF8",
        "default_transaction_isolation": "read committed",
        "IntervalStyle": "",
        "bytea_output": "",
    }
    with OutboxRepository(strange_database.url) as repository:
        events = repository.list_dead_events().events
        assert [event.last_error for event in events] == ["KeyError: 'Zoë 日本'"] * 3
        assert abs(events[0].created_at - datetime.now(UTC)) < timedelta(minutes=10)
        assert repository.retry_dead_events_batch([1, 2, 3]) == 3


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        ("KeyError: 'Zoë'", "KeyError: 'Zoë'"),
        ("KeyError: '日本 Zoë 🎉'", "KeyError: '\\u65e5\\u672c Zoë \\U0001f389'"),
        ("NUL \x00, half \ud800", "NUL \\x00, half \\ud800"),
        ("\x80 €", "\x80 \\u20ac"),
    ],
)
def test_an_error_is_stored_in_any_encoding(
    latin1_database: Database, error: str, stored: str
) -> None:
    """A character that the database lacks is an escape. The attempt is recorded."""
    with (
        latin1_database.connect() as connection,
        OutboxRepository(latin1_database.url) as repository,
    ):
        add_events(connection, 1)
        (event,) = repository.fetch_pending(1)
        repository.mark_retry(event.id, error)
        row = one(connection, "select attempts, last_error from outbox_event")
    assert row == {"attempts": 1, "last_error": stored}


def test_an_error_of_many_escapes_is_bounded(latin1_database: Database) -> None:
    with (
        latin1_database.connect() as connection,
        OutboxRepository(latin1_database.url) as repository,
    ):
        add_events(connection, 1)
        repository.mark_retry(repository.fetch_pending(1)[0].id, "日" * 65_536)
        row = one(connection, "select length(last_error) as length from outbox_event")
    assert row["length"] < 66_000


@pytest.mark.parametrize(
    ("base", "attempts", "expected"),
    [
        (30, 0, 30),
        (30, 1, 60),
        (30, 4, 480),
        (30, 10, 3_600),
        (30, 10**6, 3_600),
        (7_200, 0, 7_200),
        (7_200, 3, 7_200),
        (0, 3, 0),
    ],
)
def test_pauses_grow_and_spread(
    database: Database, connection: Connection, base: int, attempts: int, expected: int
) -> None:
    """Twice as long each time, up to an hour, and up to a quarter longer or shorter."""
    add_events(connection, 100)
    connection.execute("update outbox_event set attempts = %s", [attempts])
    with OutboxRepository(
        database.url, retry_backoff_seconds=base, max_attempts=10**9
    ) as repository:
        for event in repository.fetch_pending(100):
            repository.mark_retry(event.id, "no")
    row = one(
        connection,
        "select min(pause) as shortest, max(pause) as longest, count(distinct pause) as pauses from"
        " (select extract(epoch from next_run_at - last_error_at)::float8 as pause"
        " from outbox_event) p",
    )
    assert 0.75 * expected - 0.1 <= row["shortest"] <= row["longest"] <= 1.25 * expected + 0.1
    if expected:
        assert row["longest"] - row["shortest"] > 0.3 * expected
        assert row["pauses"] > 90


@pytest.fixture
def refusals(connection: Connection) -> Refuse:
    """A function that lets the next writes of the outbox fail: their error code and number."""
    connection.execute("create sequence tries")

    def refuse(code: str, number: int) -> None:
        connection.execute("select setval('tries', 1, false)")
        connection.execute(
            "create or replace function refuse() returns trigger language plpgsql as $$ begin"
            f" if nextval('tries') <= {number} then"
            f" raise exception 'conflict' using errcode = '{code}'; end if;"
            " return coalesce(new, old); end $$".encode()
        )
        connection.execute(
            "create or replace trigger refuse before update or delete on outbox_event"
            " for each row execute function refuse()"
        )

    return refuse


@pytest.mark.parametrize("code", ["40P01", "40001"])
def test_a_statement_is_tried_five_times_after_a_conflict(
    database: Database, connection: Connection, refusals: Refuse, code: str
) -> None:
    """What a deadlock or a serialization failure undid is written once."""
    add_events(connection, 1)
    with OutboxRepository(database.url, retry_backoff_seconds=0) as repository:
        refusals(code, 4)
        repository.mark_retry(1, "no")
        assert one(connection, "select attempts from outbox_event") == {"attempts": 1}
        refusals(code, 4)
        assert len(repository.fetch_pending(1)) == 1
        refusals(code, 5)
        with pytest.raises(psycopg.OperationalError, match="conflict"):
            repository.mark_success(1)
    assert one(connection, "select attempts from outbox_event") == {"attempts": 1}


def test_a_batch_is_tried_again_after_a_conflict(
    database: Database, connection: Connection, refusals: Refuse
) -> None:
    """Retries and the archive count each event once."""
    add_events(connection, 3)
    kill(connection, "KeyError: 'sku'")
    with OutboxRepository(database.url) as repository:
        refusals("40P01", 2)
        assert repository.retry_dead_events_batch([1]) == 1
        refusals("40P01", 2)
        assert repository.cleanup_old_dead_events(0) == 2
    assert one(connection, "select sum(events) from dlq.audit") == {"sum": 3}


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise psycopg.errors.QueryCanceled

    with pytest.raises(psycopg.errors.QueryCanceled):
        retry_after_conflict(fail)
    assert len(calls) == 1
