"""Creates the data folder (the "database cluster") with the settings of the embedded server."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded.account import ServerAccount, build_process_options
from dlq_pipelines.postgres.embedded.programs import MAJOR

SOCKET = ".s.PGSQL.5432"
_SOCKET_BYTES = 100  # the kernel limits a socket's path to 104 (macOS) or 108 bytes (Linux)
_INITDB_SECONDS = 60.0

# The server's settings that differ from PostgreSQL's defaults. fsync stays on.
SETTINGS = {
    "listen_addresses": "",  # no TCP: other accounts of the machine can reach the loopback
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # Dagster opens a pool per process
    "shared_buffers": "128MB",
    "wal_level": "minimal",  # no replication
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "TimeZone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",  # one file per weekday, truncated a week later
    "log_filename": "server-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_min_messages": "log",  # the client reports a failed statement, which may hold payloads
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class Cluster:
    """The files of one home's server.

    Attributes:
        data: the data folder, links resolved.
        locks: the folder of the lock files.
        sockets: the folder of the Unix socket, which only the server's account and root can enter.
        account: the account that runs the server; None: the caller's.
    """

    data: Path
    locks: Path
    sockets: Path
    account: ServerAccount | None

    @property
    def logs(self) -> Path:
        """The folder of the server's log files."""
        return self.data / "log"

    def url(self, database: str) -> str:
        """The URI of a database of this server."""
        host = quote(str(self.sockets), safe="")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port=5432"


def initialize_cluster(cluster: Cluster, programs: Path) -> None:
    """Create the data folder when it is absent or empty. Requires the decision lock.

    initdb writes to a sibling folder that is renamed at the end, so that the remains of an
    interrupted initdb are not taken for a database.

    Raises:
        DatabaseUnavailableError: the folder holds other files or the data of another major
            version of PostgreSQL, or initdb fails.
    """
    data, account = cluster.data, cluster.account
    if (data / "PG_VERSION").exists():
        _check_version(data)
        return
    if data.exists() and any(data.iterdir()):
        raise DatabaseUnavailableError(
            f"{data} holds files that are not a PostgreSQL database.",
            "Move them away, or choose another DLQ_HOME.",
        )
    # An initdb can outlive the process that started it and was killed. It goes on writing to its
    # folder, so each attempt has its own.
    for abandoned in data.parent.glob(f"{data.name}.new*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
    if account:
        os.chown(fresh, account.uid, account.gid, follow_symlinks=False)
    _run_initdb(fresh, programs, account)
    fresh.rename(data)


def _run_initdb(data: Path, programs: Path, account: ServerAccount | None) -> None:
    options = ["--auth-local=trust", "--auth-host=reject", "--username=postgres"]
    options += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
    options += ["--builtin-locale=C.UTF-8", "--no-instructions"]
    options += [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    initdb = subprocess.run(  # noqa: S603 - the program is the wheel's, and no shell is used
        [str(programs / "initdb"), *options, "-D", str(data)],
        capture_output=True,
        check=False,
        timeout=_INITDB_SECONDS,
        **build_process_options(account),
    )
    if initdb.returncode:
        reason = " ".join(initdb.stderr.decode(errors="replace").strip().splitlines()[-2:])
        raise DatabaseUnavailableError(
            f"The embedded PostgreSQL cannot create {data}: {reason}.",
            "Resolve this and run the command again, or set DLQ_DATABASE_URL.",
        )


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != str(MAJOR):
        raise DatabaseUnavailableError(
            f"PostgreSQL {found[:10]} created {data}, and this release runs PostgreSQL {MAJOR}.",
            "Dump it with the release that created it and restore the dump here, or move the "
            "folder away to begin with an empty database.",
        )


def find_socket_folder(data: Path, account: ServerAccount | None) -> Path:
    """Return the data folder, or a folder in /tmp when the data folder's path is not usable.

    Every login is trusted, so the folder must have mode 0700, which the data folder has. A path is
    not usable when it is too long for a socket or has characters (`,` `:` `@`) that drivers
    interpret.

    Raises:
        DatabaseUnavailableError: another account can enter the folder in /tmp.
    """
    is_short = len(os.fsencode(data / SOCKET)) <= _SOCKET_BYTES
    if is_short and re.fullmatch(r"[A-Za-z0-9/._-]+", str(data)):
        return data
    uid = account.uid if account else os.geteuid()
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    folder = Path("/tmp") / f"dlq-{uid}-{digest}"  # noqa: S108 - owner and mode are checked below
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if account and status.st_uid == 0 and stat.S_ISDIR(status.st_mode):  # created just now by root
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise DatabaseUnavailableError(
            f"{folder} is for the server's socket, but another account owns it or can enter it.",
            "Remove the folder, or choose a shorter DLQ_HOME.",
        )
    return folder
