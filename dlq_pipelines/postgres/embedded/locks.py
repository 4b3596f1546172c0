"""Locks between processes, which the kernel releases when the last process that holds them ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from dlq_pipelines.errors import DatabaseUnavailableError

DECISION_LOCK = "postgres.lock"  # exclusive while a process decides to start or stop the server
USER_LOCK = "postgres.users"  # shared by every user; a user that gets it exclusively is the last
SERVER_LOCK = "postgres.server"  # shared by the server's processes, which inherit it
LOCK_NAMES = (DECISION_LOCK, USER_LOCK, SERVER_LOCK)
_WAIT_SECONDS = 120.0  # longer than a start or a stop of the server may take
_POLL_SECONDS = 0.02


class FileLock:
    """An open lock file; the end of the `with` block closes it and releases the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def share(self) -> None:
        """Take the lock together with other sharers. Requires that nobody holds it exclusively."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def try_exclusive(self) -> bool:
        """Take the lock exclusively, or return False when another process holds it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    @contextmanager
    def hold_exclusive(self) -> Iterator[None]:
        """Wait for the lock and hold it exclusively during a `with` block.

        Raises:
            DatabaseUnavailableError: another process held it for two minutes.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self.try_exclusive():
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    "Another process has been starting or stopping the embedded PostgreSQL for "
                    f"{_WAIT_SECONDS:.0f} s and holds the lock {self.path}.",
                    f"Find it with `fuser -v {self.path}`, end it, and run the command again.",
                )
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            self.unlock()

    def unlock(self) -> None:
        """Release the lock for forked children as well, which keep the file open."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
