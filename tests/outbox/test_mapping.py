"""Is a mapping checked when it is loaded, and right for every value a column can hold?"""

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.errors import DlqError
from dlq_pipelines.outbox.mapping import (
    list_presets,
    load_mapping,
    parse_mapping,
)
from dlq_pipelines.outbox.mapping_sql import CONDITIONS, render_mapping
from dlq_pipelines.outbox.mapping_types import (
    CANONICAL_COLUMNS,
    ColumnSource,
    MappedColumn,
    Mapping,
    MappingError,
    RowCondition,
    list_mapped_columns,
    split_table_name,
)
from dlq_pipelines.postgres.connect import Connection, Database
from tests.outbox.table_shapes import name_table, render_for, write_select

SMALL = 'table = "t"\n[columns]\nid = "id"\n[dead]\nst = "dead"\n'


def load(text: str) -> Mapping:
    return parse_mapping(text, "shop.toml")


def small(more: str) -> str:
    """Add keys before the tables of the smallest mapping."""
    return f"{more}\n{SMALL}"


# Loading.


def test_a_mapping_is_loaded_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SMALL)
    mapping = load_mapping(file)
    assert (mapping.name, mapping.schema, mapping.table) == (str(file), "public", "t")
    assert mapping.delivered is None
    assert mapping.retry is None
    assert load_mapping(str(file)) == mapping
    assert list_mapped_columns(mapping) == ("id", "st")
    assert mapping.with_table("shop.outbox").schema == "shop"
    assert mapping.with_time_zone("Europe/Berlin").time_zone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("name", "schema", "table"),
    [
        ("t", "public", "t"),
        ("a.t", "a", "t"),
        ('"a.b"."T t"', "a.b", "T t"),
        ('a."t""x"', "a", 't"x'),
        ("Cap.Published", "Cap", "Published"),
    ],
)
def test_a_table_has_a_schema(name: str, schema: str, table: str) -> None:
    assert split_table_name(name) == (schema, table)


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a.b.c", '"', 'a"b', "a" * 64, "a\x00b"])
def test_what_is_no_table_name_is_refused(name: str) -> None:
    with pytest.raises(MappingError, match="is not a table name"):
        split_table_name(name)


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("", "the file: the key 'table' is missing", "Add table = "),
        ('table = "t"', "the key 'columns' is missing", "Add [columns]"),
        ('table = "t"\n[columns]\nid = "id"', "the key 'dead' is missing", "Add [dead]"),
        ('table = "t"\n[dead]\na = 1\n[columns]', "columns: the key 'id' is missing", "Add id"),
        (small("tables = 1"), "unknown key 'tables'", "Did you mean 'table'?"),
        (SMALL + "[column]", "unknown key 'column'", "Did you mean 'columns'?"),
        (SMALL.replace('"t"', "5"), "table: 5 is not a string", "Write it in quotes"),
        (SMALL.replace('"t"', '"a.b.c"'), "table: 'a.b.c' is not a table name", "schema.table"),
        (small("time_zone = 'Mars'"), "time_zone: 'Mars' is not a time zone", "Europe/Berlin"),
        (small("time_zone = '../x'"), "is not a time zone", "Europe/Berlin"),
        (SMALL + "[retry]", "retry: {} sets nothing", "no retries are offered"),
        (SMALL + '[retry]\nst = "dead"', "retry: the row would still be dead", "[dead]"),
        (SMALL + "[retry]\nx = 1", "would still be dead after a retry, by [dead] st", "Set"),
        (SMALL + "[retry]\nst = {due = 1}", "retry.st: {'due': 1} is not supported", "{due = "),
        (SMALL + "[retry]\nst = {null = false}", "is not supported", "{null = true}"),
        (SMALL + "[retry]\nst = 'a'\nid = 1", "retry: 'id' is the key", "Remove 'id'"),
        (SMALL + "[retry]\nst = {due = true, plus_days = -1}", "plus_days", "0 to 36500"),
        (SMALL + "[retry]\nst = 1.5", "retry.st: 1.5 is not a string, a whole", "such a value"),
        (SMALL + "[waiting]", "waiting: {} is not a condition", "Write columns"),
        (SMALL + "[delivered]\nst = []", "delivered.st: the list of values is empty", "Write"),
        (SMALL + "[delivered]\nst = {null = 1}", "delivered.st.null: 1 is not true", "true or"),
        (SMALL + "[delivered]\nst = {nul = true}", "unknown key 'nul'", "Did you mean 'null'"),
        (SMALL + "[delivered]\nst = {}", "exactly one comparison", "{null = true}"),
        (SMALL + "[delivered]\nst = {at_least = true}", "cannot be compared", "a number"),
        (SMALL + '[delivered]\nst = ["done", "dead"]', "would be delivered too", "one of the two"),
        (small("delivered = 'gone'"), "is not 'always' or 'deleted'", "Write a condition"),
        (small("working = 'deleted'"), "working: 'deleted' is not 'always'", "Write a condition"),
        (small("delivered = []"), "delivered: the list is empty", "Write a condition"),
        (small("delivered = [1]"), "delivered.0: 1 is not a condition", "Write columns"),
    ],
)
def test_an_error_names_file_key_and_remedy(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(MappingError) as caught:
        load(text)
    assert caught.value.message.startswith("shop.toml: ")
    assert problem in caught.value.message
    assert remedy in caught.value.hint
    assert caught.value.code == "mapping_invalid"


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("idd = 'a'", "columns: unknown key 'idd'"),
        ("payload = {text = 'x'}", "columns.payload: unknown key 'text'"),
        ("error = {text = 'x'}", "columns.error: unknown key 'text'"),
        ("event_type = {text = 'x', column = 'a'}", "'column' cannot be combined with 'text'"),
        ("error = {column = 'a', element = 'first'}", "columns.error.element: 'first' is not"),
        ("error = {element = 'last'}", "columns.error: the key 'column' is missing"),
        ("error = {column = 'a', field = []}", "columns.error.field: the path is empty"),
        ("error = {column = 'a', decode = 'json'}", "columns.error.decode: 'json' is not"),
        ("error = {column = 'a', optional = 1}", "columns.error.optional: 1 is not true"),
        ("error = {join = []}", "columns.error.join: not a list of columns"),
        ("error = {join = [1]}", "columns.error.join.0: 1 is not a table"),
        ("error = {join = ['a'], column = 'b'}", "'column' cannot be combined with 'join'"),
        ("error = {column = 'b', separator = ''}", "'separator' is a key of 'join'"),
        ("attempts = {column = 'b', element = 'last'}", "columns.attempts: unknown key 'element'"),
        ("error = ''", "columns.error: the string is empty"),
        (f"error = '{'é' * 32}'", "is longer than the 63 bytes of an identifier"),
        ('error = "a\\u0000"', "columns.error: the string is empty or contains NUL"),
    ],
)
def test_columns_are_checked(column: str, problem: str) -> None:
    with pytest.raises(MappingError) as caught:
        load(SMALL.replace("[dead]", f"{column}\n[dead]"))
    assert problem in caught.value.message
    assert caught.value.hint


