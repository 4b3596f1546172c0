"""Checks that a table that cannot be served is refused before the first change, with the reason."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.outbox import inspect
from dlq_pipelines.outbox.inspect import (
    SessionFacts,
    StateCounts,
    count_states,
    inspect_session,
)
from dlq_pipelines.outbox.install import install_outbox, run_preflight
from dlq_pipelines.outbox.mapping import load_mapping, parse_mapping, read_preset
from dlq_pipelines.outbox.mapping_types import Mapping
from dlq_pipelines.outbox.preflight import PreflightCheck, check_session, check_states
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import require_current
from dlq_pipelines.settings import read_settings
from tests.postgres.dumps import dump_schema
from tests.rows import one

COLUMNS = {
    "id": "bigserial primary key",
    "aggregate_type": "text not null",
    "aggregate_id": "text not null",
    "event_type": "text not null",
    "payload": "jsonb not null",
    "status": "text not null default 'pending'",
    "attempts": "integer not null default 0",
    "next_run_at": "timestamptz not null default now()",
    "created_at": "timestamptz not null default now()",
}
INSERT = (
    "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
    " values ('order', '1', 'order.placed', '{}')"
)
GIVE_UP = "update outbox_event set status = 'dead', attempts = 5"


@pytest.fixture
def application(empty_database: Database) -> Iterator[Connection]:
    """A connection to a database without tables."""
    with empty_database.connect() as connection:
        yield connection


def create_outbox(connection: Connection, *changes: str, suffix: str = "") -> None:
    """Create the reference table with some columns changed, such as `status varchar(20)`."""
    columns = COLUMNS | dict(change.split(" ", 1) for change in changes)
    body = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
    connection.execute(f"create table outbox_event ({body}) {suffix}".encode())


def refuse(
    database: Database, connection: Connection, *reasons: str, mapping: Mapping | None = None
) -> None:
    """Check that an installation is refused for these reasons and changes nothing."""
    before = dump_schema(database)
    with pytest.raises(SchemaError) as raised:
        install_outbox(connection, mapping)
    for reason in reasons:
        assert reason in raised.value.message
    assert "nothing was changed" in raised.value.message
    assert dump_schema(database) == before


def list_checks(
    connection: Connection, mapping: Mapping | None = None
) -> dict[str, PreflightCheck]:
    return {check.name: check for check in run_preflight(connection, mapping)}


def change_preset(*replacements: tuple[str, str]) -> Mapping:
    text = read_preset("dispatchbox")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return parse_mapping(text, "outbox.toml")


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ("id numeric primary key", ("column 'id'", "has the type numeric", "Map a key of type")),
        ("payload xml", ("column 'payload'", "has the type xml")),
        ("attempts text", ("column 'attempts'", "has the type text", "Map a column of numbers")),
        ("next_run_at date", ("column 'next_run_at'", "has the type date")),
        ("status integer", ("column 'status'", "has the type integer", "Write a whole number")),
        ("aggregate_id bytea", ("column 'aggregate_id'", "has the type bytea")),
        ("last_error jsonb", ("last_error of public.outbox_event is jsonb", "type text")),
        ("id bigint", ("No primary key and no unique index", "add unique (id)")),
        ("dlq_death_id bigint", ("has a column dlq_death_id", "rename column")),
    ],
)
def test_a_column_that_cannot_be_served_is_refused_by_name_type_and_remedy(
    empty_database: Database, application: Connection, change: str, reasons: tuple[str, ...]
) -> None:
    create_outbox(application, change)
    refuse(empty_database, application, *reasons)
    application.execute("drop table outbox_event")


def test_every_refusal_is_in_one_error(empty_database: Database, application: Connection) -> None:
    create_outbox(application, "id bigint", "payload xml", "dlq_archived_at date")
    refuse(empty_database, application, "column 'payload'", "No primary key", "dlq_archived_at")


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        ("create view outbox_event as select 1 as id", "is a view. Map the table"),
        ("create materialized view outbox_event as select 1 as id", "is a materialized view"),
        ("create sequence outbox_event", "is a sequence"),
        (
            (
                "create table events (id bigint) partition by range (id);"
                " create table outbox_event partition of events default"
            ),
            "is a partition. Map the partitioned table",
        ),
        (
            (
                "create foreign data wrapper w; create server s foreign data wrapper w;"
                " create foreign table outbox_event (id bigint) server s"
            ),
            "is a foreign table",
        ),
        ("select 1", "There is no outbox table public.outbox_event"),
    ],
)
def test_other_relations_are_refused(
    empty_database: Database, application: Connection, create: str, reason: str
) -> None:
    application.execute(create.encode())
    refuse(empty_database, application, reason)


@pytest.mark.parametrize("is_child", [False, True])
def test_inheritance_is_refused(
    empty_database: Database, application: Connection, is_child: bool
) -> None:
    if is_child:
        application.execute("create table base (tenant text)")
        create_outbox(application, suffix="inherits (base)")
        refuse(empty_database, application, "inherits from base")
    else:
        create_outbox(application)
        application.execute("create table archived () inherits (outbox_event)")
        refuse(empty_database, application, "has the inheritance children archived")


def test_a_partitioned_table_is_served_with_a_warning_of_its_key(application: Connection) -> None:
    create_outbox(
        application,
        "id bigint generated always as identity",
        "created_at timestamptz not null default now(), primary key (id, created_at)",
        suffix="partition by range (created_at)",
    )
    application.execute("create table outbox_event_1 partition of outbox_event default")
    key = list_checks(application)["key"]
    assert (key.outcome, "(id, created_at)" in key.found) == ("warning", True)
    install_outbox(application)
    application.execute(f"{INSERT}; {GIVE_UP}".encode())
    assert one(application, "select count(*) as n from dlq.dead_now") == {"n": 1}


def test_a_missing_column_and_a_bad_pattern_are_refused(
    empty_database: Database, application: Connection
) -> None:
    create_outbox(application)
    mapping = change_preset(('"aggregate_id"', '"customer"'))
    refuse(empty_database, application, "has no column 'customer'", mapping=mapping)
    mapping = change_preset(
        ('event_type = "event_type"', 'event_type = { column = "event_type", pattern = "(x" }')
    )
    refuse(empty_database, application, "the regular expression '(x'", mapping=mapping)


def test_row_level_security_that_hides_rows_is_refused(
    empty_database: Database, application: Connection
) -> None:
    create_outbox(application)
    name = application.info.dbname
    role = f"owner_{name}"
    application.execute(
        f"create role {role} login; alter table outbox_event owner to {role};"
        f" grant create on database {name} to {role};"
        " alter table outbox_event enable row level security".encode()
    )
    try:
        application.execute(f"set role {role}".encode())
        checks = list_checks(application)
        assert {check.outcome for check in checks.values()} == {"ok"}
        assert "does not apply" in checks["row level security"].found
        application.execute("alter table outbox_event force row level security")
        refuse(empty_database, application, f"applies to {role}", "bypassrls")
    finally:
        application.execute(
            f"reset role; drop table outbox_event; drop owned by {role}; drop role {role}".encode()
        )


def test_rows_that_are_hidden_after_the_installation_are_no_empty_list(
    application: Connection,
) -> None:
    """Every command says so: with hidden rows nothing would seem to be dead."""
    create_outbox(application)
    name = application.info.dbname
    role = f"owner_{name}"
    application.execute(
        f"create role {role} login; alter table outbox_event owner to {role};"
        f" grant create on database {name} to {role}; set role {role}".encode()
    )
    try:
        install_outbox(application)
        application.execute("alter table outbox_event enable row level security")
        require_current(application)
        application.execute("alter table outbox_event force row level security")
        with pytest.raises(SchemaError, match=f"hides rows of the outbox from {role}: nothing"):
            require_current(application)
        # The views read with the rights of their owner.
        application.execute("reset role")
        with pytest.raises(SchemaError, match=f"from {role}: nothing"):
            require_current(application)
    finally:
        application.execute(
            "reset role; drop schema if exists dlq cascade; drop table outbox_event;"
            f" drop owned by {role}; drop role {role}".encode()
        )


def test_a_role_that_may_not_migrate_is_refused_with_the_grants(
    empty_database: Database, application: Connection
) -> None:
    """The trigger right is enough where no column is added."""
    create_outbox(application)
    name = application.info.dbname
    role = f"guest_{name}"
    application.execute(f"create role {role} login".encode())
    try:
        application.execute(f"set role {role}".encode())
        refuse(
            empty_database,
            application,
            f"belongs to postgres, and {role} is not a member",
            f"grant select on public.outbox_event to {role}; grant update on",
            f"grant create on database {name} to {role}",
        )
        application.execute(
            f"reset role; grant select, update, trigger on outbox_event to {role};"
            f" grant create on database {name} to {role};"
            " alter table outbox_event add last_error text, add last_error_at timestamptz;"
            f" set role {role}".encode()
        )
        install_outbox(application)
        application.execute(f"reset role; {INSERT}; {GIVE_UP}".encode())
        assert one(application, "select count(*) as n from dlq.dead_now") == {"n": 1}
    finally:
        application.execute(f"reset role; drop owned by {role} cascade; drop role {role}".encode())


def test_foreign_keys_are_warnings_and_triggers_are_named(application: Connection) -> None:
    """A death that an own BEFORE trigger causes is recorded; a referenced event stays."""
    create_outbox(application)
    application.execute(
        "create table tried (id bigserial primary key, event bigint references outbox_event);"
        " create function stamp() returns trigger language plpgsql as"
        " $$ begin if new.attempts >= 5 then new.status = 'dead'; end if; return new; end $$;"
        " create trigger stamp before update on outbox_event for each row execute function stamp()"
    )
    found = list_checks(application)
    assert (found["foreign keys"].outcome, found["triggers"].outcome) == ("warning", "ok")
    assert "tried_event_fkey of tried (event) on delete no action" in found["foreign keys"].found
    assert "stamp" in found["triggers"].found
    install_outbox(application)
    application.execute(f"{INSERT}; {INSERT}; update outbox_event set attempts = 5".encode())
    assert one(application, "select count(*) as n from dlq.dead_now") == {"n": 2}
    application.execute(
        "delete from tried; alter table tried drop constraint tried_event_fkey,"
        " add foreign key (event) references outbox_event on delete cascade"
    )
    assert "the archive refuses" in list_checks(application)["foreign keys"].found
    with pytest.raises((SchemaError, psycopg.Error), match="on delete cascade"):
        archive_dead_events(
            application,
            before=datetime(2100, 1, 1, tzinfo=UTC),
            only_exported=False,
            audit=AuditContext("ann", "tested", datetime.now(UTC)),
            options=RunOptions(),
        )


def test_a_trigger_with_the_name_of_ours_is_refused(
    empty_database: Database, application: Connection
) -> None:
    """It would be replaced: an installation in another schema would record nothing more."""
    create_outbox(application)
    application.names = replace(application.names, dlq_schema="other")
    install_outbox(application)
    application.names = replace(application.names, dlq_schema="dlq")
    refuse(empty_database, application, "4 triggers with the name of ours", "dlq_insert")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"is_standby": True}, "primary"),
        ({"server_encoding": "SQL_ASCII"}, "encoding"),
        ({"server_version": 130_012}, "server version"),
        ({"pooler": "transaction"}, "pooler"),
    ],
)
def test_a_session_that_cannot_migrate_is_refused(
    application: Connection, change: dict[str, object], name: str
) -> None:
    facts = inspect_session(application)
    assert {check.outcome for check in check_session(facts)} == {"ok"}
    changed = SessionFacts(**{**vars(facts), **change})
    refused = [check for check in check_session(changed) if check.outcome == "refused"]
    assert [check.name for check in refused] == [name]
    assert refused[0].remedy
    latin = replace(facts, server_encoding="LATIN1")
    assert [c.outcome for c in check_session(latin) if c.name == "encoding"] == ["warning"]


def test_defaults_of_the_database_do_not_reach_the_session(empty_database: Database) -> None:
    """DateStyle and isolation are pinned, and the plan says what the defaults are."""
    with empty_database.connect() as connection:
        create_outbox(connection)
        name = connection.info.dbname
        connection.execute(
            f"alter database {name} set datestyle = 'German, DMY';"
            f" alter database {name} set default_transaction_isolation = 'serializable'".encode()
        )
    with empty_database.connect() as connection:
        install_outbox(connection)
        connection.execute(f"{INSERT}; {GIVE_UP}".encode())
        assert classify_deaths(connection, zone=read_settings().zone).deaths == 1
        isolation = one(connection, "show transaction_isolation")
        assert isolation == {"transaction_isolation": "read committed"}
        notes = [check.found for check in check_session(inspect_session(connection))]
        assert "DateStyle German, DMY, isolation serializable" in notes[-1]


def test_states_are_counted_and_compared(application: Connection) -> None:
    """A state that others call dead, or unknown states alone, are a warning."""
    create_outbox(application)
    mapping = load_mapping("dispatchbox")

    def check() -> PreflightCheck:
        return check_states(mapping, "status", count_states(application, "status"))

    assert check().found == "the table is empty"
    application.execute(f"{INSERT}; {INSERT}; {INSERT}".encode())
    assert check() == PreflightCheck("states", "ok", "status: pending: 3")
    application.execute("update outbox_event set status = 'processing' where id = 1")
    found = check()
    assert (found.outcome, "not named by the mapping: 'processing'" in found.found) == ("ok", True)
    application.execute("update outbox_event set status = 'FAILED' where id = 2")
    found = check()
    assert (found.outcome, "FAILED: 1" in found.found, "done" in found.remedy) == (
        "warning",
        True,
        True,
    )
    assert list_checks(application)["states"] == found
    assert check_states(mapping, "status", StateCounts((("NEW", 5),), False)).outcome == "warning"
    sampled = check_states(mapping, "status", StateCounts((("pending", 5),), True))
    assert sampled.found == "status in a sample: pending: 5"


def test_states_of_a_table_that_is_too_large_are_sampled(
    application: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_outbox(application)
    application.execute(INSERT.encode())
    count = inspect._count_states_within_timeout

    def count_slowly(
        connection: Connection, statement: str, **values: float | str
    ) -> tuple[tuple[str | None, int], ...]:
        if statement == "inspect.states":
            raise psycopg.errors.QueryCanceled
        return count(connection, statement, **values)

    monkeypatch.setattr(inspect, "_count_states_within_timeout", count_slowly)
    assert count_states(application, "status") == StateCounts((("pending", 1),), is_sample=True)


def test_checks_and_remedies_are_plain_sentences(application: Connection) -> None:
    """Each mapped column is named with its type and its use."""
    create_outbox(application, "event_type varchar(50) not null")
    checks = list_checks(application)
    assert checks["column event_type"].found == "character varying(50): event_type"
    assert checks["column status"].found == "text: dead, delivered, waiting, retry"
    assert checks["column last_error"].found == "is added: text, nullable"
    assert {check.outcome for check in checks.values()} == {"ok"}
    assert not [check for check in checks.values() if re.search(r"None|\{|\}", check.found)]
