"""Does a proposal fit the table, load again, and say what is missing or why nothing is dead?"""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.errors import DlqError, RefusedError
from dlq_pipelines.outbox.adopt import (
    OutboxTableFacts,
    ProposedMapping,
    StateCount,
    list_state_columns,
    propose_mapping,
)
from dlq_pipelines.outbox.mapping import (
    list_presets,
    load_mapping,
    parse_mapping,
)
from dlq_pipelines.outbox.mapping_sql import quote_identifier
from dlq_pipelines.outbox.mapping_types import (
    MappedColumn,
    Mapping,
    MappingError,
)
from dlq_pipelines.postgres.connect import Connection, Database
from tests.outbox.table_shapes import (
    SHAPES,
    inspect_columns,
    name_table,
    read_shape,
    render_for,
    write_select,
)

NOTHING_DIES = {"debezium", "tomorrow"}
# Shapes of projects without a preset: table, and the key columns.
OTHERS = {
    "blueground": "outbox_item",
    "core-banking": "outbox_message",
    "orm-migration": "outbox_events",
    "kholodilin-partitioned": "outbox_events",
    "debezium": "outboxevent",
    "tomorrow": "outbox_kafka",
}


def gather_facts(connection: Connection, name: str) -> OutboxTableFacts:
    """Inspect the table of a shape, as `dlq adopt` does."""
    if name in OTHERS:
        schema, table = "public", OTHERS[name]
    else:
        mapping = load_mapping(name)
        schema, table = mapping.schema, mapping.table
    columns = tuple(inspect_columns(connection, schema, table))
    full = f"{quote_identifier(schema)}.{quote_identifier(table)}"
    states = {
        column: tuple(
            StateCount(row["value"], row["rows"])
            for row in connection.execute(
                f"select {quote_identifier(column)}::text as value, count(*) as rows "
                f"from {full} where {quote_identifier(column)} is not null group by 1 order by 1"
            )
        )
        for column in list_state_columns(columns)
    }
    key = connection.execute(
        "select a.attname from pg_index i join pg_attribute a "
        "on a.attrelid = i.indrelid and a.attnum = any (i.indkey) "
        "where i.indisprimary and i.indrelid = %s::regclass",
        (full,),
    ).fetchall()
    return OutboxTableFacts(schema, table, columns, tuple(row["attname"] for row in key), states)


def assert_loads_again(proposed: ProposedMapping) -> None:
    assert parse_mapping(proposed.text, proposed.mapping.name) == proposed.mapping
    assert all(len(line) <= 100 for line in proposed.text.splitlines())


@pytest.mark.parametrize("preset", list_presets())
def test_a_known_table_gets_its_preset(empty_database: Database, preset: str) -> None:
    shape = read_shape(preset)
    with empty_database.connect() as connection:
        connection.execute(shape["create"])
        for section in ("", "write", "give up"):
            connection.execute(shape.get(section, "select 1"))
            proposed = propose_mapping(gather_facts(connection, preset))
            assert proposed.preset == preset
            assert proposed.mapping == load_mapping(preset)
            assert_loads_again(proposed)


