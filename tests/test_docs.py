"""Does docs/ tell the truth? Its snippets run, its links lead somewhere, what it takes from the code is the code's."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dlq_pipelines.installation import build_alert_sender
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings
from tests.api.conftest import serving
from tests.cli.test_main import _environment, _seed
from tests.reference import PAGE, page
from tests.rows import add_events, kill, one

ROOT = Path(__file__).parents[1]
PAGES = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "deploy" / "README.md"]
# What needs a server of its own, systemd, or a cluster is shown, and tested where it belongs.
RUN = ("sh", "sql", "python")
_SLACK = f"T{'1' * 8}/B{'1' * 8}/{'a' * 24}"


def blocks(page: Path, languages: Sequence[str] = RUN, *, under: str = "") -> list[tuple[str, str]]:
    """Snippets of a page, or under one of its headings, that are to be run: language and text, in their order."""
    text = page.read_text(encoding="utf-8")
    if under:
        text = text.partition(f"\n## {under}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def play(
    page: Path, database: Database, folder: Path, *, languages: Sequence[str] = RUN, under: str = ""
) -> None:
    """Run the snippets of a page, or under one of its headings, one after the other, as a reader would."""
    (folder / "sql").symlink_to(ROOT / "sql")
    given = _environment() | {
        "DLQ_DATABASE_URL": database.url,
        "DLQ_HOME": str(folder / "dlq"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "PYTHONPATH": str(ROOT),
        "BROWSER": "true",
    }
    (folder / "dagster").mkdir()
    for language, text in blocks(page, languages, under=under):
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


def test_the_tutorial_leads_from_nothing_to_a_fix_that_is_verified(
    empty_database: Database, tmp_path: Path
) -> None:
    """On an empty database, with the program's own commands and a worker of the reader's."""
    play(ROOT / "docs" / "tutorial.md", empty_database, tmp_path)
    with empty_database.connect() as connection:
        assert one(connection, "select status, stage from dlq.fix") == {
            "status": "verified",
            "stage": 2,
        }
        assert one(connection, "select count(*) from outbox_event where status = 'done'") == {
            "count": 30
        }


def test_every_answer_of_the_how_to_works(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """On a database that has what the page names."""
    _seed(connection)
    # A fix of a team that flags with SQL must not meet one that is open already.
    connection.execute("delete from dlq.fix where id > 1")
    play(ROOT / "docs" / "how-to.md", database, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("deaths.*")) == ["deaths.csv", "deaths.jsonl"]
    assert one(connection, "select status from dlq.fix where id = 1") == {"status": "withdrawn"}


def test_the_tables_of_the_reference_are_those_of_the_program(connection: Connection) -> None:
    """`make docs` writes them."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text, connection)
    assert re.findall(r"^\| `\w+` \|  \|.*$", text, re.MULTILINE) == []


def test_what_the_reference_says_of_files_works(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """Rules of what to hide, and the reports of a day."""
    _seed(connection)
    for name in ("Exports", "Reports"):
        (tmp_path / name).mkdir()
        play(PAGE, database, tmp_path / name, under=name)
    lines = (tmp_path / "Exports" / "redacted.json").read_text(encoding="utf-8").splitlines()
    assert len(lines) == one(connection, "select count(*) from dlq.death")["count"]
    assert (tmp_path / "Reports" / "dlq" / "reports" / "2026-11-23.html").is_file()


def test_the_channels_of_the_reference_are_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as they are written, with secrets of the right form where the page has none."""
    (text,) = re.findall(
        r"^```\w*\n(export DLQ_ALERT_URLS=.*?)^```",
        PAGE.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    exports, said = (
        text.replace("whsec_...", f"whsec_{'A' * 43}=")
        .replace("token-a/token-b/token-c", _SLACK)
        .rsplit("dlq alerts test", 1)
    )
    assert said == "\n"
    shell = ["bash", "-euc", f"{exports}\nenv -0"]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    for name, _, value in (line.partition("=") for line in done.stdout.split("\0")):
        if name.startswith("DLQ_"):
            monkeypatch.setenv(name, value)
    assert len(build_alert_sender(Settings()).routes) == 4


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: apt-get install curl")
def test_the_requests_of_the_reference_are_answered(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """As they are typed, one after the other, on twenty dead events."""
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
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    """And to a heading of it."""
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", path.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings
            }, target
