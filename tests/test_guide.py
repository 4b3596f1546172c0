"""Tests that deploy/README.md ends with a working installation.

Commands that need root, systemd, podman, helm or kubectl are not run. A test checks that the units,
commands and options that they name exist.
"""

import re
import shlex
import subprocess
import time
from pathlib import Path

import typer.main
import yaml

from dlq_pipelines.cli.app import app
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.alerts.servers import Received, http_server
from tests.cli.test_main import DLQ, _environment
from tests.databases import scratch_server
from tests.production import Unit, _free_port
from tests.rows import one
from tests.test_deploy import BIN, DEPLOY, README, UNITS

GUIDE, TABLE = README.split("<!-- settings")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
LINES = [
    line.partition("  #")[0].strip()
    for language, text in BLOCKS
    if not language
    for line in text.replace("\\\n", " ").splitlines()
]
DEAD_FOR_LONG = """
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, next_run_at)
    select 'order', n::text, 'order.placed', '{}', 'dead', now() - interval '40 days' from generate_series(1, 3) n
"""


def _block(word: str) -> str:
    """The only snippet that contains the word."""
    (text,) = [str(text) for _, text in BLOCKS if word in text]
    return text


def test_the_guide_ends_with_a_working_installation(tmp_path: Path) -> None:
    """With its SQL, commands and variables, on a server whose outbox has dead events."""
    with scratch_server() as (_, server), http_server() as chat:
        owner = Database(server.url("postgres"))
        for statement in _block("create database dagster").split(";\n"):
            with owner.connect() as connection:
                connection.execute(statement.encode())
        shop = Database(server.ensure_database("shop"))
        with shop.connect() as connection:
            create_host_tables(connection)
            connection.execute(DEAD_FOR_LONG.encode())

        migrating = _block("dlq migrate --plan").replace(
            "postgresql://owner@host/shop", f"'{shop.url}'"
        )
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", migrating], env=_environment(), check=True
        )
        with shop.connect() as connection:
            connection.execute(_block("in role dlq_operator").encode())

        given = _variables(shop.url, server.url("dagster"), chat, tmp_path)
        units = [Unit(name, given, tmp_path) for name in ("dlq-code-location", "dlq-daemon")]
        try:
            _check_installation(given, tmp_path)
        finally:
            for unit in units:
                unit.stop()
        assert "A test of this channel" in "".join(body for _, body in chat.requests)
        with shop.connect() as connection:
            assert one(
                connection, "select sum(rows) from dlq.export_day where verified_at is not null"
            ) == {"sum": 3}


def _variables(shop: str, dagster: str, chat: Received, folder: Path) -> dict[str, str]:
    """The variables of the guide, with the addresses and secrets of this test."""
    written = dict(line.split("=", 1) for line in _block("DLQ_CODE_PORT=4000").splitlines())
    token = subprocess.run(
        [DLQ, *shlex.split(_block("dlq tokens new"))[1:]],
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
    assert own.keys() <= written.keys()
    (folder / "dagster").mkdir()
    (folder / "dagster" / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())
    places = {"DAGSTER_HOME": str(folder / "dagster"), "DLQ_HOME": str(folder)}
    return _environment() | written | own | places


def _check_installation(given: dict[str, str], folder: Path) -> None:
    """Run step 6 line by line, and the export command that `dlq doctor` prints."""
    _, *lines = [line for line in LINES if line in _flat(_block("dagster job launch")).splitlines()]
    for line in lines:
        if line == "dlq doctor":
            continue
        until = time.monotonic() + 60  # the units have just been started
        while (done := _run(line, given, folder)).returncode and time.monotonic() < until:
            time.sleep(1)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    until = time.monotonic() + 60
    while (
        "deaths wait" in (found := _run("dlq doctor", given, folder).stdout)
        and "; 0 deaths wait" not in found
    ):
        assert time.monotonic() < until, found
        time.sleep(1)
    (command,) = re.findall(r"DLQ_PARTITIONS_START=.*|dagster asset .*", found)
    printed = _flat(_block("--partition-range"))
    assert re.sub(r"\d{4}-\d\d-\d\d", "DAY", command) in re.sub(r"\d{4}-\d\d-\d\d", "DAY", printed)
    assert _run(command, given, folder).returncode == 0
    done = _run("dlq doctor", given, folder)
    assert done.returncode == 0, done.stdout


def _flat(block: str) -> str:
    """One command a line, without comments."""
    return "\n".join(
        re.sub(r" +", " ", line.partition("  #")[0]).strip()
        for line in block.replace("\\\n", " ").splitlines()
    )


def _run(line: str, given: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    line = line.replace("/etc/dlq", str(DEPLOY)).replace("4000", given["DLQ_CODE_PORT"])
    return subprocess.run(
        ["bash", "-c", line], env=given, cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_commands_that_are_not_run_exist() -> None:
    """Units of this repository, and options of the commands, in containers too."""
    named = {
        word
        for line in LINES
        if line.startswith("systemctl ")
        for word in re.findall(r"\bdlq-[a-z-]+", line)
    }
    assert named == {unit.stem for unit in UNITS}
    asked = [line for line in LINES if re.match(r"dlq |podman run .* dlq-pipelines dlq ", line)]
    assert len(asked) > 6
    for line in asked:
        _require_command(shlex.split(line.partition("|")[0].rpartition("dlq-pipelines ")[2]))
    for words in (
        shlex.split(line.rpartition("dlq-pipelines ")[2])
        for line in LINES
        if not line.startswith("helm")
    ):
        program = next(
            (place for place, word in enumerate(words) if re.fullmatch("dagster[a-z-]*", word)),
            None,
        )
        if program is not None:
            _require_options(words[program:])


def _require_command(words: list[str]) -> None:
    command = typer.main.get_command(app)
    for word in words[1:]:
        if word.startswith("-"):
            assert any(word in param.opts for param in command.params), words
        else:
            command = getattr(command, "commands", {}).get(word, command)
    assert not hasattr(command, "commands"), words


def _require_options(words: list[str]) -> None:
    options = [word for word in words if word.startswith("-")]
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    helped = subprocess.run(
        [BIN / words[0], *words[1:first], "--help"], capture_output=True, text=True, check=False
    )
    assert helped.returncode == 0, words
    assert [option for option in options if option not in helped.stdout] == [], words


def test_every_variable_of_the_guide_is_read_by_a_process() -> None:
    """All variables of the text, snippets and Kubernetes files are in the table or below it."""
    known = set(re.findall(r"^\| `(DLQ_\w+)`", TABLE, re.MULTILINE)) | set(
        re.findall(r"`(DLQ_\w+)`", README.rpartition("<!-- end of settings -->")[2])
    )
    texts = [GUIDE, *(file.read_text(encoding="utf-8") for file in DEPLOY.glob("*.yaml"))]
    assert {name for text in texts for name in re.findall(r"\bDLQ_\w+", text)} <= known


def test_the_api_in_kubernetes_has_the_image_and_restrictions_of_the_code_location() -> None:
    """One image, one secret, and a command that exists."""
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
    assert {one["name"]: one["value"] for one in api["env"]}.items() >= {
        one["name"]: one["value"]
        for one in location["env"]
        if one["name"].endswith(("_URI", "_TIMEZONE"))
    }.items()
    _require_command(api["args"])
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