def test_a_preset_is_found_under_another_name(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute(read_shape("oban")["create"])
        facts = dataclasses.replace(gather_facts(connection, "oban"), schema="a.b", table="jobs")
        proposed = propose_mapping(facts)
        assert proposed.preset == "oban"
        assert (proposed.mapping.schema, proposed.mapping.table) == ("a.b", "jobs")
        assert proposed.mapping == load_mapping("oban").with_table('"a.b".jobs')


def test_states_that_a_preset_does_not_know_are_not_its_table(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute(read_shape("dispatchbox")["create"])
        facts = gather_facts(connection, "dispatchbox")
        facts.states["status"] = (StateCount("NEW", 3), StateCount("FAILED", 2))
        proposed = propose_mapping(facts)
        assert proposed.preset is None
        assert 'status = "FAILED"' in proposed.text
        assert 'status = "NEW"' in proposed.text


@pytest.mark.parametrize("name", sorted(set(OTHERS) - NOTHING_DIES - {"kholodilin-partitioned"}))
@pytest.mark.parametrize("seen", ["write", "give up"])
def test_names_and_types_decide_for_other_tables(
    empty_database: Database, name: str, seen: str
) -> None:
    shape = read_shape(name)
    with empty_database.connect() as connection:
        connection.execute(shape["create"])
        connection.execute(shape["write"])
        if seen == "give up":
            connection.execute(shape["give up"])
        proposed = propose_mapping(gather_facts(connection, name))
        assert_loads_again(proposed)
        assert proposed.preset is None
        connection.execute(shape["give up"])
        assert_served(connection, proposed.mapping, shape)


def assert_served(connection: Connection, mapping: Mapping, shape: dict[str, str]) -> None:
    """The dead row is read, a retry makes its worker take it, and then it is delivered."""
    rendered = render_for(connection, mapping)
    (row,) = connection.execute(write_select(rendered)).fetchall()
    assert (row["dead"], row["delivered"] or False, row["waiting"]) == (True, False, False)
    assert row["event_type"] == "order.placed"
    assert row["payload"] == '{"total": 3}'
    assert row["aggregate_id"] is not None
    assert connection.execute(shape["take"]).rowcount == 0
    connection.execute(
        f"update {name_table(mapping)} o set {rendered.release_assignments('now()')} "
        f"where {rendered.condition('dead')}"
    )
    assert connection.execute(shape["take"]).rowcount == 1
    assert connection.execute(shape["deliver"]).rowcount == 1
    (row,) = connection.execute(write_select(rendered)).fetchall()
    if mapping.delivered is not None:
        assert (row["dead"], row["delivered"], row["waiting"]) == (False, True, False)


def test_numbers_of_states_are_asked_for(empty_database: Database) -> None:
    shape = read_shape("kholodilin-partitioned")
    with empty_database.connect() as connection:
        connection.execute(shape["create"])
        connection.execute(shape["write"])
        connection.execute(shape["give up"])
        connection.execute(shape["write"])
        facts = gather_facts(connection, "kholodilin-partitioned")
        with pytest.raises(RefusedError) as caught:
            propose_mapping(facts)
        assert "which value of status means dead is not known. Values: 0 (1), 90 (1)." in str(
            caught.value
        )
        proposed = propose_mapping(facts, dead_values=[90], delivered_values=[100])
        assert not {o.operation: o.reason for o in proposed.offers}["fixes"]
        assert_loads_again(proposed)
        assert proposed.mapping.id == "id"
        connection.execute("delete from outbox_events where status = 0")
        assert_served(connection, proposed.mapping, shape)
        assert "Check:" in proposed.text
        assert any("0 the state of a waiting event" in question for question in proposed.questions)


@pytest.mark.parametrize("name", sorted(NOTHING_DIES))
def test_a_table_in_which_nothing_dies_is_refused(empty_database: Database, name: str) -> None:
    with empty_database.connect() as connection:
        connection.execute(read_shape(name)["create"])
        with pytest.raises(RefusedError) as caught:
            propose_mapping(gather_facts(connection, name))
    assert f"Nothing in public.{OTHERS[name]} is ever dead." in caught.value.message
    assert ("by processed" in caught.value.message) == (name == "tomorrow")
    assert "dead_at" in caught.value.hint


def test_every_shape_is_a_preset_or_played_here() -> None:
    assert set(SHAPES) == set(list_presets()) | set(OTHERS)


def columns(**types: str) -> tuple[MappedColumn, ...]:
    return tuple(
        MappedColumn(
            name, type_.removeprefix("not null "), nullable=not type_.startswith("not null ")
        )
        for name, type_ in types.items()
    )


TIME = "timestamp with time zone"


@pytest.mark.parametrize(
    ("table", "found", "dead", "retry"),
    [
        ("events", columns(Id="uuid", DeadAt=TIME), "DeadAt = { null = false }", "DeadAt"),
        ("events", columns(id="bigint", is_blocked="boolean"), "is_blocked = true", "is_blocked"),
        (
            "jobs",
            columns(id="text", attempts="integer", max_attempts="integer", locked_by="text"),
            'attempts = { at_least = "max_attempts" }',
            "locked_by = { null = true }",
        ),
        ("dead_letters", columns(id="uuid", failed_at=f"not null {TIME}"), 'dead = "always"', ""),
        ("failed_messages", columns(id="uuid", error="text"), 'dead = "always"', ""),
    ],
)
def test_deaths_are_found_without_a_state(
    table: str, found: tuple[MappedColumn, ...], dead: str, retry: str
) -> None:
    proposed = propose_mapping(OutboxTableFacts("public", table, found))
    assert_loads_again(proposed)
    assert dead in proposed.text
    assert (proposed.mapping.retry is not None) == bool(retry)
    assert retry in proposed.text


@pytest.mark.parametrize(
    ("states", "dead", "pending"),
    [
        (["pending", "failed", "dead"], "dead", "pending"),
        (["pending", "failed"], "failed", "pending"),
        (["New", "Sent"], ["Dead", "Failed"], "New"),
        (["PENDING", "SENT"], ["DEAD", "FAILED"], "PENDING"),
        (["QUEUED", "DEAD_LETTER"], "DEAD_LETTER", "QUEUED"),
        (["sent"], ["dead", "failed"], "pending"),
        ([], ["DEAD", "FAILED"], None),
    ],
)
def test_words_of_states_decide(
    states: list[str], dead: str | list[str], pending: str | None
) -> None:
    facts = OutboxTableFacts(
        "public",
        "events",
        columns(id="uuid", status="text"),
        states={"status": tuple(StateCount(state, 1) for state in states)},
    )
    mapping = propose_mapping(facts).mapping
    (alternative,) = mapping.dead.alternatives
    assert list(alternative[0].values) == ([dead] if isinstance(dead, str) else dead)
    assert (mapping.retry and mapping.retry[0].value) == pending


def test_labels_of_an_enum_are_states() -> None:
    state = MappedColumn("state", "job_state", is_enum=True, labels=("todo", "doing", "failed"))
    facts = OutboxTableFacts("public", "t", (*columns(id="bigint"), state))
    assert list_state_columns(facts.columns) == ("state",)
    mapping = propose_mapping(facts).mapping
    assert mapping.retry is not None
    assert (mapping.retry[0].value, mapping.deleted_is_delivered) == ("todo", True)
    without = dataclasses.replace(state, labels=("todo", "done"))
    with pytest.raises(RefusedError, match="which value of state means dead"):
        propose_mapping(OutboxTableFacts("public", "t", (*columns(id="bigint"), without)))


def _states(**counted: list[str]) -> dict[str, tuple[StateCount, ...]]:
    return {
        name: tuple(StateCount(value, 1) for value in values) for name, values in counted.items()
    }


ODD = columns(id="uuid", topic="text", level="text", phase="text", step="integer", data="jsonb")


def test_a_state_of_an_unusual_name_is_found_by_its_values() -> None:
    """One dead word is not enough: it may be the level of a message."""
    assert list_state_columns(ODD) == ("level", "phase")
    assert list_state_columns(ODD, reads_values=False) == ()
    states = _states(level=["info", "error"], phase=["waiting", "failed", "shipped"])
    proposed = propose_mapping(OutboxTableFacts("public", "t", ODD, states=states))
    assert_loads_again(proposed)
    assert '[dead]\nphase = "failed"' in proposed.text
    assert 'phase = "waiting"' in proposed.text
    assert "phase: is this the state of an event?" in proposed.questions
    only_level = _states(level=["info", "error"])
    with pytest.raises(RefusedError, match="--state COLUMN --dead VALUE"):
        propose_mapping(OutboxTableFacts("public", "t", ODD, states=only_level))


def test_values_that_may_be_states_are_shown() -> None:
    """A person sees which one means dead. Values of single rows are no states."""
    states = {
        "level": tuple(StateCount(f"note {n}", 1) for n in range(9)),
        "phase": (StateCount("sent", 90), StateCount("gave_up", 3)),
    }
    with pytest.raises(RefusedError) as caught:
        propose_mapping(OutboxTableFacts("public", "t", ODD, states=states))
    assert caught.value.message == (
        "Which column of public.t has the state of an event is not known. "
        "phase: sent (90), gave_up (3)."
    )


@pytest.mark.parametrize(
    ("given", "dead", "retry"), [((), "true", "false"), (("false",), "false", "true")]
)
def test_a_flag_is_named_as_a_state_is(given: tuple[str, ...], dead: str, retry: str) -> None:
    facts = OutboxTableFacts("public", "t", columns(id="uuid", gave_up="boolean", at=TIME))
    proposed = propose_mapping(facts, state="gave_up", dead_values=given)
    assert_loads_again(proposed)
    assert f"[dead]\ngave_up = {dead}" in proposed.text
    assert f"gave_up = {retry}" in proposed.text.partition("[retry]")[2]


def test_a_person_names_the_state() -> None:
    facts = OutboxTableFacts(
        "public", "t", ODD, states=_states(level=["x"], phase=["new", "gave_up"], step=["1", "9"])
    )
    by_value = propose_mapping(facts, dead_values=["gave_up"])
    assert '[dead]\nphase = "gave_up"' in by_value.text
    by_name = propose_mapping(facts, state="phase", dead_values=["gave_up"])
    assert by_name.mapping == by_value.mapping
    assert list_state_columns(ODD, "step") == ("step",)
    numbers = propose_mapping(facts, state="step", dead_values=[9], delivered_values=[5])
    assert "[dead]\nstep = 9" in numbers.text
    assert "step = 1" in numbers.text
    guessed = propose_mapping(facts, state="level")
    assert "level: no row is dead yet" in " ".join(guessed.questions)


@pytest.mark.parametrize(
    ("state", "dead", "message"),
    [
        ("nosuch", (), "has no column 'nosuch'. Its columns: id, topic, level, phase"),
        ("data", (), "data of public.t has type jsonb"),
        (None, ("absent",), "Which column of public.t has the state of an event is not known"),
        ("step", (), "which value of step means dead is not known"),
    ],
)
def test_a_wrong_state_is_refused(state: str | None, dead: tuple[str, ...], message: str) -> None:
    facts = OutboxTableFacts("public", "t", ODD, states=_states(step=["1", "9"], phase=["new"]))
    with pytest.raises(DlqError, match=re.escape(message)):
        propose_mapping(facts, state=state, dead_values=dead)


def test_a_table_without_a_key_is_refused() -> None:
    for found in (columns(id="numeric", status="text"), columns(a="bigint", status="text")):
        with pytest.raises(RefusedError, match="no key that can be served"):
            propose_mapping(OutboxTableFacts("public", "t", found))


def test_what_is_absent_is_said_in_the_text() -> None:
    proposed = propose_mapping(
        OutboxTableFacts("public", "t", columns(id="uuid", status="text", at="text"))
    )
    text = proposed.text.replace("\n# ", " ")
    assert "What this mapping does not offer" in text
    assert "all deaths are one cause" in text
    assert {offer.operation for offer in proposed.offers if offer.reason} > {"causes", "order"}


NAMES = st.sampled_from(
    ["id", "status", "State", "dead_at", "blocked", "error", "payload", "attempts", "type"]
) | st.text(min_size=1, max_size=8).filter(lambda s: "\x00" not in s and s.isprintable())
TYPES = st.sampled_from(
    ["uuid", "bigint", "text", "character varying(9)", "jsonb", "boolean", TIME, "integer", "date"]
)


@given(
    st.lists(st.tuples(NAMES, TYPES), unique_by=lambda pair: pair[0], max_size=7),
    st.lists(st.text(max_size=6).filter(lambda s: "\x00" not in s), max_size=4),
    NAMES,
)
def test_any_table_is_proposed_or_refused(
    pairs: list[tuple[str, str]], states: list[str], table: str
) -> None:
    found = tuple(MappedColumn(name, type_) for name, type_ in pairs)
    counts = tuple(StateCount(state, 1) for state in states)
    facts = OutboxTableFacts(
        "public", table, found, (), dict.fromkeys(list_state_columns(found), counts)
    )
    try:
        proposed = propose_mapping(facts)
    except RefusedError as error:
        assert error.hint  # noqa: PT017 - either outcome is right
    except MappingError as error:  # a name longer than an identifier
        pytest.fail(str(error))
    else:
        assert_loads_again(proposed)
