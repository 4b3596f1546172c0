"""Runs spread over workers: a Redis, Celery's workers, and the runs that wait for them, each a process of its own."""

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
    """The URL of a Redis of the test's own, on a free port of the loopback, that keeps nothing on disk."""
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
    """A worker as deploy/ says, but for how soon a dead one's step goes to another. A session of its own."""
    config = (ROOT / "deploy" / f"{CONFIG}.py").read_text(encoding="utf-8")
    (folder / name).mkdir()
    sooner = f"{config}broker_transport_options['visibility_timeout'] = {visibility_seconds}\n"
    (folder / name / f"{CONFIG}.py").write_text(sooner, encoding="utf-8")
    bin_ = Path(sys.executable).parent
    command = [
        bin_ / "celery",
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
    """As when its machine is gone: the worker, and the children that do its work, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def exporting(days: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A run for each day, all at once, in a process that prints which days succeeded, in a session of its own."""
    command = [sys.executable, "-m", "tests.spread", *days]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def said(runs: subprocess.Popen[str]) -> dict[str, bool]:
    """Which days succeeded. Its end is not waited for: what a run leaves behind may hold that up."""
    assert runs.stdout is not None
    succeeded: dict[str, bool] = json.loads(runs.stdout.readline())
    return succeeded


def _export(day: str) -> bool:
    # Loaded anew by each worker, as from a code location.
    job = ReconstructableRepository.for_module(
        "dlq_pipelines.definitions", "defs"
    ).get_reconstructable_job("export_day")
    with dg.DagsterInstance.get() as instance:
        tags = {"dagster/partition": day}
        return dg.execute_job(job, instance=instance, tags=tags, raise_on_error=False).success


if __name__ == "__main__":
    # Processes: Dagster runs no two jobs in one. As many at a time as deploy/dagster.yaml lets the queue start; forked
    # from this one, which has imported already what they need.
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableRepository

    import dlq_pipelines.definitions  # noqa: F401 - for the processes that are forked

    with multiprocessing.get_context("fork").Pool(10) as processes:
        done = processes.map(_export, sys.argv[1:], chunksize=1)
        print(json.dumps(dict(zip(sys.argv[1:], done, strict=True))), flush=True)  # noqa: T201 - what the test reads
