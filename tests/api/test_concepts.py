"""Causes, fixes, the archive and the audit over HTTP: the same acts as at a terminal, with who and why."""

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import httpx
import pyarrow.parquet as pq
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.exports.formats import EXPORT_SCHEMA
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, kill, one, park


@pytest.fixture(autouse=True)
def causes(connection: Connection) -> dict[str, str]:
    """Two causes: of three dead events and of one."""
    add_events(connection, 3, payload='{"sku": "A-1"}')
    kill(connection, "TimeoutError: no answer", attempts=5)
    add_events(connection, 1, event_type="order.paid")
    kill(connection, "KeyError: 'postcode'", where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    rows = connection.execute("select id, exception_type from dlq.cause").fetchall()
    return {row["exception_type"]: row["id"] for row in rows}


def _ok(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def _audit(connection: Connection) -> list[tuple[str, str]]:
    return [
        (row["kind"], row["reason"])
        for row in connection.execute("select kind, reason from dlq.audit order by id")
    ]


def test_causes_are_listed_and_shown_as_at_a_terminal(
    api: httpx.Client, causes: dict[str, str]
) -> None:
    body = _ok(api.get("/api/causes", params={"limit": 1}))
    (cause,) = body["causes"]
    assert (cause["id"], cause["dead"], cause["deaths"], cause["state"]) == (
        causes["TimeoutError"],
        3,
        3,
        "open",
    )
    shown = _ok(api.get(f"/api/causes/{cause['id']}"))
    assert (shown["cause"]["id"], shown["sample"], shown["changes"]) == (
        cause["id"],
        "TimeoutError: no answer",
        [],
    )
    assert _ok(api.get("/api/causes/similar")) == {"pairs": [], "count": 0}
    assert "no cause" in api.get("/api/causes/v1-nothing").json()["error"]


@pytest.mark.parametrize(
    ("act", "argument", "column"),
    [("rename", "name", "name"), ("own", "owner", "owner"), ("note", "text", "note")],
)
def test_what_people_say_of_a_cause_is_kept_and_taken_back(
    api: httpx.Client, connection: Connection, act: str, argument: str, column: str
) -> None:
    cause, value = one(connection, "select min(id) as id from dlq.cause")["id"], "Carrier closed"
    body = {argument: value}
    would = _ok(
        api.post(f"/api/causes/{cause}/{act}", json={**body, "reason": "x", "dry_run": True})
    )
    assert would["audit_id"] == 0
    done = _ok(api.post(f"/api/causes/{cause}/{act}", json={**body, "reason": "known since May"}))
    assert one(connection, f"select {column} as said from dlq.cause where id = '{cause}'") == {
        "said": value
    }
    _ok(api.post("/api/causes/undo", json={"audit_id": done["audit_id"], "reason": "a slip"}))
    assert one(connection, f"select {column} as said from dlq.cause where id = '{cause}'") == {
        "said": None
    }
    again = api.post("/api/causes/undo", json={"audit_id": done["audit_id"], "reason": "a slip"})
    assert (again.status_code, "was changed again" in again.json()["error"]) == (409, True)
    assert [reason for _, reason in _audit(connection)] == ["known since May", "a slip"]


def test_causes_are_merged_muted_and_split(
    api: httpx.Client, causes: dict[str, str], connection: Connection
) -> None:
    merged, root = causes["KeyError"], causes["TimeoutError"]
    _ok(api.post(f"/api/causes/{merged}/merge", json={"into": root, "reason": "one outage"}))
    assert api.get(f"/api/causes/{merged}").status_code == 409
    assert _ok(api.get("/api/causes"))["causes"][0]["dead"] == 4
    _ok(api.post(f"/api/causes/{merged}/split", json={"reason": "two after all"}))
    _ok(api.post(f"/api/causes/{root}/mute", json={"days": 3, "reason": "by Friday"}))
    assert {cause["id"]: cause["state"] for cause in _ok(api.get("/api/causes"))["causes"]}[
        root
    ] == "muted"
    assert (
        api.post(f"/api/causes/{root}/merge", json={"into": root, "reason": "x"}).status_code == 400
    )
    assert [kind for kind, _ in _audit(connection)] == ["cause.merge", "cause.split", "cause.mute"]


def test_a_fix_is_previewed_unless_it_is_meant_and_then_followed_to_its_end(
    api: httpx.Client, connection: Connection, causes: dict[str, str]
) -> None:
    """Flagged, paused, resumed, withdrawn; each with who and why."""
    asked = {
        "cause": causes["TimeoutError"],
        "note": "mended in v42",
        "canary": 2,
        "owner": "team-shipping",
    }
    would = _ok(api.post("/api/fixes", json=asked))
    assert (
        would["dry_run"],
        would["fix"],
        would["preview"]["events"],
        would["preview"]["stages"],
    ) == (
        True,
        None,
        3,
        [2, 1],
    )
    assert _audit(connection) == []
    assert (
        "more than at_most"
        in api.post("/api/fixes", json={**asked, "dry_run": False, "at_most": 1}).json()["error"]
    )
    fix = _ok(api.post("/api/fixes", json={**asked, "dry_run": False}))["fix"]
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

    place = f"/api/fixes/{fix['id']}"
    assert _ok(api.get("/api/fixes", params={"open": True}))["fixes"][0]["id"] == fix["id"]
    assert _ok(api.get(place))["next"].startswith("releases up to 2 events in stage 1")
    assert (
        _ok(api.post(f"{place}/pause", json={"reason": "wait", "dry_run": True}))["status"]
        == "paused"
    )
    assert _ok(api.get(place))["fix"]["status"] == "active"
    for act, status in (("pause", "paused"), ("resume", "active"), ("withdraw", "withdrawn")):
        assert _ok(api.post(f"{place}/{act}", json={"reason": f"to {act}"}))["status"] == status
    assert api.post(f"{place}/pause", json={"reason": "x"}).status_code == 409
    assert api.get("/api/fixes/99").status_code == 404
    assert [kind for kind, _ in _audit(connection)] == [
        "fix.flag",
        "fix.paused",
        "fix.resumed",
        "fix.withdrawn",
    ]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"note": "x"}, 400, "no filter was given"),
        ({"cause": "v1-nothing", "note": "x"}, 404, "no cause"),
        ({"event_type": "nobody's", "note": "x"}, 409, "No dead events match"),
        ({"all": True, "note": " "}, 400, "note must not be empty"),
        ({"all": True, "note": "x", "canary": 0}, 400, "canary must be from 1"),
        ({"all": True, "note": "x", "link": ""}, 400, "link must not be empty"),
        ({"all": True, "note": "x", "not_before": "soon"}, 400, "not_before: 'soon' is no time"),
        (
            {"all": True, "note": "x", "not_before": "9999-12-31"},
            400,
            "not_before: 9999-12-31 lies outside the years",
        ),
    ],
)
def test_a_fix_that_cannot_be_is_refused(
    api: httpx.Client, connection: Connection, body: dict[str, Any], status: int, said: str
) -> None:
    answer = api.post("/api/fixes", json=body)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert one(connection, "select count(*) from dlq.fix") == {"count": 0}


