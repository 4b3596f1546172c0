"""Checks `dlq dead-events`: show, retry, retry-batch, discard."""

import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.api.dead_events import EventHistoryResponse
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixTerms
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from dlq_pipelines.text import format_aggregate, format_count
from tests.cli.conftest import CAUSE, ERROR, Ended, Run, add_dead_events, read_json, read_words
from tests.rows import add_events, date_deaths, kill, one, park

HOSTILE = "\x1b[2J[bold]\x9b31m\u202eZoë"
HISTORY_KEYS = {field.name for field in fields(EventHistoryResponse)}
DEATH_KEYS = {
    "id", "died_at", "attempts", "cause_id", "detail", "error", "discarded_at", "discarded_by",
    "discard_reason",
}  # fmt: skip
RETRY_KEYS = {
    "death_id", "fix_id", "stage", "actor", "reason", "retried_at", "due_at", "payload_before",
    "outcome", "settled_at", "recalled_by", "recall_reason",
}  # fmt: skip
PARKED = "Skipped: 1 parked event, retried too often. `--parked` includes parked events."
UNCHANGED = "select *, xmin from outbox_event order by id"


def _build_audit(reason: str = "asked") -> AuditContext:
    return AuditContext("ann", reason, datetime.now(UTC))


def _pending(connection: Connection) -> set[int]:
    return {
        row["id"]
        for row in connection.execute("select id from outbox_event where status = 'pending'")
    }


