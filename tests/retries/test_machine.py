"""Whatever order things happen in: nothing is lost, nothing is released twice or too early, and every fix ends."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from dlq_pipelines import OutboxRepository
from dlq_pipelines.postgres.connect import Database
from tests.retries.machine import Retries


def play(database: Database, *, examples: int, steps: int) -> None:
    """So many histories of so many acts."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    with database.connect() as connection, OutboxRepository(database.url) as worker:
        run_state_machine_as_test(lambda: Retries(database, connection, worker), settings=chosen)


@pytest.mark.timeout(280)
def test_whatever_happens_in_whatever_order_the_invariants_hold(database: Database) -> None:
    """`make drill` plays many more."""
    play(database, examples=25, steps=25)