def test_parked_events_are_listed_and_released(api: httpx.Client, connection: Connection) -> None:
    park(connection, [1, 3])
    page = _ok(api.get("/api/fixes/parked", params={"limit": 1}))
    assert ([event["event_id"] for event in page["events"]], page["next"]) == ([1], 1)
    assert [
        e["event_id"] for e in _ok(api.get("/api/fixes/parked", params={"after": 1}))["events"]
    ] == [3]
    none = api.post("/api/fixes/release-parked", json={"event_ids": [2], "reason": "x"})
    assert (none.status_code, none.json()["error"]) == (404, "None of these events is parked.")
    done = _ok(
        api.post("/api/fixes/release-parked", json={"event_ids": [1, 2], "reason": "corrected"})
    )
    assert (done["requested"], done["processed"]) == (2, 1)
    assert one(connection, "select status from outbox_event where id = 1") == {"status": "pending"}


def test_the_archive_moves_by_hand_what_the_schedules_move(
    serve: Serve, connection: Connection
) -> None:
    api = serve(archive_requires_export=False)
    connection.execute(
        "update outbox_event set dead_at = dead_at - interval '31 days' where id < 3"
    )
    connection.execute(
        "update dlq.death set died_at = died_at - interval '31 days' where event_id < 3"
    )
    why = {"reason": "by hand"}
    assert _ok(api.post("/api/archive/run", json={**why, "dry_run": True}))["moved"] == 2
    assert api.post("/api/archive/run", json={**why, "at_most": 1}).status_code == 409
    assert _ok(api.post("/api/archive/run", json=why))["moved"] == 2
    connection.execute(
        "update outbox_event_archive set archived_at = now() - interval '366 days' where id = 1"
    )
    assert _ok(api.post("/api/archive/purge", json=why))["events"] == 1
    assert (
        _ok(api.post("/api/archive/restore", json={"all": True, "reason": "late"}))["events"] == 1
    )
    assert [kind for kind, _ in _audit(connection)] == [
        "archive.move",
        "archive.purge",
        "archive.restore",
    ]
    assert serve(archive_retention_days=0).post("/api/archive/purge", json=why).status_code == 409


