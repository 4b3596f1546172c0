"""What needs which packages: a worker two, each face its extra."""

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dlq_pipelines.extras import _EXTRAS
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import add_events, one

ROOT = Path(__file__).parents[1]
CORE = ("psycopg[binary]", "pydantic-settings")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and what its core requires, as a fresh environment has it."""
    folder = tmp_path_factory.mktemp("light")
    for distribution in {d.metadata["Name"]: d for d in _list_required(*CORE)}.values():
        for file in distribution.files or ():
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    (folder / "dlq_pipelines").symlink_to(ROOT / "dlq_pipelines")
    return folder


def _list_required(*names: str) -> Iterator[importlib.metadata.Distribution]:
    """Yield the distributions that these requirements install."""
    for requirement in map(Requirement, names):
        distribution = importlib.metadata.distribution(requirement.name)
        yield distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                yield from _list_required(text.partition(";")[0])


def _run(light: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code without the packages of this environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DLQ_")}
    return subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(light)!r}); {code}"],
        env=kept | variables | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_worker_needs_psycopg_and_pydantic_settings_alone(
    light: Path, connection: Connection, database: Database
) -> None:
    """It takes events, delivers one and lets one die."""
    add_events(connection, 2)
    done = _run(
        light,
        "from dlq_pipelines import OutboxRepository, read_settings; s = read_settings()\n"
        "url = s.database_url.get_secret_value()\n"
        "with OutboxRepository(url, max_attempts=1, names=s.names) as outbox:\n"
        "    good, bad = outbox.fetch_pending(10)\n"
        "    outbox.mark_success(good.id)\n"
        "    outbox.mark_retry(bad.id, 'KeyError: 1')\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'dagster', 'pyarrow'}))",
        DLQ_DATABASE_URL=database.url,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert one(connection, "select count(*) as n from dlq.death") == {"n": 1}


def test_a_missing_extra_is_named_with_its_command(light: Path) -> None:
    done = _run(light, "from dlq_pipelines.cli.main import main; main()")
    assert done.returncode == 1
    assert "pip install 'dlq-pipelines[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["DeadLetterQueue", "dead_letter_definitions"])
def test_a_public_name_of_dagster_says_what_it_needs(light: Path, name: str) -> None:
    done = _run(light, f"from dlq_pipelines import {name}")
    assert "pip install 'dlq-pipelines[dagster]'" in done.stderr


def test_every_package_of_an_extra_is_known() -> None:
    """So that each is named when it is missing. `all` has what every face needs."""
    metadata = importlib.metadata.metadata("dlq-pipelines")
    extras = set(metadata.get_all("Provides-Extra") or ())
    assert set(_EXTRAS.values()) <= extras
    requires = importlib.metadata.requires("dlq-pipelines") or []
    known = {package.replace("_", "-") for package in _EXTRAS}
    for extra in ("exports", "reports", "alerts", "cli", "api"):
        own = [Requirement(r).name for r in requires if re.search(rf"extra == .{extra}.$", r)]
        named = {name.removesuffix("-python") for name in own if name != "dlq-pipelines"}
        assert named <= known | {"psycopg"}, extra
