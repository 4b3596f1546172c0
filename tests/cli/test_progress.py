"""Does long work say how far it is, on stderr alone, and quick work nothing?"""

import os
import pty
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run
from tests.rows import park


def _die(connection: Connection) -> None:
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error, dead_at)"
        " select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1', now() - interval '40 days'"
        " from generate_series(1, 3) n"
    )


WORK = (
    ("archive run", ["Archive: 3 events so far"]),
    (
        "archive restore --all --reason x",
        ["Looking what to restore: 3 events so far", "Restore: 3 events so far"],
    ),
    (
        "dead-events discard --all --reason x",
        ["Looking what to discard: 3 events so far", "Discard: 3 events so far"],
    ),
    ("archive restore 1 2 3 --reason x --yes", ["Restore: 3 events so far"]),
    (
        "dead-events retry-batch 1 2 --reason x",
        ["Looking what to retry: 2 events so far", "Retry: 2 events so far"],
    ),
    (
        "fixes release-parked --all --reason x",
        ["Looking what to retry: 1 event so far", "Retry: 1 event so far"],
    ),
    ("causes reindex", ["Reading the ledger: 6 deaths so far"]),
    ("reports build --days 2", ["Build: 1 of 2 reports so far", "Build: 2 of 2 reports so far"]),
    ("dead-events export --output deaths.json", ["Reading: 6 deaths so far"]),
)


def test_long_work_says_now_and_then_how_far_it_is(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ten seconds; here at once, so that quick work shows what it would say."""
    monkeypatch.setenv("DLQ_ARCHIVE_REQUIRES_EXPORT", "false")
    _die(connection)
    for line, said in WORK:
        if "release" in line:
            park(connection, [3])
            classify_deaths(connection, zone=ZoneInfo("UTC"))
        monkeypatch.setattr("dlq_pipelines.cli.progress._SECONDS_BETWEEN", 0.0)
        ended = dlq(*line.split())
        assert ended.code == 0, ended
        assert [told for told in ended.err.splitlines() if told.endswith("so far")] == said
        assert "so far" not in ended.out


def test_quick_work_says_nothing_where_it_is_piped(dlq: Run, connection: Connection) -> None:
    _die(connection)
    assert dlq("dead-events", "retry-batch", "--all", "--reason", "x").err == ""


@pytest.mark.usefixtures("home")
def test_on_a_terminal_it_is_one_line_that_is_gone_at_the_end(connection: Connection) -> None:
    _die(connection)
    ours, theirs = pty.openpty()
    command = [
        Path(sys.executable).parent / "dlq",
        "dead-events",
        "retry-batch",
        "--all",
        "--reason",
        "x",
        "--json",
    ]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=theirs, check=True
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert "Retry" in said
    assert said.rstrip().endswith("\x1b[2K")
    assert b"Retry" not in done.stdout
