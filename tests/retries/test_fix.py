"""Decisions of a fix for any outcomes of the events that it releases."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import build_fix_terms
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.retries.fix import (
    CloseStep,
    Fix,
    FixStatus,
    FixStep,
    Pace,
    PauseStep,
    ReleaseStep,
    Remaining,
    RetryPolicy,
    StageOutcomes,
    WaitStep,
    can_stage_pass,
    decide_next_step,
)
from dlq_pipelines.settings import read_settings

NOW = datetime(2026, 11, 20, tzinfo=UTC)
OUTCOMES = st.sampled_from(["delivered", "died_again", "timed_out", "deleted"])
FIX = Fix(
    id=1,
    selection=Selection(cause="v2-x"),
    note="note",
    link=None,
    owner=None,
    flagged_by="ann",
    flagged_at=NOW,
    not_before=None,
    expires_at=NOW + timedelta(days=14),
    policy=None,
    stage=0,
    status=FixStatus.ACTIVE,
    verdict=None,
)


@dataclass
class Event:
    """A dead event that a fix targets, with its future outcome and its aggregate."""

    outcome: str
    aggregate: int
    stage: int = 0
    settled: bool = False

    @property
    def delivered(self) -> bool:
        return self.settled and self.outcome == "delivered"


@dataclass
class World:
    """The targets of a fix in the order of their ids, some of them locked by others."""

    events: list[Event]
    policy: RetryPolicy
    percent: int
    locks: Sequence[
        int
    ] = ()  # of each release: how many of its events somebody else holds; after that none
    fix: Fix = FIX
    looked: bool = False  # a release just found nothing
    releases: int = 0
    steps: list[FixStep] = field(default_factory=list)

    @property
    def closed(self) -> CloseStep | None:
        last = self.steps[-1] if self.steps else None
        return last if isinstance(last, CloseStep) else None

    def free(self) -> list[Event]:
        """What may go now: no earlier event of its aggregate is dead or under way."""
        return [
            event for event in self.events if not event.stage and self.before(event) == "delivered"
        ]

    def before(self, event: Event) -> str:
        """What became of the events of its aggregate that were written before it."""
        earlier = [
            e for e in self.events[: self.events.index(event)] if e.aggregate == event.aggregate
        ]
        if self.policy.order == "none" or all(e.delivered for e in earlier):
            return "delivered"
        return "under way" if any(e.stage and not e.settled for e in earlier) else "dead"

    def left(self) -> Remaining:
        dead = [self.before(event) for event in self.events if not event.stage]
        return Remaining(waiting=dead.count("under way"), held=dead.count("dead"))

    def stage(self, number: int) -> StageOutcomes:
        """What became of a stage."""
        released = [event for event in self.events if event.stage == number and number]
        known = [event.outcome for event in released if event.settled]
        counts = {
            outcome: known.count(outcome)
            for outcome in ("delivered", "died_again", "timed_out", "deleted")
        }
        return StageOutcomes(size=self.policy.size(number), released=len(released), **counts)

    def passes(self, succeeded: int, of: int) -> bool:
        """Whether that share is enough, in whole numbers."""
        return Fraction(succeeded, of) >= Fraction(self.percent, 100)

    def step(self) -> FixStep:
        """Decide, and let it happen; when the fix has to wait, one event gets its outcome."""
        left = self.left() if self.looked else None
        step = decide_next_step(
            self.fix, self.policy, self.stage(self.fix.stage), now=NOW, left=left
        )
        self.steps.append(step)
        self.looked = False
        match step:
            case ReleaseStep(number, limit):
                self.release(number, limit)
            case WaitStep():
                self.settle()
            case PauseStep(verdict):  # a person ends it
                self.steps.append(CloseStep(FixStatus.WITHDRAWN, verdict))
        return step

    def release(self, number: int, limit: int) -> None:
        free = self.free()[:limit]
        locked = self.locks[self.releases] if self.releases < len(self.locks) else 0
        self.releases += 1
        for event in free[locked:]:
            event.stage = number
            self.fix = replace(self.fix, stage=number)
        if not free:
            self.looked = True
        elif not free[locked:]:
            self.settle()

    def settle(self) -> None:
        """The event that is waited for longest gets its outcome."""
        waiting = [event for event in self.events if event.stage and not event.settled]
        for event in waiting[:1]:
            event.settled = True


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to 40 events, any policy, and others who hold events locked."""
    percent = draw(st.integers(1, 100))
    policy = RetryPolicy(
        canary=draw(st.integers(1, 20)),
        growth=draw(st.sampled_from([1.0, 1.5, 2.0, 10.0])),
        min_success=percent / 100,
        order=draw(st.sampled_from(["aggregate", "none"])),
    )
    events = draw(st.lists(st.builds(Event, OUTCOMES, st.integers(1, 12)), max_size=40))
    return World(events, policy, percent, draw(st.lists(st.integers(0, 8), max_size=8)))


