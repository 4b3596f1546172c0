"""What does the person on call read about yesterday's failures in one minute?

`build_report` writes one HTML file a day, complete in itself: no script, nothing fetched, light and dark, on a phone
and on paper. The ledger does not forget and nothing after the day's end is read, so a day that is built again is the
same file, byte for byte, whatever was retried or archived since; the file therefore does not say when it was built.
Only a classification of deaths that were unknown before changes a past day. Error texts are strangers' texts: escaped
here, never marked safe.
"""

import os
import secrets
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.charts import OTHER_COLOUR, days_svg, hours_svg, series, sparkline_svg
from dlq_pipelines.reports.figures import (
    ALL,
    DAYS_BEFORE,
    SAMPLE_CHARACTERS,
    UNCLASSIFIED,
    Figures,
    Window,
    read_figures,
)
from dlq_pipelines.text import markdown_text

_MARKDOWN_CAUSES = 10
_TIMES_AS_MANY = 2  # from 200 % above on, a factor is easier to read than a percentage
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


@dataclass(frozen=True, eq=False)
class Report:
    """A report that was written.

    Attributes:
        day: the day it is about.
        path: the HTML file.
        headline: the day in one sentence of plain text.
        deaths: how many there were.
        mean: deaths a day in the 14 days before.
        causes: the table of causes as it is shown: `Figures.causes` with times in the day's zone. Plain text that
            strangers wrote: escape it.
        chart_svg: deaths by day, stacked by cause.
        hours_svg: deaths by hour of the day.
    """

    day: date
    path: Path
    headline: str
    deaths: int
    mean: float
    causes: pd.DataFrame
    chart_svg: str
    hours_svg: str


def build_report(connection: Connection, *, day: date, zone: ZoneInfo, folder: Path) -> Report:
    """Write `folder/<day>.html` and return what it says. A reader never sees half a file.

    Args:
        connection: in autocommit mode and outside a transaction.
        day: the day of `died_at` in `zone`. A day that is not over is reported as far as it went.
        zone: where it is that day.
        folder: created if it is not there.

    Raises:
        OSError: the file cannot be written; an earlier one stays as it was.
    """
    figures = read_figures(connection, Window(day, zone))
    causes = figures.causes.assign(
        first_seen=figures.causes["first_seen"].dt.tz_convert(zone),
        last_seen=figures.causes["last_seen"].dt.tz_convert(zone),
    )
    report = Report(
        day=day,
        path=folder / f"{day.isoformat()}.html",
        headline=headline(figures),
        deaths=figures.totals.deaths,
        mean=figures.mean,
        causes=causes,
        chart_svg=days_svg(figures),
        hours_svg=hours_svg(figures),
    )
    _write(report.path, report_html(report, figures))
    return report


def headline(figures: Figures) -> str:
    """The day in one sentence: how many, against the days before, of which cause."""
    totals, day = figures.totals, figures.window.day.isoformat()
    if not totals.deaths:
        before = f"the mean of the {DAYS_BEFORE} days before is {_rounded(figures.mean)}"
        return f"No event died on {day}; {before if figures.mean else f'none did in the {DAYS_BEFORE} days before'}."
    died = f"{totals.events:,} event{'s' * (totals.events > 1)} died on {day}"
    if totals.deaths > totals.events:
        died = f"{totals.events:,} event{'s' * (totals.events > 1)} died {totals.deaths:,} times on {day}"
    return f"{died}, {change_words(figures)}; {_cause_words(figures)}."


def change_words(figures: Figures) -> str:
    """The day against the mean of the days before, such as `40 % above the mean of the 14 days before (223)`."""
    if figures.change is None:
        return f"none in the {DAYS_BEFORE} days before"
    mean = f"the mean of the {DAYS_BEFORE} days before ({_rounded(figures.mean)})"
    percent = round(figures.change * 100)
    if figures.change >= _TIMES_AS_MANY:
        return f"{figures.change + 1:,.1f} times {mean}"
    if not percent:
        return f"as many as {mean}"
    return f"{abs(percent)} % {'above' if percent > 0 else 'below'} {mean}"


def _cause_words(figures: Figures) -> str:
    totals, known = figures.totals, figures.causes[figures.causes["cause_id"] != UNCLASSIFIED]
    if known.empty:
        return "no cause is known yet"
    first = known.iloc[0]
    words = [f"the largest cause is {first['cause']} ({first['deaths']:,}, {_percent(first['share'])})"]
    if totals.new_causes:
        words.append(f"{totals.new_causes:,} cause{' is' if totals.new_causes == 1 else 's are'} new")
    if totals.unclassified:
        words.append(f"{totals.unclassified:,} {'is' if totals.unclassified == 1 else 'are'} not classified yet")
    return "; ".join(words)


