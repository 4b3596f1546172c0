"""Erasing an event's payload and error leaves no copy in the database."""

import gzip
import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.restore import build_nothing_restored_error, restore_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.catalogue import describe_cause, list_causes, set_cause_text
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.erase import (
    ErasedEvent,
    ErasureResult,
    ErasureTerms,
    TextPlace,
    erase_events,
    list_erasable_events,
)
from dlq_pipelines.errors import NotFoundError, RefusedError, SchemaError
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.mapping import parse_mapping
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.reports.figures import ReportPolicy
from dlq_pipelines.reports.report import build_report
from dlq_pipelines.retries.history import get_event_history
from dlq_pipelines.retries.retry import retry_event
from tests.other_outboxes import add_task, install_shape, install_tasks
from tests.outbox.table_shapes import read_shape
from tests.postgres.dumps import dump_data
from tests.rows import add_events, date_deaths, kill, one, wait_for_blocked_session
from tests.shapes import ShapedOutbox

UTC_ZONE = ZoneInfo("UTC")
TERMS = ErasureTerms(UTC_ZONE, "exports", "reports")
MAIL = "maria@example.org"
ERROR = f"ValidationError: {MAIL} is not valid"
OTHER = "ValidationError: x@example.org is not valid"


def make_audit() -> AuditContext:
    """Return the audit context of a change that is made now."""
    return AuditContext("ann", "request of a customer", datetime.now(UTC))


def erase(connection: Connection, *ids: Any, text: str | None = None, **options: Any) -> Any:
    """Erase events by their ids or by a text, as each face does."""
    return erase_events(
        connection,
        list_erasable_events(connection, ids, text),
        terms=TERMS,
        audit=make_audit(),
        text=text,
        options=RunOptions(**options),
    )


def count_copies(database: Database, text: str = MAIL) -> int:
    """Count how often a dump of all tables holds the text."""
    return dump_data(database).count(text)


def add_personal(outbox: ShapedOutbox) -> tuple[int, int]:
    """Add a dead event whose payload and error name a person, and another one of its cause."""
    (personal,) = outbox.add_dead(1, error=ERROR, payload=json.dumps({"mail": MAIL}))
    (other,) = outbox.add_dead(1, error=OTHER, payload='{"mail": "x@example.org"}')
    return personal, other


def test_no_copy_of_a_dead_event_is_left(outbox: ShapedOutbox) -> None:
    """It is discarded, its deaths still count, and other events stay as they are."""
    connection = outbox.connection
    personal, other = add_personal(outbox)
    before = outbox.read_row(other)
    assert count_copies(outbox.database) >= 3
    planned = erase(connection, outbox.event_id(personal), dry_run=True)
    assert count_copies(outbox.database) >= 3
    done = erase(connection, outbox.event_id(personal))
    event = ErasedEvent(outbox.event_id(personal), rows=1, kept=0, deaths=1)
    assert planned == done == ErasureResult((event,), ())
    assert count_copies(outbox.database) == 0
    assert outbox.read_row(other) == before
    assert outbox.count_rows() == (1, 1)
    history = get_event_history(connection, outbox.event_id(personal))
    assert (history.place, [death.error for death in history.deaths]) == ("archive", [None])
    assert history.deaths[0].discard_reason == "request of a customer"
    (cause,) = list_causes(connection)
    assert (cause.deaths, describe_cause(connection, cause.id).sample) == (2, OTHER)
    assert reconcile_events(connection, now=datetime.now(UTC)).is_balanced
    again = erase(connection, outbox.event_id(personal))
    assert again.events == (ErasedEvent(outbox.event_id(personal), 0, 0, 0),)
    kinds = connection.execute("select kind from dlq.audit order by id").fetchall()
    assert [row["kind"] for row in kinds] == ["archive.discard", "event.erase"]


