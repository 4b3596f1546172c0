"""Runs spread over workers: a Redis, Celery workers, and runs, each in its own process."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
REDIS = shutil.which("redis-server")
CONFIG = "dagster_celery_config"
NO_REDIS = "there is no redis-server here; it comes with: apt-get install redis-server"


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis on a free port of the loopback, without persistence, and yield its URL."""
    assert REDIS is not None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [
        REDIS,
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for_port(port, server)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def worker(
    name: str, folder: Path, *, visibility_seconds: int, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker as in deploy/, with another visibility timeout, in its own session."""
    config = (ROOT / "deploy" / f"{CONFIG}.py").read_text(encoding="utf-8")
    (folder / name).mkdir()
    sooner = f"{config}broker_transport_options['visibility_timeout'] = {visibility_seconds}\n"
    (folder / name / f"{CONFIG}.py").write_text(sooner, encoding="utf-8")
    command = [
        str(Path(sys.executable).parent / "celery"),
        "-A",
        "dagster_celery.app",
        "worker",
        "--loglevel",
        "INFO",
        "-Q",
        "dlq",
    ]
    command += ["-n", f"{name}@%h", "--concurrency", "1"]
    given = environment or dict(os.environ)
    given = given | {
        "PYTHONPATH": os.pathsep.join(
            [str(folder / name), *filter(None, [given.get("PYTHONPATH")])]
        )
    }
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=given, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its children at once, as a failed machine does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def exporting(days: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a run for each day in a process that prints which days succeeded."""
    command = [sys.executable, "-m", "tests.spread", *days]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def read_results(runs: subprocess.Popen[str]) -> dict[str, bool]:
    """Return which days succeeded. Does not wait for the process: a run may leave children."""
    assert runs.stdout is not None
    succeeded: dict[str, bool] = json.loads(runs.stdout.readline())
    return succeeded


def _export(day: str) -> bool:
    # Each worker loads the job, as from a code location.
    job = ReconstructableRepository.for_module(
        "dlq_pipelines.definitions", "defs"
    ).get_reconstructable_job("export_day")
    with dg.DagsterInstance.get() as instance:
        tags = {"dagster/partition": day}
        return dg.execute_job(job, instance=instance, tags=tags, raise_on_error=False).success


if __name__ == "__main__":
    # Processes, because Dagster runs one job per process; as many as deploy/dagster.yaml lets the
    # queue start. They are forked from this one, which has imported what they need.
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableRepository

    import dlq_pipelines.definitions  # noqa: F401

    with multiprocessing.get_context("fork").Pool(10) as processes:
        done = processes.map(_export, sys.argv[1:], chunksize=1)
        print(json.dumps(dict(zip(sys.argv[1:], done, strict=True))), flush=True)