def play(world: World) -> CloseStep:
    """Until it is closed."""
    for _ in range(6 * len(world.events) + len(world.locks) + 10):
        world.step()
        if world.closed:
            return world.closed
    raise AssertionError("the fix does not end")


@given(worlds())
def test_a_fix_always_ends_and_says_why(world: World) -> None:
    """Whatever the outcomes and the policy."""
    closed = play(world)
    ends = {FixStatus.VERIFIED, FixStatus.HALTED, FixStatus.WITHDRAWN, FixStatus.REJECTED}
    assert closed.status in ends
    assert closed.verdict


@given(worlds())
def test_no_stage_is_larger_than_its_policy_says(world: World) -> None:
    """The canary is all that a false fix costs, and each stage so many times the one before."""
    play(world)
    for number in range(1, world.fix.stage + 1):
        assert world.stage(number).released <= int(
            world.policy.canary * world.policy.growth ** (number - 1)
        )


@given(worlds())
def test_a_stage_begins_only_after_the_one_before_has_passed(world: World) -> None:
    """With all of its outcomes known."""
    while not world.closed:
        before = world.fix.stage
        world.step()
        if world.fix.stage > before > 0:
            stage = world.stage(before)
            assert stage.waiting == 0
            assert world.passes(stage.delivered, stage.released)


@given(worlds())
def test_an_aggregate_keeps_its_order(world: World) -> None:
    """Of its events each is released when all before it are delivered."""
    while not world.closed:
        free, before = world.free(), {id(event) for event in world.events if event.stage}
        world.step()
        assert all(
            event in free for event in world.events if event.stage and id(event) not in before
        )


@given(worlds())
def test_a_fix_is_stopped_exactly_when_its_stage_can_no_longer_pass(world: World) -> None:
    """As soon as that is certain, and not while what the stage may yet release could save it.

    It is paused if only deletions fail the stage and nothing was delivered, otherwise halted.
    """
    while not world.closed:
        stage, looked = world.stage(world.fix.stage), world.looked
        step = world.step()
        if not stage.released:
            continue
        room = 0 if looked else stage.size - stage.released
        most = stage.released + room
        fails = not world.passes(most - stage.failed, most)
        ambiguous = (
            stage.deleted > 0
            and stage.delivered == stage.timed_out == 0
            and world.passes(most - stage.died_again, most)
        )
        halted = isinstance(step, CloseStep) and step.status is FixStatus.HALTED
        assert halted == (fails and not ambiguous)
        assert isinstance(step, PauseStep) == (fails and ambiguous)


