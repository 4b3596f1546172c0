"""The embedded server, with real processes and signals.

A test that changes its home has one of its own. tests/drills/drill_embedded.py kills it while it
starts, and deletes its homes.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import adbc_driver_postgresql.dbapi
import psutil
import psycopg
import pytest
import sqlalchemy

import dlq_pipelines
from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded import start_server
from dlq_pipelines.postgres.embedded.cluster import SETTINGS
from dlq_pipelines.postgres.embedded.programs import PACKAGE, STATE_DIRECTORY

REPOSITORY = Path(dlq_pipelines.__file__).parents[1]
PACKAGES = Path(sysconfig.get_paths()["purelib"])
ROOT = os.geteuid() == 0
TMP = Path("/tmp")  # noqa: S108 - other accounts cannot enter pytest's own folders
ACCOUNT_FILES = [Path("/etc/passwd"), Path("/etc/group"), Path("/etc/shadow")]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="the extra dlq-pipelines[embedded] is not installed",
)
only_root = pytest.mark.skipif(not ROOT, reason="only root runs the server as another account")

# A process that uses the server until it reads a line on its standard input.
USER = """
import sys
from pathlib import Path
from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded import start_server
try:
    with start_server(Path(sys.argv[1])) as server:
        print(server.url(), flush=True)
        sys.stdin.readline()
except DatabaseUnavailableError as error:
    print(error, flush=True)
"""


class User:
    """Another process that uses the server of a home."""

    def __init__(
        self, home: Path, python: Sequence[str] = (sys.executable,), **options: Any
    ) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [*python, "-c", USER, str(home)]
        self.process = subprocess.Popen(command, text=True, **pipes, **options)

    def read_answer(self) -> str:
        """The server's URL, or the error message."""
        assert self.process.stdout
        line: str = self.process.stdout.readline()
        return line.strip()

    def leave(self) -> None:
        """Make the process release the server and end."""
        self.process.communicate("\n", timeout=90)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.process.communicate(timeout=90)


@pytest.fixture
def cleanup() -> Iterator[Callable[[Path], Path]]:
    """Register a home whose server and data are removed after the test."""
    homes: list[Path] = []

    def register(home: Path) -> Path:
        homes.append(home)
        return home

    yield register
    for home in homes:
        remove_servers(home)


@pytest.fixture
def home(tmp_path: Path, cleanup: Callable[[Path], Path]) -> Path:
    return cleanup(tmp_path / "home")


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a database, for tests that leave it as it was: initdb takes a second."""
    home = tmp_path_factory.mktemp("used") / "home"
    with start_server(home):
        pass
    yield home
    remove_servers(home)


@pytest.fixture
def user() -> Iterator[Callable[..., User]]:
    """Start other users, which end with the test."""
    users: list[User] = []

    def begin(*args: Any, **options: Any) -> User:
        users.append(User(*args, **options))
        return users[-1]

    yield begin
    for each in users:
        each.kill()


def find_data(home: Path) -> Path:
    return Path(os.path.realpath(home / "postgres"))


def find_folders(home: Path) -> list[Path]:
    """The folders of root's state directory that were created for a home at this path."""
    links = STATE_DIRECTORY.glob("cluster-*/home")
    return [link.parent for link in links if link.readlink() == home]


def remove_servers(home: Path) -> None:
    folders = find_folders(home) if ROOT else []
    for data in [find_data(home), *(folder / "data" for folder in folders)]:
        for process in find_postmasters(data):
            process.send_signal(signal.SIGQUIT)
            process.wait(30)
        digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
        for folder in TMP.glob(f"dlq-*-{digest}"):
            shutil.rmtree(folder)
    for folder in folders:
        shutil.rmtree(folder)


def find_postmasters(data: Path) -> list[psutil.Process]:
    """The living main processes of servers on a data folder.

    A child that was forked a moment ago still has its parent's command line, and is left out.
    """
    servers = {
        process.pid: process
        for process in psutil.process_iter(["cmdline", "ppid"])
        if (line := process.info["cmdline"])
        and line[0].endswith("bin/postgres")
        and line[-2:] == ["-D", str(data)]
    }
    return [process for process in servers.values() if process.info["ppid"] not in servers]


