"""Tests what happened lately: causes that began, are back or rose, and how people see them."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines.alerts.alert import AlertPolicy, evaluate_alerts
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.recent import list_recent_causes
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import api, serve  # noqa: F401 - fixtures
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, deaths_at, kill, one

ZONE = ZoneInfo("UTC")
NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)


def add_deaths(connection: Connection, count: int, error: str, *, hours_ago: float) -> None:
    """Let events die some hours ago."""
    with deaths_at(connection, NOW - timedelta(hours=hours_ago)):
        add_events(connection, count)
        kill(connection, error, where="status = 'pending'")


def list_recent(connection: Connection, *, hours: float = 12) -> dict[str, tuple[str, int]]:
    """Return state and deaths by the exception type of each cause, in the order of the list."""
    classify_deaths(connection, zone=ZONE)
    recent = list_recent_causes(connection, since=NOW - timedelta(hours=hours), now=NOW, zone=ZONE)
    return {item.cause.exception_type: (item.recency.value, item.deaths) for item in recent.causes}


def test_what_needs_attention_comes_first(connection: Connection) -> None:
    """A few new deaths come before many usual ones."""
    for day in range(1, 15):
        add_deaths(connection, 24, "UsualError: x", hours_ago=24 * day + 13)
        add_deaths(connection, 2, "RisingError: x", hours_ago=24 * day + 13)
    add_deaths(connection, 2, "BackError: x", hours_ago=100)
    add_deaths(connection, 5, "PastError: x", hours_ago=100)
    classify_deaths(connection, zone=ZONE)
    connection.execute(
        "update dlq.cause set status = 'regressed', fixed_at = now()"
        " where exception_type = 'BackError'"
    )
    add_deaths(connection, 14, "UsualError: x", hours_ago=3)
    add_deaths(connection, 30, "RisingError: x", hours_ago=3)
    add_deaths(connection, 1, "BackError: x", hours_ago=3)
    add_deaths(connection, 3, "NewError: x", hours_ago=3)
    found = list_recent(connection)
    assert found == {
        "NewError": ("new", 3),
        "BackError": ("regressed", 1),
        "RisingError": ("rose", 30),
        "UsualError": ("ongoing", 14),
    }
    assert list(found) == ["NewError", "BackError", "RisingError", "UsualError"]
    assert list_recent(connection, hours=1) == {}


def test_merged_causes_are_one_and_unclassified_deaths_are_counted(connection: Connection) -> None:
    add_deaths(connection, 2, "OneError: x", hours_ago=3)
    add_deaths(connection, 3, "OtherError: x", hours_ago=3)
    classify_deaths(connection, zone=ZONE)
    connection.execute(
        "update dlq.cause set merged_into ="
        " (select id from dlq.cause where exception_type = 'OneError')"
        " where exception_type = 'OtherError'"
    )
    assert list_recent(connection) == {"OneError": ("new", 5)}
    add_deaths(connection, 4, "OneError: x", hours_ago=1)
    recent = list_recent_causes(connection, since=NOW - timedelta(hours=12), now=NOW, zone=ZONE)
    assert (recent.unclassified, recent.causes[0].deaths) == (4, 5)


def test_the_number_of_causes_adds_no_statement(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures of one cause cost a count of everything that is dead."""
    for number in range(12):
        add_deaths(connection, 1, f"Error{chr(65 + number)}Error: x", hours_ago=3)
    classify_deaths(connection, zone=ZONE)
    ran, run = list[str](), Connection.run

    def count(self: Connection, name: str, **values: object) -> object:
        ran.append(name)
        return run(self, name, **values)

    monkeypatch.setattr(Connection, "run", count)
    recent = list_recent_causes(connection, since=NOW - timedelta(hours=12), now=NOW, zone=ZONE)
    assert len(recent.causes) == 12
    assert len(ran) == 3


def test_a_time_that_is_not_past_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="since must be before now"):
        list_recent_causes(connection, since=NOW, now=NOW, zone=ZONE)


def test_an_index_finds_the_latest_deaths(connection: Connection) -> None:
    add_deaths(connection, 1, "OneError: x", hours_ago=3)
    add_deaths(connection, 3_000, "OneError: x", hours_ago=100)
    connection.execute("analyze")
    text = connection.render_query(
        "cause.recent",
        since=NOW - timedelta(hours=12),
        first_day=NOW.date() - timedelta(14),
        last_day=NOW.date() - timedelta(1),
        limit=100,
        causes=10,
    )
    plan = "\n".join(
        row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode()).fetchall()
    )
    assert "death_day" in plan, plan
    assert "Seq Scan on death" not in plan, plan


