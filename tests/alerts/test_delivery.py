"""Messages reach real servers over HTTP and SMTP: each at least once, none held up by another's."""

import base64
import email
import email.policy
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apprise.plugins import pagerduty
from standardwebhooks import Webhook

from dlq_pipelines.alerts.alert import (
    AlertPolicy,
    NoticeKind,
    evaluate_alerts,
    list_alerts,
    silence_alert,
)
from dlq_pipelines.alerts.delivery import (
    Sender,
    deliver_messages,
    list_channels,
    list_ready_channels,
    send_death_events,
)
from dlq_pipelines.alerts.notify import (
    Notice,
    format_body,
    format_title,
    neutralize_text,
    send_with_apprise,
)
from dlq_pipelines.alerts.routes import compute_channel_id, parse_routes
from dlq_pipelines.alerts.rules import Severity, Thresholds
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.postgres.connect import Connection, Database
from tests.alerts.servers import Received, free_port, http_server, smtp_server
from tests.rows import add_events, kill, one

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
NOW = datetime.now(UTC)
FEW = Thresholds(backlog=2)
# What angle brackets become: quotation marks that look like them.
QUIET = {ord("<"): 0x2039, ord(">"): 0x203A}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def web() -> Iterator[Received]:
    with http_server() as received:
        yield received


def sender(*entries: str, deaths: str | None = None) -> Sender:
    return Sender(parse_routes(" ".join(entries)), deaths, SECRET)


def fire(
    connection: Connection, to: Sender, *, now: datetime = NOW
) -> list[tuple[str, NoticeKind | None]]:
    """What rules find now, and what is to be told of it."""
    changed = evaluate_alerts(connection, now=now, policy=AlertPolicy(FEW, routes=to.routes))
    assert changed is not None
    return [(one.alert.key, one.notice) for one in changed]


def backlog(connection: Connection) -> None:
    """Three dead events: one more than there may be."""
    add_events(connection, 3)
    connection.execute("update outbox_event set status = 'dead', last_error = 'boom'")


def events_of(received: Received) -> list[dict[str, Any]]:
    """The CloudEvents of all requests, each signature checked."""
    found: list[dict[str, Any]] = []
    for headers, body in received.requests:
        assert headers["content-type"] == "application/cloudevents-batch+json"
        moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert headers["webhook-signature"] == Webhook(SECRET).sign(
            headers["webhook-id"], moment, body
        )
        found += json.loads(body)
    return found


def test_an_alert_is_told_once_over_http_with_a_signature(
    connection: Connection, web: Received
) -> None:
    to, now = (
        sender(f"http://{web.host}/hook?x=1"),
        datetime.now(UTC),
    )  # a signature is good for five minutes
    backlog(connection)
    assert fire(connection, to, now=now) == [("backlog", NoticeKind.FIRED)]
    assert fire(connection, to, now=now + timedelta(minutes=1)) == []
    assert deliver_messages(connection, to, now=now) == {to.routes[0].channel: None}
    assert deliver_messages(connection, to, now=now) == {}
    (told,) = events_of(web)
    headers, body = web.requests[0]
    assert Webhook(SECRET).verify(body, headers) == [told]
    assert {name: told[name] for name in ("specversion", "type", "subject", "source")} == {
        "specversion": "1.0",
        "type": "dlq.alert.fired",
        "subject": "backlog",
        "source": f"dlq-pipelines/{one(connection, 'select id from dlq.installation')['id']}",
    }
    assert told["data"]["severity"] == "warning"
    assert told["data"]["summary"] == "3 events are dead"
    (channel,) = list_channels(connection)
    assert (channel.sent, channel.failed, channel.waiting, channel.failures) == (1, 0, 0, 0)


def test_it_is_told_again_after_the_cool_down_and_when_it_is_over(
    connection: Connection, web: Received
) -> None:
    to = sender(f"http://{web.host}/")
    backlog(connection)
    fire(connection, to)
    assert fire(connection, to, now=NOW + timedelta(hours=4)) == [("backlog", NoticeKind.REPEATED)]
    connection.execute("update outbox_event set status = 'done'")
    assert fire(connection, to, now=NOW + timedelta(hours=5)) == [("backlog", None)]
    assert fire(connection, to, now=NOW + timedelta(hours=5, minutes=9)) == []
    assert fire(connection, to, now=NOW + timedelta(hours=5, minutes=10)) == [
        ("backlog", NoticeKind.RESOLVED)
    ]
    deliver_messages(connection, to, now=NOW + timedelta(hours=6))
    assert [told["data"]["kind"] for told in events_of(web)] == ["fired", "repeated", "resolved"]
    assert len(web.requests) == 1
    (alert,) = list_alerts(connection)
    assert alert.state(NOW) == "resolved"