def test_an_unknown_preset_names_a_similar_one(tmp_path: Path) -> None:
    with pytest.raises(MappingError) as caught:
        load_mapping("obam")
    assert "Did you mean 'oban'?" in caught.value.hint
    for content, problem in ((b"\xff", "not UTF-8"), (b"a" * 1_000_001, "longer than")):
        (tmp_path / "x.toml").write_bytes(content)
        with pytest.raises(MappingError, match=problem):
            load_mapping(tmp_path / "x.toml")
    for path in (tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(MappingError, match="cannot be read"):
            load_mapping(path)


def test_bad_toml_names_the_line() -> None:
    for text in ("table = ", "a = " + "[" * 5000, f"table = {'9' * 5000}", "a = 0x" + "f" * 9999):
        with pytest.raises(MappingError) as caught:
            load(text)
        assert "shop.toml" in caught.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("deleted"),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["null", "due", "at_least", "column", "text", "join", "st", "id"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=4,
)


def write_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(write_toml(v) for v in value if v is not None)}]"
    if isinstance(value, dict):
        pairs = (f"{k} = {write_toml(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    return '"' + "".join(f"\\U{ord(c):08x}" for c in str(value)) + '"'


@given(
    st.dictionaries(
        st.sampled_from(
            ["table", "time_zone", "columns", "dead", "delivered", "waiting", "retry", "x"]
        ),
        VALUES,
    )
)
def test_any_document_is_loaded_or_refused_with_a_remedy(document: dict[str, Any]) -> None:
    base = tomllib.loads(SMALL) | document
    text = "\n".join(f"{k} = {write_toml(v)}" for k, v in base.items() if v is not None)
    try:
        mapping = load(text)
    except DlqError as error:
        assert error.message.startswith("shop.toml")  # noqa: PT017 - either outcome is right
        assert error.hint  # noqa: PT017
    else:
        assert mapping.id


@given(st.text(max_size=60))
def test_any_text_is_loaded_or_refused(text: str) -> None:
    with pytest.raises(MappingError):
        load(text)


# Rendering.


def facts(**types: str) -> list[MappedColumn]:
    return [
        MappedColumn(name, type_, is_array=type_.endswith("[]")) for name, type_ in types.items()
    ]


def mapped(columns: str, rest: str = "") -> Mapping:
    return load(f'table = "t"\ndead = "always"\n{rest}\n[columns]\nid = "id"\n{columns}')


@pytest.mark.parametrize(
    ("columns", "rest", "types", "problem", "remedy"),
    [
        ("", "", {"id": "numeric"}, "columns.id: column 'id' of public.t has the type numeric", ""),
        ("", "", {"id": "character(3)"}, "has the type character(3)", "uuid, text"),
        ("payload = 'p'", "", {"id": "uuid", "p": "oid"}, "columns.payload: column 'p'", "bytea"),
        ("attempts = 'p'", "", {"id": "uuid", "p": "text"}, "columns.attempts", "numbers"),
        ("due_at = 'p'", "", {"id": "uuid", "p": "date"}, "columns.due_at", "timestamp"),
        ("error = 'p'", "", {"id": "uuid", "p": "bytea"}, "columns.error", "text"),
        ("error = 'p'", "", {"id": "uuid", "p": "text[]"}, "columns.error", "element"),
        ("error = {column='p', field='a'}", "", {"id": "uuid", "p": "json"}, "field", "pattern"),
        ("error = {column='p', element='last'}", "", {"id": "uuid", "p": "json"}, "p", "pattern"),
        ("error = 'p'", "", {"id": "uuid"}, "public.t has no column 'p'", "Columns: id."),
        ("", "working = {s = 1}", {"id": "uuid", "s": "text"}, "working.s", "a string in quotes"),
        ("", "working = {s = 'a'}", {"id": "uuid", "s": "integer"}, "working.s", "a whole number"),
        ("", "working = {s = true}", {"id": "uuid", "s": "integer"}, "working.s", "whole number"),
        ("", "working = {s = 1}", {"id": "uuid", "s": "boolean"}, "working.s", "true or false"),
        ("", "working = {s = 'a'}", {"id": "uuid", "s": "jsonb"}, "working.s", "{null = true}"),
        ("", "working = {s = {has_key = 'a'}}", {"id": "uuid", "s": "json"}, "s", "jsonb"),
        ("", "working = {s = {at_least = 3}}", {"id": "uuid", "s": "text"}, "s", "numbers"),
    ],
)
def test_types_that_cannot_be_served_are_refused(
    columns: str, rest: str, types: dict[str, str], problem: str, remedy: str
) -> None:
    with pytest.raises(MappingError) as caught:
        render_mapping(mapped(columns, rest), facts(**types))
    assert problem in caught.value.message
    assert remedy in caught.value.hint


def test_a_retry_is_checked_against_its_columns() -> None:
    given_facts = {c.name: c for c in facts(id="uuid", st="text", n="integer")}
    for retry, column, problem in (
        ("n = {null = true}", MappedColumn("n", "integer", nullable=False), "does not allow null"),
        ("n = {due = true}", MappedColumn("n", "integer"), "has the type integer"),
        ("n = 'a'", MappedColumn("n", "integer"), "has the type integer"),
        ("n = 1", MappedColumn("n", "integer", is_generated=True), "is generated"),
    ):
        mapping = load(f"{SMALL}[retry]\nst = 'new'\n{retry}")
        with pytest.raises(MappingError, match=problem):
            render_mapping(mapping, [*(given_facts | {"n": column}).values()])


def test_labels_of_an_enum_are_checked() -> None:
    column = MappedColumn("st", "state", is_enum=True, labels=("new", "done"))
    with pytest.raises(MappingError, match="'dead' is not a label"):
        render_mapping(load(SMALL), [*facts(id="uuid"), column])


def test_an_alias_is_a_plain_name() -> None:
    rendered = render_mapping(load(SMALL), facts(id="uuid", st="text"))
    for alias in ("o; drop", "", "O"):
        with pytest.raises(ValueError, match="not an alias"):
            rendered.condition("dead", alias)
        with pytest.raises(ValueError, match="not an alias"):
            rendered.expression("id", alias)


def test_what_is_absent_says_what_it_costs() -> None:
    rendered = render_mapping(load(SMALL), facts(id="uuid", st="text"))
    refused = {offer.operation: offer.reason for offer in rendered.offers if offer.reason}
    assert "all deaths are one cause" in refused["causes"]
    assert "[retry]" in refused["retries"]
    assert set(refused) == {
        *("causes", "event_types", "payloads", "attempts", "queue_lag", "regressions"),
        *("retries", "pace", "order", "edited_payloads", "fixes"),
    }
    assert rendered.find_offer("archive").is_offered
    with pytest.raises(MappingError, match=r"has no \[retry\]"):
        rendered.release_assignments("now()")
    no_error = render_mapping(
        load_mapping("dispatchbox"),
        facts(
            id="bigint",
            aggregate_type="text",
            aggregate_id="text",
            event_type="text",
            payload="jsonb",
            status="text",
            attempts="integer",
            next_run_at="timestamp with time zone",
            created_at="timestamp with time zone",
        ),
    )
    assert [offer.operation for offer in no_error.offers if offer.reason] == ["causes"]
    assert "no column 'last_error'" in no_error.find_offer("causes").reason


# On PostgreSQL.


WIDE = """
create type state as enum ('new', 'de"ad', 'do,ne');
create schema "my app";
create table "my app"."Out.box" (
    "Id" smallint primary key, "T" varchar(9), a uuid, payload bytea, tries numeric,
    due timestamp(3), made timestamptz, errors text[], "s%" state, n smallint, b boolean,
    most bigint, locked timestamptz
);
"""
WIDE_MAPPING = """
table = '"my app"."Out.box"'
time_zone = "America/New_York"
delivered = ["deleted", { n = [2, 3] }]

[columns]
id = "Id"
aggregate_id = "a"
event_type = "T"
payload = "payload"
attempts = "tries"
due_at = "due"
created_at = "made"
error = { column = "errors", element = "last" }

[dead]
"s%" = ['de"ad', "do,ne"]
n = { less_than = 9 }

[working]
locked = { null = false }
b = true
n = { at_least = "most" }

[retry]
"s%" = "new"
n = -1
b = false
due = { due = true, plus_days = 1 }
locked = { null = true }
"""


@pytest.fixture
def wide(empty_database: Database) -> Any:
    with empty_database.connect() as connection:
        connection.execute(WIDE)
        yield connection


def read_wide(connection: Connection) -> dict[str, Any]:
    rendered = render_for(connection, load(WIDE_MAPPING))
    statement = write_select(rendered)
    for name in ("due_at", "created_at"):  # Python has no infinite time
        statement = statement.replace(f") as {name}", f")::text as {name}")
    (row,) = connection.execute(statement).fetchall()
    return row


def test_values_are_read_as_they_are(wide: Connection) -> None:
    wide.execute("set bytea_output = 'escape'; set timezone = 'Asia/Tokyo'; set datestyle = German")
    wide.execute(
        """
        insert into "my app"."Out.box" values (7, 'placed',
            '00000000-0000-0000-0000-000000000001', '\\x00ff', 3.7, '2026-07-01 08:00',
            '2026-07-01 08:00+00', array['first', 'last'], 'de"ad', 5, true, 5, now())
        """
    )
    row = read_wide(wide)
    assert row["id"] == 7
    assert row["aggregate_id"] == "00000000-0000-0000-0000-000000000001"
    assert row["aggregate_type"] == "Out.box"
    assert (row["event_type"], row["error"]) == ("placed", "last")
    assert row["payload"] == "\\x00ff"
    assert row["attempts"] == 4
    assert row["due_at"].startswith("01.07.2026 21:00:00")  # 08:00 in New York, shown in Tokyo
    assert [row[name] for name in CONDITIONS] == [True, False, False, True]


def test_nulls_make_conditions_null(wide: Connection) -> None:
    wide.execute("""insert into "my app"."Out.box" values (1)""")
    row = read_wide(wide)
    assert [row[name] for name in CANONICAL_COLUMNS] == [
        1,
        "Out.box",
        *[None] * 8,
    ]
    assert (row["dead"], row["delivered"], row["waiting"]) == (None, None, True)


@pytest.mark.parametrize(
    ("given", "attempts"),
    [
        ("'NaN'", 2**31 - 1),
        ("1e300", 2**31 - 1),
        ("-1e300", 0),
        ("2147483647.9", 2**31 - 1),
        ("-0.4", 0),
    ],
)
def test_attempts_are_clamped(wide: Connection, given: str, attempts: int) -> None:
    wide.execute(f"""insert into "my app"."Out.box" ("Id", tries) values (1, {given})""")
    assert read_wide(wide)["attempts"] == attempts


@pytest.mark.parametrize("type_", ["smallint", "integer", "bigint", "real", "double precision"])
def test_attempts_of_any_number_are_clamped(wide: Connection, type_: str) -> None:
    limit = {"smallint": "32767", "integer": "2147483647", "bigint": "9223372036854775807"}
    wide.execute(f"""alter table "my app"."Out.box" alter tries type {type_}""")
    for value in (limit.get(type_, "'infinity'"), limit.get(type_, "1e30"), "-5"):
        wide.execute("""truncate "my app"."Out.box" """)
        wide.execute(f"""insert into "my app"."Out.box" ("Id", tries) values (1, {value})""")
        row = read_wide(wide)
        assert row["attempts"] in {0, 32767, 2**31 - 1}


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
        ("294276-12-31 23:59:59.999", "infinity"),
        ("4714-11-24 00:00:00 BC", "-infinity"),
        ("99999-01-01 00:00:00", "99999-01-01 05:00:00+00"),
    ],
)
def test_far_times_do_not_raise(wide: Connection, time: str, expected: str) -> None:
    wide.execute("""insert into "my app"."Out.box" ("Id", due) values (1, %s)""", (time,))
    assert read_wide(wide)["due_at"] == expected


