"""Tests the migrations: concurrency, locks, existing tables, and the printed script."""

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.installation import open_connection
from dlq_pipelines.outbox.install import describe_shape, install_outbox
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import (
    apply_migrations,
    create_host_tables,
    list_pending_migrations,
    load_migrations,
    render_migrations,
    require_current,
)
from dlq_pipelines.postgres.missed import record_missed_deaths
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.repository import OutboxRepository
from dlq_pipelines.settings import read_settings
from tests.rows import add_events, one

HOSTILE = TableNames('My "App', "out\"box's %s", "d l%q")


def test_a_second_run_applies_nothing(connection: Connection) -> None:
    assert list_pending_migrations(connection, load_migrations()) == []
    assert install_outbox(connection) == []


def test_an_applied_file_that_was_edited_is_refused(connection: Connection) -> None:
    """Its checksum differs, and nothing is applied."""
    edited = load_migrations()
    edited[1] = replace(edited[1], text=edited[1].text + "\n-- an edit\n")
    with pytest.raises(SchemaError, match=f"{edited[1].name} was edited"):
        apply_migrations(connection, edited, shape=describe_shape(connection))


def test_a_database_of_a_newer_release_is_refused(connection: Connection) -> None:
    """The database has a migration that this release does not know."""
    with pytest.raises(SchemaError, match="newer"):
        list_pending_migrations(connection, load_migrations()[1:])


def test_concurrent_runs_apply_each_file_once(empty_database: Database) -> None:
    """The runs wait for each other."""
    with empty_database.connect() as connection:
        create_host_tables(connection)

    def run(_: int) -> int:
        with empty_database.connect() as connection:
            return len(install_outbox(connection))

    with ThreadPoolExecutor(8) as pool:
        applied = list(pool.map(run, range(8)))
    assert sorted(applied) == [0] * 7 + [len(load_migrations())]
    with empty_database.connect() as connection:
        assert list_pending_migrations(connection, load_migrations()) == []


def test_without_an_outbox_table_nothing_is_applied(empty_database: Database) -> None:
    """The error names the settings, and the schema `dlq` is not created."""
    with empty_database.connect() as connection:
        with pytest.raises(SchemaError, match="DLQ_OUTBOX_TABLE"):
            install_outbox(connection)
        assert not connection.fetch_one("migration.exists")["found"]


def test_the_migration_of_a_table_in_use_keeps_all_rows_and_records_dead_events(
    empty_database: Database,
) -> None:
    """12,000 events, a third of them dead, and a worker: each dead event has one death."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " attempts, next_run_at)"
            " select 'order', n::text, 'order.placed', '{}', case n % 3 when 0 then 'dead'"
            " else 'pending' end, 5, now() - interval '3 days' + n * interval '1 second'"
            " from generate_series(1, 12000) n"
        )
        started, stop = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            worker = pool.submit(run_simple_worker, empty_database, started, stop)
            started.wait()
            install_outbox(connection)
            stop.set()
            died = worker.result()
        found = connection.execute(
            "select count(*) as events, count(*) filter (where status = 'dead') as dead,"
            " (select count(*) from dlq.death) as deaths,"
            " (select count(*) from dlq.death d join outbox_event e"
            " on e.id = d.event_id and e.created_at = d.event_created_at) as matched,"
            " (select count(*) from dlq.death where died_at < now() - interval '2 days') as dated"
            " from outbox_event"
        ).fetchone()
    assert found is not None
    assert found["events"] == 12000
    assert died > 0
    assert found["dead"] == found["deaths"] == found["matched"] == 4000 + died
    # The best estimate of an old death is the time at which the last attempt was due.
    assert found["dated"] >= 4000


def run_simple_worker(database: Database, started: threading.Event, stop: threading.Event) -> int:
    """Mark pending events as dead, one by one and with plain SQL; return their number."""
    died = 0
    with psycopg.connect(database.url, autocommit=True) as connection:
        while not stop.is_set():
            died += connection.execute(
                "update outbox_event set status = 'dead' where id = (select id from outbox_event"
                " where status = 'pending' order by id limit 1 for update skip locked)"
            ).rowcount
            started.set()
    return died


def test_the_migration_gives_up_if_the_table_stays_locked(empty_database: Database) -> None:
    """After thirty short tries, because the application queues behind a lock that waits."""
    impatient = replace(empty_database, lock_timeout=0.05)
    with impatient.connect() as connection, impatient.connect() as application:
        create_host_tables(connection)
        with application.transaction():
            application.execute("select * from outbox_event limit 1")
            with pytest.raises(SchemaError, match="Migration outbox got no lock"):
                install_outbox(connection)
        applied = install_outbox(connection)
    assert [migration.name for migration in applied] == ["outbox"]


def test_the_application_waits_a_short_time_behind_a_migration(empty_database: Database) -> None:
    """A transaction of the application holds the table. Between the tries its others go on."""
    with (
        replace(empty_database, lock_timeout=0.2).connect() as connection,
        empty_database.connect() as holder,
        replace(empty_database, lock_timeout=1.5).connect() as application,
        ThreadPoolExecutor(1) as pool,
    ):
        create_host_tables(connection)
        with holder.transaction():
            holder.execute("lock table outbox_event in row exclusive mode")
            migrating = pool.submit(install_outbox, connection)
            for _ in range(5):
                add_events(application, 1)
                time.sleep(0.2)
            assert not migrating.done()
        assert migrating.result(60)


def test_existing_dead_events_are_recorded_once_with_an_estimated_time(
    empty_database: Database,
) -> None:
    """The time at which the last attempt was due; a run that was killed midway goes on."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " next_run_at)"
            " select 'order', n::text, 'order.placed', '{}',"
            " case n % 4 when 0 then 'pending' else 'dead' end,"
            " case n % 4 when 1 then '2026-02-01Z' when 2 then '-infinity' else 'infinity' end"
            "::timestamptz from generate_series(1, 16000) n"
        )
        install_outbox(connection)
        # As a run that was killed.
        connection.execute("delete from dlq.death where event_id >= 3000")
        connection.execute("update dlq.attachment set recorded_at = null")
        assert [
            migration.name for migration in list_pending_migrations(connection, load_migrations())
        ] == ["outbox"]
        connection.execute("update outbox_event set status = 'dead' where id = 16000")
        install_outbox(connection)
        found = one(
            connection,
            "select count(*),"
            " count(*) filter (where e.created_at = d.event_created_at) as matched,"
            " count(distinct d.event_id) as events,"
            " count(*) filter (where d.died_at = '2026-02-01Z') as estimated,"
            " count(*) filter (where d.died_at > now() - interval '1 hour') as now,"
            " count(*) filter (where d.was_missed) as missed"
            " from dlq.death d join outbox_event e on e.id = d.event_id and e.status = 'dead'",
        )
        assert found == {
            "count": 12001,
            "matched": 12001,
            "events": 12001,
            "estimated": 4000,
            "now": 8001,
            "missed": 0,
        }
        assert one(connection, "select count(*) as n from dlq.dead_event") == {"n": 12001}


