"""Tests `/api/dead-events`: lists, filters, statistics, retries, discards, and their errors."""

from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import add_events, date_deaths, kill, one, park

ERROR = "TimeoutError: no answer"
SELECT_EVENTS = "select *, xmin from outbox_event order by id"


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Five dead events of two types and causes, and a pending one."""
    add_events(connection, 3, payload='{"sku": "A-1"}')
    kill(connection, ERROR, attempts=5)
    add_events(connection, 2, event_type="order.paid")
    kill(connection, "KeyError: 'postcode'", attempts=3, where="status = 'pending'")
    add_events(connection, 1)
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def read_json(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the body of a response, after checking its status and type."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    return body


def read_ids(answer: httpx.Response) -> list[int]:
    """Return the ids of the events of a page."""
    return [event["id"] for event in read_json(answer)["events"]]


def test_the_list_has_the_fields_of_existing_clients(api: httpx.Client) -> None:
    """Each event has the columns of its row, and its cause."""
    body = read_json(api.get("/api/dead-events", params={"limit": 2, "offset": 1}))
    assert {"events", "count", "limit", "offset"} <= body.keys()
    assert (body["count"], body["limit"], body["offset"]) == (2, 2, 1)
    event = body["events"][1]
    assert {
        "id",
        "aggregate_type",
        "aggregate_id",
        "event_type",
        "payload",
        "status",
        "attempts",
        "next_run_at",
        "created_at",
        "last_error",
        "dead_at",
        "cause_id",
    } <= event.keys()
    assert (event["id"], event["payload"], event["status"], event["last_error"]) == (
        3,
        {"sku": "A-1"},
        "dead",
        ERROR,
    )


def test_keyset_pages_have_every_event_once(api: httpx.Client) -> None:
    seen: list[int] = []
    after: dict[str, str] = {}
    while True:
        body = read_json(api.get("/api/dead-events", params={"limit": 2, **after}))
        seen += [event["id"] for event in body["events"]]
        if body["next"] is None:
            break
        after = {"after": body["next"]}
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("parameters", "ids"),
    [
        ({"event_type": "order.paid"}, [5, 4]),
        ({"aggregate_type": "nobody"}, []),
        ({"error_contains": "no answer"}, [3, 2, 1]),
        ({"error_contains": "%"}, []),
        ({"attempts": 3}, [5, 4]),
        ({"event_ids": [1, 5, 6, 99]}, [5, 1]),
        ({"until": "2020-01-01"}, []),
        ({"since": "2020-01-01T10:00Z", "event_type": "order.placed"}, [3, 2, 1]),
        ({"offset": 4}, [1]),
        ({"error_contains": "no answer", "offset": 1, "limit": 1}, [2]),
    ],
)
def test_filters_narrow_the_list(
    api: httpx.Client, parameters: dict[str, Any], ids: list[int]
) -> None:
    assert read_ids(api.get("/api/dead-events", params=parameters)) == ids


def test_the_filter_for_a_cause_includes_merged_causes(
    api: httpx.Client, connection: Connection
) -> None:
    causes = [
        row["id"]
        for row in connection.execute(
            "select cause_id as id from dlq.death group by 1 order by count(*)"
        )
    ]
    assert read_ids(api.get("/api/dead-events", params={"cause": causes[0]})) == [5, 4]
    connection.execute(
        "update dlq.cause set merged_into = %s where id = %s", [causes[1], causes[0]]
    )
    assert read_ids(api.get("/api/dead-events", params={"cause": causes[1]})) == [5, 4, 3, 2, 1]
    stats = read_json(api.get("/api/dead-events/stats", params={"cause": causes[1]}))
    assert (stats["total"], stats["by_cause"]) == (5, [{"name": causes[1], "events": 5}])


def test_statistics_are_grouped_by_type_aggregate_cause_and_age(
    api: httpx.Client, connection: Connection
) -> None:
    date_deaths(connection, "now() - interval '2 hours'", where="d.event_id = 1")
    body = read_json(api.get("/api/dead-events/stats"))
    assert {"total", "aggregate_type", "event_type"} <= body.keys()
    assert (body["total"], body["aggregate_type"], body["event_type"]) == (5, None, None)
    assert body["by_event_type"] == [
        {"name": "order.placed", "events": 3},
        {"name": "order.paid", "events": 2},
    ]
    assert body["by_aggregate_type"] == [{"name": "order", "events": 5}]
    assert [group["events"] for group in body["by_cause"]] == [3, 2]
    assert [group["events"] for group in body["by_age"]] == [4, 1, 0, 0, 0]
    paid = read_json(
        api.get("/api/dead-events/stats", params={"event_type": "order.paid", "by": "cause"})
    )
    assert (paid["total"], paid["event_type"], len(paid["by_cause"]), paid["by_age"]) == (
        2,
        "order.paid",
        1,
        [],
    )


def test_statistics_from_the_outbox_and_from_the_ledger_agree(api: httpx.Client) -> None:
    """A filter of the error text reads the ledger; all events match this one."""
    outbox, ledger = (
        read_json(api.get("/api/dead-events/stats", params=parameters))
        for parameters in ({}, {"error_contains": "Error"})
    )
    assert outbox == ledger


def test_an_event_is_shown_with_its_history(api: httpx.Client) -> None:
    assert (
        api.post("/api/dead-events/1/retry", json={"reason": "the carrier is back"}).status_code
        == 200
    )
    body = read_json(api.get("/api/dead-events/1"))
    assert {"id", "place", "deaths", "retries", "fix"} <= body.keys()
    assert body["status"] == "pending"
    assert [retry["reason"] for retry in body["retries"]] == ["the carrier is back"]
    assert [death["error"] for death in body["deaths"]] == [ERROR]


def test_a_retry_needs_no_body_and_runs_once(api: httpx.Client, connection: Connection) -> None:
    """Existing clients send no body. The second retry is refused: the event is not dead."""
    park(connection, [1])
    assert read_json(api.post("/api/dead-events/1/retry")) == {
        "status": "success",
        "message": "Event 1 is pending again.",
        "event_id": 1,
        "dry_run": False,
    }
    assert "is not dead" in read_json(api.post("/api/dead-events/1/retry"), 404)["error"]
    row = one(connection, "select status, attempts from outbox_event where id = 1")
    assert row == {"status": "pending", "attempts": 0}
    assert one(connection, "select count(*) from dlq.retry where reason <> 'asked'") == {"count": 1}
    audit = one(connection, "select kind, actor, reason, events from dlq.audit")
    assert audit == {
        "kind": "retry.selected",
        "actor": "api",
        "reason": "requested over HTTP",
        "events": 1,
    }


def test_a_batch_returns_the_numbers_of_requested_and_processed_events(
    api: httpx.Client, connection: Connection
) -> None:
    body = read_json(api.post("/api/dead-events/retry-batch", json={"event_ids": [1, 2, 6, 99, 1]}))
    assert {"status", "message", "requested", "processed"} <= body.keys()
    assert (body["status"], body["requested"], body["processed"]) == ("success", 4, 2)
    pending = connection.execute(
        "select id from outbox_event where status = 'pending' order by id"
    ).fetchall()
    assert [row["id"] for row in pending] == [1, 2, 6]


def test_a_batch_without_dead_events_is_not_found(
    api: httpx.Client, connection: Connection
) -> None:
    """In a dry run too."""
    for more in ({}, {"dry_run": True}):
        answer = read_json(
            api.post("/api/dead-events/retry-batch", json={"event_ids": [6, 99], **more}), 404
        )
        assert answer == {
            "error": "None of these events is dead: 1 waiting for a worker, 1 unknown.",
            "hint": "`GET /api/dead-events/ID` shows the history of one.",
            "code": "not_found",
        }
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "?cause=CAUSE", None),
        ("GET", "/stats?cause=CAUSE&by=age", None),
        ("GET", "/export?cause=CAUSE", None),
        ("POST", "/retry-batch", {"cause": "CAUSE"}),
        ("POST", "/discard", {"cause": "CAUSE", "reason": "x"}),
        ("POST", "/../archive/restore", {"cause": "CAUSE", "reason": "x"}),
        ("GET", "/../fixes/parked?cause=CAUSE", None),
        ("POST", "/../fixes/release-parked", {"cause": "CAUSE", "reason": "x"}),
    ],
)
def test_an_unknown_or_merged_cause_is_refused_as_a_filter(
    api: httpx.Client, connection: Connection, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """The error of a merged cause names the cause to use."""
    merged, root = (row["id"] for row in connection.execute("select id from dlq.cause order by id"))
    connection.execute("update dlq.cause set merged_into = %s where id = %s", [root, merged])
    for cause, status, error, hint in (
        ("v2-nosuch", 404, "There is no cause 'v2-nosuch'.", "`GET /api/causes`"),
        (
            merged,
            409,
            f"Cause {merged} is merged into {root}.",
            f"Use {root}, or run `POST /api/causes/",
        ),
    ):
        asked = body and {**body, "cause": cause}
        answer = api.request(method, f"/api/dead-events{path}".replace("CAUSE", cause), json=asked)
        assert read_json(answer, status)["error"] == error
        assert hint in answer.json()["hint"]
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_skipped_events_are_named_with_what_they_are(
    api: httpx.Client, connection: Connection
) -> None:
    """Parked ones are counted; what is not dead is listed, and is in the error if none is dead."""
    connection.execute("update outbox_event set status = 'done' where id = 2")
    asked = {"event_ids": [1, 2, 404], "reason": "x", "dry_run": True}
    done = read_json(api.post("/api/dead-events/retry-batch", json=asked))
    assert (done["processed"], done["parked"]) == (1, 0)
    assert done["others"] == [
        {"event_id": 2, "state": "delivered"},
        {"event_id": 404, "state": "unknown"},
    ]
    discarded = read_json(api.post("/api/dead-events/discard", json=asked))
    assert discarded["others"] == done["others"]
    for verb in ("retry-batch", "discard"):
        refused = api.post(f"/api/dead-events/{verb}", json=asked | {"event_ids": [2, 404]})
        error = read_json(refused, 404)["error"]
        assert error == "None of these events is dead: 1 delivered, 1 unknown."
    park(connection, [1])
    released = read_json(api.post("/api/fixes/release-parked", json=asked))
    assert (released["processed"], released["others"]) == (1, done["others"])
    done = read_json(api.post("/api/dead-events/retry-batch", json={"all": True, "reason": "x"}))
    assert done["parked"] == 1
    assert "Skipped: 1 parked; `parked: true` includes them." in done["message"]


def test_locked_events_are_skipped_and_counted(api: httpx.Client, database: Database) -> None:
    asked = {"event_ids": [1, 2], "reason": "x"}
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event where id = 2 for update")
        done = read_json(api.post("/api/dead-events/retry-batch", json=asked))
        assert (done["requested"], done["processed"], done["locked"]) == (2, 1, 1)
        assert "Skipped: 1, locked by other transactions" in done["message"]
        refused = read_json(
            api.post("/api/dead-events/discard", json={"event_ids": [2], "reason": "x"}), 409
        )
        assert "Other transactions hold this event." in refused["error"]
    assert read_json(api.post("/api/dead-events/retry-batch", json=asked))["processed"] == 1


def test_a_change_of_more_events_than_at_most_is_refused(
    api: httpx.Client, connection: Connection
) -> None:
    before = connection.execute(SELECT_EVENTS.encode()).fetchall()
    asked = {"event_type": "order.placed", "reason": "x"}
    preview = read_json(api.post("/api/dead-events/retry-batch", json={**asked, "dry_run": True}))
    assert (preview["processed"], preview["dry_run"]) == (3, True)
    refused = read_json(api.post("/api/dead-events/retry-batch", json={**asked, "at_most": 2}), 409)
    assert "would retry 3 events" in refused["error"]
    assert connection.execute(SELECT_EVENTS.encode()).fetchall() == before
    assert (
        read_json(api.post("/api/dead-events/retry-batch", json={**asked, "at_most": 3}))[
            "processed"
        ]
        == 3
    )


def test_discarded_events_are_archived_and_restored_by_id(
    api: httpx.Client, connection: Connection, database: Database
) -> None:
    asked = {"event_ids": [1], "reason": "a test order"}
    assert read_json(api.post("/api/dead-events/discard", json=asked))["processed"] == 1
    assert (
        "None of these events is dead"
        in read_json(api.post("/api/dead-events/discard", json=asked), 404)["error"]
    )
    restore = {"event_ids": [1], "reason": "a mistake"}
    with database.connect() as other, other.transaction():
        other.execute("select from dlq.archived for update")
        held = read_json(api.post("/api/archive/restore", json=restore), 409)
        assert "Other transactions hold this event." in held["error"]
    restored = read_json(api.post("/api/archive/restore", json=restore))
    assert (restored["events"], restored["locked"], restored["dry_run"]) == (1, 0, False)
    assert one(connection, "select count(*) from outbox_event where status = 'dead'") == {
        "count": 5
    }


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (("GET", "?limit=0", None), 400, "limit: "),
        (("GET", "?limit=1001", None), 400, "limit: "),
        (("GET", "?offset=-1", None), 400, "offset: "),
        (("GET", "?evnt_type=x", None), 400, "evnt_type: "),
        (("GET", "?since=soon", None), 400, "since: 'soon' is not a time"),
        (("GET", "?since=2026-01-02&until=2026-01-01", None), 400, "since must be before"),
        (("GET", "?after=nonsense", None), 400, "Invalid cursor"),
        (
            ("GET", "?event_type=%00", None),
            400,
            "event_type: the text is not valid UTF-8 or contains NUL",
        ),
        (
            ("GET", "/../causes/%00", None),
            400,
            "cause: the text is not valid UTF-8 or contains NUL",
        ),
        (
            ("GET", "?since=2026-01-01T00:00+00:00", None),
            400,
            "In a URL a + is a space: escape it as %2B.",
        ),
        (("GET", "?limit=1&limit=2", None), 400, "limit: given 2 times. Pass it once."),
        (
            ("POST", "/1/retry?dry_run=true&reason=x", None),
            400,
            "dry_run: unknown query parameter.",
        ),
        (("GET", "/stats?by=colour", None), 400, "by, item 1: 'colour' is not 'event_type'"),
        (("GET", "/export?format=xml", None), 400, "format: "),
        (("GET", "/99", None), 404, "Event 99 has never died"),
        (("GET", "/6", None), 404, "has never died"),
        (("GET", "/x", None), 400, "Not an event id of this outbox"),
        (("GET", "/99999999999999999999", None), 400, "Not an event id of this outbox"),
        (
            ("POST", "/6/retry", None),
            404,
            "Event 6 is not dead. `GET /api/dead-events/6` shows its history.",
        ),
        (("POST", "/1/retry", {"reason": " "}), 400, "reason must not be empty"),
        (("POST", "/1/retry", {"payload": "{}"}), 409, "DLQ_ALLOW_EDIT=true"),
        (("POST", "/1/retry", {"reasn": "x"}), 400, "reasn is unknown."),
        (
            ("POST", "/1/retry", {"reason": "a\x00b"}),
            400,
            "reason: the text is not valid UTF-8 or contains NUL",
        ),
        (("POST", "/retry-batch", {"cause": "nope"}), 404, "There is no cause 'nope'"),
        (
            ("POST", "/retry-batch", {"cause": "nope", "dry_run": True}),
            404,
            "There is no cause 'nope'",
        ),
        (("POST", "/discard", {"cause": "nope", "reason": "x"}), 404, "There is no cause 'nope'"),
        (("POST", "/retry-batch", {}), 400, "no filter was given"),
        (("POST", "/retry-batch", {"event_ids": []}), 400, "event_ids must not be empty."),
        (
            ("POST", "/retry-batch", {"event_ids": [5, ""]}),
            400,
            "event_ids, item 2: pass the id of an event, a whole number or a text.",
        ),
        (
            ("POST", "/retry-batch", {"event_ids": ["x"], "reason": "x"}),
            400,
            "Not an event id of this outbox",
        ),
        (
            ("POST", "/retry-batch", {"attempts": False}),
            400,
            "attempts: false is not a whole number.",
        ),
        (("POST", "/retry-batch", {"all": "yes"}), 400, "all: 'yes' is not true or false."),
        (
            ("POST", "/retry-batch", {"all": True, "cause": "c"}),
            400,
            "all cannot be combined with filters",
        ),
        (("POST", "/discard", {"event_ids": [1]}), 400, "reason is required."),
        (("PUT", "/1", None), 405, "Method Not Allowed"),
    ],
)
def test_an_invalid_request_is_refused_and_changes_nothing(
    api: httpx.Client,
    connection: Connection,
    request_: tuple[str, str, Any],
    status: int,
    error: str,
) -> None:
    before = connection.execute(SELECT_EVENTS.encode()).fetchall()
    method, path, body = request_
    answer = api.request(method, f"/api/dead-events{path}", json=body)
    refused = read_json(answer, status)
    assert error in f"{refused['error']} {refused['hint']}"
    assert connection.execute(SELECT_EVENTS.encode()).fetchall() == before
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_an_id_of_another_type_is_refused_with_the_type(api: httpx.Client) -> None:
    """Its type is known to the database alone."""
    for answer in (
        api.get("/api/dead-events/c0ffee"),
        api.post("/api/dead-events/c0ffee/retry", json={"reason": "fixed"}),
    ):
        assert answer.status_code == 400, answer.text
        assert "Not an event id of this outbox" in answer.text
        assert "have the type bigint" in answer.text
        assert "cannot be stored" not in answer.text
