"""How do a day's deaths become Parquet, CSV and JSON Lines files, whole or not at all?

One pass: PostgreSQL streams Arrow batches through ADBC, each batch goes to all writers at once while the next one is
read, memory stays that of a few batches. Files are written beside their place and brought into it when they are on
disk, the manifest last. A day has one export at a time. Before the first file is replaced, the day's row in
`dlq.export_day` is committed as not verified, so wherever an export breaks off the day counts as missing: only
`verified_at` says that the files are there.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
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
from dlq_pipelines.exports.stream import stream_deaths
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
# Readers of a folder of Parquet files fail on any other file in it, and pass over names that begin with `_`.
_ABOVE = {ExportFormat.PARQUET: "", ExportFormat.CSV: "_csv/", ExportFormat.JSONL: "_jsonl/"}
# Batches that may wait for a writer: what arrives while it compresses a row group.
_AHEAD = 4


@dataclass(frozen=True)
class ExportResult:
    """The export of a day: its folder as people write it, how many deaths, the span of their ids, which files."""

    day: date
    folder: str
    rows: int
    first_id: int | None
    last_id: int | None
    files: tuple[ExportedFile, ...]


@dataclass
class _Span:
    """What the passing batches add up to."""

    rows: int = 0
    unclassified: int = 0
    gone: int = 0  # deaths whose event is in neither table, so without its payload
    first: int | None = None
    last: int | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        ids = pc.min_max(batch.column("death_id")).as_py()
        self.rows += batch.num_rows
        self.unclassified += batch.column("cause_id").null_count
        self.gone += batch.column("created_at").null_count
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
    """Write the day's deaths to `died_on=YYYY-MM-DD/` in the target; CSV below `_csv/`, JSON Lines below `_jsonl/`.

    A rerun replaces the day, files of a format that is no longer asked for included.

    Args:
        connection: in autocommit mode; reads the counts and writes the day's row.
        url: the same database, for the stream.
        day: must be over.
        target: where to.
        now: the moment of the export, by which exports of a day are told apart.
        options: how; None: all formats, nothing hidden.

    Raises:
        RefusedError: the day is not over, some of its deaths have no cause yet, another run is exporting it, or the
            files that there are hold events that were deleted since.
        DatabaseUnavailableError: the stream broke off.
        DlqError: the target cannot be written to.
    """
    options = options or ExportOptions()
    with (
        explain_storage_errors(target, f"The export of {day.date} cannot be written to"),
        ExitStack() as end,
    ):
        with _alone(connection, day):
            _require_ready(connection, day, now)
            staging = end.enter_context(target.unfinished(f".died_on={day.date}-"))
            rows, files = _stage(
                connection, staging, url=url, day=day, target=target, options=options
            )
            _record(connection, day, rows, files, now)
        with _alone(connection, day):
            _require_ours(connection, day, files, now)
            _put(target, staging, day, options)
    return ExportResult(
        day.date,
        target.place(_folder(day).rstrip("/")),
        rows.rows,
        rows.first_id,
        rows.last_id,
        tuple(files),
    )


def verify_day(connection: Connection, *, day: Day, target: Target, now: datetime) -> list[str]:
    """Read the day's files again and compare them with manifest, record and ledger; writes down when they were sound.

    Deaths that the ledger has forgotten since the export count: the files hold them.

    Args:
        connection: in autocommit mode.
        day: which day.
        target: where it was exported to.
        now: the moment that is written as `verified_at` where nothing differs.

    Returns:
        What differs, nothing if sound.

    Raises:
        DlqError: the target does not answer.
    """
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    if recorded is None:
        return [f"{day.date} was never exported"]
    counted = (
        connection.fetch_one("export.count_day", start=day.start, until=day.until)["deaths"]
        + recorded["forgotten"]
    )
    wrong = (
        []
        if counted == recorded["rows"]
        else [f"the record has {recorded['rows']} rows, the ledger {counted}"]
    )
    with explain_storage_errors(target, f"The export of {day.date} cannot be read in"):
        for file in recorded["files"]:
            wrong += _differences(target, ExportedFile(**file), recorded, counted)
    sound = None if wrong else now
    connection.run(
        "export.record_verified",
        day=day.date,
        exported_at=recorded["exported_at"],
        verified_at=sound,
    )
    return wrong


@contextmanager
def _alone(connection: Connection, day: Day) -> Iterator[None]:
    """A transaction during which no other run exports the day."""
    with connection.transaction():
        if not connection.fetch_one("export.lock_day", day=day.date)["locked"]:
            raise _taken(day)
        yield


def _require_ours(
    connection: Connection, day: Day, files: list[ExportedFile], now: datetime
) -> None:
    """Between the two transactions of an export another one may have had the day."""
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    ours = (now, [asdict(file) for file in files])
    if recorded is None or (recorded["exported_at"], recorded["files"]) != ours:
        raise _taken(day)


def _taken(day: Day) -> RefusedError:
    return RefusedError(
        f"Another run is exporting {day.date}. Export the day again when that has ended."
    )


def _folder(day: Day) -> str:
    return f"died_on={day.date}/"


def _name(day: Day, format: ExportFormat) -> str:
    return f"{_ABOVE[format]}{_folder(day)}part-00000.{get_suffix(format)}"


def _require_ready(connection: Connection, day: Day, now: datetime) -> None:
    if now < day.until:
        raise RefusedError(
            f"{day.date} is not over yet: it can be exported after {day.until:%Y-%m-%d %H:%M} UTC."
        )
    counted = connection.fetch_one("export.count_day", start=day.start, until=day.until)
    _require_classified(day, counted["unclassified"])


def _kept(connection: Connection, target: Target, day: Day) -> int | None:
    """How many deaths the files hold that another export would replace; None: not one of them lies there.

    The manifest may be gone, where an export broke off: each file is whole all the same.
    """
    recorded = connection.run("export.recorded_day", day=day.date).fetchone()
    if recorded is None or not any(target.has(name) for name in _places(day)):
        return None
    return int(recorded["rows"] + recorded["forgotten"])


def _places(day: Day) -> list[str]:
    """Every file that an export of the day may have."""
    return [_folder(day) + MANIFEST, *(_name(day, format) for format in ExportFormat)]


def _require_classified(day: Day, waiting: int) -> None:
    if waiting:
        raise RefusedError(
            f"{waiting} deaths of {day.date} have no cause yet. Materialize dead_event_causes, then export the day."
        )


def _require_no_loss(day: Day, span: _Span, kept: int | None) -> None:
    if kept is not None and (span.gone or span.rows < kept):
        raise RefusedError(
            f"{day.date} is exported, and some of its events were deleted since, here or by the application: another "
            f"export would hold less. Keep the files that there are; or move them away ({', '.join(_places(day))}) and "
            "export the day again, with what is left."
        )


def _stage(
    connection: Connection,
    staging: Path,
    *,
    url: str,
    day: Day,
    target: Target,
    options: ExportOptions,
) -> tuple[ExportedRows, list[ExportedFile]]:
    """Write the day's files into a folder of unfinished ones, the manifest last."""
    kept = _kept(connection, target, day)
    whole = Selection(since=day.start, until=day.until)
    with closing(stream_deaths(connection, url=url, selection=whole)) as batches:
        rows = _write(staging, batches, day, options, kept=kept)
    files = [_measured(staging, format, day) for format in options.formats]
    (staging / MANIFEST).write_bytes(build_manifest(day, rows, files, options))
    return rows, [*files, measure_file(staging / MANIFEST, _folder(day) + MANIFEST)]


