"""The embedded server: real processes, real signals, a real folder of its own for every test."""

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import adbc_driver_postgresql.dbapi
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
import sqlalchemy

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres import embedded
from dlq_pipelines.postgres.embedded import start_server

REPOSITORY = Path(embedded.__file__).parents[2]
PACKAGES = Path(sysconfig.get_paths()["purelib"])
ROOT = os.geteuid() == 0
TMP = Path("/tmp")  # noqa: S108 - pytest's own folders are closed to other accounts

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(embedded.PACKAGE) is None,
    reason="the extra dlq-pipelines[embedded] is not installed",
)
only_root = pytest.mark.skipif(not ROOT, reason="only root runs the server as another account")

# A process that uses the server until a line arrives on its standard input.
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
        self.process = subprocess.Popen(
            [*python, "-c", USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def answer(self) -> str:
        """The url of the server that it started or found, or the error."""
        assert self.process.stdout
        line: str = self.process.stdout.readline()
        return line.strip()

    def leave(self) -> None:
        """Let it release the server and end."""
        self.process.communicate("\n", timeout=90)

    def kill(self) -> None:
        """End it as the kernel's out-of-memory killer would."""
        self.process.kill()
        self.process.communicate(timeout=90)


@pytest.fixture
def cleanup() -> Iterator[Callable[[Path], Path]]:
    """Register a home whose server, data and socket folder are to be removed at the end."""
    homes: list[Path] = []

    def register(home: Path) -> Path:
        homes.append(home)
        return home

    yield register
    for home in homes:
        remove(home)


@pytest.fixture
def home(tmp_path: Path, cleanup: Callable[[Path], Path]) -> Path:
    return cleanup(tmp_path / "home")


@pytest.fixture
def user() -> Iterator[Callable[..., User]]:
    """Start other users, of which none outlives the test."""
    users: list[User] = []

    def begin(*args: Any, **options: Any) -> User:
        users.append(User(*args, **options))
        return users[-1]

    yield begin
    for each in users:
        each.kill()


def remove(home: Path) -> None:
    data = Path(os.path.realpath(home / "postgres"))
    for process in postmasters(home):
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
    if data.parent == embedded.STAGE:
        shutil.rmtree(data, ignore_errors=True)
    for folder in TMP.glob(f"dlq-*-{embedded._digest(data)}"):
        shutil.rmtree(folder)


def postmasters(home: Path) -> list[psutil.Process]:
    """The main server processes of this home's data folder that are alive.

    A child that was forked this moment still bears its parent's command line; it is not one.
    """
    data = os.path.realpath(home / "postgres")
    servers = {
        process.pid: process
        for process in psutil.process_iter(["cmdline", "ppid"])
        if (line := process.info["cmdline"])
        and line[0].endswith("bin/postgres")
        and line[-2:] == ["-D", data]
    }
    return [process for process in servers.values() if process.info["ppid"] not in servers]


def postmaster(home: Path) -> psutil.Process:
    (only,) = postmasters(home)
    return only


def answers(url: str) -> bool:
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("select 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def crash(home: Path) -> None:
    """Kill the main server process as the kernel's out-of-memory killer would."""
    process = postmaster(home)
    process.kill()
    process.wait(30)


def seen(paths: Sequence[Path]) -> dict[Path, tuple[int, int, int]]:
    """Mode, owner and group of folders and of every folder above them."""
    folders = {folder for path in paths for folder in (path, *path.parents)}
    return {folder: (s.st_mode, s.st_uid, s.st_gid) for folder in folders for s in [folder.stat()]}


# --- start ---------------------------------------------------------------------------------------------------------


def test_a_start_from_nothing_answers_as_postgresql_18_in_utc(home: Path) -> None:
    """No preparation is needed: one call, and there is a server with the settings that this project counts on."""
    with start_server(home) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert connection.info.server_version >= 180000
        shown = {name: connection.execute(f"show {name}").fetchone() for name in embedded.SETTINGS}
        assert shown == {name: (value,) for name, value in embedded.SETTINGS.items()}
        assert connection.execute("show fsync").fetchone() == ("on",)
        assert connection.execute("show server_encoding").fetchone() == ("UTF8",)


def test_processes_that_start_at_once_get_one_server(home: Path, user: Callable[..., User]) -> None:
    """However many begin together in an empty home, one of them creates the data and starts the server."""
    users = [user(home) for _ in range(3)]
    (url,) = {each.answer() for each in users}
    assert answers(url)
    assert len(postmasters(home)) == 1


def test_threads_that_start_at_once_get_one_server(home: Path) -> None:
    """Locks hold between the threads of one process as between processes."""
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(start_server, [home] * 4))
    assert len(postmasters(home)) == 1
    for server in servers:
        assert answers(server.url())
        server.release()
    assert postmasters(home) == []


def test_data_is_still_there_after_a_stop_and_a_start(home: Path) -> None:
    """The server comes and goes; what was written stays."""
    with start_server(home) as server, psycopg.connect(server.ensure_database("dlq")) as connection:
        connection.execute("create table kept as select 42 as answer")
    with start_server(home) as server, psycopg.connect(server.url("dlq")) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


def test_a_relative_and_a_linked_home_are_the_same_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder is one server, however it is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(home)
    with (
        start_server(home) as first,
        start_server(Path("home")) as second,
        start_server(tmp_path / "link") as third,
    ):
        assert first.url() == second.url() == third.url()


# --- stop ----------------------------------------------------------------------------------------------------------


def test_the_last_user_stops_the_server_and_an_earlier_leaver_does_not(
    home: Path, user: Callable[..., User]
) -> None:
    """The server lives exactly as long as somebody uses it, whoever started it."""
    first = user(home)
    url = first.answer()
    second = user(home)
    assert second.answer() == url
    first.leave()
    assert answers(url)
    second.leave()
    assert postmasters(home) == []
    assert not answers(url)


def test_two_uses_in_one_process_count_as_two(home: Path) -> None:
    """A library that releases its own use does not take the server from its caller, and twice is once."""
    with start_server(home) as outer:
        inner = start_server(home)
        inner.release()
        inner.release()
        assert answers(outer.url())
    assert postmasters(home) == []


def test_the_end_of_a_process_that_never_released_stops_the_server(home: Path) -> None:
    """Leaving is not the caller's duty: the interpreter's exit does it."""
    program = "import sys, pathlib, dlq_pipelines.postgres.embedded as e; e.start(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(home)], check=True, timeout=120)
    assert (home / "postgres" / "PG_VERSION").read_text() == "18\n"
    assert postmasters(home) == []


def test_a_killed_user_leaves_no_lock_behind(home: Path, user: Callable[..., User]) -> None:
    """Locks die with their holder: after a SIGKILL the next user starts at once and, as the last, stops the server."""
    killed = user(home)
    url = killed.answer()
    killed.kill()
    assert answers(url)
    begun = time.monotonic()
    with start_server(home):
        assert time.monotonic() - begun < 5
    assert postmasters(home) == []


def test_a_forked_child_that_releases_does_not_stop_its_parents_server(home: Path) -> None:
    """A fork copies the object, not the use."""
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
    done = subprocess.run(
        [sys.executable, "-c", program, str(home)],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "(1,)", done.stderr
    assert postmasters(home) == []


def test_an_interrupt_in_the_terminal_does_not_reach_the_server(
    home: Path, user: Callable[..., User]
) -> None:
    """Ctrl-C ends the process that started the server, and not the server that others use."""
    # A run in the background of a script ignores SIGINT, and so would what it starts.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    starter = user(home, process_group=0, stderr=subprocess.DEVNULL, **heeding)
    url = starter.answer()
    with start_server(home):
        os.killpg(starter.process.pid, signal.SIGINT)
        starter.process.wait(90)
        assert answers(url)


# --- crashes -------------------------------------------------------------------------------------------------------


def test_a_committed_row_survives_a_killed_server(home: Path) -> None:
    """After SIGKILL of the server the next start recovers by itself, with everything that was committed."""
    with start_server(home) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("create table kept as select 42 as answer")
        crash(home)
        assert (home / "postgres" / "postmaster.pid").exists()
        with start_server(home) as again, psycopg.connect(again.url()) as connection:
            assert connection.execute("select answer from kept").fetchone() == (42,)
        assert answers(server.url())


def test_processes_that_outlive_a_killed_server_for_a_moment_are_waited_for(home: Path) -> None:
    """A start right after a crash does not fail because the old server's memory is still in use."""
    with start_server(home) as server, psycopg.connect(server.url()) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        crash(home)
        threading.Timer(1.5, backend.resume).start()
        begun = time.monotonic()
        with start_server(home) as again:
            assert answers(again.url())
        assert time.monotonic() - begun > 1


def test_a_stale_pid_file_whose_number_belongs_to_another_process_now_is_recovered(
    home: Path,
) -> None:
    """A process number that was given away since the crash is no running server, and its new owner is left alone."""
    with start_server(home) as server:
        dead = postmaster(home).pid
        crash(home)
        data = home / "postgres"
        account = (
            {"user": data.stat().st_uid} if ROOT else {}
        )  # PostgreSQL itself ignores other accounts' processes
        bystander = subprocess.Popen(["sleep", "300"], cwd="/", **account)  # type: ignore[call-overload]
        try:
            for lock_file in (data / "postmaster.pid", data / ".s.PGSQL.5432.lock"):
                lock_file.write_text(
                    lock_file.read_text().replace(str(dead), str(bystander.pid), 1)
                )
            with start_server(home) as again:
                assert answers(again.url())
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()
        assert answers(server.url())


def test_an_interrupted_creation_begins_again(home: Path) -> None:
    """What a killed initdb left half done is not taken for a database."""
    with start_server(home):
        pass
    data = Path(os.path.realpath(home / "postgres"))
    (home / "postgres").unlink() if ROOT else None
    data.rename(data.with_name(f"{data.name}.new"))
    (data.with_name(f"{data.name}.new") / "global" / "pg_control").unlink()
    with start_server(home) as server:
        assert answers(server.url())
    assert not data.with_name(f"{data.name}.new").exists()


# --- errors --------------------------------------------------------------------------------------------------------


def test_data_of_another_major_version_is_named_and_not_touched(home: Path) -> None:
    """The message says which folder, which version, and what to do."""
    with start_server(home):
        pass
    version = home / "postgres" / "PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(
        DatabaseUnavailableError, match=r"made by PostgreSQL 16.*runs PostgreSQL 18"
    ) as caught:
        start_server(home)
    assert os.path.realpath(home / "postgres") in str(caught.value)
    assert version.read_text() == "16\n"


def test_a_server_that_cannot_start_says_why_and_where_its_log_is(home: Path) -> None:
    """The server's own words reach the person who must audit on them, at once."""
    with start_server(home):
        pass
    with (home / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    begun = time.monotonic()
    with pytest.raises(
        DatabaseUnavailableError, match=r'unrecognized .*"no_such_setting".*FATAL'
    ) as caught:
        start_server(home)
    assert time.monotonic() - begun < 10
    assert f"{os.path.realpath(home / 'postgres')}/log" in str(caught.value)


def test_a_failure_after_the_log_is_open_is_quoted_from_the_log(home: Path) -> None:
    """Also what the server says late, such as damaged control data, is in the message."""
    with start_server(home):
        pass
    for segment in (home / "postgres" / "pg_wal").glob("0000*"):
        segment.unlink()
    with pytest.raises(
        DatabaseUnavailableError, match=r"(FATAL|PANIC):  could not locate a valid checkpoint"
    ):
        start_server(home)


def test_a_folder_that_is_no_database_is_refused(home: Path) -> None:
    """Somebody's files are not initialised over."""
    folder = home / "postgres"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    if ROOT:
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(DatabaseUnavailableError, match="not a PostgreSQL database"):
        start_server(home)
    assert (folder / "thesis.txt").read_text() == "precious"


def test_without_the_wheel_the_message_names_the_extra(tmp_path: Path) -> None:
    """A machine without the extra learns the command that installs it."""
    links = tmp_path / "packages"
    links.mkdir()
    for entry in PACKAGES.iterdir():
        if not entry.name.startswith(embedded.PACKAGE):
            (links / entry.name).symlink_to(entry)
    program = f"import sys; sys.path += {[str(links), str(REPOSITORY)]!r}\n{USER}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(tmp_path / "home")],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert "pip install 'dlq-pipelines[embedded]'" in done.stdout, done.stderr
    assert "DLQ_DATABASE_URL" in done.stdout


# --- who can reach it ----------------------------------------------------------------------------------------------


def test_nothing_listens_on_tcp(home: Path) -> None:
    """Neither the network nor the loopback leads to the server."""
    with start_server(home) as server:
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("show listen_addresses").fetchone() == ("",)
        main = postmaster(home)
        family = [main, *main.children(recursive=True)]
        assert len(family) > 1
        assert [c for process in family for c in process.net_connections(kind="inet")] == []


def test_only_the_servers_account_enters_the_folder_of_the_socket(home: Path) -> None:
    """Log-in is by trust, so the folder's mode is what keeps other accounts out."""
    with start_server(home) as server:
        (folder,) = parse_qs(urlsplit(server.url()).query)["host"]
        status = Path(folder).stat()
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == postmaster(home).uids().effective
        assert stat.S_ISSOCK((Path(folder) / ".s.PGSQL.5432").stat().st_mode)


def by_psycopg(url: str) -> Any:
    with psycopg.connect(url) as connection:
        return connection.execute("select current_database()").fetchone()


def by_sqlalchemy(url: str) -> Any:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1))
    with engine.connect() as connection:
        row = connection.execute(sqlalchemy.text("select current_database()")).fetch_one()
    engine.dispose()
    return tuple(row)


def by_adbc(url: str) -> Any:
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select current_database()::text")
        return cursor.fetchone()


@pytest.mark.parametrize("driver", [by_psycopg, by_sqlalchemy, by_adbc])
@pytest.mark.parametrize(
    "folder",
    ["home", "deep/" * 40 + "home", "a, b:c@d $(exit 3) \"q\" 'q' % ü"],
    ids=["plain", "long", "odd"],
)
def test_the_url_works_with_every_driver_wherever_the_home_is(
    tmp_path: Path,
    cleanup: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    driver: Callable[[str], Any],
) -> None:
    """Paths that are long or odd, a PGPORT of some other server: the url leads to ours."""
    monkeypatch.setenv("PGPORT", "6543")
    with start_server(cleanup(tmp_path / folder)) as server:
        assert driver(server.ensure_database("dlq-Test_1")) == ("dlq-Test_1",)


def test_a_database_may_have_a_name_that_needs_quoting(home: Path) -> None:
    """Neither the statement nor the url is built by pasting the name in."""
    name = 'd/l "q"? \'; drop database ü'
    with start_server(home) as server:
        assert by_psycopg(server.ensure_database(name)) == by_adbc(server.url(name)) == (name,)


def test_a_database_that_many_ask_for_at_once_is_created_once(home: Path) -> None:
    """Everybody who asks gets the url; nobody sees that another was faster."""
    with start_server(home) as server:
        with ThreadPoolExecutor(8) as pool:
            urls = list(pool.map(server.ensure_database, ["dlq"] * 8))
        assert set(urls) == {server.url("dlq")}
        assert answers(urls[0])


def test_a_server_that_is_gone_is_reported_as_unavailable(home: Path) -> None:
    """Callers have one kind of error to catch."""
    with start_server(home) as server:
        crash(home)
        with pytest.raises(DatabaseUnavailableError, match="'dlq'"):
            server.ensure_database("dlq")


# --- root ----------------------------------------------------------------------------------------------------------


@only_root
def test_root_changes_no_existing_folder_and_no_account(
    tmp_path: Path, cleanup: Callable[[Path], Path]
) -> None:
    """The machine is as it was, except for one new folder in /var/lib: no mode, no owner, no account is changed."""
    home = cleanup(tmp_path / "closed" / "home")
    home.mkdir(parents=True)
    home.parent.chmod(0o700)
    home.chmod(0o700)
    watched = [
        home,
        PACKAGES / embedded.PACKAGE / "pginstall18" / "bin",
        PACKAGES,
        REPOSITORY,
        Path("/var/lib"),
    ]
    watched += [Path("/root"), Path(sys.executable).resolve().parent, TMP]
    before, accounts = (
        seen(watched),
        [Path(p).read_bytes() for p in ("/etc/passwd", "/etc/group", "/etc/shadow")],
    )
    with start_server(home) as server:
        assert answers(server.url())
        process = postmaster(home)
        assert 0 not in {process.uids().real, process.uids().effective, process.uids().saved}
        assert 0 not in {process.gids().real, process.gids().effective, process.gids().saved}
    assert seen(watched) == before
    assert [Path(p).read_bytes() for p in ("/etc/passwd", "/etc/group", "/etc/shadow")] == accounts


@only_root
def test_root_keeps_programs_that_nobody_else_can_change_and_data_that_nobody_else_can_read(
    home: Path,
) -> None:
    """What runs as the server's account is root's; what it writes is its own."""
    with start_server(home):
        data = Path(os.path.realpath(home / "postgres"))
        assert data.parent == embedded.STAGE
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        (programs,) = embedded.STAGE.glob("pgserver-0*[0-9]")
        for path in (embedded.STAGE, programs, *programs.rglob("*")):
            status = path.lstat()
            assert status.st_uid == 0
            assert path.is_symlink() or not status.st_mode & 0o022


@only_root
def test_a_moved_home_is_told_how_to_take_its_data_along(
    home: Path, cleanup: Callable[[Path], Path]
) -> None:
    """Two homes never share one server's data, and the command that is shown repairs a move."""
    with start_server(home) as server, psycopg.connect(server.url()) as connection:
        connection.execute("create table kept as select 42 as answer")
    moved = cleanup(home.rename(home.with_name("moved")))
    with pytest.raises(
        DatabaseUnavailableError, match=r"If this home was moved, run `.*`"
    ) as caught:
        start_server(moved)
    command = str(caught.value).split("`")[1]
    subprocess.run(["/bin/sh", "-c", command], check=True)
    with start_server(moved) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


@only_root
def test_a_link_to_data_that_is_gone_does_not_become_an_empty_database(home: Path) -> None:
    """A new container with an old volume is told that the data is missing."""
    with start_server(home):
        pass
    shutil.rmtree(os.path.realpath(home / "postgres"))
    with pytest.raises(DatabaseUnavailableError, match="which is gone"):
        start_server(home)


@only_root
def test_root_serves_a_home_that_another_account_made_as_that_account() -> None:
    """The owner of the data folder is who the server runs as; the folder stays where it is."""
    nobody = pwd.getpwnam("nobody")
    base = TMP / f"dlq-test-{os.getpid()}"
    (base / "postgres").mkdir(parents=True, mode=0o700)
    for folder in (base, base / "postgres"):
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        with start_server(base) as server:
            assert answers(server.url())
            assert postmaster(base).uids().effective == nobody.pw_uid
        assert not (base / "postgres").is_symlink()
    finally:
        remove(base)
        shutil.rmtree(base)


# --- without root --------------------------------------------------------------------------------------------------


def unprivileged_python() -> tuple[list[str], dict[str, Any]]:
    """A Python of our version that `nobody` can run with our packages, and how to run it."""
    nobody = pwd.getpwnam("nobody")
    paths = os.pathsep.join([str(REPOSITORY), str(PACKAGES)])
    options: dict[str, Any] = {
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
        "cwd": "/",
    }
    options["env"] = {
        "PYTHONPATH": paths,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.defpath,
        "PGPORT": "6543",
    }
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in filter(
        None, [sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")]
    ):
        try:
            probe = [python, "-c", "import psycopg, dlq_pipelines.postgres.embedded"]
            if (
                subprocess.run(
                    probe, capture_output=True, check=False, timeout=60, **options
                ).returncode
                == 0
            ):
                return [python], options
        except OSError:
            continue
    pytest.skip("the account nobody can run no Python of this version with these packages")


@pytest.fixture
def unprivileged(user: Callable[..., User]) -> Iterator[tuple[Path, Callable[[Path], User]]]:
    """A folder of an unprivileged account, and a way to use a server as that account."""
    python, options = unprivileged_python() if ROOT else ([sys.executable], {})
    base = TMP / f"dlq-test-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    base.mkdir(mode=0o700)
    os.chown(base, options.get("user", -1), options.get("group", -1))
    yield base, lambda home: user(home, python, **options)
    for home in [path.parent for path in base.rglob("postgres") if path.is_dir()]:
        remove(home)
    shutil.rmtree(base)


@pytest.mark.parametrize("folder", ["home", "deep/" * 40 + "home"], ids=["plain", "long"])
def test_an_unprivileged_account_runs_everything_as_itself_in_its_home(
    unprivileged: tuple[Path, Callable[[Path], User]], folder: str
) -> None:
    """Without root there is no link and no folder elsewhere but, for a long path, one for the socket."""
    base, use = unprivileged
    home = base / folder
    first, second = use(home), use(home)
    url = first.answer()
    assert second.answer() == url
    assert answers(url.replace("port=6543", "port=5432"))
    data = home / "postgres"
    assert not data.is_symlink()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert data.stat().st_uid == base.stat().st_uid == postmaster(home).uids().effective
    first.leave()
    assert answers(url)
    second.leave()
    assert postmasters(home) == []


def test_a_socket_folder_that_is_open_to_others_is_refused(
    unprivileged: tuple[Path, Callable[[Path], User]],
) -> None:
    """In /tmp anybody can prepare a folder; the server does not offer itself in one that others can enter."""
    base, use = unprivileged
    home = base / ("deep/" * 40) / "home"
    honest = use(home)
    (folder,) = parse_qs(urlsplit(honest.answer()).query)["host"]
    assert Path(folder).parent == TMP
    honest.leave()
    Path(folder).chmod(0o755)
    assert "belongs to another account or is open to others" in use(home).answer()
    assert postmasters(home) == []


@only_root
def test_an_unprivileged_account_cannot_use_roots_home_and_is_told(
    unprivileged: tuple[Path, Callable[[Path], User]],
) -> None:
    """A home that root used first is refused with a way out, not with a stack trace."""
    base, use = unprivileged
    home = base / "home"
    with start_server(home):
        answer = use(home).answer()
    assert "Permission denied" in answer
    assert "choose another DLQ_HOME" in answer
