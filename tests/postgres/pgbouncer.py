"""A PgBouncer in front of the server of the tests."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.memory import new_folder

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NO_PGBOUNCER = "there is no pgbouncer here; it comes with: apt-get install pgbouncer"


@contextmanager
def run_pgbouncer(url: str, *, sessions: int = 1, mode: str = "transaction") -> Iterator[str]:
    """Yield the URL of the same database through a pool of so many sessions of the server."""
    assert PGBOUNCER is not None
    parts = conninfo_to_dict(url)
    folder = new_folder()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = make_conninfo("", **{k: v for k, v in parts.items() if k != "dbname"})
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = {server}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {sessions}\n",
        encoding="utf-8",
    )
    # It does not run as root.
    account = "postgres" if os.geteuid() == 0 else None
    if account:
        shutil.chown(folder, account, account)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PGBOUNCER, str(config)], stderr=log, stdout=log, user=account)
    try:
        _wait_for_port(port, process, folder / "log")
        yield make_conninfo(
            "", host="127.0.0.1", port=port, user=parts["user"], dbname=parts["dbname"]
        )
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
