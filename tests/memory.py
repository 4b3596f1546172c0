"""Creates folders for the servers of tests: in memory if there is room, otherwise in `/tmp`."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

from dlq_pipelines.postgres.embedded.account import choose_server_account
from dlq_pipelines.postgres.embedded.programs import STATE_DIRECTORY

_MEMORY = Path("/dev/shm")  # noqa: S108 - a new folder is created in it
# Bytes that a whole run needs: the databases, and a write-ahead log of a gigabyte.
_ROOM = 4 * 2**30
_NAME = "dlq-tests-"


def new_folder() -> Path:
    """Create a folder that every account can read; remove the folders of killed runs in memory."""
    for old in _MEMORY.glob(f"{_NAME}*"):
        if not psutil.pid_exists(int(old.name.split("-")[2])):
            shutil.rmtree(old, ignore_errors=True)
    has_room = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    # A short path, because that of a socket has at most 107 bytes.
    parent = _MEMORY if has_room else Path("/tmp")  # noqa: S108
    folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}{os.getpid()}-", dir=parent))
    folder.chmod(0o755)
    return folder


def home_in_memory() -> Path:
    """Create a `DLQ_HOME` in such a folder; its embedded server keeps its data there too."""
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