def test_the_audit_is_read_by_pages(api: httpx.Client) -> None:
    for event in (1, 2, 3):
        _ok(api.post(f"/api/dead-events/{event}/retry", json={"reason": f"r{event}"}))
    page = _ok(api.get("/api/audit", params={"limit": 2}))
    assert [row["reason"] for row in page["entries"]] == ["r3", "r2"]
    rest = _ok(api.get("/api/audit", params={"limit": 2, "after": page["next"]}))
    assert ([row["reason"] for row in rest["entries"]], rest["next"]) == (["r1"], None)


@pytest.mark.parametrize("format", ["jsonl", "json", "csv", "parquet"])
def test_an_export_is_the_file_of_the_terminal(serve: Serve, tmp_path: Any, format: str) -> None:
    """The columns of the daily export, for a filter, redacted as that is, and given back to the next caller."""
    api = serve(export_redact_payload="mask $.sku")
    for _ in range(3):  # as many as are let in at once, and one more
        answer = api.get(
            "/api/dead-events/export", params={"format": format, "event_type": "order.placed"}
        )
        assert answer.status_code == 200
    format = format.replace("jsonl", "json").replace("json", "jsonl")  # two names for one
    assert answer.headers["content-disposition"] == f'attachment; filename="dead-events.{format}"'
    file = tmp_path / f"deaths.{format}"
    file.write_bytes(answer.content)
    reader = {"jsonl": "read_json", "csv": "read_csv", "parquet": "read_parquet"}[format]
    rows = duckdb.sql(f"select event_id, error from {reader}('{file}') order by 1").fetchall()
    assert rows == [(n, "TimeoutError: no answer") for n in (1, 2, 3)]
    assert b"A-1" not in answer.content
    if format == "parquet":
        assert pq.read_schema(file).names == EXPORT_SCHEMA.names


def test_a_reader_who_leaves_ends_the_export_and_gives_its_place_back(
    api: httpx.Client, connection: Connection
) -> None:
    """Four times more readers than places, each gone after the first bytes."""
    add_events(connection, 20_000, payload='{"text": "' + "x" * 500 + '"}')
    connection.execute("update outbox_event set status = 'dead' where status = 'pending'")
    for _ in range(8):
        give_up = time.monotonic() + 10  # the server learns in its own time that a reader has left
        while True:
            with api.stream("GET", "/api/dead-events/export") as answer:
                if answer.status_code == 200:
                    assert next(answer.iter_raw(1000))
                    break
            assert (answer.status_code, time.monotonic() < give_up) == (503, True)
    whole = api.get("/api/dead-events/export", params={"format": "csv"})
    assert whole.text.count("\n") == 20_005


