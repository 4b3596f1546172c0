"""Decides the next step of a fix from the outcomes of the events that it released so far.

Pure: no clock, no database. A fix releases a canary first; each stage that passes is followed by a
larger one. A stage that fails halts the fix. The fix is verified when every stage passed and no
event is left that it may release.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, get_args

from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.text import format_count

RetryOrder = Literal["aggregate", "none"]
# A canary is released in one batch.
_MAX_CANARY = BATCH
# One event in 17 minutes. Slower, the default expiry of 14 days ends a fix before a thousand
# events, and a stage would wait for one event longer than its outcome may take.
MIN_RATE, MAX_RATE = 0.001, 100_000
# What a stop cannot recall, because workers take it meanwhile, is a small part of ten minutes.
DEFAULT_LOOKAHEAD = timedelta(minutes=10)


class FixStatus(StrEnum):
    """The states of a fix; all but the first two are final."""

    ACTIVE = "active"
    PAUSED = "paused"
    VERIFIED = "verified"
    HALTED = "halted"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    # No event was left to release, it cannot end before it expires, or it cannot be advanced. The
    # fix is not verified, because nothing was delivered, and not halted, because nothing failed.
    REJECTED = "rejected"


@dataclass(frozen=True)
class RetryPolicy:
    """How carefully a fix is tested.

    Attributes:
        canary: events in the first stage. Default 10: a false fix fails on few events.
        growth: size of each stage relative to the one before. Default 10: a million events are
            released in six stages.
        rate: events a second at which released events fall due, at least `MIN_RATE`. Default 50: a
            recovering upstream is not flooded.
        min_success: share of a stage that must be delivered. Default 0.9: some events die of other
            causes.
        settle_seconds: seconds to wait for an outcome after the due time. Default 15 minutes.
        max_retries: retries after which an event that dies again is parked. Default 3.
        order: `aggregate`, the default: an event is released once no earlier event of its aggregate
            is dead or in progress. `none`: in any order, for events that do not depend on each
            other.

    Raises:
        ValueError: a value is out of its bounds; the message names it.
    """

    canary: int = 10
    growth: float = 10.0
    rate: float = 50.0
    min_success: float = 0.9
    settle_seconds: int = 900
    max_retries: int = 3
    order: RetryOrder = "aggregate"

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("canary", self.canary, 1, _MAX_CANARY),
            ("growth", self.growth, 1, 1000),
            ("rate", self.rate, MIN_RATE, MAX_RATE),
            ("settle_seconds", self.settle_seconds, 1, 604_800),
            ("max_retries", self.max_retries, 1, 100),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value!r}")
        if not 0 < self.min_success <= 1:
            raise ValueError(
                f"min_success must be more than 0 and at most 1, not {self.min_success!r}"
            )
        if self.order not in get_args(RetryOrder):
            raise ValueError(f"order must be aggregate or none, not {self.order!r}")

    def size(self, stage: int) -> int:
        """Return how many events a stage may release; 0 before the first stage.

        At most 2**62, which a bigint holds and no outbox reaches.
        """
        if stage < 1:
            return 0
        try:
            return min(int(self.canary * self.growth ** (stage - 1)), 2**62)
        except OverflowError:
            return 2**62

    def sizes(self, events: int) -> list[int]:
        """Return how many events each stage would release if all of them are delivered."""
        sizes: list[int] = []
        while events > 0:
            sizes.append(min(events, self.size(len(sizes) + 1)))
            events -= sizes[-1]
        return sizes


@dataclass(frozen=True)
class FixTerms:
    """The installation's values for fixes that were flagged without them.

    Attributes:
        policy: the policy of a fix.
        expiry: time after which an unverified fix expires. Default 14 days.
        max_backlog: queue lag above which no event is released. Default 5 minutes: more events
            would only wait, and would time out without saying anything about the fix.
        lookahead: how far ahead of its due time an event is released at most. Default 10 minutes.
    """

    policy: RetryPolicy = RetryPolicy()
    expiry: timedelta = timedelta(days=14)
    max_backlog: timedelta = timedelta(minutes=5)
    lookahead: timedelta = DEFAULT_LOOKAHEAD


@dataclass(frozen=True)
class Fix:
    """A flagged fix as it is stored.

    Attributes:
        selection: the dead events that it targets, if they died before `flagged_at`.
        note: what was fixed.
        link: version or address of the change.
        owner: person or team to contact.
        deployment: the id of the deployment that carries it.
        policy: None before the first step of a fix that was flagged without a policy; that step
            stores the installation's.
        stage: the last stage that began; 0: none.
        verdict: why the fix ended, or why its outcomes could not decide and it was paused.
        evidence: errors of a halted fix: objects with `events`, `outcome`, `before` and `after`.
        unreadable: what no face accepts in the stored row, such as a rate that was written by hand;
            the next step rejects such a fix. None: nothing.
        current_rate: events a second that the worker can take of it, by its outcomes; None: the
            rate of the policy.
        release_rate: the rate at which it released its last events, which is less while other fixes
            release theirs; None: it has released none.
    """

    id: int
    selection: Selection
    note: str
    link: str | None
    owner: str | None
    flagged_by: str
    flagged_at: datetime
    not_before: datetime | None
    expires_at: datetime | None
    policy: RetryPolicy | None
    stage: int
    status: FixStatus
    verdict: str | None
    evidence: tuple[dict[str, Any], ...] = field(default=())
    closed_at: datetime | None = None
    unreadable: str | None = None
    current_rate: float | None = None
    release_rate: float | None = None
    deployment: int | None = None


@dataclass(frozen=True)
class StoppedFix(Fix):
    """A fix that was paused, halted or withdrawn, and what became of its released events.

    Attributes:
        recalled: released events that are dead again, because no worker had taken them.
        with_worker: released events that a worker has taken or that are due.
    """

    recalled: int = 0
    with_worker: int = 0


@dataclass(frozen=True)
class StageOutcomes:
    """Events that one stage may release (`size`), released, and their outcomes.

    Attributes:
        recalled: events that were released and recalled. They prove nothing, and the stage may
            release as many again.
    """

    size: int = 0
    released: int = 0
    delivered: int = 0
    died_again: int = 0
    timed_out: int = 0
    deleted: int = 0
    recalled: int = 0

    @property
    def tried(self) -> int:
        """Released events that were not recalled."""
        return self.released - self.recalled

    @property
    def waiting(self) -> int:
        """Released events without an outcome."""
        return self.tried - self.delivered - self.failed

    @property
    def failed(self) -> int:
        """Events that died again, timed out or were deleted: none of them proves the fix."""
        return self.died_again + self.timed_out + self.deleted


@dataclass(frozen=True)
class Remaining:
    """Events that a fix targets and cannot release now.

    Attributes:
        waiting: an earlier event of their aggregate is in progress; they may follow it.
        held: an earlier event of their aggregate is dead.
        parked: died again after the maximum of retries; only a person releases them.
    """

    waiting: int = 0
    held: int = 0
    parked: int = 0


@dataclass(frozen=True)
class ReleaseStep:
    """Release up to `limit` events in a stage, which may be a new one."""

    stage: int
    limit: int


@dataclass(frozen=True)
class WaitStep:
    """Wait, for this reason.

    Attributes:
        until: when the stage can go on; None: an outcome, a person or another time decides.
    """

    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class CloseStep:
    """End the fix with this status and verdict."""

    status: FixStatus
    verdict: str


@dataclass(frozen=True)
class PauseStep:
    """Pause the fix with this verdict, until a person decides."""

    verdict: str


FixStep = ReleaseStep | WaitStep | CloseStep | PauseStep


@dataclass(frozen=True)
class Pace:
    """When the next event of a fix falls due.

    Attributes:
        next_due: now, or at the rate of the fix after the event that it released last.
        lookahead: an event is released at most this long before it falls due.
        rate: events a second now; None: the rate of the policy.
    """

    next_due: datetime
    lookahead: timedelta = DEFAULT_LOOKAHEAD
    rate: float | None = None

    def count_due(self, rate: float, *, now: datetime) -> int:
        """Return how many more events fall due within the look-ahead, at so many a second."""
        seconds = (now + self.lookahead - self.next_due).total_seconds()
        return 0 if seconds < 0 else int(seconds * rate) + 1


def decide_next_step(  # noqa: PLR0911 - a table of decisions, one line each
    fix: Fix,
    policy: RetryPolicy,
    stage: StageOutcomes,
    *,
    now: datetime,
    left: Remaining | None,
    congested: str | None = None,
    pace: Pace | None = None,
) -> FixStep:
    """Decide the next step of an open fix.

    Args:
        fix: the open fix.
        policy: the policy of the fix, or the installation's.
        stage: outcomes of the current stage.
        now: the time of the decision.
        left: events that cannot be released; None while some may be released.
        congested: why the worker's queue lag allows no release; None: it allows one.
        pace: when the next event falls due; None: now.
    """
    if fix.expires_at is not None and fix.expires_at <= now:
        return CloseStep(
            FixStatus.EXPIRED,
            f"not verified by {fix.expires_at:%Y-%m-%d %H:%M} UTC, in stage {fix.stage}",
        )
    if held := _describe_hold(fix, now):
        return WaitStep(held)
    # Events that the stage can still release count as delivered until they are not.
    room = policy.size(fix.stage) - stage.tried if left is None else 0
    if not can_stage_pass(stage, policy.min_success, more=room):
        return _decide_failed_stage(fix, policy, stage, more=room)
    if room <= 0 and stage.waiting:
        return WaitStep(_describe_waiting(fix, stage))
    if left is not None:
        return _decide_last_step(fix, stage, left)
    if congested:
        return WaitStep(congested, until=now)
    if room > 0 and stage.waiting and not can_stage_pass(stage, policy.min_success):
        return WaitStep(
            f"{stage.failed:,} of {format_count(stage.tried, 'event')} failed so far in stage "
            f"{fix.stage}; it continues once the other {stage.waiting} have an outcome"
        )
    pace = pace or Pace(now)
    most = pace.count_due(pace.rate or policy.rate, now=now)
    if most == 0:
        return _wait_for_due_time(fix, stage, pace)
    number = fix.stage if room > 0 else fix.stage + 1
    return ReleaseStep(number, min(BATCH, most, room if room > 0 else policy.size(number)))


def _describe_hold(fix: Fix, now: datetime) -> str | None:
    """Say why a fix does not go on whatever its outcomes are; None: it may."""
    if fix.status is FixStatus.PAUSED:
        return f"paused: {fix.verdict}" if fix.verdict else "paused"
    if fix.not_before is not None and fix.not_before > now:
        return f"not before {fix.not_before:%Y-%m-%d %H:%M} UTC"
    return None


def _describe_waiting(fix: Fix, stage: StageOutcomes) -> str:
    has = "has" if stage.waiting == 1 else "have"
    return f"{format_count(stage.waiting, 'event')} of stage {fix.stage} {has} no outcome yet"


def _wait_for_due_time(fix: Fix, stage: StageOutcomes, pace: Pace) -> WaitStep:
    """Wait until half of the look-ahead has passed, so that a late run delays no event."""
    return WaitStep(
        f"the next event falls due at {pace.next_due:%Y-%m-%d %H:%M:%S} UTC, and no event is "
        f"released more than {pace.lookahead.total_seconds():.0f} s ahead; "
        f"{_describe_waiting(fix, stage)}",
        until=pace.next_due - pace.lookahead / 2,
    )


def _decide_last_step(fix: Fix, stage: StageOutcomes, left: Remaining) -> FixStep:
    """Decide the next step of a fix that cannot release any event now."""
    if left.waiting:
        return WaitStep(
            f"{format_count(left.waiting, 'event')} must follow an earlier event of the same "
            "aggregate, which was retried without this fix"
        )
    status, verdict = FixStatus.VERIFIED, f"every stage passed; the last was stage {fix.stage}"
    if fix.stage == 0 or (fix.stage == 1 and stage.tried == 0):
        status, verdict = FixStatus.REJECTED, "no targeted event could be released"
    return CloseStep(status, verdict + _describe_remaining(left))


def can_stage_pass(stage: StageOutcomes, min_success: float, *, more: int = 0) -> bool:
    """Return whether the stage passes if all events without an outcome are delivered.

    Args:
        stage: outcomes so far.
        min_success: share that must be delivered.
        more: events that the stage can still release.
    """
    released = stage.tried + more
    # Divided, not multiplied: 55 / 100 equals the float 0.55, but 0.55 * 100 is more than 55.
    return released == 0 or (released - stage.failed) / released >= min_success


def _decide_failed_stage(
    fix: Fix, policy: RetryPolicy, stage: StageOutcomes, *, more: int
) -> CloseStep | PauseStep:
    if _are_deletions_ambiguous(stage, policy.min_success, more=more):
        return PauseStep(_describe_deletions(stage))
    return CloseStep(FixStatus.HALTED, _describe_shortfall(fix, policy, stage))


def _are_deletions_ambiguous(stage: StageOutcomes, min_success: float, *, more: int) -> bool:
    """Return whether the worker may have deleted what it delivered, and the stage may pass then."""
    if not stage.deleted or stage.delivered or stage.timed_out:
        return False
    return can_stage_pass(replace(stage, deleted=0), min_success, more=more)


def _describe_deletions(stage: StageOutcomes) -> str:
    return (
        f"{stage.deleted:,} of {stage.tried:,} released events were deleted, and none was "
        "delivered. If the worker deletes what it has delivered, map `delivered` to deleted and "
        "resume; otherwise withdraw"
    )


def _describe_remaining(left: Remaining) -> str:
    parts = [
        text
        for count, text in (
            (left.held, f"{left.held} behind an earlier dead event of their aggregate"),
            (left.parked, f"{left.parked} parked"),
        )
        if count
    ]
    return f"; still dead: {', '.join(parts)}" if parts else ""


def _describe_shortfall(fix: Fix, policy: RetryPolicy, stage: StageOutcomes) -> str:
    return (
        f"stage {fix.stage}: {stage.failed} of {stage.tried} failed "
        f"({stage.died_again} died again, {stage.timed_out} timed out, {stage.deleted} deleted); "
        f"at least {policy.min_success:.0%} must be delivered"
    )
