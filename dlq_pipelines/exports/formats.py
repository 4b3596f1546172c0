"""What is in the columns of an export, and how do they become Parquet, CSV and JSON Lines?

A writer takes batches of `SCHEMA` and puts them into an open binary file. Nothing in a file depends on when or where
it was written, nor on how the rows came in batches: the same rows give the same bytes.
"""

import gzip
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dlq_pipelines.settings import ExportFormat

EXPORT_SCHEMA = pa.schema(
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
        pa.field("fingerprint", pa.string()),
        pa.field("cause_id", pa.string()),
        pa.field("exception_type", pa.string()),
        pa.field("template", pa.string()),
    ]
)
COLUMN_DESCRIPTIONS = {
    "death_id": "The death in the ledger; each row is one.",
    "event_id": "The event that died. It may have died before, and may die again.",
    "aggregate_type": "What kind of thing the event is about.",
    "aggregate_id": "Which of them.",
    "event_type": "What happened to it.",
    "payload": "The payload that the event died with, as JSON text.",
    "created_at": "When the application wrote the event.",
    "attempts": "How often the worker had tried.",
    "died_at": "When it died.",
    "error": "What the worker said of its last try.",
    "fingerprint": "The cause that the death was given.",
    "cause_id": "The cause that people merged it into, or the same.",
    "exception_type": "Of the cause: the class of its exception.",
    "template": "Of the cause: its message without values.",
}
ROW_GROUP_ROWS = 131_072
# A row group is held in memory until it is written: rows with long texts make smaller ones.
ROW_GROUP_BYTES = 64 * 2**20
# Level 3 takes a third longer to write than 1 is, 6 twice as long, for a fifth less.
_GZIP_LEVEL = 3
_COMPRESSED_SUFFIX = {
    ExportFormat.PARQUET: "parquet",
    ExportFormat.CSV: "csv.gz",
    ExportFormat.JSONL: "jsonl.gz",
}
# A dictionary of values that repeat; payloads and ids would only be tried in vain.
_REPEATING = [
    *(
        "aggregate_type",
        "event_type",
        "error",
        "fingerprint",
        "cause_id",
        "exception_type",
        "template",
    ),
]
# A cell that begins so is run by spreadsheets; an apostrophe in front makes it text. One that begins with an apostrophe
# gets another, so that taking one away always gives the text as it was.
_FORMULA = r"\A[=+\-@\t\r\n'＝＋－＠]"  # noqa: RUF001 - the wide ones, which are run too
_READ_SIZE = 2**20


class ExportWriter(Protocol):
    """Takes batches in their order until it is closed or abandoned; the file under it stays open."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch of `SCHEMA`."""

    def close(self, metadata: Mapping[str, str]) -> None:  # noqa: ARG002 - CSV has no place for it
        """End the file; the metadata goes into it where its format has a place for it."""

    def abandon(self) -> None:
        """Write no more: the file is thrown away."""


def get_suffix(format: ExportFormat) -> str:
    """How the name of a compressed file ends."""
    return _COMPRESSED_SUFFIX[format]


def create_writer(format: ExportFormat, file: BinaryIO) -> ExportWriter:
    """A writer of that format, uncompressed in CSV and JSON Lines."""
    return _WRITERS[format](file)


@contextmanager
def open_compressed(format: ExportFormat, file: BinaryIO) -> Iterator[BinaryIO]:
    """The file as `suffix` names it. Parquet compresses itself; gzip gets no time and no name, which would differ."""
    if format is ExportFormat.PARQUET:
        yield file
        return
    with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as zipped:
        yield cast("BinaryIO", zipped)


class _ParquetWriter:
    """Row groups of `ROW_GROUP_ROWS` or of about `ROW_GROUP_BYTES`, whichever is less."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(
            file, EXPORT_SCHEMA, compression="zstd", use_dictionary=_REPEATING
        )
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            head = batch.slice(0, ROW_GROUP_ROWS - self._rows)
            self._waiting.append(head)
            self._rows += head.num_rows
            self._bytes += head.nbytes
            if self._rows == ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
                self._flush()
            batch = batch.slice(head.num_rows)

    def close(self, metadata: Mapping[str, str]) -> None:
        if self._rows:
            self._flush()
        self._writer.add_key_value_metadata(dict(metadata))
        self._writer.close()

    def abandon(self) -> None:
        self._writer.is_open = (
            False  # or it would end the file, which is closed by then, when it is collected
        )

    def _flush(self) -> None:
        self._writer.write_table(
            pa.Table.from_batches(self._waiting, EXPORT_SCHEMA), row_group_size=ROW_GROUP_ROWS
        )
        self._waiting = []
        self._rows = self._bytes = 0


class _CsvWriter:
    """Comma, UTF-8, a header; texts in quotation marks, null is an empty cell without them."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pa_csv.CSVWriter(file, _SHOWN)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [_neutral(_shown(column, " ")) for column in batch.columns]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SHOWN))

    def close(self, metadata: Mapping[str, str]) -> None:
        self._writer.close()

    def abandon(self) -> None:
        """It holds nothing back."""


