"""A fix is a claim. Given what became of the events released so far, what is its next step?

Pure: no clock, no database. A fix releases a canary first; when enough of it succeeds, all the rest; when enough of
that succeeds too and nothing is left, it is verified. At any stage that fails it is halted.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# Rows that one statement releases: short enough that no lock is held for long.
BATCH = 5_000


class FixStatus(StrEnum):
    """The states of a fix; all but the first are final."""

    ACTIVE = "active"
    VERIFIED = "verified"
    HALTED = "halted"
    WITHDRAWN = "withdrawn"
    REJECTED = "rejected"


@dataclass(frozen=True)
class RetryPolicy:
    """How carefully a fix is tried.

    Attributes:
        canary: events in the first stage. Default 10: few enough to fail in peace.
        rate: events a second at which released events fall due. Default 50: a recovering upstream is not flooded.
        min_success: share of a stage that must succeed. Default 0.9: some events die of causes of their own.
        settle_seconds: how long after its due time an event may stay without outcome. Default 15 minutes.
    """

    canary: int = 10
    rate: float = 50.0
    min_success: float = 0.9
    settle_seconds: int = 900


@dataclass(frozen=True)
class Fix:
    """A flagged fix as it is stored. `stage` is the last one begun (0: none), `stage_size` its bound (None: none)."""

    id: int
    cause_id: str
    event_type: str | None
    note: str
    flagged_by: str
    flagged_at: datetime
    policy: RetryPolicy
    stage: int
    stage_size: int | None
    status: FixStatus
    verdict: str | None
    closed_at: datetime | None


@dataclass(frozen=True)
class Stage:
    """What became of the events that one stage released."""

    released: int = 0
    done: int = 0
    dead: int = 0
    unsettled: int = 0
    gone: int = 0

    @property
    def waiting(self) -> int:
        """Released and without outcome yet."""
        return self.released - self.done - self.failed

    @property
    def failed(self) -> int:
        """Dead again, without outcome in time, or vanished: none of them is a proof."""
        return self.dead + self.unsettled + self.gone


@dataclass(frozen=True)
class Begin:
    """Open the next stage; it may release `size` events, or all that are left."""

    stage: int
    size: int | None


@dataclass(frozen=True)
class Release:
    """Release up to `limit` more events of the open stage."""

    limit: int


@dataclass(frozen=True)
class Wait:
    """Outcomes are outstanding."""

    waiting: int


@dataclass(frozen=True)
class Close:
    """The fix has ended, and why."""

    status: FixStatus
    verdict: str


Step = Begin | Release | Wait | Close


def next_step(fix: Fix, stage: Stage, *, candidates: bool) -> Step:
    """Decide.

    Args:
        fix: active.
        stage: outcomes of its present stage.
        candidates: whether dead events that it targets are left.
    """
    if fix.stage == 0:
        return Begin(1, fix.policy.canary) if candidates else _nothing_to_prove()
    room = 0
    if candidates:
        room = BATCH if fix.stage_size is None else min(BATCH, fix.stage_size - stage.released)
    # What a bounded stage has yet to release may still save it; one without bound has to hold at any moment.
    if not can_pass(stage, fix.policy.min_success, more=0 if fix.stage_size is None else room):
        return Close(FixStatus.HALTED, _shortfall(fix, stage))
    if room > 0:
        return Release(room)
    if stage.released == 0:
        # Only a first stage can be empty: a later one begins because there are candidates, and the stage before
        # it has already passed.
        return _nothing_to_prove() if fix.stage == 1 else _verified(fix)
    if stage.waiting:
        return Wait(stage.waiting)
    return Begin(fix.stage + 1, None) if candidates else _verified(fix)


def can_pass(stage: Stage, min_success: float, *, more: int = 0) -> bool:
    """Whether the stage has succeeded, or still would if all that is outstanding, and `more` that may follow, did."""
    released = stage.released + more
    # Divided, not multiplied: 55 / 100 is the number that 0.55 is read as, and 0.55 * 100 is more than 55.
    return released == 0 or (released - stage.failed) / released >= min_success


def _verified(fix: Fix) -> Close:
    return Close(FixStatus.VERIFIED, f"every stage passed; the last was stage {fix.stage}")


def _nothing_to_prove() -> Close:
    return Close(FixStatus.REJECTED, "no dead event that it targets was left, so there was nothing to prove it on")


def _shortfall(fix: Fix, stage: Stage) -> str:
    return (
        f"stage {fix.stage}: {stage.failed} of {stage.released} failed ({stage.dead} died again, "
        f"{stage.unsettled} without outcome in time, {stage.gone} gone); "
        f"at least {fix.policy.min_success:.0%} must succeed"
    )
