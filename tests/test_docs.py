"""Tests that docs/ is true: snippets run, links resolve, and tables match the code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dlq_pipelines import OutboxEvent
from dlq_pipelines.installation import build_alert_sender
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings
from tests.api.conftest import serving
from tests.cli.test_main import _environment, _seed
from tests.reference import PAGE, render_page
from tests.rows import add_events, kill, one

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")),
]
# Other snippets need a server of their own, systemd or a cluster; other tests cover them.
RUN = ("sh", "sql", "python")
OWN_TABLE = "Use it on your own table"
_SLACK = f"T{'1' * 8}/B{'1' * 8}/{'a' * 24}"


def blocks(
    page: Path, languages: Sequence[str] = RUN, *, under: str = "", without: str = ""
) -> list[tuple[str, str]]:
    """The snippets of a page, or of one of its sections, in these languages: language and text."""
    text = page.read_text(encoding="utf-8")
    if without:
        before, _, after = text.partition(f"\n## {without}\n")
        text = f"{before}\n## {after.partition(chr(10) + '## ')[2]}"
    if under:
        text = text.partition(f"\n## {under}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def play(
    page: Path,
    database: Database,
    folder: Path,
    *,
    languages: Sequence[str] = RUN,
    under: str = "",
    without: str = "",
) -> None:
    """Run the snippets of a page, or of one of its sections, in their order."""
    (folder / "sql").symlink_to(ROOT / "sql")
    given = _environment() | {
        "DLQ_DATABASE_URL": database.url,
        "DLQ_HOME": str(folder / "dlq"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "PYTHONPATH": str(ROOT),
        "BROWSER": "true",
    }
    (folder / "dagster").mkdir()
    for language, text in blocks(page, languages, under=under, without=without):
        if language == "sql":
            with database.connect() as connection:
                for statement in text.split(";\n"):
                    connection.execute(statement.encode())
            continue
        command = (
            ["bash", "-euo", "pipefail", "-c", text]
            if language == "sh"
            else [sys.executable, "-c", text]
        )
        done = subprocess.run(
            command, env=given, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_tutorial_ends_with_a_verified_fix(empty_database: Database, tmp_path: Path) -> None:
    """On an empty database."""
    play(ROOT / "docs" / "tutorial.md", empty_database, tmp_path)
    with empty_database.connect() as connection:
        assert one(connection, "select status, stage from dlq.fix") == {
            "status": "verified",
            "stage": 2,
        }
        assert one(connection, "select count(*) from outbox_event where status = 'done'") == {
            "count": 30
        }


def test_every_how_to_guide_runs(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """On a database with every id that the page names."""
    _seed(connection)
    # Otherwise the fix that is flagged in SQL overlaps with an open one.
    connection.execute("delete from dlq.fix where id > 1")
    play(ROOT / "docs" / "how-to.md", database, tmp_path, without=OWN_TABLE)
    assert sorted(path.name for path in tmp_path.glob("deaths.*")) == ["deaths.csv", "deaths.jsonl"]
    assert one(connection, "select status from dlq.fix where id = 1") == {"status": "withdrawn"}


def test_the_guide_for_an_own_table_runs(empty_database: Database, tmp_path: Path) -> None:
    """With other names, a uuid key and an event that is dead already."""
    with empty_database.connect() as connection:
        connection.execute(
            "create table jobs (id uuid primary key default gen_random_uuid(), kind text not null,"
            " body json not null, state text not null default 'queued', tries smallint not null"
            " default 0, error text, created_at timestamptz not null default now());"
            " insert into jobs (kind, body, state, tries, error)"
            " values ('mail', '{}', 'failed', 3, 'TimeoutError: no answer')"
        )
        play(ROOT / "docs" / "how-to.md", empty_database, tmp_path, under=OWN_TABLE)
        left = "select to_regnamespace('dlq') as schema, count(*) as triggers from pg_trigger t"
        assert one(connection, f"{left} where t.tgrelid = 'jobs'::regclass") == {
            "schema": None,
            "triggers": 0,
        }
        assert one(connection, "select state, tries from jobs") == {"state": "failed", "tries": 3}


def test_the_tables_of_the_reference_are_up_to_date(connection: Connection) -> None:
    """`make docs` writes them."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == render_page(text, connection)
    assert re.findall(r"^\| `\w+` \|  \|.*$", text, re.MULTILINE) == []


