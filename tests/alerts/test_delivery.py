"""Tests delivery to real HTTP and SMTP servers: at least once, independent of other channels."""

import base64
import email
import email.policy
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
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
    send_webhook,
    send_with_apprise,
)
from dlq_pipelines.alerts.routes import compute_channel_id, parse_routes
from dlq_pipelines.alerts.rules import Severity, Thresholds
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import mute_cause
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.exports.redact import parse_redaction
from dlq_pipelines.links import Links
from dlq_pipelines.postgres.connect import Connection, Database
from tests.alerts.servers import Received, free_port, http_server, smtp_server
from tests.rows import add_events, kill, one
from tests.shapes import ShapedOutbox

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
NOW = datetime.now(UTC)
LOW_BOUNDS = Thresholds(backlog=2)
# Angle brackets become quotation marks that look like them.
NEUTRALIZED = {ord("<"): 0x2039, ord(">"): 0x203A}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def web() -> Iterator[Received]:
    with http_server() as received:
        yield received


LINKS = Links("https://dlq.example.com")


def make_sender(*entries: str, deaths: str | None = None) -> Sender:
    return Sender(parse_routes(" ".join(entries)), deaths, SECRET, links=LINKS)


def evaluate(
    connection: Connection, sender: Sender, *, now: datetime = NOW
) -> list[tuple[str, NoticeKind | None]]:
    """Evaluate the rules; return the key and the notice of each alert that changed."""
    policy = AlertPolicy(LOW_BOUNDS, routes=sender.routes)
    changed = evaluate_alerts(connection, now=now, policy=policy)
    assert changed is not None
    return [(transition.alert.key, transition.notice) for transition in changed]


def exceed_backlog(connection: Connection) -> None:
    """Add three dead events: one more than the bound."""
    add_events(connection, 3)
    connection.execute("update outbox_event set status = 'dead', last_error = 'boom'")


def read_events(received: Received) -> list[dict[str, Any]]:
    """Return the CloudEvents of all requests, after checking each signature."""
    found: list[dict[str, Any]] = []
    for headers, body in received.requests:
        assert headers["content-type"] == "application/cloudevents-batch+json"
        moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert headers["webhook-signature"] == Webhook(SECRET).sign(
            headers["webhook-id"], moment, body
        )
        found += json.loads(body)
    return found


def test_an_alert_is_sent_once_over_http_with_a_signature(
    connection: Connection, web: Received
) -> None:
    to = make_sender(f"http://{web.host}/hook?x=1")
    now = datetime.now(UTC)  # a signature is valid for five minutes
    exceed_backlog(connection)
    assert evaluate(connection, to, now=now) == [("backlog", NoticeKind.FIRED)]
    assert evaluate(connection, to, now=now + timedelta(minutes=1)) == []
    assert deliver_messages(connection, to, now=now) == {to.routes[0].channel: None}
    assert deliver_messages(connection, to, now=now) == {}
    (event,) = read_events(web)
    headers, body = web.requests[0]
    assert Webhook(SECRET).verify(body, headers) == [event]
    assert {name: event[name] for name in ("specversion", "type", "subject", "source")} == {
        "specversion": "1.0",
        "type": "dlq.alert.fired",
        "subject": "backlog",
        "source": f"dlq-pipelines/{one(connection, 'select id from dlq.installation')['id']}",
    }
    assert event["data"]["severity"] == "warning"
    assert event["data"]["summary"] == "3 events are dead"
    (channel,) = list_channels(connection)
    assert (channel.sent, channel.failed, channel.waiting, channel.failures) == (1, 0, 0, 0)


