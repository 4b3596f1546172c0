"""Finds the data folder of a home, and gives a home of root a folder of its own.

The data folder is `$DLQ_HOME/postgres`. An unprivileged account cannot enter a home such as /root,
so for root `$DLQ_HOME/postgres` is a link to a data folder under `STATE_DIRECTORY`:

    cluster-<random>/
        data        the data folder, which the server's account owns
        home        link to the home; only that home uses this folder
        link        hard link to the link in the home, where both are on one filesystem
        postgres.*  lock files

Only the link in the home assigns a folder to it. A home without the link is new and gets a new
folder. Nothing changes the mode of an existing folder.
"""

import logging
import os
import shlex
import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded.account import choose_server_account, find_server_account
from dlq_pipelines.postgres.embedded.cluster import Cluster, find_socket_folder
from dlq_pipelines.postgres.embedded.locks import LOCK_NAMES, FileLock
from dlq_pipelines.postgres.embedded.programs import STATE_DIRECTORY, lock_state_directory

_log = logging.getLogger(__name__)


def find_cluster(home: Path) -> Cluster:
    """Return the cluster of a home; it need not be initialized.

    Args:
        home: an existing folder, links resolved.

    Raises:
        DatabaseUnavailableError: the link in the home must not be followed; the message has the
            reason and the command that resolves it.
    """
    link = home / "postgres"
    if os.geteuid() != 0:
        data, locks = _resolve_link(home)
    else:
        with lock_state_directory():
            if not os.path.lexists(link):
                _remove_abandoned_folders(home)
                _create_folder(home)
            data, locks = _resolve_link(home)
            if locks != home:
                _register_link(link, locks / "link")
    account = find_server_account(data)
    return Cluster(data, locks, find_socket_folder(data, account), account)


def _resolve_link(home: Path) -> tuple[Path, Path]:
    """Return the data folder and the folder of its lock files."""
    link = home / "postgres"
    if not link.is_symlink():
        return link, home
    data = Path(os.path.realpath(link))
    if not data.exists():
        raise DatabaseUnavailableError(
            f"{link} links to {data}, which does not exist.",
            "Restore that folder, or remove the link to begin with an empty database.",
        )
    if os.geteuid() == 0 and link.lstat().st_uid not in (0, data.stat().st_uid):
        raise DatabaseUnavailableError(
            f"{link} links to {data}, and belongs neither to root nor to that folder's owner.",
            "Remove the link, or choose another DLQ_HOME.",
        )
    folder = data.parent
    if folder.parent != STATE_DIRECTORY:
        return data, home
    recorded = (folder / "home").readlink()
    if not (recorded.exists() and recorded.samefile(home)):
        move = f"ln -sfn {shlex.quote(str(home))} {folder / 'home'}"
        raise DatabaseUnavailableError(
            f"{link} links to {data}, the database of the home {recorded}.",
            f"If that home was moved here, run `{move}`. If this home is a copy, run "
            f"`rm {shlex.quote(str(link))}` to begin with an empty database.",
        )
    return data, folder


def _create_folder(home: Path) -> None:
    """Create a folder and, when it is complete, the link to it.

    A process that is killed before it creates the link leaves a folder without a database, which
    `_remove_abandoned_folders` removes.
    """
    account = choose_server_account()
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=STATE_DIRECTORY))
    folder.chmod(0o755)
    (folder / "home").symlink_to(home)
    data = folder / "data"
    data.mkdir(mode=0o700)
    os.chown(data, account.uid, account.gid)
    (home / "postgres").symlink_to(data)


def _register_link(link: Path, twin: Path) -> None:
    """Make `twin` a hard link to the home's link, whose link count shows when it was deleted.

    On two filesystems this is impossible: then the folder has no `link` and is never removed.
    """
    if os.path.lexists(twin) and os.path.samestat(twin.lstat(), link.lstat()):
        return
    twin.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(link, twin, follow_symlinks=False)


def _remove_abandoned_folders(home: Path) -> None:
    """Remove the folders of deleted homes at this path, and what killed processes left.

    The home has no link now, but a home that was moved away may still link to a folder.
    """
    for folder in STATE_DIRECTORY.glob("cluster-*"):
        recorded = folder / "home"
        with suppress(OSError):  # a person may be removing the folder
            if recorded.is_symlink() and recorded.readlink() != home:
                continue
            if not _remove_if_abandoned(folder):
                _log.warning(
                    "%s holds the database of an earlier home at %s. It is in use, or a moved "
                    "home may link to it. Remove the folder when you no longer need it.",
                    folder,
                    home,
                )


def _remove_if_abandoned(folder: Path) -> bool:
    """Remove a folder that no process uses, if it has no data or its link was deleted for certain.

    The hard link proves the deletion: it is the only name that is left of the link.
    """
    twin, data = folder / "link", folder / "data"
    is_link_deleted = twin.is_symlink() and twin.lstat().st_nlink == 1
    if not is_link_deleted and data.exists() and any(data.iterdir()):
        return False
    with ExitStack() as opened:
        locks = [opened.enter_context(FileLock(folder / name)) for name in LOCK_NAMES]
        is_free = all(lock.try_exclusive() for lock in locks)
        if is_free:
            shutil.rmtree(folder, ignore_errors=True)
    return is_free
