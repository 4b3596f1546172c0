"""Checks `dlq erase`: what it prints, and what it asks before it erases many events."""

import pytest

from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run, add_dead_events, read_json, read_words
from tests.rows import one


def test_erase_prints_what_it_did_and_what_is_left(dlq: Run, connection: Connection) -> None:
    """The event of a worker keeps its payload; a note keeps the text."""
    add_dead_events(connection, 2)
    connection.execute("update outbox_event set status = 'pending' where id = 2")
    connection.execute("update dlq.cause set note = 'ask for \"A-1\"'")
    arguments = ("erase", "--text", '"A-1"', "--event", "1", "--reason", "asked")
    planned = read_words(dlq(*arguments, "--dry-run"))
    assert planned.endswith("Nothing was changed: this was a dry run.")
    assert one(connection, "select count(*) as n from dlq.archived")["n"] == 0
    done = read_words(dlq(*arguments))
    assert done.startswith("event emptied rows kept rows erased deaths")
    assert "1 event keeps the payload, because a worker still needs it" in done
    assert done.endswith("The text is left in cause.note: 1 row.")
    assert read_json(dlq(*arguments, "--json")) == {
        "events": [
            {"event_id": 1, "rows": 0, "kept": 0, "deaths": 0},
            {"event_id": 2, "rows": 0, "kept": 1, "deaths": 0},
        ],
        "files": [],
        "left": [{"place": "cause.note", "rows": 1}],
        "dry_run": False,
    }
    nothing = read_words(dlq("erase", "--text", "nobody has this", "--reason", "asked"))
    assert nothing == "No payload and no error contains this text."


def test_more_than_a_thousand_events_need_a_confirmation(dlq: Run, connection: Connection) -> None:
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', n::text, 'e', '{\"a\": \"text\"}', 'done' from generate_series(1, 1001) n"
    )
    ended = dlq("erase", "--text", "text", "--reason", "asked")
    assert (ended.code, "would erase 1,001 events and needs a confirmation" in ended.err) == (
        4,
        True,
    )
    assert dlq("erase", "--text", "text", "--reason", "asked", "--yes").code == 0
    left = "select count(*) as n from outbox_event where payload::text like '%text%'"
    assert one(connection, left)["n"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        ((), 2, "nothing to erase was given: pass the id of an event, or a text"),
        (("--event", "99"), 3, "There is no event 99"),
        (("--event", "x"), 2, "Not an event id of this outbox"),
        (("--text", "abc"), 2, "text must have at least 4 characters"),
        (("--text", "asked"), 2, "reason and actor must not contain the text to erase"),
    ],
)
def test_what_cannot_be_erased_is_explained(
    dlq: Run, connection: Connection, arguments: tuple[str, ...], code: int, error: str
) -> None:
    add_dead_events(connection, 1)
    ended = dlq("erase", *arguments, "--reason", "asked")
    assert (ended.code, error in ended.err) == (code, True), ended
