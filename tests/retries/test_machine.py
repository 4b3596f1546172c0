"""Whatever order things happen in: nothing is lost, nothing is released twice or too early, and every fix ends."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dlq_pipelines import OutboxRepository
from dlq_pipelines.postgres.connect import Database
from tests.retries.machine import Retries


def play(database: Database, *, examples: int, steps: int, shrink: bool = False) -> None:
    """So many histories of so many acts. One that fails is shown as it was, or made smaller, which takes minutes."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )
    with database.connect() as connection, OutboxRepository(database.url) as worker:
        run_state_machine_as_test(lambda: Retries(database, connection, worker), settings=chosen)


def test_whatever_happens_in_whatever_order_the_invariants_hold(database: Database) -> None:
    """`make drill` plays many more."""
    play(database, examples=40, steps=25)