@given(worlds())
def test_verified_means_that_nothing_is_left_that_could_be_tried(world: World) -> None:
    """The rest follows an event that was not delivered; rejected: no event was released."""
    closed = play(world)
    if closed.status is FixStatus.VERIFIED:
        assert not world.free()
        assert any(event.delivered for event in world.events)
        assert (f"{world.left().held} behind" in closed.verdict) == (world.left().held > 0)
    assert (closed.status is FixStatus.REJECTED) == (not any(event.stage for event in world.events))


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_share_that_is_just_reached_is_enough(percent: int) -> None:
    """55 of 100 are 0.55, whatever 0.55 * 100 is to a computer; one less is not."""
    assert can_stage_pass(
        StageOutcomes(released=100, delivered=percent, died_again=100 - percent), percent / 100
    )
    assert not can_stage_pass(
        StageOutcomes(released=100, delivered=percent - 1, died_again=101 - percent), percent / 100
    )


def decide(
    fix: Fix,
    stage: StageOutcomes | None = None,
    left: Remaining | None = None,
    congested: str | None = None,
) -> FixStep:
    return decide_next_step(
        fix, RetryPolicy(), stage or StageOutcomes(), now=NOW, left=left, congested=congested
    )


def test_stages_grow_tenfold_and_a_statement_stays_bounded() -> None:
    """10, 100, 1,000 ... in releases of at most 5,000."""
    assert [RetryPolicy().size(stage) for stage in (0, 1, 2, 3, 4)] == [0, 10, 100, 1000, 10_000]
    passed = StageOutcomes(size=1000, released=1000, delivered=1000)
    assert decide(replace(FIX, stage=3), passed) == ReleaseStep(4, BATCH)
    assert RetryPolicy(growth=1000.0).size(500) == 2**62


def test_a_preview_says_what_each_stage_would_release() -> None:
    """The last one what is left."""
    assert RetryPolicy().sizes(5) == [5]
    assert RetryPolicy().sizes(1234) == [10, 100, 1000, 124]
    assert RetryPolicy().sizes(0) == []


def test_a_fix_waits_for_its_conditions() -> None:
    """It waits while paused, too early, or behind a slow worker, also within a stage."""
    passed = StageOutcomes(size=10, released=10, delivered=10)
    assert decide(replace(FIX, status=FixStatus.PAUSED)) == WaitStep("paused")
    assert decide(replace(FIX, not_before=NOW + timedelta(minutes=1))) == WaitStep(
        "not before 2026-11-20 00:01 UTC"
    )
    assert decide(replace(FIX, not_before=NOW)) == ReleaseStep(1, 10)
    slow = WaitStep("slow", until=NOW)
    assert decide(replace(FIX, stage=1), passed, congested="slow") == slow
    assert decide(replace(FIX, stage=1), StageOutcomes(size=10, released=4), congested="slow") == (
        slow
    )
    failed = StageOutcomes(size=10, released=10, died_again=9, delivered=1)
    assert decide(replace(FIX, stage=1), failed, congested="slow") != slow


def test_nothing_is_released_far_ahead_of_its_due_time() -> None:
    """A stage waits until half of the look-ahead has passed; a slow rate releases one by one."""
    begun, size = replace(FIX, stage=1), StageOutcomes(size=5000, released=601)
    policy = RetryPolicy(canary=5000, rate=1.0)
    for next_due, most in ((0, 601), (300, 301), (600, 1)):
        pace = Pace(NOW + timedelta(seconds=next_due))
        assert decide_next_step(begun, policy, size, now=NOW, left=None, pace=pace) == ReleaseStep(
            1, most
        )
    late = Pace(NOW + timedelta(seconds=601))
    step = decide_next_step(begun, policy, size, now=NOW, left=None, pace=late)
    assert isinstance(step, WaitStep)
    assert step.until == NOW + timedelta(seconds=301)
    assert step.reason.startswith("the next event falls due at 2026-11-20 00:10:01 UTC, and no")
    slow = Pace(NOW + timedelta(days=1), timedelta(minutes=1))
    assert slow.count_due(0.001, now=NOW) == 0
    assert slow.count_due(0.001, now=NOW + timedelta(days=1)) == 1