def _write(
    staging: Path,
    batches: Iterator[pa.RecordBatch],
    day: Day,
    options: ExportOptions,
    *,
    kept: int | None,
) -> ExportedRows:
    """Write a file a format, without a suffix that a reader looks for."""
    span = _Span()
    with ExitStack() as stack:
        writers = [
            stack.enter_context(_open_writer(staging / format, format))
            for format in options.formats
        ]
        write_batches(map(options.redaction.batch, batches), writers, span.add)
        _require_classified(day, span.unclassified)  # of one that was committed since, too
        _require_no_loss(day, span, kept)
        rows = ExportedRows(span.rows, span.first, span.last)
        for one in writers:
            one.close(build_file_metadata(day, rows, options))
    return rows


@contextmanager
def _open_writer(path: Path, format: ExportFormat) -> Iterator[ExportWriter]:
    with path.open("wb") as file, open_compressed(format, file) as stream:
        one = create_writer(format, stream)
        try:
            yield one
        except BaseException:
            one.abandon()
            raise


def write_batches(
    batches: Iterator[pa.RecordBatch],
    writers: Sequence[ExportWriter],
    seen: Callable[[pa.RecordBatch], None],
) -> None:
    """Give each batch to all writers, each in a thread of its own, while the next batches are read."""
    pending: deque[list[Future[None]]] = deque()
    with _memory_given_back(), ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in writers]
        for batch in batches:
            seen(batch)
            if len(pending) == _AHEAD:
                _finish(pending.popleft())
            pending.append(
                [
                    thread.submit(one.write, batch)
                    for thread, one in zip(threads, writers, strict=True)
                ]
            )
        while pending:
            _finish(pending.popleft())


