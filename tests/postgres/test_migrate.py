"""Migrations: complete, safe against each other and against the application, printable, refused when edited."""

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

HOSTILE = TableNames('My "App', 'out"box', "Ar'chive %s", "d l%q")


def test_a_second_run_applies_nothing(connection: Connection) -> None:
    """Everything is applied once."""
    assert list_pending_migrations(connection, load_migrations()) == []
    assert apply_migrations(connection, load_migrations()) == []


def test_an_edited_applied_file_is_refused_by_name(connection: Connection) -> None:
    """The checksum notices, and nothing is applied."""
    edited = load_migrations()
    edited[1] = replace(edited[1], text=edited[1].text + "\n-- a late thought\n")
    with pytest.raises(SchemaError, match=f"{edited[1].label} was edited"):
        apply_migrations(connection, edited)


def test_a_database_of_a_newer_release_is_refused(connection: Connection) -> None:
    """An unknown applied migration means that this release is the old one."""
    with pytest.raises(SchemaError, match="newer"):
        list_pending_migrations(connection, load_migrations()[:-1])


def test_eight_runners_at_once_apply_each_file_once(empty_database: Database) -> None:
    """Runners wait for each other, even through the concurrent index build."""
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
    """The error names the settings, and our schema is not half there."""
    with empty_database.connect() as connection:
        with pytest.raises(SchemaError, match="DLQ_OUTBOX_TABLE"):
            apply_migrations(connection, load_migrations())
        assert not connection.fetch_one("migration.exists")["found"]


