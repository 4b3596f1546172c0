"""Does the check of a report find what is wrong with it, and only that?"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dlq_pipelines.causes.catalogue import merge_causes
from dlq_pipelines.causes.fingerprint import cause_key
from dlq_pipelines.operation import Act
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.check import differences
from dlq_pipelines.reports.figures import ALL, Figures, Window
from dlq_pipelines.reports.read import read_figures
from tests.reports import story
from tests.reports.story import BERLIN, DAY


def read(connection: Connection, *, ago: int = 0) -> Figures:
    return read_figures(connection, Window(DAY - timedelta(days=ago), BERLIN), policy=story.POLICY, now=story.NOW)


def test_each_day_of_the_story_equals_the_ledger_before_and_after_it_went_on(connection: Connection) -> None:
    """Backlogs counted back from now are those that are followed forward from each death."""
    told = story.tell(connection)
    for happened in (lambda: None, lambda: story.go_on(told)):
        happened()
        for ago in range(0, 20, 2):
            assert differences(connection, read(connection, ago=ago)) == []


def test_merged_causes_equal_the_ledger(connection: Connection) -> None:
    """Their aggregates are counted once."""
    story.tell(connection)
    merge_causes(connection, cause_key(story.MAIL), into=cause_key(story.REFUSED), act=Act("ann", "one", story.NOW))
    assert differences(connection, read(connection)) == []


@pytest.mark.parametrize("field", ["deaths", "events", "unclassified", "causes"])
def test_a_wrong_total_is_found(connection: Connection, field: str) -> None:
    story.tell(connection)
    figures = read(connection)
    wrong = replace(figures, totals=replace(figures.totals, **{field: getattr(figures.totals, field) + 1}))
    assert any(f"{field} of the day" in found for found in differences(connection, wrong))


@pytest.mark.parametrize(
    "change",
    [
        {"deaths": 1}, {"aggregates": 999}, {"kinds": 5}, {"attempts": (1, 1.0, 9)},
        {"last_seen": story.WINDOW.start}, {"cause_id": "v1-0"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_cause_is_found(connection: Connection, change: dict[str, Any]) -> None:
    story.tell(connection)
    figures = read(connection)
    first, *others = figures.causes
    assert differences(connection, replace(figures, causes=(replace(first, **change), *others)))


@pytest.mark.parametrize(
    "field", ["before", "open", "parked", "died", "restored", "retried", "archived", "succeeded", "died_again"]
)
def test_a_wrong_backlog_is_found(connection: Connection, field: str) -> None:
    story.tell(connection)
    figures = read(connection)
    wrong = replace(figures, backlog=replace(figures.backlog, **{field: getattr(figures.backlog, field) + 1}))
    assert len(differences(connection, wrong)) == 1


def test_wrong_days_hours_types_fixes_and_retentions_are_found(connection: Connection) -> None:
    story.tell(connection)
    figures = read(connection)
    days, hours, matrix = figures.days.copy(), figures.hours.copy(), figures.matrix.copy()
    days.loc[days.index[3], ALL] += 1
    hours.loc[8, "deaths"] += 1
    matrix.iloc[0, 0] += 1
    first, *others = figures.fixes
    stage = replace(first.stages[0], done=3)
    for wrong in (
        {"days": days},
        {"hours": hours},
        {"matrix": matrix},
        {"fixes": (replace(first, stages=(stage,)), *others)},
        {"fixes_found": 9},
        {"ahead": replace(figures.ahead, archived=1)},
        {"ahead": replace(figures.ahead, purged=1)},
    ):
        assert len(differences(connection, replace(figures, **wrong))) == 1, wrong  # type: ignore[arg-type]
