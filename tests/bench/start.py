"""How long does somebody wait who types a command or a tab, loads the definitions, or brings Dagster up?"""

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

from tests.bench.figure import Figure
from tests.databases import scratch_server

ROUNDS = 5
BIN = Path(sys.executable).parent
TAB = {"_DLQ_COMPLETE": "complete_bash", "COMP_WORDS": "dlq dead-events re", "COMP_CWORD": "2"}


def measure() -> Iterator[Figure]:
    """The help, what a shell asks for at each tab, the definitions, and `dlq up` until its first answer."""
    yield Figure("dlq --help", _seconds([str(BIN / "dlq"), "--help"]), 0.4, 1.0, "what is promised")
    yield Figure(
        "completing a word in bash",
        _seconds([str(BIN / "dlq")], **TAB),
        0.4,
        1.0,
        "what is promised of help",
    )
    load = [sys.executable, "-c", "import dlq_pipelines.definitions"]
    yield Figure("loading the definitions", _seconds(load), 2.5, 1.0, "what is promised")
    with scratch_server() as (folder, _):
        yield Figure("dlq up until it answers", _up(folder / "home"), 20.0, 1.0, "what is promised")


def _seconds(command: list[str], **environment: str) -> float:
    """The median of a few runs after one that warms the caches."""
    seconds = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        done = subprocess.run(
            command, env=os.environ | environment, check=False, capture_output=True
        )
        assert done.stdout or not done.returncode, done.stderr
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def _up(home: Path) -> float:
    """With the tables and Dagster's database made on the way, as on the first day."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    begun = time.perf_counter()
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
                if running.poll() is not None or time.perf_counter() - begun > 120:
                    raise
                time.sleep(0.05)
            else:
                return time.perf_counter() - begun
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
