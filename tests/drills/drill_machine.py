"""A thousand long histories; one that fails is made small."""

from tests.retries.test_machine import play
from tests.shapes import ShapedOutbox


def test_the_invariants_hold_in_a_thousand_histories(outbox: ShapedOutbox) -> None:
    """Of fifty acts each, and a fix's end; a third of the histories for each shape."""
    play(outbox, examples=334, steps=50, shrink=True)
