"""Checks tables, tab-separated lines, JSON and CSV: equal values, and hostile texts inert."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run
from tests.rows import add_events, date_deaths, kill, one, park

DLQ = str(Path(sys.executable).parent / "dlq")
HOSTILE = "=cmd|'/c calc'!A1\t\x1b[2J\n\u202e"


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Three dead events, one with a type that terminals and spreadsheets would execute."""
    add_events(connection, 2, payload='{"sku": "A-1"}')
    add_events(connection, 1, event_type=HOSTILE)
    kill(connection, "KeyError: 'sku'", attempts=5)
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def _run_on_terminal(
    *arguments: str, columns: int = 200, term: str = "xterm", code: int = 0
) -> str:
    """Return what the program writes to a terminal of that many columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": term}
    running = subprocess.Popen([DLQ, *arguments], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += (chunk := os.read(ours, 4096))
        except OSError:  # the program has closed it
            break
        if not chunk:
            break
    os.close(ours)
    assert running.wait() == code
    return shown.decode()


def test_a_terminal_gets_columns_and_a_pipe_gets_tabs(dlq: Run) -> None:
    """With the same cells; `cut -f` separates them in a pipe."""
    piped = dlq("dead-events", "list", "--limit", "2").out
    lines = [line.split("\t") for line in piped.splitlines()]
    assert [len(line) for line in lines] == [8, 8, 8]
    assert lines[0] == [
        "event",
        "died",
        "type",
        "aggregate",
        "attempts",
        "cause",
        "detail",
        "error",
    ]
    assert [line[0] for line in lines[1:]] == ["3", "2"]
    assert "\x1b" not in piped
    shown = _run_on_terminal("dead-events", "list", "--limit", "2")
    assert "\t" not in shown
    assert all(cell in shown for line in lines for cell in line)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize(
    "listed", [("dead-events", "list"), ("fixes", "list"), ("causes", "list"), ("fixes", "parked")]
)
def test_an_id_is_whole_on_every_terminal(
    dlq: Run, connection: Connection, listed: tuple[str, ...], columns: int
) -> None:
    """Optional columns are hidden and named; a very narrow terminal has one line per value."""
    long = {"text": "the carrier has no place of that name " * 3, "type": "order.placed.and.paid"}
    connection.execute(
        "update outbox_event set last_error = 'KeyError: ' || %(text)s, event_type = %(type)s", long
    )
    connection.execute(
        "update dlq.death set error = 'KeyError: ' || %(text)s, event_type = %(type)s", long
    )
    connection.execute("update dlq.cause set template = %(text)s", long)
    park(connection, [1, 2, 3])
    cause = one(connection, "select id from dlq.cause")["id"]
    assert dlq("fixes", "flag", "--cause", cause, "--note", "fixed").code == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", _run_on_terminal(*listed, columns=columns)).splitlines()
    assert any(cause in line for line in lines), lines
    assert not any("…" in line for line in lines)
    table = [line for line in lines if not line.startswith("Columns hidden (narrow terminal): ")]
    if columns >= 80:
        assert max(len(line.rstrip()) for line in table) <= columns
    hidden = set(lines) - set(table)
    assert not (hidden and columns in {40, 200})
    assert hidden or columns != 80 or listed == ("causes", "list")


def test_a_copied_time_works_in_a_filter_even_in_the_repeated_hour(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a zone other than UTC, on the night when daylight saving ends. Programs read UTC."""
    monkeypatch.setenv("DLQ_TIMEZONE", "America/New_York")
    times = {1: "2026-11-01T05:30:07Z", 2: "2026-11-01T06:30:07Z", 3: "2026-11-01T07:30:07Z"}
    for event, at in times.items():
        date_deaths(connection, f"'{at}'", where=f"d.event_id = {event}")
    listed = [line.split("\t") for line in dlq("dead-events", "list").out.splitlines()[1:]]
    died = {int(cells[0]): cells[1] for cells in listed}
    assert died == {
        3: "2026-11-01 02:30:07-05",
        2: "2026-11-01 01:30:07-05",
        1: "2026-11-01 01:30:07-04",
    }
    for event, at in died.items():
        since = json.loads(dlq("dead-events", "list", "--since", at, "--json").out)["events"]
        until = json.loads(dlq("dead-events", "list", "--until", at, "--json").out)["events"]
        assert [row["id"] for row in since] == list(range(3, event - 1, -1))
        assert [row["id"] for row in until] == list(range(event - 1, 0, -1))
        assert since[-1]["dead_at"] == times[event]
    assert dlq("fixes", "flag", "--since", died[2], "--note", "fixed").code == 0
    assert "dead since 2026-11-01 01:30:07-05" in dlq("fixes", "list").out
    shown = dlq("fixes", "show", "1").out
    assert "dead since 2026-11-01 01:30:07-05, dead before " in shown
    assert "UTC" not in shown
    assert died[2] in dlq("dead-events", "show", "2").out