def test_a_released_row_is_not_dead_any_more(wide: Connection) -> None:
    wide.execute(
        """insert into "my app"."Out.box" ("Id", "s%", n, b, locked, payload, tries)
        values (1, 'do,ne', 3, true, now(), '\\x01', 5)"""
    )
    rendered = render_for(wide, load(WIDE_MAPPING))
    assert rendered.payload_cast == "pg_catalog.bytea"
    assert (rendered.event_id_type, rendered.mapping.deleted_is_delivered) == ("bigint", True)
    due = "'2026-03-01 12:00+00'::timestamptz"
    statement = (
        f"update {name_table(rendered.mapping)} o set "
        f"{rendered.release_assignments(due)}, "
        f"payload = '\\x0203'::text::{rendered.payload_cast} where {rendered.condition('dead')}"
    )
    assert wide.execute(statement).rowcount == 1
    (row,) = wide.execute("""select * from "my app"."Out.box" """).fetchall()
    assert (row["s%"], row["n"], row["b"], row["locked"]) == ("new", -1, False, None)
    assert row["due"] == datetime(2026, 3, 2, 7)  # noqa: DTZ001 - New York's time, without a zone
    assert row["payload"] == b"\x02\x03"
    read = read_wide(wide)
    assert (read["dead"], read["waiting"]) == (False, True)


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        ("jsonb", '{"b": 1, "a": 2}', '{"a": 2, "b": 1}'),
        ("json", '{"b":  1, "a": "\\u0000"}', '{"b":  1, "a": "\\u0000"}'),
        ("text", "plain", "plain"),
        ("varchar(9)", "plain", "plain"),
        ("bytea", "\\x0a5c", "\\x0a5c"),
    ],
)
def test_a_payload_is_the_same_after_a_cast_back(
    empty_database: Database, type_: str, value: str, text: str
) -> None:
    with empty_database.connect() as connection:
        connection.execute(f"create table t (id uuid, p {type_}, q {type_})")
        connection.execute(
            f"insert into t values ('00000000-0000-0000-0000-000000000001', %s::{type_})", (value,)
        )
        rendered = render_for(connection, mapped("payload = 'p'"))
        expression = rendered.expression("payload")
        connection.execute(f"update t o set q = {expression}::{rendered.payload_cast}")
        row = connection.execute(
            f"select {expression} as text, p::text = q::text as same from t o"
        ).fetchone()
        assert row == {"text": text, "same": True}
        assert rendered.event_id_type == "uuid"


