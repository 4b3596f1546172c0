"""Draws a fix over time as SVG, for the report and the pages.

In a module of its own without Altair, which takes half a second to import. Equal figures give equal
bytes, and no text of an event is in the picture. Colors are mid-tones that are legible on white and
on near-black.
"""

from datetime import date, datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.day import format_short_day
from dlq_pipelines.retries.timeline import SERIES, FixTimeline, format_rate, list_series

_RELEASED, _DELIVERED, _DIED, _LOST = "#4a7fb5", "#4d9a8a", "#b5616f", "#93999f"
_INK, _GRID, _FONT = "#7b8188", "#8a9097", "system-ui, sans-serif"
_STEP, _HEIGHT, _LEFT, _TOP = 10, 72, 60, 4
# Two times with a date fit below it.
_LEAST_WIDTH = 180
# From the bottom up: died again, no outcome that proves anything, delivered. The failures are few
# in a good fix, and the line of the releases hides what is on top.
_COLORS = (_DIED, _LOST, _DELIVERED)


def draw_fix_timeline(timeline: FixTimeline, *, zone: ZoneInfo, day: date) -> str:
    """Draw how a fix went: its outcomes as stacked bars, and what it released as a line.

    With paths only, because a page has up to 50 of them. The scale is events a second.

    Args:
        timeline: with at least one interval.
        zone: the time zone of the report.
        day: the reported day, whose times have no date.
    """
    heights = [
        (item.died_again, item.timed_out + item.deleted, item.delivered)
        for item in timeline.intervals
    ]
    released = [item.released for item in timeline.intervals]
    most = max(*released, *map(sum, heights), 1)
    scale = _HEIGHT / most
    bars = ["", "", ""]
    for number, parts in enumerate(heights):
        left, below = _LEFT + number * _STEP + 1, 0
        for part, count in enumerate(parts):
            if count:
                bottom = _TOP + _HEIGHT - below * scale
                # An event among thousands is seen.
                height = max(count * scale, 1)
                bars[part] += f"M{left} {bottom:.1f}v-{height:.1f}h{_STEP - 2}v{height:.1f}z"
            below += count
    line = "".join(
        f"{'V' if number else f'M{_LEFT} '}{_TOP + (most - count) * scale:.1f}h{_STEP}"
        for number, count in enumerate(released)
    )
    plot = max(len(released) * _STEP, _LEAST_WIDTH)
    width, bottom = _LEFT + plot + 8, _TOP + _HEIGHT
    first, last = (
        _format_moment(at.astimezone(zone), day) for at in (timeline.start, timeline.end)
    )
    end = _LEFT + len(released) * _STEP
    paths = [
        f'<path d="M{_LEFT} {bottom + 0.5}h{plot}" stroke="{_GRID}" stroke-opacity=".6"/>',
        *(
            f'<path d="{path}" fill="{color}"/>'
            for path, color in zip(bars, _COLORS, strict=True)
            if path
        ),
        f'<path d="{line}" fill="none" stroke="{_RELEASED}" stroke-width="1.5"/>',
    ]
    texts = [
        (_LEFT - 6, _TOP + 8, "end", f"{format_rate(most / timeline.seconds)}/s"),
        (_LEFT - 6, bottom, "end", "0"),
        (_LEFT, bottom + 16, "start", first),
        (max(end, _LEFT + _LEAST_WIDTH), bottom + 16, "end", last),
    ]
    totals = ", ".join(
        f"{sum(counts):,} {SERIES[name]}" for name, counts in list_series(timeline).items()
    )
    label = f"From {first} to {last}: {totals}."
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {bottom + 22}" '
        f'width="{width}" height="{bottom + 22}" font-family="{_FONT}" font-size="11" '
        f'fill="{_INK}">{"".join(paths)}'
        + "".join(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
            for x, y, anchor, text in texts
        )
        + "</svg>"
    )


def _format_moment(at: datetime, day: date) -> str:
    """Return the time of a moment, with its date unless it is on the reported day."""
    return f"{at:%H:%M}" if at.date() == day else f"{format_short_day(at.date())} {at:%H:%M}"
