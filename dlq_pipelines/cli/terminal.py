"""Prints a table on a terminal, as wide as the terminal.

Its own module because Rich takes 20 ms to import: help, completion and pipes do without.
"""

from collections.abc import Mapping, Sequence

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Cells of at most this many characters stay on one line. Ids, times and most types are shorter,
# so they can be copied whole. A column of longer cells is at least this wide.
_ONE_LINE = 25
# Columns of what people copy: their cells stay on one line, whatever their length.
_COPIED = frozenset({"cause", "event", "fix", "id", "into", "key", "merge"})
_GAP = 2
# A name and a value: wrapping the value is as legible as a line per value.
_TWO_COLUMNS = 2


def print_columns(columns: Mapping[str, Sequence[str]], optional: Sequence[str]) -> None:
    """Print columns next to each other, or one line per value if the terminal is too narrow.

    Args:
        columns: the cells of each column, by its name.
        optional: columns that a narrow terminal hides, in this order.
    """
    console, hidden = Console(), list[str]()
    shown = dict(columns)
    while _measure_least_width(shown) > console.width and len(hidden) < len(optional):
        hidden.append(optional[len(hidden)])
        del shown[hidden[-1]]
    if _measure_least_width(shown) > console.width and len(shown) > _TWO_COLUMNS:
        _write_records(console, columns)
        return
    _write_columns(console, shown)
    if hidden:
        names = ", ".join(hidden)
        typer.echo(
            f"Columns hidden (narrow terminal): {names}. Use a wider terminal or --json.", err=True
        )


def _measure_longest(name: str, cells: Sequence[str]) -> int:
    return max(map(cell_len, [name, *cells]))


def _measure_least_width(columns: Mapping[str, Sequence[str]]) -> int:
    """Return the width at which short cells stay whole and long cells wrap legibly."""
    widths = [
        longest if name in _COPIED else min(longest, _ONE_LINE)
        for name, cells in columns.items()
        for longest in [_measure_longest(name, cells)]
    ]
    return sum(widths) + _GAP * (len(widths) - 1)


def _write_columns(console: Console, columns: Mapping[str, Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, cells in columns.items():
        is_short = name in _COPIED or _measure_longest(name, cells) <= _ONE_LINE
        table.add_column(name, no_wrap=is_short, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)


def _write_records(console: Console, columns: Mapping[str, Sequence[str]]) -> None:
    """Write one line per value, and an empty line between rows."""
    for number, row in enumerate(zip(*columns.values(), strict=True)):
        record = Table.grid(padding=(0, _GAP, 0, 0))
        record.add_column(style="bold", no_wrap=True)
        record.add_column(overflow="fold")
        for name, value in zip(columns, row, strict=True):
            record.add_row(name, Text(value))
        if number:
            console.print()
        console.print(record)