def test_a_silence_ends_by_itself_and_is_in_the_audit(connection: Connection) -> None:
    backlog(connection)
    fire(connection, Sender())
    audit = AuditContext("ann", "known", NOW)
    silence_alert(connection, "backlog", NOW + timedelta(hours=8), audit=audit)
    assert fire(connection, Sender(), now=NOW + timedelta(hours=7)) == []
    assert fire(connection, Sender(), now=NOW + timedelta(hours=8)) == [
        ("backlog", NoticeKind.REPEATED)
    ]
    entry = one(connection, "select actor, filter from dlq.audit where kind = 'alert.silence'")
    assert (entry["actor"], entry["filter"]["alert"]) == ("ann", "backlog")
    with pytest.raises(NotFoundError, match="There is no alert 'nothing'"):
        silence_alert(connection, "nothing", None, audit=audit)
    with pytest.raises(ValueError, match="within the next 30 days"):
        silence_alert(connection, "backlog", NOW + timedelta(days=31), audit=audit)


def test_many_at_once_are_one_message(connection: Connection, web: Received) -> None:
    """New causes by the dozen, the gravest alert first."""
    to = sender(f"json://{web.host}/")
    add_events(connection, 30)
    for n in range(30):
        kill(connection, f"Error{n:02}Exception: x", where=f"id = {n + 1}")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute(
        "insert into dlq.check_result (name, passed, severity, figures, checked_at)"
        " values ('books_balance', false, 'critical', '{\"missing\": 1}', now())"
    )
    assert len(fire(connection, to)) == 32
    deliver_messages(connection, to, now=NOW)
    ((_, body),) = web.requests
    message = json.loads(body)
    assert message["title"] == "dlq: 1 critical, 31 warning"
    assert message["message"].startswith("CRITICAL: The check books_balance does not hold")
    assert message["message"].endswith("And 12 more: dlq alerts list")


@pytest.mark.parametrize(
    "trouble", ["hangs", "refuses", "answers 500", "redirects", "is no server"]
)
def test_a_channel_in_trouble_holds_up_no_other_and_is_tried_again(
    connection: Connection, web: Received, trouble: str
) -> None:
    """Later each time; what it missed arrives when it works again."""
    with http_server() as bad:
        host = bad.host
        match trouble:
            case "hangs":
                bad.hang = threading.Event()
            case "refuses" | "is no server":
                host = f"127.0.0.1:{free_port()}"
            case _:
                bad.status = 500 if trouble == "answers 500" else 302
        broken = f"json://{host}/" if trouble == "is no server" else f"http://{host}/"
        to = sender(broken, f"http://{web.host}/")
        backlog(connection)
        fire(connection, to)
        begun = time.monotonic()
        results = deliver_messages(connection, to, now=NOW, seconds=2)
        assert time.monotonic() - begun < 10
        assert results[compute_channel_id(f"http://{web.host}/")] is None
        why = results[compute_channel_id(broken)]
        assert why is not None
        assert len(events_of(web)) == 1
        state = {channel.id: channel for channel in list_channels(connection)}[
            compute_channel_id(broken)
        ]
        assert (state.waiting, state.failures, state.failed, state.last_error) == (1, 1, 1, why)
        assert deliver_messages(connection, to, now=NOW + timedelta(seconds=29), seconds=2) == {}
        deliver_messages(connection, to, now=NOW + timedelta(seconds=30), seconds=2)
        assert deliver_messages(connection, to, now=NOW + timedelta(seconds=89), seconds=2) == {}
        if trouble in {"answers 500", "redirects"}:
            bad.status = 200
            assert deliver_messages(connection, to, now=NOW + timedelta(seconds=90), seconds=2) == {
                compute_channel_id(broken): None
            }
            assert {told["id"] for told in events_of(bad)} == {
                told["id"] for told in events_of(web)
            }
            assert len({headers["webhook-id"] for headers, _ in bad.requests}) == 1
            assert list_channels(connection)[0].failures == 0
    assert one(
        connection,
        "select max(due_at) <= now() + interval '2 hours' as bounded from dlq.alert_channel",
    ) == {"bounded": True}


