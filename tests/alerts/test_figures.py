"""What rules are told is what is the case in the database, without what is muted."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.alerts.alert import AlertPolicy, NoticeKind, evaluate_alerts
from dlq_pipelines.alerts.figures import read_alert_figures
from dlq_pipelines.alerts.routes import Route
from dlq_pipelines.alerts.rules import AlertFigures, Thresholds
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import merge_causes, mute_cause
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import add_events, kill, one, park

NOW = datetime.now(UTC)
AUDIT = AuditContext("ann", "known", NOW)
Read = Callable[..., AlertFigures]


@pytest.fixture
def read(connection: Connection) -> Read:
    """The figures, as the sensor reads them."""

    def ask(now: datetime = NOW, **changed: Any) -> AlertFigures:
        asked: dict[str, Any] = {
            "now": now,
            "thresholds": Thresholds(min_deaths=2),
            "max_retries": 3,
            "archive_retention_days": 365,
        }
        with connection.transaction():
            return read_alert_figures(connection, **asked | changed)

    return ask


def classified(connection: Connection, error: str = "KeyError: 1", count: int = 3) -> str:
    """Events that died of one cause; its id."""
    add_events(connection, count)
    kill(connection, error, where="status = 'pending'")
    (cause,) = classify_deaths(connection, zone=ZoneInfo("UTC")).new_causes
    return cause


def test_where_nothing_died_there_is_nothing(read: Read) -> None:
    assert read() == AlertFigures(NOW)


def test_what_is_dead_and_new_is_told_and_what_is_muted_is_not(
    connection: Connection, read: Read
) -> None:
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
    merge_causes(connection, merged, into=quiet, audit=AUDIT)
    assert {cause.id for cause in read(now).new_causes} == {loud, quiet}
    mute_cause(connection, quiet, now + timedelta(days=1), audit=replace(AUDIT, now=now))
    after = read(now)
    assert (after.backlog, after.window, [cause.id for cause in after.new_causes]) == (
        3,
        {"order.placed": 3},
        [loud],
    )
    assert (
        read(now + timedelta(minutes=50)).oldest
        == one(connection, "select min(dead_at) as at from outbox_event where id <= 3")["at"]
    )
    later = read(now + timedelta(days=2))
    assert (later.backlog, later.window, later.new_causes) == (15, {}, ())


def test_a_muted_crowd_hides_nothing_else(
    connection: Connection, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked for is counted after what is muted was left out, up to one more than the threshold."""
    monkeypatch.setattr("dlq_pipelines.alerts.figures.LOOKBACK", 5)
    monkeypatch.setattr("dlq_pipelines.alerts.figures.DEATHS_LOOKBACK", 5)
    quiet = classified(connection, count=1_100)
    classified(connection, "TimeoutError: x", 7)
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) select 'o', 'a', 'e', '{}'"
        " from generate_series(1, 1100)"
    )
    kill(connection, "KeyError: 1", where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    now = datetime.now(UTC)
    mute_cause(connection, quiet, now + timedelta(days=1), audit=replace(AUDIT, now=now))
    found = read(now, thresholds=Thresholds(backlog=6, min_deaths=2))
    loud = one(connection, "select min(died_at) as at from dlq.death where error like 'Timeout%%'")[
        "at"
    ]
    assert (found.backlog, found.oldest, found.window) == (7, loud, {"order.placed": 5})


def test_a_question_that_takes_too_long_silences_no_other(
    connection: Connection, database: Database, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told itself, and what it would have found is not taken to be over."""
    classified(connection)
    park(connection, [1, 2])
    policy, now = AlertPolicy(Thresholds(backlog=2)), datetime.now(UTC)
    told = evaluate_alerts(connection, now=now, policy=policy)
    assert told is not None
    assert {one.alert.key for one in told} >= {"backlog", "parked"}
    monkeypatch.setattr("dlq_pipelines.alerts.figures._PATIENCE", "1s")
    with database.connect() as other, other.transaction():
        other.execute("lock table dlq.retry in access exclusive mode")
        figures = read(now)
        assert (figures.timed_out, figures.backlog, figures.parked) == ({"parked"}, 3, 0)
        told = [
            evaluate_alerts(connection, now=now + timedelta(minutes=minutes), policy=policy)
            for minutes in (1, 30)
        ]
    assert [[(one.alert.key, one.notice) for one in turns or ()] for turns in told] == [
        [("slow:parked", NoticeKind.FIRED)],
        [],
    ]


def test_a_list_that_is_cut_ends_no_alert(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert that newer ones have pushed out of the list is not over."""
    monkeypatch.setattr("dlq_pipelines.alerts.figures._LIST", 2)
    add = (
        "insert into dlq.check_result (name, passed, severity, figures, checked_at)"
        " values (%s, false, 'info', '{}', now())"
    )
    connection.execute(add, ["z"])
    assert _told(connection, NOW) == [("check:z", NoticeKind.FIRED)]
    for name in "ab":
        connection.execute(add, [name])
    assert _told(connection, NOW + timedelta(minutes=1)) == [
        ("check:a", NoticeKind.FIRED),
        ("check:b", NoticeKind.FIRED),
    ]
    assert _told(connection, NOW + timedelta(minutes=20)) == []
    connection.execute("update dlq.check_result set passed = true where name in ('a', 'z')")
    assert _told(connection, NOW + timedelta(minutes=21)) == [("check:a", None), ("check:z", None)]
    assert _told(connection, NOW + timedelta(minutes=31)) == [
        ("check:a", NoticeKind.RESOLVED),
        ("check:z", NoticeKind.RESOLVED),
    ]


def test_what_only_grew_old_or_was_muted_ends_too_and_says_that_nothing_is_mended(
    connection: Connection,
) -> None:
    """What opened an incident closes it, and nobody takes that for a repair."""
    cause, other = classified(connection), classified(connection, "TimeoutError: x")
    now = datetime.now(UTC)
    policy = AlertPolicy(routes=(Route("json://localhost"),))
    evaluate_alerts(connection, now=now, policy=policy)
    connection.execute(
        "update dlq.cause set status = 'regressed', fixed_at = now() where id = %s", [cause]
    )
    connection.execute(
        "insert into dlq.fix (event_type, note, flagged_by, flagged_at, status, verdict, closed_at)"
        " values ('order.placed', 'mended', 'ann', now(), 'halted', 'no', now())"
    )
    evaluate_alerts(connection, now=now + timedelta(minutes=1), policy=policy)
    mute_cause(connection, cause, now + timedelta(days=30), audit=replace(AUDIT, now=now))
    for later in (
        timedelta(minutes=2),
        timedelta(minutes=12),
        timedelta(days=4),
        timedelta(days=4, minutes=10),
    ):
        evaluate_alerts(connection, now=now + later, policy=policy)
    ends = connection.execute(
        "select key, detail from dlq.alert_notice where kind = 'resolved'"
    ).fetchall()
    muted = "It was muted, not mended."
    assert {row["key"]: row["detail"].partition(" UTC. ")[2] for row in ends} == {
        f"new_cause:{cause}": muted,
        f"regressed:{cause}": muted,
        f"new_cause:{other}": "It is not new any more, which does not say that it is mended.",
        "halted:1": "It is some days ago or a later fix was flagged, which does not say that anything is mended.",
    }
    assert one(connection, "select count(*) from dlq.alert where resolved_at is null") == {
        "count": 0
    }


def test_the_end_of_a_count_says_that_something_is_muted(connection: Connection) -> None:
    """Whoever reads that it is over has to know that it may only be unheard."""
    classified(connection, count=2)
    quiet = classified(connection, "TimeoutError: x", 2)
    now = datetime.now(UTC)
    policy = AlertPolicy(Thresholds(backlog=3), routes=(Route("json://localhost"),))

    def over(minutes: int) -> str:
        for later in (minutes, minutes + 11):
            evaluate_alerts(connection, now=now + timedelta(minutes=later), policy=policy)
        last = "select detail from dlq.alert_notice where kind = 'resolved' and key = 'backlog' order by id desc limit 1"
        return str(one(connection, last)["detail"])

    evaluate_alerts(connection, now=now, policy=policy)
    mute_cause(connection, quiet, now + timedelta(minutes=30), audit=replace(AUDIT, now=now))
    assert over(1).endswith(
        "Events of muted causes are not counted: `dlq causes list` says which those are."
    )
    evaluate_alerts(connection, now=now + timedelta(minutes=40), policy=policy)
    connection.execute("update outbox_event set status = 'done'")
    assert "muted" not in over(41)


def _told(connection: Connection, now: datetime) -> list[tuple[str, NoticeKind | None]]:
    """What changed, and what is told of it."""
    turns = evaluate_alerts(connection, now=now, policy=AlertPolicy())
    assert turns is not None
    return sorted((one.alert.key, one.notice) for one in turns)


def test_what_is_usual_has_the_hours_without_deaths_in_it(
    connection: Connection, read: Read
) -> None:
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
    connection.execute(
        "insert into dlq.death_hour values (%s, 'order.placed', 9)", [hour - timedelta(days=60)]
    )
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
    changed = evaluate_alerts(connection, now=datetime.now(UTC), policy=AlertPolicy())
    assert changed is not None
    told = {one.alert.key: one.alert for one in changed}
    assert "deaths:order.paid" not in told
    assert told["deaths:order.placed"].summary == "25 events of order.placed died within an hour"
    assert told["deaths:order.placed"].event_type == "order.placed"


def test_what_a_fix_and_a_cause_came_to_is_told(connection: Connection, read: Read) -> None:
    cause = classified(connection)
    connection.execute(
        "update dlq.cause set status = 'regressed', fixed_at = now() where id = %s", [cause]
    )
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


def test_parked_and_old_events_and_a_purge_ahead_are_told(
    connection: Connection, read: Read
) -> None:
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
