"""How does a command show what it found: a table for people, JSON or CSV for programs, and plain where it is piped?"""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from datetime import datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dlq_pipelines.cli.options import build_option, with_options
from dlq_pipelines.text import RawJson, escape_spreadsheet_text, render_json, sanitize_line


class OutputFormat(StrEnum):
    """How a command shows what it found."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


After = Annotated[
    str | None, typer.Option(metavar="KEY", help="Where the page before said it ends.")
]
# In JSON it stands within texts alone, where an escape means the same.
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
_ANNOTATIONS = {
    "format": Annotated[
        OutputFormat,
        typer.Option(help="A table for people; json or csv for programs, with all fields."),
    ],
    "json": Annotated[bool, typer.Option("--json", help="The same as --format json.")],
}
# Of a table on a terminal, in characters: a cell of so many stays in one line, a longer text gets as many at least,
# and a word longer than the last is broken. Ids, times and types are shorter: what is copied is never cut.
_IN_ONE_LINE, _LONGEST_WORD = 25, 40
_GAP = 2


def with_output_format(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --format and --json; it gets one of them, as its argument `format`."""
    options = [
        build_option("format", _ANNOTATIONS["format"], OutputFormat.TABLE),
        build_option("json", _ANNOTATIONS["json"], default=False),
    ]

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        chosen, json = given.pop("format"), given.pop("json")
        if json and chosen is OutputFormat.CSV:
            raise ValueError("--json and --format csv were both asked for: leave one of them out")
        return {"format": OutputFormat.JSON if json else chosen}

    return with_options(command, {"format": options}, gather)


def list_columns(of: type, *more: str) -> tuple[str, ...]:
    """The keys of rows that are made of this dataclass, and what is added to each."""
    return (*(field.name for field in fields(of)), *more)


def print_json(value: object) -> None:
    """Print JSON, in ASCII: no terminal obeys what a stranger wrote."""
    typer.echo(_NOT_ASCII.sub(_escaped, render_json(value, indent=2)))


def print_list(
    of: str,
    rows: Sequence[dict[str, Any]],
    *,
    format: OutputFormat,
    brief: Sequence[dict[str, Any]] | None = None,
    empty: str = "",
    header: Sequence[str] = (),
    spare: Sequence[str] = (),
    also: dict[str, Any] | None = None,
) -> None:
    """Print rows of equal keys. Values are hostile text: no markup and no control character in them is obeyed.

    A cell of CSV that a spreadsheet would run has an apostrophe before it for that reason.

    Args:
        of: what they are, as HTTP calls them: in JSON the key of the object that holds them.
        rows: all fields.
        format: for whom.
        brief: what a person sees of them; None: all.
        empty: what a person is told where there are none.
        header: the keys, where there may be no row to tell them.
        spare: columns of `brief` that a narrow terminal goes without, the first of them first.
        also: what else the object has, such as where the next page begins.
    """
    match format:
        case OutputFormat.JSON:
            print_json({of: rows, **(also or {})})
        case OutputFormat.CSV:
            _write_csv(rows, header)
        case OutputFormat.TABLE:
            print_table(rows if brief is None else brief, empty=empty, spare=spare)


def print_record(row: dict[str, Any], *, format: OutputFormat) -> None:
    """Print one thing for programs: in JSON an object, in CSV a row."""
    if format is OutputFormat.CSV:
        _write_csv([row], ())
    else:
        print_json(row)


def print_table(
    rows: Sequence[dict[str, Any]], *, empty: str = "", spare: Sequence[str] = ()
) -> None:
    """Print rows for people: with columns on a terminal; piped, a line a row with tabs, which cut and awk take apart.

    Args:
        rows: of equal keys.
        empty: what is said where there are none.
        spare: columns that a narrow terminal goes without, the first of them first. One that is narrower still gets a
            line a value.
    """
    if not rows:
        typer.echo(empty)
        return
    zone = _zone()
    cells = [[*rows[0]], *([_plain(value, zone) for value in row.values()] for row in rows)]
    if not sys.stdout.isatty():
        for line in cells:
            typer.echo("\t".join(line))
        return
    console = Console()
    table = {name: [row[place] for row in cells[1:]] for place, name in enumerate(cells[0])}
    left_out: list[str] = []
    while _least(table) > console.width and len(left_out) < len(spare):
        left_out.append(spare[len(left_out)])
        del table[left_out[-1]]
    if _least(table) > console.width and len(table) > 2:  # noqa: PLR2004 - two are names and values already
        _write_records(console, cells)
        return
    _write_columns(console, table)
    if left_out:
        typer.echo(
            f"For want of room without: {', '.join(left_out)}. A wider terminal or --json has them.",
            err=True,
        )


