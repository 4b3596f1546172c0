"""How do a day's deaths become Parquet and CSV files, whole or not at all?

One pass: PostgreSQL streams Arrow batches through ADBC, each batch goes to both writers, memory stays that of a batch.
Files are written beside their place and renamed into it when they are on disk; the manifest row comes last.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dlq_pipelines.day import Day
from dlq_pipelines.errors import DatabaseUnavailableError, RefusedError
from dlq_pipelines.postgres.connect import Connection

SCHEMA = pa.schema(
    [
        pa.field("death_id", pa.int64(), nullable=False),
        pa.field("event_id", pa.int64(), nullable=False),
        pa.field("aggregate_type", pa.string(), nullable=False),
        pa.field("aggregate_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("payload", pa.string()),
        pa.field("created_at", pa.timestamp("us", "UTC")),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("died_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("error", pa.string()),
        pa.field("cause_id", pa.string()),
        pa.field("exception_type", pa.string()),
        pa.field("template", pa.string()),
    ]
)
# A cell that begins so is run by spreadsheets; an apostrophe in front makes it text.
_FORMULA = r"\A[=+\-@\t\r]"
_TEXT = frozenset(field.name for field in SCHEMA if pa.types.is_string(field.type))


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export: name in its folder, size, and SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Exported:
    """The export of a day: where, how many deaths, the span of their ledger ids, which files."""

    day: date
    folder: Path
    rows: int
    first_id: int | None
    last_id: int | None
    files: tuple[ExportedFile, ...]


@dataclass
class _Span:
    """What the passing batches add up to."""

    rows: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        ids = pc.min_max(batch.column("death_id")).as_py()
        self.rows += batch.num_rows
        self.first = ids["min"] if self.first is None else min(self.first, ids["min"])
        self.last = ids["max"] if self.last is None else max(self.last, ids["max"])


def export_day(connection: Connection, *, url: str, day: Day, folder: Path, now: datetime) -> Exported:
    """Write the day's deaths to `folder/died_on=YYYY-MM-DD/` as Parquet and CSV; a rerun replaces the day.

    Args:
        connection: in autocommit mode; reads the counts and writes the manifest row.
        url: the same database, for the stream.
        day: must be over.
        folder: created when absent.
        now: the moment of the export.

    Raises:
        RefusedError: the day is not over, or some of its deaths have no cause yet.
    """
    _require_ready(connection, day, now)
    target = folder / f"died_on={day.date.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the rename at the end stays on one file system.
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder))
    try:
        span = _write(staging, _batches(url, connection.literal("export.day", start=day.start, until=day.until)))
        files = tuple(_measure(path) for path in sorted(staging.iterdir()))
        _replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    exported = Exported(day.date, target, span.rows, span.first, span.last, files)
    connection.run(
        "export.record_day",
        day=day.date,
        rows=span.rows,
        first_id=span.first,
        last_id=span.last,
        files=json.dumps([asdict(file) for file in files]),
        now=now,
    )
    return exported


def verify_day(connection: Connection, *, day: Day, folder: Path) -> list[str]:
    """Compare the files with the manifest and the manifest with the ledger; returns what differs, nothing if sound."""
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    if recorded is None:
        return [f"{day.date} was never exported"]
    counted = connection.one("export.count_day", start=day.start, until=day.until)["deaths"]
    wrong = [] if counted == recorded["rows"] else [f"manifest has {recorded['rows']} rows, the ledger {counted}"]
    for file in recorded["files"]:
        path = folder / f"died_on={day.date.isoformat()}" / file["name"]
        if not path.is_file():
            wrong.append(f"{file['name']} is missing")
        elif _measure(path).sha256 != file["sha256"]:
            wrong.append(f"{file['name']} differs from its sum in the manifest")
        elif path.suffix == ".parquet" and pq.read_metadata(path).num_rows != counted:
            wrong.append(f"{file['name']} has {pq.read_metadata(path).num_rows} rows, the ledger {counted}")
    return wrong


def _require_ready(connection: Connection, day: Day, now: datetime) -> None:
    if now < day.until:
        raise RefusedError(f"{day.date} is not over yet: it can be exported after {day.until:%Y-%m-%d %H:%M} UTC.")
    waiting = connection.one("export.count_day", start=day.start, until=day.until)["unclassified"]
    if waiting:
        raise RefusedError(
            f"{waiting} deaths of {day.date} have no cause yet. Materialize dead_event_causes, then export the day."
        )


def _batches(url: str, statement: str) -> Iterator[pa.RecordBatch]:
    """Stream a statement's rows as Arrow batches of the export's schema."""
    try:
        with adbc.connect(url) as stream, stream.cursor() as cursor:
            cursor.execute("set timezone to 'UTC'")
            cursor.execute(statement)
            reader = cursor.fetch_record_batch()
            for batch in reader:
                if batch.num_rows:
                    yield batch.cast(SCHEMA)
    except adbc.OperationalError:
        raise DatabaseUnavailableError("PostgreSQL went away during the export. Run it again.") from None


def _write(folder: Path, batches: Iterator[pa.RecordBatch]) -> _Span:
    span = _Span()
    with ExitStack() as stack:
        parquet = stack.enter_context(pq.ParquetWriter(folder / "part-00000.parquet", SCHEMA, compression="zstd"))
        csv = stack.enter_context(pa_csv.CSVWriter(folder / "part-00000.csv", SCHEMA))
        for batch in batches:
            span.add(batch)
            parquet.write_batch(batch)
            csv.write_batch(_neutral(batch))
    return span


def _neutral(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Put an apostrophe before cells that a spreadsheet would run."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in _TEXT:
            quoted = pc.binary_join_element_wise("'", column, "")
            column = pc.if_else(pc.match_substring_regex(column, _FORMULA), quoted, column)  # noqa: PLW2901
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _measure(path: Path) -> ExportedFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return ExportedFile(path.name, path.stat().st_size, digest)


def _replace(staging: Path, target: Path) -> None:
    """Put each finished file in its place by rename: a reader sees the old file or the new one, never half of one."""
    target.mkdir(exist_ok=True)
    for path in sorted(staging.iterdir()):
        path.replace(target / path.name)
