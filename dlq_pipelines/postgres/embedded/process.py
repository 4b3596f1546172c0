"""Starts and stops the server process of a cluster."""

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from psycopg.pq import PGconn, Ping

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded.account import build_process_options
from dlq_pipelines.postgres.embedded.cluster import SOCKET, Cluster
from dlq_pipelines.postgres.embedded.locks import SERVER_LOCK, FileLock

_START_SECONDS = 60.0  # after a crash, a start first replays up to max_wal_size
_STOP_SECONDS = 60.0  # a stop writes a checkpoint
_POLL_SECONDS = 0.02
_LOG_DAYS = 6  # an older log of the same weekday is last week's


def ensure_server_runs(cluster: Cluster, programs: Path) -> None:
    """Return when the server answers. Requires the decision lock.

    A server that is starting, recovering or stopping is waited for, and so are the processes of a
    killed server, which can outlive it for a moment and use its shared memory.

    Raises:
        DatabaseUnavailableError: the server does not start, or does not answer in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    is_launched = False
    with tempfile.TemporaryFile() as errors:  # what the server writes before it opens its log
        while (answer := _ping_server(cluster)) != Ping.OK:
            if answer == Ping.NO_RESPONSE and _is_server_gone(cluster):
                if is_launched:
                    raise DatabaseUnavailableError(
                        f"The embedded PostgreSQL in {cluster.data} cannot start: "
                        f"{_read_failure(cluster.logs, errors)} Its log is in {cluster.logs}.",
                        "Resolve this and run the command again, or set DLQ_DATABASE_URL.",
                    )
                _launch_server(cluster, programs, errors)
                is_launched = True
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"The embedded PostgreSQL in {cluster.data} does not answer after "
                    f"{_START_SECONDS:.0f} s. Its log is in {cluster.logs}.",
                    f"Find its processes with `fuser -v {cluster.locks / SERVER_LOCK}`, end them, "
                    "and run the command again.",
                )
            time.sleep(_POLL_SECONDS)


def _ping_server(cluster: Cluster) -> Ping:
    return Ping(PGconn.ping(f"{cluster.url('postgres')}&connect_timeout=2".encode()))


def _is_server_gone(cluster: Cluster) -> bool:
    """Whether no process of the server is left, also none that outlived a killed server."""
    with FileLock(cluster.locks / SERVER_LOCK) as lock:
        is_gone = lock.try_exclusive()
        if is_gone:
            lock.unlock()
    return is_gone


def _launch_server(cluster: Cluster, programs: Path, errors: IO[bytes]) -> None:
    """Start the server as the child of a shell that ends at once.

    Thus the server survives this process, and does not become its zombie. The lock files of
    PostgreSQL are stale when no process of the server is left. They are removed because PostgreSQL
    does not start while another process has the process number in them.
    """
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
    (cluster.sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
    for log in cluster.logs.glob("server-*.log"):
        # The server empties last week's log itself only when it runs at midnight.
        if time.time() - log.stat().st_mtime > _LOG_DAYS * 86_400:
            log.unlink(missing_ok=True)
    server = (programs / "postgres", "-k", cluster.sockets, "-D", cluster.data)
    with FileLock(cluster.locks / SERVER_LOCK) as lock:
        lock.share()
        subprocess.run(  # noqa: S603 - the script is constant; its arguments are paths
            ["/bin/sh", "-c", '"$0" "$@" >&2 &', *server],
            check=True,
            stderr=errors,
            pass_fds=[lock.descriptor],
            **build_process_options(cluster.account),
        )


def _read_failure(logs: Path, errors: IO[bytes]) -> str:
    """Return the server's message from before it opened its log, or the log's last FATAL."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").splitlines()
    newest = max(logs.glob("server-*.log"), key=lambda log: log.stat().st_mtime, default=None)
    if newest and not any("FATAL:" in line for line in lines):
        logged = newest.read_bytes()[-8192:].decode(errors="replace").splitlines()
        # "the database system is starting up" answers a ping.
        fatal = re.compile(r"\b(FATAL|PANIC):(?!  the database system is )")
        lines = [line for line in logged if fatal.search(line)][-1:] or lines
    return " ".join(line.strip() for line in lines[-3:]) or "the server gave no reason."


def stop_server(cluster: Cluster) -> None:
    """Request a fast shutdown and wait until no process of the server is left.

    A fast shutdown closes the clients' connections and keeps committed work.

    Raises:
        DatabaseUnavailableError: the server still runs after a minute.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    is_requested = False
    while not _is_server_gone(cluster):
        # A server that answers wrote this file, so the process number is its own.
        if not is_requested and _ping_server(cluster) != Ping.NO_RESPONSE:
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):
                pid = int((cluster.data / "postmaster.pid").read_text().split("\n", 1)[0])
                os.kill(pid, signal.SIGINT)
                is_requested = True
        if time.monotonic() > deadline:
            raise DatabaseUnavailableError(f"it runs {_STOP_SECONDS:.0f} s after a stop request")
        time.sleep(_POLL_SECONDS)