def test_an_erased_event_is_never_restored(outbox: ShapedOutbox) -> None:
    """Also if it was archived by its age: its retry would deliver an empty payload."""
    connection = outbox.connection
    personal, other = add_personal(outbox)
    later = datetime.now(UTC) + timedelta(days=1)
    archive_dead_events(connection, before=later, only_exported=False, audit=make_audit())
    erase(connection, text=MAIL)
    assert count_copies(outbox.database) == 0
    named = Selection(event_ids=(outbox.event_id(personal),))
    done = restore_events(connection, named, audit=make_audit())
    assert (done.events, done.erased) == (0, 1)
    assert isinstance(build_nothing_restored_error(done), RefusedError)
    done = restore_events(connection, Selection(all=True), audit=make_audit())
    assert (done.events, done.erased) == (1, 1)
    assert outbox.list_numbers("dead") == [other]


def test_an_event_that_a_worker_may_take_keeps_its_payload(outbox: ShapedOutbox) -> None:
    """Its deaths are erased. Once it is delivered, or dead again, the rest is erased."""
    connection = outbox.connection
    personal, _ = add_personal(outbox)
    id_ = outbox.event_id(personal)
    retry_event(connection, id_, audit=make_audit())
    assert erase(connection, id_).events == (ErasedEvent(id_, rows=0, kept=1, deaths=1),)
    assert MAIL in str(outbox.read_row(personal)["payload"])
    assert one(connection, "select count(row_before) as n from dlq.retry") == {"n": 0}
    if outbox.shape.deletes_delivered:
        outbox.give_up([personal], ERROR)
        assert erase(connection, id_).events == (ErasedEvent(id_, rows=1, kept=0, deaths=1),)
    else:
        outbox.deliver([personal])
        assert erase(connection, id_).events == (ErasedEvent(id_, rows=1, kept=0, deaths=0),)
        row = outbox.read_row(personal)
        assert (row["state"], row["payload"], row["error"]) == ("done", "{}", None)
    assert count_copies(outbox.database) == 0


def test_the_state_after_the_lock_of_a_worker_decides(outbox: ShapedOutbox) -> None:
    """A worker holds the event while `erase` begins, and lets it die: it is discarded."""
    (number,) = outbox.add_events(1, payload=json.dumps({"mail": MAIL}))
    done: list[ErasureResult] = []

    def run() -> None:
        with outbox.database.connect() as second:
            done.append(erase(second, outbox.event_id(number)))

    with outbox.database.connect() as worker:
        with worker.transaction():
            outbox.lock_rows(worker, [number])
            thread = threading.Thread(target=run)
            thread.start()
            wait_for_blocked_session(outbox.connection)
            sets = outbox.shape.sets["dead"].format(attempts=5, error=f"'{ERROR}'")
            worker.execute(f"update {outbox.shape.table} set {sets}".encode())
        thread.join()
    assert done[0].events == (ErasedEvent(outbox.event_id(number), rows=1, kept=0, deaths=1),)
    assert count_copies(outbox.database) == 0


