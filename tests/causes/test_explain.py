"""Tests the explanation of a cause, on real tables and in every face."""

import json
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.explain import (
    SAMPLE_RETENTION,
    CauseExplanation,
    explain_cause,
    sample_delivered_events,
)
from dlq_pipelines.causes.separate import Separation, find_separation
from dlq_pipelines.erase import ErasureTerms, erase_events, list_erasable_events
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.exports.redact import parse_redaction
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import api, serve  # noqa: F401 - fixtures
from tests.causes.test_separate import PLANTS, build_groups
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, kill, one
from tests.shapes import ShapedOutbox
from tests.web.conftest import Visitor, visitor  # noqa: F401 - a fixture

ZONE = ZoneInfo("Europe/Berlin")
ERROR = "HTTPError: HTTP Error 503"


def explain(connection: Connection, hidden: str = "") -> list[str]:
    """Return the conditions of the only cause."""
    redaction = parse_redaction(hidden, "", b"0" * 16)
    (cause,) = connection.execute("select id from dlq.cause").fetchall()
    found = explain_cause(connection, cause["id"], zone=ZONE, is_hidden=redaction.hides)
    return [finding.condition for finding in found.separation.findings]


def add_payloads(outbox: ShapedOutbox, bank: str, count: int) -> list[int]:
    """Add pending events; return their numbers."""
    numbers = []
    for number in range(count):
        payload = {"bank": bank, "card": {"number": f"{bank}-{number}"}}
        numbers += outbox.add_events(1, payload=json.dumps(payload))
    return numbers


@pytest.fixture
def failing(outbox: ShapedOutbox) -> ShapedOutbox:
    """Thirty delivered events of a bank, which the sample has too, and twelve dead of another."""
    delivered = add_payloads(outbox, "south", 30)
    assert sample(outbox.connection) == 30
    outbox.deliver(delivered)
    outbox.give_up(add_payloads(outbox, "north", 12), ERROR)
    classify_deaths(outbox.connection, zone=ZONE)
    return outbox


def sample(connection: Connection, *, hidden: str = "", now: datetime | None = None) -> int:
    """Keep a sample; return how many events were added."""
    redaction = parse_redaction(hidden, "", b"0" * 16)
    return sample_delivered_events(
        connection, now=now or datetime.now(UTC), redact_payload=redaction.redact_payload
    )


def test_dead_events_are_compared_with_delivered_ones(failing: ShapedOutbox) -> None:
    """Also where delivered events are deleted. The filter selects the dead events it counts."""
    connection = failing.connection
    (cause,) = connection.execute("select id from dlq.cause").fetchall()
    found = explain_cause(connection, cause["id"], zone=ZONE, is_hidden=lambda _: False)
    best = found.separation.findings[0]
    assert (best.condition, best.dead, best.delivered) == ("$.bank = north", 12, 0)
    assert (found.separation.dead, found.separation.delivered) == (12, 30)
    assert str(found) == "$.bank = north: 12 of 12 dead, 0 of 30 delivered"
    assert best.where is not None
    selected = list_dead_events(connection, Selection(cause=cause["id"], where=best.where))
    assert len(selected.events) == 12


@pytest.mark.parametrize("name", PLANTS)
def test_the_filter_of_a_condition_selects_the_events_that_it_counts(
    connection: Connection, name: str
) -> None:
    """PostgreSQL reads the documents as the comparison did."""
    dead, delivered = build_groups(PLANTS[name][0], seed=1)
    for event in dead:
        add_events(connection, 1, payload=event.payload or "")
    kill(connection, ERROR)
    findings = find_separation(dead, delivered).findings
    assert findings
    for finding in findings:
        if finding.where is None:
            assert name == "a value among arrays"
            continue
        selected = list_dead_events(connection, Selection(where=finding.where))
        assert len(selected.events) == finding.dead, finding.where


def test_an_event_that_died_before_is_no_delivered_one(failing: ShapedOutbox) -> None:
    """Otherwise a verified fix would hide what its events have in common."""
    connection = failing.connection
    events = add_payloads(failing, "north", 20)
    assert sample(connection) > 0
    failing.give_up(events, ERROR)
    failing.deliver(events)
    assert explain(connection)[0] == "$.bank = north"


