"""Tests that the recount finds wrong figures of a report, and no others."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import merge_causes
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ALL, ReportFigures, ReportWindow
from dlq_pipelines.reports.read import read_report_figures
from tests.reports import story
from tests.reports.recount import find_report_differences
from tests.reports.rows import add_cause, add_death, count_again
from tests.reports.story import BERLIN, DAY
from tests.shapes import ShapedOutbox


def read(connection: Connection, *, ago: int = 0) -> ReportFigures:
    return read_report_figures(
        connection,
        ReportWindow(DAY - timedelta(days=ago), BERLIN),
        policy=story.POLICY,
        now=story.NOW,
    )


def test_days_of_the_story_equal_the_ledger_then_and_later(outbox: ShapedOutbox) -> None:
    """A backlog counted back from now equals one followed forward from each death."""
    connection = outbox.connection
    played = story.create_story(outbox)
    for continues in (False, True):
        if continues:
            story.continue_story(played)
        for ago in range(0, 20, 2):
            assert find_report_differences(connection, read(connection, ago=ago)) == []


def test_merged_causes_equal_the_ledger(outbox: ShapedOutbox) -> None:
    """An aggregate that both affected is counted once."""
    connection = outbox.connection
    story.create_story(outbox)
    merge_causes(
        connection,
        compute_cause_id(story.MAIL),
        into=compute_cause_id(story.REFUSED),
        audit=AuditContext("ann", "one", story.NOW),
    )
    assert find_report_differences(connection, read(connection)) == []


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 10, 25), 25), (date(2026, 3, 29), 23)],
    ids=["clock goes back", "clock goes forward"],
)
def test_days_with_a_clock_change_equal_the_ledger(
    connection: Connection, day: date, hours: int
) -> None:
    """A death in each hour, also in the repeated one, and one before and after the day."""
    window = ReportWindow(day, BERLIN)
    add_cause(connection, "c")
    for hour in range(-1, hours + 1):
        add_death(
            connection,
            window.start + timedelta(hours=hour, minutes=59),
            cause="c",
            event=100 + hour,
        )
    count_again(connection)
    figures = read_report_figures(connection, window, policy=story.POLICY, now=story.NOW)
    assert figures.totals.deaths == hours
    assert find_report_differences(connection, figures) == []


def test_many_event_types_of_a_cause_equal_the_ledger(connection: Connection) -> None:
    """A type that is frequent on the day and rare in a cause is in the cause's row."""
    window = story.WINDOW
    for cause in ("many", "one"):
        add_cause(connection, cause)
    kinds = [f"type {n:02}" for n in range(20) for _ in range(2)] + ["common"]
    for event, kind in enumerate(kinds):
        add_death(
            connection,
            window.start,
            cause="many",
            event=event,
            event_type=kind,
            aggregate=str(event),
        )
    for event in range(30):
        add_death(connection, window.start, cause="one", event=100 + event, event_type="common")
    count_again(connection)
    figures = read_report_figures(connection, window, policy=story.POLICY, now=story.NOW)
    assert figures.matrix.loc["many", "common"] == 1
    assert figures.matrix.loc["one", "common"] == 30
    assert find_report_differences(connection, figures) == []


@pytest.mark.parametrize("field", ["deaths", "events", "unclassified", "causes"])
def test_a_wrong_total_is_found(connection: Connection, field: str) -> None:
    story.create_story(connection)
    figures = read(connection)
    wrong = replace(
        figures, totals=replace(figures.totals, **{field: getattr(figures.totals, field) + 1})
    )
    assert any(
        f"{field} of the day" in found for found in find_report_differences(connection, wrong)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"deaths": 1}, {"aggregates": 999}, {"event_type_count": 5}, {"attempts": (1, 1.0, 9)},
        {"last_seen": story.WINDOW.start}, {"cause_id": "v2-0"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_cause_is_found(connection: Connection, change: dict[str, Any]) -> None:
    story.create_story(connection)
    figures = read(connection)
    first, *others = figures.causes
    assert find_report_differences(
        connection, replace(figures, causes=(replace(first, **change), *others))
    )


@pytest.mark.parametrize(
    "field",
    [
        "dead_at_start",
        "dead_at_end",
        "parked",
        "died",
        "restored",
        "retried",
        "archived",
        "delivered",
        "died_again",
    ],
)
def test_a_wrong_backlog_is_found(connection: Connection, field: str) -> None:
    story.create_story(connection)
    figures = read(connection)
    wrong = replace(
        figures, backlog=replace(figures.backlog, **{field: getattr(figures.backlog, field) + 1})
    )
    assert len(find_report_differences(connection, wrong)) == 1


def test_wrong_days_hours_types_fixes_and_retentions_are_found(connection: Connection) -> None:
    story.create_story(connection)
    figures = read(connection)
    days, hours, matrix = figures.days.copy(), figures.hours.copy(), figures.matrix.copy()
    days[ALL] += days.index == days.index[3]
    hours["deaths"] += hours.index == 8
    matrix[matrix.columns[0]] += matrix.index == matrix.index[0]
    moved = figures.matrix.copy()
    moved[moved.columns[0]] += (moved.index == moved.index[1]).astype(int) - (
        moved.index == moved.index[0]
    )
    first, *others = figures.fixes
    stage = replace(first.stages[0], delivered=3)
    changes: tuple[dict[str, Any], ...] = (
        {"days": days},
        {"hours": hours},
        {"matrix": matrix},
        {"matrix": moved},
        {"fixes": (replace(first, stages=(stage,)), *others)},
        {"fixes_found": 9},
        {"upcoming": replace(figures.upcoming, archived=1)},
        {"upcoming": replace(figures.upcoming, purged=1)},
    )
    for change in changes:
        found = find_report_differences(connection, replace(figures, **change))
        assert 1 <= len(found) <= 2, change
