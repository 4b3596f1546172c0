"""`dagster dev` in the root of the project."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from time import monotonic, sleep

import psutil

from tests.clicks import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def test_dagster_dev_in_the_root_serves_the_location_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """No process is left."""
    port = free_port()
    given = os.environ | {"DAGSTER_HOME": str(tmp_path), "DLQ_HOME": str(tmp_path / "dlq")}
    running = subprocess.Popen(
        [BIN / "dagster", "dev", "-p", str(port)],
        env=given,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        assert _jobs_served(port) >= {"flag_fix", "retry_stage", "export_day"}
        family = psutil.Process(running.pid).children(recursive=True)
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
    assert psutil.wait_procs(family, timeout=30)[1] == []


def _jobs_served(port: int) -> set[str]:
    """Wait for the code location and return its jobs."""
    query = (
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name }"
        " pipelines { name } } } } }"
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    until = monotonic() + 240
    while monotonic() < until:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                nodes = json.load(answer)["data"]["repositoriesOrError"]["nodes"]
        except (urllib.error.URLError, ConnectionError):
            sleep(0.2)
            continue
        if nodes:
            assert nodes[0]["location"]["name"] == "dlq_pipelines"
            return {job["name"] for job in nodes[0]["pipelines"]}
    raise AssertionError("dagster dev serves no location")