def test_hidden_paths_are_neither_shown_nor_kept(failing: ShapedOutbox) -> None:
    connection = failing.connection
    assert explain(connection, "mask $.bank; drop $.card") == []
    assert explain(connection, "hash $..number")[0] == "$.bank = north"
    connection.execute("delete from dlq.delivered_sample")
    add_payloads(failing, "west", 2)
    assert sample(connection, hidden="drop $.card") >= 2
    kept = one(connection, "select string_agg(payload, ' ') as text from dlq.delivered_sample")
    assert "west" in kept["text"]
    assert "card" not in kept["text"]
    assert sample(connection, hidden="drop $") == 0


def test_the_sample_is_bounded_and_ends(connection: Connection) -> None:
    """Fifty events of a type a run, 200 in all, for thirty days; none of a type with enough."""
    now = datetime.now(UTC)
    add_events(connection, 300, payload='{"a": 1}')
    add_events(connection, 3, event_type="order.long", payload=json.dumps({"a": "x" * 9_000}))
    assert [sample(connection, now=now + timedelta(days=day)) for day in range(5)] == [50] * 5
    count = "select count(*) as n from dlq.delivered_sample"
    assert one(connection, count) == {"n": 200}
    connection.execute("update outbox_event set status = 'done' where id <= 250")
    assert sample(connection, now=now + timedelta(days=6)) == 0
    assert sample(connection, now=now + timedelta(days=6) + SAMPLE_RETENTION) == 0
    assert one(connection, count) == {"n": 0}


def test_an_erased_event_leaves_the_sample(failing: ShapedOutbox) -> None:
    connection = failing.connection
    payload = json.dumps({"mail": "maria@example.org"})
    connection.execute(
        "update dlq.delivered_sample set payload = %s where event_id::text ="
        " (select min(event_id::text) from dlq.delivered_sample)",
        [payload],
    )
    given = list_erasable_events(connection, [], "maria@example.org")
    assert len(given) == 1
    erase_events(
        connection,
        given,
        text="maria@example.org",
        audit=AuditContext("ann", "request", datetime.now(UTC)),
        terms=ErasureTerms(ZONE, "exports", "reports"),
    )
    assert one(connection, "select count(*) as n from dlq.delivered_sample") == {"n": 29}


def test_a_cause_without_anything_to_compare_says_so(connection: Connection) -> None:
    add_events(connection, 5)
    kill(connection, ERROR)
    classify_deaths(connection, zone=ZONE)
    (cause,) = connection.execute("select id from dlq.cause").fetchall()

    def describe() -> str:
        return str(explain_cause(connection, cause["id"], zone=ZONE, is_hidden=lambda _: False))

    assert describe().startswith("Nothing to compare 5 dead events with")
    add_events(connection, 9)
    connection.execute("update outbox_event set status = 'done' where status = 'pending'")
    assert describe() == "Nothing separates 5 dead events from 9 delivered ones."
    with pytest.raises(NotFoundError, match="has no detail 'nosuch'"):
        explain_cause(
            connection, cause["id"], detail="nosuch", zone=ZONE, is_hidden=lambda _: False
        )
    connection.execute("delete from outbox_event where status = 'dead'")
    assert describe() == "Nothing to compare: the cause has no dead events."
    with pytest.raises(NotFoundError):
        explain_cause(connection, "v2-none", zone=ZONE, is_hidden=lambda _: False)


def test_too_few_events_to_compare_are_named_and_hidden_paths_counted() -> None:
    few = CauseExplanation("v2-1", None, (), Separation(1, 50, 0, 3, (), hidden=2))
    assert str(few) == "1 dead event is too few to compare with 50 delivered ones."
    assert few.describe_hidden() == "2 paths are left out: DLQ_EXPORT_REDACT_PAYLOAD hides them."
    many = CauseExplanation("v2-1", None, (), Separation(90, 1, 0, 3, ()))
    assert str(many) == "1 delivered event is too few to compare 90 dead ones with."
    assert many.describe_hidden() == ""


def test_each_type_is_compared_with_its_own(connection: Connection) -> None:
    """A field that all events of a type have separates nothing."""
    for event_type, field in (("a", "x"), ("b", "y")):
        add_events(connection, 40, event_type=event_type, payload=json.dumps({field: 1}))
    connection.execute("update outbox_event set status = 'done' where mod(id, 2) = 0")
    kill(connection, ERROR, where="event_type = 'a' and status = 'pending'")
    classify_deaths(connection, zone=ZONE)
    assert explain(connection) == []


