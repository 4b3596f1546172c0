"""Advances a fix step by step until it waits or ends, and withdraws, pauses and resumes it.

Each step is a transaction of its own that locks the fix and decides on what it finds. So it does
not matter which process runs the step, or how many try.
"""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from dlq_pipelines.audit import MAX_REASON_LENGTH, AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.causes.classify import extract_excerpt
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import RefusedError
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
    Pace,
    PauseStep,
    ReleaseStep,
    Remaining,
    RetryPolicy,
    StageOutcomes,
    StoppedFix,
    WaitStep,
    decide_next_step,
)
from dlq_pipelines.retries.fixes import (
    build_fix,
    build_unknown_fix_error,
    describe_congestion,
    get_fix,
    get_pace,
    get_stage_outcomes,
    reject_fix,
)
from dlq_pipelines.retries.pace import (
    RateNews,
    adjust_rate,
    read_rate_state,
    write_rate_state,
)
from dlq_pipelines.retries.recall import STOPPED, recall_released, recall_stopped_fix
from dlq_pipelines.retries.settle import settle_outcomes, settle_page
from dlq_pipelines.text import format_count, sanitize_line
from dlq_pipelines.validate import validate_positive

# Failed events whose errors are read for the evidence, and pairs of errors that it shows.
_MAX_EVIDENCE_EVENTS = 200
_MAX_EVIDENCE_PAIRS = 5
_SHOW_HINT = "See `dlq fixes show {}`."
# Almost five minutes: the next run begins at a tick of the sensor, soon after this one has ended.
# With 25 s, each run was in progress at the next tick, which requested none: 18 events a second.
_MAX_FOLLOWING = 285.0
# Between two looks for outcomes: short after an outcome, and longer the longer none arrives.
_MIN_PAUSE, _MAX_PAUSE = 0.002, 0.5
# If a run that follows aggregates is killed, the sensor requests another after this time.
_FOLLOWING_LEASE = timedelta(minutes=1)


