"""Tests what the report says about what sets the events of a cause apart."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.explain import sample_delivered_events
from dlq_pipelines.erase import ErasureResult, ErasureTerms, erase_events, list_erasable_events
from dlq_pipelines.exports.redact import parse_redaction
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.outbox.payload_filter import format_path
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ReportPolicy, ReportWindow
from dlq_pipelines.reports.purge import purge_report_files
from dlq_pipelines.reports.read import read_explanations
from dlq_pipelines.reports.report import Report, build_report
from dlq_pipelines.retries.retry import retry_events
from dlq_pipelines.text import sanitize_line, unescape_markdown
from dlq_pipelines.validate import EventId
from tests.reports.test_report import SCHEMA
from tests.rows import date_deaths, one
from tests.shapes import ShapedOutbox

ZONE = ZoneInfo("Europe/Berlin")
DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)
AUDIT = AuditContext("ann", "tidy up", now=NOW)
SENTENCE = "$.bank = north: 12 of 12 dead, 0 of 30 delivered"
NOT_COMPARED = (
    "Nothing was compared: too few of its events were still dead, or delivered, when this report "
    "was first built."
)


@pytest.fixture
def failing(outbox: ShapedOutbox) -> ShapedOutbox:
    """Thirty delivered events of a bank, and twelve of another that died on the day.

    There is a sample of the delivered ones, because one shape deletes them.
    """
    delivered = add_payloads(outbox, "south", 30)
    sample_delivered_events(outbox.connection, now=NOW, redact_payload=lambda payload: payload)
    outbox.deliver(delivered)
    dead = add_payloads(outbox, "north", 12)
    outbox.give_up(dead, "HTTPError: HTTP Error 503")
    date_deaths(outbox.connection, "timestamptz '2026-11-20T12:00Z'")
    classify_deaths(outbox.connection, zone=ZONE)
    return outbox


def add_payloads(outbox: ShapedOutbox, bank: str, count: int) -> list[int]:
    """Add pending events; return their numbers."""
    return [
        number
        for _ in range(count)
        for number in outbox.add_events(1, payload=json.dumps({"bank": bank}))
    ]


def build(
    connection: Connection,
    folder: Path,
    *,
    hidden: str = "",
    dry_run: bool = False,
    now: datetime = NOW,
) -> Report:
    redaction = parse_redaction(hidden, "", b"0" * 16)
    return build_report(
        connection,
        day=DAY,
        zone=ZONE,
        target=open_local_target(folder, "reports"),
        policy=replace(ReportPolicy(), redaction=redaction),
        now=now,
        dry_run=dry_run,
    )


def archive_all(connection: Connection) -> None:
    done = archive_dead_events(connection, before=NOW, only_exported=False, audit=AUDIT)
    assert done.moved == 12


def count_recorded(connection: Connection) -> int:
    return int(one(connection, "select count(*) as n from dlq.report_explanation")["n"])


def test_a_report_keeps_what_set_the_events_apart(failing: ShapedOutbox, tmp_path: Path) -> None:
    """Also after they were archived. A dry run records nothing; the filter selects them."""
    outbox = failing
    connection = outbox.connection
    build(connection, tmp_path, dry_run=True)
    assert count_recorded(connection) == 0
    first = build(connection, tmp_path)
    assert SENTENCE in first.html
    assert "<bdi>$.bank = north</bdi>" in first.html  # on the first screen, after the new cause
    assert "set apart by $.bank = north: 12 of 12 dead, 0 of 30 delivered" in unescape_markdown(
        first.markdown
    )
    assert "\n- `--where '$.bank == \"north\"'`\n" in first.markdown
    (cause,) = json.loads(first.json)["causes"]
    assert cause["explanation"] == {
        "condition": "$.bank = north",
        "where": cause["explanation"]["where"],
        "dead": 12,
        "compared_dead": 12,
        "delivered": 0,
        "compared_delivered": 30,
        "is_hidden": False,
    }
    selection = Selection(cause=cause["cause_id"], where=cause["explanation"]["where"])
    assert len(list_dead_events(connection, selection).events) == 12
    archive_all(connection)
    outbox.deliver(add_payloads(outbox, "north", 5))
    again = build(connection, tmp_path)
    assert again.json == first.json
    assert again.markdown == first.markdown
    assert again.html == first.html


def test_a_cause_whose_events_are_gone_stays_unexplained(
    failing: ShapedOutbox, tmp_path: Path
) -> None:
    """Events that are restored from the archive later must not change the report."""
    connection = failing.connection
    archive_all(connection)
    first = build(connection, tmp_path)
    assert NOT_COMPARED in first.html
    assert NOT_COMPARED in " ".join(first.markdown.split())
    assert json.loads(first.json)["causes"][0]["explanation"] == {
        "condition": None,
        "where": None,
        "dead": 0,
        "compared_dead": 0,
        "delivered": 0,
        "compared_delivered": 0,
        "is_hidden": False,
    }
    assert count_recorded(connection) == 1
    ids = [row["id"] for row in connection.execute("select id from dlq.archive").fetchall()]
    restore_events(connection, Selection(event_ids=tuple(ids)), audit=AUDIT)
    assert len(list_dead_events(connection).events) == 12
    assert build(connection, tmp_path).html == first.html


def test_a_few_events_that_are_left_explain_no_cause(failing: ShapedOutbox, tmp_path: Path) -> None:
    """The others were retried, and may have had something else in common."""
    connection = failing.connection
    ids = [event.id for event in list_dead_events(connection).events]
    retry_events(connection, ids[:6], audit=AUDIT)
    assert SENTENCE.replace("12", "6") in build(connection, tmp_path).html
    connection.execute("delete from dlq.report_explanation")
    retry_events(connection, ids[6:7], audit=AUDIT)
    left = " ".join(build(connection, tmp_path).markdown.split())
    assert NOT_COMPARED in left
    assert "north" not in left


def test_hidden_paths_are_not_in_the_report(failing: ShapedOutbox, tmp_path: Path) -> None:
    report = build(failing.connection, tmp_path, hidden="drop $.bank")
    assert "Nothing separates 12 dead events from 30 delivered ones." in report.html
    assert "north" not in report.html + report.markdown + report.json


HIDDEN = "What sets them apart is hidden by the redaction of payloads."


def test_a_path_that_is_hidden_later_is_hidden_in_the_next_build(
    failing: ShapedOutbox, tmp_path: Path
) -> None:
    """Only while a rule hides it, and not because of other paths."""
    connection = failing.connection
    first = build(connection, tmp_path)
    hidden = build(connection, tmp_path, hidden="drop $.bank")
    assert "north" not in hidden.html + hidden.markdown + hidden.json
    assert HIDDEN in " ".join(hidden.html.split())
    assert HIDDEN in " ".join(hidden.markdown.split())
    explanation = json.loads(hidden.json)["causes"][0]["explanation"]
    assert explanation["is_hidden"]
    assert explanation["condition"] is explanation["where"] is None
    jsonschema.validate(json.loads(hidden.json), SCHEMA)
    assert build(connection, tmp_path, hidden="drop $.banks; mask $.north").json == first.json


@pytest.mark.parametrize(
    ("rule", "steps"),
    [
        ("drop $.card", ("card", "cvc")),
        ("mask $..cvc", ("card", "cvc")),
        ("drop $.items[0].cvc", ("items", "[*]", "cvc")),
        ("drop $['a.b']", ("a.b", "c")),
        ("drop $['a \"quoted\" key']", ('a "quoted" key',)),
        ("drop $['two  spaces']", ("two  spaces",)),
        ("drop $['it\\'s']", ("it's",)),
        ("drop $['back\\\\slash']", ("back\\slash",)),
        ("drop $['$.size()']", ("$.size()",)),
        ("drop $.size", ("size",)),
        ("drop $['größe']", ("größe",)),
        ("drop $", ("any",)),
    ],
)
@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ("{path} >= 806.0", "{path}.double() >= 806.0"),
        ("{path} is missing", "!exists({path})"),
        ("{path} has >= 3 elements", "{path}.size() >= 3"),
        ("{path} has >= 300 characters", None),
        ('$.x = "$.y" and {path} = 1', '$.x == "\\"$.y" && ({path} == 1 || {path} == 2)'),
    ],
)
def test_a_recorded_condition_of_any_path_can_be_hidden(
    connection: Connection, rule: str, steps: tuple[str, ...], condition: str, where: str | None
) -> None:
    """Also names with dots, quotes, spaces and the names of methods."""
    path = format_path(steps)
    found = {
        "cause_id": "slow",
        "condition": sanitize_line(condition.format(path=path), 300),
        "where": where and where.format(path=path),
        **dict.fromkeys(("dead", "compared_dead", "compared_delivered"), 9),
        "delivered": 0,
    }
    connection.run("report.record_explanations", day=DAY, explanations=json.dumps([found]), now=NOW)
    window = ReportWindow(DAY, ZONE)
    for text, hidden in ((rule, True), ("", False)):
        redaction = parse_redaction(text, "", None)
        explanation = read_explanations(connection, window, redaction)["slow"]
        assert explanation.is_hidden == hidden
        assert (explanation.condition is None) == hidden


def test_a_hidden_path_in_a_value_hides_nothing(connection: Connection) -> None:
    """Also one that is the text of a value, or of a column."""
    explanations: list[dict[str, str | None]] = [
        {"cause_id": "value", "condition": "$.a = $.card", "where": '$.a == "$.card"'},
        {"cause_id": "column", "condition": "event type $.card", "where": None},
        {"cause_id": "long", "condition": "$.a has >= 300 characters", "where": None},
    ]
    counts = dict.fromkeys(("dead", "compared_dead", "delivered", "compared_delivered"), 9)
    connection.run(
        "report.record_explanations",
        day=DAY,
        explanations=json.dumps([{**found, **counts} for found in explanations]),
        now=NOW,
    )
    redaction = parse_redaction("drop $.card", "", None)
    found = read_explanations(connection, ReportWindow(DAY, ZONE), redaction)
    assert not any(explanation.is_hidden for explanation in found.values())


def erase(
    connection: Connection, *event_ids: EventId, text: str | None = None, dry_run: bool = False
) -> ErasureResult:
    return erase_events(
        connection,
        list_erasable_events(connection, event_ids, text),
        terms=ErasureTerms(ZONE, "exports", "reports"),
        audit=replace(AUDIT, now=datetime.now(UTC)),
        text=text,
        options=RunOptions(dry_run=dry_run),
    )


def test_an_erased_event_is_in_no_explanation_of_its_cause(
    failing: ShapedOutbox, tmp_path: Path
) -> None:
    """A condition may name a value of its payload. The next build compares the others."""
    connection = failing.connection
    build(connection, tmp_path)
    event = list_dead_events(connection).events[0].id
    erase(connection, event, dry_run=True)
    assert count_recorded(connection) == 1
    erase(connection, event)
    assert count_recorded(connection) == 0
    assert SENTENCE.replace("12", "11") in build(connection, tmp_path).html


def test_an_erased_text_is_in_no_explanation(failing: ShapedOutbox, tmp_path: Path) -> None:
    """Also one that no event has any more: the files are named until they are built again."""
    connection = failing.connection
    build(connection, tmp_path)
    files = tuple(f"reports/{DAY}.{suffix}" for suffix in ("html", "json", "md"))
    assert erase(connection, text="bank = north", dry_run=True).files == files
    assert SENTENCE in build(connection, tmp_path).html
    assert erase(connection, text="bank = north").files == files
    again = build(connection, tmp_path, now=datetime.now(UTC) + timedelta(seconds=1))
    assert "north:" not in again.html + again.markdown + again.json
    assert erase(connection, text="nothing has this").files == ()


def test_a_purged_report_leaves_no_explanation(failing: ShapedOutbox, tmp_path: Path) -> None:
    connection = failing.connection
    build(connection, tmp_path)
    purge_report_files(
        connection,
        before=DAY + timedelta(days=1),
        zone=ZONE,
        target=open_local_target(tmp_path, "reports"),
        audit=AUDIT,
    )
    assert count_recorded(connection) == 0