@given(
    rate=st.floats(0.001, 100_000),
    ahead=st.integers(0, 86_400),
    seconds=st.integers(60, 86_400),
)
def test_the_last_event_of_a_release_is_due_within_the_look_ahead(
    rate: float, ahead: int, seconds: int
) -> None:
    """And one more would not be."""
    pace = Pace(NOW + timedelta(seconds=ahead), timedelta(seconds=seconds))
    most = pace.count_due(rate, now=NOW)
    assert most == 0 or ahead + (most - 1) / rate <= seconds + 1e-6
    assert ahead + most / rate >= seconds - 1e-6


def test_a_stage_that_fails_so_far_releases_no_more_before_the_outcomes() -> None:
    """The halt comes when the whole stage cannot pass; until then few events follow."""
    begun = replace(FIX, stage=1)
    policy = RetryPolicy(canary=1000)
    bad = StageOutcomes(size=1000, released=100, died_again=50, delivered=20)
    step = decide_next_step(begun, policy, bad, now=NOW, left=None)
    assert step == WaitStep(
        "50 of 100 events failed so far in stage 1; it continues once the other 30 have an outcome"
    )
    known = replace(bad, delivered=50)
    assert decide_next_step(begun, policy, known, now=NOW, left=None) == ReleaseStep(1, 900)
    failed = replace(bad, died_again=101, delivered=0, released=101)
    assert isinstance(decide_next_step(begun, policy, failed, now=NOW, left=None), CloseStep)


def test_recalled_events_prove_nothing_and_make_room_again() -> None:
    """They are neither delivered nor failed, and a fix without any other is rejected."""
    recalled = StageOutcomes(size=10, released=10, delivered=2, recalled=8)
    assert (recalled.tried, recalled.waiting, recalled.failed) == (2, 0, 0)
    assert decide(replace(FIX, stage=1), recalled) == ReleaseStep(1, 8)
    all_of_it = StageOutcomes(size=10, released=10, recalled=10)
    step = decide(replace(FIX, stage=1), all_of_it, left=Remaining())
    assert step == CloseStep(FixStatus.REJECTED, "no targeted event could be released")


def test_a_fix_that_is_never_proven_expires() -> None:
    """Also a paused one, and one whose events wait for others."""
    late = replace(FIX, expires_at=NOW)
    for fix in (late, replace(late, status=FixStatus.PAUSED)):
        step = decide(fix, left=Remaining(waiting=3))
        assert isinstance(step, CloseStep)
        assert step.status is FixStatus.EXPIRED
    assert isinstance(decide(FIX, left=Remaining(waiting=3)), WaitStep)


def test_what_stays_dead_is_said_in_the_verdict() -> None:
    """Held behind another dead event, or parked."""
    step = decide(
        replace(FIX, stage=1),
        StageOutcomes(size=10, released=9, delivered=9),
        Remaining(held=2, parked=1),
    )
    assert isinstance(step, CloseStep)
    assert step.verdict.endswith(
        "still dead: 2 behind an earlier dead event of their aggregate, 1 parked"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"canary": 0},
        {"canary": 5001},
        {"growth": 0.9},
        {"rate": 0},
        {"rate": 1e-12},
        {"rate": 0.0009},
        {"rate": float("nan")},
        {"min_success": 0},
        {"min_success": 1.1},
        {"settle_seconds": 0},
        {"max_retries": 0},
        {"order": "random"},
    ],
    ids=str,
)
def test_a_policy_out_of_bounds_is_refused_by_name(wrong: dict[str, object]) -> None:
    """Wherever it was entered."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_a_setting_below_the_minimum_rate_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DLQ_RETRY_RATE", "1e-12")
    with pytest.raises(DlqError, match=r"DLQ_RETRY_RATE: .*1e-12.* is not a number") as refused:
        build_fix_terms(read_settings())
    assert refused.value.hint