def _zone() -> tzinfo:
    from dlq_pipelines.settings import read_settings

    return read_settings().zone


def format_local_time(at: datetime, zone: tzinfo) -> str:
    """A moment for people, in the zone of the installation: filters read it as it is."""
    from dlq_pipelines.day import format_time

    return format_time(at.astimezone(zone))


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
    if isinstance(value, list | tuple | dict | RawJson):
        return render_json(value)
    if isinstance(value, datetime):
        return render_json(value).strip('"')
    return escape_spreadsheet_text(str(value))


def _narrowest(cells: Collection[str]) -> int:
    """The width at which each cell is whole: in one line if it is short, and otherwise between its words."""
    wide = max(map(cell_len, cells))
    words = max((cell_len(word) for cell in cells for word in cell.split()), default=0)
    return min(wide, max(_IN_ONE_LINE, min(words, _LONGEST_WORD)))


def _least(table: dict[str, list[str]]) -> int:
    return sum(_narrowest([name, *cells]) for name, cells in table.items()) + _GAP * (
        len(table) - 1
    )


def _write_columns(console: Console, table: dict[str, list[str]]) -> None:
    """Each column as wide as it needs; where room is short, those share it that have more than a line's text."""
    widths = {name: _narrowest([name, *cells]) for name, cells in table.items()}
    wanted = {
        name: max(map(cell_len, [name, *cells])) - widths[name] for name, cells in table.items()
    }
    room = console.width - _least(table)
    for left, name in zip(
        range(len(table), 0, -1), sorted(table, key=lambda name: wanted[name]), strict=True
    ):
        more = max(0, min(wanted[name], room // left))
        widths[name], room = widths[name] + more, room - more
    heads = (Column(name, width=widths[name], overflow="fold") for name in table)
    shown = Table(*heads, box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for row in zip(*table.values(), strict=True):
        shown.add_row(*map(Text, row))
    console.print(shown)


def _write_records(console: Console, cells: Sequence[Sequence[str]]) -> None:
    """A line a value, and an empty one between rows."""
    names, *rows = cells
    margin = max(map(cell_len, names)) + _GAP
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, value in zip(names, row, strict=True):
            line = Text(name.ljust(margin), style="bold").append(value, style="not bold")
            console.print(line, soft_wrap=True)


def print_next_cursor(key: object | None, *, format: OutputFormat) -> None:
    """Where a list goes on, on stderr; JSON has it as `next`. None: it was shorter than was asked for."""
    if key is not None and format is not OutputFormat.JSON:
        typer.echo(f"There may be more: --after {key}", err=True)


def program() -> str:
    """How the reader calls us, so that the commands that we name can be copied: `dlq`, or `.venv/bin/dlq`."""
    started = sys.argv[0]
    return started if Path(started).name == "dlq" and started != shutil.which("dlq") else "dlq"


def callable_here(text: str) -> str:
    """The text with the commands in it as the reader calls them."""
    return re.sub(r"(^|`)dlq (?=[a-z-])", lambda found: f"{found[1]}{program()} ", text)


def summarize_failure(error: str | None) -> str:
    """What failed, of an error text: its exception and message without the traceback."""
    from dlq_pipelines.causes.parse import parse_error

    failure = parse_error(error or "")
    return (
        ": ".join(part for part in (failure.exception_type, failure.message) if part)
        or "no error text"
    )


def format_seconds(seconds: float) -> str:
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


def _plain(value: object, zone: tzinfo) -> str:
    return (
        format_local_time(value, zone)
        if isinstance(value, datetime)
        else sanitize_line(str(value), 500)
    )
