"""Which files belong to a day's export, what is in them, and how were they made?

`_manifest.json` is taken away before the first file of a day is replaced and written after the last one: where it
lies, the files are those that it names. It says nothing of when it was written, so a day that is exported again has
the same bytes.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from dlq_pipelines.day import Day
from dlq_pipelines.exports.formats import EXPORT_SCHEMA, ROW_GROUP_ROWS
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.settings import ExportFormat

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export: name below `dead_events`, size, and SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ExportedRows:
    """How many deaths an export holds and the span of their ledger ids, None without deaths."""

    rows: int
    first_id: int | None
    last_id: int | None


@dataclass(frozen=True)
class ExportOptions:
    """How exports are made.

    Attributes:
        formats: which files, at least one.
        redaction: what they hide.
    """

    formats: tuple[ExportFormat, ...] = tuple(ExportFormat)
    redaction: Redaction = Redaction()  # noqa: RUF009 - frozen


def build_manifest(
    day: Day, rows: ExportedRows, files: Iterable[ExportedFile], options: ExportOptions
) -> bytes:
    """The manifest of a day, as JSON for people and programs."""
    content = {
        "version": MANIFEST_VERSION,
        "day": day.date.isoformat(),
        "from": _instant(day.start),
        "until": _instant(day.until),
        **asdict(rows),
        "files": [asdict(file) for file in files],
        "schema": [
            {"name": field.name, "type": str(field.type), "nullable": bool(field.nullable)}
            for field in EXPORT_SCHEMA
        ],
        "settings": {
            "formats": list(options.formats),
            "row_group_rows": ROW_GROUP_ROWS,
            "redaction": options.redaction.describe(),
        },
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def build_file_metadata(day: Day, rows: ExportedRows, options: ExportOptions) -> dict[str, str]:
    """What a Parquet file says of itself in its key-value metadata."""
    return {
        "dlq.version": str(MANIFEST_VERSION),
        "dlq.day": day.date.isoformat(),
        "dlq.from": _instant(day.start),
        "dlq.until": _instant(day.until),
        **{
            f"dlq.{name}": "" if value is None else str(value)
            for name, value in asdict(rows).items()
        },
        "dlq.redaction": json.dumps(options.redaction.describe(), ensure_ascii=False),
    }


def compare_manifest(text: bytes, rows: int, files: list[dict[str, Any]]) -> list[str]:
    """Where a manifest that was read says something else than the ledger's record of the export."""
    try:
        content = json.loads(text)
        wrong = (
            []
            if content["rows"] == rows
            else [f"_manifest.json says {content['rows']} rows, the record {rows}"]
        )
        return (
            wrong
            if content["files"] == files
            else [*wrong, "_manifest.json names other files than the record"]
        )
    except (ValueError, KeyError, TypeError):
        return ["_manifest.json is no manifest"]


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
