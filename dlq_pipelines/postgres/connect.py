"""How does a process talk to PostgreSQL: with which time-outs, in UTC, and under which name?

A `Connection` runs named statements: `connection.run("archive.move_batch", limit=5000)`. It never commits by
itself; a transaction belongs to the operation that opened it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_loads

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.queries import TableNames, load_queries

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool


_NO_ADDRESS = "DLQ_DATABASE_URL is not a connection string. Write postgresql://user:password@host:5432/database."


class Connection(psycopg.Connection[DictRow]):
    """A psycopg connection that knows the statements of `sql/queries`, bound to one set of table names."""

    names: TableNames = TableNames()

    def run(self, name: str, /, **values: Any) -> psycopg.Cursor[DictRow]:
        """Execute the statement of that name (`concept.statement`) with these values."""
        return self.execute(load_queries(self.names)[name], values)

    def fetch_one(self, name: str, /, **values: Any) -> DictRow:
        """The only row of a statement that always returns one, such as an aggregate."""
        row = self.run(name, **values).fetchone()
        if row is None:
            raise LookupError(f"statement {name} returned no row")
        return row

    def literal(self, name: str, /, **values: Any) -> str:
        """The statement with its values written in as literals, for drivers that take no psycopg parameters."""
        return psycopg.ClientCursor(self).mogrify(load_queries(self.names)[name], values)


@dataclass(frozen=True)
class Database:
    """Where the outbox is and how long this process is ready to wait for it.

    Attributes:
        url: libpq connection string or URI. Never printed: it may hold a password.
        names: the tables.
        connect_timeout: seconds to wait for a connection (libpq rounds 1 up to 2).
        statement_timeout: seconds that one statement may take; batches are sized to stay far below it.
        lock_timeout: seconds to queue for a lock; short, because waiting behind it the application queues too.
    """

    url: str
    names: TableNames = TableNames()
    connect_timeout: int = 10
    statement_timeout: float = 300.0
    lock_timeout: float = 5.0

    def __repr__(self) -> str:
        return f"Database(names={self.names!r})"

    def open(self) -> Connection:
        """Open one connection, in UTC and with the time-outs set on the server.

        In autocommit mode, so that `with connection.transaction():` is the only thing that begins a transaction and a
        read leaves none open.

        Raises:
            DatabaseUnavailableError: no server answers there, or it refuses us.
        """
        self._require_whole_password()
        try:
            connection = Connection.connect(self.url, **self._options())
        except psycopg.Error as error:
            raise DatabaseUnavailableError(_why_unavailable(error)) from None
        self._configure(connection)
        return connection

    def pool(self, *, size: int, wait: float) -> "ConnectionPool[Connection]":
        """Connections as `open` makes them, for many requests at once. Not opened yet.

        Each is tried before it is lent, so that a restart of the server costs one round trip and no request.

        Args:
            size: how many at most; the first is opened at once, the others when they are needed.
            wait: seconds that a request waits for one, before `psycopg_pool.PoolTimeout` is raised.

        Raises:
            DatabaseUnavailableError: the address is no connection string.
        """
        from psycopg_pool import ConnectionPool

        self._require_whole_password()
        return ConnectionPool(
            self.url,
            connection_class=Connection,
            kwargs=self._options(),
            configure=self._configure,
            check=ConnectionPool.check_connection,
            min_size=1,
            max_size=size,
            timeout=wait,
            open=False,
            name="dlq-pipelines",
        )

    def _require_whole_password(self) -> None:
        """Refuse an address whose password ends at an @ of its own: libpq would tell the rest as a host's name."""
        try:
            host = conninfo_to_dict(self.url).get("host")
        except psycopg.Error as error:
            raise DatabaseUnavailableError(_why_unavailable(error)) from None
        if "://" in self.url and "@" in str(host):
            raise DatabaseUnavailableError(
                f"{_NO_ADDRESS} An @ in a password is written %40, a / %2F."
            )

    def _options(self) -> dict[str, Any]:
        return {
            "autocommit": True,
            "row_factory": dict_row,
            "connect_timeout": self.connect_timeout,
            "application_name": "dlq-pipelines",
            # Statements with filters that may be absent are read by an index only in a plan for the values at hand, and
            # a prepared statement breaks behind a transaction pooler.
            "prepare_threshold": None,
        }

    def _configure(self, connection: Connection) -> None:
        connection.names = self.names
        set_json_loads(_read, connection)
        connection.run(
            "session.configure",
            statement_timeout=_milliseconds(self.statement_timeout),
            lock_timeout=_milliseconds(self.lock_timeout),
        )

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection for the length of a `with` block, closed at its end whatever happens."""
        connection = self.open()
        try:
            yield connection
        finally:
            connection.close()


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _why_unavailable(error: psycopg.Error) -> str:
    """Say which host did not answer without the connection string: libpq repeats bad ones with the password."""
    if isinstance(error, psycopg.ProgrammingError):
        return _NO_ADDRESS
    # Its first line names the server and the reason; what follows are libpq's hints.
    reason = str(error).strip().partition("\n")[0].removeprefix("connection failed: ")
    return (
        f"PostgreSQL does not answer: {reason or type(error).__name__}. "
        "Check DLQ_DATABASE_URL and the server, then run `dlq migrate --check`."
    )


def _read(text: str | bytes) -> Any:
    """JSON as Python reads it, or else its text: a number of thousands of digits, or what is nested a thousand deep.

    One such payload would keep a worker from all the others that it fetches, again and again.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text if isinstance(text, str) else text.decode()
