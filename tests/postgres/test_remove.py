"""Checks that a removal leaves the database as it was before the migration."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext, list_audit_entries
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import RefusedError, SchemaError
from dlq_pipelines.outbox.install import describe_shape, install_outbox
from dlq_pipelines.outbox.remove import (
    RemovalPlan,
    RemovalScope,
    plan_removal,
    remove_installation,
)
from dlq_pipelines.postgres import migrate
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import apply_migrations, load_migrations, require_current
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.settings import read_settings
from tests.postgres.dumps import dump_schema
from tests.postgres.test_preflight import GIVE_UP, INSERT, create_outbox
from tests.rows import one

AUDIT = AuditContext("ann", "moved to another queue", datetime(2026, 3, 20, tzinfo=UTC))
KEEP = RemovalScope(keep_ledger=True)
HOSTILE = TableNames("s\"1%'", 't\'2% "x"', "d\"lq'%")


@pytest.fixture
def application(empty_database: Database) -> Iterator[Connection]:
    """A connection to a database that has an outbox table and nothing of ours."""
    with empty_database.connect() as connection:
        create_outbox(connection)
        yield connection


def remove_all(connection: Connection, scope: RemovalScope | None = None) -> RemovalPlan:
    return remove_installation(connection, scope or RemovalScope(), audit=AUDIT)


def count_dead(connection: Connection) -> int:
    return int(one(connection, "select count(*) as n from dlq.dead_now")["n"])


def test_a_removal_leaves_what_was_there_before(
    empty_database: Database, application: Connection
) -> None:
    """A worker goes on during migration and removal, and none of its statements fails."""
    before = dump_schema(empty_database)
    stop = threading.Event()

    def work() -> int:
        rounds = 0
        with psycopg.connect(empty_database.url, autocommit=True) as worker:
            while not stop.is_set():
                worker.execute(INSERT.encode())
                worker.execute(f"{GIVE_UP} where id = (select max(id) from outbox_event)".encode())
                rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            install_outbox(application)
            planned = plan_removal(application, RemovalScope())
            assert remove_all(application) == planned
        finally:
            stop.set()
        assert working.result() > 0
    assert dump_schema(empty_database) == before
    assert remove_all(application).statements == ()
    application.execute(f"{INSERT}; {GIVE_UP}".encode())


@pytest.mark.parametrize("done", range(1, len(load_migrations()) + 1))
def test_a_removal_works_after_each_step_of_a_migration(
    empty_database: Database, application: Connection, done: int
) -> None:
    """The next migration starts anew."""
    before = dump_schema(empty_database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "record_missed_deaths", _stop)
        try:
            shape = describe_shape(application)
            apply_migrations(application, load_migrations()[:done], shape=shape)
        except psycopg.OperationalError:
            pass
    remove_all(application)
    assert dump_schema(empty_database) == before
    install_outbox(application)
    require_current(application)


def _stop(*_: object, **__: object) -> None:
    raise psycopg.OperationalError


def test_a_kept_ledger_is_used_by_the_next_migration(
    empty_database: Database, application: Connection
) -> None:
    """It is audited, and what the application's table had is as before."""
    application.execute(INSERT.encode())
    table = _dump_table(empty_database)
    install_outbox(application)
    application.execute(f"{INSERT}; {GIVE_UP}".encode())
    classify_deaths(application, zone=read_settings().zone)
    migrated = dump_schema(empty_database)
    planned = remove_all(application, KEEP)
    assert planned.kept == ("the schema dlq with the ledger and the audit log",)
    assert one(application, "select count(*) as n from dlq.death") == {"n": 2}
    (entry,) = list_audit_entries(application)
    assert (entry.kind, entry.actor, entry.reason) == ("installation.remove", "ann", AUDIT.reason)
    assert entry.filter["statements"] == list(planned.statements)
    assert _dump_table(empty_database) == table
    application.execute(f"{INSERT}; {GIVE_UP}".encode())
    assert remove_all(application, KEEP).statements == ()
    assert len(list_audit_entries(application)) == 1
    with pytest.raises(SchemaError, match="lacks 1 migration"):
        require_current(application)
    install_outbox(application)
    assert sorted(dump_schema(empty_database).splitlines()) == sorted(migrated.splitlines())
    assert count_dead(application) == 3
    remove_all(application)
    assert _dump_table(empty_database) == table


