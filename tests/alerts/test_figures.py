"""What rules are told is what is the case in the database, without what is muted."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.alerts.alert import AlertPolicy, evaluate
from dlq_pipelines.alerts.figures import read_figures
from dlq_pipelines.alerts.rules import Figures, Thresholds
from dlq_pipelines.causes.catalogue import merge_causes, mute_cause
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.operation import Act
from dlq_pipelines.postgres.connect import Connection
from tests.rows import add_events, kill, one, park

NOW = datetime.now(UTC)
ACT = Act("ann", "known", NOW)
Read = Callable[..., Figures]


@pytest.fixture
def read(connection: Connection) -> Read:
    """The figures, as the sensor reads them."""

    def ask(now: datetime = NOW, **changed: Any) -> Figures:
        asked: dict[str, Any] = {
            "now": now,
            "thresholds": Thresholds(min_deaths=2),
            "max_retries": 3,
            "archive_retention_days": 365,
        }
        with connection.transaction():
            return read_figures(connection, **asked | changed)

    return ask


def classified(connection: Connection, error: str = "KeyError: 1", count: int = 3) -> str:
    """Events that died of one cause; its id."""
    add_events(connection, count)
    kill(connection, error, where="status = 'pending'")
    (cause,) = classify_deaths(connection, zone=ZoneInfo("UTC")).new_causes
    return cause


def test_where_nothing_died_there_is_nothing(read: Read) -> None:
    assert read() == Figures(NOW)


def test_what_is_dead_and_new_is_told_and_what_is_muted_is_not(connection: Connection, read: Read) -> None:
    """A merged cause is muted with the one that it is shown as."""
    loud, quiet = classified(connection), classified(connection, "TimeoutError: x", 5)
    merged = classified(connection, "OSError: x", 7)
    now = datetime.now(UTC)
    before = read(now)
    assert (before.backlog, before.window, {cause.id for cause in before.new_causes}) == (
        15,
        {"order.placed": 15},
        {loud, quiet, merged},
    )
    assert {cause.event_type for cause in before.new_causes} == {"order.placed"}
    merge_causes(connection, merged, into=quiet, act=ACT)
    assert {cause.id for cause in read(now).new_causes} == {loud, quiet}
    mute_cause(connection, quiet, now + timedelta(days=1), act=replace(ACT, now=now))
    after = read(now)
    assert (after.backlog, after.window, [cause.id for cause in after.new_causes]) == (3, {"order.placed": 3}, [loud])
    assert (
        read(now + timedelta(minutes=50)).oldest
        == one(connection, "select min(dead_at) as at from outbox_event where id <= 3")["at"]
    )
    later = read(now + timedelta(days=2))
    assert (later.backlog, later.window, later.new_causes) == (15, {}, ())


def test_what_is_usual_has_the_hours_without_deaths_in_it(connection: Connection, read: Read) -> None:
    """From when anything was first recorded, two weeks at most, up to the hour before the window."""
    classified(connection)
    assert read().usual == {"order.placed": []}
    hour = NOW.replace(minute=0, second=0, microsecond=0)
    for ago, deaths in ((3, 7), (30, 5), (1, 100), (0, 100)):
        connection.execute(
            "insert into dlq.death_hour values (%s, 'order.placed', %s) on conflict (hour, event_type) do update set"
            " deaths = excluded.deaths",
            [hour - timedelta(hours=ago), deaths],
        )
    usual = read().usual["order.placed"]
    assert (len(usual), sum(usual), usual.count(0)) == (29, 12, 27)
    connection.execute("insert into dlq.death_hour values (%s, 'order.placed', 9)", [hour - timedelta(days=60)])
    usual = read().usual["order.placed"]
    assert (len(usual), sum(usual)) == (336, 12)


def test_a_burst_of_one_type_is_told_and_not_of_another(connection: Connection) -> None:
    """From death to alert, with nothing but rows in between."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    add_events(connection, 25, event_type="order.paid")
    add_events(connection, 25)
    kill(connection, "KeyError: 1")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    for event_type, deaths in (("order.paid", 30), ("order.placed", 1)):
        connection.execute(
            "insert into dlq.death_hour select %s - n * interval '1 hour', %s, %s from generate_series(2, 400) n",
            [hour, event_type, deaths],
        )
    changed = evaluate(connection, now=datetime.now(UTC), policy=AlertPolicy())
    assert changed is not None
    told = {one.alert.key: one.alert for one in changed}
    assert "deaths:order.paid" not in told
    assert told["deaths:order.placed"].summary == "25 events of order.placed died within an hour"
    assert told["deaths:order.placed"].event_type == "order.placed"


def test_what_a_fix_and_a_cause_came_to_is_told(connection: Connection, read: Read) -> None:
    cause = classified(connection)
    connection.execute("update dlq.cause set status = 'regressed', fixed_at = now() where id = %s", [cause])
    (regressed,) = read().regressed
    assert regressed.id == cause
    flag = (
        "insert into dlq.fix (cause_id, note, flagged_by, flagged_at, status, verdict, closed_at)"
        " values (%s, 'mended', 'ann', now(), %s, %s, %s)"
    )
    connection.execute(flag, [cause, "halted", "3 of 10 died again", NOW - timedelta(days=1)])
    (halted,) = read().halted
    assert (halted.note, halted.verdict) == ("mended", "3 of 10 died again")
    connection.execute(flag, [cause, "active", None, None])
    assert read().halted == ()


def test_parked_and_old_events_and_a_purge_ahead_are_told(connection: Connection, read: Read) -> None:
    classified(connection)
    park(connection, [1, 2])
    assert read().parked == 2
    connection.execute(
        "insert into outbox_event_archive (id, aggregate_type, aggregate_id, event_type, payload, status, attempts,"
        " next_run_at, created_at, dead_at, archived_at) select 1000 + n, 'order', '1', 'x', '{}', 'dead', 1, now(),"
        " now(), now(), %s::timestamptz - n * interval '1 day' from generate_series(350, 370) n",
        [NOW],
    )
    assert read().purged_soon == 12
    assert read(archive_retention_days=0).purged_soon == 0
    assert read(archive_retention_days=400).purged_soon == 0
