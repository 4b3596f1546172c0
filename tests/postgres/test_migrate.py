"""Migrations: complete, safe against each other and against the application, printable, refused when edited."""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.installation import open_connection
from dlq_pipelines.operation import Act
from dlq_pipelines.outbox.event import Selector
from dlq_pipelines.outbox.repository import OutboxRepository
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import (
    all_migrations,
    create_host_tables,
    migrate,
    pending,
    print_sql,
    require_current,
)
from dlq_pipelines.postgres.queries import Names
from dlq_pipelines.settings import read_settings

HOSTILE = Names('My "App', 'out"box', "Ar'chive %s", "d l%q")


def test_a_second_run_applies_nothing(connection: Connection) -> None:
    """Everything is applied once."""
    assert pending(connection, all_migrations()) == []
    assert migrate(connection, all_migrations()) == []


def test_an_edited_applied_file_is_refused_by_name(connection: Connection) -> None:
    """The checksum notices, and nothing is applied."""
    edited = all_migrations()
    edited[1] = replace(edited[1], text=edited[1].text + "\n-- a late thought\n")
    with pytest.raises(SchemaError, match=f"{edited[1].label} was edited"):
        migrate(connection, edited)


def test_a_database_of_a_newer_release_is_refused(connection: Connection) -> None:
    """An unknown applied migration means that this release is the old one."""
    with pytest.raises(SchemaError, match="newer"):
        pending(connection, all_migrations()[:-1])


def test_eight_runners_at_once_apply_each_file_once(empty_database: Database) -> None:
    """Runners wait for each other, even through the concurrent index build."""
    with empty_database.connect() as connection:
        create_host_tables(connection)

    def run(_: int) -> int:
        with empty_database.connect() as connection:
            return len(migrate(connection, all_migrations()))

    with ThreadPoolExecutor(8) as pool:
        applied = list(pool.map(run, range(8)))
    assert sorted(applied) == [0] * 7 + [len(all_migrations())]
    with empty_database.connect() as connection:
        assert pending(connection, all_migrations()) == []


def test_without_an_outbox_table_nothing_is_applied(empty_database: Database) -> None:
    """The error names the settings, and our schema is not half there."""
    with empty_database.connect() as connection:
        with pytest.raises(SchemaError, match="DLQ_OUTBOX_TABLE"):
            migrate(connection, all_migrations())
        assert not connection.one("migration.exists")["found"]


def test_upgrading_a_table_in_service_keeps_every_row_and_records_the_dead(empty_database: Database) -> None:
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
            migrate(connection, all_migrations())
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
    assert found["dated"] >= 4000, "the nearest known time of a death is when its last attempt fell due"


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
                migrate(connection, all_migrations())
        applied = migrate(connection, all_migrations())
    assert next(migration.label for migration in applied) == "outbox/0001_columns"


def test_a_dead_event_that_somebody_holds_is_waited_for(empty_database: Database) -> None:
    """Passed over, its death would be in no ledger; a run that gives up has not applied the file; the next does."""
    upto = next(n for n, migration in enumerate(all_migrations()) if migration.label == "outbox/0004_existing_deaths")
    impatient = replace(empty_database, lock_timeout=0.05)
    with impatient.connect() as connection, impatient.connect() as application:
        create_host_tables(connection)
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
            " select 'order', n::text, 'order.placed', '{}', 'dead' from generate_series(1, 3) n"
        )
        migrate(connection, all_migrations()[:upto])
        with application.transaction():
            application.execute("select from outbox_event where id = 2 for update")
            with pytest.raises(SchemaError, match="outbox/0004_existing_deaths got no lock"):
                migrate(connection, all_migrations())
        migrate(connection, all_migrations())
        recorded = connection.execute("select event_id from dlq.dead_event order by event_id").fetchall()
    assert [row["event_id"] for row in recorded] == [1, 2, 3]


def test_hostile_names_work_throughout(empty_database: Database) -> None:
    """Quotes, spaces and percent signs in every name: migrations, worker, trigger, classification, retry, archive."""
    database = replace(empty_database, names=HOSTILE)
    with database.connect() as connection:
        create_host_tables(connection)
        migrate(connection, all_migrations())
        _one_death(database)
        assert classify_deaths(connection, zone=read_settings().zone).deaths == 1
        with OutboxRepository(database.url, names=HOSTILE) as repository:
            assert repository.retry_dead_event(1)
        kill_again = psycopg.sql.SQL("update {} set status = 'dead'")
        connection.execute(kill_again.format(psycopg.sql.Identifier(HOSTILE.outbox_schema, HOSTILE.outbox_table)))
        act = Act("ann", "tested", datetime.now(UTC))
        before = act.now + timedelta(seconds=1)
        assert archive_dead_events(connection, before=before, only_exported=True, act=act).moved == 0
        assert archive_dead_events(connection, before=before, only_exported=False, act=act).moved == 1
        assert restore_events(connection, Selector(every=True), act=act).events == 1


@pytest.mark.parametrize("names", [Names(), HOSTILE], ids=["usual", "hostile"])
def test_the_printed_script_runs_under_plain_psql(empty_database: Database, names: Names, tmp_path: Path) -> None:
    """What `--print` prints does what `dlq migrate` does, and `dlq migrate` then finds nothing to do."""
    database = replace(empty_database, names=names)
    with database.connect() as connection:
        create_host_tables(connection)
    for line in ("dlq", "outbox"):
        script = tmp_path / f"{line}.sql"
        script.write_text(print_sql(line, names))
        _psql(database, script)
    with database.connect() as connection:
        assert pending(connection, all_migrations()) == []
        _one_death(database)
        assert classify_deaths(connection, zone=read_settings().zone).deaths == 1


def _psql(database: Database, script: Path) -> None:
    parts = conninfo_to_dict(database.url)
    options = ["-h", str(parts["host"]), "-U", str(parts["user"]), "-d", str(parts["dbname"])]
    done = subprocess.run(["psql", "-X", *options, "-f", str(script)], capture_output=True, text=True, check=False)
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
