"""Tests that the Python API, the command line and HTTP give the same results."""

import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines import OutboxRepository
from dlq_pipelines.api.filters import SelectionBody, SelectionQuery
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.cli.dead_events import app as dead_events_app
from dlq_pipelines.defs.retries import FlagFixConfig, RetryEventsConfig
from dlq_pipelines.outbox.selection import FILTERS, Selection
from dlq_pipelines.postgres.connect import Connection, Database
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, date_deaths, kill

# Filters, as the command line and HTTP take them.
SELECTIONS: list[dict[str, Any]] = [
    {},
    {"event_type": "order.paid"},
    {"aggregate_type": "order", "attempts": 3},
    {"error_contains": "postcode"},
    {"since": "2026-01-01", "until": "2026-06-01T12:00"},
    {"cause": "v2-a"},
    {"cause": "v2-a", "event_type": "order.placed", "since": "2026-01-02T00:00+00:00"},
    {"event_type": "nobody's"},
    {"since": "52w", "until": "yesterday"},
    {"aggregate_id": "7"},
    {"where": "$.none=1"},
]


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Sixty dead events of two types, causes and numbers of attempts, over ten months."""
    for event_type, error, attempts in (
        ("order.placed", "KeyError: 'postcode'", 5),
        ("order.paid", "TimeoutError: x", 3),
    ):
        add_events(connection, 30, event_type=event_type)
        kill(connection, error, attempts=attempts, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    date_deaths(connection, "'2026-01-01Z'::timestamptz + d.event_id * interval '5 days'")
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " values ('v2-a', 'KeyError', 'x', now(), now())"
    )
    connection.execute(
        "update dlq.cause set merged_into = 'v2-a'"
        " where exception_type = 'KeyError' and id <> 'v2-a'"
    )


@pytest.mark.parametrize("filters", SELECTIONS, ids=str)
def test_a_selection_has_the_same_result_in_every_face(
    dlq: Run,  # noqa: F811
    api: httpx.Client,
    database: Database,
    filters: dict[str, Any],
) -> None:
    """The same events in the same order, the same figures and the same cursor."""
    options = [
        text
        for name, value in filters.items()
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    selection = Selection.build(filters, ZoneInfo("UTC"), now=datetime.now(UTC), default_all=True)

    with OutboxRepository(database.url) as repository:
        page, stats = (
            repository.list_dead_events(selection, limit=7, offset=2),
            repository.get_dead_event_stats(selection),
        )
        total = repository.count_dead_events(selection=selection)
    listed = api.get("/api/dead-events", params={**filters, "limit": 7, "offset": 2}).json()
    counted = api.get("/api/dead-events/stats", params=filters).json()
    printed = json.loads(
        dlq("dead-events", "list", *options, "--limit", "7", "--offset", "2", "--json").out
    )
    printed_stats = json.loads(dlq("dead-events", "stats", *options, "--format", "json").out)

    ids = [event.id for event in page.events]
    assert (
        ids
        == [event["id"] for event in listed["events"]]
        == [event["id"] for event in printed["events"]]
    )
    assert [event.cause_id for event in page.events] == [
        event["cause_id"] for event in listed["events"]
    ]
    assert page.next == listed["next"] == printed["next"]
    assert stats.total == total == counted["total"] == printed_stats["total"]
    for grouping in ("by_event_type", "by_aggregate_type", "by_cause", "by_age"):
        groups = [asdict(group) for group in getattr(stats, grouping)]
        assert counted[grouping] == printed_stats[grouping] == groups


def test_every_face_has_every_filter_under_the_same_name() -> None:
    """The command line, HTTP queries and bodies, the Launchpad, and the SQL function."""
    filters = {item.name for item in FILTERS}
    assert filters | {"event_ids", "all"} == {item.name for item in fields(Selection)}
    assert set(SelectionQuery.model_fields) == filters | {"event_ids"}
    assert set(SelectionBody.model_fields) >= filters | {"event_ids", "all"}
    for config in (FlagFixConfig, RetryEventsConfig):
        assert set(config.model_fields) >= filters | {"event_ids", "all"}, config
    commands = {command.name: command.callback for command in dead_events_app.registered_commands}
    for name in ("list", "stats", "retry-batch", "export", "discard"):
        assert filters | {"all"} <= set(getattr(commands[name], "__annotations__", {})), name