def test_an_alert_is_repeated_after_the_cool_down_and_its_resolution_is_sent(
    connection: Connection, web: Received
) -> None:
    to = make_sender(f"http://{web.host}/")
    exceed_backlog(connection)
    evaluate(connection, to)
    deliver_messages(connection, to, now=NOW)
    assert evaluate(connection, to, now=NOW + timedelta(hours=4)) == [
        ("backlog", NoticeKind.REPEATED)
    ]
    deliver_messages(connection, to, now=NOW + timedelta(hours=4))
    connection.execute("update outbox_event set status = 'done'")
    assert evaluate(connection, to, now=NOW + timedelta(hours=5)) == [("backlog", None)]
    assert evaluate(connection, to, now=NOW + timedelta(hours=5, minutes=9)) == []
    assert evaluate(connection, to, now=NOW + timedelta(hours=5, minutes=10)) == [
        ("backlog", NoticeKind.RESOLVED)
    ]
    deliver_messages(connection, to, now=NOW + timedelta(hours=6))
    assert [event["data"]["kind"] for event in read_events(web)] == [
        "fired",
        "repeated",
        "resolved",
    ]
    assert len(web.requests) == 3
    (alert,) = list_alerts(connection)
    assert alert.state(NOW) == "resolved"


def test_a_late_notice_has_the_figures_of_the_time_of_sending(
    connection: Connection, web: Received
) -> None:
    """The channel fails when the alert fires, and works an hour later."""
    to = make_sender(f"http://{web.host}/")
    exceed_backlog(connection)
    web.status = 500
    evaluate(connection, to)
    deliver_messages(connection, to, now=NOW)
    web.status = 200
    web.requests.clear()
    exceed_backlog(connection)
    later = NOW + timedelta(hours=1)
    evaluate(connection, to, now=later)
    deliver_messages(connection, to, now=later)
    (event,) = read_events(web)
    assert (event["data"]["kind"], event["data"]["summary"]) == ("fired", "6 events are dead")
    assert event["data"]["detail"].endswith(f"As of {later:%Y-%m-%d %H:%M} UTC.")


def test_an_alert_that_ended_before_it_was_sent_is_not_sent_as_firing(
    connection: Connection, web: Received
) -> None:
    """Its notice waits while its rule does not find it. Then only the resolution is sent."""
    to = make_sender(f"http://{web.host}/")
    exceed_backlog(connection)
    evaluate(connection, to)
    connection.execute("update outbox_event set status = 'done'")
    evaluate(connection, to, now=NOW + timedelta(minutes=1))
    assert list_ready_channels(connection, to, now=NOW + timedelta(minutes=1)) == []
    assert deliver_messages(connection, to, now=NOW + timedelta(minutes=1)) == {}
    later = NOW + timedelta(minutes=11)
    evaluate(connection, to, now=later)
    deliver_messages(connection, to, now=later)
    (event,) = read_events(web)
    assert (event["data"]["kind"], event["data"]["detail"]) == (
        "resolved",
        f"It lasted from {NOW:%Y-%m-%d %H:%M} to {NOW + timedelta(minutes=1):%Y-%m-%d %H:%M} UTC.",
    )


def test_the_owner_of_a_cause_is_notified_when_it_fires_and_when_they_become_the_owner(
    connection: Connection, web: Received
) -> None:
    """Others receive nothing. The resolution reaches every owner that was notified."""
    to = make_sender(
        *(f"owner={owner}:json://{web.host}/{owner[:3]}" for owner in ("ann*", "bob", "carl"))
    )
    ann, bob, _ = (route.channel for route in to.routes)
    add_events(connection, 1)
    kill(connection, "KeyError: 1")
    (cause,) = classify_deaths(connection, zone=ZoneInfo("UTC")).new_causes
    connection.execute("update dlq.cause set owner = 'ann of payments'")
    sent: list[list[str]] = []
    for minute, owner in ((0, None), (1, "bob"), (2, None)):
        if owner:
            connection.execute("update dlq.cause set owner = %s", [owner])
        now = NOW + timedelta(minutes=minute)
        evaluate(connection, to, now=now)
        sent.append(sorted(deliver_messages(connection, to, now=now)))
    assert sent == [[ann], [bob], []]
    first, second = (json.loads(body) for _, body in web.requests)
    assert first["title"] == second["title"] == "WARNING: New cause: KeyError: \u2039number\u203a"
    assert "Owner: ann of payments. First seen" in first["message"]
    assert "Owner: bob. First seen" in second["message"]
    mute_cause(connection, cause, NOW + timedelta(days=2), audit=AuditContext("ann", "known", NOW))
    for minutes in (30, 41):
        evaluate(connection, to, now=NOW + timedelta(minutes=minutes))
    last = deliver_messages(connection, to, now=NOW + timedelta(minutes=41))
    assert sorted(last) == sorted([ann, bob])


