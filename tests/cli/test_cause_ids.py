"""Tests that the beginning of a cause's id is enough on the command line."""

import pytest

from dlq_pipelines.causes.catalogue import find_cause_id
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import CAUSE, Run, add_dead_events, read_json
from tests.rows import one


@pytest.fixture
def start(connection: Connection) -> str:
    """The beginning of the id of the only cause, without its version."""
    add_dead_events(connection, 3)
    return CAUSE.removeprefix("v2-")[:5]


def test_the_beginning_of_an_id_finds_a_cause(dlq: Run, start: str) -> None:
    for text in (start, f"v2-{start}", CAUSE, f" {CAUSE} "):
        assert read_json(dlq("causes", "show", text, "--json"))["cause"]["id"] == CAUSE
    assert read_json(dlq("causes", "explain", start, "--json"))["cause"] == CAUSE


def test_filters_and_changes_take_it_too(dlq: Run, connection: Connection, start: str) -> None:
    found = read_json(dlq("dead-events", "list", "--cause", start, "--json"))
    assert len(found["events"]) == 3
    change = ("--reason", "x", "--actor", "ann", "--json")
    read_json(dlq("causes", "own", start, "team-pay", *change))
    assert one(connection, "select owner from dlq.cause") == {"owner": "team-pay"}
    flag = read_json(dlq("fixes", "flag", "--cause", start, "--note", "x", "--json"))
    assert flag["fix"]["selection"]["cause"] == CAUSE


def test_causes_are_merged_by_the_beginnings_of_their_ids(
    dlq: Run, connection: Connection, start: str
) -> None:
    add_dead_events(connection, 1, error="KeyError: 'sku'")
    other = one(connection, f"select id from dlq.cause where id <> '{CAUSE}'")["id"]
    merge = ("causes", "merge", other.removeprefix("v2-")[:6], start)
    read_json(dlq(*merge, "--reason", "x", "--json"))
    assert one(connection, f"select merged_into from dlq.cause where id = '{other}'") == {
        "merged_into": CAUSE
    }


def test_an_ambiguous_or_unknown_beginning_is_refused(
    dlq: Run, connection: Connection, start: str
) -> None:
    ended = dlq("causes", "show", "v2-nothing")
    assert (ended.code, ended.err) == (
        3,
        "dlq: There is no cause 'v2-nothing'. `dlq causes list` lists the causes.\n",
    )
    for n in range(6):
        connection.execute(
            "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
            f" values ('v2-{start}-{n}', 'x', 'x', now(), now())"
        )
    ended = dlq("causes", "show", start)
    assert ended.code == 4
    assert f"The ids of several causes begin with '{start}': " in ended.err
    assert ended.err.endswith(" and others. Write more of the id.\n")
    # A whole id is no beginning.
    assert read_json(dlq("causes", "show", f"v2-{start}-1", "--json"))["cause"]["id"].endswith("1")
    with pytest.raises(RefusedError):
        find_cause_id(connection, "v2-")
    assert find_cause_id(connection, " ") == " "
    assert find_cause_id(connection, "%") == "%"