@pytest.mark.parametrize(
    ("type_", "source", "cases"),
    [
        (
            "jsonb",
            "{column = 'e', element = 'last', field = ['x', 'error']}",
            {
                '[{"x": {"error": "old"}}, {"x": {"error": "new"}}]': "new",
                '[{"x": "flat"}]': None,
                "[]": None,
                "{}": None,
                '"text"': None,
                "5": None,
                "null": None,
                '[{"x": {"error": {"a": 1}}}]': '{"a": 1}',
            },
        ),
        ("jsonb", "'e'", {'"text"': "text", '{"a": 1}': '{"a": 1}', "null": None}),
        (
            "jsonb[]",
            "{column = 'e', element = 'last', field = 'error'}",
            {"{}": None, '{"{\\"error\\": 1}",NULL}': None, '{"{\\"error\\": 1}"}': "1"},
        ),
        (
            "text[]",
            "{column = 'e', element = 'last'}",
            {"{a,b}": "b", "{}": None, "[5:6]={a,b}": "b", "{{a,b}}": None},
        ),
        (
            "text",
            """{column = 'e', pattern = '"m": ?"((?:[^"\\\\]|\\\\.)*)"', decode = 'json'}""",
            {
                '{"m":"a\\u003E\\n\\"b\\""}': 'a>\n"b"',
                '{"m": "\\u00fc"}': "\u00fc",
                '{"m":"\\u0000 \\u003E"}': "\\u0000 \\u003E",
                '{"m":"\\ud800"}': "\\ud800",
                '{"m":"\\q"}': "\\q",
                '{"m":"\\u12"}': "\\u12",
                "no json": None,
            },
        ),
        ("text", "{join = ['e', 'f', {column = 'e'}], separator = ' | '}", {"a": "a | a"}),
        ("varchar(5)", "{join = ['f', 'f']}", {"a": None}),
        ("json", """{column = 'e', pattern = ': (.*)}'}""", {'{"a": "\\u0000"}': '"\\u0000"'}),
    ],
)
def test_errors_are_read_from_any_place(
    empty_database: Database, type_: str, source: str, cases: dict[str, str | None]
) -> None:
    with empty_database.connect() as connection:
        connection.execute(f"create table t (id text primary key, e {type_}, f text)")
        mapping = mapped(f"error = {source}")
        rendered = render_for(connection, mapping)
        statement = f"select {rendered.expression('error')} as error from t o"
        for value, expected in cases.items():
            connection.execute("truncate t")
            connection.execute(f"insert into t values ('a', %s::{type_})", (value,))
            assert connection.execute(statement).fetchone() == {"error": expected}, value
        connection.execute("update t set e = null")
        assert connection.execute(statement).fetchone() == {"error": None}


