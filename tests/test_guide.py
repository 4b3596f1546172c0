"""Tests that the commands of deploy/README.md result in a working installation.

Commands that need root, systemd, podman, helm or kubectl are not run. A test checks that their
units, commands and options exist.
"""

import contextlib
import importlib.metadata
import io
import re
import shlex
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import yaml

from dlq_pipelines.cli.app import list_commands, load_command
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.alerts.servers import Received, http_server
from tests.cli.test_main import DLQ, _environment
from tests.databases import scratch_server
from tests.production import Unit, _free_port
from tests.rows import one
from tests.test_deploy import DEPLOY, README, UNITS

GUIDE, TABLE = README.split("<!-- settings")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
LINES = [
    line.partition("  #")[0].strip()
    for language, text in BLOCKS
    if not language
    for line in text.replace("\\\n", " ").splitlines()
]
DEAD_FOR_LONG = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, next_run_at)
    select 'order', n::text, 'order.placed', '{}', 'dead', now() - interval '40 days'
    from generate_series(1, 3) n
"""


def find_snippet(part: str) -> str:
    """Return the only snippet that contains this part."""
    (text,) = [str(text) for _, text in BLOCKS if part in text]
    return text


def test_the_commands_of_the_guide_install_dlq_pipelines(tmp_path: Path) -> None:
    """With the guide's SQL, commands and variables, on a server whose outbox has dead events."""
    with scratch_server() as (_, server), http_server() as chat:
        owner = Database(server.url("postgres"))
        for statement in find_snippet("create database dagster").split(";\n"):
            with owner.connect() as connection:
                connection.execute(statement.encode())
        shop = Database(server.ensure_database("shop"))
        with shop.connect() as connection:
            create_host_tables(connection)
            connection.execute(DEAD_FOR_LONG.encode())

        migration = find_snippet("dlq migrate --plan").replace(
            "postgresql://owner@host/shop", f"'{shop.url}'"
        )
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", migration], env=_environment(), check=True
        )
        with shop.connect() as connection:
            connection.execute(find_snippet("in role dlq_operator").encode())

        variables = build_variables(shop.url, server.url("dagster"), chat, tmp_path)
        units = [Unit(name, variables, tmp_path) for name in ("dlq-code-location", "dlq-daemon")]
        try:
            check_installation(variables, tmp_path)
        finally:
            for unit in units:
                unit.stop()
        assert "A test of this channel" in "".join(body for _, body in chat.requests)
        with shop.connect() as connection:
            assert one(
                connection, "select sum(rows) from dlq.export_day where verified_at is not null"
            ) == {"sum": 3}


def build_variables(shop: str, dagster: str, chat: Received, folder: Path) -> dict[str, str]:
    """Return the variables of the guide with the addresses and secrets of this test."""
    documented = dict(
        line.split("=", 1) for line in find_snippet("DLQ_CODE_PORT=4000").splitlines()
    )
    token = subprocess.run(
        [DLQ, *shlex.split(find_snippet("dlq tokens new"))[1:]],
        capture_output=True,
        text=True,
        check=True,
    )
    own = {
        "DLQ_DATABASE_URL": shop.replace("postgres@", "dlq_jobs@"),
        "DLQ_DAGSTER_URL": dagster.replace(
            "postgresql://postgres@", "postgresql+psycopg2://dagster@"
        ),
        "DLQ_CODE_PORT": str(_free_port()),
        "DLQ_EXPORT_URI": (folder / "exports").as_uri(),
        "DLQ_REPORT_URI": (folder / "reports").as_uri(),
        "DLQ_ALERT_URLS": f"json://{chat.host}/",
        "DLQ_API_TOKENS": token.stdout.split()[-1],
    }
    assert own.keys() <= documented.keys()
    (folder / "dagster").mkdir()
    (folder / "dagster" / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())
    folders = {"DAGSTER_HOME": str(folder / "dagster"), "DLQ_HOME": str(folder)}
    return _environment() | documented | own | folders


def check_installation(variables: dict[str, str], folder: Path) -> None:
    """Run step 6 line by line, and the export command that `dlq doctor` prints."""
    _, *lines = [
        line
        for line in LINES
        if line in join_continued_lines(find_snippet("dagster job launch")).splitlines()
    ]
    for line in lines:
        if line == "dlq doctor":
            continue
        deadline = time.monotonic() + 60  # the units have just been started
        while (
            done := run_command(line, variables, folder)
        ).returncode and time.monotonic() < deadline:
            time.sleep(1)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    deadline = time.monotonic() + 60
    while "not classified yet: 0 deaths" not in (
        report := run_command("dlq doctor", variables, folder).stdout
    ):
        assert time.monotonic() < deadline, report
        time.sleep(1)
    (command,) = re.findall(r"DLQ_PARTITIONS_START=.*|dagster asset .*", report)
    printed = join_continued_lines(find_snippet("--partition-range"))
    assert re.sub(r"\d{4}-\d\d-\d\d", "DAY", command) in re.sub(r"\d{4}-\d\d-\d\d", "DAY", printed)
    assert run_command(command, variables, folder).returncode == 0
    # The worker of this application stores no error text yet.
    done = run_command("dlq doctor", variables, folder)
    failed = [line.split("\t")[0] for line in done.stdout.splitlines() if "\tFAILED\t" in line]
    assert failed == ["error texts"], done.stdout


