"""Tests the look at an outbox before anything is installed: what it finds, and that it writes
nothing.
"""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines import trial
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.outbox.mapping_types import MappingError, split_table_name
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.trial import Trial, TrialTable, try_outbox
from tests.outbox.table_shapes import read_shape
from tests.outbox.test_install import GIVEN_STATES, SERVED
from tests.postgres.dumps import dump_schema
from tests.rows import add_events

ANY = TrialTable()
ZONE = ZoneInfo("UTC")
HTTP = "requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: https://p/{}"


def look(connection: Connection, table: TrialTable = ANY, hidden: str = "") -> Trial:
    return try_outbox(
        connection,
        table,
        now=datetime.now(UTC),
        zone=ZONE,
        is_hidden=lambda path: hidden in path,
        redact=lambda texts: [text.replace("postcode", "***") for text in texts],
    )


@pytest.fixture
def shop(empty_database: Database) -> Database:
    """The reference application, with an outbox of two causes that nothing is installed for."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        connection.execute(
            "alter table outbox_event add last_error text, add last_error_at timestamptz"
        )
        add_events(connection, 60, payload='{"acquirer": "eastpay"}', event_type="order.paid")
        connection.execute("update outbox_event set status = 'done'")
        add_events(connection, 40, payload='{"acquirer": "northbank"}', event_type="order.paid")
        connection.execute(
            "update outbox_event set status = 'dead', attempts = 5, last_error_at = now(),"
            " last_error = replace(%s, '{}', id::text) where status = 'pending'",
            [HTTP],
        )
        add_events(connection, 30, payload='{"acquirer": "eastpay"}', event_type="order.sent")
        connection.execute(
            "update outbox_event set status = 'dead', attempts = 5,"
            " last_error_at = now() - interval '2 days', last_error = 'KeyError: ''postcode'''"
            " where status = 'pending'"
        )
    return empty_database


def test_causes_trend_and_what_sets_them_apart(shop: Database) -> None:
    with shop.connect() as connection:
        found = look(connection)
    assert (found.table, found.mapping.preset) == ("public.outbox_event", "dispatchbox")
    assert (found.events, found.dead, found.delivered) == (130, 70, 60)
    assert (found.classified, found.without_error, found.is_complete) == (70, 0, True)
    paid, sent = found.causes
    assert (paid.id, paid.dead) == (compute_cause_id(HTTP.format(7)), 40)
    assert paid.is_transient
    assert paid.days == (0,) * 13 + (40,)
    assert paid.explanation == "$.acquirer = northbank: 40 of 40 dead, 0 of 60 delivered"
    assert paid.where == '$.acquirer == "northbank"'
    assert (sent.title, sent.event_types) == ("KeyError: '***'", ("order.sent",))
    assert sent.days == (0,) * 11 + (30, 0, 0)
    assert "no delivered event of the same types is known" in sent.explanation


def test_hidden_paths_explain_nothing(shop: Database) -> None:
    with shop.connect() as connection:
        found = look(connection, hidden="acquirer")
    assert found.causes[0].explanation == "Nothing separates 40 dead events from 60 delivered ones."


def test_nothing_is_written(shop: Database) -> None:
    """Not even by a role that could: the transaction is read-only."""
    before = dump_schema(shop)
    with shop.connect() as connection:
        look(connection)
        assert not connection.read_only
        assert dump_schema(shop) == before
        connection.execute("create role trial_reader login")
        try:
            connection.execute("grant select on outbox_event to trial_reader")
            connection.execute("set role trial_reader")
            assert look(connection).dead == 70
        finally:
            connection.execute("reset role")
            connection.execute("drop owned by trial_reader")
            connection.execute("drop role trial_reader")


@pytest.mark.parametrize("name", SERVED)
def test_every_served_table_is_understood(empty_database: Database, name: str) -> None:
    """Found by itself, unless the state is a number: then a person says what is dead."""
    shape = read_shape(name)
    given = GIVEN_STATES.get(name, {})
    with empty_database.connect() as connection:
        connection.execute(shape["create"])
        connection.execute(shape.get("write", "select 1"))
        connection.execute(shape["give up"])
        table = TrialTable(
            None, tuple(given.get("dead_values", ())), tuple(given.get("delivered_values", ()))
        )
        found = look(connection, table)
        assert (found.dead, found.classified, len(found.causes)) == (1, 1, 1)


def test_the_application_may_have_no_column_for_the_error(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        create_host_tables(connection)
        add_events(connection, 3)
        connection.execute("update outbox_event set status = 'dead'")
        found = look(connection)
        assert (found.dead, found.without_error) == (3, 3)
        assert [cause.title for cause in found.causes] == ["no error text"]


def test_several_candidates_are_named(shop: Database) -> None:
    with shop.connect() as connection:
        connection.execute("create schema billing")
        connection.execute("create table billing.outbox_event (like outbox_event including all)")
        assert look(connection).others == ("billing.outbox_event",)
        connection.execute("insert into billing.outbox_event select * from outbox_event limit 1")
        with pytest.raises(RefusedError, match=r"billing\.outbox_event, public\.outbox_event"):
            look(connection)
        assert look(connection, TrialTable("billing.outbox_event")).events == 1
        assert look(connection, TrialTable("public.outbox_event")).dead == 70


def test_a_table_that_is_no_outbox_is_refused(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        with pytest.raises(NotFoundError, match="No table of this database looks like an outbox"):
            look(connection)
        connection.execute("create table outbox (id bigint primary key, payload text)")
        with pytest.raises(RefusedError, match=r"Nothing in public\.outbox is ever dead"):
            look(connection)
        connection.execute("create table event_log (id bigint primary key, payload text)")
        with pytest.raises(NotFoundError, match=r"Nothing in public\.outbox is ever dead"):
            look(connection)
        with pytest.raises(NotFoundError, match=r"no outbox table public\.nothing"):
            look(connection, TrialTable("public.nothing"))
        with pytest.raises(DlqError):
            split_table_name("a.b.c")


def test_many_dead_events_are_cut_at_a_bound(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last ones by key are looked at."""
    monkeypatch.setattr(trial, "SCANNED_ROWS", 50)
    monkeypatch.setattr(trial, "CLASSIFIED_EVENTS", 35)
    with shop.connect() as connection:
        found = look(connection)
    assert (found.events, found.is_complete, found.dead, found.classified) == (50, False, 50, 35)
    assert [cause.dead for cause in found.causes] == [30, 5]


