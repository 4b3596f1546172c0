"""Checks `dlq migrate`: plan, check, print, apply."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.embedded.programs import find_programs
from dlq_pipelines.postgres.migrate import create_host_tables, load_migrations
from tests.cli.conftest import Run
from tests.memory import remove_data
from tests.rows import add_events, one

LABELS = [migration.name for migration in load_migrations()]
# All objects that a migration could change: relations with columns, functions, triggers.
CATALOGUE = """
    select coalesce(string_agg(o, E'\\n' order by o), '') as objects from (
        select format('%s %s %s %s', n.nspname, c.relname, a.attname, a.atttypid) from pg_class c
        join pg_namespace n on n.oid = c.relnamespace left join pg_attribute a on a.attrelid = c.oid
        union all select format('%s %s', n.nspname, p.proname) from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        union all select tgname::text from pg_trigger where not tgisinternal
    ) found (o) where o !~ '^(pg_|information_schema)'
"""


@pytest.fixture
def application(
    home: Path, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """A connection to the commands' database, which has the application's tables only."""
    monkeypatch.setenv("DLQ_DATABASE_URL", empty_database.url)
    monkeypatch.chdir(home.parent)
    with empty_database.connect() as connection:
        create_host_tables(connection)
        yield connection


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--plan"], 0, "Nothing else is pending."),
        (["--check"], 1, f"dlq: The database lacks {len(LABELS)} migrations. Run `dlq migrate`."),
        (
            ["--plan", "--check"],
            1,
            f"dlq: The database lacks {len(LABELS)} migrations. Run `dlq migrate`.",
        ),
        (["--print", "migrations"], 0, f"-- {LABELS[0]}"),
        (["--print", "migrations"], 0, f"-- {LABELS[-1]}"),
    ],
)
def test_plan_check_and_print_change_nothing(
    dlq: Run, application: Connection, arguments: list[str], code: int, line: str
) -> None:
    """Plan and check list the migrations in their order."""
    before = one(application, CATALOGUE)
    ended = dlq("migrate", *arguments)
    assert ended.code == code
    assert line in (ended.out + ended.err).splitlines()
    if "--print" not in arguments:
        assert [printed for printed in ended.out.splitlines() if printed.startswith("would")] == [
            f"would apply {x}" for x in LABELS
        ]
    assert one(application, CATALOGUE) == before


def test_migrate_applies_the_plan_once(dlq: Run, application: Connection) -> None:
    first, second = dlq("migrate"), dlq("migrate")
    assert first.err.splitlines() == [f"applying {label}" for label in LABELS]
    assert first.out == f"{len(LABELS)} applied; the database is up to date.\n"
    assert second.out == "0 applied; the database is up to date.\n"
    applied = application.execute("select name from dlq.migration order by number").fetchall()
    assert [*(row["name"] for row in applied), "outbox"] == LABELS
    assert dlq("migrate", "--check").code == dlq("migrate", "--plan").code == 0


def test_the_printed_script_creates_the_same_database_as_the_command(
    dlq: Run, application: Connection, connection: Connection
) -> None:
    psql = [
        str(find_programs() / "psql"),
        "-qXf",
        "-",
        "-d",
        application.info.dsn,
    ]
    environment = os.environ | {"PGPASSWORD": application.info.password}
    add_events(application, 2)
    application.execute("update outbox_event set status = 'dead' where id = 1")
    script = dlq("migrate", "--print", "migrations").out
    subprocess.run(psql, input=script, text=True, check=True, env=environment)
    assert dlq("migrate", "--check").out == "The database is up to date.\n"
    assert one(application, "select event_id, was_missed from dlq.death") == {
        "event_id": 1,
        "was_missed": False,
    }
    assert one(application, CATALOGUE) == one(connection, CATALOGUE)


def test_without_a_database_url_migrate_prepares_the_embedded_server(tmp_path: Path) -> None:
    """It creates the reference application's tables. The server stops after each command."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("DLQ_")
    } | {"DLQ_HOME": str(tmp_path)}

    def dlq(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "dlq"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    try:
        refused, migrated, listed = dlq("causes", "list"), dlq("migrate"), dlq("causes", "list")
        data = (tmp_path / "postgres").resolve()
        assert not (data / "postmaster.pid").exists()
    finally:
        remove_data(tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "migrate`" in refused.stderr
    assert (migrated.returncode, migrated.stderr.splitlines()[0]) == (0, f"applying {LABELS[0]}")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.startswith("No causes yet")


def test_json_lists_planned_and_applied_migrations(dlq: Run, application: Connection) -> None:
    """Stdout has JSON only."""
    assert one(application, "select to_regclass('dlq.death') as found") == {"found": None}
    planned, applied, rest = (
        dlq("migrate", *arguments, "--json")
        for arguments in (["--plan"], [], ["--plan", "--check"])
    )
    plan = json.loads(planned.out)
    assert plan["migrations"] == [{"migration": label, "applied": False} for label in LABELS]
    assert {check["outcome"] for check in plan["checks"]} <= {"ok", "warning"}
    assert sum("create or replace trigger" in statement for statement in plan["statements"]) == 4
    assert json.loads(applied.out) == {
        "migrations": [{"migration": label, "applied": True} for label in LABELS]
    }
    assert applied.err.splitlines() == [f"applying {label}" for label in LABELS]
    assert (rest.code, json.loads(rest.out)["migrations"]) == (0, [])