def test_show_prints_the_whole_history_of_an_event(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died, was retried with a new payload, died of another cause, and a fix released it."""
    monkeypatch.setenv("DLQ_ALLOW_EDIT", "true")
    add_dead_events(connection, 2)
    assert (
        dlq("dead-events", "retry", "1", "--reason", "no sku", "--payload", '{"sku": "B-2"}').code
        == 0
    )
    connection.execute("update dlq.retry set due_at = now()")
    kill(connection, "KeyError: 'postcode'", attempts=3, where="id = 1")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    fix = flag_fix(connection, FixFlag(Selection(all=True)), audit=_build_audit("fixed"))
    assert read_json(dlq("dead-events", "show", "1", "--json"))["fix"]["status"] == "active"
    advance_fix(connection, fix.id, audit=_build_audit(), terms=FixTerms())

    history = read_json(dlq("dead-events", "show", "1", "--json"))
    assert history.keys() == HISTORY_KEYS
    assert all(death.keys() == DEATH_KEYS for death in history["deaths"])
    assert all(retry.keys() == RETRY_KEYS for retry in history["retries"])
    assert (history["place"], history["status"], history["payload"]) == (
        "outbox", "pending", {"sku": "B-2"},
    )  # fmt: skip
    assert [(death["error"], death["attempts"]) for death in history["deaths"]] == [
        ("KeyError: 'postcode'", 3),
        (ERROR, 5),
    ]
    assert [
        (r["fix_id"], r["stage"], r["payload_before"], r["reason"]) for r in history["retries"]
    ] == [
        (fix.id, 1, None, f"fix {fix.id}, stage 1: fixed"),
        (None, None, {"sku": "A-1"}, "no sku"),
    ]
    assert [r["death_id"] for r in history["retries"]] == [
        death["id"] for death in history["deaths"]
    ]

    printed = read_words(dlq("dead-events", "show", "1"))
    for words in (
        "place outbox", "status pending", f"fix {fix.id}, active: fixed", "KeyError: 'postcode'",
        f"5 {CAUSE} a.py in send TimeoutError: no answer", f"{fix.id}, stage 1 not known yet",
        'payload: { "sku": "B-2" }', "payload before the retry of", '{ "sku": "A-1" }',
        "last error: KeyError: 'postcode'",
    ):  # fmt: skip
        assert words in printed


def test_show_finds_an_event_outside_the_outbox(dlq: Run, connection: Connection) -> None:
    """In the archive, purged, or deleted by the application."""
    add_dead_events(connection, 3)
    archive_dead_events(
        connection, before=datetime.now(UTC), only_exported=False, audit=_build_audit()
    )
    connection.execute(
        "with gone as (delete from dlq.archived where id > 1 returning *),"
        " operation as (insert into dlq.audit (kind, actor, reason, filter, events, at)"
        " values ('x', 'x', 'x', '{}', 1, now()) returning id)"
        " insert into dlq.purged (death_id, event_id, audit_id, purged_at, died_at, archived_at)"
        " select dlq_death_id, gone.id, operation.id, now(), now(), now()"
        " from gone, operation where gone.id = 2"
    )
    shown = {
        event: read_json(dlq("dead-events", "show", str(event), "--json")) for event in (1, 2, 3)
    }
    assert [shown[event]["place"] for event in shown] == ["archive", "purged", "gone"]
    assert [shown[event]["status"] for event in shown] == [
        "dead",
        None,
        None,
    ]
    assert [len(shown[event]["deaths"]) for event in shown] == [1, 1, 1]
    assert "place purged" in read_words(dlq("dead-events", "show", "2"))


def test_show_names_who_discarded_an_event_and_why(dlq: Run, connection: Connection) -> None:
    add_dead_events(connection, 1)
    connection.execute(
        "insert into dlq.discard (death_id, event_id, actor, reason, discarded_at)"
        " select id, event_id, 'bob', 'a test order', now() from dlq.death"
    )
    assert "by bob: a test order" in read_words(dlq("dead-events", "show", "1"))
    assert (
        read_json(dlq("dead-events", "show", "1", "--json"))["deaths"][0]["discarded_by"] == "bob"
    )


def test_hostile_texts_are_shown_inert(dlq: Run, connection: Connection) -> None:
    """In error, payload, type and reason; line breaks stay."""
    add_events(connection, 1, payload=json.dumps({HOSTILE: [HOSTILE]}), event_type=HOSTILE)
    kill(connection, f"{HOSTILE}\nsecond line")
    assert dlq("dead-events", "retry", "1", "--reason", HOSTILE, "--actor", HOSTILE).code == 0
    out = dlq("dead-events", "show", "1").out
    assert out.expandtabs().replace("\n", "").isprintable()
    assert "last error:\n[bold]Zoë\nsecond line\n" in out
    assert out.count("[bold]Zoë") >= 6
    assert (
        dlq("dead-events", "show", "1", "--json").out.expandtabs().replace("\n", "").isprintable()
    )


def test_a_very_long_text_is_cut_in_tables_and_whole_in_json(
    dlq: Run, connection: Connection
) -> None:
    add_events(connection, 1, payload=json.dumps({"x": "y" * 30_000}))
    kill(connection, "KeyError: " + "z" * 30_000)
    out = dlq("dead-events", "show", "1").out
    assert len(out) < 50_000
    assert "more characters; --json prints all of them" in out
    history = read_json(dlq("dead-events", "show", "1", "--json"))
    assert (len(history["payload"]["x"]), len(history["deaths"][0]["error"])) == (
        30_000,
        30_010,
    )


def test_retry_releases_a_parked_event_now(dlq: Run, connection: Connection) -> None:
    """Ledger and audit log record who and why; the output names the next command."""
    add_dead_events(connection, 2)
    park(connection, [1])
    before = connection.execute(UNCHANGED.encode()).fetchall()
    assert "Would retry event 1." in read_words(
        dlq("dead-events", "retry", "1", "--reason", "corrected", "--dry-run")
    )
    assert connection.execute(UNCHANGED.encode()).fetchall() == before
    printed = read_words(
        dlq("dead-events", "retry", "1", "--reason", "corrected", "--actor", "ann")
    )
    assert printed == "Event 1 is pending again. See its outcome: `dlq dead-events show 1`."
    assert _pending(connection) == {1}
    audit = one(connection, "select kind, actor, reason, events from dlq.audit")
    assert audit == {"kind": "retry.selected", "actor": "ann", "reason": "corrected", "events": 1}
    assert read_json(dlq("dead-events", "retry", "2", "--reason", "x", "--json")) == {
        "event_id": 2,
        "events": 1,
        "dry_run": False,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "3"], 3, "Event 3 has never died"),
        (["show", "99"], 3, "Event 99 has never died"),
        (["show", "zero"], 2, "Not an event id of this outbox"),
        (["show", "9" * 20], 2, "Not an event id of this outbox"),
        (["retry", "3", "--reason", "x"], 3, "Event 3 is not dead"),
        (["retry", "99", "--reason", "x"], 3, "Event 99 is not dead"),
        (["retry", "1", "--reason", " "], 2, "reason must not be empty"),
        (["retry", "1"], 2, "--reason"),
        (["retry", "1", "--reason", "x", "--payload", "{}"], 4, "DLQ_ALLOW_EDIT=true"),
        (["retry", "1", "--reason", "r" * 10_001, "--dry-run"], 2, "reason has 10001 characters"),
        (["retry", "1", "--reason", "x", "--actor", "a" * 301], 2, "actor has 301 characters"),
        (["retry-batch", "--cause", "nope", "--reason", "x"], 3, "There is no cause 'nope'"),
        (
            ["retry-batch", "--cause", "nope", "--reason", "x", "--dry-run"],
            3,
            "There is no cause 'nope'",
        ),
        (["discard", "--cause", "nope", "--reason", "x"], 3, "There is no cause 'nope'"),
        (["retry-batch", "--all", "--rate", "0", "--reason", "x"], 2, "rate must be from 0.001"),
        (["retry-batch", "--all", "--rate", "1e-12", "--reason", "x"], 2, "not 1e-12"),
        (["retry-batch", "--reason", "x"], 2, "no filter was given"),
        (["retry-batch", "3", "99", "--reason", "x"], 3, "None of these events is dead"),
        (["retry-batch", "--all", "--cause", "c", "--reason", "x"], 2, "cannot be combined"),
        (["retry-batch", "--all", "--rate", "-1", "--reason", "x"], 2, "rate"),
        (["retry-batch", "--since", "x", "--reason", "x"], 2, "since: 'x' is not a time"),
    ],
)
def test_a_refused_command_changes_nothing(
    dlq: Run, connection: Connection, arguments: list[str], code: int, message: str
) -> None:
    """3: unknown or not dead; 2: an argument; 4: refused."""
    add_dead_events(connection, 2)
    add_events(connection, 1)
    before = connection.execute(UNCHANGED.encode()).fetchall()
    ended = dlq("dead-events", *arguments)
    assert (ended.code, ended.out, message in ended.err) == (code, "", True), ended
    assert connection.execute(UNCHANGED.encode()).fetchall() == before
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_a_payload_comes_from_an_argument_or_a_file_and_keeps_its_digits(
    dlq: Run, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If DLQ_ALLOW_EDIT permits it. Invalid JSON and missing files are errors."""
    monkeypatch.setenv("DLQ_ALLOW_EDIT", "true")
    add_dead_events(connection, 2)
    text = '{"price": 12345678901234567890.10}'
    (tmp_path / "payload.json").write_text(text, encoding="utf-8")

    def retry(event: str, payload: str, *more: str) -> Ended:
        return dlq("dead-events", "retry", event, "--reason", "x", "--payload", payload, *more)

    assert (retry("1", "{").code, retry("1", "@nowhere.json").code, retry("9", "{}").code) == (
        2,
        1,
        3,
    )
    assert retry("1", text, "--dry-run").code == 0
    assert _pending(connection) == set()
    assert (retry("1", text).code, retry("2", f"@{tmp_path / 'payload.json'}").code) == (0, 0)
    stored = connection.execute("select payload::text, status from outbox_event").fetchall()
    assert stored == [{"payload": text, "status": "pending"}] * 2


@pytest.mark.parametrize(
    ("chosen", "retried", "skipped"),
    [
        (["1", "3", "99"], {1, 3}, "Skipped: 1 event unknown: 99."),
        (["--event-type", "a"], {2}, PARKED),
        (["--event-type", "a", "--parked"], {1, 2}, ""),
        (["--error-contains", "no answer", "--aggregate-type", "order"], {2}, PARKED),
        (["--until", "2026-01-02"], {4}, ""),
        (
            ["1", "2", "3", "--event-type", "a"],
            {1, 2},
            "Skipped: 1 named event that does not match.",
        ),
        (["--all", "--parked"], {1, 2, 3, 4}, ""),
    ],
)
def test_a_batch_selects_dead_events_by_ids_or_by_a_filter(
    dlq: Run, connection: Connection, chosen: list[str], retried: set[int], skipped: str
) -> None:
    """A dry run counts the same. Parked events need an id or --parked. --rate sets the pace."""
    add_dead_events(connection, 2, event_type="a")
    add_dead_events(connection, 2, event_type="b", error="KeyError: 'sku'")
    add_events(connection, 1, event_type="a")
    park(connection, [1])
    date_deaths(connection, "'2026-01-01Z'", where="d.event_id = 4")
    command = (
        "dead-events",
        "retry-batch",
        *chosen,
        "--reason",
        "the carrier is back",
        "--rate",
        "4",
    )
    would = read_json(dlq(*command, "--dry-run", "--json"))
    assert would == {
        "events": len(retried),
        "batches": 1,
        "locked": 0,
        "parked": int(skipped == PARKED),
        "rate": 4.0,
        "others": [{"event_id": 99, "state": "unknown"}] if "99" in chosen else [],
        "dry_run": True,
    }
    assert _pending(connection) == {5}
    printed = read_words(dlq(*command))
    assert f"Retried {format_count(len(retried), 'dead event')} at 4 per second" in printed
    assert skipped in printed
    assert ("Skipped" in printed) == bool(skipped)
    assert _pending(connection) == retried | {5}
    due = one(
        connection,
        "select max(due_at) - min(due_at) as span from dlq.retry where reason <> 'asked'",
    )["span"]
    assert due.total_seconds() == (len(retried) - 1) / 4


def test_a_batch_says_what_the_named_events_are_that_are_not_dead(
    dlq: Run, connection: Connection
) -> None:
    """By state, with their ids; if none is dead, in the error, and all in JSON."""
    add_dead_events(connection, 3)
    add_events(connection, 14)
    connection.execute("update outbox_event set status = 'done' where id in (4, 5)")
    discard = ("dead-events", "discard", "1", "--reason", "a test order")
    assert dlq(*discard).code == 0
    connection.execute("delete from outbox_event where id = 2")
    ids = [str(id_) for id_ in (*range(1, 18), 99)]
    batch = ("dead-events", "retry-batch", "--reason", "x")
    printed = read_words(dlq(*batch, *ids, "--dry-run"))
    for line in (
        "Would retry 1 dead event",
        "Skipped: 1 event archived: 1.",
        "Skipped: 1 event deleted: 2.",
        "Skipped: 2 events delivered: 4, 5.",
        "Skipped: 12 events waiting for a worker: 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 and 2 more.",
        "Skipped: 1 event unknown: 99.",
    ):
        assert line in printed
    others = read_json(dlq(*batch, *ids, "--dry-run", "--json"))["others"]
    assert [other["event_id"] for other in others] == [1, 2, *range(4, 18), 99]
    discarding = ("dead-events", "discard", "3", "4", "--reason", "x", "--dry-run")
    assert "Skipped: 1 event delivered: 4." in read_words(dlq(*discarding))
    assert read_json(dlq(*discarding, "--json"))["others"] == [
        {"event_id": 4, "state": "delivered"}
    ]
    refused = dlq(*batch, "1", "4", "5")
    assert "None of these events is dead: 1 archived, 2 delivered." in refused.err


@pytest.mark.parametrize("verb", ["retry-batch", "discard"])
def test_locked_events_are_skipped_and_counted(
    dlq: Run, connection: Connection, database: Database, verb: str
) -> None:
    """A locked event is not reported as not dead; the other events are changed."""
    add_dead_events(connection, 3)
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event where id = 2 for update")
        refused = dlq("dead-events", verb, "2", "--reason", "x")
        assert (refused.code, refused.out) == (4, "")
        assert "Other transactions hold this event." in refused.err
        by_type = dlq("dead-events", verb, "--error-contains", "no answer", "--reason", "x")
        assert "Skipped: 1 dead event, locked by another transaction" in read_words(by_type)
    assert one(
        connection, "select array_agg(id) as ids from outbox_event where status = 'dead'"
    ) == {"ids": [2]}
    done = read_json(dlq("dead-events", verb, "2", "--reason", "x", "--json"))
    assert (done["events"], done["locked"]) == (1, 0)


def test_a_filter_without_matches_is_no_error(dlq: Run, connection: Connection) -> None:
    add_dead_events(connection, 1)
    printed = read_words(
        dlq("dead-events", "retry-batch", "--event-type", "never.seen", "--reason", "x")
    )
    assert printed == "No dead events match this filter. Nothing was changed."


def test_a_retry_of_more_than_a_thousand_events_needs_a_confirmation(
    dlq: Run, connection: Connection
) -> None:
    add_dead_events(connection, 1_001)
    command = ("dead-events", "retry-batch", "--all", "--reason", "x")
    ended = dlq(*command)
    assert (ended.code, ended.out, "would retry 1,001 events" in ended.err) == (4, "", True)
    assert _pending(connection) == set()
    assert "due within 20 s" in read_words(dlq(*command, "--yes"))
    assert len(_pending(connection)) == 1_001


def test_a_retry_beyond_the_look_ahead_is_refused_with_the_figure(
    dlq: Run, connection: Connection
) -> None:
    """A fix releases them as time passes."""
    add_dead_events(connection, 12)
    command = ("dead-events", "retry-batch", "--all", "--rate", "0.01", "--reason", "x")
    for options in ((), ("--yes",), ("--dry-run",)):
        ended = dlq(*command, *options)
        printed = " ".join(ended.err.split())
        assert (ended.code, ended.out) == (4, ""), ended
        assert "12 events at 0.01 per second fall due within 20 min" in printed
        assert "at most 7 at this rate. Nothing was changed." in printed
        assert "`dlq fixes flag`" in printed
    assert _pending(connection) == set()


def test_recall_makes_retried_events_dead_again(dlq: Run, connection: Connection) -> None:
    """By a filter, with a dry run; the history names who recalled an event."""
    add_dead_events(connection, 5)
    assert dlq("dead-events", "retry-batch", "--all", "--rate", "0.01", "--reason", "x").code == 0
    command = ("dead-events", "recall", "--event-type", "order.placed", "--reason", "stop")
    would = read_words(dlq(*command, "--dry-run"))
    assert would.startswith("Would recall 4 events; 1 is with the worker. Nothing was changed")
    assert len(_pending(connection)) == 5
    done = read_json(dlq(*command, "--actor", "eve", "--json"))
    assert done == {"recalled": 4, "with_worker": 1, "dry_run": False}
    assert read_words(dlq(*command)).startswith("Recalled 0 events; 1 is with the worker.")
    again = dlq("dead-events", "recall", "3", "--reason", "stop")
    assert read_words(again).startswith("Recalled 0 events; 0 are with the worker.")
    unknown = dlq("dead-events", "recall", "999", "--reason", "stop")
    assert unknown.code == 3
    assert "None of these events was ever retried by a person." in unknown.err
    assert len(_pending(connection)) == 1
    assert "recalled by eve: stop" in read_words(dlq("dead-events", "show", "5"))
    ended = dlq("dead-events", "recall", "--reason", "x")
    assert (ended.code, "no filter was given" in ended.err) == (2, True)


def test_an_id_of_another_type_is_a_usage_error(dlq: Run) -> None:
    """Its type is known to the database alone."""
    for command in (["show"], ["retry", "--reason", "fixed"]):
        ended = dlq("dead-events", *command, "c0ffee")
        assert (ended.code, "Not an event id of this outbox" in ended.err) == (2, True), ended
        assert "Ids of this outbox have the type bigint." in " ".join(ended.err.split())


def test_an_event_without_an_aggregate_is_shown_without_one() -> None:
    assert format_aggregate(None, None) == format_aggregate("", "") == "none"
    assert format_aggregate("order", "7") == "order 7"
    assert format_aggregate(None, "7") == "7"


def test_a_list_shows_no_aggregate_where_the_table_has_none(
    dlq: Run, connection: Connection
) -> None:
    add_events(connection, 1)
    connection.execute(
        "alter table outbox_event alter aggregate_type drop not null,"
        " alter aggregate_id drop not null"
    )
    connection.execute("update outbox_event set aggregate_type = null, aggregate_id = null")
    kill(connection, "boom")
    for command in (("list",), ("show", "1")):
        assert "None" not in dlq("dead-events", *command).out