def test_a_channel_that_never_works_is_given_up_for_what_is_a_week_old(
    connection: Connection,
) -> None:
    to = sender(f"http://127.0.0.1:{free_port()}/")
    backlog(connection)
    fire(connection, to)
    deliver_messages(connection, to, now=NOW)
    deliver_messages(connection, to, now=NOW + timedelta(days=8))
    assert one(
        connection, "select sent_at, given_up_at is not null as given_up from dlq.alert_delivery"
    ) == {
        "sent_at": None,
        "given_up": True,
    }
    assert list_ready_channels(connection, to, now=NOW + timedelta(days=9)) == []


def test_a_channel_that_is_no_longer_configured_is_told_nothing(
    connection: Connection, web: Received
) -> None:
    to = sender(f"http://{web.host}/")
    backlog(connection)
    fire(connection, to)
    deliver_messages(connection, Sender(), now=NOW)
    deliver_messages(connection, to, now=NOW)
    assert web.requests == []


def test_what_waits_for_a_changed_address_arrives_at_the_new_one(
    connection: Connection, web: Received
) -> None:
    """Once a channel: a token is changed because the old one failed, and just then something waits."""
    kept = f"json://{web.host}/kept"
    old = sender(f"json://127.0.0.1:{free_port()}/old-token", kept)
    backlog(connection)
    fire(connection, old)
    deliver_messages(connection, old, now=NOW)
    assert len(web.requests) == 1
    new = sender(f"http://{web.host}/new-token", kept)
    later = NOW + timedelta(minutes=5)
    assert list_ready_channels(connection, new, now=later) == [old.routes[0].channel]
    assert deliver_messages(connection, new, now=later) == {new.routes[0].channel: None}
    assert [json.loads(body)[0]["subject"] for _, body in web.requests[1:]] == ["backlog"]
    assert list_ready_channels(connection, new, now=later) == []
    assert one(
        connection, "select count(sent_at), count(given_up_at) as gone from dlq.alert_delivery"
    ) == {
        "count": 2,
        "gone": 1,
    }


def test_notices_of_two_installations_are_not_taken_for_one(
    connection: Connection, web: Received
) -> None:
    """Also where the number of the notice is the same."""
    to = sender(f"http://{web.host}/")
    backlog(connection)
    fire(connection, to)
    deliver_messages(connection, to, now=NOW)
    connection.execute(
        "update dlq.installation set id = gen_random_uuid()"
    )  # as in a database made anew
    connection.execute("update dlq.alert_delivery set sent_at = null")
    deliver_messages(connection, to, now=NOW + timedelta(minutes=1))
    first, second = events_of(web)
    assert (first["id"], first["source"] == second["source"]) == (second["id"], False)
    assert len({headers["webhook-id"] for headers, _ in web.requests}) == 2


