"""On which days and at which hours did events die, and which causes made the difference?

Altair describes the charts and vl-convert draws them as SVG, without a browser or the network. The same figures are
the same bytes: nothing is measured (all space is reserved, no label is moved), nothing is random. No text of an event
gets into a chart: series are numbered, and the page says in HTML which number and colour is which cause. Colours are
middle tones that stand on white and on near-black, texts take the page's colour by its style sheet.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import Any

import altair as alt
import pandas as pd
import vl_convert as vlc

from dlq_pipelines.reports.figures import ALL, OTHER, UNCLASSIFIED, ReportFigures
from dlq_pipelines.reports.wording import format_short_day

SERIES_SHOWN = 5  # more colours nobody tells apart
PALETTE = ("#4a7fb5", "#d08b3e", "#4d9a8a", "#b5616f", "#8a78b8")
OTHER_COLOUR = "#93999f"
UNCLASSIFIED_COLOUR = "#c2b49a"
INK, GRID = "#7b8188", "#8a9097"

_WIDTH, _HEIGHT = 340, 150  # of the plot, in pixels
_PADDING = {"left": 44, "right": 48, "top": 12, "bottom": 26}
_FONT = "system-ui, sans-serif"
_BAR, _STEP, _SPARK_HEIGHT = 5, 7, 24
_PARTS = re.compile(r' role="graphics-(?:symbol|object)"| aria-roledescription="[^"]*"')


@dataclass(frozen=True)
class ChartSeries:
    """One colour of the chart by day.

    Attributes:
        label: the cause, or what is summed up.
        colour: as `#rrggbb`; `name`: the style sheet's word for it.
        causes: the columns of `Figures.days` that it adds up.
    """

    label: str
    colour: str
    name: str
    causes: tuple[str, ...]


def build_chart_series(figures: ReportFigures) -> list[ChartSeries]:
    """The colours: the day's causes with most harm, the others, the unclassified; empty ones are left out."""
    shown = [cause for cause in figures.causes if cause.cause_id]
    top, rest = shown[:SERIES_SHOWN], shown[SERIES_SHOWN:]
    named = [
        ChartSeries(cause.title, colour, f"s{number}", (cause.cause_id,))
        for number, (cause, colour) in enumerate(zip(top, PALETTE, strict=False), start=1)
    ]
    left = (*(cause.cause_id for cause in rest), OTHER)
    others = ChartSeries("other causes" if named else "all causes", OTHER_COLOUR, "s0", left)
    unknown = ChartSeries("not classified yet", UNCLASSIFIED_COLOUR, "sx", (UNCLASSIFIED,))
    return [
        one for one in (*named, others, unknown) if figures.days[list(one.causes)].to_numpy().any()
    ]


def draw_days_chart(figures: ReportFigures) -> str:
    """Deaths by day, stacked by cause, the day itself in full colour, with the mean of the 14 days before."""
    colours = build_chart_series(figures)
    chart = alt.layer(_stacks(figures, colours), *_mean_line(figures))
    by_day = ", ".join(f"{day}: {deaths}" for day, deaths in figures.days[ALL].items())
    return _drawn(
        chart.to_dict(),
        label=f"Deaths by day. {by_day}. Mean of the days before: {figures.mean:.1f}.",
    )


def draw_hours_chart(figures: ReportFigures) -> str:
    """Deaths by hour of the day, on the day's own clock."""
    data = figures.hours[["label", "deaths"]]
    ticks = [
        label
        for label in data["label"]
        if label[:2] in ("00", "06", "12", "18") and label[2:5] == ":00"
    ]
    x = alt.X(
        "label:N",
        sort=None,
        axis=_axis_x(ticks),
        scale=alt.Scale(paddingInner=0.25, paddingOuter=0.1),
    )
    most = max([*data["deaths"], 0])
    y = alt.Y("deaths:Q", axis=_axis_y(most), scale=_scale_y(most))
    chart = alt.Chart(data).mark_bar(color=PALETTE[0]).encode(x=x, y=y)
    spoken = ", ".join(
        f"{label}: {deaths}" for label, deaths in data.itertuples(index=False) if deaths
    )
    return _drawn(chart.to_dict(), label=f"Deaths by hour. {spoken or 'None'}.")


