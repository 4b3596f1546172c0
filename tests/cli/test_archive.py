"""Checks `dlq archive` and `dlq dead-events discard`, with their confirmations."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.cli.app import app
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import read_settings
from tests.rows import date_deaths_by_due_times, one

pytestmark = pytest.mark.usefixtures("home")
Dlq = Callable[..., Any]


@pytest.fixture
def dlq(monkeypatch: pytest.MonkeyPatch) -> Dlq:
    """Return a function that runs a command with --json; errors are raised."""
    monkeypatch.setenv("DLQ_ARCHIVE_REQUIRES_EXPORT", "false")

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


def _add_dead_events(connection: Connection, count: int, *, days_ago: int) -> None:
    connection.execute(
        "insert into outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, last_error, next_run_at)"
        " select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1', now() - %s * interval '1 day'"
        " from generate_series(1, %s) n",
        [days_ago, count],
    )
    date_deaths_by_due_times(connection)
    classify_deaths(connection, zone=read_settings().zone)


def _count_events(connection: Connection) -> tuple[int, ...]:
    counts = (
        "select (select count(*) from outbox_event) as outbox,"
        " (select count(*) from dlq.archived) as archive"
    )
    return tuple(one(connection, counts).values())


def test_archive_run_moves_events_past_their_retention(connection: Connection, dlq: Dlq) -> None:
    """By the retention of the settings or another. A dry run only counts."""
    _add_dead_events(connection, 3, days_ago=31)
    _add_dead_events(connection, 2, days_ago=10)
    assert dlq("archive", "run", "--dry-run")["moved"] == 3
    assert _count_events(connection) == (5, 0)
    assert dlq("archive", "run", "--actor", "ann") == {
        "moved": 3, "batches": 1, "left": 0, "older_than_days": 30, "dry_run": False,
    }  # fmt: skip
    assert (
        dlq("archive", "run", "--older-than-days", "9", "--actor", "ann", "--reason", "space")[
            "moved"
        ]
        == 2
    )
    audit = connection.execute("select actor, reason, events from dlq.audit order by id").fetchall()
    assert [tuple(row.values()) for row in audit] == [("ann", "retention", 3), ("ann", "space", 2)]


def test_archive_run_says_why_an_old_event_stays(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of the application refers to one of three events; the dry run says it too."""
    monkeypatch.setenv("DLQ_ARCHIVE_REQUIRES_EXPORT", "false")
    _add_dead_events(connection, 3, days_ago=31)
    connection.execute("create table delivery (event_id bigint references outbox_event)")
    connection.execute("insert into delivery values (2)")
    planned, done = (
        " ".join(CliRunner().invoke(app, ["archive", "run", given]).stdout.split())
        for given in ("--dry-run", "--yes")
    )
    assert planned.startswith(
        "Would archive 2 dead events that died more than 30 days ago. 1 event"
    )
    assert "would stay" in planned
    assert "a row of the application refers to it" in planned
    assert done.startswith("Archived 2 dead events that died more than 30 days ago. 1 event as old")
    assert _count_events(connection) == (1, 2)


def test_restore_and_discard_undo_each_other(connection: Connection, dlq: Dlq) -> None:
    """A discarded event is restored only by its id."""
    _add_dead_events(connection, 3, days_ago=31)
    dlq("archive", "run")
    assert dlq("archive", "restore", "1", "2", "--reason", "late fix")["events"] == 2
    assert (
        dlq("dead-events", "discard", "1", "--reason", "a test order", "--dry-run")["events"] == 1
    )
    assert dlq("dead-events", "discard", "1", "--reason", "a test order")["events"] == 1
    assert dlq("archive", "restore", "--all", "--reason", "all of it") == {
        "events": 1, "batches": 1, "blocked": 0, "discarded": 1, "locked": 0, "erased": 0,
        "dry_run": False,
    }  # fmt: skip
    assert dlq("archive", "restore", "1", "--reason", "a mistake")["events"] == 1
    with pytest.raises(NotFoundError, match="None of these events is archived as dead"):
        dlq("archive", "restore", "1", "--reason", "again")
    with pytest.raises(NotFoundError, match="None of these events is dead"):
        dlq("dead-events", "discard", "99", "--reason", "nothing there")


def test_locked_archived_events_are_skipped_and_counted(
    connection: Connection, database: Database, dlq: Dlq
) -> None:
    """A locked event is not reported as not archived."""
    _add_dead_events(connection, 2, days_ago=31)
    dlq("archive", "run")
    restore = ["archive", "restore", "--reason", "late fix"]
    with database.connect() as other, other.transaction():
        other.execute("select from dlq.archived where id = 1 for update")
        with pytest.raises(RefusedError, match="Other transactions hold this event"):
            dlq(*restore, "1")
        printed = CliRunner().invoke(app, [*restore, "--all"]).stdout
    assert printed.startswith("Restored 1 dead event; ")
    assert "Skipped: 1 dead event, locked by another transaction" in printed


def test_purge_deletes_events_past_their_retention(
    connection: Connection, dlq: Dlq, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused if the retention is 0."""
    _add_dead_events(connection, 3, days_ago=31)
    dlq("archive", "run")
    connection.execute(
        "update dlq.archived set dlq_archived_at = now() - interval '366 days' where id < 3"
    )
    assert dlq("archive", "purge", "--dry-run")["events"] == 2
    assert dlq("archive", "purge") == {
        "events": 2,
        "batches": 1,
        "older_than_days": 365,
        "dry_run": False,
    }
    assert _count_events(connection) == (0, 1)
    monkeypatch.setenv("DLQ_ARCHIVE_RETENTION_DAYS", "0")
    with pytest.raises(RefusedError, match="nothing is ever purged"):
        dlq("archive", "purge")


def test_a_thousand_events_need_no_confirmation(connection: Connection, dlq: Dlq) -> None:
    _add_dead_events(connection, 1000, days_ago=31)
    assert dlq("archive", "run")["moved"] == 1000
    assert dlq("archive", "restore", "--all", "--reason", "all")["events"] == 1000
    assert dlq("dead-events", "discard", "--all", "--reason", "all")["events"] == 1000
    connection.execute("update dlq.archived set dlq_archived_at = now() - interval '366 days'")
    assert dlq("archive", "purge")["events"] == 1000
    _add_dead_events(connection, 1000, days_ago=31)
    assert dlq("dead-events", "retry-batch", "--all", "--reason", "all")["events"] == 1000


def test_more_events_need_a_confirmation(connection: Connection, dlq: Dlq) -> None:
    """Without a terminal they are refused unless --yes is given."""
    _add_dead_events(connection, 1001, days_ago=31)
    with pytest.raises(RefusedError, match="would archive 1,001 events"):
        dlq("archive", "run")
    assert _count_events(connection) == (1001, 0)
    assert dlq("archive", "run", "--yes")["moved"] == 1001
    with pytest.raises(RefusedError, match="would restore 1,001 events"):
        dlq("archive", "restore", "--all", "--reason", "all")
    assert dlq("archive", "restore", "--all", "--reason", "all", "--yes")["events"] == 1001
    with pytest.raises(RefusedError, match="would discard 1,001 events"):
        dlq("dead-events", "discard", "--all", "--reason", "all")
    assert _count_events(connection) == (1001, 0)
    dlq("archive", "run", "--yes")
    connection.execute("update dlq.archived set dlq_archived_at = now() - interval '366 days'")
    with pytest.raises(RefusedError, match="would delete 1,001 events"):
        dlq("archive", "purge")
    assert _count_events(connection) == (0, 1001)
