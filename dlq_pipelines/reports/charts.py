"""Draws the charts of the report and the sparklines of its causes, as SVG.

Altair describes the charts and vl-convert draws them, without a browser or the network. Equal
figures give equal bytes: all space is reserved, no label is moved, nothing is random. No text of an
event is in a chart: series are numbered, and the page's HTML names the cause of each color. Colors
are mid-tones that are legible on white and on near-black. Labels take their color from the style
sheet of the page.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from html import escape
from typing import Any

import altair as alt
import pandas as pd
import vl_convert as vlc

from dlq_pipelines.day import format_short_day
from dlq_pipelines.reports.figures import ALL, OTHER, UNCLASSIFIED, CauseFigures, ReportFigures

# More colors cannot be distinguished.
_MAX_SERIES = 5
_PALETTE = ("#4a7fb5", "#d08b3e", "#4d9a8a", "#b5616f", "#8a78b8")
_OTHER_COLOR = "#93999f"
_UNCLASSIFIED_COLOR = "#c2b49a"
_INK, _GRID = "#7b8188", "#8a9097"

_WIDTH, _HEIGHT = 340, 150  # of the plot, in pixels
_PADDING = {"left": 44, "right": 48, "top": 12, "bottom": 26}
_FONT = "system-ui, sans-serif"
# Longer numbers do not fit into the margin: 100k.
_SHORT_NUMBERS_FROM = 100_000
_BAR_WIDTH, _BAR_STEP, _SPARKLINE_HEIGHT = 5, 7, 24
# Attributes that announce parts of a chart as unnamed graphics of their own.
_PART_ROLES = re.compile(r' role="graphics-(?:symbol|object)"| aria-roledescription="[^"]*"')


@dataclass(frozen=True)
class ChartSeries:
    """One color of the chart by day.

    Attributes:
        label: title of the cause, or name of the group of causes.
        color: as `#rrggbb`.
        css_class: the color's class in the style sheet.
        causes: the columns of `ReportFigures.days` that it adds up.
    """

    label: str
    color: str
    css_class: str
    causes: tuple[str, ...]


def build_chart_series(figures: ReportFigures) -> list[ChartSeries]:
    """Return the series that have deaths: the most harmful causes, the others, unclassified.

    Reports of the same causes give each one the same color, whatever its rank.
    """
    causes = [cause for cause in figures.causes if cause.cause_id]
    top, rest = causes[:_MAX_SERIES], causes[_MAX_SERIES:]
    colors = _choose_colors(top)
    series = [
        ChartSeries(
            cause.title,
            _PALETTE[colors[cause.cause_id]],
            f"s{colors[cause.cause_id] + 1}",
            (cause.cause_id,),
        )
        for cause in top
    ]
    others = (*(cause.cause_id for cause in rest), OTHER)
    label = "other causes" if series else "all causes"
    series += [
        ChartSeries(label, _OTHER_COLOR, "s0", others),
        ChartSeries("not classified yet", _UNCLASSIFIED_COLOR, "sx", (UNCLASSIFIED,)),
    ]
    return [item for item in series if figures.days[list(item.causes)].to_numpy().any()]


def _choose_colors(causes: Sequence[CauseFigures]) -> dict[str, int]:
    """Return the position in the palette of each cause, by its id.

    The hash of an id orders the palette. Older causes choose first, so that a new cause does not
    change their colors.
    """
    chosen: dict[str, int] = {}
    for cause in sorted(causes, key=lambda cause: (cause.first_seen, cause.cause_id)):
        free = set(range(len(_PALETTE))) - {*chosen.values()}
        chosen[cause.cause_id] = min(
            free, key=lambda color: sha256(f"{color} {cause.cause_id}".encode()).digest()
        )
    return chosen


def draw_days_chart(figures: ReportFigures) -> str:
    """Draw deaths by day, stacked by cause, with the mean of the 14 days before.

    The bar of the reported day has full color.
    """
    chart = alt.layer(_build_stacks(figures), *_build_mean_line(figures))
    by_day = ", ".join(f"{day}: {deaths}" for day, deaths in figures.days[ALL].items())
    label = f"Deaths by day. {by_day}. Mean of the days before: {figures.mean:.1f}."
    return _render_svg(chart, label)


def draw_hours_chart(figures: ReportFigures) -> str:
    """Draw deaths by hour of the day, in its time zone."""
    data = figures.hours[["label", "deaths"]]
    ticks = [
        label
        for label in data["label"]
        if label[:2] in ("00", "06", "12", "18") and label[2:5] == ":00"
    ]
    by_hour = ", ".join(
        f"{label}: {deaths}" for label, deaths in data.itertuples(index=False) if deaths
    )
    return _render_svg(_build_bars(data, "label", ticks), f"Deaths by hour. {by_hour or 'None'}.")


def draw_trend_chart(deaths: Sequence[tuple[date, int]]) -> str:
    """Draw deaths by day for the list of reports.

    Args:
        deaths: of the days that have a report, oldest first.
    """
    rows = [(day.isoformat(), count) for day, count in deaths]
    data = pd.DataFrame(rows, columns=["day", "deaths"])
    ticks = [day for day, _ in rows[:: max(1, len(rows) // 6)]]
    label = "Deaths by day; the table below has the numbers."
    return _render_svg(_build_bars(data, "day", ticks), label, width=2 * _WIDTH)


def _build_bars(data: pd.DataFrame, field: str, ticks: list[str]) -> alt.Chart:
    """Return one bar a row of `data`, labelled by a field, in the order of the rows."""
    most = max([*data["deaths"], 0])
    x = alt.X(f"{field}:N", sort=None, axis=_build_x_axis(ticks), scale=_build_x_scale())
    y = alt.Y("deaths:Q", axis=_build_y_axis(most), scale=_build_y_scale(most))
    bars = alt.Chart(data).mark_bar(color=_PALETTE[0])
    return bars.encode(x=x, y=y)  # type: ignore[no-any-return]


def _build_stacks(figures: ReportFigures) -> alt.Chart:
    series = build_chart_series(figures)
    labels = [format_short_day(day) for day in figures.window.days]
    rows = [
        (label, number, int(deaths), label == labels[-1])
        for number, item in enumerate(series, start=1)
        for label, deaths in zip(labels, figures.days[list(item.causes)].sum(axis=1), strict=True)
    ]
    data = pd.DataFrame(rows, columns=["day", "series", "deaths", "is_reported"])
    colors = alt.Scale(
        domain=list(range(1, len(series) + 1)), range=[item.color for item in series]
    )
    most = max(int(figures.days[ALL].max()), round(figures.mean))
    x_scale = _build_x_scale(labels)
    return (  # type: ignore[no-any-return]
        alt.Chart(data)
        .mark_bar()
        .encode(
            x=alt.X("day:N", sort=None, axis=_build_x_axis(labels[::2]), scale=x_scale),
            y=alt.Y("deaths:Q", stack="zero", axis=_build_y_axis(most), scale=_build_y_scale(most)),
            color=alt.Color("series:O", scale=colors, legend=None),
            order=alt.Order("series:Q"),
            opacity=alt.condition("datum.is_reported", alt.value(1), alt.value(0.6)),
        )
    )


def _build_mean_line(figures: ReportFigures) -> list[alt.Chart]:
    if not figures.mean:
        return []
    data = pd.DataFrame({"mean": [figures.mean], "text": [f"mean\n{figures.mean:,.0f}"]})
    base = alt.Chart(data).encode(y=alt.Y("mean:Q"))
    text = base.encode(text="text:N").mark_text(
        color=_INK,
        x=_WIDTH + 5,
        align="left",
        dy=-3,
        lineBreak="\n",
        font=_FONT,
        fontSize=11,
        fontWeight="bold",
    )
    return [base.mark_rule(color=_INK, strokeDash=[4, 3]), text]


def _build_x_scale(labels: list[str] | None = None) -> alt.Scale:
    domain = alt.Undefined if labels is None else labels
    return alt.Scale(domain=domain, paddingInner=0.25, paddingOuter=0.1)


def _build_y_scale(most: int) -> alt.Scale:
    return alt.Scale(domain=[0, max(most, 1)], nice=4)


def _build_x_axis(values: list[str]) -> alt.Axis:
    return alt.Axis(
        title=None, values=values, labelAngle=0, ticks=False, labelPadding=7, labelOverlap=False
    )


def _build_y_axis(most: int) -> alt.Axis:
    number_format = "~s" if most >= _SHORT_NUMBERS_FROM else ",d"
    return alt.Axis(
        title=None,
        tickCount=4,
        tickMinStep=1,
        format=number_format,
        domain=False,
        ticks=False,
        labelPadding=6,
    )


def _render_svg(chart: alt.TopLevelMixin, label: str, *, width: int = _WIDTH) -> str:
    """Render a chart of fixed size that scales with the page.

    Args:
        chart: the chart.
        label: read by screen readers instead of the chart.
        width: of the plot, in pixels.
    """
    axis = {
        "labelFont": _FONT,
        "labelFontSize": 11,
        "labelColor": _INK,
        "gridColor": _GRID,
        "gridOpacity": 0.25,
    }
    x_axis = {"grid": False, "domainColor": _GRID, "domainOpacity": 0.6, "labelBound": False}
    specification: dict[str, Any] = chart.to_dict() | {
        "width": width,
        "height": _HEIGHT,
        "padding": _PADDING,
        "autosize": {"type": "none"},
        "config": {
            "aria": False,
            "background": None,
            "view": {"stroke": None},
            "axis": axis,
            "axisX": x_axis,
        },
    }
    svg = str(vlc.vegalite_to_svg(specification, allowed_base_urls=[]))
    svg = _PART_ROLES.sub("", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def draw_sparkline(trend: Sequence[int], *, limit: float | None = None) -> str:
    """Draw deaths by day as small bars, with two paths: a page has hundreds of sparklines.

    Args:
        trend: deaths by day; the last bar has the accent color.
        limit: draws a dashed line at the escalation limit if the last day is above it.
    """
    most = max(*trend, 1)
    bars = [
        _draw_bar(number, round(_SPARKLINE_HEIGHT * deaths / most, 1))
        for number, deaths in enumerate(trend)
    ]
    width = _BAR_STEP * len(trend) - (_BAR_STEP - _BAR_WIDTH)
    line = ""
    if limit is not None and trend[-1] > limit:
        line_y = round(_SPARKLINE_HEIGHT * (1 - limit / most), 1)
        line = f'<path class="limit" d="M0 {line_y:g}H{width}"/>'
    label = f"Deaths by day, the reported day last: {', '.join(map(str, trend))}"
    size = f'viewBox="0 0 {width} {_SPARKLINE_HEIGHT}" width="{width}" height="{_SPARKLINE_HEIGHT}"'
    return (
        f'<svg role="img" aria-label="{label}" class="spark" {size}>'
        f'<path class="past" d="{"".join(bars[:-1])}"/><path d="{bars[-1]}"/>{line}</svg>'
    )


def _draw_bar(number: int, height: float) -> str:
    """Draw a bar. A day without deaths has a thin line, so that days can be counted."""
    shown = max(height, 0.5)
    return f"M{_BAR_STEP * number} {_SPARKLINE_HEIGHT}v-{shown:g}h{_BAR_WIDTH}v{shown:g}z"
