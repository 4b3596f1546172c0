"""An embedded server that is killed while it starts; homes that are deleted, moved or copied."""
# ruff: noqa: F811 - fixtures

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded import start_server
from tests.postgres.test_embedded import (
    ROOT,
    User,
    cleanup,  # noqa: F401 - a fixture
    find_data,
    find_folders,
    find_postmaster,
    find_postmasters,
    home,  # noqa: F401 - a fixture
    is_answering,
    keep_answer,
    kill_server,
    only_root,
    read_kept_answer,
    user,  # noqa: F401 - a fixture
)


def test_a_start_waits_for_the_processes_of_a_killed_server(home: Path) -> None:
    """A process of the old server still uses its memory for a moment."""
    with start_server(home) as server, psycopg.connect(server.url()) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        kill_server(home)
        threading.Timer(1.5, backend.resume).start()
        began = time.monotonic()
        with start_server(home) as again:
            assert is_answering(again.url())
        assert time.monotonic() - began > 1


def test_an_interrupted_initdb_begins_again(home: Path) -> None:
    """The files of a killed initdb are not taken for a database."""
    with start_server(home):
        pass
    data = find_data(home)
    owner = data.stat()
    fresh = data.rename(data.with_name(f"{data.name}.new"))
    (fresh / "global" / "pg_control").unlink()
    if ROOT:
        data.mkdir(mode=0o700)
        os.chown(data, owner.st_uid, owner.st_gid)
    with start_server(home) as server:
        assert is_answering(server.url())
    assert not fresh.exists()


def test_a_start_that_is_killed_at_any_moment_can_be_repeated(
    home: Path, user: Callable[..., User], cleanup: Callable[[Path], Path]
) -> None:
    """The start after killed ones finds or creates one data folder."""
    began = time.monotonic()
    user(cleanup(home.with_name("measured"))).read_answer()
    seconds = time.monotonic() - began
    for moment in range(6):
        killed = user(home)
        time.sleep(seconds * moment / 6)
        killed.kill()
    with start_server(home) as server:
        assert is_answering(server.url())
        assert find_postmaster(home)
    assert len(find_folders(home)) == ROOT


@only_root
def test_a_home_that_was_deleted_and_created_again_begins_with_an_empty_database(
    home: Path,
) -> None:
    """The data of the deleted home is removed."""
    with start_server(home) as server:
        keep_answer(server.url())
    (old,) = find_folders(home)
    shutil.rmtree(home)
    with start_server(home) as server:
        assert read_kept_answer(server.url()) is None
        assert not old.exists()
        keep_answer(server.url())
    with start_server(home) as server:
        assert read_kept_answer(server.url()) == (42,)


@only_root
def test_a_process_that_still_uses_a_deleted_home_keeps_its_server(home: Path) -> None:
    """A home that is created again meanwhile gets another server."""
    with start_server(home) as old:
        keep_answer(old.url())
        (folder,) = find_folders(home)
        shutil.rmtree(home)
        with start_server(home) as new:
            assert read_kept_answer(new.url()) is None
            assert read_kept_answer(old.url()) == (42,)
    assert find_postmasters(folder / "data") == []
    shutil.rmtree(home)
    with start_server(home):
        assert not folder.exists()


@only_root
def test_the_running_server_of_a_deleted_home_keeps_its_data(
    home: Path, user: Callable[..., User], caplog: pytest.LogCaptureFixture
) -> None:
    """A server without users runs on after a SIGKILL of its last user."""
    last = user(home)
    url = last.read_answer()
    last.kill()
    (folder,) = find_folders(home)
    shutil.rmtree(home)
    with start_server(home):
        assert is_answering(url)
        assert f"{folder} holds the database of an earlier home at {home}" in caplog.text


@only_root
def test_a_process_of_a_killed_server_keeps_the_data_of_a_deleted_home(
    home: Path, user: Callable[..., User]
) -> None:
    """The data is removed once that process ended."""
    last = user(home)
    with psycopg.connect(last.read_answer()) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        kill_server(home)
    last.kill()
    (folder,) = find_folders(home)
    shutil.rmtree(home)
    with start_server(home):
        assert (folder / "data" / "PG_VERSION").exists()
    backend.kill()
    backend.wait(30)
    shutil.rmtree(home)
    with start_server(home):
        assert not folder.exists()


@only_root
def test_a_moved_home_keeps_its_data_when_another_is_created_at_its_old_path(
    home: Path, cleanup: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The moved home is refused until it runs the command of the message."""
    with start_server(home) as server:
        keep_answer(server.url())
    (folder,) = find_folders(home)
    moved = cleanup(home.rename(home.with_name("it's moved")))
    with start_server(home) as server:
        assert read_kept_answer(server.url()) is None
        assert f"{folder} holds the database of an earlier home at {home}" in caplog.text
    expected = r"If that home was moved here, run `.*`\. If"
    with pytest.raises(DatabaseUnavailableError, match=expected) as caught:
        start_server(moved)
    subprocess.run(["/bin/sh", "-c", str(caught.value).split("`")[1]], check=True)
    with start_server(moved) as server, start_server(home) as other:
        assert read_kept_answer(server.url()) == (42,)
        assert read_kept_answer(other.url()) is None


@only_root
def test_a_copied_home_does_not_share_the_data_of_the_original(
    home: Path, cleanup: Callable[[Path], Path]
) -> None:
    """The message has the command that begins with an empty database."""
    with start_server(home) as server:
        keep_answer(server.url())
        copy = cleanup(home.with_name("copy"))
        shutil.copytree(home, copy, symlinks=True)
        expected = r"If this home is a copy, run `rm .*`"
        with pytest.raises(DatabaseUnavailableError, match=expected) as caught:
            start_server(copy)
        subprocess.run(["/bin/sh", "-c", str(caught.value).split("`")[3]], check=True)
        with start_server(copy) as other:
            assert read_kept_answer(other.url()) is None
        assert read_kept_answer(server.url()) == (42,)


@only_root
@pytest.mark.parametrize("is_known", [True, False], ids=["restored", "other filesystem"])
def test_data_stays_when_the_deletion_of_its_link_is_not_certain(
    home: Path, cleanup: Callable[[Path], Path], is_known: bool
) -> None:
    """A restored link is registered again; without a hard link, data is never removed."""
    with start_server(home) as server:
        keep_answer(server.url())
    data = find_data(home)
    (home / "postgres").unlink()
    (home / "postgres").symlink_to(data)
    if is_known:
        with start_server(home):
            pass
        cleanup(home.rename(home.with_name("moved")))
    else:
        (data.parent / "link").unlink()
        shutil.rmtree(home)
    with start_server(home) as server:
        assert read_kept_answer(server.url()) is None
    assert (data / "PG_VERSION").exists()
