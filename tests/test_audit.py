"""Is no more changed than a person agreed to, whatever happens while they think?"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.purge import purge_archive
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import (
    AuditContext,
    RunOptions,
    list_audit_entries,
    run_after_permission,
)
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.parked import release_parked
from dlq_pipelines.retries.retry import retry_events, retry_selected
from tests.rows import date_deaths, one, park

NOW = datetime.now(UTC)
EVERY = Selection(all=True)
BOB = AuditContext("bob", "asked", NOW)


def _die(connection: Connection, count: int) -> None:
    """Events that died forty days ago, and are known only now."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " last_error)"
        " select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1' from generate_series(1, %s) n",
        [count],
    )
    date_deaths(
        connection, "died_at - interval '40 days'", where="died_at > now() - interval '1 day'"
    )


def _archive(connection: Connection, count: int) -> None:
    _die(connection, count)
    archive_dead_events(
        connection,
        before=NOW,
        only_exported=False,
        audit=AuditContext("ann", "x", NOW - timedelta(days=9)),
    )


def _park(connection: Connection, count: int) -> None:
    _die(connection, count)
    fresh = "select id from outbox_event where id not in (select event_id from dlq.retry)"
    park(connection, [row["id"] for row in connection.execute(fresh)])


# How events come into being, what is done to them, how many a result is of.
OPERATIONS: dict[str, tuple[Callable[..., None], Callable[[Connection, RunOptions], int]]] = {
    "archive": (
        _die,
        lambda c, options: (
            archive_dead_events(
                c, before=NOW, only_exported=False, audit=BOB, options=options
            ).moved
        ),
    ),
    "discard": (
        _die,
        lambda c, options: discard_events(c, EVERY, audit=BOB, options=options).events,
    ),
    "retry": (
        _die,
        lambda c, options: (
            retry_selected(c, EVERY, audit=BOB, options=options, rate=50, max_retries=None).events
        ),
    ),
    "retry by ids": (
        _die,
        lambda c, options: retry_events(c, range(1, 99), audit=BOB, options=options).events,
    ),
    "release": (
        _park,
        lambda c, options: (
            release_parked(c, EVERY, max_retries=3, audit=BOB, options=options, rate=50).events
        ),
    ),
    "restore": (
        _archive,
        lambda c, options: restore_events(c, EVERY, audit=BOB, options=options).events,
    ),
    "purge": (
        _archive,
        lambda c, options: purge_archive(c, before=NOW, audit=BOB, options=options).events,
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_events_that_match_after_the_confirmation_stay(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Two events die after three were counted: three are changed, in batches of two."""
    for module in (
        "archive.archive",
        "archive.purge",
        "archive.restore",
        "outbox.batches",
        "retries.parked",
        "retries.retry",
    ):
        monkeypatch.setattr(f"dlq_pipelines.{module}.BATCH", 2)
    add, change = OPERATIONS[name]
    add(connection, 3)
    reported: list[int] = []

    def permit(events: int) -> None:
        assert events == 3
        reported.clear()
        add(connection, 2)

    options = RunOptions(progress=reported.append)
    assert (
        run_after_permission(
            lambda options: change(connection, options), options, count=int, permit=permit
        )
        == 3
    )
    assert one(connection, "select sum(events) from dlq.audit where actor = 'bob'") == {"sum": 3}
    assert (2 in reported, reported[-1], sorted(reported)) == (True, 3, reported)
    # Without a limit, all matching events are changed.
    assert change(connection, RunOptions()) == 2


def test_a_short_log_since_a_time_reads_no_long_one(connection: Connection) -> None:
    """A page of fewer entries than it may have would be looked for in the whole log."""
    connection.execute(
        "insert into dlq.audit (kind, actor, reason, filter, events, at)"
        " select 'fix.flag', 'ann', 'x', '{}', 1, now() - n * interval '10 min'"
        " from generate_series(100000, 1, -1) n"
    )
    connection.execute("vacuum analyze dlq.audit")
    values = {"since": NOW - timedelta(hours=1), "after": None, "limit": 50}
    statement = f"explain {connection.render_query('audit.list', **values)}".encode()
    plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(statement))
    assert not re.search("Seq Scan|audit_pkey", plan), plan
    found = list_audit_entries(connection, limit=50, since=NOW - timedelta(hours=1))
    assert 5 <= len(found) <= 7
