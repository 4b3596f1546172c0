"""A real Dagster instance with its records in a database of the test server."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_postgres import (
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines.definitions import defs
from dlq_pipelines.defs.outbox import Outbox, build_outbox
from dlq_pipelines.installation import prepare_dagster
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings, read_settings
from tests.conftest import _new_database, create_database, database_url, drop_database


def build_test_outbox(read: Callable[[], Settings], name: str | None = None) -> Outbox:
    """Build an outbox as the factory does."""
    return build_outbox(
        read, name=name, key_prefix=None, group="dead_letters", owners=(), schedules={}
    )


# The outbox without a name, as in the project's own code location.
OUTBOX = build_test_outbox(read_settings)
Job = Callable[..., dg.ExecuteInProcessResult]
CopyDagster = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def instance(
    home: Path, database: Database, copy_dagster: CopyDagster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The instance of the test's installation."""
    home.mkdir()
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")
    with copy_dagster(f"{conninfo_to_dict(database.url)['dbname']}_dagster"):
        for name, value in prepare_dagster(Settings()).items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.get() as opened:
            # Otherwise Dagster connects for each statement, which takes a third of a run's time.
            opened.optimize_for_webserver(
                statement_timeout=60_000, pool_recycle=3_600, max_overflow=20
            )
            yield opened


@pytest.fixture(scope="session")
def copy_dagster(server_url: str) -> Iterator[CopyDagster]:
    """Copy a database with Dagster's tables: Dagster takes seconds to create and stamp them."""
    with _new_database(server_url) as template:
        url = database_url(server_url, template)
        for storage in (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage):
            storage(url.replace("postgresql://", "postgresql+psycopg2://", 1)).dispose()

        @contextmanager
        def copy(name: str) -> Iterator[None]:
            create_database(server_url, name, template)
            yield
            drop_database(server_url, name)

        yield copy


@pytest.fixture
def job(instance: dg.DagsterInstance) -> Job:
    """Run a job in this process, as the daemon's run worker does in its own."""

    def run(name: str, **options: Any) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def(name).execute_in_process(
            instance=instance, raise_on_error=False, **options
        )

    return run