def find_postmaster(home: Path) -> psutil.Process:
    (only,) = find_postmasters(find_data(home))
    return only


def is_answering(url: str) -> bool:
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("select 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def kill_server(home: Path) -> None:
    """Kill the main server process with SIGKILL."""
    process = find_postmaster(home)
    process.kill()
    process.wait(30)


def keep_answer(url: str) -> None:
    """Store the row that `read_kept_answer` reads."""
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 42 as answer")


def read_kept_answer(url: str) -> Any:
    """The stored row; None: the database is empty."""
    with psycopg.connect(url) as connection:
        if connection.execute("select to_regclass('kept')").fetchone() == (None,):
            return None
        return connection.execute("select answer from kept").fetchone()


def read_ownership(paths: Sequence[Path]) -> dict[Path, tuple[int, int, int]]:
    """Mode, owner and group of folders and of every folder above them."""
    folders = {folder for path in paths for folder in (path, *path.parents)}
    return {folder: (s.st_mode, s.st_uid, s.st_gid) for folder in folders for s in [folder.stat()]}


# --- start ----------------------------------------------------------------------------------------


def test_a_new_home_gets_a_postgresql_18_with_our_settings(home: Path) -> None:
    with start_server(home) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert connection.info.server_version >= 180000
        shown = {name: connection.execute(f"show {name}").fetchone() for name in SETTINGS}
        assert shown == {name: (value,) for name, value in SETTINGS.items()}
        assert connection.execute("show fsync").fetchone() == ("on",)
        assert connection.execute("show server_encoding").fetchone() == ("UTF8",)


def test_processes_that_start_at_once_share_one_server(
    home: Path, user: Callable[..., User]
) -> None:
    """In a new home, one of the processes creates the data and starts the server."""
    users = [user(home) for _ in range(3)]
    (url,) = {each.read_answer() for each in users}
    assert is_answering(url)
    assert find_postmaster(home)
    assert len(find_folders(home)) == ROOT


def test_threads_that_start_at_once_share_one_server(home: Path) -> None:
    """The locks work between the threads of one process as between processes."""
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(start_server, [home] * 4))
    assert find_postmaster(home)
    for server in servers:
        assert is_answering(server.url())
        server.release()
    assert find_postmasters(find_data(home)) == []


def test_data_survives_a_stop_and_a_start(home: Path) -> None:
    with start_server(home) as server:
        keep_answer(server.ensure_database("dlq"))
    with start_server(home) as server:
        assert read_kept_answer(server.url("dlq")) == (42,)


def test_a_relative_path_and_a_link_name_the_same_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(home)
    with (
        start_server(home) as first,
        start_server(Path("home")) as second,
        start_server(tmp_path / "link") as third,
    ):
        assert first.url() == second.url() == third.url()


# --- stop -----------------------------------------------------------------------------------------


def test_the_last_user_stops_the_server(used_home: Path, user: Callable[..., User]) -> None:
    """The server stays while any process uses it, also when the process that started it ends."""
    first = user(used_home)
    url = first.read_answer()
    second = user(used_home)
    assert second.read_answer() == url
    first.leave()
    assert is_answering(url)
    second.leave()
    assert find_postmasters(find_data(used_home)) == []
    assert not is_answering(url)


def test_two_uses_in_one_process_count_as_two(used_home: Path) -> None:
    """The release of one use keeps the server for the other; a second release does nothing."""
    with start_server(used_home) as outer:
        inner = start_server(used_home)
        inner.release()
        inner.release()
        assert is_answering(outer.url())
    assert find_postmasters(find_data(used_home)) == []


