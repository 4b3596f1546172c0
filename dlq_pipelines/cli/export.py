"""`dlq dead-events export`: how does a person get some deaths into one file?"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.console import Console

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from datetime import datetime, tzinfo

_STDOUT = "-"


class Format(StrEnum):
    """How the file is written; json is an object a line."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def export(
    output: Annotated[str, typer.Option(metavar="FILE", help="Where to; - is the standard output.")],
    format: Annotated[Format, typer.Option(help="json is an object a line.")] = Format.JSON,
    ids: Annotated[list[int] | None, typer.Argument(help="Ids of events.", metavar="[ID]...", min=1)] = None,
    cause: Annotated[str | None, typer.Option(help="Of this cause, as `dlq causes list` lists it.")] = None,
    event_type: Annotated[str | None, typer.Option(help="Of this event type.")] = None,
    aggregate_type: Annotated[str | None, typer.Option(help="Of this type of aggregate.")] = None,
    error_contains: Annotated[str | None, typer.Option(help="With this text in the error, letter by letter.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Dead since 2026-11-24 or 2026-11-24T18:30, in DLQ_TIMEZONE.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Dead before that time.")] = None,
) -> None:
    """Write deaths to a file with the columns of the daily export: all, or those of a filter. What
    `DLQ_EXPORT_REDACT_PAYLOAD` and `DLQ_EXPORT_REDACT_ERRORS` hide is hidden here too.

    Example: `dlq dead-events export --format csv --output deaths.csv --since 2026-11-24 --event-type order.placed`
    """
    from dlq_pipelines.exports.adhoc import export_selected
    from dlq_pipelines.exports.stream import Selection
    from dlq_pipelines.installation import export_options, find_database, open_connection
    from dlq_pipelines.settings import ExportFormat, read_settings

    settings = read_settings()
    options = export_options(settings)
    selection = Selection(
        cause_id=cause,
        event_type=event_type,
        aggregate_type=aggregate_type,
        event_ids=ids or None,
        error_contains=error_contains,
        died_since=_moment("--since", since, settings.zone),
        died_until=_moment("--until", until, settings.zone),
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with open_connection(settings) as connection, _whole(output, format) as file, console.status("Reading") as status:
        rows = export_selected(
            connection,
            url=find_database(settings).url,
            selection=selection,
            format=ExportFormat.JSONL if format is Format.JSON else ExportFormat(format),
            file=file,
            redaction=options.redaction,
            progress=lambda read: status.update(f"{read:,} deaths"),
        )
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


def _moment(option: str, text: str | None, zone: "tzinfo") -> "datetime | None":
    from datetime import datetime

    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} is a day or a time such as 2026-11-24 or 2026-11-24T18:30, not {text!r}") from None
    return read if read.tzinfo else read.replace(tzinfo=zone)
