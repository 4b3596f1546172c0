"""Measures how long a command, a completion, the definitions and `dlq up` take to start."""

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figure import TARGET, Figure
from tests.databases import scratch_server

ROUNDS = 5
BIN = Path(sys.executable).parent
COMPLETION = {
    "_DLQ_COMPLETE": "complete_bash",
    "COMP_WORDS": "dlq dead-events re",
    "COMP_CWORD": "2",
}


def measure() -> Iterator[Figure]:
    """Yield the seconds of each command, and of `dlq up` until its first answer."""
    dlq = str(BIN / "dlq")
    bare = _measure_command([sys.executable, "-c", "pass"])
    yield Figure("dlq --help", _measure_command([dlq, "--help"]), bare, 6.0, "python -c pass")
    completing = _measure_command([dlq], **COMPLETION)
    yield Figure("completing a word in bash", completing, bare, 6.0, "python -c pass")
    peer = [sys.executable, "-c", "import dagster, dagster_postgres"]
    load = [sys.executable, "-c", "import dlq_pipelines.definitions"]
    yield Figure(
        "loading the definitions",
        _measure_command(load),
        _measure_command(peer),
        1.6,
        "import dagster, dagster_postgres",
    )
    with scratch_server() as (folder, _):
        yield Figure("dlq up until it answers", _measure_up(folder / "home"), 20.0, 1.0, TARGET)


def _measure_command(command: list[str], **environment: str) -> float:
    """Return the median seconds of a few runs, after one that warms the caches."""
    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        done = subprocess.run(
            command, env=os.environ | environment, check=False, capture_output=True
        )
        assert done.stdout or not done.returncode, done.stderr
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _measure_up(home: Path) -> float:
    """Return the seconds of the first start, which also creates the tables and Dagster's database.

    Raises:
        OSError: the server ended, or did not answer within two minutes.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started = time.perf_counter()
    running = subprocess.Popen(
        [BIN / "dlq", "up", "--port", str(port)],
        env=os.environ | {"DLQ_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5).close()
            except (urllib.error.URLError, ConnectionError):
                if running.poll() is not None or time.perf_counter() - started > 120:
                    raise
                time.sleep(0.05)
            else:
                return time.perf_counter() - started
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
