"""`dlq dead-events export`: how does a person get some deaths into one file?"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from dlq_pipelines.cli.filters import EventIds, Filters, filtered
from dlq_pipelines.cli.output import say_json
from dlq_pipelines.cli.session import session

_STDOUT = "-"


class Format(StrEnum):
    """How the file is written; json is an object a line, and so is jsonl, as it is called over HTTP."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@filtered
def export(
    filters: Filters,
    output: Annotated[str, typer.Option(metavar="FILE", help="Where to; - is the standard output.")],
    format: Annotated[Format, typer.Option(help="json is an object a line, jsonl the same.")] = Format.JSON,
    ids: EventIds = None,
    json: Annotated[bool, typer.Option("--json", help="Print the file's rows, bytes and SHA-256 as JSON.")] = False,
) -> None:
    """Write deaths to a file with the columns of the daily export: all, or those of a filter. What
    `DLQ_EXPORT_REDACT_PAYLOAD` and `DLQ_EXPORT_REDACT_ERRORS` hide is hidden here too.

    Example: `dlq dead-events export --format csv --output deaths.csv --since 2026-11-24 --event-type order.placed`
    """
    from dlq_pipelines.exports.adhoc import export_selected
    from dlq_pipelines.exports.target import measure
    from dlq_pipelines.installation import export_options, find_database
    from dlq_pipelines.settings import ExportFormat

    if json and output == _STDOUT:
        raise ValueError("--json says what became of a file: name one with --output.")
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with session() as (connection, settings), _whole(output, format) as file, console.status("Reading") as status:
        rows = export_selected(
            connection,
            url=find_database(settings).url,
            selector=filters.selector(settings.zone, ids, else_every=True),
            format=ExportFormat.JSONL if format in (Format.JSON, Format.JSONL) else ExportFormat(format),
            file=file,
            redaction=export_options(settings).redaction,
            progress=lambda read: status.update(f"{read:,} deaths"),
        )
    if json:
        written = measure(Path(output), output)
        say_json({"file": output, "rows": rows, "bytes": written.bytes, "sha256": written.sha256})
        return
    console.print(f"{rows:,} deaths to {'the standard output' if output == _STDOUT else output}")


@contextmanager
def _whole(output: str, format: Format) -> Iterator[BinaryIO]:
    """The file to write to: it appears under its name when it is whole, and stays as it was when it is not to be."""
    if output == _STDOUT:
        if format is Format.PARQUET and sys.stdout.isatty():
            raise ValueError("Parquet is nothing for a terminal: name a file with --output, or pipe it on.")
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # as `| head` does; what Python still holds must not fail again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        return
    place = Path(output)
    unfinished = place.with_name(f".{place.name}-{os.getpid()}")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(place)
    finally:
        unfinished.unlink(missing_ok=True)
