"""Tests the migrations: concurrency, locks, existing tables, and the printed script."""

import re
import subprocess
import threading
import time
from collections.abc import Iterator
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
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import (
    MigrationSeries,
    apply_migrations,
    create_host_tables,
    list_pending_migrations,
    load_migrations,
    render_migrations,
    require_current,
)
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.repository import OutboxRepository
from dlq_pipelines.settings import read_settings
from tests.rows import one

SERIES: tuple[MigrationSeries, ...] = ("dlq", "outbox")
HOSTILE = TableNames('My "App', 'out"box', "Ar'chive %s", "d l%q")


def test_a_second_run_applies_nothing(connection: Connection) -> None:
    assert list_pending_migrations(connection, load_migrations()) == []
    assert apply_migrations(connection, load_migrations()) == []


def test_an_applied_file_that_was_edited_is_refused(connection: Connection) -> None:
    """Its checksum differs, and nothing is applied."""
    edited = load_migrations()
    edited[1] = replace(edited[1], text=edited[1].text + "\n-- an edit\n")
    with pytest.raises(SchemaError, match=f"{edited[1].label} was edited"):
        apply_migrations(connection, edited)


def test_a_database_of_a_newer_release_is_refused(connection: Connection) -> None:
    """The database has a migration that this release does not know."""
    with pytest.raises(SchemaError, match="newer"):
        list_pending_migrations(connection, load_migrations()[:-1])


def test_concurrent_runs_apply_each_file_once(empty_database: Database) -> None:
    """The runs wait for each other, even during a concurrent index build."""
    with empty_database.connect() as connection:
        create_host_tables(connection)

    def run(_: int) -> int:
        with empty_database.connect() as connection:
            return len(apply_migrations(connection, load_migrations()))

    with ThreadPoolExecutor(8) as pool:
        applied = list(pool.map(run, range(8)))
    assert sorted(applied) == [0] * 7 + [len(load_migrations())]
    with empty_database.connect() as connection:
        assert list_pending_migrations(connection, load_migrations()) == []


def test_without_an_outbox_table_nothing_is_applied(empty_database: Database) -> None:
    """The error names the settings, and the schema `dlq` is not created."""
    with empty_database.connect() as connection:
        with pytest.raises(SchemaError, match="DLQ_OUTBOX_TABLE"):
            apply_migrations(connection, load_migrations())
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
            apply_migrations(connection, load_migrations())
            stop.set()
            died = worker.result()
        found = connection.execute(
            "select count(*) as events, count(*) filter (where status = 'dead') as dead,"
            " (select count(*) from dlq.death) as deaths,"
            " (select count(*) from dlq.death d join outbox_event e"
            " on e.id = d.event_id and e.dead_at = d.died_at) as matched,"
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
    """After ten short tries, because the application queues behind a lock that waits."""
    impatient = replace(empty_database, lock_timeout=0.05)
    with impatient.connect() as connection, impatient.connect() as application:
        create_host_tables(connection)
        with application.transaction():
            application.execute("select * from outbox_event limit 1")
            with pytest.raises(SchemaError, match="outbox/0001_columns got no lock"):
                apply_migrations(connection, load_migrations())
        applied = apply_migrations(connection, load_migrations())
    assert next(migration.label for migration in applied) == "outbox/0001_columns"


def test_the_migration_does_not_skip_a_locked_dead_event(empty_database: Database) -> None:
    """Its death would be missing. The run gives up, and the next one applies the file."""
    upto = next(
        n
        for n, migration in enumerate(load_migrations())
        if migration.label == "outbox/0004_existing_deaths"
    )
    impatient = replace(empty_database, lock_timeout=0.05)
    with impatient.connect() as connection, impatient.connect() as application:
        create_host_tables(connection)
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
            " select 'order', n::text, 'order.placed', '{}', 'dead' from generate_series(1, 3) n"
        )
        apply_migrations(connection, load_migrations()[:upto])
        with application.transaction():
            application.execute("select from outbox_event where id = 2 for update")
            with pytest.raises(SchemaError, match="outbox/0004_existing_deaths got no lock"):
                apply_migrations(connection, load_migrations())
        apply_migrations(connection, load_migrations())
        recorded = connection.execute(
            "select event_id from dlq.dead_event order by event_id"
        ).fetchall()
    assert [row["event_id"] for row in recorded] == [1, 2, 3]


