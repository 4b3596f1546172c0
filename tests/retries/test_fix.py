"""The decision of a fix, whatever the world makes of what it releases."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.retries.fix import Begin, Close, Fix, FixStatus, Release, RetryPolicy, Stage, Wait, next_step

OUTCOMES = st.sampled_from(["done", "dead", "unsettled", "gone"])


@dataclass
class World:
    """Dead events that a fix targets, and the outcome that awaits each of them once it is released."""

    outcomes: Sequence[str]
    fix: Fix
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

    def step(self) -> Begin | Release | Wait | Close:
        """Decide, and let it happen; an event that is waited for gets its outcome."""
        step = next_step(self.fix, self.stage(self.fix.stage), candidates=self.left > 0)
        match step:
            case Begin(stage, size):
                self.fix = replace(self.fix, stage=stage, stage_size=size)
            case Release(limit):
                start = len(self.outcomes) - self.left
                self.released.setdefault(self.fix.stage, []).extend(self.outcomes[start : start + limit])
            case Wait():
                settled = self.settled.setdefault(self.fix.stage, [])
                settled.append(self.released[self.fix.stage][len(settled)])
            case Close():
                self.closed = step
        return step


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to 60 events and any policy."""
    policy = RetryPolicy(canary=draw(st.integers(1, 20)), min_success=draw(st.floats(0.01, 1.0)))
    now = datetime(2026, 11, 20, tzinfo=UTC)
    fix = Fix(1, "v1-x", None, "note", "ann", now, policy, 0, None, FixStatus.ACTIVE, None, None)
    return World(draw(st.lists(OUTCOMES, max_size=60)), fix)


def play(world: World) -> World:
    """Until it is closed; every step does something, so this ends, and a bound says so."""
    for _ in range(4 * len(world.outcomes) + 10):
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
            assert stage.done >= world.fix.policy.min_success * stage.released


@given(worlds())
def test_a_fix_is_halted_exactly_when_a_stage_can_no_longer_pass(world: World) -> None:
    """As soon as that is certain, not when the last event has its outcome."""
    play(world)
    stage = world.stage(world.fix.stage)
    hopeless = stage.done + stage.waiting < world.fix.policy.min_success * stage.released
    assert (world.closed is not None and world.closed.status is FixStatus.HALTED) == hopeless


@given(worlds())
def test_verified_means_that_nothing_is_left_and_something_was_delivered(world: World) -> None:
    """And rejected that there was nothing to begin with."""
    closed = play(world).closed
    assert closed is not None
    delivered = sum(stage.count("done") for stage in world.settled.values())
    if closed.status is FixStatus.VERIFIED:
        assert (world.left, delivered > 0) == (0, True)
    assert (closed.status is FixStatus.REJECTED) == (not world.outcomes)
