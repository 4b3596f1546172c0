"""How does a command show rows: as a table for people, as JSON or CSV for programs, and plain where it is piped?"""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlq_pipelines.cli.options import option, with_options
from dlq_pipelines.text import Json, json_text, plain_line, spreadsheet_text


class Format(StrEnum):
    """How a command shows what it found."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


After = Annotated[str | None, typer.Option(metavar="KEY", help="Where the page before said it ends.")]
# In JSON it stands within texts alone, where an escape means the same.
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
_ANNOTATIONS = {
    "format": Annotated[Format, typer.Option(help="A table for people; json or csv for programs, with all fields.")],
    "json": Annotated[bool, typer.Option("--json", help="The same as --format json.")],
}


def formatted(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --format and --json; it gets one of them, as its argument `format`."""
    options = [
        option("format", _ANNOTATIONS["format"], Format.TABLE),
        option("json", _ANNOTATIONS["json"], default=False),
    ]

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        chosen = given.pop("format")
        return {"format": Format.JSON if given.pop("json") else chosen}

    return with_options(command, {"format": options}, gather)


def columns(of: type, *more: str) -> tuple[str, ...]:
    """The keys of rows that are made of this dataclass, and what is added to each."""
    return (*(field.name for field in fields(of)), *more)


def say_json(value: object) -> None:
    """Print JSON, in ASCII: no terminal obeys what a stranger wrote."""
    typer.echo(_NOT_ASCII.sub(_escaped, json_text(value, indent=2)))


def show(
    rows: Sequence[dict[str, Any]],
    *,
    format: Format = Format.TABLE,
    brief: Sequence[dict[str, Any]] | None = None,
    empty: str = "",
    header: Sequence[str] = (),
) -> None:
    """Print rows of equal keys. Values are hostile text: no markup and no control character in them is obeyed.

    A cell of CSV that a spreadsheet would run has an apostrophe before it for that reason.

    Args:
        rows: all fields.
        format: for whom.
        brief: what a person sees of them; None: all.
        empty: what a person is told where there are none.
        header: the keys, where there may be no row to tell them.
    """
    match format:
        case Format.JSON:
            say_json(rows)
        case Format.CSV:
            _write_csv(rows, header)
        case Format.TABLE:
            _write_table(rows if brief is None else brief, empty)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else r"\u007f"


def _write_csv(rows: Sequence[dict[str, Any]], header: Sequence[str]) -> None:
    """A header and a line a row; what is no single value is JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if names := rows[0] if rows else header:
        writer.writerow(names)
    for row in rows:
        writer.writerow(_cell(value) for value in row.values())


def _cell(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | dict | Json):
        return json_text(value)
    if isinstance(value, datetime):
        return json_text(value).strip('"')
    return spreadsheet_text(str(value))


def _write_table(rows: Sequence[dict[str, Any]], empty: str) -> None:
    """With columns on a terminal; piped, a line a row with a tab between cells, which cut and awk take apart."""
    if not rows:
        typer.echo(empty)
        return
    if not sys.stdout.isatty():
        for cells in ([*rows[0]], *(row.values() for row in rows)):
            typer.echo("\t".join(_plain(cell) for cell in cells))
        return
    table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(_plain(value)) for value in row.values()))
    Console().print(table)


def tell_more(key: object | None) -> None:
    """Where a list goes on, on stderr; None: it was shorter than was asked for."""
    if key is not None:
        typer.echo(f"There may be more: --after {key}", err=True)


def program() -> str:
    """How the reader calls us, so that the commands that we name can be copied: `dlq`, or `.venv/bin/dlq`."""
    started = sys.argv[0]
    return started if Path(started).name == "dlq" and started != shutil.which("dlq") else "dlq"


def headline(error: str | None) -> str:
    """What failed, of an error text: its exception and message without the traceback."""
    from dlq_pipelines.causes.parse import parse

    failure = parse(error or "")
    return ": ".join(part for part in (failure.exception_type, failure.message) if part) or "no error text"


def duration(seconds: float) -> str:
    """How long, in the two largest units that say something: `4 h 10 min`, `35 s`."""
    if seconds < 1:
        return "less than a second"
    left = round(seconds)
    said: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or said:
            said.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in said[:2] if count)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return plain_line(str(value), 500)
