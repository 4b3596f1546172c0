"""Where do the servers of tests keep their files? In memory where there is room, else where temporary files are."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

from dlq_pipelines.postgres.embedded.account import choose_server_account
from dlq_pipelines.postgres.embedded.programs import STATE_DIRECTORY

_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is new and ours
# Of a whole run: databases come and go, and the log of what was written is a gigabyte.
_ROOM = 4 * 2**30
_NAME = "dlq-tests-"


def new_folder() -> Path:
    """A new folder that any account can enter. What killed runs left in memory goes first."""
    for old in _MEMORY.glob(f"{_NAME}*"):
        if not psutil.pid_exists(int(old.name.split("-")[2])):
            shutil.rmtree(old, ignore_errors=True)
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    # Short: a socket's path may have 107 bytes.
    folder = Path(  # noqa: S108
        tempfile.mkdtemp(prefix=f"{_NAME}{os.getpid()}-", dir=_MEMORY if roomy else "/tmp")
    )
    folder.chmod(0o755)
    return folder


def home_in_memory() -> Path:
    """A `DLQ_HOME` in such a folder, whose embedded server keeps its data there too, for root as well."""
    home = new_folder() / "home"
    home.mkdir()
    if os.geteuid() == 0:
        data = home.parent / "data"
        account = choose_server_account()
        data.mkdir(mode=0o700)
        os.chown(data, account.uid, account.gid)
        (home / "postgres").symlink_to(data)
    return home


def remove_data(home: Path) -> None:
    """Remove the data of a home's server, which lies elsewhere when root started the server."""
    data = (home / "postgres").resolve()
    is_in_state_directory = data.parent.parent == STATE_DIRECTORY
    shutil.rmtree(data.parent if is_in_state_directory else data, ignore_errors=True)