@pytest.fixture
def old_reader(empty_database: Database) -> Iterator[Connection]:
    """A transaction with an old snapshot and without a lock on the outbox."""
    with empty_database.connect() as connection, empty_database.connect() as reader:
        create_host_tables(connection)
        reader.execute("set application_name = 'report'; begin isolation level repeatable read")
        reader.execute("select count(*) from pg_class")
        yield reader


def is_waiting_for_transaction(connection: Connection) -> bool:
    """Return whether an index build waits for another transaction to end."""
    waiting = (
        "select exists (select from pg_stat_activity"
        " where datname = current_database() and wait_event = 'virtualxid')"
    )
    return bool(one(connection, waiting)["exists"])


def list_indexes(connection: Connection) -> dict[str, bool]:
    """Return whether each index of the package is valid."""
    found = connection.execute(
        "select c.relname as name, i.indisvalid as valid"
        " from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where c.relname like 'dlq%' and c.relkind = 'i'"
    )
    return {row["name"]: row["valid"] for row in found}


def test_an_index_build_waits_for_an_old_transaction_without_blocking_the_application(
    empty_database: Database, old_reader: Connection
) -> None:
    """It waits longer than the lock timeout, and reports the session that it waits for."""
    impatient = replace(empty_database, lock_timeout=0.05)
    reported: list[str] = []
    with (
        impatient.connect() as connection,
        impatient.connect() as application,
        ThreadPoolExecutor(1) as pool,
    ):
        old_reader.execute("select pg_sleep(1.1)")  # shorter transactions are not reported
        running = pool.submit(
            apply_migrations, connection, load_migrations(), report=reported.append
        )
        while not is_waiting_for_transaction(application):
            assert not running.done()
        application.execute("set statement_timeout = '60s'")
        for _ in range(10):
            application.execute(
                "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
                " values ('o', '1', 'e', '{}');"
                " update outbox_event set attempts = 1; delete from outbox_event"
            )
            assert is_waiting_for_transaction(application), "the build started again"
            time.sleep(0.1)
        old_reader.execute("commit")
        assert running.result() == load_migrations()
        assert list_indexes(application) == dict.fromkeys(
            ("dlq_dead", "dlq_dead_aggregate", "dlq_dead_types", "dlq_archived"), True
        )
        assert one(connection, "show lock_timeout") == {"lock_timeout": "50ms"}
    (waiting,) = [line for line in reported if "waiting" in line]
    assert reported.index(waiting) == reported.index("applying outbox/0002_dead_indexes") + 1
    session = f"waiting for session {old_reader.info.backend_pid} (report, role postgres)"
    assert f"{session} to end its transaction" in waiting


def test_an_index_build_that_waits_for_its_lock_blocks_no_write(empty_database: Database) -> None:
    """VACUUM and other index builds hold a conflicting lock; writers do not queue behind it."""
    impatient = replace(empty_database, lock_timeout=0.05)
    upto = next(
        n
        for n, migration in enumerate(load_migrations())
        if migration.label == "outbox/0002_dead_indexes"
    )
    with (
        impatient.connect() as connection,
        impatient.connect() as application,
        empty_database.connect() as vacuum,
    ):
        create_host_tables(connection)
        apply_migrations(connection, load_migrations()[:upto])
        with ThreadPoolExecutor(1) as pool:
            with vacuum.transaction():
                vacuum.execute("lock table outbox_event in share update exclusive mode")
                running = pool.submit(apply_migrations, connection, load_migrations())
                while not one(application, "select count(*) as n from pg_locks where not granted")[
                    "n"
                ]:
                    assert not running.done()
                application.execute(
                    "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
                    " values ('o', '1', 'e', '{}');"
                    " update outbox_event set attempts = 1; delete from outbox_event"
                )
            assert len(running.result()) == len(load_migrations()) - upto