def _dump_table(database: Database) -> list[str]:
    """Return what pg_dump writes about the application's table."""
    dump = dump_schema(database).partition("-- PostgreSQL database dump complete")[0]
    parts = [part.strip("-\n") for part in dump.split("\n--\n-- Name: ")]
    return [part for part in parts if "public.outbox_event" in part and "dlq." not in part]


def test_a_kept_ledger_can_be_removed_later(
    empty_database: Database, application: Connection
) -> None:
    before = dump_schema(empty_database)
    install_outbox(application)
    remove_all(application, KEEP)
    assert remove_all(application).statements == ("drop schema if exists dlq cascade",)
    assert dump_schema(empty_database) == before


def test_columns_that_the_application_had_before_stay(
    empty_database: Database, application: Connection
) -> None:
    """Also if only one of the two is ours, and after the attachment was renewed."""
    application.execute("alter table outbox_event add last_error text")
    before = dump_schema(empty_database)
    install_outbox(application)
    assert one(application, "select added from dlq.attachment") == {"added": ["last_error_at"]}
    application.execute("update dlq.attachment set checksum = 'old'")
    install_outbox(application)
    assert one(application, "select added from dlq.attachment") == {"added": ["last_error_at"]}
    remove_all(application)
    assert dump_schema(empty_database) == before


def test_error_texts_stay(application: Connection) -> None:
    """A worker writes the errors, so dropping their columns would break it and lose them."""
    install_outbox(application)
    application.execute(f"{INSERT}; {GIVE_UP}, last_error = 'x', last_error_at = now()".encode())
    planned = remove_all(application)
    assert planned.kept == (
        "last_error and last_error_at of public.outbox_event, because they hold error texts",
    )
    assert one(application, "select last_error from outbox_event") == {"last_error": "x"}
    install_outbox(application)
    assert one(application, "select added from dlq.attachment") == {"added": []}


def test_archived_events_are_not_lost(application: Connection) -> None:
    """They can be restored, kept with the ledger, or dropped by an option of their own."""
    install_outbox(application)
    application.execute(f"{INSERT}; {INSERT}; {GIVE_UP}".encode())
    later = datetime.now(UTC) + timedelta(days=1)
    done = archive_dead_events(application, before=later, only_exported=False, audit=AUDIT)
    assert done.moved == 2
    for step in (plan_removal, partial(remove_installation, audit=AUDIT)):
        with pytest.raises(RefusedError, match="The archive holds 2 events") as raised:
            step(application, RemovalScope())
        assert "dlq archive restore --all" in raised.value.hint
        assert "--discard-archived" in raised.value.hint
    remove_all(application, KEEP)
    assert one(application, "select count(*) as n from dlq.archived") == {"n": 2}
    remove_all(application, RemovalScope(discard_archived=True))
    assert one(application, "select to_regnamespace('dlq') is null as gone") == {"gone": True}


@pytest.mark.parametrize(
    "change", ["drop table outbox_event", "alter table outbox_event rename to old"]
)
@pytest.mark.parametrize("scope", [RemovalScope(), KEEP])
def test_a_table_that_was_dropped_or_renamed_meanwhile(
    application: Connection, change: str, scope: RemovalScope
) -> None:
    """Triggers and columns are removed from the table that has them, whatever its name."""
    install_outbox(application)
    application.execute("drop view dlq.outbox")
    application.execute(change.encode())
    remove_all(application, scope)
    found = one(
        application,
        "select count(*) as n from pg_trigger where tgname like 'dlq%'",
    )
    assert found == {"n": 0}
    columns = one(
        application,
        "select count(*) as n from pg_attribute a join pg_class c"
        " on c.oid = a.attrelid where c.relname = 'old' and a.attname like 'last_error%'",
    )
    assert columns == {"n": 0}