def test_the_recipes_for_contributors_name_what_exists() -> None:
    """The file of each step, and the names that a step changes in it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\d\. `([\w/.]+)`: (.*?)(?=^\d\. |^$)", text, re.MULTILINE | re.DOTALL)
    assert len(steps) >= 11
    package = "".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "dlq_pipelines").rglob("*.py")
    )
    for file, does in steps:
        if "owners" in file or "min_attempts" in file:  # the example's own
            continue
        known = (ROOT / file).read_text(encoding="utf-8") + package
        for name in re.findall(r"`(?:dlq\.)?([A-Za-z_]{5,})`", does):
            assert re.search(rf"\b{name}\b", known), (file, name)


def test_the_worker_of_the_reference_delivers_and_records_failures(
    database: Database, connection: Connection
) -> None:
    """As printed, with a `deliver` that fails on every third event."""
    add_events(connection, 6)
    delivered: list[int] = []

    def deliver(event: OutboxEvent) -> None:
        if int(event.id) % 3 == 0:
            raise RuntimeError("the parcel is too heavy")
        delivered.append(int(event.id))

    ((_, text),) = blocks(PAGE, ("python",), under="OutboxRepository")
    snippet, addresses = re.subn(r'"postgresql://[^"]*"', repr(database.url), text)
    assert addresses == 1
    code = compile(snippet, "reference.md", "exec")
    exec(code, {"deliver": deliver})  # noqa: S102 - the snippet is tested

    rows = connection.execute(
        "select id, status, attempts, last_error from outbox_event order by id"
    ).fetchall()
    assert [(row["id"], row["status"], row["attempts"]) for row in rows] == [
        (n, "retry" if n % 3 == 0 else "done", 1) for n in range(1, 7)
    ]
    assert delivered == [1, 2, 4, 5]
    assert "the parcel is too heavy" in rows[2]["last_error"]
    assert 'File "reference.md"' in rows[2]["last_error"]


def test_the_snippets_about_exports_and_reports_run(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    _seed(connection)
    for name in ("Exports", "Reports"):
        (tmp_path / name).mkdir()
        play(PAGE, database, tmp_path / name, under=name)
    lines = (tmp_path / "Exports" / "redacted.json").read_text(encoding="utf-8").splitlines()
    assert len(lines) == one(connection, "select count(*) from dlq.death")["count"]
    assert (tmp_path / "Reports" / "dlq" / "reports" / "2026-11-23.html").is_file()


def test_the_channels_of_the_reference_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """With secrets of the right form in place of the dots."""
    (text,) = re.findall(
        r"^```\w*\n(export DLQ_ALERT_URLS=.*?)^```",
        PAGE.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    exports, command = (
        text.replace("whsec_...", f"whsec_{'A' * 43}=")
        .replace("token-a/token-b/token-c", _SLACK)
        .rsplit("dlq alerts test", 1)
    )
    assert command == "\n"
    shell = ["bash", "-euc", f"{exports}\nenv -0"]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    for name, _, value in (line.partition("=") for line in done.stdout.split("\0")):
        if name.startswith("DLQ_"):
            monkeypatch.setenv(name, value)
    assert len(build_alert_sender(Settings()).routes) == 4


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: apt-get install curl")
def test_the_requests_of_the_reference_succeed(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """In their order, on twenty dead events."""
    add_events(connection, 20)
    kill(connection, "TimeoutError: no answer", attempts=5)
    ((_, requests),) = blocks(PAGE, ("sh",), under="The HTTP API")
    with serving(Settings(home=tmp_path), database) as address:
        for line in requests.splitlines():
            request = line.replace("curl -s ", "curl -s --fail-with-body ")
            done = subprocess.run(
                ["bash", "-c", request],
                env=os.environ | {"API": address},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, ""), (line, done.stdout)
            assert json.loads(done.stdout).get("error") is None
    assert one(connection, "select count(*) from outbox_event where status = 'pending'") == {
        "count": 3
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_resolves(path: Path) -> None:
    """To a file, and to a heading of it."""
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", path.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings
            }, target
