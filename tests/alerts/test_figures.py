"""Tests the figures that the rules read from the database, without muted causes."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.alerts.alert import AlertPolicy, NoticeKind, evaluate_alerts, list_alerts
from dlq_pipelines.alerts.figures import read_alert_figures
from dlq_pipelines.alerts.routes import Route
from dlq_pipelines.alerts.rules import AlertFigures, HealedCause, Thresholds, evaluate_rules
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import merge_causes, mute_cause, set_cause_text
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.reports.figures import ReportPolicy, ReportWindow
from dlq_pipelines.reports.read import read_report_figures
from dlq_pipelines.reports.states import CauseState
from tests.reports.rows import add_cause as add_planted_cause
from tests.reports.rows import add_death, count_again
from tests.rows import add_events, kill, one, park

NOW = datetime.now(UTC)
AUDIT = AuditContext("ann", "known", NOW)
ReadFigures = Callable[..., AlertFigures]


@pytest.fixture
def read(connection: Connection) -> ReadFigures:
    """Read the figures as the sensor reads them."""

    def read_figures(now: datetime = NOW, **changed: Any) -> AlertFigures:
        arguments: dict[str, Any] = {
            "now": now,
            "thresholds": Thresholds(min_deaths=2),
            "max_retries": 3,
            "archive_retention_days": 365,
        }
        with connection.transaction():
            return read_alert_figures(connection, **arguments | changed)

    return read_figures


def evaluate(
    connection: Connection, now: datetime, policy: AlertPolicy | None = None
) -> list[tuple[str, NoticeKind | None]]:
    """Evaluate the rules; return the key and the notice of each alert that changed."""
    changed = evaluate_alerts(connection, now=now, policy=policy or AlertPolicy())
    assert changed is not None
    return sorted((transition.alert.key, transition.notice) for transition in changed)


def add_cause(connection: Connection, error: str = "KeyError: 1", count: int = 3) -> str:
    """Add events that died of a new cause; return the id of the cause."""
    add_events(connection, count)
    kill(connection, error, where="status = 'pending'")
    (cause,) = classify_deaths(connection, zone=ZoneInfo("UTC")).new_causes
    return cause


def test_without_deaths_all_figures_are_empty(read: ReadFigures) -> None:
    found = read()
    assert found == AlertFigures(NOW, began=found.began)


def test_figures_exclude_muted_causes(connection: Connection, read: ReadFigures) -> None:
    """A merged cause is muted together with the cause that it was merged into."""
    loud, quiet = add_cause(connection), add_cause(connection, "TimeoutError: x", 5)
    merged = add_cause(connection, "OSError: x", 7)
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
    oldest = one(connection, "select min(died_at) from dlq.dead where event_id <= 3")["min"]
    assert read(now + timedelta(minutes=50)).oldest == oldest
    later = read(now + timedelta(days=2))
    assert (later.backlog, later.window, later.new_causes) == (15, {}, ())


def test_many_muted_events_hide_no_others(
    connection: Connection, read: ReadFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Muted events are left out before the limits of the statements apply."""
    monkeypatch.setattr("dlq_pipelines.alerts.figures.DEATHS_LOOKBACK", 5)
    quiet = add_cause(connection, count=1_100)
    add_cause(connection, "TimeoutError: x", 7)
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
        " select 'o', 'a', 'e', '{}' from generate_series(1, 1100)"
    )
    kill(connection, "KeyError: 1", where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    now = datetime.now(UTC)
    mute_cause(connection, quiet, now + timedelta(days=1), audit=replace(AUDIT, now=now))
    found = read(now, thresholds=Thresholds(backlog=6, min_deaths=2))
    first = "select min(died_at) from dlq.death where error like 'Timeout%%'"
    assert (found.backlog, found.oldest, found.window) == (
        7,
        one(connection, first)["min"],
        {"order.placed": 5},
    )


def test_a_rule_that_times_out_is_logged_and_its_alerts_last(
    connection: Connection,
    database: Database,
    read: ReadFigures,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other rules are evaluated."""
    add_cause(connection)
    park(connection, [1, 2])
    policy, now = AlertPolicy(Thresholds(backlog=2)), datetime.now(UTC)
    fired = [("backlog", NoticeKind.FIRED), ("parked", NoticeKind.FIRED)]
    assert set(evaluate(connection, now, policy)) >= set(fired)
    monkeypatch.setattr("dlq_pipelines.alerts.figures._STATEMENT_TIMEOUT", "2s")
    with (
        caplog.at_level(logging.WARNING, "dlq.alerts"),
        database.connect() as other,
        other.transaction(),
    ):
        other.execute("lock table dlq.retry in access exclusive mode")
        figures = read(now)
        assert figures.timed_out == frozenset({"parked"})
        assert (figures.backlog, figures.parked) == (3, 0)
        connection.execute("update outbox_event set status = 'done' where id = 3")
        assert evaluate(connection, now + timedelta(minutes=1), policy) == [("backlog", None)]
        assert evaluate(connection, now + timedelta(minutes=30), policy) == [
            ("backlog", NoticeKind.RESOLVED)
        ]
    assert caplog.messages == ["Alert rule parked timed out."] * 3
    (parked,) = [alert for alert in list_alerts(connection) if alert.key == "parked"]
    assert (parked.resolved_at, parked.missing_since) == (None, None)


def test_an_incomplete_list_resolves_no_alert(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of the list can exclude the finding of an alert that lasts."""
    monkeypatch.setattr("dlq_pipelines.alerts.figures._MAX_LISTED", 2)
    add = (
        "insert into dlq.check_result (name, passed, severity, figures, checked_at)"
        " values (%s, false, 'info', '{}', now())"
    )
    connection.execute(add, ["z"])
    assert evaluate(connection, NOW) == [("check:z", NoticeKind.FIRED)]
    for name in "ab":
        connection.execute(add, [name])
    assert evaluate(connection, NOW + timedelta(minutes=1)) == [
        ("check:a", NoticeKind.FIRED),
        ("check:b", NoticeKind.FIRED),
    ]
    assert evaluate(connection, NOW + timedelta(minutes=20)) == []
    connection.execute("update dlq.check_result set passed = true where name in ('a', 'z')")
    assert evaluate(connection, NOW + timedelta(minutes=21)) == [
        ("check:a", None),
        ("check:z", None),
    ]
    assert evaluate(connection, NOW + timedelta(minutes=31)) == [
        ("check:a", NoticeKind.RESOLVED),
        ("check:z", NoticeKind.RESOLVED),
    ]


def test_the_resolution_of_an_old_or_muted_alert_says_that_its_cause_is_not_resolved(
    connection: Connection,
) -> None:
    cause, other = add_cause(connection), add_cause(connection, "TimeoutError: x")
    now = datetime.now(UTC)
    policy = AlertPolicy(routes=(Route("json://localhost"),))
    evaluate_alerts(connection, now=now, policy=policy)
    connection.execute(
        "update dlq.cause set status = 'regressed', fixed_at = now() where id = %s", [cause]
    )
    connection.execute(
        "insert into dlq.fix (event_type, note, flagged_by, flagged_at, status, verdict, closed_at)"
        " values ('order.placed', 'fixed', 'ann', now(), 'halted', 'no', now())"
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
    muted = "The cause was muted, not resolved."
    assert {row["key"]: row["detail"].partition(" UTC. ")[2] for row in ends} == {
        f"new_cause:{cause}": muted,
        f"regressed:{cause}": muted,
        f"new_cause:{other}": (
            "The cause is no longer new. That does not mean that it is resolved."
        ),
        "halted:1": (
            "The halt is some days old, or a later fix was flagged. "
            "That does not mean that the cause is resolved."
        ),
    }
    assert one(connection, "select count(*) from dlq.alert where resolved_at is null") == {
        "count": 0
    }


def test_the_resolution_of_a_count_mentions_muted_causes(connection: Connection) -> None:
    """Its reader has to know that the figure may have fallen only because a cause was muted."""
    add_cause(connection, count=2)
    quiet = add_cause(connection, "TimeoutError: x", 2)
    now = datetime.now(UTC)
    policy = AlertPolicy(Thresholds(backlog=3), routes=(Route("json://localhost"),))

    def resolve(minutes: int) -> str:
        """Resolve the alert; return the detail of the notice."""
        for later in (minutes, minutes + 11):
            evaluate_alerts(connection, now=now + timedelta(minutes=later), policy=policy)
        last = (
            "select detail from dlq.alert_notice where kind = 'resolved' and key = 'backlog'"
            " order by id desc limit 1"
        )
        return str(one(connection, last)["detail"])

    evaluate_alerts(connection, now=now, policy=policy)
    mute_cause(connection, quiet, now + timedelta(minutes=30), audit=replace(AUDIT, now=now))
    assert resolve(1).endswith("Muted causes are not counted; `dlq causes list` shows them.")
    evaluate_alerts(connection, now=now + timedelta(minutes=40), policy=policy)
    connection.execute("update outbox_event set status = 'done'")
    assert "muted" not in resolve(41)


def test_the_baseline_includes_hours_without_deaths(
    connection: Connection, read: ReadFigures
) -> None:
    """It begins with the first recorded hour, at most two weeks ago, and ends before the window."""
    add_cause(connection)
    assert read().baseline == {"order.placed": []}
    hour = NOW.replace(minute=0, second=0, microsecond=0)
    for ago, deaths in ((3, 7), (30, 5), (1, 100), (0, 100)):
        connection.execute(
            "insert into dlq.death_hour values (%s, 'order.placed', %s)"
            " on conflict (hour, event_type) do update set deaths = excluded.deaths",
            [hour - timedelta(hours=ago), deaths],
        )
    hours = read().baseline["order.placed"]
    assert (len(hours), sum(hours), hours.count(0)) == (29, 12, 27)
    connection.execute(
        "insert into dlq.death_hour values (%s, 'order.placed', 9)", [hour - timedelta(days=60)]
    )
    hours = read().baseline["order.placed"]
    assert (len(hours), sum(hours)) == (336, 12)


@pytest.mark.parametrize("installed_ago", [timedelta(0), timedelta(hours=5), timedelta(days=90)])
def test_the_first_deaths_after_the_installation_are_unusual(
    connection: Connection, installed_ago: timedelta
) -> None:
    """Hours without deaths since the installation count, and the first hour has none before it."""
    connection.execute("update dlq.installation set created_at = created_at - %s", [installed_ago])
    add_events(connection, 25, event_type="payment.captured")
    kill(connection, "TimeoutError: no answer")
    now = datetime.now(UTC)
    assert ("deaths:payment.captured", NoticeKind.FIRED) in evaluate(connection, now)
    (alert,) = [one for one in list_alerts(connection) if one.rule == "deaths"]
    assert alert.severity == "critical"
    hours = min(installed_ago // timedelta(hours=1), 336)
    said = f"In most of the {hours} hours" if hours else "Deaths are recorded since"
    assert re.sub(r"\b4 hours", "5 hours", alert.detail).startswith(said)


def test_events_that_were_dead_before_the_installation_are_no_burst(
    connection: Connection, read: ReadFigures
) -> None:
    """Their times of death may be that of the installation."""
    add_events(connection, 25)
    kill(connection, "TimeoutError: no answer")
    connection.execute("update dlq.installation set created_at = now() - interval '1 minute'")
    connection.execute("update dlq.attachment set recorded_at = clock_timestamp()")
    assert read(datetime.now(UTC)).window == {}
    add_events(connection, 3)
    kill(connection, "TimeoutError: no answer", where="status = 'pending'")
    assert read(datetime.now(UTC)).window == {"order.placed": 3}


@pytest.mark.parametrize("known_types", [1, 60])
def test_the_first_burst_of_a_type_is_one_alert_of_its_own(
    connection: Connection, known_types: int
) -> None:
    """Before its deaths are classified and afterwards, also beyond the types with a label."""
    connection.execute("update dlq.installation set created_at = now() - interval '90 days'")
    for kind in range(known_types):
        add_events(connection, 1, event_type=f"busy{kind:02}")
    kill(connection, "KeyError: 1")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    own, rest = Route("json://own", event_types="refund.*"), Route("json://busy", event_types="b*")
    policy = AlertPolicy(routes=(own, rest))
    fired: list[tuple[str, NoticeKind | None]] = []
    for minute in range(3):
        if minute == 0:
            add_events(connection, 30, event_type="refund.failed")
            kill(connection, "TimeoutError: x", where="status = 'pending'")
        if minute == 1:
            classify_deaths(connection, zone=ZoneInfo("UTC"))
        now = datetime.now(UTC) + timedelta(minutes=minute)
        changed = evaluate(connection, now, policy)
        fired += [change for change in changed if change[0].startswith("deaths:")]
    assert fired == [("deaths:refund.failed", NoticeKind.FIRED)]
    sent = connection.execute(
        "select channel from dlq.alert_delivery d join dlq.alert_notice n on n.id = d.notice_id"
        " where n.key like 'deaths:%'".replace("%", "%%")
    ).fetchall()
    assert [row["channel"] for row in sent] == [own.channel]


def test_reports_and_alerts_call_the_same_causes_escalating(
    connection: Connection, read: ReadFigures
) -> None:
    """A steady rise and a spike, but neither noise, an open fix, a mute nor a new cause."""
    zone = ZoneInfo("Europe/Berlin")
    now = datetime.now(UTC)
    window = ReportWindow(now.astimezone(zone).date() - timedelta(days=1), zone)
    rise = [1, 2, 4, 5, 7, 9, 14, 18, 20]
    planted = {
        "rise": rise,
        "spike": [9] * 8 + [60],
        "flat": [12, 9, 14, 11, 8, 13, 9, 12, 13],
        "fixing": rise,
        "muted": rise,
        "new": [60],
    }
    for cause, days in planted.items():
        add_planted_cause(connection, cause)
        for ago, deaths in enumerate(reversed(days)):
            at = window.start - timedelta(days=ago) + timedelta(hours=5)
            for event in range(deaths):
                add_death(connection, at, cause=cause, event=event)
    count_again(connection)
    connection.execute(
        "insert into dlq.fix (cause_id, note, flagged_by, flagged_at, status)"
        " values ('fixing', 'fixed', 'ann', %s, 'active')",
        [window.start],
    )
    connection.execute("update dlq.cause set owner = 'ann' where id = 'rise'")
    connection.execute(
        "update dlq.cause set muted_until = %s where id = 'muted'", [now + timedelta(days=1)]
    )
    report = read_report_figures(connection, window, policy=ReportPolicy(), now=now)
    reported = {cause.cause_id for cause in report.list_causes(CauseState.ESCALATING)}
    assert reported == {"rise", "spike"}
    figures = read(now, zone=zone)
    assert {found.cause.id for found in figures.escalating} == reported
    findings = {
        finding.key: finding
        for finding in evaluate_rules(figures, Thresholds())
        if finding.rule == "escalating"
    }
    assert set(findings) == {"escalating:rise", "escalating:spike"}
    rising, spike = findings["escalating:rise"], findings["escalating:spike"]
    assert rising.summary.endswith(f", 20 deaths on {window.day}")
    assert rising.detail.startswith("Owner: ann. They rise: 1, 2, 4, 5, 7, 9, 14, 18, 20 by day.")
    assert spike.detail.startswith("Up to 20 are usual, by the 8 days before.")
    assert read(now + timedelta(days=1), zone=zone).escalating == ()


def test_a_spike_fires_for_its_event_type_alone(connection: Connection) -> None:
    """From death to alert, through the database alone."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    add_events(connection, 25, event_type="order.paid")
    add_events(connection, 25)
    kill(connection, "KeyError: 1")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    for event_type, deaths in (("order.paid", 30), ("order.placed", 1)):
        connection.execute(
            "insert into dlq.death_hour"
            " select %s - n * interval '1 hour', %s, %s from generate_series(2, 400) n",
            [hour, event_type, deaths],
        )
    changed = evaluate_alerts(connection, now=datetime.now(UTC), policy=AlertPolicy())
    assert changed is not None
    alerts = {transition.alert.key: transition.alert for transition in changed}
    assert "deaths:order.paid" not in alerts
    assert alerts["deaths:order.placed"].summary == "25 events of order.placed died within an hour"
    assert alerts["deaths:order.placed"].event_type == "order.placed"


def test_regressed_causes_and_halted_fixes_are_read(
    connection: Connection, read: ReadFigures
) -> None:
    cause = add_cause(connection)
    connection.execute(
        "update dlq.cause set status = 'regressed', fixed_at = now() where id = %s", [cause]
    )
    (regressed,) = read().regressed
    assert regressed.id == cause
    flag = (
        "insert into dlq.fix (cause_id, note, flagged_by, flagged_at, status, verdict, closed_at)"
        " values (%s, 'fixed', 'ann', now(), %s, %s, %s)"
    )
    connection.execute(flag, [cause, "halted", "3 of 10 died again", NOW - timedelta(days=1)])
    (halted,) = read().halted
    assert (halted.note, halted.verdict) == ("fixed", "3 of 10 died again")
    connection.execute(flag, [cause, "active", None, None])
    assert read().halted == ()


def test_what_probes_healed_is_read_for_a_day(connection: Connection, read: ReadFigures) -> None:
    """Not what people flagged, what was not verified, nor what is muted."""
    cause = add_cause(connection)
    for flagged_by, status, hours in (
        ("probe", "verified", 25),
        ("probe", "verified", 1),
        ("ann", "verified", 1),
        ("probe", "halted", 1),
    ):
        connection.execute(
            "insert into dlq.fix (cause_id, note, flagged_by, flagged_at, status, verdict,"
            " closed_at) values (%s, 'n', %s, %s, %s, 'v', %s)",
            [cause, flagged_by, NOW - timedelta(days=2), status, NOW - timedelta(hours=hours)],
        )
    connection.execute(
        "insert into dlq.fix_stage (fix_id, stage, size, begun_at)"
        " values (2, 1, 10, now()), (2, 2, 100, now())"
    )
    connection.execute(
        "insert into dlq.fix_outcome (fix_id, stage, outcome, events)"
        " values (2, 1, 'delivered', 9), (2, 1, 'died_again', 1), (2, 2, 'delivered', 30)"
    )
    set_cause_text(connection, cause, "owner", "team-pay", audit=AUDIT)
    assert read().healed == (HealedCause(2, cause, 39, "team-pay"),)
    mute_cause(connection, cause, NOW + timedelta(days=1), audit=replace(AUDIT, now=NOW))
    assert read().healed == ()


def test_new_details_of_known_causes_are_read_one_row_a_cause(
    connection: Connection, read: ReadFigures
) -> None:
    """Not those of a new cause, of a muted one, nor those that another member had before."""
    known = add_cause(connection, "KeyError: 'sku'")
    member = add_cause(connection, "LookupError: 'city'")
    connection.execute("update dlq.cause set first_seen = %s", [NOW - timedelta(days=9)])
    connection.execute("update dlq.cause_detail set first_seen = %s", [NOW - timedelta(days=9)])
    merge_causes(connection, member, into=known, audit=AUDIT)
    add_cause(connection, "AttributeError: no attribute 'total'")
    assert read().new_details == ()
    for name in ("postcode", "street", "country", "phone", "city"):
        add_events(connection, 1, event_type="order.paid")
        kill(connection, f"KeyError: '{name}'", where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    now = datetime.now(UTC)
    (found,) = read(now).new_details
    assert (found.id, found.event_type, found.details_found) == (known, "order.paid", 4)
    assert len(set(found.details)) == 3
    assert "city" not in found.details
    assert read(now + timedelta(days=2)).new_details == ()
    mute_cause(connection, known, now + timedelta(days=3), audit=replace(AUDIT, now=now))
    assert read(now).new_details == ()


def test_regressed_details_are_read_with_their_cause_unless_a_fix_of_it_is_open(
    connection: Connection, read: ReadFigures
) -> None:
    cause = add_cause(connection, "KeyError: 'sku'")
    connection.execute("update dlq.cause_detail set status = 'regressed', fixed_at = now()")
    (found,) = read().regressed
    assert (found.id, found.details, found.details_found) == (cause, ["sku"], 1)
    connection.execute("update dlq.cause set status = 'fixing'")
    assert read().regressed == ()


def test_parked_events_and_events_before_a_purge_are_counted(
    connection: Connection, read: ReadFigures
) -> None:
    add_cause(connection)
    park(connection, [1, 2])
    assert read().parked == 2
    connection.execute(
        "insert into dlq.archived (id, aggregate_type, aggregate_id, event_type, payload, status,"
        " created_at, dlq_death_id, dlq_archived_at)"
        " select 1000 + n, 'order', '1', 'x', '{}', 'dead', now(), 1000 + n,"
        " %s::timestamptz - n * interval '1 day' from generate_series(350, 370) n",
        [NOW],
    )
    assert read().purged_soon == 12
    assert read(archive_retention_days=0).purged_soon == 0
    assert read(archive_retention_days=400).purged_soon == 0
