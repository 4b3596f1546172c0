"""How does a command show rows: as a table for people, as JSON for programs?"""

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlq_pipelines.text import plain_line

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def show(rows: Sequence[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows of equal keys. Values are hostile text: no markup and no control character in them is obeyed.

    JSON is in ASCII for that reason.
    """
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
        return
    if not rows:
        typer.echo(empty)
        return
    table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(_plain(value)) for value in row.values()))
    # Piped, a table has no width to fit into.
    Console(width=None if sys.stdout.isatty() else 240).print(table)


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