def report_markdown(report: Report) -> str:
    """The headline and the ten largest causes as a Markdown table, for Dagster's UI; strangers' texts stay text."""
    if report.causes.empty:
        return markdown_text(report.headline)
    lines = [
        f"**{markdown_text(report.headline)}**",
        "",
        "| # | Cause | State | Deaths | Share | Aggregates | Event types |",
        "| --: | :-- | :-- | --: | --: | --: | :-- |",
        *(_markdown_row(rank, row) for rank, row in enumerate(_records(report.causes)[:_MARKDOWN_CAUSES], start=1)),
    ]
    rest = report.deaths - int(report.causes["deaths"].iloc[:_MARKDOWN_CAUSES].sum())
    more = ["", f"{rest:,} more deaths of other causes: see the HTML report."] if rest else []
    return "\n".join([*lines, *more])


def _markdown_row(rank: int, row: dict[Hashable, Any]) -> str:
    # The UI's columns are narrow: a space that holds keeps the figure and its sign on one line.
    numbers = [f"{row['deaths']:,}", _percent(row["share"]).replace(" ", "\u00a0"), f"{row['aggregates']:,}"]
    types = ", ".join(row["event_types"]) + (f" and {row['more_event_types']} more" * bool(row["more_event_types"]))
    cells = [str(rank), markdown_text(row["cause"]), row["state"], *numbers, markdown_text(types)]
    return f"| {' | '.join(cells)} |"


def _ours(svg: str) -> Markup:
    """An image that we drew: it holds numbers and our own words, no text of an event."""
    return Markup(svg)  # noqa: S704 - see above


def report_html(report: Report, figures: Figures) -> str:
    """The whole page."""
    colours = series(figures)
    colour_of = {one.causes[0]: one.colour for one in colours if len(one.causes) == 1}
    rows = [row | {"colour": colour_of.get(row["cause_id"], OTHER_COLOUR)} for row in _records(report.causes)]
    return (
        _environment(figures.window)
        .get_template("report.html.j2")
        .render(
            report=report,
            figures=figures,
            totals=figures.totals,
            window=figures.window,
            rows=[row | {"spark": _ours(sparkline_svg(row["trend"], colour=row["colour"]))} for row in rows],
            series=colours,
            by_day=_day_rows(figures),
            by_hour=_records(figures.hours),
            chart=_ours(report.chart_svg),
            hours_chart=_ours(report.hours_svg),
            ledger_begin=_young_ledger(figures),
            days_before=DAYS_BEFORE,
            sample_characters=SAMPLE_CHARACTERS,
        )
    )


def _day_rows(figures: Figures) -> list[dict[str, Any]]:
    """The table behind the chart by day: one row a day with a number for each colour."""
    parts = [figures.days[list(one.causes)].sum(axis=1) for one in series(figures)]
    return [
        {"day": day, "deaths": int(figures.days[ALL].iloc[n]), "parts": [int(part.iloc[n]) for part in parts]}
        for n, day in enumerate(figures.window.days)
    ]


def _young_ledger(figures: Figures) -> date | None:
    """The day of the first death on record, when it is one of those that the day is compared with."""
    window, begin = figures.window, figures.totals.ledger_begin
    first = begin.astimezone(window.zone).date() if begin else None
    return first if first and window.days[0] < first else None


def _records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return table.to_dict("records")


def _environment(window: Window) -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": lambda value: f"{value:,}",
        "percent": _percent,
        "rounded": _rounded,
        "long_day": _long_day,
        "moment": lambda value: f"{value:%H:%M}" if value.date() == window.day else f"{value:%Y-%m-%d}",
        "iso": lambda value: value.isoformat(timespec="seconds"),
        "utc": lambda value: f"{value:%Y-%m-%d %H:%M} UTC",
    }
    return environment


def _long_day(day: date) -> str:
    return f"{_WEEKDAYS[day.weekday()]}, {day.day} {_MONTHS[day.month - 1]} {day.year}"


def _percent(share: float) -> str:
    percent = share * 100
    return "< 1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:,.1f}"  # noqa: PLR2004 - two digits tell enough


def _write(path: Path, text: str) -> None:
    """Put the file in place as a whole and durably; whoever reads meanwhile has the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