def test_a_new_table_of_the_same_name_is_left_alone(
    application: Connection,
) -> None:
    """A swap by rename: the triggers and the added columns are on the old table."""
    install_outbox(application)
    application.execute("alter table outbox_event rename to outbox_event_old")
    create_outbox(application, "last_error text", "id bigint primary key")
    remove_all(application)
    names = (
        "select string_agg(c.relname, ', ') as names from pg_attribute a join pg_class c"
        " on c.oid = a.attrelid where a.attname like 'last_error%' and c.relkind = 'r'"
    )
    assert one(application, names) == {"names": "outbox_event"}


@pytest.mark.parametrize(
    ("other", "scope", "named"),
    [
        ("create view public.deaths as select * from dlq.death", RemovalScope(), "deaths needs"),
        ("create view public.mine as select * from dlq.outbox", KEEP, "mine needs dlq.outbox"),
        (
            "create table public.notes (id bigint references dlq.death)",
            RemovalScope(),
            "notes needs",
        ),
        (
            "create table dlq.notes (id bigint)",
            RemovalScope(),
            "not part of this installation: notes",
        ),
        (
            "create function dlq.mine() returns int language sql as 'select 1'",
            RemovalScope(),
            "mine",
        ),
    ],
)
def test_what_others_need_is_not_dropped(
    empty_database: Database,
    application: Connection,
    other: str,
    scope: RemovalScope,
    named: str,
) -> None:
    install_outbox(application)
    application.execute(other.encode())
    before = dump_schema(empty_database)
    with pytest.raises(RefusedError, match=named):
        remove_all(application, scope)
    assert dump_schema(empty_database) == before


def test_a_view_of_others_on_the_ledger_stays_with_it(application: Connection) -> None:
    install_outbox(application)
    application.execute("create view public.deaths as select * from dlq.death")
    remove_all(application, KEEP)
    assert one(application, "select count(*) as n from deaths") == {"n": 0}


def test_a_schema_that_is_not_ours_stays(empty_database: Database, application: Connection) -> None:
    application.execute("create schema dlq; create table dlq.mine (id bigint)")
    before = dump_schema(empty_database)
    assert remove_all(application) == RemovalPlan((), ())
    assert dump_schema(empty_database) == before


def test_hostile_names_are_quoted(empty_database: Database) -> None:
    with replace(empty_database, names=HOSTILE).connect() as connection:
        create_outbox(connection)
        schema, table = (
            psycopg.sql.Identifier(name).as_string(connection)
            for name in (HOSTILE.outbox_schema, HOSTILE.outbox_table)
        )
        connection.execute(
            f"create schema {schema}; alter table outbox_event rename to {table};"
            f" alter table {table} set schema {schema}".encode()
        )
        before = dump_schema(empty_database)
        for scope in (KEEP, RemovalScope()):
            install_outbox(connection)
            remove_all(connection, scope)
        assert dump_schema(empty_database) == before


def test_a_long_transaction_of_the_application_is_named(
    empty_database: Database, application: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_outbox(application)
    monkeypatch.setattr(migrate, "_LOCK_TRIES", 2)
    application.execute("set lock_timeout = '50ms'")
    with psycopg.connect(empty_database.url) as reader:
        reader.execute("select * from outbox_event")
        with pytest.raises(SchemaError, match="a long transaction holds the table"):
            remove_all(application)
    require_current(application)
    remove_all(application)


def test_a_role_that_does_not_own_the_table_is_refused(
    application: Connection,
) -> None:
    install_outbox(application)
    role = f"guest_{application.info.dbname}"
    application.execute(
        f"create role {role}; grant usage on schema dlq to {role};"
        f" grant select on all tables in schema dlq to {role};"
        f" grant select on outbox_event to {role}; set role {role}".encode()
    )
    try:
        with pytest.raises(SchemaError, match="not permitted"):
            remove_all(application)
    finally:
        application.execute(f"reset role; drop owned by {role}; drop role {role}".encode())
    require_current(application)