# Errors of a step that come from the fix itself. Others, such as a lost connection or a missing
# right, say nothing about it.
_DEFECTS = (psycopg.DataError, ArithmeticError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class AdvanceResult:
    """What one run did for a fix.

    Attributes:
        released: events that the run released.
        settled: outcomes that the run recorded.
        step: the step at which the run stopped; None: the fix had ended, or another run held it.
        busy: another run held the fix, so this run released nothing.
        recalled: released events that the run made dead again, because the fix does not go on.
        with_worker: released events that a worker had taken or that were due; 0 if it goes on.
    """

    fix: Fix
    released: int
    settled: int
    step: FixStep | None
    busy: bool = False
    recalled: int = 0
    with_worker: int = 0


@dataclass(frozen=True)
class Patience:
    """How long a run waits for outcomes, to release the next events of the same aggregates.

    Attributes:
        idle: seconds without an outcome after which the run ends.
        clock: returns the current time.
        total: seconds after which the run ends although outcomes arrive. Default 285.
        sleep: waits for so many seconds.
    """

    idle: float
    clock: Callable[[], datetime]
    total: float = _MAX_FOLLOWING
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class _Scan:
    """How far a scan through the deaths of a fix has come.

    Attributes:
        after: the cursor after which the next batch begins.
        has_released: the scan released events. They may be delivered by now, so that events which
            the scan passed could follow. At its end another scan starts, unless it passed only
            parked events.
        locked: events that other transactions hold.
        left: events that the scan could not release; complete once it has ended.
        ended: the scan went from start to end, and no event can follow.
        may_follow: this is a new scan, because events may follow those that were just released.
    """

    after: DeathCursor = FIRST_CURSOR
    has_released: bool = False
    locked: int = 0
    left: Remaining = field(default_factory=Remaining)
    ended: bool = False
    may_follow: bool = False

    def advance_past(self, batch: DeathBatch, *, limit: int) -> "_Scan":
        """Return the scan after a batch that could release up to `limit` events."""
        has_released = self.has_released or batch.taken > 0
        locked = self.locked + batch.free - batch.taken
        left = Remaining(
            waiting=self.left.waiting + batch.waiting,
            held=self.left.held + batch.held,
            parked=self.left.parked + batch.parked,
        )
        may_follow = locked or left.waiting or left.held
        if limit == batch.taken < batch.free:
            return _Scan()
        if batch.ended and has_released and may_follow:
            return _Scan(may_follow=True)
        after = self.after if batch.ended else batch.last
        return _Scan(after, has_released, locked, left, ended=batch.ended)


def advance_fix(
    connection: Connection,
    fix_id: int,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    terms: FixTerms,
    patience: Patience | None = None,
) -> AdvanceResult:
    """Record the outcomes of a fix, then run its next steps until it has to wait or has ended.

    With `patience`, a fix that keeps the order of aggregates goes on while outcomes arrive: the
    next event of an aggregate is released as soon as its predecessor is delivered.

    A fix that is paused or has ended recalls what no worker has taken: the run that paused or ended
    it may have been killed before its recall was complete.

    A second run, at the same time or after a crash, repeats nothing: every step is a transaction of
    its own that locks the fix and decides on what it finds. Outcomes are recorded before the fix is
    locked. Under its lock, a person who withdraws the fix would wait for a million outcomes.

    A fix that cannot be advanced is rejected with the reason: if it failed forever, the sensor
    would request runs for it forever.

    A dry run is one transaction that is rolled back, and waits for no outcome.

    Raises:
        NotFoundError: the fix does not exist.
        RefusedError: the fix cannot be advanced, in a dry run.
    """
    with connection.transaction(force_rollback=True) if options.dry_run else nullcontext():
        follows = patience is not None and not options.dry_run
        try:
            settled = _settle_own(connection, fix_id, audit=audit, terms=terms)
            done = _advance(
                connection,
                fix_id,
                settled,
                audit=audit,
                terms=terms,
                follows=follows,
                dry_run=options.dry_run,
            )
            if patience and follows:
                done = _follow_aggregates(
                    connection, done, audit=audit, terms=terms, patience=patience
                )
        except _DEFECTS as error:
            done = _reject_defect(connection, fix_id, error, audit=audit, options=options)
        if done.busy or done.fix.status not in STOPPED:
            return done
        reason = f"fix {fix_id} is {done.fix.status}: {done.fix.verdict or 'by a person'}"
        signed = replace(audit, reason=reason[:MAX_REASON_LENGTH])
        return replace(done, **vars(recall_released(connection, fix_id, audit=signed)))


def _reject_defect(
    connection: Connection,
    fix_id: int,
    error: Exception,
    *,
    audit: AuditContext,
    options: RunOptions,
) -> AdvanceResult:
    """End a fix whose row, or what it selects, makes its step fail in the same way each time."""
    verdict = f"it cannot be advanced: {sanitize_line(f'{type(error).__name__}: {error}', 500)}"
    if options.dry_run:  # its transaction has failed
        raise RefusedError(f"Fix {fix_id} would be rejected: {verdict}.", _SHOW_HINT.format(fix_id))
    with connection.transaction():
        fix, close = _lock_open_fix(connection, fix_id), CloseStep(FixStatus.REJECTED, verdict)
        _close(connection, fix, close, audit=replace(audit, reason=verdict))
    return AdvanceResult(get_fix(connection, fix_id), 0, 0, close)


def advance_fix_on_request(
    connection: Connection,
    fix_id: int,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
    terms: FixTerms,
    patience: Patience | None = None,
) -> AdvanceResult:
    """Record that a person requests a step, with the reason, then advance the fix.

    Raises:
        NotFoundError: there is no such fix.
    """
    get_fix(connection, fix_id)
    if not options.dry_run:
        with connection.transaction():
            record_audit_entry(connection, "fix.advance", {"fix": fix_id}, audit=audit)
    return advance_fix(
        connection, fix_id, audit=audit, options=options, terms=terms, patience=patience
    )


def withdraw_fix(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> StoppedFix:
    """End a fix that proved wrong, and recall its released events that no worker has taken.

    Raises:
        NotFoundError: the fix does not exist.
        RefusedError: the fix has ended already.
    """
    close = CloseStep(FixStatus.WITHDRAWN, f"withdrawn by {audit.actor}: {audit.reason}")
    with connection.transaction(force_rollback=True) if options.dry_run else nullcontext():
        with connection.transaction():
            _close(connection, _lock_open_fix(connection, fix_id), close, audit=audit)
        return recall_stopped_fix(connection, fix_id, audit=audit)


def pause_fix(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> StoppedFix:
    """Pause a fix: no further event is released, and what no worker has taken is recalled.

    Raises:
        NotFoundError: the fix does not exist.
        RefusedError: the fix has ended, or is paused already.
    """
    with connection.transaction(force_rollback=True) if options.dry_run else nullcontext():
        _set_status(connection, fix_id, FixStatus.ACTIVE, FixStatus.PAUSED, audit=audit)
        return recall_stopped_fix(connection, fix_id, audit=audit)


def resume_fix(
    connection: Connection, fix_id: int, *, audit: AuditContext, options: RunOptions = RunOptions()
) -> Fix:
    """Resume a paused fix at the stage where it stopped.

    Deleted events count as delivered from now on if the mapping says so now. They are counted
    before the fix goes on, `BATCH` events a transaction.

    Raises:
        NotFoundError: the fix does not exist.
        RefusedError: the fix has ended, or is not paused.
    """
    with connection.transaction(force_rollback=True) if options.dry_run else nullcontext():
        _recount_deleted(connection, fix_id)
        _set_status(connection, fix_id, FixStatus.PAUSED, FixStatus.ACTIVE, audit=audit)
        return get_fix(connection, fix_id)


def _advance(
    connection: Connection,
    fix_id: int,
    settled: int,
    *,
    audit: AuditContext,
    terms: FixTerms,
    follows: bool = False,
    dry_run: bool = False,
) -> AdvanceResult:
    """Run the next steps; `follows`: leave to the caller what follows the events of this run."""
    released, scan, is_judged = 0, _Scan(), False
    while True:
        with connection.transaction():
            fix = _lock_fix(connection, fix_id, terms)
            if fix is None or fix.closed_at is not None:
                return AdvanceResult(
                    get_fix(connection, fix_id), released, settled, None, busy=fix is None
                )
            policy = fix.policy or terms.policy
            congested = describe_congestion(
                connection, now=audit.now, max_backlog=terms.max_backlog
            )
            if not is_judged:
                _judge_rate(connection, fix, policy, terms, congested=congested, now=audit.now)
                is_judged = True
            step, pace = _decide(
                connection,
                fix,
                scan,
                now=audit.now,
                congested=congested,
                terms=terms,
                dry_run=dry_run,
            )
            if follows and scan.may_follow and isinstance(step, ReleaseStep):
                step = WaitStep(
                    "more events follow as soon as those of their aggregates have ended"
                )
            count, scan = _run_step(connection, fix, policy, step, scan, pace=pace, audit=audit)
            released += count
            refill_at = step.until if isinstance(step, WaitStep) else None
            connection.run("fix.stepped", fix_id=fix_id, now=audit.now, refill_at=refill_at)
        if isinstance(step, WaitStep | CloseStep | PauseStep):
            return AdvanceResult(get_fix(connection, fix_id), released, settled, step)


def _follow_aggregates(
    connection: Connection,
    done: AdvanceResult,
    *,
    audit: AuditContext,
    terms: FixTerms,
    patience: Patience,
) -> AdvanceResult:
    """Release the next events of aggregates while outcomes arrive; return the result of the run.

    What is released between two steps is what follows the outcomes of this run. The step at the
    end reads all dead events again: it finds what others settled, and begins the next stage.
    """
    ends_at = patience.clock() + timedelta(seconds=patience.total)
    while _has_followers(connection, done, patience):
        following = _Following(connection, done.fix, audit, terms, patience, ends_at)
        following.run()
        if not following.settled and not following.stopped:
            break
        signed = replace(audit, now=patience.clock())
        step = _advance(
            connection, done.fix.id, following.settled, audit=signed, terms=terms, follows=True
        )
        done = replace(
            step,
            released=done.released + following.released + step.released,
            settled=done.settled + step.settled,
        )
        if patience.clock() >= ends_at:
            break
    return done


def _has_followers(connection: Connection, done: AdvanceResult, patience: Patience) -> bool:
    """Return whether an outcome that may arrive soon lets an event of its aggregate follow."""
    fix = done.fix
    if (
        fix.status is not FixStatus.ACTIVE
        or fix.policy is None
        or fix.policy.order != "aggregate"
        or not isinstance(done.step, WaitStep)
        or done.step.until is not None
    ):
        return False
    until = patience.clock() + timedelta(seconds=patience.idle)
    found: bool = connection.fetch_one(
        "retry.has_followers", fix_id=fix.id, until=until, rows=BATCH
    )["found"]
    return found


class _Following:
    """Settles the outcomes of a fix as they arrive, and releases what follows them.

    Between two looks it holds no lock and no transaction. Each release is a transaction of its own
    that locks the fix and decides as any other step does.

    Attributes:
        released: events that were released.
        settled: outcomes that were recorded.
        stopped: the fix was paused or has ended meanwhile.
    """

    def __init__(
        self,
        connection: Connection,
        fix: Fix,
        audit: AuditContext,
        terms: FixTerms,
        patience: Patience,
        ends_at: datetime,
    ) -> None:
        self.released = self.settled = 0
        self.stopped = False
        self._connection = connection
        self._fix = fix
        self._policy = fix.policy or terms.policy
        self._audit = audit
        self._terms = terms
        self._patience = patience
        self._ends_at = ends_at
        self._target = build_target_parameters(connection, fix, self._policy)
        # Events that had no room in the stage, or that other transactions held.
        self._left: list[str] = []
        self._congestion: tuple[datetime, str | None] | None = None
        self._leased_at = datetime.min.replace(tzinfo=UTC)

    def run(self) -> None:
        """Go on until no outcome arrives, another kind of step is due, or the time is over."""
        cursor, clock = FIRST_CURSOR, self._patience.clock
        now = heard = clock()
        while now < self._ends_at and (now - heard).total_seconds() < self._patience.idle:
            page = settle_page(
                self._connection,
                now=now,
                settle_seconds=self._policy.settle_seconds,
                fix_id=self._fix.id,
                after=cursor,
            )
            cursor = page.next or FIRST_CURSOR
            if page.events:
                self.settled += page.events
                heard = clock()
                if not self._release(page.delivered):
                    return
            elif get_fix(self._connection, self._fix.id).status is not FixStatus.ACTIVE:
                self.stopped = True
                return
            # Never more than half of the time is spent on looking.
            cost, silence = clock() - now, clock() - heard
            pause = min(max(silence.total_seconds() / 4, _MIN_PAUSE), _MAX_PAUSE)
            self._patience.sleep(pause if page.events else max(pause, cost.total_seconds()))
            now = clock()

    def _release(self, delivered: str) -> bool:
        """Release what follows these deaths; return whether to go on."""
        followers = self._connection.fetch_one("retry.find_followers", deaths=delivered)
        event_ids = [*self._left, *followers["event_ids"]][:BATCH]
        audit = replace(self._audit, now=self._patience.clock())
        with self._connection.transaction():
            fix = _lock_fix(self._connection, self._fix.id, self._terms)
            if fix is None or fix.closed_at is not None:
                return False
            congested = self._describe_congestion(fix, audit.now)
            step, pace = _decide(
                self._connection,
                fix,
                _Scan(),
                now=audit.now,
                congested=congested,
                terms=self._terms,
            )
            if isinstance(step, WaitStep):
                self._left = event_ids
                return step.until is None and fix.status is FixStatus.ACTIVE
            # The full step ends a fix, and begins a stage: other events may be in it as well.
            if not isinstance(step, ReleaseStep) or step.stage != fix.stage:
                return False
            if not event_ids:
                return get_stage_outcomes(self._connection, fix.id)[fix.stage].waiting > 0
            parameters = {
                **self._target,
                **build_cursor_parameters(FIRST_CURSOR),
                "event_ids": event_ids,
                "room": step.limit,
            }
            batch = _release_stage(
                self._connection,
                fix,
                self._policy,
                step.stage,
                parameters,
                pace=pace,
                audit=audit,
            )
            self._extend_lease(audit.now)
        self.released += batch.taken
        self._left = event_ids if batch.free > batch.taken else []
        return True

    def _describe_congestion(self, fix: Fix, now: datetime) -> str | None:
        """Say why no event may be released, and judge the rate; looked up once a second."""
        if self._congestion is None or now >= self._congestion[0] + timedelta(seconds=1):
            most = self._terms.max_backlog
            congested = describe_congestion(self._connection, now=now, max_backlog=most)
            self._congestion = (now, congested)
            _judge_rate(
                self._connection, fix, self._policy, self._terms, congested=congested, now=now
            )
        return self._congestion[1]

    def _extend_lease(self, now: datetime) -> None:
        """Let the sensor request another run if this one is killed; written twice a minute."""
        if now > self._leased_at + _FOLLOWING_LEASE / 2:
            self._leased_at = now
            self._connection.run(
                "fix.stepped", fix_id=self._fix.id, now=now, refill_at=now + _FOLLOWING_LEASE
            )


def _settle_own(
    connection: Connection,
    fix_id: int,
    *,
    audit: AuditContext,
    terms: FixTerms,
) -> int:
    """Record the outcomes of an open fix. `settle_retries` records those of an ended one."""
    fix = get_fix(connection, fix_id)
    if fix.closed_at is not None:
        return 0
    policy = fix.policy or terms.policy
    return settle_outcomes(
        connection, now=audit.now, fix_id=fix_id, settle_seconds=policy.settle_seconds
    )


def _lock_fix(connection: Connection, fix_id: int, terms: FixTerms) -> Fix | None:
    """Lock a fix and store the installation's values in it; None: another run holds it."""
    row = connection.run("fix.lock", fix_id=fix_id).fetchone()
    if row is None:
        return None
    fix = build_fix(row)
    if fix.unreadable or fix.closed_at is not None:
        return fix
    if fix.policy is None or fix.expires_at is None:
        row = connection.fetch_one(
            "fix.adopt",
            fix_id=fix_id,
            expiry=terms.expiry,
            canary=terms.policy.canary,
            growth=terms.policy.growth,
            rate=terms.policy.rate,
            min_success=terms.policy.min_success,
            settle_seconds=terms.policy.settle_seconds,
            max_retries=terms.policy.max_retries,
            order=terms.policy.order,
        )
    return build_fix(row)


def _decide(
    connection: Connection,
    fix: Fix,
    scan: _Scan,
    *,
    now: datetime,
    congested: str | None,
    terms: FixTerms,
    dry_run: bool = False,
) -> tuple[FixStep, Pace]:
    """Decide the next step; one that releases events is decided while no other fix releases any.

    Two fixes that begin at one moment would otherwise not see each other, and release events at
    twice the rate that the worker can take. A dry run makes no fix wait until it is rolled back.
    """
    policy = fix.policy or terms.policy
    pace = get_pace(connection, fix.id, policy, terms, now=now)
    step = _decide_at_pace(connection, fix, policy, scan, now=now, congested=congested, pace=pace)
    if dry_run or not isinstance(step, ReleaseStep):
        return step, pace
    connection.run("fix.lock_pace")
    fair = get_pace(connection, fix.id, policy, terms, now=now)
    if fair == pace:
        return step, pace
    step = _decide_at_pace(connection, fix, policy, scan, now=now, congested=congested, pace=fair)
    return step, fair


def _decide_at_pace(
    connection: Connection,
    fix: Fix,
    policy: RetryPolicy,
    scan: _Scan,
    *,
    now: datetime,
    congested: str | None,
    pace: Pace,
) -> FixStep:
    stages = get_stage_outcomes(connection, fix.id)
    if rejected := reject_fix(connection, fix, stages):
        return rejected
    if scan.ended and scan.locked:
        return WaitStep(f"other transactions hold {format_count(scan.locked, 'event')}")
    if scan.ended and (
        unclassified := connection.fetch_one("fix.unclassified", fix_id=fix.id)["deaths"]
    ):
        return WaitStep(
            f"deaths from before the flag that may match it are not classified: {unclassified:,}"
        )
    return decide_next_step(
        fix,
        policy,
        stages.get(fix.stage, StageOutcomes()),
        now=now,
        left=scan.left if scan.ended else None,
        congested=congested,
        pace=pace,
    )


def _judge_rate(
    connection: Connection,
    fix: Fix,
    policy: RetryPolicy,
    terms: FixTerms,
    *,
    congested: str | None,
    now: datetime,
) -> None:
    """Adjust the rate of a fix to what the worker achieved."""
    if fix.status is not FixStatus.ACTIVE or fix.unreadable:
        return
    row = connection.fetch_one("fix.pace", fix_id=fix.id, now=now)
    stages = get_stage_outcomes(connection, fix.id).values()
    is_behind = congested is not None or bool(
        connection.fetch_one("fix.is_behind", fix_id=fix.id, due_before=now - terms.max_backlog)[
            "is_behind"
        ]
    )
    state = read_rate_state(row["rate_state"], row["current_rate"] or policy.rate)
    judged = adjust_rate(
        state,
        RateNews(
            outcomes=sum(stage.delivered + stage.failed for stage in stages),
            failed=sum(stage.failed for stage in stages),
            is_behind=is_behind,
            last_due_at=row["last_due_at"],
        ),
        rate=policy.rate,
        min_success=policy.min_success,
        now=now,
    )
    if judged != state:
        connection.run(
            "fix.set_rate", fix_id=fix.id, rate=judged.rate, state=write_rate_state(judged)
        )


def _run_step(
    connection: Connection,
    fix: Fix,
    policy: RetryPolicy,
    step: FixStep,
    scan: _Scan,
    *,
    pace: Pace,
    audit: AuditContext,
) -> tuple[int, _Scan]:
    """Run the step; return how many events it released, and where the scan stands."""
    match step:
        case ReleaseStep():
            parameters = {
                **build_target_parameters(connection, fix, policy),
                **build_cursor_parameters(scan.after),
                "room": min(step.limit, BATCH),
            }
            batch = _release_stage(
                connection, fix, policy, step.stage, parameters, pace=pace, audit=audit
            )
            return batch.taken, scan.advance_past(batch, limit=step.limit)
        case CloseStep():
            _close(connection, fix, step, audit=replace(audit, reason=step.verdict))
        case PauseStep(verdict):
            signed = replace(audit, reason=verdict)
            _pause(connection, fix, verdict, audit=signed)
        case WaitStep():
            pass
    return 0, scan


def build_target_parameters(
    connection: Connection, fix: Fix, policy: RetryPolicy
) -> BatchParameters:
    """Return the parameters by which a batch finds the events that a fix targets."""
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
    stage: int,
    parameters: BatchParameters,
    *,
    pace: Pace,
    audit: AuditContext,
) -> DeathBatch:
    """Release a batch of a stage at its pace.

    The stage begins with the first event that is released.
    """
    signed = replace(audit, reason=f"fix {fix.id}, stage {stage}: {fix.note}"[:MAX_REASON_LENGTH])
    batch = release_batch(
        connection,
        {**parameters, "fix_id": fix.id, "stage": stage},
        audit=signed,
        rate=pace.rate,
        due=pace.next_due,
    )
    if batch.taken:
        if stage > fix.stage:
            connection.run(
                "fix.begin_stage",
                fix_id=fix.id,
                stage=stage,
                size=policy.size(stage),
                now=audit.now,
            )
        connection.run(
            "fix.count_released",
            fix_id=fix.id,
            stage=stage,
            events=batch.taken,
            due=pace.next_due,
            seconds_each=compute_release_interval(pace.rate),
        )
        record_audit_entry(
            connection,
            "retry.stage",
            {"fix": fix.id, "stage": stage},
            audit=signed,
            events=batch.taken,
        )
    return batch


def _close(
    connection: Connection,
    fix: Fix,
    close: CloseStep,
    *,
    audit: AuditContext,
) -> None:
    """End a fix. A fix of a whole cause also sets the state of the cause."""
    evidence = _build_evidence(connection, fix) if close.status is FixStatus.HALTED else []
    connection.run(
        "fix.close",
        fix_id=fix.id,
        status=close.status,
        verdict=close.verdict,
        evidence=json.dumps(evidence),
        now=audit.now,
    )
    record_audit_entry(connection, f"fix.{close.status}", {"fix": fix.id}, audit=audit)


def _pause(connection: Connection, fix: Fix, verdict: str, *, audit: AuditContext) -> None:
    """Pause a fix whose outcomes cannot decide, until a person does."""
    connection.run(
        "fix.set_status", fix_id=fix.id, status=FixStatus.PAUSED, verdict=verdict, now=audit.now
    )
    record_audit_entry(connection, "fix.paused", {"fix": fix.id}, audit=audit)


def _build_evidence(connection: Connection, fix: Fix) -> list[dict[str, Any]]:
    """Pair errors before and after a retry, the most frequent pairs first.

    Pairs have equal fingerprints, because the new deaths may not be classified yet.
    """
    rows = connection.run(
        "fix.failures", fix_id=fix.id, stage=fix.stage, limit=_MAX_EVIDENCE_EVENTS
    ).fetchall()
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        died_again = row["outcome"] == "died_again"
        after = compute_cause_id(row["after"]) if died_again else str(row["outcome"])
        pairs.setdefault((compute_cause_id(row["before"]), after), []).append(row)
    most = sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:_MAX_EVIDENCE_PAIRS]
    return [
        {
            "events": len(rows),
            "outcome": rows[0]["outcome"],
            "before": extract_excerpt(rows[0]["before"] or ""),
            "after": extract_excerpt(rows[0]["after"] or ""),
        }
        for _, rows in most
    ]


def _lock_open_fix(connection: Connection, fix_id: int) -> Fix:
    """Lock an open fix. Waits for a run that holds it."""
    row = connection.run("fix.lock_waiting", fix_id=validate_positive("fix_id", fix_id)).fetchone()
    if row is None:
        raise build_unknown_fix_error(fix_id)
    fix = build_fix(row)
    if fix.closed_at is not None:
        raise RefusedError(f"Fix {fix_id} is {fix.status} already.", _SHOW_HINT.format(fix_id))
    return fix


def _recount_deleted(connection: Connection, fix_id: int) -> None:
    """Count deleted events of a paused fix as delivered if the mapping says so. Repeatable.

    Raises:
        NotFoundError: the fix does not exist.
        RefusedError: the fix has ended.
    """
    page: dict[str, Any] = {"rows": BATCH, "stage": None, "event_id": None}
    while page["rows"] == BATCH:
        with connection.transaction():
            if _lock_open_fix(connection, fix_id).status is not FixStatus.PAUSED:
                return
            page = connection.fetch_one(
                "retry.recount_deleted", fix_id=fix_id, **page | {"rows": BATCH}
            )


def _set_status(
    connection: Connection, fix_id: int, old: FixStatus, new: FixStatus, *, audit: AuditContext
) -> None:
    with connection.transaction():
        fix = _lock_open_fix(connection, fix_id)
        if fix.status is not old:
            raise RefusedError(f"Fix {fix_id} is {fix.status}.", _SHOW_HINT.format(fix_id))
        connection.run("fix.set_status", fix_id=fix_id, status=new, verdict=None, now=audit.now)
        kind = "fix.paused" if new is FixStatus.PAUSED else "fix.resumed"
        record_audit_entry(connection, kind, {"fix": fix_id}, audit=audit)
