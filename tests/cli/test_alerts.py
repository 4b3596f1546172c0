"""Checks `dlq alerts`: list, test, silence."""

import json
from datetime import UTC, datetime

import pytest

from dlq_pipelines.alerts.alert import AlertPolicy, evaluate_alerts
from dlq_pipelines.alerts.rules import Thresholds
from dlq_pipelines.postgres.connect import Connection
from tests.alerts.servers import free_port, http_server
from tests.cli.conftest import Run
from tests.rows import add_events, kill, one


@pytest.fixture
def _fired(connection: Connection) -> None:
    add_events(connection, 2)
    kill(connection, "boom")
    evaluate_alerts(connection, now=datetime.now(UTC), policy=AlertPolicy(Thresholds(backlog=1)))


def test_an_empty_list_names_the_sensor(dlq: Run) -> None:
    assert "dead_event_alert_sensor evaluates the rules every minute" in dlq("alerts", "list").out


@pytest.mark.usefixtures("_fired")
def test_a_firing_alert_is_listed(dlq: Run) -> None:
    assert "2 events are dead" in dlq("alerts", "list").out
    (alert,) = json.loads(dlq("alerts", "list", "--json").out)["alerts"]
    assert (alert["key"], alert["state"], alert["severity"]) == ("backlog", "firing", "warning")


@pytest.mark.usefixtures("_fired")
def test_an_alert_is_silenced_until_a_time(dlq: Run, connection: Connection) -> None:
    ended = dlq("alerts", "silence", "backlog", "--hours", "4", "--reason", "known", "--dry-run")
    assert ended.code == 0
    assert ended.out.endswith("Nothing was changed: this was a dry run.\n")
    assert one(connection, "select silenced_until from dlq.alert") == {"silenced_until": None}
    assert dlq("alerts", "silence", "backlog", "--hours", "4", "--reason", "known").out.startswith(
        "backlog is silenced"
    )
    assert json.loads(dlq("alerts", "list", "--json").out)["alerts"][0]["state"] == "silenced"
    assert (
        dlq("alerts", "silence", "backlog", "--hours", "0", "--reason", "fixed").out
        == "backlog is not silenced.\n"
    )
    assert one(connection, "select count(*) from dlq.audit where kind = 'alert.silence'") == {
        "count": 2
    }


def test_an_unknown_alert_cannot_be_silenced(dlq: Run) -> None:
    printed = dlq("alerts", "silence", "nothing", "--reason", "known")
    assert (printed.code, printed.err) == (
        3,
        "dlq: There is no alert 'nothing'. `dlq alerts list` lists alerts by their keys.\n",
    )


def test_a_silence_of_nan_hours_is_refused(dlq: Run) -> None:
    printed = dlq("alerts", "silence", "backlog", "--hours", "nan", "--reason", "known")
    assert (printed.code, printed.err) == (
        2,
        "dlq: --hours: nan is not a number of hours. Write it as 8 or 0.5.\n",
    )


def test_a_test_message_reaches_every_channel_and_counts_failures(
    dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their conditions, and without printing an address."""
    assert dlq("alerts", "test").code == 4
    with http_server() as web:
        monkeypatch.setenv("DLQ_ALERT_URLS", f"critical:event_type=x.*:json://{web.host}/s3cr3t")
        looked = dlq("alerts", "test", "--dry-run", "--json")
        (channel,) = json.loads(looked.out)["channels"]
        assert (looked.code, channel["channel"][:5], channel["result"]) == (
            0,
            "json:",
            "would be sent",
        )
        assert "s3cr3t" not in looked.out + looked.err
        assert web.requests == []
        printed = dlq("alerts", "test", "--json")
        assert printed.code == 0
        assert json.loads(web.requests[0][1])["title"] == "INFO: A test of this channel"
        monkeypatch.setenv("DLQ_NAME", "orders")
        assert dlq("alerts", "test").code == 0
        assert json.loads(web.requests[1][1])["title"] == "orders: INFO: A test of this channel"
        monkeypatch.setenv(
            "DLQ_ALERT_URLS", f"json://{web.host}/s3cr3t json://127.0.0.1:{free_port()}/s3cr3t"
        )
        printed = dlq("alerts", "test")
    assert printed.code == 1
    assert "1 of 2 channels did not accept the message" in printed.err
    assert "s3cr3t" not in printed.out + printed.err