def test_messages_carry_the_name_of_the_outbox(connection: Connection, web: Received) -> None:
    to = replace(make_sender(f"json://{web.host}/", f"http://{web.host}/"), outbox="orders")
    exceed_backlog(connection)
    evaluate(connection, to)
    deliver_messages(connection, to, now=NOW)
    bodies = [json.loads(body) for _, body in web.requests]
    ((event,),) = [body for body in bodies if isinstance(body, list)]
    (message,) = [body for body in bodies if isinstance(body, dict)]
    assert message["title"] == "orders: WARNING: 3 events are dead"
    assert event["data"]["outbox"] == "orders"
    both = [Notice(1, "x", "fired", Severity.WARNING, None, "x", "", NOW)] * 2
    assert format_title(both, outbox="orders") == "orders: 2 warning"


def test_a_silence_ends_by_itself_and_is_audited(connection: Connection) -> None:
    exceed_backlog(connection)
    evaluate(connection, Sender())
    audit = AuditContext("ann", "known", NOW)
    silence_alert(connection, "backlog", NOW + timedelta(hours=8), audit=audit)
    assert evaluate(connection, Sender(), now=NOW + timedelta(hours=7)) == []
    assert evaluate(connection, Sender(), now=NOW + timedelta(hours=8)) == [
        ("backlog", NoticeKind.REPEATED)
    ]
    entry = one(connection, "select actor, filter from dlq.audit where kind = 'alert.silence'")
    assert (entry["actor"], entry["filter"]["alert"]) == ("ann", "backlog")
    with pytest.raises(NotFoundError, match="There is no alert 'nothing'"):
        silence_alert(connection, "nothing", None, audit=audit)
    with pytest.raises(ValueError, match="within the next 30 days"):
        silence_alert(connection, "backlog", NOW + timedelta(days=31), audit=audit)


def test_many_alerts_are_one_message(connection: Connection, web: Received) -> None:
    """The most severe alert comes first; the message shows twenty of them."""
    to = make_sender(f"json://{web.host}/")
    add_events(connection, 30)
    for n in range(30):
        kill(connection, f"Error{n:02}Exception: x", where=f"id = {n + 1}")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute(
        "insert into dlq.check_result (name, passed, severity, figures, checked_at)"
        " values ('no_event_is_missing', false, 'critical', '{\"missing\": 1}', now())"
    )
    assert len(evaluate(connection, to)) == 33
    deliver_messages(connection, to, now=NOW)
    ((_, body),) = web.requests
    message = json.loads(body)
    assert message["title"] == "dlq: 2 critical, 31 warning"
    assert message["message"].startswith("CRITICAL: The check no_event_is_missing failed")
    assert message["message"].endswith("And 13 more: dlq alerts list")


