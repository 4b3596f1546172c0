"""Runs Dagster's UI and daemon as one child process, and stops both."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import open_connection, prepare_dagster, prepare_embedded
from dlq_pipelines.outbox.reconcile import read_first_day
from dlq_pipelines.settings import Settings

_PACKAGE = Path(__file__).resolve().parent
# A wheel has the file inside the package, a checkout at the top level.
_WORKSPACE = next(
    (f for f in (_PACKAGE / "workspace.yaml", _PACKAGE.parent / "workspace.yaml") if f.is_file()),
    None,
)
_STOP_SECONDS = 30


def serve_dagster(settings: Settings, *, port: int) -> int:
    """Run Dagster until it ends or a signal arrives; return the exit code.

    Raises:
        DlqError: the database is unavailable or not migrated, or a file is missing.
    """
    if _WORKSPACE is None:
        raise DlqError("workspace.yaml is missing from this installation.", "Install it again.")
    prepare_embedded(settings)
    environment = os.environ | prepare_dagster(settings)
    with contextlib.closing(open_connection(settings)) as connection:
        first = read_first_day(connection, settings.zone)
    if first is not None:
        # Otherwise the UI counts days as missing on which nothing was recorded yet.
        environment.setdefault("DLQ_PARTITIONS_START", first.isoformat())
    if settings.database_url is None:
        environment.setdefault("DLQ_AUTOSTART", "true")
    set_pool_limit(settings, environment)
    # A shell ignores SIGINT for background jobs. Children inherit that, and Dagster would then stop
    # on neither SIGINT nor SIGTERM.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _raise_interrupt)
    # `ui_guard` runs `dagster dev`, and keeps pages of other sites out of its UI.
    # `dagster dev` announces `dg dev`, which requires a project folder; a wheel has none.
    quiet = "ignore:Function `dev_command` is superseded"
    command = [
        sys.executable,
        "-W",
        quiet,
        "-m",
        "dlq_pipelines.ui_guard",
        "dev",
        "-w",
        str(_WORKSPACE),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    # In its own session: Ctrl-C reaches Dagster once, from here, and its children can be found.
    child = subprocess.Popen(  # noqa: S603 - our own interpreter
        command, env=environment, start_new_session=True
    )
    try:
        return child.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop_dagster(child)


def set_pool_limit(settings: Settings, environment: Mapping[str, str]) -> None:
    """Give the pool of the jobs that write one slot in Dagster's instance.

    Raises:
        DlqError: Dagster cannot use its database.
    """
    pool = f"dlq_{settings.label}"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "dagster", "instance", "concurrency", "set", pool, "1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DlqError(
            f"The limit of the pool {pool} could not be set.",
            f"`dagster instance concurrency set {pool} 1` shows the reason.",
        )


def _raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _stop_dagster(child: subprocess.Popen[bytes]) -> None:
    """Interrupt Dagster; after half a minute, kill what is left of its session."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):  # no process is left
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
