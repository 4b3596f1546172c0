"""Runs the command line in the test's process, on dead events of one cause."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.cli import progress
from dlq_pipelines.cli.main import main
from dlq_pipelines.postgres.connect import Connection
from tests.rows import add_events, kill

ERROR = (
    'Traceback (most recent call last):\n  File "a.py", line 1, in send\nTimeoutError: no answer'
)
CAUSE = compute_cause_id(ERROR)


@dataclass(frozen=True)
class Ended:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


def add_dead_events(
    connection: Connection, count: int, *, error: str = ERROR, event_type: str = "order.placed"
) -> None:
    """Add dead events and classify them."""
    add_events(connection, count, payload='{"sku": "A-1"}', event_type=event_type)
    kill(connection, error, attempts=5, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def read_json(ended: Ended) -> dict[str, Any]:
    """Return the JSON that a command printed."""
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.isascii()
    answer: dict[str, Any] = json.loads(ended.out)
    return answer


def read_words(ended: Ended) -> str:
    """Return what a command printed, in one line of single spaces."""
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.expandtabs().replace("\n", "").isprintable()
    return " ".join(ended.out.split())


def stop_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of progress, which prints a line if a command takes ten seconds."""
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))


def _build_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command; an exception that leaves `main()` fails the test."""
    stop_progress(monkeypatch)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dlq", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture
def dlq(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command on `home`."""
    monkeypatch.chdir(home.parent)
    return _build_run(monkeypatch, capsys)


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command which needs no database."""
    return _build_run(monkeypatch, capsys)
