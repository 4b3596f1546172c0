"""Exports a day's deaths as Parquet, CSV and JSON Lines files, all of them or none.

PostgreSQL streams Arrow batches through ADBC. All writers write a batch while the next one is read,
so memory stays that of a few batches. Files are written in a staging folder and moved to their
places once they are on disk, the manifest last. A day has one export at a time. Before the first
file is replaced, the row of the day in `dlq.export_day` is committed as not verified: a day whose
export breaks off counts as missing. Only `verified_at` states that the files are there.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from psycopg.rows import DictRow

from dlq_pipelines.day import Day
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.exports.formats import (
    ExportWriter,
    count_rows,
    create_writer,
    get_suffix,
    open_compressed,
)
from dlq_pipelines.exports.manifest import (
    ExportedFile,
    ExportedRows,
    ExportOptions,
    build_file_metadata,
    build_manifest,
    compare_manifest,
)
from dlq_pipelines.exports.stream import StreamLosses, read_export_schema, stream_deaths
from dlq_pipelines.exports.target import (
    Target,
    compute_sha256,
    explain_storage_errors,
    measure_file,
)
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import ExportFormat

MANIFEST = "_manifest.json"
# Readers of a folder of Parquet files fail on other files, and skip names that begin with `_`.
_FORMAT_FOLDER = {
    ExportFormat.PARQUET: "",
    ExportFormat.CSV: "_csv/",
    ExportFormat.JSONL: "_jsonl/",
}
# Batches that may wait for a writer: as many as arrive while it compresses a row group.
_MAX_QUEUED_BATCHES = 4


@dataclass(frozen=True)
class ExportResult:
    """The export of a day: its folder, the number of deaths, the span of their ids, its files.

    Attributes:
        unrepresentable_times: by column, times that are null because no reader can hold them.
    """

    day: date
    folder: str
    rows: int
    first_id: int | None
    last_id: int | None
    files: tuple[ExportedFile, ...]
    unrepresentable_times: dict[str, int] = field(default_factory=dict)


@dataclass
class _Totals:
    """Totals of the batches so far."""

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


def export_day(
    connection: Connection,
    *,
    url: str,
    day: Day,
    target: Target,
    now: datetime,
    options: ExportOptions | None = None,
) -> ExportResult:
    """Write the day's deaths to `died_on=YYYY-MM-DD/` in the target.

    CSV files are below `_csv/`, JSON Lines files below `_jsonl/`. Repeatable: a second export
    replaces the day, and removes the files of formats that are no longer wanted.

    Args:
        connection: in autocommit mode; reads the counts and writes the row of the day.
        url: the same database, for the stream.
        day: must be over.
        target: where the files are written.
        now: the time of the export, which identifies it among the exports of a day.
        options: formats and redaction; None: all formats, nothing hidden.

    Raises:
        RefusedError: the day is not over, some of its deaths have no cause yet, another run is
            exporting it, or the existing files hold events that were deleted since.
        DatabaseUnavailableError: the stream broke off.
        DlqError: the target cannot be written to.
    """
    options = options or ExportOptions()
    with (
        explain_storage_errors(target, f"The export of {day.date} cannot be written to"),
        ExitStack() as end,
    ):
        with _lock_day(connection, day):
            _require_exportable(connection, day, now)
            staging = end.enter_context(target.unfinished(f".died_on={day.date}-"))
            rows, files = _stage_files(
                connection, staging, url=url, day=day, target=target, options=options
            )
            _record_export(connection, day, rows, files, now)
        with _lock_day(connection, day):
            _require_same_record(connection, day, files, now)
            _publish_files(target, staging, day, options)
    folder = target.place(_get_folder(day.date).rstrip("/"))
    return ExportResult(day.date, folder, **vars(rows), files=tuple(files))


def verify_day(connection: Connection, *, day: Day, target: Target, now: datetime) -> list[str]:
    """Compare the day's files with manifest, record and ledger; record when they were sound.

    Deaths that the ledger purged since the export count: the files hold them.

    Args:
        connection: in autocommit mode.
        day: the day.
        target: where the day was exported to.
        now: the value of `verified_at` if nothing differs.

    Returns:
        The differences; empty if the export is sound.

    Raises:
        DlqError: the target does not answer.
    """
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    if recorded is None:
        return [f"{day.date} was never exported"]
    counted = (
        connection.fetch_one("export.count_day", start=day.start, until=day.until)["deaths"]
        + recorded["purged"]
    )
    differences = (
        []
        if counted == recorded["rows"]
        else [f"the record has {recorded['rows']} rows, the ledger {counted}"]
    )
    with explain_storage_errors(target, f"The export of {day.date} cannot be read from"):
        for entry in recorded["files"]:
            file = ExportedFile(entry["name"], entry["bytes"], entry["sha256"])
            differences += _compare_file(target, file, recorded, counted)
    connection.run(
        "export.record_verified",
        day=day.date,
        exported_at=recorded["exported_at"],
        verified_at=None if differences else now,
    )
    return differences


def write_batches(
    batches: Iterator[pa.RecordBatch],
    writers: Sequence[ExportWriter],
    observe: Callable[[pa.RecordBatch], None],
) -> None:
    """Give each batch to all writers, each in its own thread, while the next batches are read."""
    pending: deque[list[Future[None]]] = deque()
    with _use_system_memory_pool(), ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in writers]
        for batch in batches:
            observe(batch)
            if len(pending) == _MAX_QUEUED_BATCHES:
                _wait_for_writes(pending.popleft())
            pending.append(
                [
                    thread.submit(writer.write, batch)
                    for thread, writer in zip(threads, writers, strict=True)
                ]
            )
        while pending:
            _wait_for_writes(pending.popleft())


def _wait_for_writes(writes: list[Future[None]]) -> None:
    for write in writes:
        write.result()


@contextmanager
def _use_system_memory_pool() -> Iterator[None]:
    """Arrow's own allocator keeps freed memory: its peak is a hundred megabytes higher."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