FAILURES = {
    "hangs": "no answer within 5 s",
    "refuses": "connection failed: ConnectionRefusedError",
    "answers 500": "the server answered 500",
    "redirects": "the server answered 302",
    "fails in Apprise": "the service did not answer or rejected the message",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_channel_delays_no_other_and_is_retried_with_back_off(
    connection: Connection, web: Received, failure: str
) -> None:
    """The notices that it missed arrive when the channel works again."""
    with http_server() as bad:
        host = bad.host
        match failure:
            case "hangs":
                bad.hang = threading.Event()
            case "refuses" | "fails in Apprise":
                host = f"127.0.0.1:{free_port()}"
            case _:
                bad.status = 500 if failure == "answers 500" else 302
        broken = f"json://{host}/" if failure == "fails in Apprise" else f"http://{host}/"
        to = make_sender(broken, f"http://{web.host}/")
        exceed_backlog(connection)
        evaluate(connection, to)
        assert deliver_messages(connection, to, now=NOW, seconds=5) == {
            compute_channel_id(f"http://{web.host}/"): None,
            compute_channel_id(broken): FAILURES[failure],
        }
        assert len(read_events(web)) == 1
        state = {channel.id: channel for channel in list_channels(connection)}[
            compute_channel_id(broken)
        ]
        assert (state.waiting, state.failures, state.failed, state.last_error) == (
            1,
            1,
            1,
            FAILURES[failure],
        )
        assert deliver_messages(connection, to, now=NOW + timedelta(seconds=29), seconds=5) == {}
        deliver_messages(connection, to, now=NOW + timedelta(seconds=30), seconds=5)
        assert deliver_messages(connection, to, now=NOW + timedelta(seconds=89), seconds=5) == {}
        if failure in {"answers 500", "redirects"}:
            bad.status = 200
            assert deliver_messages(connection, to, now=NOW + timedelta(seconds=90), seconds=5) == {
                compute_channel_id(broken): None
            }
            received = {event["id"] for event in read_events(bad)}
            assert received == {event["id"] for event in read_events(web)}
            assert len({headers["webhook-id"] for headers, _ in bad.requests}) == 1
            assert list_channels(connection)[0].failures == 0
    due_at = one(connection, "select max(due_at) from dlq.alert_channel")["max"]
    assert due_at <= NOW + timedelta(hours=2)


def test_a_notice_that_waits_for_a_week_is_given_up(
    connection: Connection,
) -> None:
    to = make_sender(f"http://127.0.0.1:{free_port()}/")
    exceed_backlog(connection)
    evaluate(connection, to)
    deliver_messages(connection, to, now=NOW)
    deliver_messages(connection, to, now=NOW + timedelta(days=8))
    delivery = "select sent_at, given_up_at is not null as given_up from dlq.alert_delivery"
    assert one(connection, delivery) == {"sent_at": None, "given_up": True}
    assert list_ready_channels(connection, to, now=NOW + timedelta(days=9)) == []


def test_a_removed_channel_receives_nothing(connection: Connection, web: Received) -> None:
    to = make_sender(f"http://{web.host}/")
    exceed_backlog(connection)
    evaluate(connection, to)
    deliver_messages(connection, Sender(), now=NOW)
    deliver_messages(connection, to, now=NOW)
    assert web.requests == []


def test_a_notice_that_waits_for_a_changed_url_is_sent_to_the_new_one(
    connection: Connection, web: Received
) -> None:
    """Once per channel: notices wait while a token fails, until the token is replaced."""
    kept = f"json://{web.host}/kept"
    old = make_sender(f"json://127.0.0.1:{free_port()}/old-token", kept)
    exceed_backlog(connection)
    evaluate(connection, old)
    deliver_messages(connection, old, now=NOW)
    assert len(web.requests) == 1
    new = make_sender(f"http://{web.host}/new-token", kept)
    later = NOW + timedelta(minutes=5)
    assert list_ready_channels(connection, new, now=later) == [old.routes[0].channel]
    assert deliver_messages(connection, new, now=later) == {new.routes[0].channel: None}
    assert [json.loads(body)[0]["subject"] for _, body in web.requests[1:]] == ["backlog"]
    assert list_ready_channels(connection, new, now=later) == []
    deliveries = "select count(sent_at), count(given_up_at) as given_up from dlq.alert_delivery"
    assert one(connection, deliveries) == {"count": 2, "given_up": 1}


def test_notices_of_two_installations_have_different_ids(
    connection: Connection, web: Received
) -> None:
    """Even if the numbers of the notices are equal."""
    to = make_sender(f"http://{web.host}/")
    exceed_backlog(connection)
    evaluate(connection, to)
    deliver_messages(connection, to, now=NOW)
    # As in a new database.
    connection.execute("update dlq.installation set id = gen_random_uuid()")
    connection.execute("update dlq.alert_delivery set sent_at = null")
    deliver_messages(connection, to, now=NOW + timedelta(minutes=1))
    first, second = read_events(web)
    assert (first["id"], first["source"] == second["source"]) == (second["id"], False)
    assert len({headers["webhook-id"] for headers, _ in web.requests}) == 2


def test_each_alert_is_an_incident_that_its_resolution_closes(
    connection: Connection, web: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolution pages nobody, and a reminder opens no second incident."""
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", f"http://{web.host}/v2/enqueue")
    web.status = 202
    to = make_sender(f"pagerduty://{'a' * 32}@{'b' * 20}")
    exceed_backlog(connection)
    connection.execute(
        "insert into dlq.check_result (name, passed, severity, figures, checked_at)"
        " values ('no_event_is_missing', false, 'critical', '{}', now())"
    )
    evaluate(connection, to)
    deliver_messages(connection, to, now=NOW)
    evaluate(connection, to, now=NOW + timedelta(hours=4))
    deliver_messages(connection, to, now=NOW + timedelta(hours=4))
    connection.execute("update outbox_event set status = 'done'")
    for minutes in (0, 10):
        evaluate(connection, to, now=NOW + timedelta(hours=5, minutes=minutes))
    deliver_messages(connection, to, now=NOW + timedelta(hours=6))
    sent = [json.loads(body) for _, body in web.requests]
    assert [message["event_action"] for message in sent] == ["trigger"] * 4 + ["resolve"]
    incidents = [message["dedup_key"] for message in sent]
    assert (len(set(incidents)), incidents[:2]) == (2, incidents[2:4])
    (closed,) = [message for message in sent[2:4] if message["dedup_key"] == incidents[4]]
    assert "events are dead" in closed["payload"]["summary"]


def test_a_pager_receives_an_alert_that_becomes_critical_and_its_resolution(
    connection: Connection, web: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its route takes critical alerts only; a lower figure before the end changes nothing."""
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", f"http://{web.host}/v2/enqueue")
    web.status = 202
    to = make_sender(f"critical:pagerduty://{'a' * 32}@{'b' * 20}")
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


def test_the_incident_of_a_cause_that_is_no_longer_new_is_closed(
    connection: Connection, web: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", f"http://{web.host}/v2/enqueue")
    web.status = 202
    to = make_sender(f"pagerduty://{'a' * 32}@{'b' * 20}")
    add_events(connection, 1)
    kill(connection, "boom")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    for days, minutes in ((0, 1), (2, 0), (2, 10)):
        now = NOW + timedelta(days=days, minutes=minutes)
        evaluate(connection, to, now=now)
        deliver_messages(connection, to, now=now)
    sent = [json.loads(body) for _, body in web.requests]
    assert [message["event_action"] for message in sent] == ["trigger", "resolve"]
    assert len({message["dedup_key"] for message in sent}) == 1


SENDING_PROGRAM = """
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
        send = delivery.send_in_parallel
        delivery.send_in_parallel = lambda jobs, seconds: (send(jobs, seconds=seconds), die())
        delivery.send_death_events(connection, to, now=datetime.now(UTC))
    else:
        delivery.deliver_messages(connection, to, now=datetime.now(UTC))
"""


def run_and_kill(database: Database, urls: str, deaths: str = "") -> None:
    """Start a run that is killed after its message arrived and before it records that."""
    done = subprocess.run(
        [sys.executable, "-c", SENDING_PROGRAM, database.url, urls, deaths, SECRET],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_notice_of_a_killed_run_is_sent_again_with_the_same_ids(
    connection: Connection, database: Database, web: Received
) -> None:
    """Only after the lease of the killed run expired."""
    to = make_sender(f"http://{web.host}/")
    exceed_backlog(connection)
    evaluate(connection, to)
    run_and_kill(database, f"http://{web.host}/")
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


def test_concurrent_runs_send_a_notice_once(
    database: Database, connection: Connection, web: Received
) -> None:
    to = make_sender(f"http://{web.host}/")
    exceed_backlog(connection)
    evaluate(connection, to)

    def run() -> None:
        with database.connect() as own:
            evaluate_alerts(own, now=NOW, policy=AlertPolicy(LOW_BOUNDS, routes=to.routes))
            deliver_messages(own, to, now=NOW)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_events(web)) == 1


HOSTILE = (
    "</p><script>alert(1)</script> <!channel> @everyone [pay](https://evil.example) `rm` "
    "\x1b[31m\u202e"
)


def test_an_email_shows_hostile_text_without_links_mentions_or_markup(
    connection: Connection,
) -> None:
    """Through Apprise to a real mail server."""
    with smtp_server() as (port, accepted):
        to = make_sender(
            f"mailto://localhost:{port}?smtp=127.0.0.1&mode=insecure"
            "&from=dlq@example.com&to=ops@example.com"
        )
        add_events(connection, 1, event_type="order.placed")
        kill(connection, f"{HOSTILE}Error: {HOSTILE}")
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        connection.execute("update dlq.cause set name = %s", [HOSTILE])
        assert [kind for _, kind in evaluate(connection, to)] == [NoticeKind.FIRED]
        assert set(deliver_messages(connection, to, now=NOW).values()) == {None}
    (content,) = accepted
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert mail["Subject"].startswith(
        "WARNING: New cause: </p><script>alert(1)</script>".translate(NEUTRALIZED)
    )
    for part in mail.walk():
        if part.get_content_maintype() == "text":
            text = part.get_content()
            assert "New cause" in text
            for active in (
                "<script",
                "<!channel",
                "@everyone",
                "https://evil",
                "](",
                "\x1b",
                "\u202e",
            ):
                assert active not in text, (part.get_content_type(), active)


def test_parts_of_errors_are_redacted_in_every_message(
    connection: Connection, web: Received
) -> None:
    """In webhooks, in messages through Apprise, in e-mails, and in the list of alerts."""
    redact = parse_redaction("", "post[a-z]+", None).redact_errors
    add_events(connection, 2)
    kill(connection, "KeyError: 'postcode'", where="id = 1")
    kill(connection, "ValueError: the postman has no van", where="id = 2")
    classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)
    with smtp_server() as (port, accepted):
        to = replace(
            make_sender(
                f"http://{web.host}/hook",
                f"json://{web.host}/json",
                f"mailto://localhost:{port}?smtp=127.0.0.1&mode=insecure"
                "&from=dlq@example.com&to=ops@example.com",
                deaths=f"http://{web.host}/deaths",
            ),
            redact=redact,
        )
        policy = AlertPolicy(Thresholds(), routes=to.routes, redact=redact)
        assert len(evaluate_alerts(connection, now=NOW, policy=policy) or ()) == 2
        assert set(deliver_messages(connection, to, now=NOW).values()) == {None}
        assert send_death_events(connection, to, now=NOW) == (2, None)
    (mail,) = (email.message_from_bytes(sent, policy=email.policy.default) for sent in accepted)
    parts = [part.get_content() for part in mail.walk() if part.get_content_maintype() == "text"]
    summaries = [alert.summary for alert in list_alerts(connection)]
    texts = [*(body for _, body in web.requests), *parts, "\n".join(summaries)]
    assert len(texts) >= 5
    for text in texts:
        assert "[redacted]" in text, text
        assert "postcode" not in text
        assert "postman" not in text
    assert evaluate_alerts(connection, now=NOW, policy=policy) == []


def test_neutralized_text_stays_readable() -> None:
    readable = (
        "</p><script>alert(1)</script> <!channel> @everyone [pay] (https://evil.example) 'rm' "
    )
    shown = neutralize_text(HOSTILE).replace("\u200b", "")
    assert shown == readable.translate(NEUTRALIZED)


def test_only_the_address_of_our_own_is_a_link(web: Received) -> None:
    """An address in an error text is not: it is whatever the event's author wrote."""
    ours = "https://dlq.example.com/causes/v2-1"
    notice = Notice(
        1, "k", "fired", Severity.WARNING, None, "s", f"at {ours}?hostile", NOW, link=ours
    )
    text = format_body([notice])
    assert [line for line in text.splitlines() if "https://dlq" in line] == [ours]
    assert send_with_apprise(f"json://{web.host}/", [notice], source="us") is None
    assert f"\n{ours}\n" in json.loads(web.requests[0][1])["message"]


def test_the_length_of_a_message_is_bounded() -> None:
    notices = [
        Notice(n, "k" * 10_000, "fired", Severity.WARNING, None, "s" * 10_000, "d\n" * 10_000, NOW)
        for n in range(200)
    ]
    assert len(format_title(notices[:1])) <= 220
    assert len(format_body(notices)) < 60_000


def test_a_message_that_is_too_long_for_a_service_is_split(web: Received) -> None:
    notices = [
        Notice(n, "k", "fired", Severity.WARNING, None, "s", f"{n:02}" + "x" * 1_995, NOW)
        for n in range(20)
    ]
    assert send_with_apprise(f"json://{web.host}/", notices, source="us") is None
    parts = [json.loads(body)["message"] for _, body in web.requests]
    assert len(parts) > 1
    assert all(f"{n:02}xxx" in "".join(parts) for n in range(20))


def test_neither_the_log_of_apprise_nor_the_reason_of_a_failure_shows_the_url(
    capfd: pytest.CaptureFixture[str],
) -> None:
    notice = Notice(1, "k", "fired", Severity.INFO, None, "s", "d", NOW)
    url = f"json://ann:s3cr3t@127.0.0.1:{free_port()}/s3cr3t"
    reason = send_with_apprise(url, [notice], source="us")
    assert reason == "the service did not answer or rejected the message"
    output = capfd.readouterr()
    assert "s3cr3t" not in output.out + output.err


# -- the webhook of deaths --


def add_classified_deaths(connection: Connection, count: int) -> None:
    """Add events that died, and queue their deaths for the webhook."""
    add_events(connection, count)
    kill(connection, "requests.exceptions.ReadTimeout: no answer", where="status <> 'done'")
    classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)


def test_deaths_are_sent_in_batches_with_cause_and_without_payload(
    connection: Connection, web: Received
) -> None:
    to = make_sender(deaths=f"http://{web.host}/deaths")
    add_classified_deaths(connection, 250)
    assert send_death_events(connection, to, now=NOW) == (250, None)
    assert [len(json.loads(body)) for _, body in web.requests] == [100, 100, 50]
    events = read_events(web)
    assert [event["data"]["event_id"] for event in events] == list(range(1, 251))
    assert {event["type"] for event in events} == {"dlq.event.died"}
    assert set(events[0]["data"]) == {
        "outbox",
        "event_id",
        "event_type",
        "aggregate_type",
        "aggregate_id",
        "attempts",
        "cause_id",
        "detail",
        "exception_type",
        "link",
    }
    assert events[0]["data"]["link"] == f"{LINKS.public_url}/events/{events[0]['subject']}"
    assert events[0]["data"]["exception_type"] == "requests.exceptions.ReadTimeout"
    assert send_death_events(connection, to, now=NOW) == (0, None)


def test_without_a_webhook_no_death_is_queued(connection: Connection) -> None:
    add_events(connection, 2)
    kill(connection, "boom")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert one(connection, "select count(*) from dlq.death_notice") == {"count": 0}


def test_a_death_that_commits_late_with_a_lower_id_is_sent(
    connection: Connection, database: Database, web: Received
) -> None:
    """A position in the ledger would skip it."""
    to = make_sender(deaths=f"http://{web.host}/")
    add_events(connection, 2)
    with database.connect() as slow, slow.transaction():
        slow.execute("update outbox_event set status = 'dead', last_error = 'slow' where id = 1")
        kill(connection, "fast", where="id = 2")
        classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)
        send_death_events(connection, to, now=NOW)
    classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)
    send_death_events(connection, to, now=NOW)
    assert [event["subject"] for event in read_events(web)] == ["2", "1"]
    assert one(connection, "select min(id) < max(id) as lower_later from dlq.death") == {
        "lower_later": True
    }