class _JsonLinesWriter:
    """An object a line. A payload is a text here too: what reads numbers as doubles keeps its digits."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, batch: pa.RecordBatch) -> None:
        parts: list[pa.Array | str] = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            parts += [f'{"," if parts else "{"}"{name}":', _json(_shown(column, "T"))]
        lines = pc.binary_join_element_wise(*parts, "}\n", "")
        self._file.write(_text_of(lines))

    def close(self, metadata: Mapping[str, str]) -> None:
        """A line is complete in itself."""

    def abandon(self) -> None:
        """It holds nothing back."""


_WRITERS: dict[ExportFormat, type[_ParquetWriter | _CsvWriter | _JsonLinesWriter]] = {
    ExportFormat.PARQUET: _ParquetWriter,
    ExportFormat.CSV: _CsvWriter,
    ExportFormat.JSONL: _JsonLinesWriter,
}
# Times as texts: Arrow prints those without zone thirty times faster.
_SHOWN = pa.schema(
    [
        field.with_type(pa.string()) if pa.types.is_timestamp(field.type) else field
        for field in EXPORT_SCHEMA
    ]
)


def _shown(column: pa.Array, separator: str) -> pa.Array:
    """Times in ISO 8601, in UTC, to the microsecond; other columns as they are."""
    if not pa.types.is_timestamp(column.type):
        return column
    text = column.cast(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(text, " ", separator), "Z", "")


def _neutral(column: pa.Array) -> pa.Array:
    """Put an apostrophe before texts that a spreadsheet would run."""
    if not pa.types.is_string(column.type):
        return column
    dangerous = pc.match_substring_regex(column, _FORMULA)
    if not pc.any(dangerous).as_py():
        return column
    return pc.if_else(dangerous, pc.binary_join_element_wise("'", column, ""), column)


def _json(column: pa.Array) -> pa.Array:
    """Each value as JSON."""
    if not pa.types.is_string(column.type):
        return pc.fill_null(column.cast(pa.string()), "null")
    return pc.fill_null(pc.binary_join_element_wise('"', _escaped(column), '"', ""), "null")


def _escaped(column: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring_regex(column, r'["\\\x00-\x1f]')).as_py():
        return column
    for character, escape in _ESCAPES.items():
        column = pc.replace_substring(column, character, escape)
    if pc.any(pc.match_substring_regex(column, r"[\x00-\x1f]")).as_py():
        for code in range(0x20):
            column = pc.replace_substring(column, chr(code), f"\\u{code:04x}")
    return column


# The backslash first: the others bring backslashes.
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _text_of(column: pa.Array) -> memoryview:
    """All texts of a column, one after the other, without copying them. The column has no null and no offset."""
    _, offsets, texts = column.buffers()
    begin, end = (memoryview(offsets).cast("i")[at] for at in (0, len(column)))
    return memoryview(texts)[begin:end]


def count_rows(format: ExportFormat, file: BinaryIO) -> int:
    """Read a file of an export again, from its first byte to its last.

    Raises:
        OSError, ValueError: it is not whole.
    """
    if format is ExportFormat.PARQUET:
        return sum(
            batch.num_rows for batch in pq.ParquetFile(file).iter_batches(ROW_GROUP_ROWS // 8)
        )
    with gzip.GzipFile(fileobj=file) as plain:
        if format is ExportFormat.JSONL:
            return sum(chunk.count(b"\n") for chunk in _chunks(plain))
        return _count_csv(plain)


def _count_csv(plain: io.BufferedIOBase) -> int:
    """Line ends outside of quotation marks, but the header's. A doubled mark inside leaves and enters at once."""
    rows, inside = -1, False
    for chunk in _chunks(plain):
        for number, part in enumerate(chunk.split(b'"')):
            inside ^= number > 0
            rows += 0 if inside else part.count(b"\n")
    return rows


def _chunks(plain: io.BufferedIOBase) -> Iterator[bytes]:
    while chunk := plain.read(_READ_SIZE):
        yield chunk
