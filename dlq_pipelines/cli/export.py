"""`dlq dead-events export`: how does a person get some deaths into one file?"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from dlq_pipelines.cli.filters import EventIds, GivenFilters, with_filters
from dlq_pipelines.cli.output import print_json
from dlq_pipelines.cli.progress import show_progress
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.text import format_count, sanitize_line
from dlq_pipelines.validate import BIGINT_MAX

_STDOUT = "-"


class DownloadFormat(StrEnum):
    """How the file is written; json is an object a line, and so is jsonl, as it is called over HTTP."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@with_filters
def export(
    filters: GivenFilters,
    output: Annotated[
        str, typer.Option(metavar="FILE", help="Where to; - is the standard output.")
    ],
    format: Annotated[
        DownloadFormat, typer.Option(help="json is an object a line, jsonl the same.")
    ] = DownloadFormat.JSON,
    ids: EventIds = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the file's rows, bytes and SHA-256 as JSON.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=BIGINT_MAX,
            help="Only the first so many, those that died first. Default: all.",
        ),
    ] = None,
) -> None:
    """Write deaths to a file with the columns of the daily export: all, or those of a filter, in the order of death.
    What `DLQ_EXPORT_REDACT_PAYLOAD` and `DLQ_EXPORT_REDACT_ERRORS` hide is hidden here too.

    Example: `dlq dead-events export --format csv --output deaths.csv --since 2026-11-24 --event-type order.placed`
    """
    from dlq_pipelines.exports.adhoc import export_selected
    from dlq_pipelines.exports.target import measure_file
    from dlq_pipelines.installation import build_export_options, find_database
    from dlq_pipelines.settings import ExportFormat

    if json and output == _STDOUT:
        raise ValueError("--json says what became of a file: name one with --output.")
    with (
        open_session() as (connection, settings),
        _whole(output, format) as file,
        show_progress("Reading", "death") as told,
    ):
        selection = Selection.build(filters, settings.zone, ids, default_all=True)
        rows = export_selected(
            connection,
            url=find_database(settings).url,
            selection=selection,
            format=ExportFormat.JSONL
            if format in (DownloadFormat.JSON, DownloadFormat.JSONL)
            else ExportFormat(format),
            file=file,
            redaction=build_export_options(settings).redaction,
            progress=told,
            limit=limit,
        )
        if not rows and selection.names_only:
            raise NotFoundError(
                "None of these events ever died. `dlq dead-events list` says what is dead."
            )
    if json:
        written = measure_file(Path(output), output)
        print_json({"file": output, "rows": rows, "bytes": written.bytes, "sha256": written.sha256})
        return
    where = "the standard output" if output == _STDOUT else sanitize_line(output, 500)
    typer.echo(f"{format_count(rows, 'death')} to {where}", err=True)


@contextmanager
def _whole(output: str, format: DownloadFormat) -> Iterator[BinaryIO]:
    """The file to write to: it appears under its name when it is whole, and stays as it was when it is not to be."""
    if output == _STDOUT:
        if format is DownloadFormat.PARQUET and sys.stdout.isatty():
            raise ValueError(
                "Parquet is nothing for a terminal: name a file with --output, or pipe it on."
            )
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    place = Path(output)
    unfinished = place.with_name(f".{place.name}-{os.getpid()}")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(place)
    except OSError as error:
        if error.filename != str(unfinished):
            raise
        raise OSError(
            error.errno, error.strerror, output
        ) from None  # the name that the reader knows
    finally:
        with suppress(OSError):  # it is not there where it was finished, or never begun
            unfinished.unlink()