def test_the_end_of_a_process_releases_the_server(used_home: Path) -> None:
    program = (
        "import sys, pathlib, dlq_pipelines.postgres.embedded as embedded;"
        "embedded.start_server(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, str(used_home)], check=True, timeout=120)
    assert (used_home / "postgres" / "PG_VERSION").read_text() == "18\n"
    assert find_postmasters(find_data(used_home)) == []


def test_a_killed_user_leaves_no_lock(used_home: Path, user: Callable[..., User]) -> None:
    """After a SIGKILL the next user starts at once and, as the last one, stops the server."""
    killed = user(used_home)
    url = killed.read_answer()
    killed.kill()
    assert is_answering(url)
    began = time.monotonic()
    with start_server(used_home):
        assert time.monotonic() - began < 5
    assert find_postmasters(find_data(used_home)) == []


def test_a_forked_child_does_not_stop_its_parents_server(used_home: Path) -> None:
    """A fork copies the object, and is not another user."""
    program = f"import os\n{USER}".replace(
        "        print(server.url(), flush=True)\n        sys.stdin.readline()\n",
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            server.release()\n"
        "            os._exit(0)\n"
        "        os.waitpid(child, 0)\n"
        "        import psycopg\n"
        "        print(psycopg.connect(server.url()).execute('select 1').fetchone())\n",
    )
    command = [sys.executable, "-c", program, str(used_home)]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=120)
    assert done.stdout.strip() == "(1,)", done.stderr
    assert find_postmasters(find_data(used_home)) == []


def test_ctrl_c_does_not_reach_the_server(used_home: Path, user: Callable[..., User]) -> None:
    """Ctrl-C ends the process that started the server; other users keep the server."""
    # A test run in the background ignores SIGINT, and its children inherit that.
    handler = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    starter = user(used_home, process_group=0, stderr=subprocess.DEVNULL, **handler)
    url = starter.read_answer()
    with start_server(used_home):
        os.killpg(starter.process.pid, signal.SIGINT)
        starter.process.wait(90)
        assert is_answering(url)


# --- crashes --------------------------------------------------------------------------------------


def test_a_committed_row_survives_a_killed_server(home: Path) -> None:
    """The next start recovers what was committed before the SIGKILL."""
    with start_server(home) as server:
        keep_answer(server.url())
        kill_server(home)
        assert (home / "postgres" / "postmaster.pid").exists()
        with start_server(home) as again:
            assert read_kept_answer(again.url()) == (42,)
        assert is_answering(server.url())


def test_a_stale_pid_file_with_the_number_of_another_process_is_removed(home: Path) -> None:
    """The other process is not a server and is left alone."""
    with start_server(home) as server:
        dead = find_postmaster(home).pid
        kill_server(home)
        data = home / "postgres"
        # PostgreSQL itself ignores the processes of other accounts.
        account: dict[str, Any] = {"user": data.stat().st_uid} if ROOT else {}
        bystander = subprocess.Popen(["sleep", "300"], cwd="/", **account)
        try:
            for lock_file in (data / "postmaster.pid", data / ".s.PGSQL.5432.lock"):
                content = lock_file.read_text().replace(str(dead), str(bystander.pid), 1)
                lock_file.write_text(content)
            with start_server(home) as again:
                assert is_answering(again.url())
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()
        assert is_answering(server.url())


# --- errors ---------------------------------------------------------------------------------------


def test_data_of_another_major_version_is_refused(home: Path) -> None:
    """The message names the folder, its version and the remedy; the folder stays as it is."""
    with start_server(home):
        pass
    version = home / "postgres" / "PG_VERSION"
    version.write_text("16\n")
    expected = r"PostgreSQL 16 created .*runs PostgreSQL 18"
    with pytest.raises(DatabaseUnavailableError, match=expected) as caught:
        start_server(home)
    assert str(find_data(home)) in str(caught.value)
    assert version.read_text() == "16\n"


