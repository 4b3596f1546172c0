"""Checks what all commands share: exit codes, help, examples, errors in one line."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import click
import psutil
import psycopg
import pytest
import typer
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dlq_pipelines.alerts.alert import Alert
from dlq_pipelines.cli.app import _exit_code, app, list_commands, load_command
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.installation import create_tables
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.embedded.programs import find_programs
from tests.cli.conftest import Ended, Run
from tests.cli.test_fixes import FIX_KEYS
from tests.databases import with_dagster
from tests.rows import add_events, kill, one, park, set_causes

BIN = Path(sys.executable).parent
DLQ = str(BIN / "dlq")
# Commands that run until Ctrl-C, or for long.
LONG = ("dlq up", "dlq demo", "dlq serve")
# Commands that start a program instead of printing a result.
NO_JSON = {*LONG, "dlq reports open"}
# Commands with a dry run that record no reason.
WITHOUT_REASON = {"dlq migrate", "dlq reports build", "dlq alerts test"}
# Commands that print no rows, but progress, a secret or a document.
NO_ROWS = {
    *("dlq migrate", "dlq demo", "dlq up", "dlq serve", "dlq tokens new"),
    *("dlq dead-events export", "dlq reports open", "dlq reports show"),
}
ALERT_KEYS = {field.name for field in fields(Alert)}
NEVER_SHOWN = "s3cr3t-passw0rd"
# Commands that only the database can make fail.
ON_THE_DATABASE = (
    ["causes", "list"],
    ["fixes", "list"],
    ["reports", "show"],
    ["fixes", "flag", "--all", "--note", "fixed"],
    ["dead-events", "show", "1"],
    ["dead-events", "retry-batch", "--all", "--reason", "asked"],
    ["migrate"],
    ["migrate", "--plan"],
    ["demo"],
    ["up"],
    ["serve"],
)


def commands_and_groups() -> dict[str, click.Command]:
    """Return every command and every group of commands by its full name."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            for word, child in command.commands.items():
                yield from walk(f"{name} {word}", child)

    found = {"dlq": typer.main.get_command(app)}
    for word in list_commands():
        found |= walk(f"dlq {word}", load_command(word))
    return found


def commands() -> dict[str, click.Command]:
    """Return every command by its full name."""
    found = commands_and_groups().items()
    return {name: command for name, command in found if not isinstance(command, click.Group)}


def examples() -> list[str]:
    """Return every command line in a help text."""
    return [
        line
        for command in commands_and_groups().values()
        for line in re.findall(r"`(dlq [^`]+)`", command.help or "")
    ]


@pytest.mark.parametrize("name", commands_and_groups())
def test_every_help_has_an_example_and_explains_options_and_arguments(
    run_command: Run, name: str
) -> None:
    """Arguments are listed once, although both click and Typer can list them."""
    command = commands_and_groups()[name]
    assert re.search(rf"Example:\s+`{name}", command.help or "")
    shown = run_command(*name.split()[1:], "--help")
    assert shown.code == 0
    assert "Example:" in shown.out
    text = " ".join(shown.out.split())
    for parameter in command.params:
        explanation = getattr(parameter, "help", None)
        assert explanation, parameter.name
        if isinstance(parameter, click.Argument):
            assert text.count(explanation) == 1


