"""Tests the filter of payloads: its short form, what it selects, and what is refused."""

import psycopg
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import DlqError
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.outbox.payload_filter import format_path, parse_payload_filter
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from tests.outbox.test_selection import NOW, UTC
from tests.rows import one
from tests.shapes import TEXT_KEYS, ShapedOutbox

# What a person writes, and the predicate that PostgreSQL gets.
SHORT = {
    "$.acquirer=northbank": '$.acquirer == "northbank"',
    " $.acquirer = north bank ": '$.acquirer == "north bank"',
    "$.code=503": '$.code == 503 || $.code == "503"',
    '$.code="503"': '$.code == "503"',
    "$.code=007": '$.code == "007"',
    "$.paid=true": '$.paid == true || $.paid == "true"',
    "$.a-b=x": '$."a-b" == "x"',
    "$['a b'].c[0].d[*]=x": '$."a b".c[0].d[*] == "x"',
    '$."a\\"b"=x': '$."a\\"b" == "x"',
    "$.größe=ß": '$."größe" == "ß"',
    "$=7": '$ == 7 || $ == "7"',
    '$.a=say "hi"': '$.a == "say \\"hi\\""',
    "$.a == 1": "$.a == 1",
    "exists($.a) && $.b > 1": "exists($.a) && $.b > 1",
}
PAYLOADS = {
    1: '{"acquirer": "northbank", "lines": [{"sku": "x-1"}, {"sku": "y"}], "code": 503}',
    2: '{"acquirer": "southbank", "code": "503", "größe": "ß", "a-b": "x"}',
    3: '"northbank"',
    4: "null",
    5: '{"acquirer": null}',
}


@pytest.fixture
def events(connection: Connection) -> Connection:
    for payload in PAYLOADS.values():
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " last_error) values ('order', '1', 'order.placed', %s::jsonb, 'dead', 'x')",
            [payload],
        )
    classify_deaths(connection, zone=UTC)
    return connection


def select(connection: Connection, where: str) -> set[object]:
    """Return the events that a filter selects."""
    selection = Selection.build({"where": where}, UTC, now=NOW)
    return {event.id for event in list_dead_events(connection, selection).events}


@pytest.mark.parametrize("given", SHORT)
def test_the_short_form_becomes_a_predicate_of_postgresql(
    given: str, connection: Connection
) -> None:
    predicate = parse_payload_filter(given)
    assert predicate == SHORT[given]
    assert parse_payload_filter(predicate) == predicate
    checked = connection.execute("select dlq.payload_predicate(%s) as path", [predicate])
    assert checked.fetchall()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("$.acquirer=northbank", {1}),
        ("$.code=503", {1, 2}),
        ('$.code="503"', {2}),
        ("$.lines[*].sku=y", {1}),
        ("$.lines.sku=y", {1}),
        ("$=northbank", {3}),
        ("$.größe=ß", {2}),
        ("$.a-b=x", {2}),
        ("!exists($.code)", {3, 4, 5}),
        ('$.code.type() == "string"', {2}),
        ('$.lines.sku starts with "x-"', {1}),
        ('$.acquirer like_regex "^north" || $ == null', {1, 4}),
        ("$.acquirer=null", {5}),
        ("strict $.acquirer.deeper == 1", set()),
        ('$.acquirer.datetime() < "2026-11-25T10:00:00+00:00".datetime()', set()),
    ],
)
def test_a_filter_selects_by_the_payload(
    events: Connection, where: str, expected: set[int]
) -> None:
    assert select(events, where) == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("acquirer=northbank", "must be PATH=VALUE"),
        (" ", "must not be empty"),
        ('$.a="x', "invalid string"),
        ("$.a=", "has no value"),
        ("$.a=x && $.b=y", "as a whole"),
        ("$.a='x'", "as a whole"),
        ("$.acquirer", "is no jsonpath predicate"),
        ("$.a == 1 ||", "is no jsonpath predicate"),
        ("$.a like_regex '('", "is no jsonpath predicate"),
        ("$.a == $b", "is no jsonpath predicate"),
        ("$.a == 1 && " + "x" * 1_000, "1,?000"),
    ],
)
def test_a_filter_that_is_no_predicate_is_refused(
    events: Connection, where: str, said: str
) -> None:
    with pytest.raises((ValueError, DlqError), match=said):
        select(events, where)


def test_a_predicate_in_sql_is_checked_before_anything_changes(events: Connection) -> None:
    for predicate in ("$.a", "nonsense (", ""):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="where"):
            events.execute("select dlq.flag_fix('fixed', \"where\" => %s)", [predicate])
    assert one(events, "select count(*) as n from dlq.fix") == {"n": 0}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="where is no jsonpath"):
        events.execute(
            'insert into dlq.fix (note, flagged_by, flagged_at, "where")'
            " values ('x', 'ann', now(), '$.a')"
        )


def test_the_filter_reads_json_of_every_shape_and_passes_over_other_texts(
    outbox: ShapedOutbox,
) -> None:
    outbox.add_dead(1, payload='{"code": 503}')
    outbox.add_dead(1, payload='{"code": 404}')
    if outbox.shape is TEXT_KEYS:
        for text in ("{broken", "", "[" * 100_000 + "]" * 100_000, '{"code": 503, "x": "\\u0000"}'):
            outbox.add_dead(1, payload=text)
    assert select(outbox.connection, "$.code=503") == {outbox.event_id(1)}
    assert select(outbox.connection, "!exists($.none)") == {
        outbox.event_id(1),
        outbox.event_id(2),
    }


def test_a_predicate_that_fails_on_a_payload_stops_nothing(events: Connection) -> None:
    """A date is compared in UTC. The archive passes over the fix of events it does not target."""
    events.execute('update outbox_event set payload = \'{"at": "2026-11-24"}\' where id = 2')
    predicate = '$.at.datetime() < "2026-11-25T10:00:00+00:00".datetime()'
    assert select(events, predicate) == {2}
    events.execute("select dlq.flag_fix('fixed', \"where\" => %s)", [predicate])
    assert one(events, "select count(*) as n from dlq.wanted") == {"n": 1}


def test_a_path_of_any_names_is_a_jsonpath(connection: Connection) -> None:
    document = {"a b": {'"q"\\': [{"ключ": 1}]}}
    path = format_path(("a b", '"q"\\', "[*]", "ключ"))
    found = connection.execute(
        "select jsonb_path_exists(%s::jsonb, %s::jsonpath) as found",
        [psycopg.types.json.Jsonb(document), path],
    ).fetchone()
    assert found == {"found": True}