def join_continued_lines(block: str) -> str:
    """Return the commands of a snippet, one a line and without comments."""
    return "\n".join(
        re.sub(r" +", " ", line.partition("  #")[0]).strip()
        for line in block.replace("\\\n", " ").splitlines()
    )


def run_command(
    line: str, variables: dict[str, str], folder: Path
) -> "subprocess.CompletedProcess[str]":
    """Run a line of the guide with the paths and the port of this test."""
    line = line.replace("/etc/dlq", str(DEPLOY)).replace("4000", variables["DLQ_CODE_PORT"])
    return subprocess.run(
        ["bash", "-c", line],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_that_are_not_run_exist() -> None:
    """The units are in this repository; commands and options exist, also those in containers."""
    units = {
        word
        for line in LINES
        if line.startswith("systemctl ")
        for word in re.findall(r"\bdlq-[a-z-]+", line)
    }
    assert units == {unit.stem for unit in UNITS}
    commands = [line for line in LINES if re.match(r"dlq |podman run .* dlq-pipelines dlq ", line)]
    assert len(commands) > 6
    for line in commands:
        require_command(shlex.split(line.partition("|")[0].rpartition("dlq-pipelines ")[2]))
    for words in (
        shlex.split(line.rpartition("dlq-pipelines ")[2])
        for line in LINES
        if not line.startswith("helm")
    ):
        program = next(
            (index for index, word in enumerate(words) if re.fullmatch("dagster[a-z-]*", word)),
            None,
        )
        if program is not None:
            require_options(words[program:])


def require_command(words: list[str]) -> None:
    """Check that `dlq` has this command with these options."""
    assert words[1] in list_commands(), words
    command = load_command(words[1])
    for word in words[2:]:
        if word.startswith("-"):
            assert any(word in param.opts for param in command.params), words
        else:
            command = getattr(command, "commands", {}).get(word, command)
    assert not hasattr(command, "commands"), words


def require_options(words: list[str]) -> None:
    """Check that the help of this command names its options."""
    options = [word for word in words if word.startswith("-")]
    first = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    help_text = read_help(*words[:first])
    assert [option for option in options if option not in help_text] == [], words


@cache
def read_help(program: str, *words: str) -> str:
    """Return the help of a command of Dagster, in this process: its start takes seconds."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=program)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [program, *words, "--help"])
        with pytest.raises(SystemExit) as ended:
            script.load()()
    assert not ended.value.code, (program, words)
    return printed.getvalue()


def test_every_variable_of_the_guide_is_read_by_a_process() -> None:
    """All variables of the text, snippets and Kubernetes files are in the table or after it."""
    known = set(re.findall(r"^\| `(DLQ_\w+)`", TABLE, re.MULTILINE)) | set(
        re.findall(r"`(DLQ_\w+)`", README.rpartition("<!-- end of settings -->")[2])
    )
    texts = [GUIDE, *(file.read_text(encoding="utf-8") for file in DEPLOY.glob("*.yaml"))]
    assert {name for text in texts for name in re.findall(r"\bDLQ_\w+", text)} <= known


def test_the_api_in_kubernetes_has_the_image_and_restrictions_of_the_code_location() -> None:
    """It has the same image and secret, and its command exists."""
    deployment, service = yaml.safe_load_all(
        (DEPLOY / "kubernetes-api.yaml").read_text(encoding="utf-8")
    )
    pod = deployment["spec"]["template"]["spec"]
    (api,) = pod["containers"]
    helm = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text(encoding="utf-8"))
    (location,) = helm["dagster-user-deployments"]["deployments"]
    assert api["image"] == f"{location['image']['repository']}:{location['image']['tag']}"
    assert api["securityContext"] == location["securityContext"]
    assert pod["securityContext"] == location["podSecurityContext"]
    assert api["envFrom"] == [{"secretRef": secret} for secret in location["envSecrets"]]
    assert {item["name"]: item["value"] for item in api["env"]}.items() >= {
        item["name"]: item["value"]
        for item in location["env"]
        if item["name"].endswith(("_URI", "_TIMEZONE"))
    }.items()
    require_command(api["args"])
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