@contextmanager
def _lock_day(connection: Connection, day: Day) -> Iterator[None]:
    """Open a transaction during which no other run exports the day."""
    with connection.transaction():
        if not connection.fetch_one("export.lock_day", day=day.date)["locked"]:
            raise _build_concurrent_export_error(day)
        yield


def _require_same_record(
    connection: Connection, day: Day, files: list[ExportedFile], now: datetime
) -> None:
    """Another run may have exported the day between the two transactions of an export."""
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    ours = (now, [asdict(file) for file in files])
    if recorded is None or (recorded["exported_at"], recorded["files"]) != ours:
        raise _build_concurrent_export_error(day)


def _build_concurrent_export_error(day: Day) -> RefusedError:
    return RefusedError(
        f"Another run is exporting {day.date}.", "Export the day again once that run has ended."
    )


def _require_exportable(connection: Connection, day: Day, now: datetime) -> None:
    if now < day.until:
        raise RefusedError(
            f"{day.date} is not over yet.", f"Export it after {day.until:%Y-%m-%d %H:%M} UTC."
        )
    counted = connection.fetch_one("export.count_day", start=day.start, until=day.until)
    _require_classified(day, counted["unclassified"])


def _require_classified(day: Day, unclassified: int) -> None:
    if unclassified:
        raise RefusedError(
            f"{unclassified} deaths of {day.date} have no cause yet.",
            "Materialize dead_event_causes or run `dlq causes classify`, then export the day.",
        )


def _require_no_loss(day: Day, rows: int, losses: StreamLosses, replaced: int | None) -> None:
    if replaced is not None and (losses.deleted or rows < replaced):
        raise RefusedError(
            f"{day.date} is exported, and some of its events were deleted since, here or by the "
            "application: another export would hold less.",
            "Keep the existing files; or, to export what is left, move them away "
            f"({', '.join(list_possible_files(day.date))}) and export the day again.",
        )


def _count_replaced_deaths(connection: Connection, target: Target, day: Day) -> int | None:
    """Count the deaths in the files that an export would replace; None: there are no files.

    The manifest may be missing if an export broke off. Each of the other files is complete.
    """
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    if recorded is None or not any(target.has(name) for name in list_possible_files(day.date)):
        return None
    start, until = recorded["starts_at"], recorded["ends_at"]
    if (start, until) != (day.start, day.until):
        # Files of another time zone. Nothing is lost if the ledger still has all of their deaths.
        kept = connection.fetch_one("export.count_day", start=start, until=until)["deaths"]
        if kept >= recorded["rows"]:
            return 0
    return int(recorded["rows"] + recorded["purged"])


def _get_folder(day: date) -> str:
    return f"died_on={day}/"


