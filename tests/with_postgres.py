"""Runs a command against a PostgreSQL other than the embedded one.

`python -m tests.with_postgres [BIN] -- COMMAND ...` starts a server with the programs in BIN
(default: the newest PostgreSQL of Debian) in a new folder and on a Unix socket, runs the command
with DLQ_TEST_DATABASE_URL, and stops the server.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.memory import new_folder


def main() -> int:
    """Start the server, run the command and stop the server; return the command's exit code."""
    split = sys.argv.index("--")
    programs = Path(sys.argv[1]) if split > 1 else _find_debian_programs()
    with running(programs) as url:
        version = subprocess.run(
            [programs / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        print(f"Testing on {version.stdout.strip()}", flush=True)
        return subprocess.run(
            sys.argv[split + 1 :], env=os.environ | {"DLQ_TEST_DATABASE_URL": url}, check=False
        ).returncode


def _find_debian_programs() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    if not found:
        sys.exit("PostgreSQL is not installed. Run apt-get install postgresql")
    return found[-1]


@contextmanager
def running(programs: Path) -> Iterator[str]:
    """Run a server and yield its URL. If root starts it, it runs as the user postgres."""
    account: dict[str, Any] = (
        {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
        if os.geteuid() == 0
        else {}
    )
    folder = new_folder()
    if account:
        shutil.chown(folder, "postgres", "postgres")
    data = str(folder / "data")
    control = [str(programs / "pg_ctl"), "-D", data, "-w", "-s"]
    try:
        initdb = [
            str(programs / "initdb"),
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ]
        subprocess.run([*initdb, "--no-sync"], check=True, stdout=subprocess.DEVNULL, **account)
        options = f"-k {folder} -c listen_addresses='' -c max_connections=200 -c fsync=off"
        start = [*control, "-l", str(folder / "log"), "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **account)
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **account)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
