"""How do dead events go back to the worker, paced, each exactly once, and what became of them?

A release is one statement in one transaction: the guard `status = 'dead'`, the ledger's rows and the due times are
written together. A process that dies leaves either all of a batch or nothing of it, and whoever comes next goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dlq_pipelines.errors import RefusedError
from dlq_pipelines.operation import Act, record_operation
from dlq_pipelines.outbox.event import event_ids
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import BATCH, Begin, Close, Fix, FixStatus, Release, Stage, Step, Wait, next_step
from dlq_pipelines.retries.ledger import fix_from_row, get_fix, stages, targeted_causes

_CAUSE_AFTER = {
    FixStatus.VERIFIED: "fixed",
    FixStatus.HALTED: "open",
    FixStatus.REJECTED: "open",
}
# Of a death: when, and its id. A run releases in this order and goes on behind what it released last.
_Key = tuple[datetime, int]
_START: _Key = (datetime(1, 1, 1, tzinfo=UTC), 0)


@dataclass(frozen=True)
class Retried:
    """How many of the named events were dead and are pending now, in how many transactions."""

    events: int
    batches: int


@dataclass(frozen=True)
class Advanced:
    """What one run did for a fix: events released and settled by it, and the step at which it stopped.

    `busy` says that another run held the fix, so this one did nothing.
    """

    fix: Fix
    released: int
    settled: int
    step: Step | None
    busy: bool = False


def retry_events(  # noqa: PLR0913 - keyword-only past the ids
    connection: Connection,
    ids: Sequence[int],
    *,
    now: datetime,
    actor: str,
    reason: str,
    rate: float | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Retried:
    """Retry these events; those that are not dead are passed over.

    Args:
        connection: in autocommit mode.
        ids: event ids, any number; they are released in transactions of 5,000.
        now: the moment of the retry.
        actor: who asks for it, for the audit.
        reason: why, for the audit.
        rate: events a second at which they fall due; None: all now, as fits a handful chosen by a person.
        run_id: the Dagster run that does it.
        dry_run: only count those that would be retried.

    Raises:
        ValueError: there are no ids, one is no event id, or the actor or the reason is blank.
    """
    act = Act(actor, reason, now, run_id, dry_run)
    wanted = event_ids("ids", ids)
    batches = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
    if dry_run:
        return Retried(sum(connection.one("retry.count_ids", ids=batch)["events"] for batch in batches), 0)
    total = 0
    for batch in batches:
        values = {"ids": batch, "now": now, "actor": actor, "reason": reason, "already": total}
        with connection.transaction():
            events = connection.one("retry.release_ids", seconds_each=1 / rate if rate else 0.0, **values)["events"]
            if events:
                shown = {"ids": batch[:100], "more": max(0, len(batch) - 100)}
                record_operation(connection, "retry.ids", shown, act=act, events=events)
        total += events
    return Retried(total, len(batches))


def advance_fix(
    connection: Connection, fix_id: int, *, now: datetime, actor: str, run_id: str | None = None
) -> Advanced:
    """Settle what the fix has released, decide, and do the next step, until it has to wait or has ended.

    Running it twice, at once or after being killed, does nothing twice: every step is a transaction of its own that
    locks the fix and decides afresh on what it finds.
    """
    released = settled = 0
    after = _START
    while True:
        with connection.transaction():
            row = connection.run("fix.lock", fix_id=fix_id).fetchone()
            if row is None:
                return Advanced(get_fix(connection, fix_id), released, settled, None, busy=True)
            fix = fix_from_row(row)
            if fix.status is not FixStatus.ACTIVE:
                return Advanced(fix, released, settled, None)
            settled += settle(connection, now=now, fix_id=fix_id, settle_seconds=fix.policy.settle_seconds)
            stage = stages(connection, fix_id).get(fix.stage, Stage())
            found = _seek(connection, fix, after)
            step = next_step(fix, stage, candidates=found is not None)
            count, after = _do(
                connection,
                fix,
                step,
                now=now,
                actor=actor,
                run_id=run_id,
                already=stage.released,
                after=found or after,
            )
            released += count
        # A release of nothing: others hold the rows just now. The next run tries again.
        if isinstance(step, Wait | Close) or (isinstance(step, Release) and not count):
            return Advanced(get_fix(connection, fix_id), released, settled, step)


def withdraw_fix(  # noqa: PLR0913 - keyword-only
    connection: Connection, fix_id: int, *, now: datetime, actor: str, reason: str, run_id: str | None = None
) -> Fix:
    """End a fix whose claim is taken back. What it has released stays with the worker; nothing else follows.

    Raises:
        NotFoundError: there is no such fix.
        RefusedError: it has ended already; the message says how.
        ValueError: the actor or the reason is blank.
    """
    act = Act(actor, reason, now, run_id)
    with connection.transaction():
        fix = get_fix(connection, fix_id)
        # Waits for a run that has the fix: after this, no run finds it active.
        closing = {"status": FixStatus.WITHDRAWN, "verdict": f"withdrawn by {actor}: {reason}"}
        if not connection.run("fix.close", fix_id=fix_id, now=now, **closing).rowcount:
            raise RefusedError(f"Fix {fix_id} is {get_fix(connection, fix_id).status} already. See `dlq fixes list`.")
        connection.run("fix.set_cause_status", cause_id=fix.cause_id, status="open", flagged_at=fix.flagged_at)
        record_operation(connection, "fix.withdrawn", {"fix": fix_id}, act=act)
        return get_fix(connection, fix_id)


def settle(connection: Connection, *, now: datetime, settle_seconds: int, fix_id: int | None = None) -> int:
    """Write down what became of retried events: done, dead again, gone, or without outcome in time. Returns how many.

    Without a fix, those that no active fix waits for: retries that people asked for, and what ended fixes released.
    At most 5,000 a call.
    """
    return int(
        connection.one("retry.settle", now=now, settle_seconds=settle_seconds, fix_id=fix_id, limit=BATCH)["events"]
    )


def _do(  # noqa: PLR0913 - keyword-only
    connection: Connection,
    fix: Fix,
    step: Step,
    *,
    now: datetime,
    actor: str,
    run_id: str | None,
    already: int,
    after: _Key,
) -> tuple[int, _Key]:
    """Carry the step out and return how many events it released, and how far it came."""
    match step:
        case Begin(stage, size):
            connection.run("fix.begin_stage", fix_id=fix.id, stage=stage, size=size)
        case Release(limit):
            return _release(connection, fix, limit, now=now, actor=actor, run_id=run_id, already=already, after=after)
        case Close(status, verdict):
            connection.run("fix.close", fix_id=fix.id, status=status, verdict=verdict, now=now)
            connection.run(
                "fix.set_cause_status", cause_id=fix.cause_id, status=_CAUSE_AFTER[status], flagged_at=fix.flagged_at
            )
            record_operation(connection, f"fix.{status}", {"fix": fix.id}, act=Act(actor, verdict, now, run_id))
        case Wait():
            pass
    return 0, after


def _release(  # noqa: PLR0913 - keyword-only
    connection: Connection,
    fix: Fix,
    limit: int,
    *,
    now: datetime,
    actor: str,
    run_id: str | None,
    already: int,
    after: _Key,
) -> tuple[int, _Key]:
    reason = f"fix {fix.id}, stage {fix.stage}: {fix.note}"
    row = connection.one(
        "retry.release_stage",
        **_targets(connection, fix, after),
        stage=fix.stage,
        limit=limit,
        now=now,
        seconds_each=1 / fix.policy.rate,
        already=already,
        actor=actor,
        reason=reason,
    )
    events = row["events"]
    if not events:
        return 0, after
    shown = {"fix": fix.id, "stage": fix.stage}
    record_operation(connection, "retry.stage", shown, act=Act(actor, reason, now, run_id), events=events)
    return events, (row["last_time"], row["last_id"])


def _seek(connection: Connection, fix: Fix, after: _Key) -> _Key | None:
    """Behind which death there are candidates; at the end once more from the start: others may have held some."""
    for start in dict.fromkeys((after, _START)):
        if connection.one("retry.has_candidates", **_targets(connection, fix, start))["found"]:
            return start
    return None


def _targets(connection: Connection, fix: Fix, after: _Key) -> dict[str, object]:
    """Which deaths the fix targets, behind that one."""
    return {
        "fix_id": fix.id,
        "cause_ids": targeted_causes(connection, fix.cause_id),
        "event_type": fix.event_type,
        "flagged_at": fix.flagged_at,
        "after_time": after[0],
        "after_id": after[1],
    }
