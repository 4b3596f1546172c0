"""Random histories: no event is lost, none is released twice or too early, every fix ends."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.retries.machine import Retries
from tests.shapes import ShapedOutbox


def play(outbox: ShapedOutbox, *, examples: int, steps: int, shrink: bool = False) -> None:
    """Play histories of so many steps. To shrink one that fails takes minutes."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )

    class Bound(Retries):
        def __init__(self) -> None:
            super().__init__(outbox)

    run_state_machine_as_test(Bound, settings=chosen)


def test_the_invariants_hold_for_any_history(outbox: ShapedOutbox) -> None:
    """`make drill` plays many more."""
    play(outbox, examples=8, steps=25)
