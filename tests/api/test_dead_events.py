"""`/api/dead-events`: do programs get what the tables hold, under the names that they know, and no other change?"""

from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import add_events, kill, one, park

ERROR = "TimeoutError: no answer"
UNCHANGED = "select *, xmin from outbox_event order by id"


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Five dead events of two types and causes, and one that lives."""
    add_events(connection, 3, payload='{"sku": "A-1"}')
    kill(connection, ERROR, attempts=5)
    add_events(connection, 2, event_type="order.paid")
    kill(connection, "KeyError: 'postcode'", attempts=3, where="status = 'pending'")
    add_events(connection, 1)
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def _json(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    return body


def _ids(answer: httpx.Response) -> list[int]:
    return [event["id"] for event in _json(answer)["events"]]


def test_the_list_has_the_names_that_clients_know(api: httpx.Client) -> None:
    """And what an event row has, with its cause."""
    body = _json(api.get("/api/dead-events", params={"limit": 2, "offset": 1}))
    assert {"events", "count", "limit", "offset"} <= body.keys()
    assert (body["count"], body["limit"], body["offset"]) == (2, 2, 1)
    event = body["events"][1]
    assert {
        "id", "aggregate_type", "aggregate_id", "event_type", "payload", "status", "attempts", "next_run_at",
        "created_at", "last_error", "dead_at", "cause_id",
    } <= event.keys()  # fmt: skip
    assert (event["id"], event["payload"], event["status"], event["last_error"]) == (
        3,
        {"sku": "A-1"},
        "dead",
        ERROR,
    )


def test_pages_by_key_hold_every_event_once_and_end(api: httpx.Client) -> None:
    """Also while events leave and die between two pages."""
    seen: list[int] = []
    after: dict[str, str] = {}
    while True:
        body = _json(api.get("/api/dead-events", params={"limit": 2, **after}))
        seen += [event["id"] for event in body["events"]]
        if body["next"] is None:
            break
        after = {"after": body["next"]}
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("asked", "ids"),
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
def test_filters_narrow_the_list(api: httpx.Client, asked: dict[str, Any], ids: list[int]) -> None:
    assert _ids(api.get("/api/dead-events", params=asked)) == ids


def test_a_cause_narrows_the_list_also_what_is_merged_into_it(
    api: httpx.Client, connection: Connection
) -> None:
    causes = [
        row["id"]
        for row in connection.execute(
            "select cause_id as id from dlq.death group by 1 order by count(*)"
        )
    ]
    assert _ids(api.get("/api/dead-events", params={"cause": causes[0]})) == [5, 4]
    connection.execute(
        "update dlq.cause set merged_into = %s where id = %s", [causes[1], causes[0]]
    )
    assert _ids(api.get("/api/dead-events", params={"cause": causes[1]})) == [5, 4, 3, 2, 1]
    stats = _json(api.get("/api/dead-events/stats", params={"cause": causes[1]}))
    assert (stats["total"], stats["by_cause"]) == (5, [{"name": causes[1], "events": 5}])


def test_the_figures_are_counted_by_every_side(api: httpx.Client, connection: Connection) -> None:
    connection.execute("update outbox_event set dead_at = now() - interval '2 hours' where id = 1")
    connection.execute(
        "update dlq.death set died_at = (select dead_at from outbox_event where id = 1) where event_id = 1"
    )
    body = _json(api.get("/api/dead-events/stats"))
    assert {"total", "aggregate_type", "event_type"} <= body.keys()
    assert (body["total"], body["aggregate_type"], body["event_type"]) == (5, None, None)
    assert body["by_event_type"] == [
        {"name": "order.placed", "events": 3},
        {"name": "order.paid", "events": 2},
    ]
    assert body["by_aggregate_type"] == [{"name": "order", "events": 5}]
    assert [one["events"] for one in body["by_cause"]] == [3, 2]
    assert [one["events"] for one in body["by_age"]] == [4, 1, 0, 0, 0]
    paid = _json(
        api.get("/api/dead-events/stats", params={"event_type": "order.paid", "by": "cause"})
    )
    assert (paid["total"], paid["event_type"], len(paid["by_cause"]), paid["by_age"]) == (
        2,
        "order.paid",
        1,
        [],
    )


def test_the_two_ways_of_counting_agree(api: httpx.Client) -> None:
    """A filter that only the ledger answers, and which all events pass, gives the figures of no filter."""
    plain, judged = (
        _json(api.get("/api/dead-events/stats", params=asked))
        for asked in ({}, {"error_contains": "Error"})
    )
    assert plain == judged


def test_an_event_is_shown_with_all_that_became_of_it(api: httpx.Client) -> None:
    assert (
        api.post("/api/dead-events/1/retry", json={"reason": "the carrier is back"}).status_code
        == 200
    )
    body = _json(api.get("/api/dead-events/1"))
    assert {"event", "deaths", "retries", "fix"} <= body.keys()
    assert body["event"]["status"] == "pending"
    assert [retry["reason"] for retry in body["retries"]] == ["the carrier is back"]
    assert [death["error"] for death in body["deaths"]] == [ERROR]


def test_a_retry_needs_no_body_and_is_done_once(api: httpx.Client, connection: Connection) -> None:
    """As existing clients ask; asked again the event is not dead, and nothing is done twice."""
    park(connection, [1])
    assert _json(api.post("/api/dead-events/1/retry")) == {
        "status": "success", "message": "Event 1 is pending again.", "event_id": 1, "dry_run": False,
    }  # fmt: skip
    assert "is not dead" in _json(api.post("/api/dead-events/1/retry"), 404)["error"]
    row = one(connection, "select status, attempts from outbox_event where id = 1")
    assert row == {"status": "pending", "attempts": 0}
    assert one(connection, "select count(*) from dlq.retry where reason <> 'asked'") == {"count": 1}
    audit = one(connection, "select kind, actor, reason, events from dlq.audit")
    assert audit == {
        "kind": "retry.selected",
        "actor": "api",
        "reason": "asked for over HTTP",
        "events": 1,
    }


def test_a_batch_says_how_many_were_asked_for_and_done(
    api: httpx.Client, connection: Connection
) -> None:
    body = _json(api.post("/api/dead-events/retry-batch", json={"event_ids": [1, 2, 6, 99, 1]}))
    assert {"status", "message", "requested", "processed"} <= body.keys()
    assert (body["status"], body["requested"], body["processed"]) == ("success", 4, 2)
    pending = connection.execute(
        "select id from outbox_event where status = 'pending' order by id"
    ).fetchall()
    assert [row["id"] for row in pending] == [1, 2, 6]


def test_a_batch_of_which_nothing_is_dead_is_not_found(
    api: httpx.Client, connection: Connection
) -> None:
    """As at a terminal, and as for a discard; also when it is only looked at."""
    for more in ({}, {"dry_run": True}):
        answer = _json(
            api.post("/api/dead-events/retry-batch", json={"event_ids": [6, 99], **more}), 404
        )
        assert answer == {
            "error": "None of these events is dead.",
            "hint": "`dlq dead-events show ID` shows what became of an event.",
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
)  # fmt: skip
def test_a_cause_that_is_none_or_is_shown_as_another_is_no_filter(
    api: httpx.Client, connection: Connection, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """A slip of the pen is not "nothing is dead"; of a merged one the answer names the cause to ask for."""
    merged, root = (row["id"] for row in connection.execute("select id from dlq.cause order by id"))
    connection.execute("update dlq.cause set merged_into = %s where id = %s", [root, merged])
    for cause, status, said in (
        ("v1-nosuch", 404, "no cause 'v1-nosuch'"),
        (merged, 409, f"Take {root}"),
    ):
        asked = body and {**body, "cause": cause}
        answer = api.request(method, f"/api/dead-events{path}".replace("CAUSE", cause), json=asked)
        assert said in _json(answer, status)["error"]
        assert "`dlq causes" in answer.json()["hint"]
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_what_others_hold_is_passed_over_and_said(api: httpx.Client, database: Database) -> None:
    asked = {"event_ids": [1, 2], "reason": "x"}
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event where id = 2 for update")
        done = _json(api.post("/api/dead-events/retry-batch", json=asked))
        assert (done["requested"], done["processed"], done["locked"]) == (2, 1, 1)
        assert "Skipped: 1, locked by other transactions" in done["message"]
        refused = _json(
            api.post("/api/dead-events/discard", json={"event_ids": [2], "reason": "x"}), 409
        )
        assert "Other transactions hold this event." in refused["error"]
    assert _json(api.post("/api/dead-events/retry-batch", json=asked))["processed"] == 1


def test_a_filter_is_looked_at_first_and_refused_when_it_means_more(
    api: httpx.Client, connection: Connection
) -> None:
    before = connection.execute(UNCHANGED.encode()).fetchall()
    asked = {"event_type": "order.placed", "reason": "x"}
    would = _json(api.post("/api/dead-events/retry-batch", json={**asked, "dry_run": True}))
    assert (would["processed"], would["dry_run"]) == (3, True)
    refused = _json(api.post("/api/dead-events/retry-batch", json={**asked, "at_most": 2}), 409)
    assert "would retry 3 events" in refused["error"]
    assert connection.execute(UNCHANGED.encode()).fetchall() == before
    assert (
        _json(api.post("/api/dead-events/retry-batch", json={**asked, "at_most": 3}))["processed"]
        == 3
    )


def test_discarded_events_go_to_the_archive_and_come_back_by_id(
    api: httpx.Client, connection: Connection, database: Database
) -> None:
    asked = {"event_ids": [1], "reason": "a test order"}
    assert _json(api.post("/api/dead-events/discard", json=asked))["processed"] == 1
    assert (
        "None of these events is dead"
        in _json(api.post("/api/dead-events/discard", json=asked), 404)["error"]
    )
    back = {"event_ids": [1], "reason": "a mistake"}
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event_archive for update")
        held = _json(api.post("/api/archive/restore", json=back), 409)
        assert "Other transactions hold this event." in held["error"]
    restored = _json(api.post("/api/archive/restore", json=back))
    assert (restored["events"], restored["locked"], restored["dry_run"]) == (1, 0, False)
    assert one(connection, "select count(*) from outbox_event where status = 'dead'") == {
        "count": 5
    }


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (("GET", "?limit=0", None), 400, "limit: "),
        (("GET", "?limit=1001", None), 400, "limit: "),
        (("GET", "?offset=-1", None), 400, "offset: "),
        (("GET", "?evnt_type=x", None), 400, "evnt_type: "),
        (("GET", "?since=yesterday", None), 400, "since: 'yesterday' is no time"),
        (("GET", "?since=2026-01-02&until=2026-01-01", None), 400, "since must be before"),
        (("GET", "?after=nonsense", None), 400, "Invalid cursor"),
        (("GET", "?event_type=%00", None), 400, "cannot be stored"),
        (("GET", "/../causes/%00", None), 400, "cause: holds NUL, or half"),
        (("GET", "?since=2026-01-01T00:00+00:00", None), 400, "A + in an address means a space: write it as %2B."),
        (("GET", "?limit=1&limit=2", None), 400, "limit: said 2 times."),
        (("POST", "/1/retry?dry_run=true&reason=x", None), 400, "dry_run: this address has no such argument."),
        (("GET", "/stats?by=colour", None), 400, "by.0: "),
        (("GET", "/export?format=xml", None), 400, "format: "),
        (("GET", "/99", None), 404, "no event 99 that ever died"),
        (("GET", "/6", None), 404, "has never died"),
        (("GET", "/x", None), 400, "event_id: "),
        (("GET", "/99999999999999999999", None), 400, "event_id: "),
        (("POST", "/6/retry", None), 404, "`GET /api/dead-events/6` says what became of it."),
        (("POST", "/1/retry", {"reason": " "}), 400, "reason must not be empty"),
        (("POST", "/1/retry", {"payload": "{}"}), 409, "DLQ_ALLOW_EDIT=true"),
        (("POST", "/1/retry", {"reasn": "x"}), 400, "reasn: "),
        (("POST", "/1/retry", {"reason": "a\x00b"}), 400, "reason: holds NUL, or half of a character"),
        (("POST", "/retry-batch", {"cause": "nope"}), 404, "There is no cause 'nope'"),
        (("POST", "/retry-batch", {"cause": "nope", "dry_run": True}), 404, "There is no cause 'nope'"),
        (("POST", "/discard", {"cause": "nope", "reason": "x"}), 404, "There is no cause 'nope'"),
        (("POST", "/retry-batch", {}), 400, "no filter was given"),
        (("POST", "/retry-batch", {"event_ids": []}), 400, "event_ids: "),
        (("POST", "/retry-batch", {"event_ids": [True]}), 400, "event_ids.0: "),
        (("POST", "/retry-batch", {"event_ids": ["1"]}), 400, "event_ids.0: "),
        (("POST", "/retry-batch", {"attempts": False}), 400, "attempts: "),
        (("POST", "/retry-batch", {"all": "yes"}), 400, "all: "),
        (("POST", "/retry-batch", {"all": True, "cause": "c"}), 400, "both asked for"),
        (("POST", "/discard", {"event_ids": [1]}), 400, "reason: "),
        (("PUT", "/1", None), 405, "Method Not Allowed"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_changes_nothing(
    api: httpx.Client,
    connection: Connection,
    request_: tuple[str, str, Any],
    status: int,
    said: str,
) -> None:
    before = connection.execute(UNCHANGED.encode()).fetchall()
    method, path, body = request_
    answer = api.request(method, f"/api/dead-events{path}", json=body)
    assert said in _json(answer, status)["error"]
    assert connection.execute(UNCHANGED.encode()).fetchall() == before
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}
