"""Starts the embedded server for its first user and stops it after its last."""

import atexit
import logging
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.embedded.cluster import Cluster, initialize_cluster
from dlq_pipelines.postgres.embedded.home import find_cluster
from dlq_pipelines.postgres.embedded.locks import DECISION_LOCK, USER_LOCK, FileLock
from dlq_pipelines.postgres.embedded.process import ensure_server_runs, stop_server
from dlq_pipelines.postgres.embedded.programs import find_programs

_log = logging.getLogger(__name__)


def start_server(home: Path) -> "EmbeddedServer":
    """Start the server of a home unless it runs, and use it until `release()`.

    Many processes and threads may call this at once, also after the server was killed.

    Args:
        home: the folder $DLQ_HOME, created when absent.

    Raises:
        DatabaseUnavailableError: the wheel is not installed, or the server cannot start; the
            message has the server's own error and the folder of its log.
    """
    home = Path(os.path.realpath(home))
    with ExitStack() as opened:
        try:
            home.mkdir(parents=True, exist_ok=True)
            programs = find_programs()
            cluster = find_cluster(home)
            decision = opened.enter_context(FileLock(cluster.locks / DECISION_LOCK))
            users = opened.enter_context(FileLock(cluster.locks / USER_LOCK))
            with decision.hold_exclusive():
                initialize_cluster(cluster, programs)
                ensure_server_runs(cluster, programs)
                users.share()
        except OSError as error:
            raise DatabaseUnavailableError(
                f"The embedded PostgreSQL of {home} cannot be used: {error}.",
                "Run as the account that owns that folder, choose another DLQ_HOME, or set "
                "DLQ_DATABASE_URL.",
            ) from error
        opened.pop_all()
    return EmbeddedServer(cluster, decision, users)


class EmbeddedServer:
    """One use of the running server, until `release()`, a `with` block or the process ends.

    A forked child is not a user: it can connect while its parent stays, and its `release()` does
    not stop the server. A child that outlives its parent calls `start_server()` itself.
    """

    def __init__(self, cluster: Cluster, decision: FileLock, users: FileLock) -> None:
        self._cluster = cluster
        self._locks: tuple[FileLock, FileLock] | None = (decision, users)
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        atexit.register(self.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def url(self, database: str = "postgres") -> str:
        """The URI of a database for psycopg, ADBC and every other client that uses libpq.

        SQLAlchemy needs `+psycopg2` after the scheme. It does not decode the database's name: use
        only letters, digits, `_` and `-` there. The URI has a port although the server does not
        use TCP, because PGPORT in the environment would select another socket.
        """
        return self._cluster.url(database)

    def ensure_database(self, name: str) -> str:
        """Create the database when it does not exist, and return its URI.

        Raises:
            DatabaseUnavailableError: the server does not answer, or refuses to create the database.
        """
        query = "select from pg_database where datname = %s"
        try:
            with psycopg.connect(self.url(), autocommit=True, connect_timeout=10) as connection:
                if not connection.execute(query, [name]).rowcount:
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            pass  # another process created it after the query
        except psycopg.Error as error:
            raise DatabaseUnavailableError(
                f"The database {name!r} of the embedded PostgreSQL cannot be opened: "
                f"{str(error).strip()}.",
                f"See the server's log in {self._cluster.logs}.",
            ) from None
        return self.url(name)

    def release(self) -> None:
        """End this use; the last user stops the server. A second call does nothing.

        It does not raise, because it runs when processes end: when the server does not stop, a
        warning is logged, and the server stays for the next user.
        """
        with self._mutex:
            locks, self._locks = self._locks, None
        if locks is None:
            return
        atexit.unregister(self.release)
        decision, users = locks
        with decision, users:
            if self._pid == os.getpid():
                self._stop_if_last_user(decision, users)

    def _stop_if_last_user(self, decision: FileLock, users: FileLock) -> None:
        try:
            with decision.hold_exclusive():
                if users.try_exclusive():
                    stop_server(self._cluster)
        except (OSError, DatabaseUnavailableError) as error:
            data = self._cluster.data
            _log.warning("The embedded PostgreSQL in %s was not stopped: %s", data, error)
        finally:
            users.unlock()