@contextmanager
def _memory_given_back() -> Iterator[None]:
    """Arrow's own allocator keeps what it once had, a hundred megabytes more at the peak; the system's does not."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _finish(pending: list[Future[None]]) -> None:
    for written in pending:
        written.result()


def _measured(staging: Path, format: ExportFormat, day: Day) -> ExportedFile:
    return measure_file(staging / format, _name(day, format))


def _record(
    connection: Connection, day: Day, rows: ExportedRows, files: list[ExportedFile], now: datetime
) -> None:
    listed = json.dumps([asdict(file) for file in files])
    span = {"starts_at": day.start, "ends_at": day.until}
    connection.run("export.record_day", day=day.date, **span, **asdict(rows), files=listed, now=now)


def _put(target: Target, staging: Path, day: Day, options: ExportOptions) -> None:
    """Bring the files to their places. No manifest lies there while files of two exports may."""
    target.remove(_folder(day) + MANIFEST)
    for format in ExportFormat:
        if format in options.formats:
            target.put(staging / format, _name(day, format))
        else:
            target.remove(_name(day, format))
    target.put(staging / MANIFEST, _folder(day) + MANIFEST)


def _differences(
    target: Target, file: ExportedFile, recorded: DictRow, counted: int
) -> Iterator[str]:
    if not target.has(file.name):
        yield f"{file.name} is missing"
        return
    with target.open(file.name) as stream:
        if compute_sha256(stream) != file.sha256:
            yield f"{file.name} differs from its sum in the record"
            return
        stream.seek(0)
        if file.name.endswith(MANIFEST):
            files = [other for other in recorded["files"] if other["name"] != file.name]
            yield from compare_manifest(stream.read(), recorded["rows"], files)
            return
        rows = count_rows(_format(file.name), stream)
        if rows != counted:
            yield f"{file.name} has {rows} rows, the ledger {counted}"


def _format(name: str) -> ExportFormat:
    return next(format for format in ExportFormat if name.endswith(get_suffix(format)))


def list_days_without_export(connection: Connection, days: Sequence[Day]) -> list[date]:
    """Return the days that need an export and have no verified one.

    A day needs an export if an event died on it, or if an earlier day was exported.
    """
    rows = connection.run(
        "export.missing_days",
        days=[day.date for day in days],
        starts=[day.start for day in days],
        ends=[day.until for day in days],
    )
    return [row["day"] for row in rows]
