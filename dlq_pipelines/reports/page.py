"""Renders the HTML pages: the report of a day, the list of reports, and a missing report.

A page has no script and fetches nothing: its content security policy allows its own style sheet, by
its hash, and nothing else. Texts of events are untrusted: templates escape them, and nothing here
marks them as safe.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import log1p
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dlq_pipelines.day import format_long_day, format_short_day, format_weekday
from dlq_pipelines.reports import wording
from dlq_pipelines.reports.charts import (
    ChartSeries,
    build_chart_series,
    draw_days_chart,
    draw_hours_chart,
    draw_sparkline,
    draw_trend_chart,
)
from dlq_pipelines.reports.decisions import list_open_decisions
from dlq_pipelines.reports.figures import ALL, DAYS_BEFORE, OTHER, CauseFigures, ReportFigures
from dlq_pipelines.reports.states import URGENT_STATES
from dlq_pipelines.reports.timeline import draw_fix_timeline
from dlq_pipelines.text import format_count, format_duration, format_seconds

_TEMPLATES = Path(__file__).parent / "templates"
_HEAT_STEPS = 6
# Causes in the list below those with details. The JSON report has all listed causes.
_MAX_LISTED = 500
_MAX_TREND_DAYS = 90


class HeatCell(NamedTuple):
    """A cell of the heat map: deaths, and how dark it is, 0 to 6."""

    deaths: int
    heat: int


@dataclass(frozen=True)
class DayRow:
    """A day in the list of reports, as recorded when its report was built."""

    day: date
    headline: str
    figures: dict[str, int]


def render_report_page(figures: ReportFigures, headline: str) -> str:
    """Render the report of a day."""
    series = build_chart_series(figures)
    further = [cause for cause in figures.causes if not cause.is_detailed]
    return _render(
        "report.html.j2",
        figures.window.zone,
        day=figures.window.day,
        figures=figures,
        headline=headline,
        decisions=list_open_decisions(figures),
        urgent=[(state, figures.list_causes(state)) for state in URGENT_STATES],
        detailed=[cause for cause in figures.causes if cause.is_detailed],
        listed=further[:_MAX_LISTED],
        unlisted=len(further[_MAX_LISTED:]) + figures.hidden_causes,
        causes_by_id={cause.cause_id: cause for cause in figures.causes},
        series=series,
        day_rows=_build_day_rows(figures, series),
        days_chart=_mark_safe(draw_days_chart(figures)),
        hours_chart=_mark_safe(draw_hours_chart(figures)),
        heat=_build_heat_map(figures.matrix),
        ledger_start=_find_ledger_start(figures),
    )


def render_index_page(rows: Sequence[DayRow], zone: ZoneInfo) -> str:
    """Render the list of reports.

    Args:
        rows: the days that have a report, the last first.
        zone: of the days.
    """
    trend = [(row.day, row.figures["deaths"]) for row in reversed(rows[:_MAX_TREND_DAYS])]
    chart = _mark_safe(draw_trend_chart(trend)) if trend else ""
    return _render("index.html.j2", zone, rows=rows, chart=chart, trend_days=len(trend))


def render_missing_page(day: date, zone: ZoneInfo) -> str:
    """Render the page that reports of the days around link to until the day has a report."""
    return _render("missing.html.j2", zone, day=day)


def _mark_safe(svg: str) -> Markup:
    """Mark an SVG of `charts` as safe: it contains no text of an event."""
    return Markup(svg)  # noqa: S704 - see above


def _build_day_rows(figures: ReportFigures, series: list[ChartSeries]) -> list[dict[str, Any]]:
    """Return the table below the chart by day: a row a day, with the deaths of each series."""
    columns = [figures.days[list(item.causes)].sum(axis=1) for item in series]
    return [
        {
            "day": day,
            "deaths": int(figures.days[ALL].iloc[position]),
            "parts": [int(column.iloc[position]) for column in columns],
        }
        for position, day in enumerate(figures.window.days)
    ]


def _build_heat_map(table: pd.DataFrame) -> dict[str, Any]:
    """Return event types and rows of cells, without the `OTHER` row or column if it is empty.

    The heat map is an HTML table, because its numbers are its cells: it needs no second table for
    screen readers, and it follows the dark mode.
    """
    most = int(table.drop(index=OTHER, columns=OTHER).to_numpy().max(initial=0))
    has_other_row, has_other_column = table.loc[OTHER].any(), bool(table[OTHER].any())
    rows = [name for name in table.index if name != OTHER or has_other_row]
    types = [name for name in table.columns if name != OTHER]
    columns = [*types, OTHER] if has_other_column else types
    return {
        "types": types,
        "has_other_types": has_other_column,
        "rows": [
            (
                cause_id,
                [
                    HeatCell(int(deaths), _compute_heat(int(deaths), most))
                    for deaths in table.loc[cause_id, columns]
                ],
            )
            for cause_id in rows
        ],
    }


def _compute_heat(deaths: int, most: int) -> int:
    """Return a step on a logarithmic scale: ten deaths stay visible next to a thousand."""
    if deaths <= 0:
        return 0
    return min(1 + round((_HEAT_STEPS - 1) * log1p(deaths) / log1p(max(most, 1))), _HEAT_STEPS)


def _find_ledger_start(figures: ReportFigures) -> date | None:
    """Return the first recorded day if it is after the first day that the chart shows."""
    first = figures.first_recorded_day
    return first if first and figures.window.days[0] < first else None


def _render(template: str, zone: ZoneInfo, **values: Any) -> str:
    css = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        _build_environment()
        .get_template(template)
        .render(
            css=Markup(css),  # noqa: S704 - a file of this package
            policy=policy,
            zone=zone,
            days_before=DAYS_BEFORE,
            **values,
        )
    )


@lru_cache(maxsize=1)
def _build_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shell": quote,
        "number": lambda value: f"{value:,}",
        "percent": lambda share: wording.format_percent(share).replace(" ", "\u00a0"),
        "rounded": wording.format_rounded,
        "duration": format_duration,
        "long_day": format_long_day,
        "short_day": format_short_day,
        "weekday": format_weekday,
        "counted": format_count,
        "affected": wording.format_aggregates,
        "utc": wording.format_utc,
        "local": lambda moment, zone: moment.astimezone(zone),
        "iso": lambda moment: moment.isoformat(timespec="seconds"),
        "add_days": lambda day, days: day + timedelta(days=days),
        "moment": _format_moment,
        "sparkline": _draw_cause_sparkline,
        "seconds": format_seconds,
        "timeline": lambda fix, zone, day: _mark_safe(
            draw_fix_timeline(fix.timeline, zone=zone, day=day)
        ),
    }
    environment.globals["format_attempts"] = wording.format_attempts
    return environment


def _draw_cause_sparkline(cause: CauseFigures) -> Markup:
    limit = cause.escalation_limit if cause.above_limit else None
    return _mark_safe(draw_sparkline(cause.trend, limit=limit))


def _format_moment(moment: datetime, day: date) -> str:
    """Return the time if the moment is on the reported day, else its date."""
    return f"{moment:%H:%M}" if moment.date() == day else f"{moment:%Y-%m-%d}"
