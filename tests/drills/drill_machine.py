"""A thousand long histories; one that fails is made small."""

from dlq_pipelines.postgres.connect import Database
from tests.retries.test_machine import play


def test_the_invariants_hold_in_a_thousand_histories(database: Database) -> None:
    """Of fifty acts each, and a fix's end."""
    play(database, examples=1000, steps=50, shrink=True)