def test_copies_of_fixes_alerts_and_edits_are_erased(
    connection: Connection, database: Database
) -> None:
    """Those of other events, and alerts that only name the cause, stay."""
    add_events(connection, 2)
    connection.execute(
        "update outbox_event set payload = %s where id = 1", [json.dumps({"mail": MAIL})]
    )
    kill(connection, ERROR, where="id = 1")
    kill(connection, "TimeoutError: no answer", where="id = 2")
    classify_deaths(connection, zone=UTC_ZONE)
    retry_event(connection, 1, audit=make_audit(), payload='{"mail": "?"}', allow_edit=True)
    kill(connection, ERROR, where="id = 1")
    pairs = [
        {"events": 1, "outcome": "died_again", "before": ERROR, "after": "KeyError: 'a'"},
        {"events": 1, "outcome": "died_again", "before": "KeyError: 'b'", "after": ERROR},
        {"events": 1, "outcome": "timed_out", "before": "TimeoutError: no answer", "after": ""},
    ]
    connection.execute(
        'insert into dlq.fix ("all", note, flagged_by, flagged_at, status, closed_at, evidence)'
        " values (true, 'n', 'ann', now(), 'halted', now(), %s)",
        [json.dumps(pairs)],
    )
    for key, text in (("k", ERROR), ("other", "New cause: TimeoutError: no answer")):
        connection.execute(
            "insert into dlq.alert (key, rule, severity, summary, detail, fired_at)"
            " values (%s, 'r', 'info', %s, 'd', now())",
            [key, text],
        )
        connection.execute(
            "insert into dlq.alert_notice (key, kind, severity, summary, detail, at)"
            " values (%s, 'fired', 'info', 's', %s, now())",
            [key, text],
        )
    assert count_copies(database) == 8
    erase(connection, 1)
    erase(connection, 2)
    assert count_copies(database) == 0
    evidence = one(connection, "select evidence from dlq.fix")["evidence"]
    assert [(pair["before"], pair["after"]) for pair in evidence] == [
        ("", "KeyError: 'a'"),
        ("KeyError: 'b'", ""),
        ("TimeoutError: no answer", ""),
    ]
    shown = connection.execute("select summary from dlq.alert order by key").fetchall()
    assert [row["summary"] for row in shown] == ["(erased)", "New cause: TimeoutError: no answer"]
    notices = connection.execute("select detail from dlq.alert_notice order by id").fetchall()
    assert [row["detail"] for row in notices] == [
        "(erased)",
        "New cause: TimeoutError: no answer",
    ]


def test_a_text_erases_every_event_and_lists_what_is_left(
    connection: Connection, database: Database
) -> None:
    """What people wrote is left, and so is an aggregate's id: the result names the columns."""
    add_events(connection, 3)
    connection.execute(
        "update outbox_event set payload = %s, aggregate_id = %s where id < 3",
        [json.dumps({"mail": MAIL}), MAIL],
    )
    kill(connection, ERROR, where="id = 1")
    kill(connection, OTHER, where="id > 1")
    classify_deaths(connection, zone=UTC_ZONE)
    (cause,) = list_causes(connection)
    set_cause_text(connection, cause.id, "note", f"ask {MAIL}", audit=make_audit())
    connection.execute(
        "insert into dlq.alert (key, rule, severity, summary, detail, fired_at)"
        " values ('k', 'r', 'info', 's', %s, now())",
        [f"Note of the fix: ask {MAIL}."],
    )
    done = erase(connection, text=MAIL)
    assert [event.event_id for event in done.events] == [1, 2]
    assert done.left == (
        TextPlace("archived.aggregate_id", 2),
        TextPlace("audit.filter", 1),  # the values before and after the change of the note
        TextPlace("cause.note", 1),
        TextPlace("death.aggregate_id", 2),
    )
    assert count_copies(database) == sum(place.rows for place in done.left)
    assert one(connection, "select detail from dlq.alert")["detail"] == "(erased)"
    again = erase(connection, text=MAIL)
    assert (again.events, again.left) == ((), done.left)