def test_after_a_failure_the_webhook_continues_where_it_stopped(
    connection: Connection, web: Received
) -> None:
    to = make_sender(deaths=f"http://{web.host}/")
    add_classified_deaths(connection, 150)
    web.status = 503
    assert send_death_events(connection, to, now=NOW) == (0, "the server answered 503")
    web.status = 200
    assert send_death_events(connection, to, now=NOW + timedelta(seconds=10)) == (0, None)
    assert list_ready_channels(connection, to, now=NOW + timedelta(seconds=10)) == []
    assert list_ready_channels(connection, to, now=NOW + timedelta(seconds=30)) == [
        to.deaths_channel
    ]
    assert send_death_events(connection, to, now=NOW + timedelta(seconds=30)) == (150, None)
    assert len({event["id"] for event in read_events(web)}) == 150


def test_a_run_that_is_killed_while_it_sends_deaths_skips_none(
    connection: Connection, database: Database, web: Received
) -> None:
    to = make_sender(deaths=f"http://{web.host}/")
    add_classified_deaths(connection, 120)
    run_and_kill(database, "", f"http://{web.host}/")
    assert len(web.requests) == 1
    assert send_death_events(connection, to, now=datetime.now(UTC) + timedelta(minutes=20)) == (
        120,
        None,
    )
    ids = [event["id"] for event in read_events(web)]
    assert len(ids) == 220
    assert len(set(ids)) == 120


