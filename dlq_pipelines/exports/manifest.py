"""Builds the manifest of a day's export: its files, their contents and its settings.

`_manifest.json` is removed before the first file of a day is replaced and written after the last:
if it exists, the files are those that it names. It holds no time of writing, so an export that is
repeated has the same bytes.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dlq_pipelines.day import Day
from dlq_pipelines.exports.formats import ROW_GROUP_ROWS
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.settings import ExportFormat

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export: its name below `dead_events`, size, and SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ExportedRows:
    """The number of deaths in an export and the span of their ids; None without deaths.

    Attributes:
        unrepresentable_times: by column, times that are null because no reader can hold them.
    """

    rows: int
    first_id: int | None
    last_id: int | None
    unrepresentable_times: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        formats: the formats to write, at least one.
        redaction: what the files hide.
    """

    formats: tuple[ExportFormat, ...] = tuple(ExportFormat)
    redaction: Redaction = Redaction()  # noqa: RUF009 - frozen


def build_manifest(
    day: Day,
    rows: ExportedRows,
    files: Iterable[ExportedFile],
    options: ExportOptions,
    schema: pa.Schema,
) -> bytes:
    """Build the manifest of a day as indented JSON."""
    content = {
        "version": MANIFEST_VERSION,
        "day": day.date.isoformat(),
        "from": _format_utc(day.start),
        "until": _format_utc(day.until),
        **asdict(rows),
        "files": [asdict(file) for file in files],
        "schema": [
            {"name": column.name, "type": str(column.type), "nullable": bool(column.nullable)}
            for column in schema
        ],
        "settings": {
            "formats": list(options.formats),
            "row_group_rows": ROW_GROUP_ROWS,
            "redaction": options.redaction.describe(),
        },
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def build_file_metadata(day: Day, rows: ExportedRows, options: ExportOptions) -> dict[str, str]:
    """Build the key-value metadata of a Parquet file."""
    return {
        "dlq.version": str(MANIFEST_VERSION),
        "dlq.day": day.date.isoformat(),
        "dlq.from": _format_utc(day.start),
        "dlq.until": _format_utc(day.until),
        **{
            f"dlq.{name}": "" if value is None else json.dumps(value)
            for name, value in asdict(rows).items()
        },
        "dlq.redaction": json.dumps(options.redaction.describe(), ensure_ascii=False),
    }


def compare_manifest(text: bytes, rows: int, files: list[dict[str, Any]]) -> list[str]:
    """Return the differences between a manifest and the ledger's record of the export."""
    try:
        content = json.loads(text)
        manifest_rows, manifest_files = content["rows"], content["files"]
    except (ValueError, KeyError, TypeError):
        return ["_manifest.json is not a manifest"]
    differences = []
    if manifest_rows != rows:
        differences.append(f"_manifest.json has {manifest_rows} rows, the record {rows}")
    if manifest_files != files:
        differences.append("_manifest.json names other files than the record")
    return differences


def _format_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
