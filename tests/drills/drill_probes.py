"""Kills probes while workers fail and while the failure passes, with a fix of a person."""

from dlq_pipelines.postgres.connect import Database
from tests.retries.test_fire import probed_at_random


def test_probes_survive_a_hundred_kills(database: Database) -> None:
    """The number of events that probes released is printed."""
    released = probed_at_random(database, kills=100, count=300)
    print(f"\nreleased by probes: {released} events")
    assert released > 10