def test_a_detail_goes_with_its_last_death(connection: Connection, database: Database) -> None:
    """It can be a name. A detail of other deaths stays, and is counted as before."""
    add_events(connection, 4)
    kill(connection, "KeyError: 'maria'", where="id < 3")
    kill(connection, "KeyError: 'postcode'", where="id > 2")
    classify_deaths(connection, zone=UTC_ZONE)
    counted = "select detail, deaths from dlq.cause_detail order by 1"
    erase(connection, 1)
    erase(connection, 3)
    assert [row["detail"] for row in connection.execute(counted)] == ["maria", "postcode"]
    erase(connection, 2)
    assert connection.execute(counted).fetchall() == [{"detail": "postcode", "deaths": 2}]
    assert "maria" not in dump_data(database)
    details = "select event_id, detail from dlq.death order by 1"
    assert [tuple(row.values()) for row in connection.execute(details)] == [
        (1, ""), (2, ""), (3, "postcode"), (4, "postcode"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ['say "hi"', "Müller\\", "100 % sure_", "日本🎉 Straße"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_text_is_found_as_json_writes_it(
    empty_database: Database, text: str, ascii_only: bool
) -> None:
    """And signs of `like` stand for themselves."""
    with install_tasks(empty_database, id_type="text", payload_type="text") as (database, found):
        add_task(found, "a", json.dumps({"said": text}, ensure_ascii=ascii_only), error="x")
        add_task(found, "b", json.dumps({"said": "100 percent sure-"}), error="x")
        done = erase(found, text=text)
        assert [event.event_id for event in done.events] == ["a"]
        assert erase(found, text=text).events == ()
        assert dump_data(database).count('"said"') == 1


@pytest.mark.parametrize("payload_type", ["text", "json", "bytea"])
@pytest.mark.parametrize("nullable", [True, False])
def test_payloads_of_every_type_are_emptied(
    empty_database: Database, payload_type: str, nullable: bool
) -> None:
    """A column that may not be null gets the empty value of its type."""
    key = "0189f7ea-ae2c-7809-8aeb-b819cf5e9e7f"
    outbox = install_tasks(empty_database, payload_type=payload_type, requires_texts=not nullable)
    with outbox as (database, connection):
        for id_ in (key, key.replace("7f", "80")):
            add_task(connection, id_, json.dumps({"mail": MAIL}), error="KeyError: 'sku'")
        connection.execute("update task set state = 'done' where right(id::text, 2) = '80'")
        shown = MAIL.encode().hex() if payload_type == "bytea" else MAIL
        assert count_copies(database, shown) == 2
        done = erase(connection, text=MAIL)
        assert [(event.rows, event.kept) for event in done.events] == [(1, 0), (1, 0)]
        assert done.left == ()
        assert erase(connection, text=MAIL).events == ()
        assert count_copies(database, shown) == 0
        assert one(connection, "select count(*) as n from dlq.archived")["n"] == 1


def test_a_table_that_refuses_an_empty_payload_is_explained(empty_database: Database) -> None:
    """Events before it stay erased, and nothing of this one is."""
    outbox = install_tasks(empty_database, id_type="text", requires_texts=True)
    with outbox as (database, connection):
        connection.execute("alter table task add constraint filled check (body <> '')")
        for key in ("a", "b"):
            add_task(connection, key, f"to {MAIL}")
        connection.execute("update task set state = 'done' where id = 'b'")
        with pytest.raises(SchemaError, match=r'event b: .*violates check constraint "filled"'):
            erase(connection, text=MAIL)
        assert list_erasable_events(connection, (), MAIL) == ["b"]
        assert count_copies(database) == 1


def test_an_erasure_that_would_change_the_state_is_refused(empty_database: Database) -> None:
    """By this mapping an event is delivered if its error says so."""
    mapping = """
        table = "public.task"
        delivered = [{ failure = "none" }]
        [columns]
        id = "id"
        payload = "body"
        created_at = "written"
        error = "failure"
        [dead]
        state = "failed"
    """
    named = replace(empty_database, names=TableNames("public", "task"))
    with named.connect() as connection:
        connection.execute(
            "create table task (id text primary key, body text, written timestamptz default now(),"
            " state text not null default 'new', failure text)"
        )
        install_outbox(connection, parse_mapping(mapping, "task.toml"))
        connection.execute("insert into task (id, body, failure) values ('a', %s, 'none')", [MAIL])
        with pytest.raises(SchemaError, match="event a would no longer be delivered"):
            erase(connection, "a")
        assert one(connection, "select body from task") == {"body": MAIL}


@pytest.mark.parametrize("shape", ["oban", "spring-modulith", "graphile-worker", "river"])
def test_outboxes_of_public_projects_are_erased(empty_database: Database, shape: str) -> None:
    with install_shape(empty_database, shape) as (_, connection):
        for section in ("write", "give up"):
            connection.execute(read_shape(shape)[section].encode())
        classify_deaths(connection, zone=UTC_ZONE)
        event = one(connection, "select event_id::text as id from dlq.death")["id"]
        (done,) = erase(connection, event).events
        assert (done.rows, done.kept, done.deaths) == (1, 0, 1)
        row = one(connection, "select payload, error from dlq.archive")
        assert (row["payload"] in {None, "", "{}"}, row["error"]) == (True, None)
        assert reconcile_events(connection, now=datetime.now(UTC)).is_balanced


def test_an_event_to_which_a_row_refers_keeps_its_payload(
    connection: Connection, database: Database
) -> None:
    """It cannot be archived, so it stays dead and could be retried."""
    add_events(connection, 1, payload=json.dumps({"mail": MAIL}))
    kill(connection, ERROR)
    connection.execute("create table line (event_id bigint references outbox_event)")
    connection.execute("insert into line values (1)")
    assert erase(connection, 1).events == (ErasedEvent(1, rows=0, kept=1, deaths=1),)
    connection.execute("drop table line")
    assert erase(connection, 1).events == (ErasedEvent(1, rows=1, kept=0, deaths=0),)
    assert count_copies(database) == 0


@pytest.mark.usefixtures("home")
def test_a_killed_run_is_finished_by_the_next_one(
    connection: Connection, database: Database
) -> None:
    """It is killed inside the transaction of the third of four events."""
    add_events(connection, 4, payload=json.dumps({"mail": MAIL}))
    kill(connection, ERROR)
    with database.connect() as worker:
        with worker.transaction():
            worker.execute("select from outbox_event where id = 3 for update")
            command = "from dlq_pipelines.cli.main import main; main()"
            arguments = ["erase", "--text", MAIL, "--reason", "asked"]
            process = subprocess.Popen(
                [sys.executable, "-c", command, *arguments], stdout=subprocess.DEVNULL
            )
            wait_for_blocked_session(connection)
            process.kill()
            process.wait()
        erased = connection.execute("select event_id from dlq.death where error is null order by 1")
        assert [row["event_id"] for row in erased] == [1, 2]
    done = erase(connection, text=MAIL)
    assert [event.event_id for event in done.events] == [3, 4]
    assert count_copies(database) == 0


@pytest.fixture
def exported(connection: Connection, database: Database, tmp_path: Path) -> Day:
    """A day with two deaths, exported and reported; the payload and error of one name a person."""
    add_events(connection, 2)
    connection.execute(
        "update outbox_event set payload = %s where id = 1", [json.dumps({"mail": MAIL})]
    )
    kill(connection, ERROR, where="id = 1")
    kill(connection, OTHER, where="id = 2")
    date_deaths(connection, "timestamptz '2026-03-10T12:00Z'")
    classify_deaths(connection, zone=UTC_ZONE)
    write_files(connection, database, tmp_path)
    return Day.of(date(2026, 3, 10), UTC_ZONE)


def write_files(connection: Connection, database: Database, folder: Path) -> None:
    """Export and report the day."""
    day, now = Day.of(date(2026, 3, 10), UTC_ZONE), datetime.now(UTC)
    target = open_local_target(folder)
    export_day(connection, url=database.url, day=day, target=target, now=now)
    assert verify_day(connection, day=day, target=target, now=now) == []
    build_report(
        connection,
        day=day.date,
        zone=UTC_ZONE,
        target=open_local_target(folder, "reports"),
        policy=ReportPolicy(),
        now=now,
    )


def test_files_with_its_data_are_named_until_they_are_written_again(
    exported: Day, connection: Connection, database: Database, tmp_path: Path
) -> None:
    """The export of its day has the same deaths then, and the day still counts as exported."""
    export = f"died_on={exported.date}/part-00000"
    files = (
        f"exports/_csv/{export}.csv.gz",
        f"exports/_jsonl/{export}.jsonl.gz",
        f"exports/{export}.parquet",
        *(f"reports/{exported.date}.{suffix}" for suffix in ("html", "json", "md")),
    )
    assert MAIL in read_files(tmp_path)
    assert erase(connection, 1, dry_run=True).files == files
    assert erase(connection, 1).files == files
    # Also of a run that ended before it could say so.
    assert erase(connection, text="nothing has this").files == files
    write_files(connection, database, tmp_path)
    assert MAIL not in read_files(tmp_path)
    assert "x@example.org" in read_files(tmp_path)
    assert erase(connection, 1).files == ()
    done = archive_dead_events(
        connection, before=datetime.now(UTC), only_exported=True, audit=make_audit()
    )
    assert done.moved == 1


@pytest.mark.usefixtures("exported")
def test_a_report_with_the_evidence_of_a_fix_is_named(connection: Connection) -> None:
    """The fix was halted on another day than that of the death."""
    connection.execute(
        'insert into dlq.fix ("all", note, flagged_by, flagged_at, status, closed_at, evidence)'
        " values (true, 'n', 'ann', now(), 'halted', '2026-03-12T12:00Z', %s)",
        [json.dumps([{"events": 1, "outcome": "deleted", "before": ERROR, "after": ""}])],
    )
    connection.execute(
        "insert into dlq.report_day (day, headline, figures, files, built_at)"
        " values ('2026-03-12', 'h', '{}', '[{\"name\": \"2026-03-12.html\"}]', now())"
    )
    assert "reports/2026-03-12.html" in erase(connection, 1).files


@pytest.mark.usefixtures("exported")
def test_a_day_can_be_exported_again_if_its_event_was_deleted_since(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """The application deletes what it has delivered: of an erased event nothing gets lost."""
    connection.execute("delete from outbox_event where id = 1")
    erase(connection, 1)
    write_files(connection, database, tmp_path)
    assert MAIL not in read_files(tmp_path)


def read_files(folder: Path) -> str:
    """Return the texts of all files of exports and reports; Parquet as DuckDB reads it."""
    texts = []
    for file in sorted(folder.rglob("*.*")):
        if file.suffix == ".gz":
            texts.append(gzip.decompress(file.read_bytes()).decode())
        elif file.suffix == ".parquet":
            texts.append(str(pq.read_table(file).to_pylist()))
        elif file.is_file():
            texts.append(file.read_text("utf-8"))
    return "\n".join(texts)


@pytest.mark.parametrize("text", ["", "  ", "abc", "a\0bcd", "x" * 1_001])
def test_a_text_that_means_nothing_is_refused(connection: Connection, text: str) -> None:
    with pytest.raises(ValueError, match="text"):
        list_erasable_events(connection, (), text)


def test_what_cannot_be_erased_is_refused(connection: Connection) -> None:
    add_events(connection, 1)
    with pytest.raises(ValueError, match="nothing to erase was given"):
        list_erasable_events(connection, ())
    with pytest.raises(ValueError, match="Not an event id of this outbox"):
        list_erasable_events(connection, ["x"])
    with pytest.raises(NotFoundError, match="There is no event 99"):
        list_erasable_events(connection, [1, 99])
    with pytest.raises(ValueError, match="must not contain the text to erase"):
        erase_events(connection, [], terms=TERMS, audit=make_audit(), text="a customer")
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
        " select 'order', 'a', 'e', '{\"a\": \"text\"}' from generate_series(1, 10001)"
    )
    with pytest.raises(RefusedError, match=r"More than 10,000 events contain this text"):
        list_erasable_events(connection, (), "text")