def test_hostile_rows_stop_nothing(shop: Database) -> None:
    """Infinite times, long errors, and payloads that are no JSON."""
    with shop.connect() as connection:
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " created_at, last_error, last_error_at)"
            " values ('a', repeat('x', 3000), E'\\x1b[2J', '[]', 'dead', '-infinity', %s, null),"
            " ('a', 'b', '', 'null', 'dead', 'infinity', null, 'infinity')",
            ["ValueError: bad\n" + "x" * 30_000],
        )
        found = look(connection)
    assert (found.dead, found.classified, found.without_error) == (72, 72, 1)
    assert sum(cause.dead for cause in found.causes) == 72


def test_a_state_that_nobody_knows_is_named(shop: Database) -> None:
    """It may be that of the events whose worker gave up."""
    with shop.connect() as connection:
        connection.execute(
            "update outbox_event set status = 'stuck' where event_type = 'order.sent'"
        )
        found = look(connection)
        assert [(state.value, state.rows) for state in found.unmapped_states] == [("stuck", 30)]
        assert found.dead == 40
        given = TrialTable("outbox_event", ("stuck", "nosuch"), ("done", "neither"))
        found = look(connection, given)
        assert (found.dead, found.absent_states) == (30, ("nosuch", "neither"))


def test_a_state_of_an_unusual_name_is_found(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute(
            "create table outbox (id bigint primary key, topic text, phase text, body jsonb);"
            "insert into outbox select n, 't', case when n % 10 = 0 then 'failed'"
            " when n % 3 = 0 then 'queued' else 'sent' end, '{}' from generate_series(1, 90) n;"
            "create table event_log (id bigint primary key, level text, message text);"
            "insert into event_log values (1, 'error', 'x'), (2, 'info', 'x')"
        )
        found = look(connection)
        assert (found.table, found.dead, found.delivered) == ("public.outbox", 9, 54)
        connection.execute("update outbox set phase = 'gave_up' where phase = 'failed'")
        with pytest.raises(NotFoundError, match="--state COLUMN --dead VALUE"):
            look(connection)
        assert look(connection, TrialTable("outbox", ("gave_up",))).dead == 9
        assert look(connection, TrialTable("outbox", ("gave_up",), state="phase")).dead == 9


def test_a_given_mapping_says_what_is_dead(empty_database: Database, tmp_path: Path) -> None:
    """With `name`, of that table."""
    file = tmp_path / "odd.toml"
    file.write_text(
        'table = "shop.odd"\n[columns]\nid = "key"\nerror = "why"\n[dead]\nstep = 9\n',
        encoding="utf-8",
    )
    with empty_database.connect() as connection:
        connection.execute(
            "create schema shop;"
            "create table shop.odd (key uuid primary key default gen_random_uuid(), step int,"
            " why text);"
            "insert into shop.odd (step, why) values (9, $$KeyError: 'a'$$), (1, null);"
            "create table shop.other (like shop.odd including all)"
        )
        found = look(connection, TrialTable(mapping=str(file)))
        assert (found.table, found.events, found.dead) == ("shop.odd", 2, 1)
        assert [cause.title for cause in found.causes] == ["KeyError: 'a'"]
        assert look(connection, TrialTable("shop.other", mapping=str(file))).events == 0
        with pytest.raises(MappingError, match="has no column"):
            look(connection, TrialTable("shop.odd", mapping="oban"))
        with pytest.raises(MappingError, match="neither a preset nor a file"):
            look(connection, TrialTable(mapping="nosuch"))


def test_an_empty_table_is_not_preferred(shop: Database) -> None:
    """Although it has the columns of a known project. The others are named."""
    with shop.connect() as connection:
        connection.execute("create table outbox_copy (like outbox_event including all)")
        connection.execute(
            "create table my_outbox (id bigint primary key, status text, error text);"
            "insert into my_outbox values (1, 'dead', 'x'), (2, 'done', null)"
        )
        found = look(connection)
        assert found.table == "public.outbox_event"
        assert set(found.others) == {"public.outbox_copy", "public.my_outbox"}
        connection.execute("truncate outbox_event")
        assert look(connection).table == "public.my_outbox"


def test_events_that_are_dead_and_delivered_are_counted(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute(
            "create table outbox (id bigint primary key, dead boolean, processed_at timestamptz);"
            "insert into outbox select n, n % 9 = 0, now() from generate_series(1, 90) n"
        )
        found = look(connection)
        assert (found.dead, found.delivered, found.both) == (10, 90, 10)


def test_any_number_of_event_types_is_bounded(shop: Database) -> None:
    """Each event has a type of its own; those of the main ones are compared."""
    with shop.connect() as connection:
        connection.execute("update outbox_event set event_type = id::text")
        found = look(connection)
    assert found.dead == 70
    assert all("no delivered event" in cause.explanation for cause in found.causes)


def test_the_causes_of_many_types_are_compared_with_some_of_each(shop: Database) -> None:
    with shop.connect() as connection:
        connection.execute("update outbox_event set event_type = 'type ' || id % 30")
        found = look(connection)
    assert found.causes[0].explanation.startswith("$.acquirer = northbank: ")


def test_rows_that_a_policy_hides_are_said_to_be_hidden(shop: Database) -> None:
    with shop.connect() as connection:
        assert not look(connection).hides_rows
        connection.execute("create role trial_guest")
        try:
            connection.execute("grant select on outbox_event to trial_guest")
            connection.execute("alter table outbox_event enable row level security")
            connection.execute(
                "create policy few on outbox_event for select to trial_guest using (id < 5)"
            )
            connection.execute("set role trial_guest")
            found = look(connection, TrialTable("outbox_event"))
            assert (found.events, found.hides_rows) == (4, True)
        finally:
            connection.execute("reset role")
            connection.execute("drop owned by trial_guest")
            connection.execute("drop role trial_guest")


def test_a_role_without_the_right_is_refused_in_a_sentence(shop: Database) -> None:
    with shop.connect() as connection:
        connection.execute("create role trial_stranger")
        try:
            connection.execute("set role trial_stranger")
            with pytest.raises(RefusedError, match=r"permission denied .* may read the table"):
                look(connection, TrialTable("outbox_event"))
        finally:
            connection.execute("reset role")
            connection.execute("drop role trial_stranger")
