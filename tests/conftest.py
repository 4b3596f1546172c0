"""Provides a real PostgreSQL: a server per session, and a clone of a migrated database per test.

The server is that of `DLQ_TEST_DATABASE_URL`, whose role can create databases, or else an embedded
one. Its data are in memory if there is room: a clone is six hundred files, which some disks take a
third of a second to create.
"""

import functools
import gc
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.embedded import start_server
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.memory import home_in_memory, remove_data
from tests.shapes import (
    REFERENCE,
    SHAPES,
    OutboxShape,
    ShapedOutbox,
    install_other_shape,
    name_database,
)

# While modules are imported, next to nothing becomes garbage: looking for it takes a quarter of the
# time of each worker's collection.
gc.disable()

# No generated test depends on the speed of the machine.
settings.register_profile("dlq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dlq")


def pytest_configure(config: pytest.Config) -> None:
    """Create the home of the server before pytest-xdist starts the workers that share it."""
    if (
        not {"PYTEST_XDIST_WORKER", "DLQ_TEST_DATABASE_URL"} & os.environ.keys()
        and not config.option.collectonly
    ):
        os.environ[_HOME] = str(home_in_memory())


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The connection string of a role that can create databases."""
    given = os.environ.get("DLQ_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with start_server(Path(os.environ[_HOME])) as server:
        yield server.url("postgres")


_HOME = "DLQ_TEST_HOME"


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Collect garbage from now on, and never look again at what was imported."""
    gc.freeze()
    gc.enable()


# The files that take longest. If one started last, only one worker would be busy at the end.
_SLOWEST = (
    "defs/test_ui",
    "retries/test_fire",
    "demo/test_demo",
    "cli/test_main",
    "cli/test_examples",
    "defs/test_celery",
    "tests/test_guide",
    "tests/test_docs",
    "tests/test_readme",
    "archive/test_fire",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the slowest files to the front; the others keep their order."""
    places = {name: place for place, name in enumerate(_SLOWEST)}
    items.sort(
        key=lambda item: places.get("/".join(item.path.with_suffix("").parts[-2:]), len(_SLOWEST))
    )


# Runs last: after pytest-xdist has ended its workers, and the last worker the server.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the data of servers outside of the temporary folder of pytest."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    # os.walk skips files that ending processes delete meanwhile.
    for folder, names, _ in os.walk(session.config._tmp_path_factory.getbasetemp()):  # type: ignore[attr-defined]
        if "postgres" in names and Path(folder, "postgres").is_symlink():
            remove_data(Path(folder))
    if _HOME in os.environ:
        shutil.rmtree(Path(os.environ[_HOME]).parent, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a database with the application's tables and all migrations."""
    with _new_database(server_url) as name:
        with Database(database_url(server_url, name)).connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
        yield name


@pytest.fixture
def empty_database(server_url: str) -> Iterator[Database]:
    """An empty database."""
    with _new_database(server_url) as name:
        yield Database(database_url(server_url, name))


@pytest.fixture
def database(server_url: str, template: str) -> Iterator[Database]:
    """A migrated database for one test."""
    with _new_database(server_url, template) as name:
        yield Database(database_url(server_url, name))


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """An open connection to `database`, in autocommit mode."""
    with database.connect() as opened:
        yield opened


@pytest.fixture(scope="session")
def find_template(
    request: pytest.FixtureRequest, server_url: str
) -> Iterator[Callable[[OutboxShape], str]]:
    """A function that returns the database to clone for a shape, installed at its first use."""
    names: dict[str, str] = {}
    with ExitStack() as databases:

        def find(shape: OutboxShape) -> str:
            if shape is REFERENCE:
                return str(request.getfixturevalue("template"))
            if shape.name not in names:
                name = databases.enter_context(_new_database(server_url))
                install_other_shape(database_url(server_url, name), shape)
                names[shape.name] = name
            return names[shape.name]

        yield find


@pytest.fixture(scope="session")
def open_outbox(
    server_url: str, find_template: Callable[[OutboxShape], str]
) -> Callable[[OutboxShape], AbstractContextManager[ShapedOutbox]]:
    """A function that opens a new outbox of a shape, for fixtures that several tests share."""

    @contextmanager
    def open_new(shape: OutboxShape) -> Iterator[ShapedOutbox]:
        with _new_database(server_url, find_template(shape)) as name:
            database = name_database(database_url(server_url, name), shape)
            with database.connect() as opened:
                yield ShapedOutbox(shape, database, opened)

    return open_new


@pytest.fixture(params=SHAPES)
def outbox(
    request: pytest.FixtureRequest,
    open_outbox: Callable[[OutboxShape], AbstractContextManager[ShapedOutbox]],
) -> Iterator[ShapedOutbox]:
    """An installed outbox for one test, which runs for each shape."""
    with open_outbox(SHAPES[request.param]) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Path:
    """A `DLQ_HOME`, with the environment variables of `database`."""
    folder = tmp_path / "dlq"
    monkeypatch.setenv("DLQ_HOME", str(folder))
    monkeypatch.setenv("DLQ_DATABASE_URL", database.url)
    return folder


def database_url(server_url: str, name: str) -> str:
    """Return the URI of a database of the server; SQLAlchemy does not read key=value strings."""
    parts = conninfo_to_dict(server_url)
    host = str(parts.get("host") or "")
    account = str(parts.get("user") or "postgres") + (
        f":{parts['password']}" if parts.get("password") else ""
    )
    if host.startswith("/"):
        return f"postgresql://{account}@/{name}?host={host}" + (
            f"&port={parts['port']}" if "port" in parts else ""
        )
    return f"postgresql://{account}@{host}:{parts.get('port') or 5432}/{name}"


class _new_database:  # noqa: N801 - used like a function
    """Context manager that creates a database and drops it at the end."""

    def __init__(self, server_url: str, template: str = "template1") -> None:
        self.server_url, self.template = server_url, template
        self.name = f"dlq_test_{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> str:
        create_database(self.server_url, self.name, self.template)
        return self.name

    def __exit__(self, *_: object) -> None:
        drop_database(self.server_url, self.name)


def create_database(server_url: str, name: str, template: str) -> None:
    """Copy a database file by file, which takes a quarter of the time of a copy through the log."""
    # PostgreSQL 14 knows no other way.
    version = _administer(server_url).info.server_version
    strategy = "" if version < 150000 else " strategy file_copy"
    _administer(server_url).execute(
        sql.SQL(f"create database {{}} template {{}}{strategy}").format(
            sql.Identifier(name), sql.Identifier(template)
        )
    )


def drop_database(server_url: str, name: str) -> None:
    """Drop a database and end the sessions that still use it."""
    statement = "drop database if exists {} with (force)"
    _administer(server_url).execute(sql.SQL(statement).format(sql.Identifier(name)))


@functools.cache
def _administer(server_url: str) -> psycopg.Connection:
    """One connection for all tests of a worker: each new one would take as long as a copy."""
    return psycopg.connect(make_conninfo(server_url), autocommit=True)