@given(st.text(alphabet='\\"u0d8Fn{}é\n\t\x7f', max_size=12))
def test_no_text_makes_the_decoding_raise(shared: Connection, text: str) -> None:
    mapping = mapped("error = {column = 'e', pattern = '(.*)', decode = 'json'}")
    rendered = render_mapping(mapping, facts(id="text", e="text"))
    statement = f"select {rendered.expression('error')} as x from (select %s::text as e) o"
    assert shared.execute(statement, (text,)).fetchone() is not None


@pytest.fixture(scope="module")
def shared(server_url: str) -> Any:
    with Database(server_url).connect() as connection:
        yield connection


@pytest.mark.parametrize(
    ("type_", "dead", "yes", "no"),
    [
        ("text", "'dead'", "'dead'", "'Dead'"),
        ("text", "['a', '''{\"\\']", "'''{\"\\'", "'{'"),
        ("varchar(4)", "['dead', 'x']", "'dead'", "'y'"),
        ("char(6)", "'dead'", "'dead'", "'d'"),
        ("state", "'dead'", "'dead'", "'new'"),
        ("state", "['dead', 'gone']", "'gone'", "'new'"),
        ("smallint", "3", "3", "4"),
        ("bigint", "[-1, 9000000000]", "9000000000", "1"),
        ("numeric(5, 2)", "3", "3.00", "3.01"),
        ("boolean", "true", "true", "false"),
        ("boolean", "[true, false]", "false", "null"),
        ("timestamptz", "{null = false}", "'-infinity'", "null"),
        ("uuid", "{null = true}", "null", "gen_random_uuid()"),
        ("integer", "{at_least = 'most'}", "5", "4"),
        ("numeric", "{at_least = 'most'}", "'NaN'", "4.9"),
        ("real", "{less_than = 3}", "2.9", "3"),
        ("jsonb", "{has_key = 'it''s'}", "'{\"it''s\": null}'", "'[]'"),
    ],
)
def test_conditions_work_in_a_trigger(
    empty_database: Database, type_: str, dead: str, yes: str, no: str
) -> None:
    dead = dead.replace("'it''s'", '"it\'s"').replace("'''{\"\\'", '"\'{\\"\\\\"')
    text = f'table = "t"\n[columns]\nid = "id"\n[dead]\n"s t" = {dead}'
    with empty_database.connect() as connection:
        connection.execute("create type state as enum ('new', 'dead', 'gone')")
        connection.execute(f'create table t (id bigint, "s t" {type_}, most integer default 5)')
        condition = render_for(connection, load(text)).condition("dead", "new")
        connection.execute(
            f"""
            create table seen (id bigint);
            create function note() returns trigger language plpgsql set search_path = '' as
            $$ begin insert into public.seen values (new.id); return null; end $$;
            create trigger died after insert or update on t for each row when ({condition})
            execute function note()
            """
        )
        connection.execute(f'insert into t (id, "s t") values (1, {yes}), (2, {no}), (3, null)')
        seen = [row["id"] for row in connection.execute("select id from seen").fetchall()]
        assert seen == ([1, 3] if "true}" in dead else [1])