def test_the_printed_script_waits_for_an_old_transaction_too(
    empty_database: Database, old_reader: Connection, tmp_path: Path
) -> None:
    """Its other statements have a lock timeout of five seconds, here of 50 ms."""
    for series in SERIES:
        (tmp_path / f"{series}.sql").write_text(
            render_migrations(series, TableNames()).replace("'5s'", "'50ms'")
        )
    run_psql(empty_database, tmp_path / "dlq.sql")
    with empty_database.connect() as connection, ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_psql, empty_database, tmp_path / "outbox.sql")
        while not is_waiting_for_transaction(connection):
            assert not running.done()
        time.sleep(0.3)  # longer than the lock timeout of the other statements
        old_reader.execute("commit")
        running.result()
        assert list_pending_migrations(connection, load_migrations()) == []
        assert render_migrations("outbox", TableNames()).count("set lock_timeout = '5s';\n") == 5


def test_existing_dead_events_are_recorded_with_the_time_of_death_of_the_application(
    empty_database: Database,
) -> None:
    """Or an estimate where it has none; each once, even after a run that was killed."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute("alter table outbox_event add dead_at timestamptz")
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " dead_at, next_run_at)"
            " select 'order', n::text, 'order.placed', '{}',"
            " case n % 4 when 0 then 'pending' else 'dead' end,"
            " case when n % 4 > 1"
            " then '2026-01-01Z'::timestamptz + n / 100 * interval '1 hour' end,"
            " '2026-02-01Z' from generate_series(1, 16000) n"
        )
        upto = [migration.label for migration in load_migrations()].index(
            "outbox/0004_existing_deaths"
        )
        apply_migrations(connection, load_migrations()[:upto])
        # As a run that was killed.
        connection.execute(
            "insert into dlq.death"
            " (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at)"
            " select id, aggregate_type, aggregate_id, event_type, attempts, dead_at"
            " from outbox_event where id < 3000 and dead_at is not null"
        )
        connection.execute("update outbox_event set status = 'dead' where id = 16000")
        apply_migrations(connection, load_migrations())
        found = one(
            connection,
            "select count(*), count(*) filter (where e.dead_at = d.died_at) as matched,"
            " count(distinct d.event_id) as events,"
            " count(*) filter (where d.died_at < '2026-02-01Z') as dated,"
            " count(*) filter (where d.died_at = '2026-02-01Z') as estimated"
            " from dlq.death d join outbox_event e on e.id = d.event_id and e.status = 'dead'",
        )
        assert found == {
            "count": 12001,
            "matched": 12001,
            "events": 12001,
            "dated": 8000,
            "estimated": 4000,
        }
        assert one(connection, "select count(*) as n from dlq.dead_event") == {"n": 12001}


@pytest.mark.parametrize(
    ("table", "column", "type_", "wanted"),
    [
        ("outbox_event", "dead_at", "timestamp", "timestamptz"),
        ("outbox_event", "last_error_at", "text", "timestamptz"),
        ("outbox_event_archive", "last_error", "jsonb", "text"),
    ],
)
def test_a_column_of_the_application_with_another_type_is_refused(
    empty_database: Database, table: str, column: str, type_: str, wanted: str
) -> None:
    """Before the first change of its tables, with the command that corrects the column."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute(f"alter table {table} add {column} {type_}".encode())
        with pytest.raises(
            SchemaError, match=f"The column {column} of public.{table} is {type_}.*`dlq migrate`"
        ) as raised:
            apply_migrations(connection, load_migrations())
        columns = (
            "select count(*) as n from pg_attribute"
            " where attname in ('dead_at', 'last_error_at', 'last_error')"
        )
        assert one(connection, columns) == {"n": 1}
        correction = re.findall(r"`(alter table .*?);`", str(raised.value))[0]
        connection.execute(correction.encode())
        apply_migrations(connection, load_migrations())
        found = connection.execute(
            "select distinct format_type(atttypid, -1)::regtype = %s::regtype as corrected"
            " from pg_attribute where attname = %s",
            [wanted, column],
        ).fetchall()
        assert found == [{"corrected": True}]


def test_hostile_names_work_throughout(empty_database: Database) -> None:
    """Quotes, spaces and percent signs, from the migrations to the archive."""
    database = replace(empty_database, names=HOSTILE)
    with database.connect() as connection:
        create_host_tables(connection)
        apply_migrations(connection, load_migrations())
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
    for series in SERIES:
        script = tmp_path / f"{series}.sql"
        script.write_text(render_migrations(series, names))
        run_psql(database, script)
    with database.connect() as connection:
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
