"""Exports of outboxes with other keys and payloads than the reference application's."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.exports.adhoc import export_selected
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.formats import EXPORT_SCHEMA, create_writer
from dlq_pipelines.exports.manifest import ExportOptions
from dlq_pipelines.exports.redact import Redaction, parse_redaction
from dlq_pipelines.exports.stream import read_export_schema
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import ExportFormat
from tests.other_outboxes import add_task, install_tasks

UTC_ZONE = ZoneInfo("UTC")
NOTHING_HIDDEN = Redaction()
FIRST, SECOND = "0b0e5b0c-6c6b-4b8c-9f6c-0123456789ab", "ffffffff-6c6b-4b8c-9f6c-0123456789ab"


def export_today(
    connection: Connection, database: Database, folder: Path, redaction: Redaction = NOTHING_HIDDEN
) -> dict[str, Any]:
    """Export the day of all deaths; return its manifest."""
    row = connection.fetch_one("session.clock")
    day = Day.of(row["now"].date(), UTC_ZONE)
    target, now = open_local_target(folder), row["now"] + timedelta(days=2)
    classify_deaths(connection, zone=UTC_ZONE)
    export_day(
        connection,
        url=database.url,
        day=day,
        target=target,
        now=now,
        options=ExportOptions(redaction=redaction),
    )
    assert verify_day(connection, day=day, target=target, now=now) == []
    (manifest,) = folder.rglob("_manifest.json")
    return dict(json.loads(manifest.read_text("utf-8")))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the Parquet file, after the other formats were found equal."""
    (file,) = folder.rglob("*.parquet")
    rows: list[dict[str, Any]] = pq.read_table(file, partitioning=None).to_pylist()
    (lines,) = folder.rglob("*.jsonl.gz")
    objects = [json.loads(line) for line in gzip.decompress(lines.read_bytes()).splitlines()]
    (cells,) = folder.rglob("*.csv.gz")
    text = gzip.decompress(cells.read_bytes()).decode()
    for row, found, cell in zip(rows, objects, csv.DictReader(io.StringIO(text)), strict=True):
        assert found["event_id"] == row["event_id"]
        assert cell["event_id"] == str(row["event_id"])
        assert found["payload"] == row["payload"]
        assert (found["created_at"] is None) == (row["created_at"] is None)
        assert (cell["created_at"] == "") == (row["created_at"] is None)
    assert [str(found) for found in pd.read_parquet(file)["event_id"]] == [
        str(row["event_id"]) for row in rows
    ]
    return rows


@pytest.mark.parametrize(
    ("id_type", "ids", "written_as"),
    [
        ("uuid", [FIRST, SECOND], pa.string()),
        ("text", ["a/1", "007"], pa.string()),
        ("varchar(40)", ["x", "12"], pa.string()),
        ("integer", [7, 2**31 - 1], pa.int64()),
        ("bigint", [-1, 2**63 - 1], pa.int64()),
    ],
)
def test_the_column_of_ids_follows_the_key(
    empty_database: Database,
    tmp_path: Path,
    id_type: str,
    ids: list[str | int],
    written_as: pa.DataType,
) -> None:
    with install_tasks(empty_database, id_type=id_type) as (database, connection):
        for event_id in ids:
            add_task(connection, str(event_id), "{}")
        manifest = export_today(connection, database, tmp_path)
        schema = read_export_schema(connection)
    (file,) = tmp_path.rglob("*.parquet")
    assert pq.read_schema(file).equals(schema)
    assert schema.field("event_id").type == written_as
    assert schema.remove(1).equals(EXPORT_SCHEMA.remove(1))
    assert [row["event_id"] for row in read_rows(tmp_path)] == ids
    assert manifest["schema"][1]["type"] == str(written_as)
    assert manifest["unrepresentable_times"] == {}


def test_a_day_without_deaths_has_the_same_columns(
    empty_database: Database, tmp_path: Path
) -> None:
    with install_tasks(empty_database) as (database, connection):
        export_today(connection, database, tmp_path)
    (file,) = tmp_path.rglob("*.parquet")
    assert pq.read_schema(file).field("event_id").type == pa.string()