def test_a_server_that_cannot_start_gives_its_reason_and_its_log(home: Path) -> None:
    with start_server(home):
        pass
    with (home / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    began = time.monotonic()
    expected = r'unrecognized .*"no_such_setting".*FATAL'
    with pytest.raises(DatabaseUnavailableError, match=expected) as caught:
        start_server(home)
    assert time.monotonic() - began < 10
    assert f"{find_data(home)}/log" in str(caught.value)


def test_a_reason_that_is_only_in_the_log_is_in_the_message(home: Path) -> None:
    """The server reports damaged control data after it opened its log."""
    with start_server(home):
        pass
    for segment in (home / "postgres" / "pg_wal").glob("0000*"):
        segment.unlink()
    expected = r"(FATAL|PANIC):  could not locate a valid checkpoint"
    with pytest.raises(DatabaseUnavailableError, match=expected):
        start_server(home)


def test_a_folder_with_other_files_is_refused(home: Path) -> None:
    """The files stay as they are."""
    folder = home / "postgres"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    if ROOT:
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(DatabaseUnavailableError, match="not a PostgreSQL database"):
        start_server(home)
    assert (folder / "thesis.txt").read_text() == "precious"


def test_without_the_wheel_the_message_names_the_extra(tmp_path: Path) -> None:
    links = tmp_path / "packages"
    links.mkdir()
    for entry in PACKAGES.iterdir():
        if not entry.name.startswith(PACKAGE):
            (links / entry.name).symlink_to(entry)
    program = f"import sys; sys.path += {[str(links), str(REPOSITORY)]!r}\n{USER}"
    command = [sys.executable, "-S", "-c", program, str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)
    assert "pip install 'dlq-pipelines[embedded]'" in done.stdout, done.stderr
    assert "DLQ_DATABASE_URL" in done.stdout


# --- who can reach it -----------------------------------------------------------------------------


def test_nothing_listens_on_tcp(used_home: Path) -> None:
    """Neither the network nor the loopback reaches the server."""
    with start_server(used_home) as server:
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("show listen_addresses").fetchone() == ("",)
        main = find_postmaster(used_home)
        family = [main, *main.children(recursive=True)]
        assert len(family) > 1
        assert [c for process in family for c in process.net_connections(kind="inet")] == []


def test_only_the_servers_account_can_enter_the_socket_folder(used_home: Path) -> None:
    """Every login is trusted, so the folder's mode keeps other accounts out."""
    with start_server(used_home) as server:
        (folder,) = parse_qs(urlsplit(server.url()).query)["host"]
        status = Path(folder).stat()
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == find_postmaster(used_home).uids().effective
        assert stat.S_ISSOCK((Path(folder) / ".s.PGSQL.5432").stat().st_mode)


def query_by_psycopg(url: str) -> Any:
    with psycopg.connect(url) as connection:
        return connection.execute("select current_database()").fetchone()


def query_by_sqlalchemy(url: str) -> Any:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1))
    with engine.connect() as connection:
        row = connection.execute(sqlalchemy.text("select current_database()")).one()
    engine.dispose()
    return tuple(row)


def query_by_adbc(url: str) -> Any:
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select current_database()::text")
        return cursor.fetchone()


@pytest.mark.parametrize(
    "folder",
    ["home", "deep/" * 40 + "home", "a, b:c@d $(exit 3) \"q\" 'q' % ü"],
    ids=["plain", "long", "odd"],
)
def test_the_url_works_with_every_driver_and_path(
    tmp_path: Path,
    cleanup: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
) -> None:
    """A long path, special characters and the PGPORT of another server do not change the URL."""
    monkeypatch.setenv("PGPORT", "6543")
    with start_server(cleanup(tmp_path / folder)) as server:
        url = server.ensure_database("dlq-Test_1")
        for query in (query_by_psycopg, query_by_sqlalchemy, query_by_adbc):
            assert query(url) == ("dlq-Test_1",)


def test_the_name_of_a_database_is_quoted(used_home: Path) -> None:
    name = 'd/l "q"? \'; drop database ü'
    with start_server(used_home) as server:
        assert query_by_psycopg(server.ensure_database(name)) == (name,)
        assert query_by_adbc(server.url(name)) == (name,)


