"""Kills, full and read-only disks leave no partial file; the next export completes the day."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlq_pipelines.postgres.connect import Connection, Database
from tests.drills.exports import CHILD, add_deaths, require_whole, survive_kills

ROOT = Path(__file__).parents[2]
# In its own mount namespace: a small disk that fills up, then turns read-only. Prints the errors.
DISKS = """
import subprocess, sys
from pathlib import Path
from dlq_pipelines.errors import DlqError
from dlq_pipelines.exports.export import verify_day
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.postgres.connect import Database
from tests.drills import exports as drill

database, folder = Database(sys.argv[1]), Path(sys.argv[2])

def mount(options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True)

def read_files():
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "filler")
    return {str(path): path.read_bytes() for path in files}

def require_refusal(target):
    before = read_files()
    try:
        drill.export(database, target)
    except DlqError as error:
        print(error)
        assert read_files() == before
    else:
        raise AssertionError("the export was not refused")

mount("size=16m")
target = open_local_target(folder)
drill.export(database, target)
with database.connect() as connection:
    drill.add_deaths(connection, 1)
filler = folder / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
with filler.open("r+b") as file:
    file.truncate(filler.stat().st_size - 200_000)
require_refusal(target)
filler.unlink()
mount("remount,ro")
require_refusal(target)
mount("remount,rw,size=16m")
drill.export(database, target)
with database.connect() as connection:
    print(verify_day(connection, day=drill.DAY, target=target, now=drill.NOW))
"""


def test_killed_export_leaves_no_partial_file(database: Database, tmp_path: Path) -> None:
    """`make drill` kills more exports."""
    assert survive_kills(database, tmp_path, kills=4, seed=1) > 0


def test_full_or_read_only_disk_is_reported_and_keeps_the_old_files(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """The space of unfinished files is freed. The day is exported once there is room."""
    # Root needs no user namespace, in which it could not enter the folder of the server.
    own_disks = ["unshare", "-m" if os.getuid() == 0 else "-rm"]
    if not shutil.which("unshare") or subprocess.run([*own_disks, "true"], check=False).returncode:
        pytest.skip("unprivileged mounts are disabled")
    add_deaths(connection, 20_000)
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [*own_disks, sys.executable, "-c", DISKS, database.url, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr[-2000:]) == (0, "")
    begin, end = (
        f"The export of 2026-03-10 cannot be written to {folder}/dead_events: ",
        "then export the day again.",
    )
    assert done.stdout.splitlines() == [
        f"{begin}No space left on device. Resolve this, {end}",
        f"{begin}Read-only file system. Resolve this, {end}",
        "[]",
    ]


def test_file_size_limit_is_reported_and_keeps_the_old_files(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """The limit of a process has the same effect as a quota."""
    add_deaths(connection, 20_000)
    command = [sys.executable, "-c", CHILD, database.url, str(tmp_path / "x"), str(tmp_path)]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.stderr.splitlines()[-1].endswith(
        "dead_events: File too large. Resolve this, then export the day again."
    )
    assert [path for path in (tmp_path / "x").rglob("*") if path.is_file()] == []
    require_whole(tmp_path / "x" / "dead_events")
