"""A real Dagster instance with its records in a database of the test server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dlq_pipelines.definitions import defs
from dlq_pipelines.installation import prepare_dagster
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings

Job = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def instance(
    home: Path, database: Database, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The instance of the test's installation."""
    home.mkdir()
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")
    for name, value in prepare_dagster(Settings()).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as opened:
        yield opened
    name = str(psycopg.conninfo.conninfo_to_dict(database.url)["dbname"])
    with psycopg.connect(make_conninfo(server_url), autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop database {} with (force)").format(sql.Identifier(f"{name}_dagster"))
        )


@pytest.fixture
def job(instance: dg.DagsterInstance) -> Job:
    """Run a job in this process, as the daemon's run worker does in its own."""

    def run(name: str, **options: Any) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def(name).execute_in_process(
            instance=instance, raise_on_error=False, **options
        )

    return run
