"""Tables for people, TSV for pipes, JSON and CSV for programs: do all say the same, and none what a stranger wants?"""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run
from tests.rows import add_events, kill

DLQ = Path(sys.executable).parent / "dlq"
HOSTILE = "=cmd|'/c calc'!A1\t\x1b[2J\n\u202e"


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Three dead events, one with a type that terminals and spreadsheets would obey."""
    add_events(connection, 2, payload='{"sku": "A-1"}')
    add_events(connection, 1, event_type=HOSTILE)
    kill(connection, "KeyError: 'sku'", attempts=5)
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def _on_a_terminal(*arguments: str) -> str:
    """What the program writes where its output is a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    running = subprocess.Popen([DLQ, *arguments], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += (chunk := os.read(ours, 4096))
        except OSError:  # nobody writes any more
            break
        if not chunk:
            break
    os.close(ours)
    assert running.wait(30) == 0
    return said.decode()


def test_a_terminal_gets_columns_and_a_pipe_gets_tabs(dlq: Run) -> None:
    """The same cells; piped, `cut -f` takes them apart."""
    piped = dlq("dead-events", "list", "--limit", "2").out
    lines = [line.split("\t") for line in piped.splitlines()]
    assert [len(line) for line in lines] == [7, 7, 7]
    assert lines[0] == ["event", "died", "type", "aggregate", "attempts", "cause", "of"]
    assert [line[0] for line in lines[1:]] == ["3", "2"]
    assert "\x1b" not in piped
    shown = _on_a_terminal("dead-events", "list", "--limit", "2")
    assert "\t" not in shown
    assert all(cell in shown for line in lines for cell in line)


def test_json_and_csv_have_all_fields_and_the_same_values(dlq: Run) -> None:
    """`--json` is `--format json`; a cell that a spreadsheet would run has an apostrophe before it."""
    said = dlq("dead-events", "list", "--json")
    assert said.out == dlq("dead-events", "list", "--format", "json").out
    rows: list[dict[str, Any]] = json.loads(said.out)["events"]
    table = list(csv.DictReader(io.StringIO(dlq("dead-events", "list", "--format", "csv").out)))
    assert [list(row) for row in rows] == [list(row) for row in table]
    for row, cells in zip(rows, table, strict=True):
        assert (str(row["id"]), row["payload"], str(row["dead_at"])) == (
            cells["id"], json.loads(cells["payload"]), cells["dead_at"],
        )  # fmt: skip
    assert (rows[0]["event_type"], table[0]["event_type"]) == (HOSTILE, f"'{HOSTILE}")


def test_a_list_goes_on_where_it_said(dlq: Run) -> None:
    """In JSON the place is in the answer, as over HTTP; a table or CSV has rows alone, and it is said beside them."""
    said = dlq("dead-events", "list", "--limit", "2", "--json")
    first = json.loads(said.out)
    rest = json.loads(dlq("dead-events", "list", "--limit", "2", "--after", first["next"], "--json").out)
    assert [row["id"] for part in (first, rest) for row in part["events"]] == [3, 2, 1]
    assert (rest["next"], said.err) == (None, "")
    assert dlq("dead-events", "list", "--limit", "2").err == f"There are more: --after {first['next']}\n"
    assert dlq("dead-events", "list", "--after", "nonsense").code == 2
    assert dlq("dead-events", "list", "--event-type", "nobody's").out == "Nothing is dead.\n"


@pytest.mark.parametrize(
    ("listed", "first"),
    [
        (["dead-events", "list", "--event-type", "nobody's"], "id,aggregate_type,"),
        (["fixes", "list"], "id,selector,"),
        (["fixes", "parked"], "event_id,"),
        (["alerts", "list"], "key,rule,"),
        (["alerts", "list", "--channels"], "id,waiting,"),
    ],
    ids=" ".join,
)
def test_csv_of_nothing_has_its_header(dlq: Run, listed: list[str], first: str) -> None:
    said = dlq(*listed, "--format", "csv")
    assert (said.code, said.out.count("\n"), said.out.startswith(first)) == (0, 1, True), said


def test_times_are_written_as_over_http(dlq: Run, connection: Connection) -> None:
    """ISO 8601, in UTC."""
    connection.execute("update outbox_event set created_at = '2026-11-24 18:30:00.5+02'")
    (event, *_) = json.loads(dlq("dead-events", "list", "--json").out)["events"]
    assert event["created_at"] == "2026-11-24T16:30:00.500000Z"


def test_the_figures_are_a_line_each(dlq: Run) -> None:
    lines = [line.split("\t") for line in dlq("dead-events", "stats", "--event-type", "order.placed").out.splitlines()]
    assert lines[:3] == [["by", "of", "events"], ["all", "", "2"], ["event type", "order.placed", "2"]]
    assert [line[1:] for line in lines if line[0] == "age"] == [
        ["0 s to 1 h", "2"], ["1 h to 1 d", "0"], ["1 d to 7 d", "0"], ["7 d to 30 d", "0"], ["30 d and older", "0"],
    ]  # fmt: skip
    (row,) = json.loads(dlq("dead-events", "stats", "--json").out)
    assert (row["total"], row["by_cause"][0]["events"]) == (3, 3)


def test_a_change_is_told_to_programs_in_every_format(dlq: Run) -> None:
    done = dlq("dead-events", "retry", "1", "--reason", "x", "--dry-run", "--format", "csv")
    assert done.out == "event_id,events,dry_run\n1,1,True\n"


def test_a_new_token_is_what_the_server_takes(dlq: Run) -> None:
    """A secret and the entry for the environment, which has its hash alone; for programs too."""
    from dlq_pipelines.api.auth import _digest, read_tokens

    said = dlq("tokens", "new", "grafana", "--scope", "read").out
    secret, entry = (line.split()[-1] for line in said.splitlines())
    (token,) = read_tokens(entry)
    assert (token.name, token.scope, token.digest, secret in entry) == ("grafana", "read", _digest(secret), False)

    told = json.loads(dlq("tokens", "new", "grafana", "--scope", "admin", "--json").out)
    (token,) = read_tokens(told["entry"])
    assert (token.name, token.scope, token.digest) == (told["name"], told["scope"], _digest(told["token"]))
    assert told["scope"] == "admin"
