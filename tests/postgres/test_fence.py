"""Locks of the dead: are they free soon, whatever their statement was still doing?"""

import signal
import subprocess
import sys
import time

import pytest

from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import one

HOLD = """
import sys
from dlq_pipelines.postgres.connect import Database
with Database(sys.argv[1]).connect() as connection, connection.transaction():
    connection.execute("select pg_advisory_xact_lock(7)")
    print("held", flush=True)
    connection.execute(sys.argv[2])
    sys.stdin.read()
"""


@pytest.mark.parametrize("doing", ["select pg_sleep(120)", "select 1"], ids=["works", "waits"])
def test_the_lock_of_a_killed_process_is_free_within_seconds(
    connection: Connection, database: Database, doing: str
) -> None:
    """Its statement would take two minutes more."""
    if "linux" not in one(connection, "select version()")["version"]:
        pytest.skip("the server is not on Linux, where it can look for its clients")
    command = [sys.executable, "-c", HOLD, database.url, doing]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert one(connection, "select pg_try_advisory_lock(7) as free") == {"free": False}
        time.sleep(0.5)  # the statement has begun
        child.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while not one(connection, "select pg_try_advisory_lock(7) as free")["free"]:
        assert time.monotonic() < until, "the lock is held by a process that is gone"
        time.sleep(0.2)


def test_a_session_has_what_frees_its_locks(connection: Connection) -> None:
    """Over TCP also for machines that are gone; on a Unix socket, where both are one, the server has no such time."""
    found = one(
        connection, "select current_setting('client_connection_check_interval') as looks, version()"
    )
    assert found["looks"] == ("5s" if "linux" in found["version"] else "0")
    idle = one(connection, "select current_setting('tcp_keepalives_idle') as idle")["idle"]
    assert idle == ("0" if connection.info.host.startswith("/") else "60")
