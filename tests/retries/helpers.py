"""Rows and actions that the tests of retries share."""

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from dlq_pipelines import OutboxRepository
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import (
    AdvanceResult,
    advance_fix,
)
from dlq_pipelines.retries.fix import Fix, FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import (
    FixFlag,
    FixPreview,
    flag_fix,
    list_due_fixes,
    preview_fix,
)
from tests.rows import add_events, kill, one

ERROR = "TimeoutError: no answer"
CAUSE = compute_cause_id(ERROR)
POLICY = RetryPolicy(canary=3, rate=1000.0, min_success=0.9, settle_seconds=60)
TERMS = FixTerms(max_backlog=timedelta(hours=1))


def get_now() -> datetime:
    return datetime.now(UTC)


def build_audit(actor: str = "bob", reason: str = "asked") -> AuditContext:
    return AuditContext(actor, reason, get_now())


def add_dead(
    connection: Connection, count: int, *, error: str = ERROR, event_type: str = "order.placed"
) -> None:
    """Add dead events and classify them."""
    add_events(connection, count, event_type=event_type)
    kill(connection, error, attempts=5, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def flag_cause(
    connection: Connection, *, policy: RetryPolicy = POLICY, event_type: str | None = None
) -> Fix:
    flag = FixFlag(Selection(cause=CAUSE, event_type=event_type), policy)
    return flag_fix(connection, flag, audit=build_audit("ann", "fixed"))


def advance(connection: Connection, fix: Fix, *, later: float = 0) -> AdvanceResult:
    audit = AuditContext("sensor", "a step is due", get_now() + timedelta(seconds=later), "run-1")
    return advance_fix(connection, fix.id, audit=audit, terms=TERMS)


def list_due(connection: Connection, *, later: float = 0) -> list[Fix]:
    now = get_now() + timedelta(seconds=later)
    return list_due_fixes(connection, now=now, max_backlog=timedelta(days=30))


def preview(
    connection: Connection, selection: Selection, policy: RetryPolicy = POLICY
) -> FixPreview:
    return preview_fix(connection, FixFlag(selection), audit=build_audit(), default=policy)


def run_worker(database: Database, *, delivers: bool) -> int:
    """Run a worker that delivers all pending events or lets them die; return how many."""
    with (
        OutboxRepository(database.url, max_attempts=1) as repository,
        database.connect() as connection,
    ):
        connection.execute("update outbox_event set next_run_at = now() where status = 'pending'")
        events = repository.fetch_pending(1000)
        for event in events:
            if delivers:
                repository.mark_success(event.id)
            else:
                repository.mark_retry(event.id, ERROR)
    return len(events)


def count_by_status(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        "select status, count(*) as n from outbox_event group by 1"
    ).fetchall()
    return {row["status"]: row["n"] for row in rows}


def get_cause_status(connection: Connection) -> str:
    return str(one(connection, f"select status from dlq.cause where id = '{CAUSE}'")["status"])


def wait_until_blocked(own: Connection, *, by: Connection) -> None:
    """Wait until the statement of another thread on `own` waits for a lock."""
    while not one(by, f"select cardinality(pg_blocking_pids({own.info.backend_pid})) as n")["n"]:
        time.sleep(0.01)


def chain(connection: Connection, count: int, *, aggregate: str = "7", error: str = ERROR) -> None:
    """Dead events of one aggregate, written one after the other."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
        " select 'order', %s, 'e', '{}' from generate_series(1, %s)",
        [aggregate, count],
    )
    kill(connection, error, attempts=5, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