def test_times_that_no_reader_holds_are_null_and_counted(
    empty_database: Database, tmp_path: Path
) -> None:
    """Never another date. The first and the last day that readers hold are kept."""
    times = {
        "a": ("'infinity'", None),
        "b": ("'-infinity'", None),
        "c": ("'0044-03-15 BC'", None),
        "d": ("'10000-01-01Z'", None),
        "e": ("null", None),
        "f": ("'0001-01-01Z'", datetime(1, 1, 1, tzinfo=UTC)),
        "g": ("'9999-12-31 23:59:59.999999Z'", datetime.max.replace(tzinfo=UTC)),
    }
    with install_tasks(empty_database, id_type="text") as (database, connection):
        for event_id, (written, _) in times.items():
            add_task(connection, event_id, "{}", written=written)
        manifest = export_today(connection, database, tmp_path)
    found = {row["event_id"]: row["created_at"] for row in read_rows(tmp_path)}
    assert found == {event_id: expected for event_id, (_, expected) in times.items()}
    assert (manifest["rows"], manifest["unrepresentable_times"]) == (7, {"created_at": 4})
    (file,) = tmp_path.rglob("*.parquet")
    assert json.loads(pq.read_metadata(file).metadata[b"dlq.unrepresentable_times"]) == {
        "created_at": 4
    }


@pytest.mark.parametrize(
    ("payload_type", "payload"),
    [
        ("jsonb", '{"big": 12345678901234567890.12345678901234567890}'),
        ("json", '{"a" : 1,\n "a": 1.0e2 }'),
        ("text", 'not JSON, line\n2 \\ " 日本\t'),
        ("text", ""),
        ("varchar(100)", "=1+1"),
        ("bytea", "\\x00ff10deadbeef"),
    ],
)
def test_payloads_are_text_without_loss(
    empty_database: Database, tmp_path: Path, payload_type: str, payload: str
) -> None:
    with install_tasks(empty_database, payload_type=payload_type) as (database, connection):
        add_task(connection, FIRST, payload, kind=None)
        export_today(connection, database, tmp_path)
    (row,) = read_rows(tmp_path)
    assert row["payload"] == payload
    assert (row["aggregate_type"], row["aggregate_id"], row["event_type"]) == ("", "", "")


def test_a_payload_that_is_not_json_is_masked_by_any_rule(
    empty_database: Database, tmp_path: Path
) -> None:
    redaction = parse_redaction("drop $..email", "", None)
    with install_tasks(empty_database, id_type="text") as (database, connection):
        for event_id, payload in {
            "a": "mail ann@example.org",
            "b": "\\x00ff",
            "c": '{"email": "ann@example.org", "n": 1}',
            "d": '{"email": ',
        }.items():
            add_task(connection, event_id, payload)
        export_today(connection, database, tmp_path, redaction)
    payloads = [row["payload"] for row in read_rows(tmp_path)]
    assert payloads == ['"***"', '"***"', '{"n": 1}', '"***"']


def test_a_day_is_not_exported_again_once_an_event_is_deleted(
    empty_database: Database, tmp_path: Path
) -> None:
    with install_tasks(empty_database) as (database, connection):
        add_task(connection, FIRST, "{}", written="null")
        export_today(connection, database, tmp_path)
        export_today(connection, database, tmp_path)
        connection.execute("delete from task")
        with pytest.raises(RefusedError, match="some of its events were deleted since"):
            export_today(connection, database, tmp_path)


def test_selected_ids_are_exported(empty_database: Database) -> None:
    file = io.BytesIO()
    with install_tasks(empty_database) as (database, connection):
        for event_id in (FIRST, SECOND):
            add_task(connection, event_id, "{}")
        rows = export_selected(
            connection,
            url=database.url,
            selection=Selection(event_ids=(SECOND,)),
            writer=create_writer(ExportFormat.JSONL, file, read_export_schema(connection)),
            redaction=NOTHING_HIDDEN,
        )
    assert (rows, json.loads(file.getvalue())["event_id"]) == (1, SECOND)