def test_a_pager_gets_an_incident_an_alert_and_its_end_closes_it(
    connection: Connection, web: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is woken because something is over, and what is told again is no second incident."""
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", f"http://{web.host}/v2/enqueue")
    web.status = 202
    to = sender(f"pagerduty://{'a' * 32}@{'b' * 20}")
    backlog(connection)
    connection.execute(
        "insert into dlq.check_result (name, passed, severity, figures, checked_at)"
        " values ('books_balance', false, 'critical', '{}', now())"
    )
    fire(connection, to)
    deliver_messages(connection, to, now=NOW)
    fire(connection, to, now=NOW + timedelta(hours=4))
    deliver_messages(connection, to, now=NOW + timedelta(hours=4))
    connection.execute("update outbox_event set status = 'done'")
    for minutes in (0, 10):
        fire(connection, to, now=NOW + timedelta(hours=5, minutes=minutes))
    deliver_messages(connection, to, now=NOW + timedelta(hours=6))
    sent = [json.loads(body) for _, body in web.requests]
    assert [one["event_action"] for one in sent] == ["trigger"] * 4 + ["resolve"]
    incidents = [one["dedup_key"] for one in sent]
    assert (len(set(incidents)), incidents[:2]) == (2, incidents[2:4])
    (closed,) = [one for one in sent[2:4] if one["dedup_key"] == incidents[4]]
    assert "events are dead" in closed["payload"]["summary"]


def test_a_pager_hears_at_once_of_what_gets_graver_and_when_it_is_over(
    connection: Connection, web: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is only told of what is critical, and its incident is closed although the end finds less."""
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", f"http://{web.host}/v2/enqueue")
    web.status = 202
    to = sender(f"critical:pagerduty://{'a' * 32}@{'b' * 20}")
    policy = AlertPolicy(Thresholds(backlog=2, backlog_error=4), routes=to.routes)
    counts = []
    for minutes, status, added in (
        (0, "dead", 3),
        (1, "dead", 2),
        (2, "done", 0),
        (20, "done", 0),
        (40, "done", 0),
    ):
        add_events(connection, added)
        connection.execute("update outbox_event set status = %s, last_error = 'boom'", [status])
        evaluate_alerts(connection, now=NOW + timedelta(minutes=minutes), policy=policy)
        deliver_messages(connection, to, now=NOW + timedelta(minutes=minutes))
        counts.append(len(web.requests))
    assert counts == [0, 1, 1, 2, 2]
    opened, closed = (json.loads(body) for _, body in web.requests)
    assert (opened["event_action"], closed["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == closed["dedup_key"]
    assert "CRITICAL: 5 events are dead" in opened["payload"]["summary"]


def test_the_incident_of_a_new_cause_is_closed(
    connection: Connection, web: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day later, when it is not new any more."""
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", f"http://{web.host}/v2/enqueue")
    web.status = 202
    to = sender(f"pagerduty://{'a' * 32}@{'b' * 20}")
    add_events(connection, 1)
    kill(connection, "boom")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    for days, minutes in ((0, 1), (2, 0), (2, 10)):
        now = NOW + timedelta(days=days, minutes=minutes)
        fire(connection, to, now=now)
        deliver_messages(connection, to, now=now)
    sent = [json.loads(body) for _, body in web.requests]
    assert [one["event_action"] for one in sent] == ["trigger", "resolve"]
    assert len({one["dedup_key"] for one in sent}) == 1


SENDS = """
import os, signal, sys
from datetime import UTC, datetime
from dlq_pipelines.alerts import delivery
from dlq_pipelines.alerts.routes import parse_routes
from dlq_pipelines.postgres.connect import Database

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

delivery._record_result = die
to = delivery.Sender(parse_routes(sys.argv[2]), sys.argv[3] or None, sys.argv[4])
with Database(sys.argv[1]).connect() as connection:
    if sys.argv[3]:
        delivery.send_in_parallel_ = delivery.send_in_parallel
        delivery.send_in_parallel = lambda jobs, seconds: (delivery.send_in_parallel_(jobs, seconds=seconds), die())
        delivery.send_death_events(connection, to, now=datetime.now(UTC))
    else:
        delivery.deliver_messages(connection, to, now=datetime.now(UTC))
"""


def killed(database: Database, urls: str, deaths: str = "") -> None:
    """A run that is killed after its message arrived and before that was written down."""
    done = subprocess.run(
        [sys.executable, "-c", SENDS, database.url, urls, deaths, SECRET],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_run_killed_between_sending_and_writing_it_down_is_made_up_for(
    connection: Connection, database: Database, web: Received
) -> None:
    """The notice comes again with the same ids, once the lease is over; before that no other run sends it."""
    to = sender(f"http://{web.host}/")
    backlog(connection)
    fire(connection, to)
    killed(database, f"http://{web.host}/")
    assert len(web.requests) == 1
    assert one(connection, "select count(*) from dlq.alert_delivery where sent_at is null") == {
        "count": 1
    }
    later = datetime.now(UTC)
    assert deliver_messages(connection, to, now=later) == {}
    assert deliver_messages(connection, to, now=later + timedelta(minutes=3)) == {
        to.routes[0].channel: None
    }
    first, second = (json.loads(body) for _, body in web.requests)
    assert first == second
    assert web.requests[0][0]["webhook-id"] == web.requests[1][0]["webhook-id"]
    assert one(connection, "select count(*) from dlq.alert_delivery where sent_at is null") == {
        "count": 0
    }


def test_two_runs_at_once_send_it_once(
    database: Database, connection: Connection, web: Received
) -> None:
    to = sender(f"http://{web.host}/")
    backlog(connection)
    fire(connection, to)

    def run() -> None:
        with database.connect() as own:
            evaluate_alerts(own, now=NOW, policy=AlertPolicy(FEW, routes=to.routes))
            deliver_messages(own, to, now=NOW)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events_of(web)) == 1


HOSTILE = "</p><script>alert(1)</script> <!channel> @everyone [pay](https://evil.example) `rm` \x1b[31m\u202e"


def test_an_email_shows_hostile_text_and_obeys_none_of_it(connection: Connection) -> None:
    """Through Apprise to a real mail server."""
    with smtp_server() as (port, taken):
        to = sender(
            f"mailto://localhost:{port}?smtp=127.0.0.1&from=dlq@example.com&to=ops@example.com&mode=insecure"
        )
        add_events(connection, 1, event_type="order.placed")
        kill(connection, f"{HOSTILE}Error: {HOSTILE}")
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        connection.execute("update dlq.cause set name = %s", [HOSTILE])
        assert [kind for _, kind in fire(connection, to)] == [NoticeKind.FIRED]
        assert set(deliver_messages(connection, to, now=NOW).values()) == {None}
    (content,) = taken
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert mail["Subject"].startswith(
        "WARNING: Events die of something new: </p><script>alert(1)</script>".translate(QUIET)
    )
    for part in mail.walk():
        if part.get_content_maintype() == "text":
            text = part.get_content()
            assert "something new" in text
            for live in (
                "<script",
                "<!channel",
                "@everyone",
                "https://evil",
                "](",
                "\x1b",
                "\u202e",
            ):
                assert live not in text, (part.get_content_type(), live)


def test_hostile_text_is_quiet_and_still_to_be_read() -> None:
    said = neutralize_text(HOSTILE)
    assert (
        said.replace("\u200b", "")
        == "</p><script>alert(1)</script> <!channel> @everyone [pay] (https://evil.example) 'rm' ".translate(
            QUIET
        )
    )


def test_a_message_is_bounded_whatever_it_holds() -> None:
    notices = [
        Notice(n, "k" * 10_000, "fired", Severity.WARNING, None, "s" * 10_000, "d\n" * 10_000, NOW)
        for n in range(200)
    ]
    assert len(format_title(notices[:1])) <= 220
    assert len(format_body(notices)) < 60_000


def test_what_is_too_long_for_a_service_arrives_in_parts(web: Received) -> None:
    notices = [
        Notice(n, "k", "fired", Severity.WARNING, None, "s", f"{n:02}" + "x" * 1_995, NOW)
        for n in range(20)
    ]
    assert send_with_apprise(f"json://{web.host}/", notices, source="us") is None
    parts = [json.loads(body)["message"] for _, body in web.requests]
    assert len(parts) > 1
    assert all(f"{n:02}xxx" in "".join(parts) for n in range(20))


def test_what_apprise_logs_repeats_no_address(capfd: pytest.CaptureFixture[str]) -> None:
    """And what is written down of a failure neither."""
    notice = Notice(1, "k", "fired", Severity.INFO, None, "s", "d", NOW)
    why = send_with_apprise(
        f"json://ann:s3cr3t@127.0.0.1:{free_port()}/s3cr3t", [notice], source="us"
    )
    assert why == "the service did not answer or did not accept the message"
    said = capfd.readouterr()
    assert "s3cr3t" not in said.out + said.err


# -- one for each death --


def die_and_classify(connection: Connection, count: int) -> None:
    add_events(connection, count)
    kill(connection, "requests.exceptions.ReadTimeout: no answer", where="status <> 'done'")
    classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)


def test_each_death_is_announced_in_batches_with_its_cause_and_without_its_payload(
    connection: Connection, web: Received
) -> None:
    to = sender(deaths=f"http://{web.host}/deaths")
    die_and_classify(connection, 250)
    assert send_death_events(connection, to, now=NOW) == (250, None)
    assert [len(json.loads(body)) for _, body in web.requests] == [100, 100, 50]
    told = events_of(web)
    assert [event["data"]["event_id"] for event in told] == list(range(1, 251))
    assert {event["type"] for event in told} == {"dlq.event.died"}
    assert set(told[0]["data"]) == {
        "event_id",
        "event_type",
        "aggregate_type",
        "aggregate_id",
        "attempts",
        "cause_id",
        "exception_type",
    }
    assert told[0]["data"]["exception_type"] == "requests.exceptions.ReadTimeout"
    assert send_death_events(connection, to, now=NOW) == (0, None)


def test_nothing_is_noted_for_a_webhook_that_is_not_wanted(connection: Connection) -> None:
    add_events(connection, 2)
    kill(connection, "boom")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert one(connection, "select count(*) from dlq.death_notice") == {"count": 0}


def test_a_death_that_commits_late_with_a_lower_id_is_announced(
    connection: Connection, database: Database, web: Received
) -> None:
    """Where a position in the ledger would have passed over it."""
    to = sender(deaths=f"http://{web.host}/")
    add_events(connection, 2)
    with database.connect() as slow, slow.transaction():
        slow.execute("update outbox_event set status = 'dead', last_error = 'slow' where id = 1")
        kill(connection, "fast", where="id = 2")
        classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)
        send_death_events(connection, to, now=NOW)
    classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)
    send_death_events(connection, to, now=NOW)
    assert [event["subject"] for event in events_of(web)] == ["2", "1"]
    assert one(connection, "select min(id) < max(id) as lower_later from dlq.death") == {
        "lower_later": True
    }


def test_a_webhook_that_fails_is_gone_on_with_where_it_stopped(
    connection: Connection, web: Received
) -> None:
    to = sender(deaths=f"http://{web.host}/")
    die_and_classify(connection, 150)
    web.status = 503
    assert send_death_events(connection, to, now=NOW) == (0, "it answered 503")
    web.status = 200
    assert send_death_events(connection, to, now=NOW + timedelta(seconds=10)) == (0, None)
    assert list_ready_channels(connection, to, now=NOW + timedelta(seconds=10)) == []
    assert list_ready_channels(connection, to, now=NOW + timedelta(seconds=30)) == [
        to.deaths_channel
    ]
    assert send_death_events(connection, to, now=NOW + timedelta(seconds=30)) == (150, None)
    assert len({event["id"] for event in events_of(web)}) == 150


def test_a_run_killed_while_it_announces_skips_no_death(
    connection: Connection, database: Database, web: Received
) -> None:
    to = sender(deaths=f"http://{web.host}/")
    die_and_classify(connection, 120)
    killed(database, "", f"http://{web.host}/")
    assert len(web.requests) == 1
    assert send_death_events(connection, to, now=datetime.now(UTC) + timedelta(minutes=20)) == (
        120,
        None,
    )
    told = [event["id"] for event in events_of(web)]
    assert len(told) == 220
    assert len(set(told)) == 120


@contextmanager
def plans(connection: Connection) -> Iterator[dict[str, str]]:
    found: dict[str, str] = {}
    values: dict[str, Any] = {
        "now": NOW,
        "since": NOW - timedelta(hours=1),
        "until": NOW,
        "before": NOW,
        "muted": ["v1-x"],
        "look": 1_000_000,
        "most": 20_000,
        "limit": 50,
        "event_types": ["order.placed"],
        "max_retries": 3,
        "ids": ["x"],
        "channel": "x",
        "id": "x",
        "keys": [],
    }
    for name in (
        "backlog",
        "oldest",
        "window",
        "usual",
        "new_causes",
        "regressed",
        "halted",
        "parked",
        "purged_soon",
        "waiting_channels",
        "orphans",
        "deaths_wait",
        "unannounced",
        "firing",
    ):
        statement = f"explain {connection.render_query(f'alert.{name}', **values)}".encode()
        found[name] = "\n".join(
            row["QUERY PLAN"] for row in connection.execute(statement).fetchall()
        )
    yield found


def test_the_question_of_each_minute_reads_indexes(connection: Connection) -> None:
    """However much has died."""
    add_events(connection, 20_000)
    connection.execute(
        "update outbox_event set status = 'dead', last_error = 'Error' || mod(id, 50) || ': x' where id < 9000"
    )
    die_and_classify(connection, 2_000)
    connection.execute("vacuum analyze")
    with plans(connection) as found:
        for name, plan in found.items():
            for table in ("outbox_event", "outbox_event_archive", "death", "retry", "death_notice"):
                tables = [
                    line.split("Seq Scan on ")[1].split()[0]
                    for line in plan.splitlines()
                    if "Seq Scan on" in line
                ]
                rows = one(
                    connection,
                    f"select count(*) from {'dlq.' * (not table.startswith('outbox'))}{table}",
                )["count"]
                assert table not in tables or rows < 100, f"{name}\n{plan}"
