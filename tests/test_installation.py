"""Checks the databases of an installation, and that a wheel contains every file."""

import os
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.installation import build_alert_policy, build_alert_sender, prepare_dagster
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings, build_settings
from tests.databases import with_dagster
from tests.rows import one

ROOT = Path(__file__).parents[1]
PASSWORD = "p@ss:w/ö rd%41?#&'\\"  # noqa: S105 - of a role of one test


@pytest.fixture
def url(server_url: str) -> Iterator[str]:
    """The URL of an empty database, which is dropped together with its Dagster database."""
    with with_dagster(server_url) as made:
        yield made


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Database(url).connect() as opened:
        yield opened


def _uri(parts: dict[str, str]) -> str:
    """A quoted socket folder is a valid host."""
    account, host = (
        f"{quote(parts['user'])}:{quote(PASSWORD, safe='')}",
        quote(parts["host"], safe=""),
    )
    return f"postgresql://{account}@{host}:{parts['port']}/{parts['dbname']}"


def _short_scheme(parts: dict[str, str]) -> str:
    return f"{_uri(parts).replace('postgresql://', 'postgres://')}?application_name=a%20b"


def _socket_in_query(parts: dict[str, str]) -> str:
    host, password = quote(parts["host"], safe=""), quote(PASSWORD, safe="")
    query = f"user={parts['user']}&host={host}&port={parts['port']}&password={password}"
    return f"postgresql:///{parts['dbname']}?{query}"


def _key_value(parts: dict[str, str]) -> str:
    return make_conninfo(**parts, password=PASSWORD, options="-c statement_timeout=1234")


@pytest.mark.parametrize("write", [_uri, _short_scheme, _socket_in_query, _key_value])
def test_dagster_connects_with_every_form_of_the_database_url(
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[dict[str, str]], str],
) -> None:
    """Through SQLAlchemy and psycopg2, with the same account, password and options."""
    info = connection.info
    with _role(connection, "createdb", PASSWORD) as role:
        given = write(
            {"user": role, "host": info.host, "port": str(info.port), "dbname": info.dbname}
        )
        monkeypatch.setenv("DLQ_DATABASE_URL", given)
        monkeypatch.setenv("DLQ_HOME", str(tmp_path))
        environment = prepare_dagster(Settings())
        assert (
            prepare_dagster(Settings()) == environment
        )  # the second call finds the database of the first
        engine = sqlalchemy.create_engine(environment["DLQ_DAGSTER_URL"])
        with engine.connect() as opened:
            raw = opened.connection.dbapi_connection
            found = opened.exec_driver_sql(
                "select current_database(), current_user, current_setting('statement_timeout')"
            )
            name, user, timeout = found.one()
            assert raw is not None
            assert raw.info.password == PASSWORD
        engine.dispose()
        _drop_dagster(connection)
    assert engine.dialect.driver == "psycopg2"
    assert (name, user) == (f"{info.dbname}_dagster", role)
    assert (timeout == "1234ms") == ("options" in conninfo_to_dict(given))
    assert environment["DAGSTER_HOME"] == str(tmp_path / "dagster")
    assert "password" not in (tmp_path / "dagster" / "dagster.yaml").read_text()


def test_the_error_of_a_role_without_createdb_has_the_statement_for_an_administrator(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an administrator has run the statement, the role can use the database."""
    with _role(connection, "nocreatedb", connection.info.password) as role:
        monkeypatch.setenv(
            "DLQ_DATABASE_URL",
            make_conninfo(connection.info.dsn, user=role, password=connection.info.password),
        )
        monkeypatch.setenv("DLQ_HOME", str(tmp_path))
        with pytest.raises(
            DatabaseUnavailableError, match=r"this role may not create\. As an administrator, run: "
        ) as raised:
            prepare_dagster(Settings())
        statement = raised.value.hint.partition("run: ")[2]
        connection.execute(statement.encode())
        assert prepare_dagster(Settings())["DLQ_DAGSTER_URL"].startswith("postgresql+psycopg2://")
        owner = one(
            connection,
            "select pg_get_userbyid(datdba) as name from pg_database"
            " where datname = current_database() || '_dagster'",
        )
        _drop_dagster(connection)
    assert owner == {"name": role}


def test_a_wheel_has_every_file_and_works_in_any_folder(database: Database, tmp_path: Path) -> None:
    """Unpacked elsewhere it finds SQL, workspace and templates."""
    built, unpacked = tmp_path / "built", tmp_path / "unpacked"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = built.iterdir()
    zipfile.ZipFile(wheel).extractall(unpacked)

    for folder, inside in (("dlq_pipelines", "dlq_pipelines"), ("sql", "dlq_pipelines/sql")):
        sources = {
            file.relative_to(ROOT / folder)
            for file in (ROOT / folder).rglob("*.*")
            if "__pycache__" not in file.parts
        }
        assert {file for file in sources if not (unpacked / inside / file).is_file()} == set()
    environment = os.environ | {
        "PYTHONPATH": str(unpacked),
        "DLQ_DATABASE_URL": database.url,
        "DLQ_HOME": str(tmp_path / "home"),
    }

    def python(code: str, *arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    main = "from dlq_pipelines.cli.main import main; main()"
    assert "migrate" in python(main, "--help")
    assert python(main, "migrate", "--plan").endswith("The database is up to date.\n")
    places = (
        "import dlq_pipelines.serving as s, dlq_pipelines.definitions as d\n"
        "print(s._WORKSPACE, d.__file__)"
    )
    assert python(places).split() == [
        str(unpacked / "dlq_pipelines" / name) for name in ("workspace.yaml", "definitions.py")
    ]


@contextmanager
def _role(connection: Connection, right: str, password: str) -> Iterator[str]:
    name = f"Role-{uuid.uuid4().hex[:8]}"
    connection.execute(
        sql.SQL("create role {} login {} password {}").format(
            sql.Identifier(name), sql.SQL(right), password
        )
    )
    try:
        yield name
    finally:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def _drop_dagster(connection: Connection) -> None:
    """Drop the database, so that its owner can be dropped."""
    connection.execute(f"drop database {connection.info.dbname}_dagster with (force)".encode())


def test_alerts_have_the_name_and_the_days_of_their_outbox() -> None:
    """And the owners of its routes."""
    settings = build_settings(
        {
            "name": "orders",
            "timezone": "Europe/Berlin",
            "alert_urls": "warning:owner=payments:json://localhost",
        }
    )
    sender, policy = build_alert_sender(settings), build_alert_policy(settings)
    assert (sender.outbox, policy.zone) == ("orders", settings.zone)
    assert [route.owners for route in policy.routes] == ["payments"]
    assert build_alert_sender(build_settings({})).outbox is None
