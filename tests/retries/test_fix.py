"""The decision of a fix, whatever the world makes of what it releases."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.retries.fix import (
    Begin,
    Close,
    Fix,
    FixStatus,
    Release,
    RetryPolicy,
    Stage,
    Wait,
    can_pass,
    next_step,
)

OUTCOMES = st.sampled_from(["done", "dead", "unsettled", "gone"])


@dataclass
class World:
    """Dead events that a fix targets, and the outcome that awaits each of them once it is released."""

    outcomes: Sequence[str]
    fix: Fix
    percent: int
    free: Sequence[int] = ()  # of each release: how many events nobody else holds locked; after that all
    taken_at: int = 0  # at the beginning of this stage somebody retries by hand all that is left
    releases: int = 0
    released: dict[int, list[str]] = field(default_factory=dict)
    settled: dict[int, list[str]] = field(default_factory=dict)
    closed: Close | None = None

    @property
    def left(self) -> int:
        """Events that are dead still."""
        return len(self.outcomes) - sum(map(len, self.released.values()))

    def stage(self, number: int) -> Stage:
        """What became of a stage."""
        settled = self.settled.get(number, [])
        counts = {outcome: settled.count(outcome) for outcome in ("done", "dead", "unsettled", "gone")}
        return Stage(released=len(self.released.get(number, [])), **counts)

    def passes(self, succeeded: int, of: int) -> bool:
        """Whether that share is enough, in whole numbers."""
        return Fraction(succeeded, of) >= Fraction(self.percent, 100)

    def step(self) -> Begin | Release | Wait | Close:
        """Decide, and let it happen; an event that is waited for gets its outcome."""
        step = next_step(self.fix, self.stage(self.fix.stage), candidates=self.left > 0)
        match step:
            case Begin(stage, size):
                self.fix = replace(self.fix, stage=stage, stage_size=size)
                if stage == self.taken_at:
                    self.outcomes = self.outcomes[: len(self.outcomes) - self.left]
            case Release(limit):
                start = len(self.outcomes) - self.left
                free = self.free[self.releases] if self.releases < len(self.free) else limit
                self.releases += 1
                self.released.setdefault(self.fix.stage, []).extend(self.outcomes[start : start + min(free, limit)])
                if free < limit:  # a run ends with a release of less than it wanted, so outcomes come before the next
                    self.settle()
            case Wait():
                self.settle()
            case Close():
                self.closed = step
        return step

    def settle(self) -> None:
        """The event that is waited for longest gets its outcome."""
        settled = self.settled.setdefault(self.fix.stage, [])
        settled += self.released[self.fix.stage][len(settled) : len(settled) + 1]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to 60 events, any policy, and others who hold events locked or retry them by hand."""
    percent = draw(st.integers(1, 100))
    policy = RetryPolicy(canary=draw(st.integers(1, 20)), min_success=percent / 100)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    fix = Fix(1, "v1-x", None, "note", "ann", now, policy, 0, None, FixStatus.ACTIVE, None, None)
    free = draw(st.lists(st.integers(0, 8), max_size=8))
    return World(draw(st.lists(OUTCOMES, max_size=60)), fix, percent, free, draw(st.integers(0, 2)))


def play(world: World) -> World:
    """Until it is closed; every step but a release of locked events does something, so this ends."""
    for _ in range(4 * len(world.outcomes) + len(world.free) + 10):
        world.step()
        if world.closed:
            return world
    raise AssertionError("the fix does not end")


@given(worlds())
def test_a_fix_always_ends_and_says_why(world: World) -> None:
    """Whatever the outcomes and the policy."""
    closed = play(world).closed
    assert closed is not None
    assert closed.status in {FixStatus.VERIFIED, FixStatus.HALTED, FixStatus.REJECTED}
    assert closed.verdict


@given(worlds())
def test_the_canary_is_never_exceeded(world: World) -> None:
    """The first stage is the only one that a false fix costs."""
    play(world)
    assert len(world.released.get(1, [])) <= world.fix.policy.canary


@given(worlds())
def test_a_stage_begins_only_after_the_one_before_has_passed(world: World) -> None:
    """With all of its outcomes known."""
    while not world.closed:
        before = world.fix.stage
        step = world.step()
        if isinstance(step, Begin) and before:
            stage = world.stage(before)
            assert stage.waiting == 0
            assert world.passes(stage.done, stage.released)


@given(worlds())
def test_a_fix_is_halted_exactly_when_its_stage_can_no_longer_pass(world: World) -> None:
    """As soon as that is certain, and not while what the stage may yet release could save it."""
    while not world.closed:
        stage, size, left = world.stage(world.fix.stage), world.fix.stage_size, world.left
        step = world.step()
        if isinstance(step, Begin) or not stage.released:
            continue
        room = max(0, size - stage.released) if size is not None else 0
        most, some = stage.released + room * bool(left), stage.released + min(room, left)
        if isinstance(step, Close) and step.status is FixStatus.HALTED:
            assert not world.passes(some - stage.failed, some)
        else:
            assert world.passes(most - stage.failed, most)


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_share_that_is_just_reached_is_enough(percent: int) -> None:
    """55 of 100 are 0.55, whatever 0.55 * 100 is to a computer; one less is not."""
    assert can_pass(Stage(released=100, done=percent, dead=100 - percent), percent / 100)
    assert not can_pass(Stage(released=100, done=percent - 1, dead=101 - percent), percent / 100)


@given(worlds())
def test_verified_means_that_nothing_is_left_and_something_was_delivered(world: World) -> None:
    """And rejected that there was nothing to try it on."""
    closed = play(world).closed
    assert closed is not None
    delivered = sum(stage.count("done") for stage in world.settled.values())
    if closed.status is FixStatus.VERIFIED:
        assert (world.left, delivered > 0) == (0, True)
    assert (closed.status is FixStatus.REJECTED) == (not any(world.released.values()))
