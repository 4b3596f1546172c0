"""Tests that the server releases the locks of a killed process while its statement still runs."""

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


@pytest.mark.parametrize(
    ("statement", "state"),
    [("select pg_sleep(3600)", "active"), ("select 1", "idle in transaction")],
)
def test_the_lock_of_a_killed_process_is_released(
    connection: Connection, database: Database, statement: str, state: str
) -> None:
    """Its statement would run for an hour, longer than the timeout of this test."""
    if "linux" not in one(connection, "select version()")["version"]:
        pytest.skip("the server is not on Linux, where it can check the connection of its client")
    command = [sys.executable, "-c", HOLD, database.url, statement]
    running = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        f" and query = '{statement}' and state = '{state}'"
    )
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert one(connection, "select pg_try_advisory_lock(7) as free") == {"free": False}
        while not one(connection, running)["count"]:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    while not one(connection, "select pg_try_advisory_lock(7) as free")["free"]:
        time.sleep(0.2)


def test_a_session_has_the_settings_that_release_its_locks(connection: Connection) -> None:
    """Keepalives cover a machine that disappears; a Unix socket has no such setting."""
    found = one(
        connection,
        "select current_setting('client_connection_check_interval') as interval, version()",
    )
    assert found["interval"] == ("5s" if "linux" in found["version"] else "0")
    idle = one(connection, "select current_setting('tcp_keepalives_idle') as idle")["idle"]
    assert idle == ("0" if connection.info.host.startswith("/") else "60")