def test_a_database_that_many_create_at_once_is_created_once(used_home: Path) -> None:
    """Every caller gets the URL, and none gets an error."""
    with start_server(used_home) as server:
        with ThreadPoolExecutor(8) as pool:
            urls = list(pool.map(server.ensure_database, ["dlq"] * 8))
        assert set(urls) == {server.url("dlq")}
        assert is_answering(urls[0])


def test_a_server_that_ended_is_reported_as_unavailable(home: Path) -> None:
    with start_server(home) as server:
        kill_server(home)
        with pytest.raises(DatabaseUnavailableError, match="'dlq'"):
            server.ensure_database("dlq")


# --- root: accounts and folders -------------------------------------------------------------------


@only_root
def test_root_changes_no_existing_folder_and_no_account(
    tmp_path: Path, cleanup: Callable[[Path], Path]
) -> None:
    """Root's start creates one folder in /var/lib and changes no mode, owner or account."""
    home = cleanup(tmp_path / "closed" / "home")
    home.mkdir(parents=True)
    home.parent.chmod(0o700)
    home.chmod(0o700)
    watched = [home, PACKAGES / PACKAGE / "pginstall18" / "bin", PACKAGES, REPOSITORY]
    watched += [Path("/var/lib"), Path("/root"), Path(sys.executable).resolve().parent, TMP]
    before = read_ownership(watched)
    accounts = [path.read_bytes() for path in ACCOUNT_FILES]
    with start_server(home) as server:
        assert is_answering(server.url())
        process = find_postmaster(home)
        uids, gids = process.uids(), process.gids()
        assert 0 not in {uids.real, uids.effective, uids.saved}
        assert 0 not in {gids.real, gids.effective, gids.saved}
    assert read_ownership(watched) == before
    assert [path.read_bytes() for path in ACCOUNT_FILES] == accounts


@only_root
def test_root_owns_the_programs_and_only_the_servers_account_reads_the_data(home: Path) -> None:
    with start_server(home):
        data = find_data(home)
        assert data.parent.parent == STATE_DIRECTORY
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        (programs,) = STATE_DIRECTORY.glob("pgserver-0*[0-9]")
        for path in (STATE_DIRECTORY, data.parent, programs, *programs.rglob("*")):
            status = path.lstat()
            assert status.st_uid == 0
            assert path.is_symlink() or not status.st_mode & 0o022


@only_root
def test_root_runs_the_server_of_another_accounts_home_as_that_account() -> None:
    """The data folder's owner runs the server, and the folder stays where it is."""
    nobody = pwd.getpwnam("nobody")
    base = TMP / f"dlq-test-{os.getpid()}"
    (base / "postgres").mkdir(parents=True, mode=0o700)
    for folder in (base, base / "postgres"):
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        with start_server(base) as server:
            assert is_answering(server.url())
            assert find_postmaster(base).uids().effective == nobody.pw_uid
        assert not (base / "postgres").is_symlink()
    finally:
        remove_servers(base)
        shutil.rmtree(base)


# --- root: which data folder belongs to a home ----------------------------------------------------


@only_root
@pytest.mark.parametrize("has_home", [True, False])
def test_the_folder_of_a_killed_start_is_removed(home: Path, has_home: bool) -> None:
    """A start that is killed before it creates the link leaves an empty folder."""
    remains = STATE_DIRECTORY / f"cluster-test-{os.getpid()}-{has_home}"
    remains.mkdir()
    if has_home:
        (remains / "home").symlink_to(home)
        (remains / "data").mkdir()
    with start_server(home):
        assert not remains.exists()


@only_root
def test_a_link_to_missing_data_is_refused(home: Path) -> None:
    """A link without its data, as in a new container with an old volume, is no new home."""
    with start_server(home):
        pass
    shutil.rmtree(find_data(home))
    with pytest.raises(DatabaseUnavailableError, match="which does not exist"):
        start_server(home)


