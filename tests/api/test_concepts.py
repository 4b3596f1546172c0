"""Tests causes, fixes, archive, audit log, exports and reports over HTTP."""

import json
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import httpx
import pyarrow.parquet as pq
import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.exports.formats import EXPORT_SCHEMA
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixTerms
from tests.api.conftest import Serve
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, date_deaths, kill, one, park, set_causes


@pytest.fixture(autouse=True)
def causes(connection: Connection) -> dict[str, str]:
    """Two causes: one of three dead events, one of one dead event."""
    add_events(connection, 3, payload='{"sku": "A-1"}')
    kill(connection, "TimeoutError: no answer", attempts=5)
    add_events(connection, 1, event_type="order.paid")
    kill(connection, "KeyError: 'postcode'", where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    rows = connection.execute("select id, exception_type from dlq.cause").fetchall()
    return {row["exception_type"]: row["id"] for row in rows}


def read_json(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the body of a response, after checking its status."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def read_audit_log(connection: Connection) -> list[tuple[str, str]]:
    """Return the kind and the reason of each entry, the oldest first."""
    return [
        (row["kind"], row["reason"])
        for row in connection.execute("select kind, reason from dlq.audit order by id")
    ]


def test_causes_are_listed_and_shown(api: httpx.Client, causes: dict[str, str]) -> None:
    body = read_json(api.get("/api/causes", params={"limit": 1}))
    (cause,) = body["causes"]
    assert (cause["id"], cause["dead"], cause["deaths"], cause["state"]) == (
        causes["TimeoutError"],
        3,
        3,
        "open",
    )
    shown = read_json(api.get(f"/api/causes/{cause['id']}"))
    assert (shown["cause"]["id"], shown["sample"], shown["changes"]) == (
        cause["id"],
        "TimeoutError: no answer",
        [],
    )
    (detail,) = read_json(api.get(f"/api/causes/{causes['KeyError']}"))["cause"]["details"]
    assert (detail["status"], detail["deaths"], detail["dead"]) == ("open", 1, 1)
    assert read_json(api.get("/api/causes/similar")) == {
        "pairs": [],
        "groups": [],
        "count": 0,
    }
    assert "no cause" in api.get("/api/causes/v2-nothing").json()["error"]


def test_the_sample_of_a_cause_is_redacted(serve: Serve, causes: dict[str, str]) -> None:
    client = serve(export_redact_errors="no answer")
    shown = read_json(client.get(f"/api/causes/{causes['TimeoutError']}"))
    assert shown["sample"] == "TimeoutError: [redacted]"


@pytest.mark.parametrize(
    ("command", "argument", "column"),
    [("rename", "name", "name"), ("own", "owner", "owner"), ("note", "text", "note")],
)
def test_a_change_of_a_cause_is_audited_and_can_be_undone(
    api: httpx.Client, connection: Connection, command: str, argument: str, column: str
) -> None:
    cause, value = one(connection, "select min(id) as id from dlq.cause")["id"], "Carrier closed"
    body = {argument: value}
    preview = read_json(
        api.post(f"/api/causes/{cause}/{command}", json={**body, "reason": "x", "dry_run": True})
    )
    assert preview["audit_id"] == 0
    done = read_json(
        api.post(f"/api/causes/{cause}/{command}", json={**body, "reason": "known since May"})
    )
    assert one(connection, f"select {column} as value from dlq.cause where id = '{cause}'") == {
        "value": value
    }
    read_json(
        api.post("/api/causes/undo", json={"audit_id": done["audit_id"], "reason": "a mistake"})
    )
    assert one(connection, f"select {column} as value from dlq.cause where id = '{cause}'") == {
        "value": None
    }
    again = api.post("/api/causes/undo", json={"audit_id": done["audit_id"], "reason": "a mistake"})
    assert (again.status_code, "was changed again" in again.json()["error"]) == (409, True)
    assert [reason for _, reason in read_audit_log(connection)] == ["known since May", "a mistake"]


def test_causes_are_merged_muted_and_split(
    api: httpx.Client, causes: dict[str, str], connection: Connection
) -> None:
    merged, root = causes["KeyError"], causes["TimeoutError"]
    read_json(api.post(f"/api/causes/{merged}/merge", json={"into": root, "reason": "one outage"}))
    assert api.get(f"/api/causes/{merged}").status_code == 409
    assert read_json(api.get("/api/causes"))["causes"][0]["dead"] == 4
    read_json(api.post(f"/api/causes/{merged}/split", json={"reason": "two after all"}))
    read_json(api.post(f"/api/causes/{root}/mute", json={"days": 3, "reason": "fixed by Friday"}))
    assert {cause["id"]: cause["state"] for cause in read_json(api.get("/api/causes"))["causes"]}[
        root
    ] == "muted"
    assert (
        api.post(f"/api/causes/{root}/merge", json={"into": root, "reason": "x"}).status_code == 400
    )
    switch = {"mode": "on", "reason": "it recovers by itself"}
    (done,) = read_json(api.post(f"/api/causes/{root}/probe", json=switch))["changes"]
    assert (done["before"], done["after"]) == ({"probe": None}, {"probe": "on"})
    assert read_json(api.get(f"/api/causes/{root}"))["cause"]["probe"] == "on"
    unknown = api.post(f"/api/causes/{root}/probe", json={"mode": "maybe", "reason": "x"})
    assert unknown.status_code == 400
    assert [kind for kind, _ in read_audit_log(connection)] == [
        "cause.merge",
        "cause.split",
        "cause.mute",
        "cause.probe",
    ]


def test_a_fix_is_previewed_flagged_paused_resumed_and_withdrawn(
    api: httpx.Client, connection: Connection, causes: dict[str, str]
) -> None:
    """The default is a dry run. Each change is audited."""
    asked = {
        "cause": causes["TimeoutError"],
        "note": "fixed in v42",
        "canary": 2,
        "owner": "team-shipping",
    }
    preview = read_json(api.post("/api/fixes", json=asked))
    assert (
        preview["dry_run"],
        preview["fix"],
        preview["preview"]["events"],
        preview["preview"]["stages"],
    ) == (
        True,
        None,
        3,
        [2, 1],
    )
    assert read_audit_log(connection) == []
    assert (
        "more than at_most"
        in api.post("/api/fixes", json={**asked, "dry_run": False, "at_most": 1}).json()["error"]
    )
    fix = read_json(api.post("/api/fixes", json={**asked, "dry_run": False}))["fix"]
    assert (fix["status"], fix["policy"]["canary"], fix["owner"], fix["flagged_by"]) == (
        "active",
        2,
        "team-shipping",
        "api",
    )
    again = api.post("/api/fixes", json=asked)
    assert (again.status_code, f"Fix {fix['id']} is open" in again.json()["error"]) == (
        409,
        True,
    )

    url = f"/api/fixes/{fix['id']}"
    assert read_json(api.get("/api/fixes", params={"open": True}))["fixes"][0]["id"] == fix["id"]
    assert read_json(api.get(url))["next"].startswith("releases up to 2 events in stage 1")
    assert (
        read_json(api.post(f"{url}/pause", json={"reason": "wait", "dry_run": True}))["status"]
        == "paused"
    )
    assert read_json(api.get(url))["fix"]["status"] == "active"
    for command, status in (("pause", "paused"), ("resume", "active"), ("withdraw", "withdrawn")):
        assert (
            read_json(api.post(f"{url}/{command}", json={"reason": f"to {command}"}))["status"]
            == status
        )
    assert api.post(f"{url}/pause", json={"reason": "x"}).status_code == 409
    assert api.get("/api/fixes/99").status_code == 404
    assert read_json(api.get(f"{url}/timeline")) == {"seconds": 30, "intervals": []}
    assert api.get("/api/fixes/99/timeline").status_code == 404
    assert [kind for kind, _ in read_audit_log(connection)] == [
        "fix.flag",
        "fix.paused",
        "fix.resumed",
        "fix.withdrawn",
    ]


def test_what_a_stopped_fix_or_a_person_released_is_recalled(
    api: httpx.Client, connection: Connection
) -> None:
    """Pause and withdraw say how many; an active fix is refused; a dry run changes nothing."""
    body = {"all": True, "note": "fixed", "canary": 9, "rate": 0.01, "order": "none"}
    fix = read_json(api.post("/api/fixes", json={**body, "dry_run": False}))["fix"]["id"]
    url = f"/api/fixes/{fix}"
    audit = AuditContext("sensor", "due", datetime.now(UTC))
    advance_fix(connection, fix, audit=audit, terms=FixTerms())
    assert api.post(f"{url}/recall", json={"reason": "x"}).status_code == 409
    paused = read_json(api.post(f"{url}/pause", json={"reason": "slow"}))
    assert (paused["status"], paused["recalled"], paused["with_worker"]) == ("paused", 3, 1)
    again = read_json(api.post(f"{url}/recall", json={"reason": "again"}))
    assert again == {"recalled": 0, "with_worker": 1, "dry_run": False}
    read_json(api.post(f"{url}/withdraw", json={"reason": "wrong"}))
    retry = {"all": True, "rate": 0.01, "reason": "by hand"}
    assert read_json(api.post("/api/dead-events/retry-batch", json=retry))["processed"] == 3
    recall = {"all": True, "reason": "stop"}
    would = read_json(api.post("/api/dead-events/recall", json={**recall, "dry_run": True}))
    assert (would["recalled"], would["dry_run"]) == (2, True)
    assert read_json(api.post("/api/dead-events/recall", json=recall))["recalled"] == 2
    refused = api.post("/api/dead-events/retry-batch", json={**retry, "rate": 0.001})
    assert (refused.status_code, "no event is released more than" in refused.json()["error"]) == (
        409,
        True,
    )


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_fix_that_cannot_end_before_it_expires_is_refused(
    api: httpx.Client, connection: Connection, dry_run: bool
) -> None:
    """With the figures, and by the preview too."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', n::text, 'slow', '{}', 'dead' from generate_series(1, 90) n"
    )
    body = {"event_type": "slow", "note": "x", "rate": 0.001, "dry_run": dry_run}
    refused = api.post("/api/fixes", json={**body, "expiry_days": 1})
    assert (refused.status_code, refused.json()["error"]) == (
        409,
        "90 events at 0.001 per second take 1 day 01:00:00, and the fix expires in 1 day.",
    )
    assert refused.json()["hint"] == "Raise the rate or the expiry, or narrow the filter."
    assert one(connection, "select count(*) from dlq.fix") == {"count": 0}
    assert api.post("/api/fixes", json={**body, "expiry_days": 2}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"note": "x"}, 400, "no filter was given"),
        ({"cause": "v2-nothing", "note": "x"}, 404, "no cause"),
        ({"event_type": "nobody's", "note": "x"}, 409, "No dead events match"),
        ({"all": True, "note": " "}, 400, "note must not be empty"),
        ({"all": True, "note": "x", "canary": 0}, 400, "canary must be from 1"),
        ({"all": True, "note": "x", "link": ""}, 400, "link must not be empty"),
        ({"all": True, "note": "x", "not_before": "soon"}, 400, "not_before: 'soon' is not a time"),
        (
            {"all": True, "note": "x", "not_before": "9999-12-31"},
            400,
            "not_before: 9999-12-31 lies outside the years",
        ),
    ],
)
def test_an_invalid_fix_is_refused(
    api: httpx.Client, connection: Connection, body: dict[str, Any], status: int, error: str
) -> None:
    answer = api.post("/api/fixes", json=body)
    assert (answer.status_code, error in answer.json()["error"]) == (status, True), answer.text
    assert one(connection, "select count(*) from dlq.fix") == {"count": 0}


def test_parked_events_are_listed_and_released(api: httpx.Client, connection: Connection) -> None:
    park(connection, [1, 3])
    page = read_json(api.get("/api/fixes/parked", params={"limit": 1}))
    assert ([event["event_id"] for event in page["events"]], page["next"]) == ([1], 1)
    rest = read_json(api.get("/api/fixes/parked", params={"after": 1}))
    assert [event["event_id"] for event in rest["events"]] == [3]
    none = api.post("/api/fixes/release-parked", json={"event_ids": [2], "reason": "x"})
    assert (none.status_code, none.json()["error"]) == (404, "None of these events is parked.")
    done = read_json(
        api.post("/api/fixes/release-parked", json={"event_ids": [1, 2], "reason": "corrected"})
    )
    assert (done["requested"], done["processed"]) == (2, 1)
    assert one(connection, "select status from outbox_event where id = 1") == {"status": "pending"}


def test_archive_purge_and_restore_run_over_http(serve: Serve, connection: Connection) -> None:
    api = serve(archive_requires_export=False)
    date_deaths(connection, "died_at - interval '31 days'", where="d.event_id < 3")
    reason = {"reason": "by hand"}
    assert read_json(api.post("/api/archive/run", json={**reason, "dry_run": True}))["moved"] == 2
    assert api.post("/api/archive/run", json={**reason, "at_most": 1}).status_code == 409
    assert read_json(api.post("/api/archive/run", json=reason))["moved"] == 2
    connection.execute(
        "update dlq.archived set dlq_archived_at = now() - interval '366 days' where id = 1"
    )
    assert read_json(api.post("/api/archive/purge", json=reason))["events"] == 1
    assert (
        read_json(api.post("/api/archive/restore", json={"all": True, "reason": "late"}))["events"]
        == 1
    )
    assert [kind for kind, _ in read_audit_log(connection)] == [
        "archive.move",
        "archive.purge",
        "archive.restore",
    ]
    assert (
        serve(archive_retention_days=0).post("/api/archive/purge", json=reason).status_code == 409
    )


def test_events_are_erased_by_id_and_by_text(api: httpx.Client, connection: Connection) -> None:
    """A text needs `at_most`, as a filter does. The audit log keeps the ids, and no text."""
    body = {"text": "A-1", "reason": "request of a customer"}
    assert "at least 4 characters" in read_json(api.post("/api/erase", json=body), 400)["error"]
    body["text"] = '"A-1"'
    planned = read_json(api.post("/api/erase", json={**body, "dry_run": True}))
    assert [event["event_id"] for event in planned["events"]] == [1, 2, 3]
    refused = api.post("/api/erase", json={**body, "at_most": 2})
    assert (refused.status_code, "would erase 3 events" in refused.json()["error"]) == (409, True)
    assert read_audit_log(connection) == []
    done = read_json(api.post("/api/erase", json={"event_ids": [1], "reason": "asked"}))
    assert done == {
        "events": [{"event_id": 1, "rows": 1, "kept": 0, "deaths": 1}],
        "files": [],
        "left": [],
        "dry_run": False,
    }
    done = read_json(api.post("/api/erase", json=body))
    assert [event["event_id"] for event in done["events"]] == [2, 3]
    assert read_json(api.get("/api/dead-events/1"))["payload"] == {}
    assert (
        "no event 99"
        in read_json(api.post("/api/erase", json={"event_ids": [99], "reason": "x"}), 404)["error"]
    )
    assert (
        "nothing to erase" in read_json(api.post("/api/erase", json={"reason": "x"}), 400)["error"]
    )
    (filter_, *_) = connection.execute(
        "select distinct filter from dlq.audit where kind = 'event.erase' order by 1"
    ).fetchall()
    assert filter_ == {"filter": {"event": "1"}}
    restored = api.post("/api/archive/restore", json={"event_ids": [1], "reason": "x"})
    assert (restored.status_code, "was erased" in restored.json()["error"]) == (409, True)


def test_the_audit_log_is_read_in_pages(api: httpx.Client) -> None:
    for event in (1, 2, 3):
        read_json(api.post(f"/api/dead-events/{event}/retry", json={"reason": f"r{event}"}))
    page = read_json(api.get("/api/audit", params={"limit": 2}))
    assert [row["reason"] for row in page["entries"]] == ["r3", "r2"]
    rest = read_json(api.get("/api/audit", params={"limit": 2, "after": page["next"]}))
    assert ([row["reason"] for row in rest["entries"]], rest["next"]) == (["r1"], None)


@pytest.mark.parametrize("format", ["jsonl", "json", "csv", "parquet"])
def test_an_export_is_the_file_of_the_command_line(
    serve: Serve, tmp_path: Path, format: str
) -> None:
    """It has the columns and the redaction of the daily export. Its end frees its slot."""
    api = serve(export_redact_payload="mask $.sku")
    for _ in range(3):  # one more than may run at the same time
        answer = api.get(
            "/api/dead-events/export", params={"format": format, "event_type": "order.placed"}
        )
        assert answer.status_code == 200
    format = format.replace("jsonl", "json").replace("json", "jsonl")  # two names of one format
    assert answer.headers["content-disposition"] == f'attachment; filename="dead-events.{format}"'
    file = tmp_path / f"deaths.{format}"
    file.write_bytes(answer.content)
    reader = {"jsonl": "read_json", "csv": "read_csv", "parquet": "read_parquet"}[format]
    rows = duckdb.sql(f"select event_id, error from {reader}('{file}') order by 1")
    assert rows is not None
    assert rows.fetchall() == [(n, "TimeoutError: no answer") for n in (1, 2, 3)]
    assert b"A-1" not in answer.content
    if format == "parquet":
        assert pq.read_schema(file).names == EXPORT_SCHEMA.names


def test_an_export_ends_and_frees_its_slot_if_its_reader_disconnects(
    api: httpx.Client, connection: Connection
) -> None:
    """Four times more readers than slots; each disconnects after the first bytes."""
    add_events(connection, 20_000, payload='{"text": "' + "x" * 500 + '"}')
    connection.execute("update outbox_event set status = 'dead' where status = 'pending'")
    for _ in range(8):
        while True:  # the server notices a disconnected reader after a while
            with api.stream("GET", "/api/dead-events/export") as answer:
                if answer.status_code == 200:
                    assert next(answer.iter_raw(1000))
                    break
            assert answer.status_code == 503
    whole = api.get("/api/dead-events/export", params={"format": "csv"})
    assert whole.text.count("\n") == 20_005


def test_an_export_ends_and_frees_its_slot_if_its_reader_stalls(
    api: httpx.Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It also ends its snapshot, which would hold back vacuum."""
    monkeypatch.setattr("dlq_pipelines.api.stream._STALLED_SECONDS", 3.0)
    add_events(connection, 20_000, payload='{"text": "' + "x" * 1_000 + '"}')
    connection.execute("update outbox_event set status = 'dead' where status = 'pending'")
    with ExitStack() as sockets:
        for _ in range(2):  # as many as may run at the same time
            stalled = sockets.enter_context(
                socket.create_connection((api.base_url.host, api.base_url.port or 0))
            )
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            host = f"{api.base_url.host}:{api.base_url.port}"
            stalled.sendall(
                f"GET /api/dead-events/export HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            )
            assert stalled.recv(12) == b"HTTP/1.1 200"
        assert api.get("/api/dead-events/export").status_code == 503
        while api.get("/api/dead-events/export", params={"event_type": "none"}).status_code == 503:
            time.sleep(0.1)
        snapshots = (
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and backend_xmin is not null and pid <> pg_backend_pid()"
        )
        while one(connection, snapshots)["count"]:
            time.sleep(0.1)


def test_a_report_is_built_listed_and_read(
    api: httpx.Client, connection: Connection, home: Path
) -> None:
    """The response is the JSON file of the report."""
    date_deaths(connection, "'2026-03-01T12:00Z'")
    assert (
        "There is no report of 2026-03-01"
        in read_json(api.get("/api/reports/2026-03-01"), 404)["error"]
    )
    built = read_json(api.post("/api/reports/2026-03-01"))
    assert (built["day"], built["figures"]["deaths"]) == ("2026-03-01", 4)
    read_json(api.post("/api/reports/2026-02-28"))
    assert read_json(api.post("/api/reports/2026-03-01")) == built
    listed = read_json(api.get("/api/reports"))
    assert ([report["day"] for report in listed["reports"]], listed["count"]) == (
        ["2026-03-01", "2026-02-28"],
        2,
    )
    assert read_json(api.get("/api/reports", params={"limit": 1}))["reports"] == [built]
    answer = api.get("/api/reports/2026-03-01")
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (home / "reports" / "2026-03-01.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("method", "day", "status", "error"),
    [
        ("POST", "2999-01-01", 409, "2999-01-01 is not over yet"),
        ("POST", "9999-12-31", 400, "lies outside the years 1900 to 9000"),
        ("POST", "yesterday", 400, "day: "),
        ("POST", "0", 400, "day: "),
        ("GET", "2026-13-01", 400, "day: "),
        ("GET", "0001-01-01", 404, "There is no report of 0001-01-01"),
    ],
)
def test_a_report_of_an_invalid_day_is_refused(
    api: httpx.Client, method: str, day: str, status: int, error: str
) -> None:
    assert error in read_json(api.request(method, f"/api/reports/{day}"), status)["error"]


@pytest.mark.parametrize("text", ["a\x00", "\ud800"])
def test_the_error_of_a_text_that_cannot_be_stored_names_the_field(
    api: httpx.Client, causes: dict[str, str], text: str
) -> None:
    body = json.dumps({"name": text, "reason": "x"})
    url = f"/api/causes/{causes['KeyError']}/rename"
    answer = api.post(url, content=body, headers={"Content-Type": "application/json"})
    assert answer.json() == {
        "error": "name: the text is not valid UTF-8 or contains NUL.",
        "hint": "",
        "code": "invalid_argument",
    }


def test_the_pages_of_every_list_are_the_whole_list(
    dlq: Run,  # noqa: F811
    api: httpx.Client,
    connection: Connection,
) -> None:
    """Over HTTP and on the command line, each row once, even if figures change between pages."""
    connection.execute("delete from dlq.dead")
    connection.execute("update dlq.death set cause_id = null")
    connection.execute("truncate dlq.cause cascade")
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " select 'c' || n, 'KeyError', 'x', now(), now() from generate_series(1, 7) n"
    )
    set_causes(connection, "'c' || case when id < 3 then 5 else id end")
    connection.execute(
        "insert into dlq.fix (event_ids, note, flagged_by, flagged_at, status, closed_at, verdict)"
        " select array[n], 'x', 'me', now(), 'withdrawn', now(), 'x' from generate_series(1, 7) n"
    )
    connection.execute(
        "insert into dlq.alert (key, rule, severity, summary, detail, fired_at, resolved_at)"
        " select 'k' || n, 'backlog', case when n < 3 then 'critical' else 'warning' end, 'x', 'x',"
        " timestamptz '2026-11-01 12:00:00.123457Z' + (n / 2) * interval '1 hour',"
        " case when n > 5 then timestamptz '2026-11-25 12:00Z' end from generate_series(1, 7) n"
    )
    connection.execute(
        "insert into dlq.report_day (day, headline, figures, files, built_at)"
        " select date '2026-11-01' + n, 'x', '{}', '[]', now() from generate_series(1, 7) n"
    )
    for name, key in (("causes", "id"), ("fixes", "id"), ("alerts", "key"), ("reports", "day")):
        whole = [row[key] for row in read_json(api.get(f"/api/{name}"))[name]]
        assert len(whole) == 7, name
        printed, seen = list[Any](), list[Any]()
        after: dict[str, Any] | None = {}
        while after is not None:
            page = read_json(api.get(f"/api/{name}", params={"limit": 3, **after}))
            seen += [row[key] for row in page[name]]
            if name != "reports":
                options = ["--after", str(after["after"])] if after else []
                output = json.loads(dlq(name, "list", "--limit", "3", "--json", *options).out)
                printed += [row[key] for row in output[name]]
                assert output["next"] == page["next"]
                hint = f"There may be more: --after {page['next']}\n" if page["next"] else ""
                assert dlq(name, "list", "--limit", "3", *options).err == hint
            after = {"after": page["next"]} if page["next"] is not None else None
            if name == "causes":  # new deaths of a cause of this page move no later cause
                add_events(connection, 1)
                kill(connection, "x", where="status = 'pending'")
                set_causes(connection, f"'{whole[0]}'")
        assert seen == whole, name
        assert printed == ([] if name == "reports" else whole)
    for name, cursor, error in (
        ("causes", "x", "Invalid cursor: pass the `next` value"),
        ("alerts", "WzFd", "Invalid cursor: pass the `next` value"),
        ("fixes", "0", "after: '0' is not at least 1."),
        ("reports", "yesterday", "after: 'yesterday' is not a day."),
    ):
        refused = read_json(api.get(f"/api/{name}", params={"after": cursor}), 400)
        assert refused["error"].startswith(error)


def test_groups_of_similar_causes_are_proposed(api: httpx.Client, connection: Connection) -> None:
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " select 'v2-' || word, 'E', 'no slot is free at depot ' || word, now(), now()"
        " from unnest('{north,south,east,west,harbour,airport}'::text[]) as word"
    )
    (group,) = read_json(api.get("/api/causes/similar"))["groups"]
    assert (len(group["others"]), group["template"]) == (5, "no slot is free at depot …")
    first, *also = (cause["id"] for cause in group["others"])
    body = {"into": group["cause"]["id"], "also": also, "reason": "one yard"}
    change = read_json(api.post(f"/api/causes/{first}/merge", json=body))
    assert len(change["changes"]) == 5
    body = {"into": first, "also": [first], "reason": "one yard"}
    refused = read_json(api.post(f"/api/causes/{group['cause']['id']}/merge", json=body), 400)
    assert "cannot be merged into itself" in refused["error"]
