"""Tests that errors are clear sentences with the value, in the words of HTTP."""

from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines.api.describe import translate_commands
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection
from tests.rows import add_events, kill


@pytest.mark.parametrize(
    ("method", "path", "content", "error"),
    [
        (
            "POST",
            "/api/dead-events/retry-batch",
            '{"event_ids": [1, "x"]}',
            "Not an event id of this outbox: ",
        ),
        (
            "POST",
            "/api/dead-events/retry-batch",
            '{"event_ids": [1], "rate": NaN}',
            "rate: NaN is not a number.",
        ),
        (
            "POST",
            "/api/dead-events/retry-batch",
            '{"event_ids": [1], "rate": 1e9}',
            "rate: 1000000000.0 is not at most 100,000.",
        ),
        (
            "POST",
            "/api/dead-events/retry-batch",
            '{"event_ids": [1], "rate": 1e-12}',
            "rate: 1e-12 is not at least 0.001.",
        ),
        (
            "POST",
            "/api/fixes",
            '{"all": true, "note": "x", "rate": 1e-12}',
            "rate: 1e-12 is not at least 0.001.",
        ),
        ("POST", "/api/dead-events/retry-batch", "[1]", "The body: the value is not an object."),
        ("POST", "/api/fixes", '{"all": true}', "note is required."),
        ("POST", "/api/fixes", '{"all": true, "note": ""}', "note must not be empty."),
        (
            "POST",
            "/api/fixes",
            '{"all": true, "note": "x", "order": "random"}',
            "order: 'random' is not 'aggregate' or 'none'.",
        ),
        (
            "GET",
            "/api/reports/2026-99-99",
            None,
            "day: '2026-99-99' is not a day. Write it as 2026-11-24.",
        ),
        ("GET", "/api/reports/20261124", None, "day: '20261124' is not a day. Write it as"),
        ("GET", "/api/dead-events?limit=0", None, "limit: '0' is not at least 1."),
        ("GET", "/api/dead-events?limit=1&colour=red", None, "colour: unknown query parameter. Kn"),
        ("GET", "/api/causes?after=x", None, "Invalid cursor: pass the `next` value of the prev"),
    ],
)
def test_an_invalid_argument_is_shown_with_what_is_expected(
    api: httpx.Client, method: str, path: str, content: str | None, error: str
) -> None:
    answer = api.request(
        method, path, content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)


def test_hints_are_requests_instead_of_commands(api: httpx.Client, connection: Connection) -> None:
    add_events(connection, 1)
    kill(connection, "KeyError: 'sku'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert api.post("/api/fixes", json={"all": True, "note": "x", "dry_run": False}).is_success
    refused = api.post("/api/fixes", json={"all": True, "note": "x"}).json()
    assert refused["hint"] == "Wait until it ends, or run `POST /api/fixes/1/withdraw`."
    unknown = api.get("/api/fixes/9").json()
    assert unknown["hint"] == "`GET /api/fixes` lists the fixes."


@pytest.mark.parametrize(
    ("command", "request_"),
    [
        ("`dlq causes show v2-a`", "`GET /api/causes/v2-a`"),
        ("`dlq causes split v2-a`", "`POST /api/causes/v2-a/split`"),
        ("`dlq migrate`", "`dlq migrate`"),
        ("`dlq causes reindex --dry-run`", "`dlq causes reindex --dry-run`"),
    ],
)
def test_commands_without_a_route_stay(command: str, request_: str) -> None:
    assert translate_commands(f"See {command}.") == f"See {request_}."
