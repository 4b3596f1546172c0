"""Draws the trend of a cause as SVG, with colors from the style sheet. Only numbers are in it."""

from collections.abc import Sequence

from markupsafe import Markup

_BAR, _STEP, _HEIGHT = 12, 16, 48


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
