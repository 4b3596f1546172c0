"""`dlq dead-events export`: write selected deaths to one file."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from dlq_pipelines.cli.filters import EventIds, GivenFilters, build_selection, with_filters
from dlq_pipelines.cli.output import print_json
from dlq_pipelines.cli.progress import show_progress
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.text import format_count, sanitize_line
from dlq_pipelines.validate import BIGINT_MAX

_STDOUT = "-"


class DownloadFormat(StrEnum):
    """The format of the file; json and jsonl (the name over HTTP) write one object per line."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


OutputFile = Annotated[
    str, typer.Option(metavar="FILE", help="The file to write; - is the standard output.")
]
FileFormat = Annotated[
    DownloadFormat, typer.Option(help="json and jsonl write one object per line.")
]
DescribeFile = Annotated[
    bool, typer.Option("--json", help="Print the file's rows, bytes and SHA-256 as JSON.")
]
# No offset: a stream that skips deaths reads them all the same. `--since` continues an export.
MaxDeaths = Annotated[
    int | None,
    typer.Option(min=1, max=BIGINT_MAX, help="Maximum number of deaths. Default: all."),
]


@partial(with_filters, everything="All deaths")
def export_deaths_command(
    filters: GivenFilters,
    output: OutputFile,
    format: FileFormat = DownloadFormat.JSON,
    ids: EventIds = None,
    json: DescribeFile = False,
    limit: MaxDeaths = None,
) -> None:
    """Write deaths to one file, the earliest first.

    The columns are those of the daily export. DLQ_EXPORT_REDACT_PAYLOAD and
    DLQ_EXPORT_REDACT_ERRORS apply.

    Example: `dlq dead-events export --format csv --output deaths.csv --since 2026-11-24`
    """
    from dlq_pipelines.exports.adhoc import export_selected
    from dlq_pipelines.exports.formats import create_writer
    from dlq_pipelines.exports.stream import read_export_schema
    from dlq_pipelines.installation import build_export_options, find_database
    from dlq_pipelines.settings import ExportFormat

    if json and (output == _STDOUT or _is_stream(output)):
        raise ValueError("--json describes a file, not a stream. Pass --output FILE.")
    with (
        open_session() as (connection, settings),
        _open_output(output, format) as file,
        show_progress("Reading", "death") as report,
    ):
        selection = build_selection(connection, filters, settings, ids, default_all=True)
        file_format = ExportFormat("jsonl" if format is DownloadFormat.JSON else format)
        rows = export_selected(
            connection,
            url=find_database(settings).url,
            selection=selection,
            writer=create_writer(file_format, file, read_export_schema(connection)),
            redaction=build_export_options(settings).redaction,
            progress=report,
            limit=limit,
        )
        if not rows and selection.names_only:
            raise NotFoundError(
                "None of these events ever died.", "List dead events: `dlq dead-events list`."
            )
    _print_file_description(output, rows, json=json)


def _print_file_description(file: str, rows: int, *, json: bool) -> None:
    from dlq_pipelines.exports.target import measure_file

    if json:
        written = measure_file(Path(file), file)
        print_json({"file": file, "rows": rows, "bytes": written.bytes, "sha256": written.sha256})
        return
    place = "the standard output" if file == _STDOUT else sanitize_line(file, 500)
    typer.echo(f"{format_count(rows, 'death')} to {place}", err=True)


@contextmanager
def _open_output(output: str, format: DownloadFormat) -> Iterator[BinaryIO]:
    """Yield the file to write. It gets its name once complete; an error leaves the old file.

    A fifo and a character device, such as /dev/null, are written to and never replaced.
    """
    if output == _STDOUT:
        if format is DownloadFormat.PARQUET and sys.stdout.isatty():
            raise ValueError(
                "Refusing to write Parquet to a terminal: pass --output FILE or use a pipe."
            )
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if not output.strip():
        raise ValueError("The name of the output is empty: pass --output FILE, or - for a pipe.")
    if _is_stream(output):
        try:
            with Path(output).open("wb") as stream:
                yield stream
        except OSError as error:  # a full device names no file
            raise OSError(error.errno, error.strerror, error.filename or output) from None
        return
    place = Path(output).resolve()  # a symbolic link stays, and its target gets the new file
    unfinished = place.with_name(f".{place.name}-{os.getpid()}")
    try:
        with unfinished.open("xb") as file:
            _copy_rights(place, file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(place)
    except OSError as error:
        if error.filename not in {str(unfinished), None}:
            raise
        raise OSError(error.errno, error.strerror, output) from None  # the name that the user gave
    finally:
        with suppress(OSError):  # it was renamed or never created
            unfinished.unlink()


def _copy_rights(place: Path, file: BinaryIO) -> None:
    """Give the new file the owner and the mode of the one that it replaces: it has payloads."""
    try:
        old = place.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):  # only root gives a file away
        os.fchown(file.fileno(), old.st_uid, old.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))


def _is_stream(output: str) -> bool:
    """Whether a file is a fifo or a character device, also behind a symbolic link.

    Raises:
        ValueError: it is neither that nor a file that can be replaced.
    """
    try:
        mode = Path(output).stat().st_mode
    except OSError:
        return False  # new, or unreadable: the system says so when the file is opened
    if stat.S_ISREG(mode):
        return False
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return True
    kind = "a folder" if stat.S_ISDIR(mode) else "a socket or a block device"
    raise ValueError(f"{sanitize_line(output, 500)} is {kind}: pass --output FILE.")
