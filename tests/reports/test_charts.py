"""Tests the charts: equal figures give equal bytes, and no text of an event is in a chart."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree as ET

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.charts import (
    build_chart_series,
    draw_days_chart,
    draw_hours_chart,
    draw_sparkline,
    draw_trend_chart,
)
from dlq_pipelines.reports.figures import CauseFigures, ReportFigures, ReportPolicy, ReportWindow
from dlq_pipelines.reports.read import read_report_figures
from dlq_pipelines.reports.timeline import draw_fix_timeline
from dlq_pipelines.retries.timeline import FixInterval, FixTimeline
from tests.reports.rows import add_cause, add_death, count_again
from tests.reports.story import BERLIN, DAY, NOW, WINDOW


def seven_causes(connection: Connection) -> ReportFigures:
    for number in range(7):
        add_cause(connection, f"c{number}", exception="<script>", template=f'"/><b>{number}')
        for event in range(10 - number):
            add_death(
                connection,
                WINDOW.start + timedelta(hours=event),
                cause=f"c{number}",
                event=number * 100 + event,
                aggregate=str(event),
            )
    add_death(connection, WINDOW.start - timedelta(days=3), event=900)
    count_again(connection)
    return read_report_figures(connection, WINDOW, policy=ReportPolicy(), now=NOW)


def test_equal_figures_give_equal_svg(connection: Connection) -> None:
    """No generated ids and no clock."""
    figures = seven_causes(connection)
    assert draw_days_chart(figures) == draw_days_chart(figures)
    assert draw_hours_chart(figures) == draw_hours_chart(figures)
    assert ' id="' not in draw_days_chart(figures) + draw_hours_chart(figures)


def test_charts_are_well_formed_labelled_and_transparent(connection: Connection) -> None:
    """Numbers for screen readers, the background of the page, and no text of a cause."""
    figures = seven_causes(connection)
    for svg in (
        draw_days_chart(figures),
        draw_hours_chart(figures),
        draw_trend_chart([(DAY, 3), (DAY - timedelta(days=1), 0)]),
    ):
        root = ET.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"].startswith("Deaths by ")
        assert "&lt;" not in svg
        assert "white" not in svg
        assert "style=" not in svg
        assert "href" not in svg.replace("xmlns:xlink", "")
    assert "2026-11-20: 49" in draw_days_chart(figures)


def test_five_causes_have_a_color_and_the_rest_shares_one(connection: Connection) -> None:
    """Five causes, the others together, the unclassified: every death has a color."""
    figures = seven_causes(connection)
    found = build_chart_series(figures)
    assert [one.causes[0] for one in found[:5]] == ["c0", "c1", "c2", "c3", "c4"]
    assert [one.label for one in found[5:]] == ["other causes", "not classified yet"]
    assert len({one.color for one in found}) == len({one.css_class for one in found}) == 7
    drawn = sum(int(figures.days[list(one.causes)].to_numpy().sum()) for one in found)
    assert drawn == 50


def test_a_cause_keeps_its_color_on_days_with_other_ranks(connection: Connection) -> None:
    """Also if a newer cause replaces one of the five. Each has a color of its own."""
    days = (WINDOW, ReportWindow(DAY + timedelta(days=1), BERLIN))
    for number in range(8):
        add_cause(connection, f"v2-{number}")
        for window, deaths in zip(days, (20 - number, 10 + number), strict=True):
            for event in range(deaths if number < 5 or window is days[1] else 0):
                add_death(
                    connection,
                    window.start + timedelta(minutes=number),
                    cause=f"v2-{number}",
                    event=number * 100 + event,
                    aggregate=str(event),
                )
    count_again(connection)
    first, second = (
        read_report_figures(connection, window, policy=ReportPolicy(), now=NOW + timedelta(days=2))
        for window in days
    )
    assert [cause.cause_id[3:] for cause in first.causes] == list("01234")
    assert [cause.cause_id[3:] for cause in second.causes] == list("76543210")
    colors = list_colors(first, first.causes)
    assert len(set(colors.values())) == 5
    assert list_colors(second, [c for c in second.causes if c.cause_id in colors]) == colors
    # A newer cause has the most deaths, and one of the five is gone.
    newest, *older = second.causes[0], *first.causes[1:]
    found = list_colors(second, [newest, *older])
    assert len(set(found.values())) == 5
    assert {**found, **list_colors(first, older)} == found


def list_colors(figures: ReportFigures, causes: Sequence[CauseFigures]) -> dict[str, str]:
    """Return the color of each cause if these causes died on the day."""
    series = build_chart_series(replace(figures, causes=tuple(causes)))
    return {item.causes[0]: item.css_class for item in series[: len(causes)]}


def test_sparkline_has_one_bar_a_day_and_accents_the_last() -> None:
    """Also without deaths. The limit is drawn if the last day is above it."""
    bars = ET.fromstring(draw_sparkline([0, 5, 10]))
    assert [bar.attrib for bar in bars] == [
        {"class": "past", "d": "M0 24v-0.5h5v0.5zM7 24v-12h5v12z"},
        {"d": "M14 24v-24h5v24z"},
    ]
    assert len(ET.fromstring(draw_sparkline([0, 0]))) == 2
    limit = ET.fromstring(draw_sparkline([0, 5, 10], limit=5.0))[2]
    assert limit.attrib == {"class": "limit", "d": "M0 12H19"}
    assert len(ET.fromstring(draw_sparkline([0, 5, 10], limit=10.0))) == 2


def test_a_fix_over_time_has_bars_of_its_outcomes_and_a_line_of_its_releases() -> None:
    """Bars are stacked on one scale, so the highest one reaches the top."""
    intervals = (
        FixInterval(WINDOW.start, released=40),
        FixInterval(WINDOW.start + timedelta(minutes=1), delivered=30, died_again=8, timed_out=2),
        FixInterval(WINDOW.start + timedelta(minutes=2), released=10),
    )
    svg = draw_fix_timeline(FixTimeline(60, intervals), zone=WINDOW.zone, day=DAY)
    root = ET.fromstring(svg)
    assert root.attrib["aria-label"] == (
        "From 00:00 to 00:03: 50 released, 30 delivered, 8 died again, 2 timed out."
    )
    # Of 72 pixels: 14.4, 3.6 and 54 from the bottom up, and the line at the top, 0 and a quarter.
    assert re.findall(r"M71 (\S+)v-(\S+)h8", svg) == [
        ("76.0", "14.4"),
        ("61.6", "3.6"),
        ("58.0", "54.0"),
    ]
    assert "M60 4.0h10V76.0h10V58.0h10" in svg
    assert [text.text for text in root.findall("text")] == ["0.667/s", "0", "00:00", "00:03"]
    before = FixTimeline(60, (FixInterval(WINDOW.start - timedelta(hours=2), released=1),))
    texts = ET.fromstring(draw_fix_timeline(before, zone=WINDOW.zone, day=DAY)).findall("text")
    assert [text.text for text in texts[2:]] == ["19 Nov 22:00", "19 Nov 22:01"]
