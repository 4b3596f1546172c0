"""Restoring: what was archived is dead again as it was, once, and a fix can target it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.archive import restore
from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.restore import (
    RestoreResult,
    build_nothing_restored_error,
    restore_events,
)
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from tests.rows import one

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("ann", "late fix", NOW)
ERROR = "KeyError: 1"
ALL = Selection(all=True)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "BATCH", 10)


def _died(connection: Connection, count: int, *, error: str = ERROR, event_type: str = "e") -> None:
    """Dead events, classified, of a minute each."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,"
        " dead_at) select 'order', n::text, %s, '{\"n\": 12345678901234567890.10}', 'dead', 5, %s,"
        " %s::timestamptz + n * interval '1 minute' from generate_series(1, %s) n",
        [event_type, error, NOW - timedelta(days=40), count],
    )
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def _archive(connection: Connection) -> int:
    return archive_dead_events(
        connection, before=NOW, only_exported=False, audit=replace(AUDIT, reason="r")
    ).moved


def _places(connection: Connection) -> tuple[int, int]:
    """Events in the outbox and in the archive."""
    counted = "select (select count(*) from outbox_event) as outbox, (select count(*) from outbox_event_archive) as archive"
    return tuple(one(connection, counted).values())  # type: ignore[return-value]


def test_an_event_comes_back_as_it_was_and_dies_no_second_death(connection: Connection) -> None:
    """Every column; the ledger is as before; archived again and restored again it is still the same."""
    _died(connection, 25)
    rows = "select *, payload::text as payload from outbox_event order by id"
    before = connection.execute(rows).fetchall()
    for _ in range(2):
        assert _archive(connection) == 25
        assert restore_events(connection, ALL, audit=AUDIT) == RestoreResult(
            25, 3, blocked=0, discarded=0, locked=0
        )
        assert connection.execute(rows).fetchall() == before
    assert one(connection, "select count(*) as n from dlq.death") == {"n": 25}
    assert restore_events(connection, ALL, audit=AUDIT) == RestoreResult(0, 0, 0, 0, 0)
    audit = (
        "select array_agg(events order by id) as n from dlq.audit where kind = 'archive.restore'"
    )
    assert one(connection, audit) == {"n": [10, 10, 5] * 2}
    assert connection.fetch_one("archive.unaccounted") == {
        "missing": 0,
        "doubled": 0,
        "examples": None,
    }


@pytest.mark.parametrize(
    ("selection", "back"),
    [
        (Selection(cause=compute_cause_key(ERROR)), {1, 2, 3}),
        (Selection(event_ids=(2, 5, 99)), {2, 5}),
        (Selection(event_type="f"), {4, 5}),
        (Selection(error_contains="other"), {4, 5}),
        (
            Selection(cause=compute_cause_key(ERROR), since=NOW - timedelta(days=40, minutes=-3)),
            {3},
        ),
        (ALL, {1, 2, 3, 4, 5}),
    ],
    ids=["a cause", "ids", "a type", "a text", "times", "all"],
)
def test_a_selector_says_what_comes_back(
    connection: Connection, selection: Selection, back: set[int]
) -> None:
    """The dry run says how many and changes nothing."""
    _died(connection, 3)
    _died(connection, 2, error="ValueError: other", event_type="f")
    _archive(connection)
    assert restore_events(
        connection, selection, audit=AUDIT, options=RunOptions(dry_run=True)
    ).events == len(back)
    assert _places(connection) == (0, 5)
    assert restore_events(connection, selection, audit=AUDIT).events == len(back)
    assert {row["id"] for row in connection.execute("select id from outbox_event")} == back


def test_what_is_in_the_outbox_or_was_given_up_stays_and_is_counted(connection: Connection) -> None:
    """What was given up comes back when it is named."""
    _died(connection, 3)
    discard_events(connection, Selection(event_ids=(1,)), audit=AUDIT)
    _archive(connection)
    connection.execute(
        "insert into outbox_event (id, aggregate_type, aggregate_id, event_type, payload)"
        " values (2, 'o', '1', 'e', '{}')"
    )
    assert restore_events(connection, ALL, audit=AUDIT) == RestoreResult(
        1, 1, blocked=1, discarded=1, locked=0
    )
    assert restore_events(connection, Selection(event_ids=(1, 2)), audit=AUDIT) == RestoreResult(
        1, 1, blocked=1, discarded=0, locked=0
    )
    assert one(connection, "select count(*) as n from dlq.discard") == {"n": 0}


