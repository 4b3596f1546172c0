"""Requests and commands for outboxes with other keys and payloads than the reference's."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings
from dlq_pipelines.text import RawJson, is_json
from tests.api.conftest import serving
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.other_outboxes import add_task, install_tasks
from tests.rows import add_events, kill, one

ID = "0b0e5b0c-6c6b-4b8c-9f6c-0123456789ab"
PATH = f"/api/dead-events/{ID}"


@pytest.fixture
def tasks(empty_database: Database, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection to an installed outbox with uuid keys and payloads of the given type."""
    with install_tasks(empty_database, payload_type=request.param) as (_, connection):
        yield connection


@pytest.fixture
def client(
    tasks: Connection,
    empty_database: Database,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[httpx.Client]:
    """A client of a server of that outbox, and the variables for commands."""
    database = Database(empty_database.url, tasks.names)
    monkeypatch.setenv("DLQ_DATABASE_URL", database.url)
    monkeypatch.setenv("DLQ_OUTBOX_TABLE", "task")
    settings = Settings(home=home, allow_edit=True)
    with (
        serving(settings, database) as address,
        httpx.Client(base_url=address, timeout=120) as opened,
    ):
        yield opened


def read_json(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the body of an answer with this status."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize(
    ("tasks", "payload", "shown"),
    [
        ("text", "not JSON\t\\ 日本 \x1b[31m", "not JSON\t\\ 日本 \x1b[31m"),
        ("text", '{"a": 1}', {"a": 1}),
        ("text", "[NaN]", "[NaN]"),
        ("text", "", ""),
        ("text", "[" * 100_000, "[" * 66_000),
        ("json", '{"a" : 1,\n "a": 2}', {"a": 2}),
        ("bytea", "\\x00ff10", "\\x00ff10"),
    ],
    indirect=["tasks"],
)
def test_any_payload_is_listed_and_shown(
    client: httpx.Client,
    tasks: Connection,
    dlq: Run,  # noqa: F811
    payload: str,
    shown: Any,
) -> None:
    """What is no JSON is a string of JSON."""
    add_task(tasks, ID, payload)
    classify_deaths(tasks, zone=ZoneInfo("UTC"))
    (event,) = read_json(client.get("/api/dead-events"))["events"]
    is_text = isinstance(shown, str)
    assert (event["id"], event["payload"], event["payload_as_text"]) == (ID, shown, is_text)
    found = read_json(client.get(PATH))
    assert (found["id"], found["payload_as_text"]) == (ID, is_text)
    assert found["payload"] == (payload if is_text else shown)
    (printed,) = json.loads(dlq("dead-events", "list", "--json").out)["events"]
    assert (printed["id"], printed["payload"]) == (ID, shown)
    assert json.loads(dlq("dead-events", "show", ID, "--json").out)["id"] == ID
    for command in (("list",), ("list", "--format", "csv"), ("show", ID)):
        ended = dlq("dead-events", *command)
        assert ended.code == 0, ended.err
        assert "csv" in command or "\x1b" not in ended.out
        assert ID in ended.out


@pytest.mark.parametrize("tasks", ["bytea"], indirect=True)
def test_an_event_is_retried_with_a_new_payload(client: httpx.Client, tasks: Connection) -> None:
    add_task(tasks, ID, "\\x00")
    wrong = client.post(f"{PATH}/retry", json={"payload": "\\xzz"})
    assert "is not a bytea that PostgreSQL can store" in read_json(wrong, 400)["error"]
    done = read_json(client.post(f"{PATH}/retry", json={"payload": "\\xff00"}))
    assert done["event_id"] == ID
    found = read_json(client.get(PATH))
    assert (found["payload"], found["status"]) == ("\\xff00", "new")
    assert [retry["payload_before"] for retry in found["retries"]] == ["\\x00"]
    assert read_json(client.get("/api/dead-events"))["events"] == []


@pytest.mark.parametrize("tasks", ["text"], indirect=True)
@pytest.mark.parametrize("wrong", ["1", "not-a-uuid", "0b0e5b0c"])
def test_an_id_of_another_type_is_refused(
    client: httpx.Client, tasks: Connection, wrong: str
) -> None:
    add_task(tasks, ID, "{}")
    for answer in (
        client.get(f"/api/dead-events/{wrong}"),
        client.post(f"/api/dead-events/{wrong}/retry"),
        client.get("/api/dead-events", params={"event_ids": wrong}),
    ):
        body = read_json(answer, 400)
        assert body["error"].startswith(f"Not an event id of this outbox: '{wrong}'.")
        assert "Ids of this outbox have the type uuid." in f"{body['error']} {body['hint']}"


def test_an_event_has_its_fields_at_the_top_level(
    api: httpx.Client, connection: Connection
) -> None:
    """Those of its row, as existing clients expect, with the place and the history."""
    add_events(connection, 2, payload='{"sku": "A-1"}')
    kill(connection, "KeyError: 'sku'", attempts=5)
    body = read_json(api.get("/api/dead-events/1"))
    assert {field.name for field in fields(OutboxEvent)} < body.keys()
    assert (body["id"], body["payload"], body["status"], body["attempts"], body["last_error"]) == (
        1,
        {"sku": "A-1"},
        "dead",
        5,
        "KeyError: 'sku'",
    )
    assert (body["place"], len(body["deaths"]), body["retries"]) == ("outbox", 1, [])
    connection.execute("delete from outbox_event where id = 2")
    gone = read_json(api.get("/api/dead-events/2"))
    assert (gone["id"], gone["place"], gone["payload"], gone["status"]) == (2, "gone", None, None)
    assert one(connection, "select count(*) from outbox_event") == {"count": 1}


def test_health_is_ok(api: httpx.Client) -> None:
    assert read_json(api.get("/health")) == {"status": "ok"}


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("1" * 10_000, True),
        ("[" * 50 + "]" * 50, True),
        ('"\\ud800"', True),
        ("NaN", False),
        ("-Infinity", False),
        ('"a\nb"', False),
        ("{'a': 1}", False),
        ("[" * 200_000, False),
        ("", False),
    ],
)
def test_other_texts_are_not_json(text: str, valid: bool) -> None:
    assert is_json(text) is valid
    assert RawJson(text).is_portable() is (valid and len(text) < 1_000)
