"""A fix is a claim. Given what became of the events released so far, what is its next step?

Pure: no clock, no database. A fix releases a canary first; each stage that passes is followed by one that is larger.
When a stage fails the fix is halted; when nothing is left that it may release, and all of it passed, it is verified.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, get_args

from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.selection import Selection

RetryOrder = Literal["aggregate", "none"]
_BOUNDS = {
    "canary": (1, BATCH),
    "growth": (1, 1000),
    "settle_seconds": (1, 604_800),
    "max_retries": (1, 100),
}
# At most; and more than 0, at which nothing would fall due and nothing be proven.
_ABOVE_ZERO = {"rate": 100_000, "min_success": 1}


class FixStatus(StrEnum):
    """The states of a fix; all but the first two are final."""

    ACTIVE = "active"
    PAUSED = "paused"
    VERIFIED = "verified"
    HALTED = "halted"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    REJECTED = "rejected"


@dataclass(frozen=True)
class RetryPolicy:
    """How carefully a fix is tried.

    Attributes:
        canary: events in the first stage. Default 10: few enough to fail in peace.
        growth: how many times larger each stage is than the one before it. Default 10: a million events are released
            in six stages, and a fix that fails late has had nine tenths of its successes before.
        rate: events a second at which released events fall due. Default 50: a recovering upstream is not flooded.
        min_success: share of a stage that must succeed. Default 0.9: some events die of causes of their own.
        settle_seconds: how long after its due time an event may stay without outcome. Default 15 minutes.
        max_retries: an event that died again after so many retries is parked: only a person releases it. Default 3.
        order: `aggregate`, the default: an event goes when nothing earlier of its aggregate is dead or under way.
            `none`: all at once, for events that do not build on each other.

    Raises:
        ValueError: a figure is out of its bounds; the message names it.
    """

    canary: int = 10
    growth: float = 10.0
    rate: float = 50.0
    min_success: float = 0.9
    settle_seconds: int = 900
    max_retries: int = 3
    order: RetryOrder = "aggregate"

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(
                    f"{name} must be from {least} to {most}, not {getattr(self, name)!r}"
                )
        for name, most in _ABOVE_ZERO.items():
            if not 0 < getattr(self, name) <= most:
                raise ValueError(
                    f"{name} must be more than 0 and at most {most}, not {getattr(self, name)!r}"
                )
        if self.order not in get_args(RetryOrder):
            raise ValueError(f"order must be aggregate or none, not {self.order!r}")

    def size(self, stage: int) -> int:
        """How many events a stage may release; none before the first.

        Bounded by what a bigint holds, which no outbox has.
        """
        if stage < 1:
            return 0
        try:
            return min(int(self.canary * self.growth ** (stage - 1)), 2**62)
        except OverflowError:
            return 2**62

    def sizes(self, events: int) -> list[int]:
        """What each stage would release if so many events are there and all succeed."""
        sizes: list[int] = []
        while events > 0:
            sizes.append(min(events, self.size(len(sizes) + 1)))
            events -= sizes[-1]
        return sizes


@dataclass(frozen=True)
class FixTerms:
    """What an installation decides for its fixes.

    Attributes:
        policy: of a fix that was flagged without one.
        expiry: after which a fix that was flagged without an end expires. Default 14 days: an older claim is stale.
        max_backlog: how far the worker may be behind for a stage to begin. Default 5 minutes: more events would only
            wait, and their outcomes say nothing of the fix.
    """

    policy: RetryPolicy = RetryPolicy()
    expiry: timedelta = timedelta(days=14)
    max_backlog: timedelta = timedelta(minutes=5)


@dataclass(frozen=True)
class Fix:
    """A flagged fix as it is stored.

    Attributes:
        selection: the dead events that it targets, as far as they died before `flagged_at`.
        note: what was mended; `link`: the version or the address of the change; `owner`: whom to ask.
        policy: None until the first step of a fix that was flagged without one; then the installation's.
        stage: the last stage that was begun; 0: none yet.
        verdict: why it ended.
        evidence: of a halted fix, errors before and after: objects with `events`, `before`, `after`.
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