def test_conditions_ignore_the_search_path(empty_database: Database) -> None:
    """Operators and functions of the same names in another schema are not called."""
    with empty_database.connect() as connection:
        connection.execute(
            """
            create table t (id bigint, st text);
            create schema evil;
            create function evil.no(text, text) returns boolean language sql as 'select false';
            create operator evil.= (function = evil.no, leftarg = text, rightarg = text);
            insert into t values (1, 'dead');
            set search_path = evil, public, pg_catalog
            """
        )
        condition = render_for(connection, load(SMALL)).condition("dead")
        assert connection.execute(f"select {condition} as dead from t o").fetchone() == {
            "dead": True
        }
        assert connection.execute("select st = 'dead' as dead from t").fetchone() == {"dead": False}


def test_a_view_finds_a_row_by_the_index_of_its_key(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        for type_ in ("integer", "varchar(36)", "uuid", "text"):
            connection.execute(f"create table t (id {type_} primary key)")
            expression = render_for(connection, mapped("")).expression("id")
            connection.execute(f"create view v as select {expression} as id from t o")
            connection.execute("set enable_seqscan = off")
            array = "'{1}'::bigint[]" if type_ == "integer" else f"null::{type_}[]"
            array = "null::text[]" if type_ == "varchar(36)" else array
            plan = connection.execute(f"explain select from v where id = any ({array})").fetchall()
            assert "t_pkey" in str(plan) or "Result" in str(plan), (type_, plan)
            connection.execute("drop table t cascade")


def test_sources_keep_their_order() -> None:
    mapping = load_mapping("masstransit")
    assert list_mapped_columns(mapping)[0] == "message_delivery_id"
    assert isinstance(load_mapping("oban").error, ColumnSource)
    assert load_mapping("laravel-failed-jobs").dead == RowCondition(((),))
    assert all(load_mapping(name).name == name for name in list_presets())
