"""`dlq archive` and `dlq dead-events discard`: the same move by hand, asked for where it is much."""

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
from tests.rows import one

Dlq = Callable[..., Any]


@pytest.fixture
def dlq(home: object, monkeypatch: pytest.MonkeyPatch) -> Dlq:  # noqa: ARG001 - where the command looks
    """Run a command with --json and return what it says; what it raises is raised."""
    monkeypatch.setenv("DLQ_ARCHIVE_REQUIRES_EXPORT", "false")

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


def _died(connection: Connection, count: int, *, days_ago: int) -> None:
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error, dead_at)"
        " select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1', now() - %s * interval '1 day'"
        " from generate_series(1, %s) n",
        [days_ago, count],
    )
    classify_deaths(connection, zone=read_settings().zone)


def _places(connection: Connection) -> tuple[int, ...]:
    counted = "select (select count(*) from outbox_event) as o, (select count(*) from outbox_event_archive) as a"
    return tuple(one(connection, counted).values())


def test_archiving_by_hand_is_the_schedules_move(connection: Connection, dlq: Dlq) -> None:
    """By the installation's retention or another; a dry run only counts; the audit has the account."""
    _died(connection, 3, days_ago=31)
    _died(connection, 2, days_ago=10)
    assert dlq("archive", "run", "--dry-run")["moved"] == 3
    assert _places(connection) == (5, 0)
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


def test_restoring_and_discarding_go_both_ways(connection: Connection, dlq: Dlq) -> None:
    """What is neither is said; a discarded event comes back by its id alone."""
    _died(connection, 3, days_ago=31)
    dlq("archive", "run")
    assert dlq("archive", "restore", "1", "2", "--reason", "late fix")["events"] == 2
    assert (
        dlq("dead-events", "discard", "1", "--reason", "a test order", "--dry-run")["events"] == 1
    )
    assert dlq("dead-events", "discard", "1", "--reason", "a test order")["events"] == 1
    assert dlq("archive", "restore", "--all", "--reason", "all of it") == {
        "events": 1, "batches": 1, "blocked": 0, "discarded": 1, "locked": 0, "dry_run": False,
    }  # fmt: skip
    assert dlq("archive", "restore", "1", "--reason", "a mistake")["events"] == 1
    with pytest.raises(NotFoundError, match="None of these events is archived as dead"):
        dlq("archive", "restore", "1", "--reason", "again")
    with pytest.raises(NotFoundError, match="None of these events is dead"):
        dlq("dead-events", "discard", "99", "--reason", "nothing there")


def test_archived_events_that_others_hold_are_said_to_be_that(
    connection: Connection, database: Database, dlq: Dlq
) -> None:
    """Named, they are refused, and nobody is told that they are not archived; of many, how many are not restored."""
    _died(connection, 2, days_ago=31)
    dlq("archive", "run")
    restore = ["archive", "restore", "--reason", "late fix"]
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event_archive where id = 1 for update")
        with pytest.raises(RefusedError, match="Other transactions hold this event"):
            dlq(*restore, "1")
        told = CliRunner().invoke(app, [*restore, "--all"]).stdout
    assert told.startswith("Restored 1 dead event; ")
    assert "Passed over: 1 dead event that is meant too, which others hold" in told


def test_a_purge_by_hand_keeps_to_the_retention(
    connection: Connection, dlq: Dlq, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is refused where nothing is ever purged."""
    _died(connection, 3, days_ago=31)
    dlq("archive", "run")
    connection.execute(
        "update outbox_event_archive set archived_at = now() - interval '366 days' where id < 3"
    )
    assert dlq("archive", "purge", "--dry-run")["events"] == 2
    assert dlq("archive", "purge") == {
        "events": 2,
        "batches": 1,
        "older_than_days": 365,
        "dry_run": False,
    }
    assert _places(connection) == (0, 1)
    monkeypatch.setenv("DLQ_ARCHIVE_RETENTION_DAYS", "0")
    with pytest.raises(RefusedError, match="nothing is ever purged"):
        dlq("archive", "purge")


def test_a_thousand_events_are_not_asked_for(connection: Connection, dlq: Dlq) -> None:
    _died(connection, 1000, days_ago=31)
    assert dlq("archive", "run")["moved"] == 1000
    assert dlq("archive", "restore", "--all", "--reason", "all")["events"] == 1000
    assert dlq("dead-events", "discard", "--all", "--reason", "all")["events"] == 1000
    connection.execute("update outbox_event_archive set archived_at = now() - interval '366 days'")
    assert dlq("archive", "purge")["events"] == 1000
    _died(connection, 1000, days_ago=31)
    assert dlq("dead-events", "retry-batch", "--all", "--reason", "all")["events"] == 1000


def test_more_are_asked_for(connection: Connection, dlq: Dlq) -> None:
    """Nobody can be asked here, so without --yes nothing happens."""
    _died(connection, 1001, days_ago=31)
    with pytest.raises(RefusedError, match="would archive 1,001 events"):
        dlq("archive", "run")
    assert _places(connection) == (1001, 0)
    assert dlq("archive", "run", "--yes")["moved"] == 1001
    with pytest.raises(RefusedError, match="would restore 1,001 events"):
        dlq("archive", "restore", "--all", "--reason", "all")
    assert dlq("archive", "restore", "--all", "--reason", "all", "--yes")["events"] == 1001
    with pytest.raises(RefusedError, match="would discard 1,001 events"):
        dlq("dead-events", "discard", "--all", "--reason", "all")
    assert _places(connection) == (1001, 0)
    dlq("archive", "run", "--yes")
    connection.execute("update outbox_event_archive set archived_at = now() - interval '366 days'")
    with pytest.raises(RefusedError, match="would delete 1,001 events"):
        dlq("archive", "purge")
    assert _places(connection) == (0, 1001)