def test_a_locked_dead_event_is_recorded_by_the_next_reconciliation(
    empty_database: Database,
) -> None:
    """The migration waits for no transaction that holds a row."""
    with empty_database.connect() as connection, empty_database.connect() as application:
        create_host_tables(connection)
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
            " select 'order', n::text, 'order.placed', '{}', 'dead' from generate_series(1, 3) n"
        )
        install_outbox(connection)
        connection.execute("delete from dlq.death")
        with application.transaction():
            application.execute("select from outbox_event where id = 2 for update")
            now = datetime.now(UTC)
            assert record_missed_deaths(connection, now=now, is_missed=False) == 2
        assert reconcile_events(connection, now=datetime.now(UTC)).missed == 1
        recorded = connection.execute(
            "select event_id from dlq.dead_event order by event_id"
        ).fetchall()
    assert [row["event_id"] for row in recorded] == [1, 2, 3]


def test_hostile_names_work_throughout(empty_database: Database) -> None:
    """Quotes, spaces and percent signs, from the migrations to the archive."""
    database = replace(empty_database, names=HOSTILE)
    with database.connect() as connection:
        create_host_tables(connection)
        install_outbox(connection)
        add_death(database)
        assert classify_deaths(connection, zone=read_settings().zone).deaths == 1
        with OutboxRepository(database.url, names=HOSTILE) as repository:
            assert repository.retry_dead_event(1)
        kill_again = psycopg.sql.SQL("update {} set status = 'dead'")
        connection.execute(
            kill_again.format(psycopg.sql.Identifier(HOSTILE.outbox_schema, HOSTILE.outbox_table))
        )
        audit = AuditContext("ann", "tested", datetime.now(UTC))
        before = audit.now + timedelta(seconds=1)
        assert (
            archive_dead_events(connection, before=before, only_exported=True, audit=audit).moved
            == 0
        )
        assert (
            archive_dead_events(connection, before=before, only_exported=False, audit=audit).moved
            == 1
        )
        assert restore_events(connection, Selection(all=True), audit=audit).events == 1


@pytest.mark.parametrize("names", [TableNames(), HOSTILE], ids=["usual", "hostile"])
def test_the_printed_script_runs_under_plain_psql(
    empty_database: Database, names: TableNames, tmp_path: Path
) -> None:
    """After the script of `dlq migrate --print`, `dlq migrate` has nothing to apply."""
    database = replace(empty_database, names=names)
    with database.connect() as connection:
        create_host_tables(connection)
        text = render_migrations(names, describe_shape(connection))
    script = tmp_path / "all.sql"
    script.write_text(text)
    run_psql(database, script)
    with database.connect() as connection:
        assert install_outbox(connection) == []
        assert list_pending_migrations(connection, load_migrations()) == []
        add_death(database)
        assert classify_deaths(connection, zone=read_settings().zone).deaths == 1


def run_psql(database: Database, script: Path) -> None:
    """Run a script with psql."""
    parts = conninfo_to_dict(database.url)
    options = ["-h", str(parts["host"]), "-U", str(parts["user"]), "-d", str(parts["dbname"])]
    done = subprocess.run(
        ["psql", "-X", *options, "-f", str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def add_death(database: Database) -> None:
    """Add an event and let a worker fail it for good."""
    with database.connect() as connection:
        names = connection.names
        table = psycopg.sql.Identifier(names.outbox_schema, names.outbox_table)
        connection.execute(
            psycopg.sql.SQL(
                "insert into {} (aggregate_type, aggregate_id, event_type, payload)"
                " values ('o', '1', 't', '{{}}')"
            ).format(table)
        )
    with OutboxRepository(database.url, max_attempts=1, names=database.names) as repository:
        event = repository.fetch_pending(1)[0]
        repository.mark_retry(event.id, "ValueError: no")


def test_an_unmigrated_database_is_refused_with_the_command(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLQ_DATABASE_URL", empty_database.url)
    with pytest.raises(SchemaError, match="Run `dlq migrate`"):
        open_connection(read_settings())


def test_a_migrated_database_is_accepted(connection: Connection) -> None:
    require_current(connection)