def test_an_empty_list_says_whether_nothing_is_dead_or_nothing_matches(
    dlq: Run, connection: Connection
) -> None:
    for narrowed in (["--event-type", "nobody's"], ["--offset", "3"], ["99"]):
        assert dlq("dead-events", "list", *narrowed).out == "No dead events match this filter.\n"
    connection.execute("delete from outbox_event")
    assert dlq("dead-events", "list").out == "There are no dead events.\n"


def test_two_formats_at_once_are_refused(dlq: Run) -> None:
    ended = dlq("causes", "list", "--json", "--format", "csv")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "dlq: --json cannot be combined with --format csv.\n"


def test_help_has_boxes_on_a_terminal_and_is_plain_anywhere_else() -> None:
    assert "╭" in _run_on_terminal("causes", "--help")
    piped = subprocess.run(
        [DLQ, "causes", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for plain in (piped, _run_on_terminal("causes", "--help", term="dumb")):
        assert plain.isascii()
        assert "\x1b" not in plain
        assert [line for line in plain.splitlines() if line != line.rstrip()] == []


def test_json_and_csv_have_all_fields_and_the_same_values(dlq: Run) -> None:
    """`--json` is `--format json`; a cell that a spreadsheet would run gets an apostrophe."""
    printed = dlq("dead-events", "list", "--json")
    assert printed.out == dlq("dead-events", "list", "--format", "json").out
    rows: list[dict[str, Any]] = json.loads(printed.out)["events"]
    table = list(csv.DictReader(io.StringIO(dlq("dead-events", "list", "--format", "csv").out)))
    assert [list(row) for row in rows] == [list(row) for row in table]
    for row, cells in zip(rows, table, strict=True):
        assert (str(row["id"]), row["payload"], str(row["dead_at"])) == (
            cells["id"], json.loads(cells["payload"]), cells["dead_at"],
        )  # fmt: skip
    assert (rows[0]["event_type"], table[0]["event_type"]) == (HOSTILE, f"'{HOSTILE}")


def test_a_list_continues_at_the_cursor_that_it_printed(dlq: Run) -> None:
    """JSON has the cursor as `next`, as over HTTP; otherwise it is printed on stderr."""
    printed = dlq("dead-events", "list", "--limit", "2", "--json")
    first = json.loads(printed.out)
    rest = json.loads(
        dlq("dead-events", "list", "--limit", "2", "--after", first["next"], "--json").out
    )
    assert [row["id"] for part in (first, rest) for row in part["events"]] == [3, 2, 1]
    assert (rest["next"], printed.err) == (None, "")
    assert (
        dlq("dead-events", "list", "--limit", "2").err
        == f"There may be more: --after {first['next']}\n"
    )
    assert dlq("dead-events", "list", "--after", "nonsense").code == 2
    assert (
        dlq("dead-events", "list", "--event-type", "nobody's").out
        == "No dead events match this filter.\n"
    )


@pytest.mark.parametrize(
    ("listed", "first"),
    [
        (["dead-events", "list", "--event-type", "nobody's"], "id,aggregate_type,"),
        (["fixes", "list"], "id,selection,"),
        (["fixes", "parked"], "death_id,"),
        (["alerts", "list"], "key,rule,"),
        (["alerts", "list", "--channels"], "id,waiting,"),
    ],
    ids=" ".join,
)
def test_csv_without_rows_has_its_header(dlq: Run, listed: list[str], first: str) -> None:
    printed = dlq(*listed, "--format", "csv")
    assert (printed.code, printed.out.count("\n"), printed.out.startswith(first)) == (0, 1, True), (
        printed
    )


def test_json_has_times_as_over_http(dlq: Run, connection: Connection) -> None:
    """ISO 8601 in UTC."""
    connection.execute(
        "insert into outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, created_at)"
        " values ('order', '1', 'e', '{}', 'dead', '2026-11-24 18:30:00.5+02')"
    )
    (event, *_) = json.loads(dlq("dead-events", "list", "--json").out)["events"]
    assert event["created_at"] == "2026-11-24T16:30:00.500000Z"


def test_stats_have_one_line_per_figure(dlq: Run) -> None:
    lines = [
        line.split("\t")
        for line in dlq("dead-events", "stats", "--event-type", "order.placed").out.splitlines()
    ]
    assert lines[:3] == [
        ["by", "value", "events", "title"],
        ["all", "", "2", ""],
        ["event type", "order.placed", "2", ""],
    ]
    (cause,) = (line for line in lines if line[0] == "cause")
    assert cause[2:] == ["2", "KeyError: 'sku'"]
    assert [line[1:3] for line in lines if line[0] == "age"] == [
        ["0 s to 1 h", "2"], ["1 h to 1 d", "0"], ["1 d to 7 d", "0"], ["7 d to 30 d", "0"],
        ["30 d and older", "0"],
    ]  # fmt: skip
    row = json.loads(dlq("dead-events", "stats", "--json").out)
    assert (row["total"], row["by_cause"][0]["events"]) == (3, 3)


def test_a_change_is_printed_in_every_format(dlq: Run) -> None:
    done = dlq("dead-events", "retry", "1", "--reason", "x", "--dry-run", "--format", "csv")
    assert done.out == "event_id,events,dry_run\n1,1,True\n"


def test_the_server_accepts_a_new_token(dlq: Run) -> None:
    """The entry for the environment has only the hash of the secret."""
    from dlq_pipelines.api.auth import _hash_token, read_tokens

    printed = dlq("tokens", "new", "grafana", "--scope", "read").out
    secret, entry = (line.split()[-1] for line in printed.splitlines())
    (token,) = read_tokens(entry)
    assert (token.name, token.scope, token.digest, secret in entry) == (
        "grafana",
        "read",
        _hash_token(secret),
        False,
    )

    created = json.loads(dlq("tokens", "new", "grafana", "--scope", "admin", "--json").out)
    (token,) = read_tokens(created["entry"])
    assert (token.name, token.scope, token.digest) == (
        created["name"],
        created["scope"],
        _hash_token(created["token"]),
    )
    assert created["scope"] == "admin"


@pytest.mark.usefixtures("dlq")
def test_a_long_key_is_whole_on_a_narrow_terminal(connection: Connection) -> None:
    """`dlq alerts silence` takes the key that `dlq tonight` prints."""
    key = "stuck:order.payment.captured.by.acquirer"
    connection.execute(
        "insert into dlq.alert (key, rule, severity, summary, detail, fired_at)"
        " values (%s, 'stuck', 'warning', repeat('No worker takes it. ', 9), 'Look.', now())",
        [key],
    )
    for columns in (80, 200):
        for listed in (("tonight",), ("alerts", "list")):
            shown = re.sub(r"\x1b\[[\d;]*m", "", _run_on_terminal(*listed, columns=columns))
            assert key in shown, shown
