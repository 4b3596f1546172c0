"""Draws the small charts of the pages as SVG, with colors from the style sheet.

The charts of the report need Altair, which this server does not load. Only numbers and times are in
a chart, never a text of an event.
"""

from collections.abc import Sequence
from datetime import tzinfo
from html import escape

from markupsafe import Markup

from dlq_pipelines.day import convert_to_zone
from dlq_pipelines.retries.timeline import SERIES, FixTimeline, format_rate, list_series

_BAR, _STEP, _HEIGHT = 12, 16, 48
_COLUMN, _PLOT, _LEFT, _TOP = 12, 96, 64, 6
_LEAST_PLOT = 240
# The parts of a bar from below, with the class of their color.
_PARTS = (
    ("died", ("died_again",)),
    ("lost", ("timed_out", "deleted")),
    ("good", ("delivered",)),
)


def draw_trend(deaths: Sequence[int]) -> Markup:
    """Draw deaths by day as bars, the last day in the accent color."""
    most = max(*deaths, 1)
    bars = "".join(
        f'<rect class="{"today" if number == len(deaths) - 1 else "past"}" x="{number * _STEP}" '
        f'y="{_HEIGHT - height:g}" width="{_BAR}" height="{height:g}"/>'
        for number, count in enumerate(deaths)
        # One death among thousands is seen.
        if (height := max(round(_HEIGHT * count / most, 1), 1.5 if count else 0.5))
    )
    width = len(deaths) * _STEP - (_STEP - _BAR)
    label = f"Deaths by day, today last: {', '.join(map(str, deaths))}"
    return Markup(  # noqa: S704 - numbers only
        f'<svg class="trend" role="img" aria-label="{label}" viewBox="0 0 {width} {_HEIGHT}" '
        f'width="{width}" height="{_HEIGHT}">{bars}</svg>'
    )


def draw_timeline(timeline: FixTimeline, *, zone: tzinfo) -> Markup:
    """Draw what became of a fix's events as stacked bars, and what it released as a line.

    Args:
        timeline: with at least one interval.
        zone: the time zone of its times.
    """
    heights = [
        [sum(getattr(item, name) for name in names) for _, names in _PARTS]
        for item in timeline.intervals
    ]
    released = [item.released for item in timeline.intervals]
    most = max(*released, *map(sum, heights), 1)
    scale, bottom = _PLOT / most, _TOP + _PLOT
    shapes = []
    for number, counts in enumerate(heights):
        below = 0.0
        for (kind, _), count in zip(_PARTS, counts, strict=True):
            if count:
                height = max(count * scale, 1.5)
                shapes.append(
                    f'<rect class="{kind}" x="{_LEFT + number * _COLUMN + 1}" '
                    f'y="{bottom - below - height:.1f}" width="{_COLUMN - 2}" '
                    f'height="{height:.1f}"/>'
                )
                below += height
    line = "".join(
        f"{'V' if number else f'M{_LEFT} '}{_TOP + (most - count) * scale:.1f}h{_COLUMN}"
        for number, count in enumerate(released)
    )
    plot = max(len(released) * _COLUMN, _LEAST_PLOT)
    first, last = (
        f"{convert_to_zone(at, zone):%Y-%m-%d %H:%M}" for at in (timeline.start, timeline.end)
    )
    texts = (
        (_LEFT - 6, _TOP + 10, "end", f"{format_rate(most / timeline.seconds)}/s"),
        (_LEFT - 6, bottom, "end", "0"),
        (_LEFT, bottom + 18, "start", first),
        (_LEFT + plot, bottom + 18, "end", last),
    )
    written = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
        for x, y, anchor, text in texts
    )
    totals = ", ".join(
        f"{sum(counts):,} {SERIES[name]}" for name, counts in list_series(timeline).items()
    )
    width, height = _LEFT + plot + 8, bottom + 26
    return Markup(  # noqa: S704 - numbers and times only
        f'<svg class="timeline" role="img" aria-label="From {first} to {last}: {totals}." '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<path class="axis" d="M{_LEFT} {bottom + 0.5}h{plot}"/>{"".join(shapes)}'
        f'<path class="released" d="{line}"/>{written}</svg>'
    )
