"""Prints results: tables for people, JSON and CSV for programs, tab-separated lines in a pipe."""

import csv
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Annotated, Any

import typer

from dlq_pipelines.cli.options import build_option, with_options
from dlq_pipelines.text import RawJson, escape_spreadsheet_text, render_json, sanitize_line


class OutputFormat(StrEnum):
    """The format of a command's output."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


Limit = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of rows.")]
After = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Start after this cursor, which the previous page printed."),
]
# JSON has non-ASCII characters within strings only, where an escape means the same.
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
_FORMAT = Annotated[
    OutputFormat,
    typer.Option(help="table for people; json or csv for programs, with all fields."),
]
_JSON = Annotated[bool, typer.Option("--json", help="Same as --format json.")]
# Characters of a cell on a terminal.
_LONGEST_CELL = 500


def with_output_format(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --format and --json to a command, which receives one value as `format`."""
    options = [
        build_option("format", _FORMAT, OutputFormat.TABLE),
        build_option("json", _JSON, default=False),
    ]

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        chosen, json = given.pop("format"), given.pop("json")
        if json and chosen is OutputFormat.CSV:
            raise ValueError("--json cannot be combined with --format csv.")
        return {"format": OutputFormat.JSON if json else chosen}

    return with_options(command, {"format": options}, gather)


def list_columns(row_class: type, *added: str) -> tuple[str, ...]:
    """Return the keys of rows made from a dataclass, followed by the keys added to each row."""
    return (*(field.name for field in fields(row_class)), *added)


def print_json(value: object) -> None:
    """Print JSON in ASCII, so that a terminal executes no control sequence of a hostile text.

    The output is one object, as over HTTP: a plain array could not have `next`.
    """
    typer.echo(_NOT_ASCII.sub(_escape_character, render_json(value, indent=2)))


def print_list(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    format: OutputFormat,
    brief: Sequence[Mapping[str, Any]] | None = None,
    empty: str = "",
    header: Sequence[str] = (),
    optional: Sequence[str] = (),
    added: Mapping[str, Any] | None = None,
) -> None:
    """Print rows with equal keys. Values may be hostile: markup and control characters stay inert.

    A CSV cell that a spreadsheet would run as a formula gets a leading apostrophe.

    Args:
        name: the key of the list in JSON, the same as over HTTP.
        rows: all fields.
        format: the format of the output.
        brief: the rows of the table; None: `rows`.
        empty: printed instead of a table without rows.
        header: the keys, for CSV without rows.
        optional: columns of the table that a narrow terminal hides, in this order.
        added: further keys of the JSON object, such as `next`.
    """
    match format:
        case OutputFormat.JSON:
            print_json({name: rows, **(added or {})})
        case OutputFormat.CSV:
            _write_csv(rows, header)
        case OutputFormat.TABLE:
            print_table(rows if brief is None else brief, empty=empty, optional=optional)


def print_page(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    cursor: object | None,
    format: OutputFormat,
    brief: Sequence[Mapping[str, Any]],
    empty: str,
    header: Sequence[str],
    optional: Sequence[str],
) -> None:
    """Print one page of a list and the cursor of the next page: in JSON as `next`, else on stderr.

    Args:
        cursor: of the next page; None if this is the last page.
        name, rows, format, brief, empty, header, optional: see `print_list`.
    """
    print_list(
        name,
        rows,
        format=format,
        brief=brief,
        empty=empty,
        header=header,
        optional=optional,
        added={"next": cursor},
    )
    if cursor is not None and format is not OutputFormat.JSON:
        typer.echo(f"There may be more: --after {cursor}", err=True)


def print_record(row: Mapping[str, Any], *, format: OutputFormat) -> None:
    """Print one result for programs: an object in JSON, a row in CSV."""
    if format is OutputFormat.CSV:
        _write_csv([row], ())
    else:
        print_json(row)


def print_table(
    rows: Sequence[Mapping[str, Any]], *, empty: str = "", optional: Sequence[str] = ()
) -> None:
    """Print rows for people: columns on a terminal, tab-separated lines in a pipe.

    Args:
        rows: of equal keys.
        empty: printed if there are no rows.
        optional: columns that a narrow terminal hides, in this order. A terminal that is still too
            narrow gets one line per value.
    """
    if not rows:
        typer.echo(empty)
        return
    zone = _read_zone()
    columns = {name: [_format_cell(row[name], zone) for row in rows] for name in rows[0]}
    if not sys.stdout.isatty():
        for line in ([*columns], *zip(*columns.values(), strict=True)):
            typer.echo("\t".join(line))
        return
    from dlq_pipelines.cli.terminal import print_columns

    print_columns(columns, optional)


def _read_zone() -> tzinfo:
    from dlq_pipelines.settings import read_settings

    return read_settings().zone


def format_local_time(at: datetime, zone: tzinfo) -> str:
    """Return a time in the given zone, written so that filters accept it."""
    from dlq_pipelines.day import convert_to_zone, format_time

    return format_time(convert_to_zone(at, zone))


def _escape_character(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else r"\u007f"


def _write_csv(rows: Sequence[Mapping[str, Any]], header: Sequence[str]) -> None:
    """Write a header and one line per row. A value with parts is written as JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if names := rows[0] if rows else header:
        writer.writerow(names)
    for row in rows:
        writer.writerow(_format_csv_cell(value) for value in row.values())


def _format_csv_cell(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | dict | RawJson) or is_dataclass(value):
        return render_json(value)
    if isinstance(value, datetime):
        return render_json(value).strip('"')
    return escape_spreadsheet_text(str(value))


def summarize_failure(error: str | None) -> str:
    """Return exception and message of an error text, without its traceback."""
    from dlq_pipelines.causes.parse import parse_error

    failure = parse_error(error or "")
    return (
        ": ".join(part for part in (failure.exception_type, failure.message) if part)
        or "no error text"
    )


def _format_cell(value: object, zone: tzinfo) -> str:
    if isinstance(value, datetime):
        return format_local_time(value, zone)
    # Programs, and people who copy a command from a file, need the whole text.
    return sanitize_line(str(value), _LONGEST_CELL if sys.stdout.isatty() else sys.maxsize)
