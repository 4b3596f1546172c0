"""Checks that long work reports its progress on stderr, and quick work does not."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.cli import progress
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run
from tests.rows import date_deaths_by_due_times, park


class Clock:
    """A clock that moves on by `step` seconds with each look at it."""

    def __init__(self, step: float) -> None:
        self.step, self.now = step, 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def _add_dead_events(connection: Connection) -> None:
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " last_error, next_run_at) select 'order', n::text, 'e', '{}', 'dead', 'KeyError: 1',"
        " now() - interval '40 days' from generate_series(1, 3) n"
    )
    date_deaths_by_due_times(connection)


LONG_WORK = (
    ("archive run", ["Archive: 3 events"]),
    (
        "archive restore --all --reason x",
        ["Counting the events to restore: 3 events", "Restore: 3 events"],
    ),
    (
        "dead-events discard --all --reason x",
        ["Counting the events to discard: 3 events", "Discard: 3 events"],
    ),
    (
        "erase --event 1 --event 2 --reason x --dry-run",
        ["Erase: 1 of 2 events", "Erase: 2 of 2 events"],
    ),
    ("archive restore 1 2 3 --reason x --yes", ["Restore: 3 events"]),
    (
        "dead-events retry-batch 1 2 --reason x",
        ["Counting the events to retry: 2 events", "Retry: 2 events"],
    ),
    (
        "fixes release-parked --all --reason x",
        ["Counting the events to retry: 1 event", "Retry: 1 event"],
    ),
    ("reports build --days 2", ["Build: 1 of 2 reports", "Build: 2 of 2 reports"]),
    ("dead-events export --output deaths.json", ["Reading: 6 deaths"]),
    ("causes classify", ["Classify: 3 deaths"]),
)


def test_long_work_prints_its_progress_every_ten_seconds(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLQ_ARCHIVE_REQUIRES_EXPORT", "false")
    monkeypatch.setattr(progress, "time", Clock(step=10.0))
    _add_dead_events(connection)
    for line, expected in LONG_WORK:
        if "release" in line:
            park(connection, [3])
            classify_deaths(connection, zone=ZoneInfo("UTC"))
        if "classify" in line:
            _add_dead_events(connection)
        ended = dlq(*line.split())
        assert ended.code == 0, ended
        printed = [text for text in ended.err.splitlines() if text.endswith(" so far")]
        assert printed == [f"{text} so far" for text in expected]
        assert "so far" not in ended.out


def test_quick_work_prints_no_progress_in_a_pipe(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "time", Clock(step=0.001))
    _add_dead_events(connection)
    assert dlq("dead-events", "retry-batch", "--all", "--reason", "x").err == ""


@pytest.mark.usefixtures("home")
def test_a_terminal_shows_one_line_that_is_erased_at_the_end(connection: Connection) -> None:
    _add_dead_events(connection)
    ours, theirs = pty.openpty()
    program = str(Path(sys.executable).parent / "dlq")
    command = [program, "dead-events", "retry-batch", "--all", "--reason", "x", "--json"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=theirs, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "Retry" in shown
    assert shown.rstrip().endswith("\x1b[2K")
    assert b"Retry" not in done.stdout
