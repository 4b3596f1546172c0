"""Behind PgBouncer in transaction mode, on sessions that the application uses too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dlq_pipelines import OutboxRepository
from dlq_pipelines.outbox.inspect import detect_pooler
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres import migrate
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.cli.conftest import Run, add_dead_events, dlq  # noqa: F401 - a fixture
from tests.postgres.pgbouncer import NO_PGBOUNCER, PGBOUNCER, run_pgbouncer
from tests.rows import one

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason=NO_PGBOUNCER)
# PgBouncer sets the name itself, for each client that gives one.
SETTINGS = (
    "select name, setting from pg_catalog.pg_settings where name <> 'application_name'"
    " order by name"
)
LOCKS = (
    "select count(*) as n from pg_locks where locktype = 'advisory'"
    " and database = (select oid from pg_database where datname = current_database())"
)
OPERATIONS = (
    ("doctor",),
    ("causes", "list"),
    ("dead-events", "list"),
    ("dead-events", "stats"),
    ("dead-events", "retry", "1", "--reason", "fixed"),
    ("dead-events", "export", "--output", "dead.csv"),
    ("fixes", "flag", "--event-type", "order.placed", "--note", "fixed"),
    ("fixes", "withdraw", "1", "--reason", "wrong"),
    ("reports", "build"),
    ("archive", "run", "--older-than-days", "0", "--yes"),
    ("archive", "restore", "2", "--reason", "needed"),
    ("alerts", "list"),
)


@pytest.fixture
def pooled(home: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the commands the URL of a pool of two sessions; an export needs two at a time."""
    assert home
    with run_pgbouncer(database.url, sessions=2) as url:
        monkeypatch.setenv("DLQ_DATABASE_URL", url)
        monkeypatch.setenv("DLQ_ARCHIVE_REQUIRES_EXPORT", "false")
        yield url


def read_sessions(url: str) -> list[dict[str, str]]:
    """Return the settings of both sessions of the pool, as the application finds them."""
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        return [dict(client.execute(SETTINGS).fetchall()) for client in (first, second)]


def test_no_command_changes_a_session_of_the_application(
    pooled: str,
    connection: Connection,
    dlq: Run,  # noqa: F811
) -> None:
    """No setting and no lock of a command stays in a session that the application gets next."""
    add_dead_events(connection, 5)
    before = read_sessions(pooled)
    for operation in OPERATIONS:
        ended = dlq(*operation)
        assert ended.code == (1 if operation == ("doctor",) else 0), ended
    after = read_sessions(pooled)
    # Settings of PL/pgSQL appear when a session first uses it.
    assert [now | then for now, then in zip(after, before, strict=True)] == after
    assert one(connection, "select count(*) as n from dlq.archived") == {"n": 3}
    assert one(connection, LOCKS) == {"n": 0}


def test_a_worker_has_its_settings_in_each_transaction(pooled: str, connection: Connection) -> None:
    """Whatever the database is set to. The worker takes and delivers an event."""
    connection.execute(
        "do $$ begin execute format('alter database %I set datestyle = ''German''',"
        " current_database()); execute format('alter database %I set"
        " default_transaction_isolation = serializable', current_database()); end $$"
    )
    with Database(pooled, statement_timeout=77).connect() as mine:
        assert detect_pooler(mine) == "transaction"
        with mine.transaction():
            assert one(mine, "show statement_timeout") == {"statement_timeout": "77s"}
            assert one(mine, "show datestyle") == {"DateStyle": "ISO, MDY"}
            assert one(mine, "show transaction_isolation") == {
                "transaction_isolation": "read committed"
            }
        with mine.snapshot():
            assert one(mine, "show transaction_isolation") == {
                "transaction_isolation": "repeatable read"
            }
    add_dead_events(connection, 1)
    connection.execute("update outbox_event set status = 'pending', next_run_at = now()")
    with OutboxRepository(pooled) as repository:
        (event,) = repository.fetch_pending(5)
        repository.mark_success(event.id)
    assert one(connection, "select status from outbox_event") == {"status": "done"}


def test_a_migration_is_refused_before_it_starts(
    empty_database: Database,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    dlq: Run,  # noqa: F811
) -> None:
    """Also where the pool has one session. It keeps no setting and no advisory lock."""
    assert home
    with empty_database.connect() as direct, run_pgbouncer(empty_database.url) as url:
        create_host_tables(direct)
        monkeypatch.setenv("DLQ_DATABASE_URL", url)
        with psycopg.connect(url, autocommit=True) as client:
            before = client.execute(SETTINGS).fetchall()
            ended = dlq("migrate")
            assert client.execute(SETTINGS).fetchall() == before
        assert ended.code == 1
        assert "a transaction pooler" in ended.err
        assert "Connect directly" in ended.err
        assert one(direct, LOCKS) == {"n": 0}
        assert one(direct, "select to_regnamespace('dlq') as dlq") == {"dlq": None}


def test_a_migration_has_its_timeouts_behind_a_pooler_of_sessions(
    empty_database: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None for statements, and a second for locks, in each of its transactions."""
    assert home
    seen: list[dict[str, Any]] = []
    apply_once = migrate._apply_once

    def note(connection: Connection, *given: Any) -> None:
        with connection.transaction():
            seen.append(connection.fetch_one("migration.timeouts"))
        apply_once(connection, *given)

    monkeypatch.setattr(migrate, "_apply_once", note)
    with (
        run_pgbouncer(empty_database.url, sessions=3, mode="session") as url,
        Database(url).connect() as pooled,
    ):
        create_host_tables(pooled)
        assert install_outbox(pooled)
        assert detect_pooler(pooled) == "session"
        with pooled.transaction():
            after = pooled.fetch_one("migration.timeouts")
    assert {tuple(timeouts.values()) for timeouts in seen} == {("0", "1s")}
    assert after == {"statement": "5min", "lock": "5s"}
