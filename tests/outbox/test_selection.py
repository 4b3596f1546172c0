"""Tests that everything respects every filter, as CONTRIBUTING.md promises to a new one."""

import io
import json
from dataclasses import fields
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pyarrow.parquet as pq
import pytest

from dlq_pipelines import OutboxRepository
from dlq_pipelines.archive.archive import discard_events
from dlq_pipelines.audit import RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.exports.adhoc import export_selected
from dlq_pipelines.exports.formats import create_writer
from dlq_pipelines.exports.redact import parse_redaction
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.outbox.selection import FILTERS, Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix, preview_fix
from dlq_pipelines.retries.retry import retry_selected
from dlq_pipelines.settings import ExportFormat
from tests.api.conftest import api, serve  # noqa: F401 - fixtures
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.retries.helpers import POLICY, advance, build_audit
from tests.rows import date_deaths, one

UTC = ZoneInfo("UTC")
NOW = datetime(2026, 3, 5, tzinfo=UTC)
# A value of each filter, as the faces take it, and the events that it selects.
SAMPLES: dict[str, tuple[Any, set[int]]] = {
    "cause": (compute_cause_id("KeyError: 'sku'"), {1, 2}),
    "detail": ("sku", {1, 2}),
    "event_type": ("order.paid", {2, 4}),
    "aggregate_type": ("parcel", {3}),
    "aggregate_id": ("2", {2}),
    "error_contains": ("answer", {3, 4}),
    "where": ('$.acquirer == "northbank"', {2, 3}),
    "attempts": (7, {4}),
    "since": ("2026-03-03", {3, 4}),
    "until": ("2026-03-02T12:00", {1}),
}
ROWS = [  # event type, aggregate type, error, attempts; events die a day after each other
    ("order.placed", "order", "KeyError: 'sku'", 5),
    ("order.paid", "order", "KeyError: 'sku'", 5),
    ("order.placed", "parcel", "TimeoutError: no answer", 5),
    ("order.paid", "order", "TimeoutError: no answer", 7),
]
PAYLOADS = ["{}", '{"acquirer": "northbank"}', '[{"acquirer": "northbank"}]', '{"acquirer": 7}']
names = pytest.mark.parametrize("name", [item.name for item in FILTERS])


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Four dead events; each filter selects some of them."""
    for day, row in enumerate(ROWS, 1):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " last_error, attempts) values (%s, %s, %s, %s::jsonb, 'dead', %s, %s)",
            [row[1], str(day), row[0], PAYLOADS[day - 1], row[2], row[3]],
        )
    date_deaths(connection, "timestamptz '2026-02-28 13:00Z' + d.event_id * interval '1 day'")
    classify_deaths(connection, zone=UTC)


def _build_selection(name: str) -> Selection:
    return Selection.build({name: SAMPLES[name][0]}, UTC, now=NOW)


def test_every_filter_has_a_sample() -> None:
    """A new filter needs one, or the other tests say nothing about it."""
    assert set(SAMPLES) == {item.name for item in FILTERS}
    assert all(0 < len(expected) < len(ROWS) for _, expected in SAMPLES.values())


@names
def test_lists_counts_exports_and_changes_respect_the_filter(
    connection: Connection, database: Database, name: str
) -> None:
    selection, expected = _build_selection(name), SAMPLES[name][1]
    assert {event.id for event in list_dead_events(connection, selection).events} == expected
    with OutboxRepository(database.url) as repository:
        assert repository.count_dead_events(selection=selection) == len(expected)
        stats = repository.get_dead_event_stats(selection)
    assert stats.total == sum(count.events for count in stats.by_cause) == len(expected)

    file = io.BytesIO()
    rows = export_selected(
        connection,
        url=database.url,
        selection=selection,
        writer=create_writer(ExportFormat.PARQUET, file),
        redaction=parse_redaction("", "", None),
    )
    exported = pq.read_table(io.BytesIO(file.getvalue())).column("event_id").to_pylist()
    assert (rows, set(exported)) == (len(expected), expected)

    change: Any = {"audit": build_audit(), "options": RunOptions(dry_run=True)}
    retried = retry_selected(connection, selection, **change, rate=None, max_retries=3)
    discarded = discard_events(connection, selection, **change)
    assert retried.events == discarded.events == len(expected)


@names
def test_a_fix_respects_the_filter(connection: Connection, name: str) -> None:
    """It is stored, previewed, compared with other fixes, and releases exactly its events."""
    selection, expected = _build_selection(name), SAMPLES[name][1]
    flag = FixFlag(selection, POLICY)
    assert preview_fix(connection, flag, audit=build_audit(), default=POLICY).events == len(
        expected
    )
    fix = flag_fix(connection, flag, audit=build_audit())
    assert get_fix(connection, fix.id).selection == selection
    assert one(connection, "select events from dlq.audit")["events"] == len(expected)
    with pytest.raises(RefusedError, match=f"Fix {fix.id} is open"):
        flag_fix(connection, FixFlag(Selection(event_ids=(min(expected),))), audit=build_audit())
    others = Selection(event_ids=tuple({1, 2, 3, 4} - expected))
    assert flag_fix(connection, FixFlag(others), audit=build_audit()).id == fix.id + 1
    advance(connection, fix)
    assert one(connection, "select array_agg(event_id) as ids from dlq.retry where fix_id = 1") == {
        "ids": sorted(expected)
    }


@names
def test_a_fix_that_is_flagged_in_sql_respects_the_filter(
    connection: Connection, name: str
) -> None:
    value, expected = SAMPLES[name]
    connection.execute("set timezone to 'UTC'")
    placed = connection.execute(
        f"select dlq.flag_fix('fixed', \"{name}\" => %s) as id".encode(), [value]
    ).fetchone()
    assert placed is not None
    assert get_fix(connection, placed["id"]).selection == _build_selection(name)
    assert one(connection, "select events from dlq.audit")["events"] == len(expected)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot be combined"):
        connection.execute(
            f'select dlq.flag_fix(\'fixed\', "all" => true, "{name}" => %s)'.encode(), [value]
        )


@names
def test_the_command_line_and_http_respect_the_filter(
    dlq: Run,  # noqa: F811
    api: httpx.Client,  # noqa: F811
    name: str,
) -> None:
    value, expected = SAMPLES[name]
    option = f"--{name.replace('_', '-')}"
    printed = json.loads(dlq("dead-events", "list", option, str(value), "--json").out)
    listed = api.get("/api/dead-events", params={name: value}).json()
    would = api.post("/api/fixes", json={name: value, "note": "fixed"}).json()
    exported = api.get("/api/dead-events/export", params={name: value}).text.splitlines()
    assert {event["id"] for event in printed["events"]} == expected
    assert {event["id"] for event in listed["events"]} == expected
    assert would["preview"]["events"] == len(exported) == len(expected)
    flagged = dlq("fixes", "flag", option, str(value), "--note", "fixed", "--json")
    assert json.loads(flagged.out)["preview"]["events"] == len(expected)


def test_a_column_of_a_filter_is_counted_as_one(connection: Connection) -> None:
    """Otherwise a fix with this filter alone would be refused, or change a whole cause."""
    for item in fields(Selection):
        if item.name == "all":
            continue
        value = [1] if item.name == "event_ids" else SAMPLES[item.name][0]
        columns = Selection.build(
            {item.name: value}, UTC, value if item.name == "event_ids" else None, now=NOW
        ).to_columns()
        counted = connection.execute(
            "select dlq.count_filters(jsonb_populate_record(null::dlq.fix, %s::jsonb)) as filters",
            [json.dumps(columns)],
        ).fetchone()
        assert counted == {"filters": 1}, item.name
