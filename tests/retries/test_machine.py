"""Random histories: no event is lost, none is released twice or too early, every fix ends."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dlq_pipelines import OutboxRepository
from dlq_pipelines.postgres.connect import Database
from tests.retries.machine import Retries


def play(database: Database, *, examples: int, steps: int, shrink: bool = False) -> None:
    """Play histories of so many steps. To shrink one that fails takes minutes."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )
    with database.connect() as connection, OutboxRepository(database.url) as worker:

        class Bound(Retries):
            def __init__(self) -> None:
                super().__init__(database, connection, worker)

        run_state_machine_as_test(Bound, settings=chosen)


def test_the_invariants_hold_for_any_history(database: Database) -> None:
    """`make drill` plays many more."""
    play(database, examples=40, steps=25)
