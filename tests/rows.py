"""Rows that tests start from, written in SQL as an application would."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.validate import EventId


def add_events(
    connection: Connection, count: int, *, payload: str = "{}", event_type: str = "order.placed"
) -> None:
    """Pending events, due now, one aggregate each."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
        " select 'order', n::text, %s, %s::jsonb from generate_series(1, %s) n order by n",
        [event_type, payload, count],
    )


def kill(
    connection: Connection, error: str | None, *, attempts: int = 1, where: str = "true"
) -> None:
    """Let pending events die of an error, one by one in the order of their ids."""
    ids = connection.execute(
        f"select id from outbox_event where status <> 'dead' and {where} order by id".encode()
    ).fetchall()
    with connection.transaction():
        for row in ids:
            connection.execute(
                "update outbox_event set status = 'dead', attempts = %s, last_error = %s where id"
                " = %s",
                [attempts, error, row["id"]],
            )


def park(connection: Connection, ids: Sequence[EventId], *, retries: int = 3) -> None:
    """Add earlier deaths and retries to dead events: three retries park them."""
    with connection.transaction():
        connection.execute(
            "with past as (insert into dlq.death (event_id, event_created_at, aggregate_type,"
            " aggregate_id, event_type, attempts, died_at, error, cause_id, ended_at)"
            " select d.event_id, d.event_created_at, d.aggregate_type, d.aggregate_id,"
            " d.event_type, d.attempts, d.died_at - n * interval '1 hour', d.error,"
            " d.own_cause_id, d.died_at"
            " from dlq.dead_event d, generate_series(1, %s) n"
            " where d.event_id = any(dlq.event_ids(%s::text[]))"
            " returning *)"
            " insert into dlq.retry (death_id, event_id, event_created_at, aggregate_type,"
            " aggregate_id, actor, reason, retried_at, due_at, outcome, settled_at)"
            " select id, event_id, event_created_at, aggregate_type, aggregate_id, 'ann', 'asked',"
            " died_at, died_at, 'died_again', died_at from past",
            [retries, [str(id_) for id_ in ids]],
        )


def count_blocked_sessions(connection: Connection) -> int:
    """Count the sessions of this database that wait for a lock; other tests share the server."""
    blocked = one(
        connection,
        "select count(*) as n from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'",
    )
    return int(blocked["n"])


def wait_for_blocked_session(connection: Connection, *, more_than: int = 0) -> None:
    """Wait until another session of this database waits for a lock.

    Raises:
        AssertionError: None waited within a minute.
    """
    for _ in range(6_000):
        if count_blocked_sessions(connection) > more_than:
            return
        time.sleep(0.01)
    raise AssertionError("no session waits for a lock")


def wait_until_alone(connection: Connection) -> None:
    """Wait until the server notices that a client was killed: it keeps the locks until then.

    Raises:
        AssertionError: A session has not ended within a minute.
    """
    others = (
        "select count(*) as n from pg_stat_activity where datname = current_database()"
        " and backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    for _ in range(6_000):
        if not one(connection, others)["n"]:
            return
        time.sleep(0.01)
    raise AssertionError("another session has not ended")


def one(connection: Connection, statement: str) -> dict[str, Any]:
    """The single row of a statement."""
    (row,) = connection.execute(statement.encode()).fetchall()
    return row


def date_deaths(connection: Connection, at: str, *, where: str = "true") -> None:
    """Set the times of deaths with an SQL expression over the death `d`."""
    connection.execute(
        f"with dated as (update dlq.death d set died_at = {at} where {where}"
        " returning id, died_at)"
        " update dlq.dead n set died_at = dated.died_at from dated"
        " where n.death_id = dated.id".encode()
    )


@contextmanager
def deaths_at(connection: Connection, at: datetime | str) -> Iterator[None]:
    """Date the deaths that the block records: a time, or an SQL expression over the death `d`."""
    text = at if isinstance(at, str) else f"timestamptz '{at.isoformat()}'"
    with connection.transaction():
        last = one(connection, "select coalesce(max(id), 0) as id from dlq.death")["id"]
        yield
        date_deaths(connection, text, where=f"d.id > {last}")


def date_deaths_by_due_times(connection: Connection, *, where: str = "true") -> None:
    """Let each dead event have died when its last attempt was due."""
    date_deaths(
        connection,
        "(select o.next_run_at from outbox_event o where o.id = d.event_id)",
        where="exists (select from outbox_event o where o.id = d.event_id and o.status = 'dead')"
        f" and {where}",
    )


def set_causes(
    connection: Connection, cause: str, *, where: str = "true", detail: str = ""
) -> None:
    """Give unclassified deaths the cause of an SQL expression, as the classification does."""
    connection.execute(
        f"with classified as (update dlq.death set cause_id = {cause}, detail = '{detail}'"
        f" where cause_id is null and {where} returning *)"
        " insert into dlq.dead select id, event_id, event_created_at, aggregate_type, aggregate_id,"
        " event_type, died_at, cause_id, detail from classified where ended_at is null".encode()
    )
