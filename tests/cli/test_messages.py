"""Tests that the messages of the command line are clear sentences in its own words."""

from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.cli.output import print_table
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, kill, one


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["dead-events", "list", "--all", "--cause", "v2-a"],
            2,
            "--all cannot be combined with filters or ids. Leave one of them out.",
        ),
        (
            ["dead-events", "discard", "1", "--all", "--reason", "x"],
            2,
            "--all cannot be combined with filters or ids. Leave one of them out.",
        ),
        (
            ["dead-events", "export", "--output", "/nowhere/x"],
            1,
            "Cannot use '/nowhere/x': No such file or directory. Check the path and its rights.",
        ),
        (
            ["dead-events", "retry", "1", "--reason", "x", "--payload", "@/nonexistent"],
            1,
            "Cannot use '/nonexistent': No such file or directory. Check the path and its rights.",
        ),
        (
            ["dead-event", "list"],
            2,
            "No such command 'dead-event'. Did you mean 'dead-events'? See `dlq --help`.",
        ),
        (
            ["fixes", "flg"],
            2,
            "No such command 'flg'. Did you mean 'flag'? See `dlq fixes --help`.",
        ),
        (
            ["dead-events", "retry-bach"],
            2,
            (
                "No such command 'retry-bach'. Did you mean 'retry-batch', 'retry'? "
                "See `dlq dead-events --help`."
            ),
        ),
        (
            ["dead-events", "show", "1fe76"],
            2,
            "Not an event id of this outbox: '1fe76'. Ids of this outbox have the type bigint.",
        ),
        (
            ["dead-events", "show", "777"],
            3,
            "Event 777 has never died. `dlq dead-events list` lists the dead events.",
        ),
    ],
)
def test_a_message_is_one_sentence_and_the_remedy(
    dlq: Run,  # noqa: F811
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    ended = dlq(*arguments)
    assert (ended.code, ended.out, ended.err) == (code, "", f"dlq: {message}\n")


def test_a_value_that_was_not_set_is_empty_and_not_none(
    dlq: Run,  # noqa: F811
    connection: Connection,
) -> None:
    add_events(connection, 1)
    kill(connection, "KeyError: 'sku'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    cause = one(connection, "select id from dlq.cause")["id"]
    given = dlq("causes", "own", cause, "team-a", "--reason", "x").out
    taken = dlq("causes", "own", cause, "", "--reason", "x").out
    assert f"{cause}\towner\t\tteam-a\n" in given
    assert f"{cause}\towner\tteam-a\t\n" in taken


@pytest.mark.usefixtures("home")
def test_a_long_remedy_is_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also if it is longer than a cell of a terminal."""
    remedy = f"psql -c 'grant select on {', '.join(f't{number}' for number in range(500))} to x'"
    assert len(remedy) > 2_000
    print_table([{"check": "rights", "remedy": remedy}])
    assert remedy in capsys.readouterr().out