def explain_statements(connection: Connection) -> dict[str, str]:
    """Return the plan of each statement that runs every minute."""
    plans: dict[str, str] = {}
    values: dict[str, Any] = {
        "now": NOW,
        "since": NOW - timedelta(hours=1),
        "until": NOW,
        "before": NOW,
        "muted": ["v2-x"],
        "look": 1_000_000,
        "age": timedelta(days=1),
        "details": 3,
        "most": 20_000,
        "limit": 50,
        "event_types": ["order.placed"],
        "max_retries": 3,
        "ids": ["x"],
        "channel": "x",
        "id": "x",
        "keys": [],
        "least": 20,
        "day": NOW.date(),
        "first": NOW.date() - timedelta(days=14),
        "start": NOW,
        "labels": 50,
    }
    for name in (
        "backlog",
        "oldest",
        "window",
        "usual",
        "recording",
        "new_causes",
        "new_details",
        "regressed",
        "escalating",
        "halted",
        "parked",
        "purged_soon",
        "waiting_channels",
        "orphans",
        "has_queued_deaths",
        "queued_deaths",
        "firing",
    ):
        statement = f"explain {connection.render_query(f'alert.{name}', **values)}".encode()
        rows = connection.execute(statement).fetchall()
        plans[name] = "\n".join(row["QUERY PLAN"] for row in rows)
    return plans