def test_tonight_names_the_next_commands(
    connection: Connection,
    dlq: Run,  # noqa: F811
    api: httpx.Client,  # noqa: F811
) -> None:
    """In the order of attention. With nothing to show it says so."""
    assert dlq("tonight").out.startswith("Nothing died since then.\n\nNo alert fires.")
    add_events(connection, 3)
    kill(connection, "NewError: \x1b[31mx")
    assert "3 deaths without a cause yet" in dlq("tonight", "--since", "2h").out
    classify_deaths(connection, zone=ZONE)
    cause = one(connection, "select id from dlq.cause")["id"]
    out = dlq("tonight", "--since", "2h").out
    assert "\x1b" not in out
    assert f"dlq causes explain {cause}" in out
    assert "These alerts fire now, but no run has recorded and sent them." in out
    shown = json.loads(dlq("tonight", "--since", "today", "--json").out)
    assert [(item["recency"], item["deaths"]) for item in shown["causes"]] == [("new", 3)]
    assert [alert["key"] for alert in shown["unrecorded_alerts"]] == [f"new_cause:{cause}"]
    evaluate_alerts(connection, now=datetime.now(UTC), policy=AlertPolicy())
    recorded = json.loads(dlq("tonight", "--json").out)
    assert (recorded["alerts"][0]["key"], recorded["unrecorded_alerts"]) == (
        f"new_cause:{cause}",
        [],
    )
    answer = api.get("/api/causes/recent", params={"since": "today"}).json()
    assert answer["causes"] == shown["causes"]
    assert api.get("/api/causes/recent", params={"since": "soon"}).status_code == 400
    assert dlq("tonight", "--since", "soon").code == 2
    assert dlq("tonight", "--since", "2099-01-01").code == 2


def test_the_audit_log_is_listed_in_pages(
    connection: Connection,
    dlq: Run,  # noqa: F811
) -> None:
    add_events(connection, 3)
    kill(connection, "KeyError: 'a'")
    for number in (1, 2, 3):
        dlq("dead-events", "retry", str(number), "--reason", f"reason {number}")
    first = json.loads(dlq("audit", "list", "--limit", "2", "--json").out)
    assert [entry["reason"] for entry in first["entries"]] == ["reason 3", "reason 2"]
    rest = json.loads(dlq("audit", "list", "--after", first["next"], "--json").out)
    assert rest["entries"][0]["reason"] == "reason 1"
    assert "reason 2" in dlq("audit", "list").out


def test_lists_are_filtered_alike_in_every_face(
    connection: Connection,
    dlq: Run,  # noqa: F811 - a fixture
    api: httpx.Client,  # noqa: F811 - a fixture
) -> None:
    """Every match once, in pages of one, on the command line and over HTTP."""
    for error, hours in (("OldError: x", 100), ("MutedError: x", 100), ("NewError: x", 3)):
        add_deaths(connection, 2, error, hours_ago=hours)
        classify_deaths(connection, zone=ZONE)
    connection.execute("update dlq.cause set owner = 'Payments' where exception_type <> 'OldError'")
    connection.execute(
        "update dlq.cause set muted_until = now() + '1 day' where exception_type = 'MutedError'"
    )

    def list_types(*arguments: str) -> list[str]:
        found: list[str] = []
        after: list[str] = []
        while True:
            words = ("causes", "list", "--limit", "1", *arguments, *after, "--json")
            page = json.loads(dlq(*words).out)
            query = dict(zip(arguments[::2], arguments[1::2], strict=True))
            given = {name[2:].replace("-", "_"): value for name, value in query.items()}
            over_http = api.get(
                "/api/causes",
                params={"limit": 1, **given, **({"after": after[1]} if after else {})},
            ).json()
            assert [cause["id"] for cause in over_http["causes"]] == [
                cause["id"] for cause in page["causes"]
            ]
            assert over_http["next"] == page["next"]
            found += [cause["exception_type"] for cause in page["causes"]]
            if page["next"] is None:
                return sorted(found)
            after = ["--after", page["next"]]

    assert list_types() == ["MutedError", "NewError", "OldError"]
    assert list_types("--state", "open") == ["NewError", "OldError"]
    assert list_types("--state", "muted") == ["MutedError"]
    assert list_types("--state", "fixed") == []
    assert list_types("--owner", "payments") == ["MutedError", "NewError"]
    assert list_types("--owner", "payments", "--state", "open") == ["NewError"]
    assert list_types("--state", "new") == ["NewError"]
    assert list_types("--state", "new", "--since", "6d") == ["MutedError", "NewError", "OldError"]
    assert list_types("--state", "rose") == []
    assert list_types("--text", "OLDerror") == ["OldError"]
    assert list_types("--text", "nosuch") == []
    (event_type,) = {
        row["event_type"] for row in connection.execute("select event_type from dlq.death")
    }
    assert len(list_types("--event-type", event_type)) == 3
    assert list_types("--event-type", event_type, "--state", "new") == ["NewError"]
    assert list_types("--event-type", "nosuch") == []
    assert api.get("/api/causes", params={"event_type": "a\x00b"}).status_code == 400
    assert api.get("/api/causes", params={"text": "x", "limit": 5000}).status_code == 400
    wrong = dlq("causes", "list", "--state", "open", "--since", "2h")
    assert (wrong.code, "since applies to the states new and rose" in wrong.err) == (2, True)
    assert api.get("/api/causes", params={"state": "odd"}).status_code == 400
    assert api.get("/api/causes", params={"owner": " "}).status_code == 400
    assert "No cause matches." in dlq("causes", "list", "--state", "fixed").out