def test_upgrading_a_table_in_service_keeps_every_row_and_records_the_dead(
    empty_database: Database,
) -> None:
    """12,000 events, a third of them dead, while a worker goes on: all there, each dead one has one death."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts,"
            " next_run_at) select 'order', n::text, 'order.placed', '{}', case n % 3 when 0 then 'dead'"
            " else 'pending' end, 5, now() -"
            " interval '3 days' + n * interval '1 second' from generate_series(1, 12000) n"
        )
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            worker = pool.submit(_old_worker, empty_database, stop)
            apply_migrations(connection, load_migrations())
            stop.set()
            died = worker.result()
        found = connection.execute(
            "select count(*) as events, count(*) filter (where status = 'dead') as dead,"
            " (select count(*) from dlq.death) as deaths,"
            " (select count(*) from dlq.death d join outbox_event e on e.id = d.event_id and e.dead_at = d.died_at)"
            " as matched, (select count(*) from dlq.death where died_at < now() - interval '2 days') as dated"
            " from outbox_event"
        ).fetchone()
    assert found is not None
    assert found["events"] == 12000
    assert died > 0
    assert found["dead"] == found["deaths"] == found["matched"] == 4000 + died
    assert found["dated"] >= 4000, (
        "the nearest known time of a death is when its last attempt fell due"
    )


def _old_worker(database: Database, stop: threading.Event) -> int:
    """A worker that knows nothing of us: kills pending events one by one. Returns how many."""
    died = 0
    with psycopg.connect(database.url, autocommit=True) as connection:
        while not stop.is_set():
            died += connection.execute(
                "update outbox_event set status = 'dead' where id = (select id from outbox_event"
                " where status = 'pending' order by id limit 1 for update skip locked)"
            ).rowcount
    return died


def test_a_table_that_is_locked_for_long_is_left_alone(empty_database: Database) -> None:
    """Behind our lock the application would queue: after ten short tries the run gives up and names the cure."""
    impatient = replace(empty_database, lock_timeout=0.05)
    with impatient.connect() as connection, impatient.connect() as application:
        create_host_tables(connection)
        with application.transaction():
            application.execute("select * from outbox_event limit 1")
            with pytest.raises(SchemaError, match="outbox/0001_columns got no lock"):
                apply_migrations(connection, load_migrations())
        applied = apply_migrations(connection, load_migrations())
    assert next(migration.label for migration in applied) == "outbox/0001_columns"


def test_a_dead_event_that_somebody_holds_is_waited_for(empty_database: Database) -> None:
    """Passed over, its death would be in no ledger; a run that gives up has not applied the file; the next does."""
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
    """A transaction that was open before, holds no lock on the outbox, and may still read of it what there was."""
    with empty_database.connect() as connection, empty_database.connect() as reader:
        create_host_tables(connection)
        reader.execute("set application_name = 'report'; begin isolation level repeatable read")
        reader.execute("select count(*) from pg_class")
        yield reader


def _waits_for_another_transaction(connection: Connection) -> bool:
    waiting = "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'virtualxid')"
    return bool(one(connection, waiting)["exists"])


def _indexes(connection: Connection) -> dict[str, bool]:
    found = connection.execute(
        "select c.relname as name, i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where c.relname like 'dlq%' and c.relkind = 'i'"
    )
    return {row["name"]: row["valid"] for row in found}


def test_an_index_is_built_beside_an_old_transaction_however_long_it_lasts(
    empty_database: Database, old_reader: Connection
) -> None:
    """Far longer than a lock may take; whoever migrates is told whom it waits for, and the application goes on."""
    impatient = replace(empty_database, lock_timeout=0.05)
    told: list[str] = []
    with (
        impatient.connect() as connection,
        impatient.connect() as application,
        ThreadPoolExecutor(1) as pool,
    ):
        old_reader.execute("select pg_sleep(1.1)")  # what lasts for less is not worth a line
        running = pool.submit(apply_migrations, connection, load_migrations(), report=told.append)
        while not _waits_for_another_transaction(application):
            assert not running.done()
        application.execute("set statement_timeout = '1s'")
        for _ in range(10):
            application.execute(
                "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
                " values ('o', '1', 'e', '{}'); update outbox_event set attempts = 1; delete from outbox_event"
            )
            assert _waits_for_another_transaction(application), "it began anew"
            time.sleep(0.1)
        old_reader.execute("commit")
        assert running.result(60) == load_migrations()
        assert _indexes(application) == dict.fromkeys(
            ("dlq_dead", "dlq_dead_aggregate", "dlq_dead_types", "dlq_archived"), True
        )
        assert one(connection, "show lock_timeout") == {"lock_timeout": "50ms"}
    (waits,) = [line for line in told if "waits" in line]
    assert told.index(waits) == told.index("applying outbox/0002_dead_indexes") + 1
    assert (
        f"waiting for session {old_reader.info.backend_pid} (report, role postgres) to end its transaction"
        in waits
    )


def test_a_build_that_waits_for_its_lock_holds_up_no_write(empty_database: Database) -> None:
    """Behind a VACUUM or another build, which exclude it: who writes does not queue behind it."""
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
                    " values ('o','1','e','{}'); update outbox_event set attempts = 1; delete from outbox_event"
                )
            assert len(running.result(60)) == len(load_migrations()) - upto


def test_the_printed_script_builds_its_indexes_beside_an_old_transaction(
    empty_database: Database, old_reader: Connection, tmp_path: Path
) -> None:
    """Under psql too; its other statements still give up a lock after five seconds, here a twentieth of one."""
    for line in ("dlq", "outbox"):
        (tmp_path / f"{line}.sql").write_text(
            render_migrations(line, TableNames()).replace("'5s'", "'50ms'")
        )
    _psql(empty_database, tmp_path / "dlq.sql")
    with empty_database.connect() as connection, ThreadPoolExecutor(1) as pool:
        running = pool.submit(_psql, empty_database, tmp_path / "outbox.sql")
        while not _waits_for_another_transaction(connection):
            assert not running.done()
        time.sleep(0.3)
        old_reader.execute("commit")
        running.result(60)
        assert list_pending_migrations(connection, load_migrations()) == []
        assert render_migrations("outbox", TableNames()).count("set lock_timeout = '5s';\n") == 5


def test_dead_events_of_an_application_that_dated_them_itself_are_recorded_at_that_time(
    empty_database: Database,
) -> None:
    """Those that it did not date, too; each once, also those that a killed run has recorded already."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute("alter table outbox_event add dead_at timestamptz")
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, dead_at, next_run_at)"
            " select 'order', n::text, 'order.placed', '{}', case n % 4 when 0 then 'pending' else 'dead' end,"
            " case when n % 4 > 1 then '2026-01-01Z'::timestamptz + n / 100 * interval '1 hour' end,"
            " '2026-02-01Z' from generate_series(1, 16000) n"
        )
        upto = [migration.label for migration in load_migrations()].index(
            "outbox/0004_existing_deaths"
        )
        apply_migrations(connection, load_migrations()[:upto])
        connection.execute(
            "insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at)"
            " select id, aggregate_type, aggregate_id, event_type, attempts, dead_at from outbox_event"
            " where id < 3000 and dead_at is not null"  # what a killed run has done
        )
        connection.execute("update outbox_event set status = 'dead' where id = 16000")
        apply_migrations(connection, load_migrations())
        found = one(
            connection,
            "select count(*), count(*) filter (where e.dead_at = d.died_at) as matched,"
            " count(distinct d.event_id) as events, count(*) filter (where d.died_at < '2026-02-01Z') as dated,"
            " count(*) filter (where d.died_at = '2026-02-01Z') as guessed"
            " from dlq.death d join outbox_event e on e.id = d.event_id and e.status = 'dead'",
        )
        assert found == {
            "count": 12001,
            "matched": 12001,
            "events": 12001,
            "dated": 8000,
            "guessed": 4000,
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
def test_a_column_of_the_applications_own_that_has_another_type_is_refused(
    empty_database: Database, table: str, column: str, type_: str, wanted: str
) -> None:
    """Before anything of its tables is changed, with the command that mends it; after that all is applied."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute(f"alter table {table} add {column} {type_}".encode())
        with pytest.raises(
            SchemaError, match=f"The column {column} of public.{table} is {type_}.*`dlq migrate`"
        ) as raised:
            apply_migrations(connection, load_migrations())
        ours = "select count(*) as n from pg_attribute where attname in ('dead_at', 'last_error_at', 'last_error')"
        assert one(connection, ours) == {"n": 1}
        mend = re.findall(r"`(alter table .*?);`", str(raised.value))[0]
        connection.execute(mend.encode())
        apply_migrations(connection, load_migrations())
        types = "select distinct format_type(atttypid, -1)::regtype = %s::regtype as mended from pg_attribute"
        found = connection.execute(
            f"{types} where attname = %s".encode(), [wanted, column]
        ).fetchall()
        assert found == [{"mended": True}]


def test_hostile_names_work_throughout(empty_database: Database) -> None:
    """Quotes, spaces and percent signs in every name: migrations, worker, trigger, classification, retry, archive."""
    database = replace(empty_database, names=HOSTILE)
    with database.connect() as connection:
        create_host_tables(connection)
        apply_migrations(connection, load_migrations())
        _one_death(database)
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
    """What `--print` prints does what `dlq migrate` does, and `dlq migrate` then finds nothing to do."""
    database = replace(empty_database, names=names)
    with database.connect() as connection:
        create_host_tables(connection)
    for line in ("dlq", "outbox"):
        script = tmp_path / f"{line}.sql"
        script.write_text(render_migrations(line, names))
        _psql(database, script)
    with database.connect() as connection:
        assert list_pending_migrations(connection, load_migrations()) == []
        _one_death(database)
        assert classify_deaths(connection, zone=read_settings().zone).deaths == 1


def _psql(database: Database, script: Path) -> None:
    parts = conninfo_to_dict(database.url)
    options = ["-h", str(parts["host"]), "-U", str(parts["user"]), "-d", str(parts["dbname"])]
    done = subprocess.run(
        ["psql", "-X", *options, "-f", str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _one_death(database: Database) -> None:
    with database.connect() as connection:
        names = connection.names
        table = psycopg.sql.Identifier(names.outbox_schema, names.outbox_table)
        connection.execute(
            psycopg.sql.SQL(
                "insert into {} (aggregate_type, aggregate_id, event_type, payload) values ('o', '1', 't', '{{}}')"
            ).format(table)
        )
    with OutboxRepository(database.url, max_attempts=1, names=database.names) as repository:
        event = repository.fetch_pending(1)[0]
        repository.mark_retry(event.id, "ValueError: no")


def test_an_unmigrated_database_is_refused_with_the_command(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever needs the schema says `dlq migrate` instead of failing on a missing column."""
    monkeypatch.setenv("DLQ_DATABASE_URL", empty_database.url)
    with pytest.raises(SchemaError, match="Run `dlq migrate`"):
        open_connection(read_settings())


def test_a_current_database_is_accepted(connection: Connection) -> None:
    """The counterpart of the refusal."""
    require_current(connection)
