"""Tests `/metrics` and `/api/alerts`."""

from dataclasses import replace
from datetime import UTC, datetime

import httpx

from dlq_pipelines.alerts.alert import AlertPolicy, evaluate_alerts
from dlq_pipelines.alerts.rules import Thresholds
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve, bearer
from tests.rows import add_events, kill, one


def test_metrics_count_dead_events(connection: Connection, api: httpx.Client) -> None:
    add_events(connection, 2)
    kill(connection, "boom")
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    labels = 'aggregate_type="order",event_type="order.placed",outbox="outbox"'
    assert f"dispatchbox_dead_events_current{{{labels}}} 2.0" in answer.text
    open_metrics = api.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert open_metrics.text.endswith("# EOF\n")


def test_the_detail_of_an_open_fix_is_redacted(serve: Serve, connection: Connection) -> None:
    connection.execute(
        "insert into dlq.fix (event_type, detail, note, flagged_by, flagged_at, status)"
        " values ('e', 'key of Anna', 'fixed', 'ann', now(), 'active')"
    )
    text = serve(export_redact_errors="Anna").get("/metrics").text
    assert 'detail="key of [redacted]"' in text
    assert "Anna" not in text


def test_metrics_require_a_token_if_tokens_are_set(serve: Serve, tokens: dict[str, str]) -> None:
    client = serve(api_tokens=tokens["entries"])
    assert client.get("/metrics").status_code == 401
    assert (
        'dlq_up{outbox="outbox"} 1.0' in client.get("/metrics", headers=bearer(tokens["read"])).text
    )
    asked = {"key": "backlog", "reason": "known"}
    assert (
        client.post("/api/alerts/silence", json=asked, headers=bearer(tokens["retry"])).status_code
        == 403
    )


def test_alerts_are_listed_and_silenced(connection: Connection, api: httpx.Client) -> None:
    add_events(connection, 2)
    kill(connection, "boom")
    evaluate_alerts(
        connection,
        now=datetime.now(UTC),
        policy=replace(AlertPolicy(), thresholds=Thresholds(backlog=1)),
    )
    listed = api.get("/api/alerts").json()
    assert (listed["count"], listed["alerts"][0]["key"], listed["alerts"][0]["state"]) == (
        1,
        "backlog",
        "firing",
    )
    asked = {"key": "backlog", "hours": 4, "reason": "known"}
    assert api.post("/api/alerts/silence", json={**asked, "dry_run": True}).status_code == 200
    assert one(connection, "select silenced_until from dlq.alert") == {"silenced_until": None}
    assert api.post("/api/alerts/silence", json=asked, headers={"X-Actor": "ann"}).json()[
        "silenced_until"
    ]
    assert api.get("/api/alerts").json()["alerts"][0]["state"] == "silenced"
    assert (
        one(connection, "select actor from dlq.audit where kind = 'alert.silence'")["actor"]
        == "ann"
    )
    assert api.post("/api/alerts/silence", json={**asked, "key": "nothing"}).status_code == 404
    assert api.post("/api/alerts/silence", json={**asked, "hours": 10_000}).status_code == 400
