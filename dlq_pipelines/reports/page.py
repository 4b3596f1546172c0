"""What does the person on call see? One page, complete in itself.

No script and nothing fetched: the policy in its head allows its own style sheet, by its sum, and nothing else. Error
texts are strangers' texts: escaped here, never marked safe.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import log1p
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dlq_pipelines import text
from dlq_pipelines.reports import wording
from dlq_pipelines.reports.charts import (
    ChartSeries,
    build_chart_series,
    draw_days_chart,
    draw_hours_chart,
    draw_sparkline,
    draw_trend_chart,
)
from dlq_pipelines.reports.figures import ALL, DAYS_BEFORE, OTHER, CauseFigures, ReportFigures
from dlq_pipelines.reports.states import URGENT_STATES, CauseState

_TEMPLATES = Path(__file__).parent / "templates"
_HEAT_STEPS = 6
# Beside the causes told in full, as many lines of others; programs read all of them in the JSON twin.
_LISTED = 500
_HEADINGS = {
    CauseState.NEW: "New",
    CauseState.REGRESSED: "Came back",
    CauseState.ESCALATING: "Getting worse",
}


class HeatCell(NamedTuple):
    """A number of the heat map and how dark it is, 0 to 6."""

    deaths: int
    heat: int


@dataclass(frozen=True)
class DayRow:
    """A day of the list of reports, as it was recorded when its report was built."""

    day: date
    headline: str
    figures: dict[str, int]


def render_report_page(figures: ReportFigures, headline: str) -> str:
    """The page of a day."""
    window, colours = figures.window, build_chart_series(figures)
    return _render(
        "report.html.j2",
        window.zone,
        day=window.day,
        figures=figures,
        headline=headline,
        minute=[(state, _HEADINGS[state], figures.in_state(state)) for state in URGENT_STATES],
        in_full=[cause for cause in figures.causes if cause.in_full],
        listed=[cause for cause in figures.causes if not cause.in_full][:_LISTED],
        unlisted=max(sum(not cause.in_full for cause in figures.causes) - _LISTED, 0)
        + figures.hidden_causes,
        titles={cause.cause_id: cause for cause in figures.causes},
        series=colours,
        colour={one.causes[0]: one.name for one in colours if len(one.causes) == 1},
        by_day=_day_rows(figures, colours),
        days_chart=_ours(draw_days_chart(figures)),
        hours_chart=_ours(draw_hours_chart(figures)),
        heat=_heat(figures),
        ledger_begin=_young_ledger(figures),
    )


def render_index_page(rows: Sequence[DayRow], zone: ZoneInfo) -> str:
    """The list of reports, the last day first."""
    shown = list(reversed(rows))[-90:]
    chart = (
        _ours(draw_trend_chart([(row.day, row.figures["deaths"]) for row in shown])) if rows else ""
    )
    return _render("index.html.j2", zone, rows=rows, chart=chart, shown=len(shown))


def render_missing_page(day: date, zone: ZoneInfo) -> str:
    """What stands in the place of a report that its neighbours lead to and that is not there."""
    return _render("missing.html.j2", zone, day=day)


def _ours(svg: str) -> Markup:
    """An image that we drew: it holds numbers and our own words, no text of an event."""
    return Markup(svg)  # noqa: S704 - see above


def _day_rows(figures: ReportFigures, colours: list[ChartSeries]) -> list[dict[str, Any]]:
    """The table behind the chart by day: one row a day with a number for each colour."""
    parts = [figures.days[list(one.causes)].sum(axis=1) for one in colours]
    return [
        {
            "day": day,
            "deaths": int(figures.days[ALL].iloc[n]),
            "parts": [int(part.iloc[n]) for part in parts],
        }
        for n, day in enumerate(figures.window.days)
    ]


def _heat(figures: ReportFigures) -> dict[str, Any]:
    """The heat map: types, and rows of cells; a column or a row of others is left out where it is empty."""
    table = figures.matrix
    most = int(table.drop(index=OTHER, columns=OTHER).to_numpy().max(initial=0))
    table = table.loc[[name for name in table.index if name != OTHER or table.loc[OTHER].any()]]
    others = bool(table[OTHER].any())
    columns = [name for name in table.columns if name != OTHER or others]
    return {
        "types": [name for name in columns if name != OTHER],
        "others": others,
        "rows": [(cause, _cells(table.loc[cause, columns], most)) for cause in table.index],
    }


def _cells(row: "pd.Series[int]", most: int) -> list[HeatCell]:
    return [HeatCell(int(deaths), _step(int(deaths), most)) for deaths in row]


def _step(deaths: int, most: int) -> int:
    """On a logarithmic scale, because a cause of ten deaths beside one of a thousand is still to be seen."""
    if deaths <= 0:
        return 0
    return min(1 + round((_HEAT_STEPS - 1) * log1p(deaths) / log1p(max(most, 1))), _HEAT_STEPS)


def _young_ledger(figures: ReportFigures) -> date | None:
    """The first day on record, when it is one of those that the day is compared with."""
    first = figures.ledger_begin
    return first if first and figures.window.days[0] < first else None


def _render(template: str, zone: ZoneInfo, **values: Any) -> str:
    environment = _environment()
    css = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return environment.get_template(template).render(
        css=Markup(css),  # noqa: S704 - our own file
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        zone=zone,
        local=lambda moment: moment.astimezone(zone),
        days_before=DAYS_BEFORE,
        **values,
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:,}",
        "percent": wording.format_percent,
        "rounded": wording.format_rounded,
        "duration": text.format_duration,
        "long_day": wording.format_long_day,
        "short_day": wording.format_short_day,
        "weekday": wording.format_weekday,
        "counted": text.format_count,
        "utc": wording.format_utc,
        "iso": lambda value: value.isoformat(timespec="seconds"),
        "spark": _spark,
        "slug": lambda state: state.value.replace(" ", "-"),
        "day_after": lambda day, days: day + timedelta(days=days),
    }
    environment.globals["attempts"] = wording.format_attempts
    environment.globals["moment"] = _moment
    return environment


def _spark(cause: CauseFigures) -> Markup:
    return _ours(draw_sparkline(cause.trend, limit=cause.limit if cause.escalating else None))


def _moment(value: datetime, day: date) -> str:
    """A time of the day itself, else its date."""
    return f"{value:%H:%M}" if value.date() == day else f"{value:%Y-%m-%d}"
