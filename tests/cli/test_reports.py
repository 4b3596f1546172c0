"""Checks `dlq reports`: build, show, open."""

import json
import re
import stat
from pathlib import Path

import pytest

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import unescape_markdown
from tests.cli.conftest import Run
from tests.reports import story


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_TIMEZONE", "Europe/Berlin")


def test_building_twice_writes_the_same_files(dlq: Run, connection: Connection, home: Path) -> None:
    """The files of each day, and the list of reports."""
    story.create_story(connection)
    first = dlq("reports", "build", "--day", "2026-11-20", "--days", "2", "--json")
    assert first.code == 0, first.err
    rows = json.loads(first.out)["reports"]
    assert [row["day"] for row in rows] == ["2026-11-19", "2026-11-20"]
    assert rows[1]["headline"].startswith("167 events died on 2026-11-20")
    files = {file.name: file.read_bytes() for file in (home / "reports").iterdir()}
    assert {
        "2026-11-19.html",
        "2026-11-20.html",
        "2026-11-20.md",
        "2026-11-20.json",
        "index.html",
    } <= files.keys()
    assert dlq("reports", "build", "--day", "2026-11-20", "--days", "2").code == 0
    assert {file.name: file.read_bytes() for file in (home / "reports").iterdir()} == files


def test_a_dry_run_lists_the_files_and_writes_none(
    dlq: Run, connection: Connection, home: Path
) -> None:
    """With the days, headlines, places and refusals of a real run."""
    story.create_story(connection)
    command = ("reports", "build", "--day", "2026-11-20", "--days", "2")
    would = json.loads(dlq(*command, "--dry-run", "--json").out)["reports"]
    assert not (home / "reports").exists()
    assert connection.execute("select from dlq.report_day").fetchall() == []
    printed = dlq(*command, "--dry-run").out
    assert f"{home}/reports/2026-11-20.md, {home}/reports/2026-11-20.json" in printed

    done = json.loads(dlq(*command, "--json").out)["reports"]
    assert [row | {"dry_run": True} for row in done] == would
    assert all(Path(file).is_file() for row in done for file in row["files"])
    assert dlq("reports", "build", "--day", "2999-01-01", "--dry-run").code == 4


def test_reports_are_written_to_the_uri_of_the_settings(
    dlq: Run, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The redaction of exports applies to them."""
    story.create_story(connection)
    monkeypatch.setenv("DLQ_REPORT_URI", (tmp_path / "elsewhere").as_uri())
    monkeypatch.setenv("DLQ_EXPORT_REDACT_ERRORS", r"stock\.internal:\d+")
    assert dlq("reports", "build", "--day", "2026-11-20").code == 0
    page = (tmp_path / "elsewhere" / "2026-11-20.html").read_text(encoding="utf-8")
    assert "Connection refused: [redacted]" in page
    assert "stock.internal" not in page


def test_show_writes_no_file(dlq: Run, connection: Connection, home: Path) -> None:
    """It prints plain text in a pipe, or Markdown or JSON."""
    story.create_story(connection)
    shown = dlq("reports", "show", "--day", "2026-11-20")
    assert (shown.code, shown.out.splitlines()[0]) == (0, "# 2026-11-20")
    assert "| 1 | escalating | 98 | ConnectionRefusedError: " in shown.out
    assert "KeyError: 'address_<text>'" in shown.out or "<" in shown.out
    assert not re.search(r"&#\d+;|\\[^\s]|\u200b", shown.out)
    markdown = dlq("reports", "show", "--day", "2026-11-20", "--format", "markdown").out
    assert re.search(r"&#\d+;", markdown)
    assert unescape_markdown(markdown) == shown.out
    refused = dlq("reports", "show", "--json", "--format", "markdown")
    assert (refused.code, refused.out) == (2, "")
    as_json = dlq("reports", "show", "--day", "2026-11-20", "--json")
    assert json.loads(as_json.out)["totals"]["deaths"] == 167
    assert as_json.err == ""
    assert not (home / "reports").exists()


def test_open_starts_the_browser(
    dlq: Run, connection: Connection, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$BROWSER gets the page, which is built first if it does not exist."""
    story.create_story(connection)
    called, browser = tmp_path / "called", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {called}\n', encoding="utf-8")
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(
        "webbrowser._tryorder", None
    )  # the module caches the browsers that it has found
    monkeypatch.setenv("BROWSER", str(browser))
    opened = dlq("reports", "open", "--day", "2026-11-20")
    page = home / "reports" / "2026-11-20.html"
    assert (opened.code, opened.out) == (0, f"{page}\n"), opened.err
    assert called.read_text(encoding="utf-8").strip() == page.as_uri()


@pytest.mark.usefixtures("home", "connection")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["open", "--day", "2999-01-01"], 4, "2999-01-01 is not over yet"),
        (
            ["show", "--day", "yesterday"],
            2,
            "--day: 'yesterday' is not a day. Write it as 2026-11-24.",
        ),
        (["build", "--day", "2999-01-01"], 4, "2999-01-01 is not over yet"),
        (["build", "--days", "0"], 2, ""),
        (["show", "--day", "9999-12-31"], 2, "9999-12-31 lies outside the years 1900 to 9000."),
        (["build", "--day", "0001-01-01", "--days", "366"], 2, "0001-01-01 lies outside the years"),
        (["open", "--day", "0001-01-01"], 2, "0001-01-01 lies outside the years"),
    ],
)
def test_an_invalid_day_is_an_error(
    dlq: Run, arguments: list[str], code: int, message: str
) -> None:
    ended = dlq("reports", *arguments)
    assert ended.code == code
    assert message in ended.err