@only_root
def test_a_link_that_another_account_planted_is_refused(
    home: Path, cleanup: Callable[[Path], Path]
) -> None:
    """The owner of a home can neither use another home's database nor another account's files."""
    victim = cleanup(home.with_name("victim"))
    with start_server(victim) as server:
        keep_answer(server.url())
    foreign = home.with_name("foreign")
    foreign.mkdir(mode=0o700)
    os.chown(foreign, pwd.getpwnam("daemon").pw_uid, -1)
    home.mkdir()
    link = home / "postgres"
    for data in (find_data(victim), foreign):
        link.symlink_to(data)
        os.chown(link, pwd.getpwnam("nobody").pw_uid, -1, follow_symlinks=False)
        with pytest.raises(DatabaseUnavailableError, match=f"links to {data}"):
            start_server(home)
        link.unlink()
    assert list(foreign.iterdir()) == []


# --- without root ---------------------------------------------------------------------------------


def find_unprivileged_python() -> tuple[list[str], dict[str, Any]]:
    """A Python of our version that `nobody` can run with our packages, and its process options."""
    nobody = pwd.getpwnam("nobody")
    options: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    options |= {"cwd": "/"}
    options["env"] = {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(PACKAGES)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.defpath,
        "PGPORT": "6543",
    }
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = shutil.which(version, path="/usr/local/bin:/usr/bin")
    for python in filter(None, [sys.executable, found]):
        probe = [python, "-c", "import psycopg, dlq_pipelines.postgres.embedded"]
        try:
            done = subprocess.run(probe, capture_output=True, check=False, timeout=60, **options)
        except OSError:
            continue
        if done.returncode == 0:
            return [python], options
    pytest.skip("the account nobody can run no Python of this version with these packages")


@pytest.fixture
def unprivileged(user: Callable[..., User]) -> Iterator[tuple[Path, Callable[[Path], User]]]:
    """A folder of an unprivileged account, and a function that starts a user as that account."""
    python, options = find_unprivileged_python() if ROOT else ([sys.executable], {})
    base = TMP / f"dlq-test-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    base.mkdir(mode=0o700)
    os.chown(base, options.get("user", -1), options.get("group", -1))
    yield base, lambda home: user(home, python, **options)
    for home in [path.parent for path in base.rglob("postgres") if path.is_dir()]:
        remove_servers(home)
    shutil.rmtree(base)


@pytest.mark.parametrize("folder", ["home", "deep/" * 40 + "home"], ids=["plain", "long"])
def test_an_unprivileged_account_keeps_everything_in_its_home(
    unprivileged: tuple[Path, Callable[[Path], User]], folder: str
) -> None:
    """The home has no link, and only a long path needs a socket folder elsewhere."""
    base, use = unprivileged
    home = base / folder
    first, second = use(home), use(home)
    url = first.read_answer()
    assert second.read_answer() == url
    assert is_answering(url.replace("port=6543", "port=5432"))
    data = home / "postgres"
    assert not data.is_symlink()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    owner = find_postmaster(home).uids().effective
    assert data.stat().st_uid == base.stat().st_uid == owner
    first.leave()
    assert is_answering(url)
    second.leave()
    assert find_postmasters(find_data(home)) == []


def test_a_socket_folder_that_is_open_to_others_is_refused(
    unprivileged: tuple[Path, Callable[[Path], User]],
) -> None:
    """Any account can create a folder in /tmp; the server only uses a closed one of its own."""
    base, use = unprivileged
    home = base / ("deep/" * 40) / "home"
    first = use(home)
    (folder,) = parse_qs(urlsplit(first.read_answer()).query)["host"]
    assert Path(folder).parent == TMP
    first.leave()
    Path(folder).chmod(0o755)
    assert "another account owns it or can enter it" in use(home).read_answer()
    assert find_postmasters(find_data(home)) == []


@only_root
def test_an_unprivileged_account_cannot_use_roots_home(
    unprivileged: tuple[Path, Callable[[Path], User]],
) -> None:
    """The message names the remedy."""
    base, use = unprivileged
    home = base / "home"
    with start_server(home):
        answer = use(home).read_answer()
    assert "Permission denied" in answer
    assert "choose another DLQ_HOME" in answer
