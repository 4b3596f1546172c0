"""Runs an installation as deploy/ describes it: its units, its dagster.yaml, its workspace.

It restarts units that end and kills the processes that they leave, as systemd does. The database
is an embedded server that a test can stop.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import psutil
import psycopg
import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.installation import create_tables
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.embedded import EmbeddedServer, start_server
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from tests.rows import add_events, kill

ROOT = Path(__file__).parents[1]
UTC = ZoneInfo("UTC")
CANARY = 10


class Unit:
    """A service whose command is restarted whenever it ends."""

    def __init__(self, name: str, environment: dict[str, str], folder: Path) -> None:
        text = (ROOT / "deploy" / "systemd" / f"{name}.service").read_text(encoding="utf-8")
        (line,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
        line = line.replace("/opt/dlq/bin", str(Path(sys.executable).parent)).replace(
            "/etc/dlq", str(ROOT / "deploy")
        )
        self._command = shlex.split(
            re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], line)
        )
        self._environment, self._folder = environment, folder
        self.log = folder / f"{name}.log"
        self.starts = 0
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        with self.log.open("ab") as log:
            while not self._stopping.is_set():
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    cwd=self._folder,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                self.starts += 1
                self._process.wait()
                self._sweep()
                self._stopping.wait(1)

    def _sweep(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def process(self) -> psutil.Process:
        """The main process of the service."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def kill(self) -> None:
        """Kill the main process, as the kernel does when memory is short."""
        self.process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the service and its child processes."""
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._sweep()
        self._keeper.join(30)


@dataclass
class Production:
    """A running installation.

    Attributes:
        database: the outbox.
        units: its services: the code location, then the daemon.
    """

    folder: Path
    home: Path
    environment: dict[str, str]
    server: EmbeddedServer
    database: Database
    units: list[Unit] = field(default_factory=list)

    def start(self, name: str) -> Unit:
        """Start a unit of deploy/systemd; it is stopped with the installation."""
        self.units.append(Unit(name, self.environment, self.folder))
        return self.units[-1]

    @property
    def port(self) -> int:
        """The port of the code location."""
        return int(self.environment["DLQ_CODE_PORT"])

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open Dagster's instance."""
        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as opened:
            yield opened

    def stop_database(self, seconds: float) -> None:
        """Stop the server for this time; every connection breaks."""
        data = (self.home / "postgres").resolve()
        postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        postmaster.send_signal(signal.SIGINT)
        postmaster.wait(60)
        time.sleep(seconds)
        self.server.release()
        self.server = start_server(self.home)

    def flag(self, name: str) -> int:
        """Flag a fix of ten events that died of an error of that name, and return its id."""
        with self.database.connect() as connection:
            # Events of earlier fixes are delivered, or the worker would be behind.
            connection.execute("update outbox_event set status = 'done' where status = 'pending'")
            add_events(connection, CANARY, event_type=name)
            # In their own aggregates, or they would wait for earlier events.
            connection.execute(
                "update outbox_event set aggregate_type = %s where event_type = %s", [name, name]
            )
            kill(connection, f"{name}: no answer", where=f"event_type = '{name}'")
            classify_deaths(connection, zone=UTC)
            now = connection.fetch_one("session.clock")["now"]
            return flag_fix(
                connection,
                FixFlag(Selection(event_type=name)),
                audit=AuditContext("ann", "fixed", now),
            ).id

    def count_released(self, fix: int) -> tuple[int, int, int]:
        """Return a fix's rows in the ledger of retries, their events, and the stage's count."""
        statement = (
            "select count(*), count(distinct event_id), (select coalesce(sum(released), 0)::int"
            " from dlq.fix_stage"
            " where fix_id = %(fix)s) from dlq.retry where fix_id = %(fix)s"
        )
        with psycopg.connect(self.database.url) as connection:
            row = connection.execute(statement, {"fix": fix}).fetchone()
        assert row is not None
        return row

    def list_runs(self, fix: int) -> list[dg.DagsterRun]:
        """Return the runs of a fix in their order."""
        with self.instance() as instance:
            return [
                r.dagster_run for r in instance.get_run_records(_filter_runs(fix), ascending=True)
            ]

    def wait_for_release(self, fix: int, *, seconds: float = 400) -> float:
        """Wait until the fix has released its canary once, and return the seconds."""
        started = time.monotonic()
        wait_until(
            lambda: self.count_released(fix)[0] >= CANARY,
            f"fix {fix} releases nothing",
            seconds=seconds,
        )
        wait_until(
            lambda: all(run.is_finished for run in self.list_runs(fix)),
            f"a run of fix {fix} does not end",
            seconds=60,
        )
        assert self.count_released(fix) == (CANARY, CANARY, CANARY)
        return time.monotonic() - started


def _filter_runs(fix: int) -> dg.RunsFilter:
    return dg.RunsFilter(tags={"dlq/fix": str(fix)})


def wait_until(true: Callable[[], object], otherwise: str, *, seconds: float) -> None:
    """Poll a condition; the database may be stopped meanwhile.

    Raises:
        AssertionError: the condition is not true in time.
    """
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            if true():
                return
        assert time.monotonic() < until, otherwise
        time.sleep(0.2)


@contextmanager
def run_production(folder: Path, **variables: str) -> Iterator[Production]:
    """Run code location and daemon on a new database, with these additional variables."""
    home = folder / "server"
    server = start_server(home)
    outbox, dagster = server.ensure_database("outbox"), server.ensure_database("dagster")
    create_tables(Database(outbox))
    instance = folder / "dagster"
    instance.mkdir()
    (instance / "dagster.yaml").write_bytes((ROOT / "deploy" / "dagster.yaml").read_bytes())
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("DLQ_", "DAGSTER_"))
    } | {
        "DAGSTER_HOME": str(instance),
        "DLQ_HOME": str(folder / "dlq"),
        "DLQ_DATABASE_URL": outbox,
        "DLQ_DAGSTER_URL": dagster.replace("postgresql://", "postgresql+psycopg2://"),
        "DLQ_CODE_HOST": "127.0.0.1",
        "DLQ_CODE_PORT": str(_free_port()),
        "DLQ_AUTOSTART": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    environment |= variables
    running = Production(folder, home, environment, server, Database(outbox))
    with pytest.MonkeyPatch.context() as patch:
        # dagster.yaml reads this variable in the test's process too.
        patch.setenv("DLQ_DAGSTER_URL", environment["DLQ_DAGSTER_URL"])
        try:
            running.start("dlq-code-location")
            running.start("dlq-daemon")
            yield running
        finally:
            for unit in reversed(running.units):
                unit.stop()
            running.server.release()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