def draw_trend_chart(deaths: Sequence[tuple[date, int]]) -> str:
    """Deaths by day of the days that have a report, oldest first, for the list of reports."""
    data = pd.DataFrame(
        [(day.isoformat(), count) for day, count in deaths], columns=["day", "deaths"]
    )
    most = max([count for _, count in deaths], default=0)
    shown = [day.isoformat() for day, _ in deaths[:: max(1, len(deaths) // 6)]]
    x = alt.X(
        "day:N",
        sort=None,
        axis=_axis_x(shown),
        scale=alt.Scale(paddingInner=0.25, paddingOuter=0.1),
    )
    y = alt.Y("deaths:Q", axis=_axis_y(most), scale=_scale_y(most))
    chart = alt.Chart(data).mark_bar(color=PALETTE[0]).encode(x=x, y=y)
    return _drawn(
        chart.to_dict(), label="Deaths by day; the table below has the numbers.", width=2 * _WIDTH
    )


def _stacks(figures: ReportFigures, colours: list[ChartSeries]) -> alt.Chart:
    labels = [format_short_day(day) for day in figures.window.days]
    data = pd.DataFrame(
        [
            {"day": label, "series": number, "deaths": int(deaths), "today": label == labels[-1]}
            for number, one in enumerate(colours, start=1)
            for label, deaths in zip(
                labels, figures.days[list(one.causes)].sum(axis=1), strict=True
            )
        ],
        columns=["day", "series", "deaths", "today"],
    )
    numbers = list(range(1, len(colours) + 1))
    palette = alt.Scale(domain=numbers, range=[one.colour for one in colours])
    days = alt.Scale(domain=labels, paddingInner=0.25, paddingOuter=0.1)
    most = max(int(figures.days[ALL].max()), round(figures.mean))
    return (  # type: ignore[no-any-return]
        alt.Chart(data)
        .mark_bar()
        .encode(
            x=alt.X("day:N", sort=None, axis=_axis_x(labels[::2]), scale=days),
            y=alt.Y("deaths:Q", stack="zero", axis=_axis_y(most), scale=_scale_y(most)),
            color=alt.Color("series:O", scale=palette, legend=None),
            order=alt.Order("series:Q"),
            opacity=alt.condition("datum.today", alt.value(1), alt.value(0.6)),
        )
    )


def _mean_line(figures: ReportFigures) -> list[alt.Chart]:
    if not figures.mean:
        return []
    data = pd.DataFrame({"mean": [figures.mean], "text": [f"mean\n{figures.mean:,.0f}"]})
    base = alt.Chart(data).encode(y=alt.Y("mean:Q"))
    text = base.encode(text="text:N").mark_text(
        color=INK,
        x=_WIDTH + 5,
        align="left",
        dy=-3,
        lineBreak="\n",
        font=_FONT,
        fontSize=11,
        fontWeight="bold",
    )
    return [base.mark_rule(color=INK, strokeDash=[4, 3]), text]


def _scale_y(most: int) -> alt.Scale:
    return alt.Scale(domain=[0, max(most, 1)], nice=4)


def _axis_x(values: list[str]) -> alt.Axis:
    return alt.Axis(
        title=None, values=values, labelAngle=0, ticks=False, labelPadding=7, labelOverlap=False
    )


def _axis_y(most: int) -> alt.Axis:
    # From 100,000 on the numbers would leave their margin: 100k.
    shown = "~s" if most >= 100_000 else ",d"  # noqa: PLR2004 - explained above
    return alt.Axis(
        title=None,
        tickCount=4,
        tickMinStep=1,
        format=shown,
        domain=False,
        ticks=False,
        labelPadding=6,
    )


def _drawn(chart: dict[str, Any], *, label: str, width: int = _WIDTH) -> str:
    """The SVG, named for screen readers and free to take the width of its place."""
    svg = str(vlc.vegalite_to_svg(_quiet(chart, width), allowed_base_urls=[]))
    # Parts that are announced as graphics of their own, without a name.
    svg = _PARTS.sub("", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _quiet(chart: dict[str, Any], width: int) -> dict[str, Any]:
    """The same chart in its fixed space, on nothing, in system fonts, with faint lines, its inner names left out."""
    axis = {
        "labelFont": _FONT,
        "labelFontSize": 11,
        "labelColor": INK,
        "gridColor": GRID,
        "gridOpacity": 0.25,
    }
    return chart | {
        "width": width,
        "height": _HEIGHT,
        "padding": _PADDING,
        "autosize": {"type": "none"},
        "config": {
            "aria": False,
            "background": None,
            "view": {"stroke": None},
            "axis": axis,
            "axisX": {
                "grid": False,
                "domainColor": GRID,
                "domainOpacity": 0.6,
                "labelBound": False,
            },
        },
    }


def draw_sparkline(trend: Sequence[int], *, limit: float | None = None) -> str:
    """A cause's deaths by day as small bars on their own scale, the last one (the day) in the accent's colour.

    The dashed line is the limit above which it escalates, where the day is past it. Two paths, not a shape a bar: a
    page has hundreds of these.
    """
    most = max(*trend, 1)
    bars = [_bar(n, round(_SPARK_HEIGHT * deaths / most, 1)) for n, deaths in enumerate(trend)]
    width = _STEP * len(trend) - (_STEP - _BAR)
    past = limit is not None and trend[-1] > limit
    at = round(_SPARK_HEIGHT * (1 - (limit or 0) / most), 1)
    line = f'<path class="limit" d="M0 {at:g}H{width}"/>' if past else ""
    spoken = f"Deaths by day, the day last: {', '.join(map(str, trend))}"
    return (
        f'<svg role="img" aria-label="{spoken}" class="spark" viewBox="0 0 {width} {_SPARK_HEIGHT}" width="{width}" '
        f'height="{_SPARK_HEIGHT}"><path class="past" d="{"".join(bars[:-1])}"/><path d="{bars[-1]}"/>{line}</svg>'
    )


def _bar(number: int, height: float) -> str:
    """A bar; a day without deaths has a hair, so that days can be counted."""
    shown = max(height, 0.5)
    return f"M{_STEP * number} {_SPARK_HEIGHT}v-{shown:g}h{_BAR}v{shown:g}z"