def test_the_summary_of_a_command_is_the_first_sentence_of_its_help() -> None:
    """The group has the summaries of its own, so that it imports no command to list them."""
    listed = typer.main.get_group(app).commands
    for word in list_commands():
        summary, whole = (
            command.get_short_help_str(200) for command in (listed[word], load_command(word))
        )
        assert summary == whole


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--help"], set()),
        (["causes", "--help"], {"causes"}),
        (["erase", "--help"], {"erase"}),
    ],
)
def test_help_imports_only_the_modules_that_it_needs(
    arguments: list[str], imported: set[str]
) -> None:
    """No driver, no settings and no Rich: each would take longer than the help itself."""
    script = (
        "import sys; from dlq_pipelines.cli.main import main\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    modules = set(done.stderr.split())
    assert not modules & {"psycopg", "pydantic", "pydantic_settings", "rich.console", "dagster"}
    words = {word.replace("-", "_") for word in list_commands()}
    assert {word for word in words if f"dlq_pipelines.cli.{word}" in modules} == imported


@pytest.mark.parametrize(
    ("command", "selected"),
    [
        ("dead-events list", "All dead events."),
        ("dead-events export", "All deaths."),
        ("archive restore", "All archived events."),
        ("fixes flag", "All dead events."),
        ("fixes parked", "All parked events."),
        ("fixes release-parked", "All parked events."),
    ],
)
def test_the_help_names_what_all_selects(run_command: Run, command: str, selected: str) -> None:
    assert f"--all {selected}" in " ".join(run_command(*command.split(), "--help").out.split())


@pytest.mark.parametrize("example", [line for line in examples() if line.startswith(LONG[1:])])
def test_every_long_running_example_starts_and_ends_on_ctrl_c(
    server_url: str, tmp_path: Path, example: str
) -> None:
    """Once it answers or has played a day, SIGINT to its process group ends every process.

    tests/defs/test_ui.py starts and ends `dlq up`.
    """
    with with_dagster(server_url) as url:
        create_tables(Database(url))
        port = _free_port()
        words = shlex.split(example.replace("8081", str(port)))
        running = subprocess.Popen(
            words,
            env=_environment() | {"DLQ_DATABASE_URL": url, "DLQ_HOME": str(tmp_path / "dlq")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        try:
            _wait_for(lambda: _has_played(url) if words[1] == "demo" else _is_ready(port), running)
            family = psutil.Process(running.pid).children(recursive=True)
            os.killpg(running.pid, signal.SIGINT)
            _, err = running.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == (130 if words[1] == "demo" else 0)
    assert words[1] != "serve" or f"Serving on http://127.0.0.1:{port}, described at /docs." in err
    assert "Traceback" not in err
    assert psutil.wait_procs(family, timeout=120)[1] == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["migrate", "--check"], 0),
        (["causes", "list", "--limit", "0"], 2),
        (["causes", "list", "--nothing"], 2),
        (["nothing"], 2),
        (["up", "--port", "70000"], 2),
        (["demo"], 4),
        (["serve", "--host", "0.0.0.0"], 4),  # noqa: S104 - it is refused
        (["tokens", "new", "two words"], 2),
        (["dead-events", "show", "99"], 3),
        (["dead-events", "list", "--format", "xml"], 2),
    ],
)
def test_the_exit_code_names_the_kind_of_error(
    dlq: Run, connection: Connection, arguments: list[str], code: int
) -> None:
    """`demo` is refused because the outbox belongs to an application. No row changes."""
    add_events(connection, 1)
    before = one(connection, "select *, xmin from outbox_event")
    ended = dlq(*arguments)
    assert ended.code == code, ended.err
    assert len(ended.err.splitlines()) == (code != 0)
    assert one(connection, "select *, xmin from outbox_event") == before
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_every_change_has_a_dry_run_and_a_reason_and_every_list_has_formats() -> None:
    """Only the commands that docs/how-to.md names lack --json.

    docs/reference.md names the commands that change something without a dry run.
    """
    for name, command in commands().items():
        options = {word for param in command.params for word in param.opts}
        is_change = "--actor" in options
        assert is_change == bool(options & {"--reason", "--note"}), name
        assert ("--dry-run" in options) == (is_change or name in WITHOUT_REASON), name
        assert ("--json" in options) == (name not in NO_JSON), name
        if name not in NO_ROWS:
            assert {"--format", "--json"} <= options, name


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dlq dea", {"dead-events"}),
        ("dlq dead-events retry", {"retry", "retry-batch"}),
        ("dlq dead-events list --forma", {"--format"}),
        ("dlq dead-events list --format ", {"table", "json", "csv"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(words: str, offered: set[str]) -> None:
    environment = {
        "_DLQ_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run(
        [DLQ], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered


SHAPES = {
    "dlq migrate --plan": {"migrations"},
    "dlq doctor": {"checks"},
    "dlq dead-events list": {"events", "next"},
    "dlq dead-events stats": {"total", "by_event_type", "by_aggregate_type", "by_cause", "by_age"},
    "dlq dead-events show 17": {"id", "place", "payload", "deaths", "retries", "fix"},
    "dlq dead-events retry 17 --reason x --dry-run": {"event_id", "events", "dry_run"},
    "dlq dead-events retry-batch 17 --reason x --dry-run": {
        "events",
        "batches",
        "locked",
        "rate",
        "dry_run",
    },
    "dlq dead-events discard 17 --reason x --dry-run": {"events", "batches", "locked", "dry_run"},
    "dlq archive run --dry-run": {"moved", "batches", "left", "older_than_days", "dry_run"},
    "dlq archive restore --all --reason x --dry-run": {
        "events",
        "batches",
        "blocked",
        "discarded",
        "locked",
        "erased",
        "dry_run",
    },
    "dlq erase --event 17 --reason x --dry-run": {"events", "files", "left", "dry_run"},
    "dlq archive purge --dry-run": {"events", "batches", "older_than_days", "dry_run"},
    "dlq causes list": {"causes", "next"},
    "dlq causes show v2-2": {"cause", "changes", "sample", "probes"},
    "dlq causes explain v2-2": {"cause", "detail", "event_types", "separation"},
    "dlq tonight": {"since", "causes", "unclassified", "alerts", "unrecorded_alerts"},
    "dlq audit list": {"entries", "next"},
    "dlq causes classify": {
        *("deaths", "new_causes", "new_details", "regressed", "regressed_details"),
    },
    "dlq causes similar": {"pairs", "groups"},
    "dlq causes merge v2-3f9a0c6d2b7e4a51 v2-51c2aa07e9b3d846 --reason x --dry-run": {
        "audit_id",
        "kind",
        "changes",
    },
    "dlq causes split v2-9d0c55aa01b2c3d4 --reason x --dry-run": {"audit_id", "kind", "changes"},
    "dlq causes rename v2-2 x --reason x --dry-run": {"audit_id", "kind", "changes"},
    "dlq causes note v2-2 x --reason x --dry-run": {"audit_id", "kind", "changes"},
    "dlq causes own v2-2 x --reason x --dry-run": {"audit_id", "kind", "changes"},
    "dlq causes mute v2-2 --reason x --dry-run": {"audit_id", "kind", "changes"},
    "dlq causes probe v2-2 on --reason x --dry-run": {"audit_id", "kind", "changes"},
    "dlq causes undo 12 --reason x --dry-run": {"audit_id", "kind", "changes"},
    "dlq causes reindex --dry-run": {"causes", "dry_run"},
    "dlq fixes flag --event-type letter --note x --dry-run": {"dry_run", "preview", "fix"},
    "dlq fixes list": {"fixes", "next"},
    "dlq fixes show 1": {"fix", "stages", "next", "timeline"},
    "dlq fixes advance 1 --dry-run": {
        "fix",
        "status",
        "verdict",
        "released",
        "settled",
        "step",
        "dry_run",
    },
    "dlq fixes pause 1 --reason x --dry-run": FIX_KEYS,
    "dlq fixes resume 2 --reason x --dry-run": FIX_KEYS,
    "dlq fixes withdraw 1 --reason x --dry-run": FIX_KEYS,
    "dlq fixes recall 2 --reason x --dry-run": {"recalled", "with_worker", "dry_run"},
    "dlq dead-events recall --all --reason x --dry-run": {"recalled", "with_worker", "dry_run"},
    "dlq fixes parked": {"events", "next"},
    "dlq fixes release-parked 23 --reason x --dry-run": {
        "events",
        "batches",
        "locked",
        "rate",
        "dry_run",
    },
    "dlq deployments note checkout v42 --dry-run": {
        "id",
        "service",
        "version",
        "link",
        "deployed_at",
        "noted_by",
        "dry_run",
    },
    "dlq deployments list": {"deployments", "next"},
    "dlq reports build": {"reports"},
    "dlq try": {"table", "mapping", "events", "dead", "delivered", "days", "causes", "questions"},
    "dlq adopt public.outbox_event": {"mapping", "preset", "not_offered", "questions"},
    "dlq alerts list": {"alerts", "next"},
    "dlq alerts test --dry-run": {"channels", "dry_run"},
    "dlq alerts silence backlog --reason x --dry-run": {*ALERT_KEYS, "dry_run"},
}


def test_json_is_an_object_with_the_keys_that_scripts_rely_on(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every command that prints rows; lists have the same key as over HTTP."""
    _seed(connection)
    add_events(connection, 1, event_type="letter")
    kill(connection, "KeyError: 'stamp'", where="event_type = 'letter'")
    monkeypatch.setenv("DLQ_ALERT_URLS", "json://127.0.0.1:9/")
    alone = {"migrate", "doctor", "try", "adopt", "erase"}
    assert {name for name in commands() if name not in NO_ROWS - {"dlq migrate"}} == {
        " ".join(line.split()[: 2 if line.split()[1] in alone else 3]) for line in SHAPES
    }
    for line, keys in SHAPES.items():
        ended = dlq(*line.split()[1:], "--json")
        assert ended.code == (1 if "doctor" in line else 0), ended
        assert json.loads(ended.out).keys() >= keys, line


def test_the_version_option_prints_the_version(run_command: Run) -> None:
    assert run_command("--version").out == f"dlq {version('dlq-pipelines')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["causes", "list", "--limit", "abc"],
            "Invalid value for '--limit': 'abc' is not a whole number.",
        ),
        (
            ["causes", "list", "--limit", "0"],
            "Invalid value for '--limit': 0 is not in the range 1<=x<=1000.",
        ),
        (
            ["fixes", "flag", "--note", "x", "--rate", "y"],
            "Invalid value for '--rate': 'y' is not a number.",
        ),
        (["fixes", "pause", "1"], "Missing option '--reason'."),
        (["fixes", "list", "--nothing"], "No such option '--nothing'."),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_usage_error_is_one_line_that_names_the_help(
    run_command: Run, arguments: list[str], message: str
) -> None:
    ended = run_command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"dlq: {message} See `dlq {arguments[0]} {arguments[1]} --help`.\n"


def test_ctrl_c_during_the_imports_ends_it_silently() -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from dlq_pipelines.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "arguments",
    [
        "dead-events list",
        "dead-events list --json",
        "dead-events list --format csv",
        "dead-events export --output -",
        "dead-events export --output - --format parquet",
        "reports show",
        "causes --help",
        "migrate --print roles",
    ],
)
def test_a_reader_that_stops_ends_it_silently(connection: Connection, arguments: str) -> None:
    """With exit code 141, like a program that SIGPIPE ends."""
    add_events(connection, 2)
    kill(connection, "KeyError: 'sku'")
    line = f"{DLQ} {arguments} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("closed", ["<&-", ">&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_replaced(connection: Connection, closed: str) -> None:
    """Its number is not reused for a connection."""
    add_events(connection, 1)
    kill(connection, "KeyError: 'sku'")
    line = f"{DLQ} dead-events list {closed}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("KeyError: 'sku'" in done.stdout) == (">" not in closed)


def test_the_help_explains_the_exit_codes(run_command: Run) -> None:
    text = " ".join(run_command("--help").out.split())
    assert (
        "0 done, 1 failed, 2 usage error, 3 not found or not dead, 4 refused, "
        "130 interrupted by Ctrl-C, 141 output closed by its reader."
    ) in text


@pytest.mark.parametrize(
    ("error", "code"), [(DlqError, 1), (NotFoundError, 3), (RefusedError, 4), (ValueError, 2)]
)
def test_each_kind_of_error_has_its_exit_code(error: type[Exception], code: int) -> None:
    assert _exit_code(error("no")) == code


@pytest.mark.parametrize("arguments", ON_THE_DATABASE, ids=" ".join)
def test_an_unreachable_server_is_one_line(
    dlq: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    with socket.socket() as taken:  # bound and not listening: it refuses
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv(
            "DLQ_DATABASE_URL",
            f"postgresql://shop:{NEVER_SHOWN}@127.0.0.1:{taken.getsockname()[1]}/shop",
        )
        ended = dlq(*arguments)
    _assert_one_line(ended, r"Cannot connect to PostgreSQL: .*`dlq migrate --check`\.")


def test_serve_reports_an_unusable_address_in_one_line(
    dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not announce an address that it cannot listen on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _assert_one_line(
            dlq("serve", "--port", port),
            rf"Port {port} of 127\.0\.0\.1 is already in use .*`dlq serve --host .*--port",
        )
    monkeypatch.setenv("DLQ_API_TOKENS", f"a:read:{'0' * 64}")
    _assert_one_line(
        dlq("serve", "--host", "192.0.2.1"),
        r"192\.0\.2\.1 is not an address of this machine\. .*`dlq serve",
    )
    _assert_one_line(
        dlq("serve", "--host", "nobody.invalid"),
        r"Unknown host: nobody\.invalid is not an address .*`dlq serve",
    )


def test_a_wrong_password_is_one_line(
    dlq: Run, database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _role_with_password(connection) as role:
        monkeypatch.setenv(
            "DLQ_DATABASE_URL", make_conninfo(database.url, user=role, password=NEVER_SHOWN)
        )
        for arguments in ON_THE_DATABASE:
            _assert_one_line(dlq(*arguments), f'password authentication failed for user "{role}"')


def test_an_invalid_connection_string_is_not_printed(
    dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLQ_DATABASE_URL", f"postgres//shop:{NEVER_SHOWN}@host/shop")
    _assert_one_line(dlq("causes", "list"), "DLQ_DATABASE_URL is not a connection string")
    for password in (f"s3cr@{NEVER_SHOWN}", f"s3cr@{NEVER_SHOWN}:more", f"a@b@{NEVER_SHOWN}:c"):
        for port in ("1", "bad"):
            url = f"postgresql://shop:{password}@127.0.0.1:{port}/shop"
            monkeypatch.setenv("DLQ_DATABASE_URL", url)
            for command in (("causes", "list"), ("serve",), ("try", url)):
                _assert_one_line(dlq(*command), "In a password, escape @ as %40")


@pytest.mark.parametrize(
    "arguments", [line for line in ON_THE_DATABASE if line[0] != "migrate"], ids=" ".join
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "delete from dlq.migration where number > 1",
            r"lacks \d+ migration.*Run `dlq migrate`\.",
        ),
        (
            ("insert into dlq.migration (number, name, checksum) values (1000, '1000_later', 'x')"),
            r"the migration 1000_later of a newer release\. Install that release\.",
        ),
    ],
    ids=["too old", "too new"],
)
def test_the_schema_of_another_release_is_refused(
    dlq: Run, connection: Connection, arguments: list[str], change: str, message: str
) -> None:
    connection.execute(change.encode())
    _assert_one_line(dlq(*arguments), message)


def test_missing_rights_are_one_line(
    dlq: Run, database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after the connection prints no stack trace either."""
    with _role(connection, connection.info.password) as role:
        monkeypatch.setenv("DLQ_DATABASE_URL", make_conninfo(database.url, user=role))
        _assert_one_line(dlq("causes", "list"), "permission denied for schema dlq.*`dlq doctor`")


def test_a_home_that_is_a_file_is_one_line(dlq: Run, home: Path) -> None:
    home.write_text("a file")
    _assert_one_line(dlq("up"), f"Cannot use '{home}/dagster': Not a directory")


def test_hostile_text_in_an_error_is_inert(
    dlq: Run, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terminal codes and line breaks are removed, and markup is printed as it is."""
    monkeypatch.setenv("DLQ_DATABASE_URL", empty_database.url)
    monkeypatch.setenv("DLQ_OUTBOX_TABLE", "\x1b]0;owned\x07\x1b[31m[red]x[/red]\r\ny\x9b2J")
    _assert_one_line(dlq("migrate"), r"no outbox table public\.\[red\]x\[/red\] y in this database")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["fixes", "list", "--help"], ["migrate", "--print", "roles"]],
    ids=" ".join,
)
def test_commands_without_data_import_no_heavy_module(arguments: list[str]) -> None:
    """Checked by the imported modules, which are the same on every machine."""
    code = (
        "import sys, dlq_pipelines.cli.main as m\n"
        "try: m.main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "typer" in imported
    assert imported.isdisjoint(
        {"dagster", "pandas", "numpy", "pyarrow", "sqlalchemy", "altair", "fastapi", "uvicorn"}
    )
    if "--help" in arguments:
        assert imported.isdisjoint(
            {"psycopg", "pydantic", "pydantic_settings", "jinja2", "zoneinfo._common"}
        )
    assert done.stdout


def _assert_one_line(ended: Ended, pattern: str) -> None:
    """One line on stderr without secret or stack trace, nothing on stdout.

    `dlq up` prints its address first.
    """
    *before, last = ended.err.splitlines()
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(rf"dlq: .*{pattern}.*", last), ended.err
    assert all(line.startswith("Starting Dagster on ") for line in before)
    assert last.isprintable()
    for never in (NEVER_SHOWN, os.environ["DLQ_DATABASE_URL"], "Traceback", ".py"):
        assert never not in ended.err


def _seed(connection: Connection) -> None:
    """Add fifty causes, each with a dead event and an active fix, and all that examples name."""
    add_events(connection, 50)
    kill(connection, "KeyError: 'postcode'", attempts=5)
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " select 'v2-' || n, 'KeyError', n::text, now(), now() from generate_series(1, 50) n"
    )
    set_causes(connection, "'v2-' || event_id", detail="postcode")
    connection.execute(
        "insert into dlq.fix (cause_id, note, flagged_by, flagged_at)"
        " select 'v2-' || n, 'fixed', 'me', now() from generate_series(1, 50) n order by n"
    )
    named = {cause: None for line in examples() for cause in re.findall(r"v2-[0-9a-f]{16}", line)}
    split = {
        cause: "v2-root"
        for line in examples()
        for cause in re.findall(r"dlq causes split (\S+)", line)
    }
    for cause, root in {"v2-root": None, **named, **split}.items():
        connection.execute(
            "insert into dlq.cause"
            " (id, exception_type, template, first_seen, last_seen, merged_into)"
            " values (%s, 'KeyError', '<text>', now(), now(), %s)",
            [cause, root],
        )
        _add_dead_event(connection, cause)
    for fix in re.findall(r"dlq fixes resume (\d+)", "\n".join(examples())):
        connection.execute("update dlq.fix set status = 'paused' where id = %s", [fix])
    for ids in re.findall(r"dlq fixes release-parked ([\d ]+)", "\n".join(examples())):
        park(connection, [int(event) for event in ids.split()])
    connection.execute(
        "insert into dlq.alert (key, rule, severity, summary, detail, fired_at)"
        " values ('backlog', 'backlog', 'warning', '1,001 events are dead', '', now())"
    )
    change = '{"changes": [{"cause": "v2-2", "before": {"name": "x"}, "after": {"name": null}}]}'
    connection.execute(
        "insert into dlq.audit (kind, actor, reason, filter, events, at)"
        " select 'cause.name', 'me', 'so', %s::jsonb, 0, now() from generate_series(1, 12)",
        [change],
    )


def _add_dead_event(connection: Connection, cause: str) -> None:
    """Add a dead event of that cause."""
    add_events(connection, 1)
    kill(connection, "KeyError: 'postcode'", where="status = 'pending'")
    newest = "event_id = (select max(id) from outbox_event)"
    set_causes(connection, f"'{cause}'", where=newest, detail="postcode")


def _environment() -> dict[str, str]:
    """The environment of a shell that finds dlq and psql."""
    return os.environ | {"PATH": f"{BIN}:{find_programs()}:{os.environ['PATH']}"}


def _build_psql_environment(connection: Connection) -> dict[str, str]:
    """The environment in which `psql` connects to the database of this connection."""
    info = connection.info
    place = {
        "HOST": info.host,
        "PORT": info.port,
        "USER": info.user,
        "PASSWORD": info.password,
        "DATABASE": info.dbname,
    }
    return {f"PG{key}": str(value) for key, value in place.items()}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _has_played(url: str) -> bool:
    with Database(url).connect() as connection:
        found = one(connection, "select to_regclass('shop_day') is not null as found")["found"]
        return bool(found and one(connection, "select count(*) from shop_day")["count"])


def _wait_for(condition: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    while not condition():
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.1)


@contextmanager
def _role(connection: Connection, password: str) -> Iterator[str]:
    """A role that may only log in."""
    name = f"stranger_{connection.info.backend_pid}"
    connection.execute(
        sql.SQL("create role {} login password {}").format(sql.Identifier(name), password)
    )
    try:
        yield name
    finally:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@contextmanager
def _role_with_password(connection: Connection) -> Iterator[str]:
    """A role that needs a password, by two lines in pg_hba.conf."""
    if not one(connection, "select usesuper from pg_user where usename = current_user")["usesuper"]:
        pytest.skip("only a superuser may change pg_hba.conf")
    before = one(connection, "select pg_read_binary_file(current_setting('hba_file')) as bytes")[
        "bytes"
    ]

    def write(content: bytes) -> None:
        (row,) = connection.execute("select lo_from_bytea(0, %s) as id", [content]).fetchall()
        connection.execute("select lo_export(%(id)s, current_setting('hba_file'))", row)
        connection.execute("select lo_unlink(%(id)s), pg_reload_conf()", row)

    with _role(connection, "another") as role:
        rules = f"local all {role} scram-sha-256\nhost all {role} all scram-sha-256\n"
        write(rules.encode() + before)
        try:
            _wait_until_refused(connection, role)
            yield role
        finally:
            write(before)


def _wait_until_refused(connection: Connection, role: str) -> None:
    """The server reloads the file asynchronously."""
    while True:
        try:
            psycopg.connect(
                make_conninfo(connection.info.dsn, user=role, password=NEVER_SHOWN)
            ).close()
        except psycopg.OperationalError:
            return
        time.sleep(0.01)


@pytest.mark.usefixtures("connection")
def test_adopt_writes_the_file_that_the_variable_names(
    dlq: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not exist yet. A value that would mean dead and delivered is refused."""
    file = tmp_path / "outbox.toml"
    monkeypatch.setenv("DLQ_OUTBOX_MAPPING", str(file))
    refused = dlq("adopt", "outbox_event", "--dead", "x", "--delivered", "x", "--write", str(file))
    assert (refused.code, refused.err) == (2, "dlq: 'x' cannot mean both dead and delivered.\n")
    assert dlq("adopt", "outbox_event", "--write", str(file)).code == 0
    assert file.exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("events", "public.events is a view. Map the table that the view reads."),
        ("pg_catalog.pg_class", "pg_catalog.pg_class is a system catalog of PostgreSQL."),
        ("information_schema.tables", "is a system catalog of PostgreSQL."),
        ("outbox_event_id_seq", "public.outbox_event_id_seq is a sequence."),
    ],
)
def test_adopt_refuses_what_is_no_table_of_an_application(
    dlq: Run, connection: Connection, table: str, said: str
) -> None:
    connection.execute("create view events as select * from outbox_event")
    refused = dlq("adopt", table)
    assert refused.code == 4
    assert said in refused.err


def test_an_error_of_a_function_is_one_sentence(dlq: Run, connection: Connection) -> None:
    connection.execute("create table item (event bigint references outbox_event on delete cascade)")
    add_events(connection, 1)
    kill(connection, "boom")
    refused = dlq("dead-events", "discard", "--all", "--reason", "x", "--yes")
    assert refused.code == 1
    assert "says on delete cascade. Change" in refused.err


@pytest.mark.parametrize("event", ["", " "])
@pytest.mark.usefixtures("home")
def test_an_empty_id_is_refused_by_name(dlq: Run, event: str) -> None:
    shown = dlq("dead-events", "show", event)
    assert (shown.code, shown.err) == (2, "dlq: event_id must not be empty\n")
