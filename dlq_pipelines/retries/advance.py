"""What is the next step of a fix, and what does it say of its cause when it ends?

Each step is a transaction of its own that locks the fix and decides on what it finds, so it does not matter which
process takes it, or how many try.
"""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from dlq_pipelines.audit import MAX_REASON_LENGTH, AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.causes.classify import extract_excerpt
from dlq_pipelines.causes.fingerprint import compute_fingerprint
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import (
    FIRST_CURSOR,
    BatchParameters,
    DeathBatch,
    DeathCursor,
    build_cursor_parameters,
    compute_release_interval,
    release_batch,
)
from dlq_pipelines.outbox.selection import build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import (
    CloseStep,
    Fix,
    FixStatus,
    FixStep,
    FixTerms,
    ReleaseStep,
    Remaining,
    RetryPolicy,
    StageOutcomes,
    WaitStep,
    decide_next_step,
)
from dlq_pipelines.retries.fixes import (
    build_fix,
    describe_congestion,
    get_fix,
    get_stage_outcomes,
)
from dlq_pipelines.retries.settle import settle_outcomes
from dlq_pipelines.validate import validate_positive

# Failed events whose errors are read for a verdict.
_EVIDENCE = 200
_SHOWN_PAIRS = 5


@dataclass(frozen=True)
class AdvanceResult:
    """What one run did for a fix: events released and settled by it, and the step at which it stopped.

    `busy` says that another run held the fix, so this one released nothing.
    """

    fix: Fix
    released: int
    settled: int
    step: FixStep | None
    busy: bool = False


@dataclass(frozen=True)
class _Walk:
    """How far a walk through the deaths of a fix came, and what it met that may not go now.

    Attributes:
        after: behind which death it goes on.
        moved: it has released something, which may be delivered by now, and then something that the walk passed may
            follow. So if it passed anything but what is parked, at its end there is another one.
        locked: events that other transactions hold.
        left: what it met, of use once it has ended.
        ended: it came from the start to the end, and nothing can follow.
    """

    after: DeathCursor = FIRST_CURSOR
    moved: bool = False
    locked: int = 0
    left: Remaining = Remaining()  # noqa: RUF009 - frozen
    ended: bool = False

    def past(self, page: DeathBatch, *, limit: int) -> "_Walk":
        """The walk behind that page, of which so many events could have been released."""
        moved, locked = self.moved or page.taken > 0, self.locked + page.free - page.taken
        left = Remaining(
            *(
                getattr(self.left, name) + getattr(page, name)
                for name in ("waiting", "held", "parked")
            )
        )
        follows = locked or left.waiting or left.held
        if limit == page.taken < page.free or (page.ended and moved and follows):
            return _Walk()
        after = self.after if page.ended else page.last
        return _Walk(after=after, moved=moved, locked=locked, left=left, ended=page.ended)


def advance_fix(
    connection: Connection,
    fix_id: int,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    terms: FixTerms,
) -> AdvanceResult:
    """Settle what the fix has released, decide, and do the next step, until it has to wait or has ended.

    Running it twice, at once or after being killed, does nothing twice: every step is a transaction of its own that
    locks the fix and decides afresh on what it finds. Outcomes are written down before the first of them, without that
    lock, so that a million of them keep nobody from withdrawing the fix.

    A dry run is one transaction that is rolled back.
    """
    with connection.transaction(force_rollback=True) if options.dry_run else nullcontext():
        settled = _settle_own(connection, fix_id, audit=audit, terms=terms)
        return _advance(connection, fix_id, settled, audit=audit, terms=terms)


def advance_fix_on_request(
    connection: Connection,
    fix_id: int,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    terms: FixTerms,
) -> AdvanceResult:
    """Record that a person requests a step, with the reason, then advance the fix.

    Raises:
        NotFoundError: there is no such fix.
    """
    get_fix(connection, fix_id)
    if not options.dry_run:
        with connection.transaction():
            record_audit_entry(connection, "fix.advance", {"fix": fix_id}, audit=audit)
    return advance_fix(connection, fix_id, audit=audit, options=options, terms=terms)