def list_possible_files(day: date) -> list[str]:
    """Return the names of the files that an export of a day can write, the manifest first."""
    return [
        _get_folder(day) + MANIFEST,
        *(_get_file_name(day, format) for format in ExportFormat),
    ]


def _get_file_name(day: date, format: ExportFormat) -> str:
    return f"{_FORMAT_FOLDER[format]}{_get_folder(day)}part-00000.{get_suffix(format)}"


def _stage_files(
    connection: Connection,
    staging: Path,
    *,
    url: str,
    day: Day,
    target: Target,
    options: ExportOptions,
) -> tuple[ExportedRows, list[ExportedFile]]:
    """Write the day's files to the staging folder, the manifest last."""
    replaced = _count_replaced_deaths(connection, target, day)
    selection = Selection(since=day.start, until=day.until)
    schema, losses = read_export_schema(connection), StreamLosses()
    deaths = stream_deaths(connection, url=url, selection=selection, losses=losses)
    with closing(deaths) as batches, _open_writers(staging, schema, options) as writers:
        totals = _write_files(writers, batches, options)
        # Includes deaths that were committed since the first check.
        _require_classified(day, totals.unclassified)
        _require_no_loss(day, totals.rows, losses, replaced)
        rows = ExportedRows(
            totals.rows, totals.first, totals.last, dict(losses.unrepresentable_times)
        )
        for writer in writers:
            writer.close(build_file_metadata(day, rows, options))
    files = [
        measure_file(staging / format, _get_file_name(day.date, format))
        for format in options.formats
    ]
    (staging / MANIFEST).write_bytes(build_manifest(day, rows, files, options, schema))
    return rows, [*files, measure_file(staging / MANIFEST, _get_folder(day.date) + MANIFEST)]


def _write_files(
    writers: Sequence[ExportWriter], batches: Iterator[pa.RecordBatch], options: ExportOptions
) -> _Totals:
    totals = _Totals()
    write_batches(map(options.redaction.redact_batch, batches), writers, totals.add)
    return totals


@contextmanager
def _open_writers(
    staging: Path, schema: pa.Schema, options: ExportOptions
) -> Iterator[list[ExportWriter]]:
    """Open a file for each format, without the suffix that readers look for.

    Polars reads every file of the folder as data, and DuckDB's `*/*.parquet` matches hidden
    folders.
    """
    with ExitStack() as stack:
        yield [
            stack.enter_context(_open_writer(staging / format, format, schema))
            for format in options.formats
        ]


@contextmanager
def _open_writer(path: Path, format: ExportFormat, schema: pa.Schema) -> Iterator[ExportWriter]:
    with path.open("wb") as file, open_compressed(format, file) as stream:
        writer = create_writer(format, stream, schema)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise


def _record_export(
    connection: Connection, day: Day, rows: ExportedRows, files: list[ExportedFile], now: datetime
) -> None:
    connection.run(
        "export.record_day",
        day=day.date,
        starts_at=day.start,
        ends_at=day.until,
        rows=rows.rows,
        first_id=rows.first_id,
        last_id=rows.last_id,
        files=json.dumps([asdict(file) for file in files]),
        now=now,
    )


def _publish_files(target: Target, staging: Path, day: Day, options: ExportOptions) -> None:
    """Move the files to their places. The manifest is absent while files of two exports mix."""
    target.remove(_get_folder(day.date) + MANIFEST)
    for format in ExportFormat:
        if format in options.formats:
            target.put(staging / format, _get_file_name(day.date, format))
        else:
            target.remove(_get_file_name(day.date, format))
    target.put(staging / MANIFEST, _get_folder(day.date) + MANIFEST)


def _compare_file(
    target: Target, file: ExportedFile, recorded: DictRow, counted: int
) -> Iterator[str]:
    if not target.has(file.name):
        yield f"{file.name} is missing"
        return
    with target.open(file.name) as stream:
        if compute_sha256(stream) != file.sha256:
            yield f"{file.name} differs from its checksum in the record"
            return
        stream.seek(0)
        if file.name.endswith(MANIFEST):
            files = [other for other in recorded["files"] if other["name"] != file.name]
            yield from compare_manifest(stream.read(), recorded["rows"], files)
            return
        rows = count_rows(_get_format(file.name), stream)
        if rows != counted:
            yield f"{file.name} has {rows} rows, the ledger {counted}"


def _get_format(name: str) -> ExportFormat:
    return next(format for format in ExportFormat if name.endswith(get_suffix(format)))