def test_what_others_hold_stays_and_is_counted(connection: Connection, database: Database) -> None:
    """Also by a dry run; of events that were named the reason is said why none came back."""
    _died(connection, 3)
    _archive(connection)
    named = Selection(event_ids=(1, 2))
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event_archive where id < 3 for update")
        held = restore_events(connection, named, audit=AUDIT)
        assert held == RestoreResult(0, 0, blocked=0, discarded=0, locked=2)
        for dry_run in (True, False):
            done = restore_events(connection, ALL, audit=AUDIT, options=RunOptions(dry_run=dry_run))
            assert done == RestoreResult(1, 1, blocked=0, discarded=0, locked=2)
    assert _places(connection) == (1, 2)
    for done, kind, said in (
        (held, RefusedError, "Other transactions hold these 2 events"),
        (
            RestoreResult(0, 0, blocked=1, discarded=0, locked=0),
            RefusedError,
            "1 event stays archived: the outbox has the same id",
        ),
        (
            RestoreResult(0, 0, blocked=0, discarded=0, locked=0),
            NotFoundError,
            "None of these events is archived as dead",
        ),
    ):
        why = build_nothing_restored_error(done)
        assert (type(why), said in str(why)) == (kind, True)


def test_a_fix_that_came_late_targets_what_was_restored(connection: Connection) -> None:
    """Which is what the archive gives it back for."""
    _died(connection, 3)
    _archive(connection)
    restore_events(connection, ALL, audit=AUDIT)
    now = datetime.now(UTC)
    flag = FixFlag(Selection(cause=compute_cause_key(ERROR)), RetryPolicy())
    fix = flag_fix(connection, flag, audit=replace(AUDIT, now=now))
    assert (
        advance_fix(connection, fix.id, audit=replace(AUDIT, now=now), terms=FixTerms()).released
        == 3
    )


def test_two_at_once_restore_each_event_once(connection: Connection, database: Database) -> None:
    """Each takes what the other does not hold."""
    _died(connection, 100)
    _archive(connection)

    def run(_: int) -> int:
        with database.connect() as own:
            return restore_events(own, ALL, audit=AUDIT).events

    with ThreadPoolExecutor(3) as pool:
        assert (
            sum(pool.map(run, range(3))) + restore_events(connection, ALL, audit=AUDIT).events
            == 100
        )
    assert _places(connection) == (100, 0)


def test_a_killed_run_leaves_whole_batches_and_the_next_goes_on(
    connection: Connection, database: Database
) -> None:
    """Nothing is in both tables or in neither."""
    _died(connection, 25)
    _archive(connection)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from outbox_event) > 10 then perform pg_terminate_backend(pg_backend_pid()); end if;"
        " return new; end $$; create trigger die before insert on dlq.audit for each row execute function die()"
    )
    with database.connect() as own, pytest.raises(psycopg.OperationalError):
        restore_events(own, ALL, audit=AUDIT)
    assert _places(connection) == (10, 15)
    connection.execute("drop trigger die on dlq.audit")
    assert restore_events(connection, ALL, audit=AUDIT).events == 15


@pytest.mark.parametrize(
    "selection",
    [ALL, Selection(cause=compute_cause_key(ERROR)), Selection(event_ids=(1, 2))],
    ids=str,
)
def test_no_page_reads_whole_tables(connection: Connection, selection: Selection) -> None:
    """Be it led by the archive, by a cause or by ids."""
    _died(connection, 3000)
    _archive(connection)
    connection.execute(
        "insert into outbox_event_archive select 10000 + n, 'o', n::text, 'e', '{}', 'done', 1, now(), now()"
        " from generate_series(1, 20000) n"
    )
    connection.execute(
        "insert into outbox_event select 50000 + n, 'o', n::text, 'e', '{}', 'done' from generate_series(1, 20000) n"
    )
    connection.execute(
        "insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)"
        " select 100000 + n, 'o', n::text, 'e', 5, '2026-01-01Z', 'x' from generate_series(1, 50000) n"
    )
    connection.execute("analyze")
    values = {
        **build_selection_parameters(connection, selection, before=None),
        "limit": 100,
        "after_time": NOW - timedelta(days=99),
    }
    text = connection.render_query("archive.restorable", **values, after_id=0)
    plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode()))
    assert "Seq Scan on outbox_event" not in plan, plan
    assert "Seq Scan on death" not in plan, plan