def test_the_statements_of_each_minute_scan_no_large_table(outbox: ShapedOutbox) -> None:
    connection = outbox.connection
    outbox.add_events(20_000)
    outbox.give_up_all("'Error' || mod(n, 50) || ': x'", where="n < 9000")
    outbox.add_events(2_000)
    outbox.give_up_all("'requests.exceptions.ReadTimeout: no answer'")
    classify_deaths(connection, zone=ZoneInfo("UTC"), announce=True)
    connection.execute("vacuum analyze")
    counts = {
        table.rpartition(".")[2]: one(connection, f"select count(*) from {table}")["count"]
        for table in (
            outbox.shape.table,
            "dlq.archived",
            "dlq.dead",
            "dlq.death",
            "dlq.retry",
            "dlq.death_notice",
        )
    }
    for name, plan in explain_statements(connection).items():
        scanned = {
            line.split("Seq Scan on ")[1].split()[0]
            for line in plan.splitlines()
            if "Seq Scan on" in line
        }
        for table in scanned & counts.keys():
            assert counts[table] < 100, f"{name}\n{plan}"


def test_a_webhook_goes_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unless `no_proxy` names the receiver."""
    with http_server() as proxy, http_server() as receiver:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        monkeypatch.setenv("no_proxy", "")
        event = {"id": "1", "source": "dlq"}
        secret = "whsec_" + "QUJD" * 8
        for exempt, reached in (("", proxy), ("127.0.0.1", receiver)):
            monkeypatch.setenv("no_proxy", exempt)
            url = f"http://{receiver.host}/hook"
            assert send_webhook(url, secret, [event], now=datetime.now(UTC)) is None
            assert len(reached.requests) == 1