def test_every_face_explains_a_cause(
    connection: Connection,
    dlq: Run,  # noqa: F811
    api: httpx.Client,  # noqa: F811
) -> None:
    """The command names the filter, which `dlq fixes flag` takes as it is printed."""
    add_events(connection, 30, payload='{"bank": "south side"}')
    connection.execute("update outbox_event set status = 'done'")
    add_events(connection, 12, payload='{"bank": "it\'s north"}'.replace("\\'", "'"))
    kill(connection, ERROR, where="status = 'pending'")
    classify_deaths(connection, zone=ZONE)
    (cause,) = connection.execute("select id from dlq.cause").fetchall()
    printed = dlq("causes", "explain", cause["id"]).out
    assert "$.bank = it's north" in printed
    assert "12 of 12" in printed
    command = shlex.split(printed.splitlines()[-1])
    assert command[:2] == ["dlq", "fixes"]
    assert command[-3:] == ["--note", "...", "--dry-run"]
    flagged = json.loads(dlq(*command[1:], "--json").out)
    assert flagged["preview"]["events"] == 12
    answer = api.get(f"/api/causes/{cause['id']}/explanation").json()
    shown = json.loads(dlq("causes", "explain", cause["id"], "--json").out)
    assert answer == shown
    assert answer["separation"]["findings"][0]["dead"] == 12
    assert api.get("/api/causes/v2-none/explanation").status_code == 404


@pytest.mark.parametrize(
    "statement", ["explain.dead", "explain.delivered", "explain.kept", "explain.list_candidates"]
)
def test_each_read_is_bounded_by_an_index(outbox: ShapedOutbox, statement: str) -> None:
    """The last rows by key, or those of the cause. Where a table is small it may be read whole."""
    connection = outbox.connection
    outbox.add_dead(20, error=ERROR)
    outbox.add_events(6_000)
    connection.execute("analyze")
    (cause,) = connection.execute("select id from dlq.cause").fetchall()
    values: dict[str, dict[str, Any]] = {
        "explain.dead": {
            "causes": [cause["id"]],
            "detail": None,
            "died_from": None,
            "died_before": None,
            "limit": 10,
            "max_length": 1_000,
        },
        "explain.delivered": {
            "types": ["order.placed"],
            "quotas": [10],
            "scanned": 50,
            "max_length": 1_000,
        },
        "explain.kept": {"types": ["order.placed"], "quotas": [10]},
        "explain.list_candidates": {
            "scanned": 50,
            "enough": 20,
            "types": 5,
            "limit": 5,
            "max_length": 1_000,
        },
    }
    plan = outbox.explain(statement, **values[statement])
    assert f"Seq Scan on {outbox.table_name}" not in plan, plan
    if statement in {"explain.delivered", "explain.list_candidates"}:
        assert f"Backward using {outbox.key_index}" in plan, plan


def test_a_finding_about_an_aggregate_is_a_filter_too(
    connection: Connection,
    visitor: Visitor,  # noqa: F811 - a fixture
    dlq: Run,  # noqa: F811 - a fixture
) -> None:
    """On the page and in the terminal, whose command selects what was counted."""
    add_events(connection, 40)
    connection.execute("update outbox_event set status = 'done'")
    add_events(connection, 20)
    connection.execute("update outbox_event set aggregate_id = 'c 77' where status = 'pending'")
    kill(connection, ERROR, where="status = 'pending'")
    classify_deaths(connection, zone=ZONE)
    cause = one(connection, "select id from dlq.cause")["id"]
    command = shlex.split(dlq("causes", "explain", cause).out.splitlines()[-1])
    assert command[4:7] == [cause, "--aggregate-id", "c 77"]
    assert json.loads(dlq(*command[1:], "--json").out)["preview"]["events"] == 20
    page = visitor.open_page(f"/causes/{cause}")
    assert f"fixes/new?cause={cause}&amp;aggregate_id=c+77" in page
    form = visitor.open_page(f"/fixes/new?cause={cause}&aggregate_id=c+77")
    assert 'name="aggregate_id" type="text" value="c 77"' in form


def test_a_condition_without_a_filter_says_so(
    connection: Connection,
    dlq: Run,  # noqa: F811
) -> None:
    """A filter of a value selects arrays that contain it too."""
    add_events(connection, 30, payload='{"bank": "south"}')
    connection.execute("update outbox_event set status = 'done'")
    add_events(connection, 12, payload='{"bank": "north"}')
    add_events(connection, 3, payload='{"bank": ["north"]}')
    kill(connection, ERROR, where="status = 'pending'")
    classify_deaths(connection, zone=ZONE)
    printed = dlq("causes", "explain", one(connection, "select id from dlq.cause")["id"]).out
    assert "$.bank = north" in printed
    assert "12 of 15" in printed
    assert "No filter selects exactly the events of the first condition." in printed
    assert "dlq fixes flag" not in printed
