"""Kills recalls and refills while workers and the archive run and people change their minds."""

from dlq_pipelines.postgres.connect import Database
from tests.retries.test_fire import stopped_at_random


def test_recall_and_refill_survive_a_hundred_kills(database: Database) -> None:
    """Fifty of each; the number of recalled events is printed."""
    recalled = stopped_at_random(database, kills=50, count=600)
    print(f"\nrecalled: {recalled} events")
    assert recalled > 100