def withdraw_fix(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> Fix:
    """End a fix whose claim is taken back. What is released stays with the worker; nothing else follows.

    Raises:
        NotFoundError: there is no such fix.
        RefusedError: it has ended already.
    """
    with connection.transaction(force_rollback=options.dry_run):
        fix = _lock_open(connection, fix_id)
        _close(
            connection,
            fix,
            CloseStep(FixStatus.WITHDRAWN, f"withdrawn by {audit.actor}: {audit.reason}"),
            audit=audit,
        )
        return get_fix(connection, fix_id)


def pause_fix(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> Fix:
    """Let nothing follow until it is resumed. What is released stays with the worker, and its targets stay its own.

    Raises:
        NotFoundError: there is no such fix.
        RefusedError: it has ended, or is paused already.
    """
    return _set_status(
        connection, fix_id, FixStatus.ACTIVE, FixStatus.PAUSED, audit=audit, options=options
    )


def resume_fix(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> Fix:
    """Let a paused fix go on where it stopped.

    Raises:
        NotFoundError: there is no such fix.
        RefusedError: it has ended, or is not paused.
    """
    return _set_status(
        connection, fix_id, FixStatus.PAUSED, FixStatus.ACTIVE, audit=audit, options=options
    )


def _advance(
    connection: Connection,
    fix_id: int,
    settled: int,
    *,
    audit: AuditContext,
    terms: FixTerms,
) -> AdvanceResult:
    released, walk = 0, _Walk()
    while True:
        with connection.transaction():
            fix = _take(connection, fix_id, terms)
            if fix is None or fix.closed_at is not None:
                return AdvanceResult(
                    get_fix(connection, fix_id), released, settled, None, busy=fix is None
                )
            policy = fix.policy or terms.policy
            step = _decide(connection, fix, policy, walk, audit=audit, terms=terms)
            count, walk = _do(connection, fix, policy, step, walk, audit=audit)
            released += count
            connection.run("fix.stepped", fix_id=fix_id, now=audit.now)
        if isinstance(step, WaitStep | CloseStep):
            return AdvanceResult(get_fix(connection, fix_id), released, settled, step)


def _settle_own(
    connection: Connection,
    fix_id: int,
    *,
    audit: AuditContext,
    terms: FixTerms,
) -> int:
    """Settle what an open fix has released; what an ended one left is settled with the retries of people."""
    fix = get_fix(connection, fix_id)
    if fix.closed_at is not None:
        return 0
    policy = fix.policy or terms.policy
    return settle_outcomes(
        connection, now=audit.now, fix_id=fix_id, settle_seconds=policy.settle_seconds
    )


def _take(connection: Connection, fix_id: int, terms: FixTerms) -> Fix | None:
    """The fix, locked and with all that the installation decides for it; None: another run has it."""
    row = connection.run("fix.lock", fix_id=fix_id).fetchone()
    if row is None:
        return None
    if row["closed_at"] is None and (row["canary"] is None or row["expires_at"] is None):
        row = connection.fetch_one(
            "fix.adopt", fix_id=fix_id, expiry=terms.expiry, **vars(terms.policy)
        )
    return build_fix(row)


def _decide(
    connection: Connection,
    fix: Fix,
    policy: RetryPolicy,
    walk: _Walk,
    *,
    audit: AuditContext,
    terms: FixTerms,
) -> FixStep:
    if walk.ended and walk.locked:
        return WaitStep(f"{walk.locked} events are held by other transactions")
    if walk.ended and (
        unclassified := connection.fetch_one("fix.unclassified", fix_id=fix.id)["deaths"]
    ):
        return WaitStep(
            f"{unclassified} deaths from before the flag have no cause yet, so they may be meant"
        )
    stage = get_stage_outcomes(connection, fix.id).get(fix.stage, StageOutcomes())
    congested = describe_congestion(connection, now=audit.now, max_backlog=terms.max_backlog)
    left = walk.left if walk.ended else None
    return decide_next_step(fix, policy, stage, now=audit.now, left=left, congested=congested)


def _do(
    connection: Connection,
    fix: Fix,
    policy: RetryPolicy,
    step: FixStep,
    walk: _Walk,
    *,
    audit: AuditContext,
) -> tuple[int, _Walk]:
    """Carry the step out; returns how many events it released, and where the walk stands."""
    match step:
        case ReleaseStep():
            asked = {
                **_targets(connection, fix, policy),
                **build_cursor_parameters(walk.after),
                "room": min(step.limit, BATCH),
            }
            page = _release_stage(connection, fix, policy, step.stage, asked, audit=audit)
            return page.taken, walk.past(page, limit=step.limit)
        case CloseStep():
            _close(connection, fix, step, audit=replace(audit, reason=step.verdict))
        case WaitStep():
            pass
    return 0, walk


def _targets(connection: Connection, fix: Fix, policy: RetryPolicy) -> BatchParameters:
    return {
        **build_selection_parameters(connection, fix.selection, before=fix.flagged_at),
        "before": fix.flagged_at,
        "fix_id": fix.id,
        "max_retries": policy.max_retries,
        "ordered": policy.order == "aggregate",
    }


def _release_stage(
    connection: Connection,
    fix: Fix,
    policy: RetryPolicy,
    number: int,
    asked: BatchParameters,
    *,
    audit: AuditContext,
) -> DeathBatch:
    """Release a page of a stage, which begins with the first event that is released."""
    stage = {"fix_id": fix.id, "stage": number}
    signed = replace(audit, reason=f"fix {fix.id}, stage {number}: {fix.note}"[:MAX_REASON_LENGTH])
    pace = {"seconds_each": compute_release_interval(policy.rate), "now": audit.now}
    due = connection.fetch_one("retry.next_due", fix_id=fix.id, **pace)["due"]
    page = release_batch(connection, {**asked, **stage}, audit=signed, rate=policy.rate, due=due)
    if page.taken:
        if number > fix.stage:
            connection.run("fix.begin_stage", **stage, size=policy.size(number), now=audit.now)
        connection.run("fix.count_released", **stage, events=page.taken)
        record_audit_entry(
            connection,
            "retry.stage",
            {"fix": fix.id, "stage": number},
            audit=signed,
            events=page.taken,
        )
    return page


def _close(
    connection: Connection,
    fix: Fix,
    close: CloseStep,
    *,
    audit: AuditContext,
) -> None:
    """End the fix, and say of its cause, where it means the whole of it, what is known now."""
    evidence = _evidence(connection, fix) if close.status is FixStatus.HALTED else []
    connection.run(
        "fix.close",
        fix_id=fix.id,
        status=close.status,
        verdict=close.verdict,
        evidence=json.dumps(evidence),
        now=audit.now,
    )
    record_audit_entry(connection, f"fix.{close.status}", {"fix": fix.id}, audit=audit)


def _evidence(connection: Connection, fix: Fix) -> list[dict[str, Any]]:
    """The new errors beside the old, those that most events failed of first.

    By fingerprint, because the new deaths need not be classified yet.
    """
    rows = connection.run(
        "fix.failures", fix_id=fix.id, stage=fix.stage, limit=_EVIDENCE
    ).fetchall()
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        after = (
            compute_fingerprint(row["after"]).id
            if row["outcome"] == "died_again"
            else str(row["outcome"])
        )
        pairs.setdefault((compute_fingerprint(row["before"]).id, after), []).append(row)
    most = sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:_SHOWN_PAIRS]
    return [
        {
            "events": len(rows),
            "outcome": rows[0]["outcome"],
            "before": extract_excerpt(rows[0]["before"] or ""),
            "after": extract_excerpt(rows[0]["after"] or ""),
        }
        for _, rows in most
    ]


def _lock_open(connection: Connection, fix_id: int) -> Fix:
    """The fix, locked: a run that has it is waited for, and none finds it as it was."""
    row = connection.run("fix.lock_waiting", fix_id=validate_positive("fix_id", fix_id)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no fix {fix_id}. `dlq fixes list` lists them.")
    fix = build_fix(row)
    if fix.closed_at is not None:
        raise RefusedError(f"Fix {fix_id} is {fix.status} already. See `dlq fixes list`.")
    return fix


def _set_status(
    connection: Connection,
    fix_id: int,
    old: FixStatus,
    new: FixStatus,
    *,
    audit: AuditContext,
    options: RunOptions,
) -> Fix:
    with connection.transaction(force_rollback=options.dry_run):
        fix = _lock_open(connection, fix_id)
        if fix.status is not old:
            raise RefusedError(f"Fix {fix_id} is {fix.status}. See `dlq fixes list`.")
        connection.run("fix.set_status", fix_id=fix_id, status=new)
        record_audit_entry(connection, f"fix.{new}", {"fix": fix_id}, audit=audit)
        return get_fix(connection, fix_id)