def test_a_reader_who_stops_reading_ends_the_export_and_gives_its_place_back(
    api: httpx.Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its snapshot, which would keep the database from cleaning up for as long as the reader stalls."""
    monkeypatch.setattr("dlq_pipelines.api.stream._STALLED_SECONDS", 1.0)
    add_events(connection, 20_000, payload='{"text": "' + "x" * 1_000 + '"}')
    connection.execute("update outbox_event set status = 'dead' where status = 'pending'")
    with ExitStack() as open_:
        for _ in range(2):  # as many as are let in at once
            stalled = open_.enter_context(
                socket.create_connection((api.base_url.host, api.base_url.port or 0))
            )
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            host = f"{api.base_url.host}:{api.base_url.port}"
            stalled.sendall(
                f"GET /api/dead-events/export HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            )
            assert stalled.recv(12) == b"HTTP/1.1 200"
        assert api.get("/api/dead-events/export").status_code == 503
        give_up = time.monotonic() + 15
        while api.get("/api/dead-events/export", params={"event_type": "none"}).status_code == 503:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        holding = "select count(*) from pg_stat_activity where datname = current_database() and backend_xmin is not null"
        while one(connection, f"{holding} and pid <> pg_backend_pid()")["count"]:
            assert time.monotonic() < give_up
            time.sleep(0.1)


def test_a_report_is_built_listed_and_read(
    api: httpx.Client, connection: Connection, home: Path
) -> None:
    """As JSON, the very file that lies beside the page."""
    connection.execute("update outbox_event set dead_at = '2026-03-01T12:00Z'")
    connection.execute("update dlq.death set died_at = '2026-03-01T12:00Z'")
    assert (
        "There is no report of 2026-03-01" in _ok(api.get("/api/reports/2026-03-01"), 404)["error"]
    )
    built = _ok(api.post("/api/reports/2026-03-01"))
    assert (built["day"], built["figures"]["deaths"]) == ("2026-03-01", 4)
    _ok(api.post("/api/reports/2026-02-28"))
    assert _ok(api.post("/api/reports/2026-03-01")) == built
    listed = _ok(api.get("/api/reports"))
    assert ([one["day"] for one in listed["reports"]], listed["count"]) == (
        ["2026-03-01", "2026-02-28"],
        2,
    )
    assert _ok(api.get("/api/reports", params={"limit": 1}))["reports"] == [built]
    answer = api.get("/api/reports/2026-03-01")
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (home / "reports" / "2026-03-01.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("method", "day", "status", "said"),
    [
        ("POST", "2999-01-01", 409, "2999-01-01 is not over yet"),
        ("POST", "9999-12-31", 400, "lies outside the years 1900 to 9000"),
        ("POST", "yesterday", 400, "day: "),
        ("POST", "0", 400, "day: "),
        ("GET", "2026-13-01", 400, "day: "),
        ("GET", "0001-01-01", 404, "There is no report of 0001-01-01"),
    ],
)
def test_a_report_of_no_day_is_refused(
    api: httpx.Client, method: str, day: str, status: int, said: str
) -> None:
    assert said in _ok(api.request(method, f"/api/reports/{day}"), status)["error"]


@pytest.mark.parametrize("text", ["a\x00", "\ud800"])
def test_a_text_that_cannot_be_stored_is_said_in_our_words(
    api: httpx.Client, causes: dict[str, str], text: str
) -> None:
    asked = json.dumps({"name": text, "reason": "x"})
    place = f"/api/causes/{causes['KeyError']}/rename"
    answer = api.post(place, content=asked, headers={"Content-Type": "application/json"})
    assert answer.json() == {
        "error": "name: contains NUL or half of a surrogate pair, which PostgreSQL cannot store",
        "hint": "",
        "code": "invalid_argument",
    }


def test_every_list_is_read_to_its_end_by_pages(
    dlq: Run,  # noqa: F811
    api: httpx.Client,
    connection: Connection,
) -> None:
    """Each row once and in the order of the whole list, also while figures change; at a terminal as here."""
    connection.execute("update dlq.death set cause_id = null")
    connection.execute("truncate dlq.cause cascade")
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, sample, first_seen, last_seen)"
        " select 'c' || n, 'KeyError', 'x', '', now(), now() from generate_series(1, 7) n"
    )
    connection.execute("update dlq.death set cause_id = 'c' || case when id < 3 then 5 else id end")
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
        whole = [row[key] for row in _ok(api.get(f"/api/{name}"))[name]]
        assert len(whole) == 7, name
        told, seen, after = list[Any](), list[Any](), dict[str, Any]()
        while after is not None:
            page = _ok(api.get(f"/api/{name}", params={"limit": 3, **after}))
            seen += [row[key] for row in page[name]]
            if name != "reports":
                words = [word for one in after.items() for word in (f"--{one[0]}", str(one[1]))]
                said = json.loads(dlq(name, "list", "--limit", "3", "--json", *words).out)
                told += [row[key] for row in said[name]]
                assert said["next"] == page["next"]
                hint = f"There may be more: --after {page['next']}\n" if page["next"] else ""
                assert dlq(name, "list", "--limit", "3", *words).err == hint
            after = {"after": page["next"]} if page["next"] is not None else None
            if name == "causes":  # what died meanwhile of one that was seen moves none that was not
                add_events(connection, 1)
                kill(connection, "x", where="status = 'pending'")
                connection.execute(
                    f"update dlq.death set cause_id = '{whole[0]}' where cause_id is null".encode()
                )
        assert seen == whole, name
        assert told == ([] if name == "reports" else whole)
    for name, after in (
        ("causes", "x"),
        ("alerts", "WzFd"),
        ("fixes", "0"),
        ("reports", "yesterday"),
    ):
        assert "after" in _ok(api.get(f"/api/{name}", params={"after": after}), 400)["error"]
