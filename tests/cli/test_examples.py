"""Runs the examples of the help texts."""

import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.alerts.servers import Received, http_server
from tests.cli.conftest import Ended, Run
from tests.cli.test_main import LONG, _build_psql_environment, _environment, _seed, examples
from tests.conftest import _new_database, database_url


@pytest.fixture
def web() -> Iterator[Received]:
    """A channel that receives alerts."""
    with http_server() as received:
        yield received


@pytest.fixture(scope="module")
def template(server_url: str, template: str) -> Iterator[str]:
    """A database with causes, fixes and all that examples name, which each test copies."""
    with _new_database(server_url, template) as name:
        with Database(database_url(server_url, name)).connect() as connection:
            _seed(connection)
        yield name


@pytest.mark.parametrize("example", [line for line in examples() if not line.startswith(LONG)])
def test_every_example_of_the_help_runs(
    request: pytest.FixtureRequest,
    dlq: Run,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    web: Received,
    example: str,
) -> None:
    """On a database with causes and fixes; scripts for psql on a new database.

    In a shell if it has a pipe or a redirection, or opens a program.
    """
    monkeypatch.setenv("DLQ_ALERT_URLS", f"json://{web.host}/")
    if re.fullmatch(r"[\w ./:=,\"-]+", example) and not example.startswith("dlq reports open"):
        ended = dlq(*shlex.split(example)[1:])
    else:
        environment = _environment()
        if "roles" in example:
            environment |= _build_psql_environment(connection)
        elif "psql" in example:
            with request.getfixturevalue("empty_database").connect() as empty:
                create_host_tables(empty)
                environment |= _build_psql_environment(empty)
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {example}"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr)
    # On stderr an export prints its count, a list its next cursor, and slow work its progress.
    expected = r"^(([\d,]+ deaths to|There may be more:) .*|.* so far)\n"
    rest = re.sub(expected, "", ended.err, flags=re.MULTILINE)
    # What a proposal offers, and the next command.
    rest = "" if example.startswith(("dlq adopt", "dlq try")) else rest
    assert (ended.code, rest) == (0, "")
