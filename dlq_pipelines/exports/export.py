"""How do a day's deaths become Parquet and CSV files, whole or not at all?

One pass: PostgreSQL streams Arrow batches through ADBC, each batch goes to both writers, memory stays that of a batch.
Files are written beside their place and renamed into it when they are on disk. A day has one export at a time, and
its manifest row is committed after the renames: it never speaks of files that are not there yet.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
# A cell that begins so is run by spreadsheets; an apostrophe in front makes it text. One that begins with an apostrophe
# gets another, so that taking one away always gives the text as it was.
_FORMULA = r"\A[=+\-@\t\r\n'＝＋－＠]"  # noqa: RUF001 - the wide ones, which are run too
# Readers of a folder of Parquet files fail on any other file in it, and pass over folders that begin with `_`.
_PLACES = {"parquet": "died_on={}/part-00000.parquet", "csv": "_csv/died_on={}/part-00000.csv"}
_TEXT = frozenset(field.name for field in SCHEMA if pa.types.is_string(field.type))


_LOCK_TIMEOUT = "5s"


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export: name below the exports' folder, size, and SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Exported:
    """The export of a day: its Parquet folder, how many deaths, the span of their ledger ids, which files."""

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
    unclassified: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        ids = pc.min_max(batch.column("death_id")).as_py()
        self.rows += batch.num_rows
        self.unclassified += batch.column("cause_id").null_count
        self.first = ids["min"] if self.first is None else min(self.first, ids["min"])
        self.last = ids["max"] if self.last is None else max(self.last, ids["max"])


def export_day(connection: Connection, *, url: str, day: Day, folder: Path, now: datetime) -> Exported:
    """Write the day's deaths as Parquet to `folder/died_on=YYYY-MM-DD/` and as CSV to the same below `folder/_csv/`.

    A rerun replaces the day.

    Args:
        connection: in autocommit mode; reads the counts and writes the manifest row.
        url: the same database, for the stream.
        day: must be over.
        folder: created when absent.
        now: the moment of the export.

    Raises:
        RefusedError: the day is not over, some of its deaths have no cause yet, or another run is exporting it.
        DatabaseUnavailableError: the stream broke off.
    """
    with connection.transaction():
        if not connection.one("export.lock_day", day=day.date)["locked"]:
            raise RefusedError(f"Another run is exporting {day.date}. Export the day again when that has ended.")
        _require_ready(connection, day, now)
        with _staging(folder, day) as staging:
            span = _write(staging, _batches(connection, url, day))
            _require_classified(day, span.unclassified)  # of one that was committed since, too
            files = tuple(_measure(staging / kind, place.format(day.date)) for kind, place in _PLACES.items())
            exported = Exported(day.date, (folder / files[0].name).parent, span.rows, span.first, span.last, files)
            _record(connection, day, exported, now)
            for kind, file in zip(_PLACES, files, strict=True):
                _put(staging / kind, folder / file.name)
    return exported


def verify_day(connection: Connection, *, day: Day, folder: Path) -> list[str]:
    """Compare the files with the manifest and the manifest with the ledger; returns what differs, nothing if sound."""
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    if recorded is None:
        return [f"{day.date} was never exported"]
    counted = connection.one("export.count_day", start=day.start, until=day.until)["deaths"]
    wrong = [] if counted == recorded["rows"] else [f"manifest has {recorded['rows']} rows, the ledger {counted}"]
    for file in recorded["files"]:
        path = folder / file["name"]
        if not path.is_file():
            wrong.append(f"{file['name']} is missing")
        elif _measure(path, file["name"]).sha256 != file["sha256"]:
            wrong.append(f"{file['name']} differs from its sum in the manifest")
        elif path.suffix == ".parquet" and pq.read_metadata(path).num_rows != counted:
            wrong.append(f"{file['name']} has {pq.read_metadata(path).num_rows} rows, the ledger {counted}")
    return wrong


def _require_ready(connection: Connection, day: Day, now: datetime) -> None:
    if now < day.until:
        raise RefusedError(f"{day.date} is not over yet: it can be exported after {day.until:%Y-%m-%d %H:%M} UTC.")
    _require_classified(day, connection.one("export.count_day", start=day.start, until=day.until)["unclassified"])


def _require_classified(day: Day, waiting: int) -> None:
    if waiting:
        raise RefusedError(
            f"{waiting} deaths of {day.date} have no cause yet. Materialize dead_event_causes, then export the day."
        )


@contextmanager
def _staging(folder: Path, day: Day) -> Iterator[Path]:
    """A folder for unfinished files, on the file system of their place; what killed runs of the day left goes too."""
    prefix = f".died_on={day.date}-"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _batches(connection: Connection, url: str, day: Day) -> Iterator[pa.RecordBatch]:
    """Stream the day's rows as Arrow batches of the export's schema, however long that takes."""
    configure = connection.literal("session.configure", statement_timeout="0", lock_timeout=_LOCK_TIMEOUT)
    statement = connection.literal("export.day", start=day.start, until=day.until)
    try:
        with adbc.connect(url) as stream, stream.cursor() as cursor:
            cursor.execute(configure)
            cursor.fetchall()
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                if batch.num_rows:
                    yield batch.cast(SCHEMA)
    except (adbc.Error, OSError):  # an OSError where the connection breaks in the middle of the stream
        raise DatabaseUnavailableError(
            "The stream from PostgreSQL broke off: the server went away, or a table was locked. Export the day again."
        ) from None


def _write(staging: Path, batches: Iterator[pa.RecordBatch]) -> _Span:
    """Write each batch to a file a kind, without a suffix that a reader looks for."""
    span = _Span()
    with ExitStack() as stack:
        parquet = stack.enter_context(pq.ParquetWriter(staging / "parquet", SCHEMA, compression="zstd"))
        csv = stack.enter_context(pa_csv.CSVWriter(staging / "csv", SCHEMA))
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


def _measure(path: Path, name: str) -> ExportedFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return ExportedFile(name, path.stat().st_size, digest)


def _record(connection: Connection, day: Day, exported: Exported, now: datetime) -> None:
    connection.run(
        "export.record_day",
        day=exported.day,
        starts_at=day.start,
        ends_at=day.until,
        rows=exported.rows,
        first_id=exported.first_id,
        last_id=exported.last_id,
        files=json.dumps([asdict(file) for file in exported.files]),
        now=now,
    )


def _put(file: Path, place: Path) -> None:
    """Rename a finished file into its place: a reader sees the old file or the new one, never half of one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    file.replace(place)
    for folder in (place.parent, place.parent.parent):
        _sync(folder)


def _sync(folder: Path) -> None:
    """Make the folder's renames outlive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
