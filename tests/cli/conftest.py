"""The command line as a person meets it: `main()` with arguments, and what came of it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlq_pipelines.cli.main import main


@dataclass(frozen=True)
class Ended:
    """A command's exit code and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def dlq(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, on `home`; an exception that leaves `main()` fails the test."""
    monkeypatch.chdir(home.parent)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dlq", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run