@dataclass(frozen=True)
class StageOutcomes:
    """What became of the events that one stage released; it may release `size`."""

    size: int = 0
    released: int = 0
    delivered: int = 0
    died_again: int = 0
    timed_out: int = 0
    deleted: int = 0

    @property
    def waiting(self) -> int:
        """Released and without outcome yet."""
        return self.released - self.delivered - self.failed

    @property
    def failed(self) -> int:
        """Events that died again, timed out or were deleted: none of them proves the fix."""
        return self.died_again + self.timed_out + self.deleted


@dataclass(frozen=True)
class Remaining:
    """What a look through all that a fix targets found that it may not release now.

    Attributes:
        waiting: behind an event of their aggregate that is under way: they may follow it.
        held: behind an event of their aggregate that is dead.
        parked: retried too often; a person's to release.
    """

    waiting: int = 0
    held: int = 0
    parked: int = 0


@dataclass(frozen=True)
class ReleaseStep:
    """Release up to `limit` events in that stage, which may be a new one."""

    stage: int
    limit: int


@dataclass(frozen=True)
class WaitStep:
    """Nothing can be done now, and why."""

    reason: str


@dataclass(frozen=True)
class CloseStep:
    """The fix has ended, and why."""

    status: FixStatus
    verdict: str


FixStep = ReleaseStep | WaitStep | CloseStep


def decide_next_step(  # noqa: PLR0911 - a table of decisions, one line each
    fix: Fix,
    policy: RetryPolicy,
    stage: StageOutcomes,
    *,
    now: datetime,
    left: Remaining | None,
    congested: str | None = None,
) -> FixStep:
    """Decide.

    Args:
        fix: not ended.
        policy: of the fix, or what it takes over.
        stage: outcomes of its present stage.
        now: the moment.
        left: None while there may be events that can be released; otherwise what remains.
        congested: why no new stage may begin now, when the worker cannot keep up.
    """
    if fix.expires_at is not None and fix.expires_at <= now:
        return CloseStep(
            FixStatus.EXPIRED,
            f"not proven by {fix.expires_at:%Y-%m-%d %H:%M} UTC, in stage {fix.stage}",
        )
    if fix.status is FixStatus.PAUSED:
        return WaitStep("paused")
    if fix.not_before is not None and fix.not_before > now:
        return WaitStep(f"not before {fix.not_before:%Y-%m-%d %H:%M} UTC")
    # What a stage has yet to release may still save it.
    room = policy.size(fix.stage) - stage.released if left is None else 0
    if not can_stage_pass(stage, policy.min_success, more=room):
        return CloseStep(FixStatus.HALTED, _shortfall(fix, policy, stage))
    if room > 0:
        return ReleaseStep(fix.stage, min(BATCH, room))
    if stage.waiting:
        return WaitStep(f"{stage.waiting} events of stage {fix.stage} have no outcome yet")
    if left is None:
        return (
            WaitStep(congested)
            if congested
            else ReleaseStep(fix.stage + 1, min(BATCH, policy.size(fix.stage + 1)))
        )
    if left.waiting:
        return WaitStep(
            f"{left.waiting} events wait for an earlier one of their aggregate, which was retried elsewhere"
        )
    if fix.stage == 0:
        return CloseStep(
            FixStatus.REJECTED, "nothing that it targets could be released" + _remains(left)
        )
    return CloseStep(
        FixStatus.VERIFIED, f"every stage passed; the last was stage {fix.stage}" + _remains(left)
    )


def can_stage_pass(stage: StageOutcomes, min_success: float, *, more: int = 0) -> bool:
    """Whether the stage has succeeded, or still would if all that is outstanding, and `more` that may follow, did."""
    released = stage.released + more
    # Divided, not multiplied: 55 / 100 is the number that 0.55 is read as, and 0.55 * 100 is more than 55.
    return released == 0 or (released - stage.failed) / released >= min_success


def _remains(left: Remaining) -> str:
    said = [
        text
        for count, text in (
            (left.held, f"{left.held} behind an earlier dead event of their aggregate"),
            (left.parked, f"{left.parked} parked"),
        )
        if count
    ]
    return f"; still dead: {', '.join(said)}" if said else ""


def _shortfall(fix: Fix, policy: RetryPolicy, stage: StageOutcomes) -> str:
    return (
        f"stage {fix.stage}: {stage.failed} of {stage.released} failed ({stage.died_again} died again, "
        f"{stage.timed_out} timed out, {stage.deleted} deleted); "
        f"at least {policy.min_success:.0%} must succeed"
    )
