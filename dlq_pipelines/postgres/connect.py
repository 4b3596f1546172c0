"""Connects to PostgreSQL, in UTC and with timeouts, also through a transaction pooler.

A `Connection` runs named statements: `connection.run("archive.move_batch", limit=5000)`. It never
commits by itself: a transaction belongs to the operation that opened it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import IsolationLevel
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_loads
from psycopg.types.string import TextLoader

from dlq_pipelines.day import AFTER_ALL_TIMES, BEFORE_ALL_TIMES, LAST_FINITE_TIME
from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.queries import TableNames, load_queries
from dlq_pipelines.text import parse_json_or_text

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool


# The C function in which PL/pgSQL raises what a function of ours refuses.
_RAISE = "exec_stmt_raise"
# What PostgreSQL says of a text that is no id, within the sentence of the function `event_ids`.
_WRONG_ID = re.compile(
    r"(?s)^(Not an event id of this outbox: )"
    r'(?:invalid input syntax for type [\w ]+: |value )"(.*)"(?: is out of range for type [\w ]+)?'
)
_URL_HINT = "Write postgresql://user:password@host:5432/database."


class Connection(psycopg.Connection[DictRow]):
    """A psycopg connection that runs the statements of `sql/queries`, bound to its table names."""

    names: TableNames = TableNames()
    # Set at the start of each transaction; None: set for the session, which nobody else uses.
    local_settings: dict[str, str] | None = None

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """Begin a transaction, or a savepoint inside of one. See psycopg."""
        begins = not self._is_in_transaction()
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if begins and self.local_settings is not None:
                self.run("session.configure", **self.local_settings, local=True, process=None)
            yield transaction

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Begin a read-only transaction in which every statement sees the same rows."""
        levels = self.isolation_level, self.read_only
        self.isolation_level, self.read_only = IsolationLevel.REPEATABLE_READ, True
        try:
            with self.transaction():
                yield
        finally:
            if not self.closed:
                self.isolation_level, self.read_only = levels

    def _is_in_transaction(self) -> bool:
        return self.info.transaction_status != TransactionStatus.IDLE

    def run(self, name: str, /, **values: Any) -> psycopg.Cursor[DictRow]:
        """Execute a named statement, `concept.statement`, with these values.

        Raises:
            ValueError: one of our functions refuses an argument, such as an event id of another
                type; the message names the argument and its remedy.
        """
        if self.local_settings is not None and not self._is_in_transaction():
            with self.transaction():
                return self.run(name, **values)
        try:
            return self.execute(load_queries(self.names)[name], values)
        except psycopg.errors.InvalidParameterValue as error:
            if error.diag.source_function != _RAISE:
                raise
            message = _WRONG_ID.sub(r"\1'\2'", error.diag.message_primary or "")
            parts = (message, error.diag.message_hint)
            raise ValueError(" ".join(part for part in parts if part)) from None

    def fetch_one(self, name: str, /, **values: Any) -> DictRow:
        """Return the row of a statement that always returns exactly one, such as an aggregate."""
        row = self.run(name, **values).fetchone()
        if row is None:
            raise LookupError(f"statement {name} returned no row")
        return row

    def render_query(self, name: str, /, **values: Any) -> str:
        """Return a statement with its values as literals, for drivers without parameters."""
        return psycopg.ClientCursor(self).mogrify(load_queries(self.names)[name], values)


@dataclass(frozen=True)
class Database:
    """The database of the outbox, with timeouts.

    Attributes:
        url: libpq connection string or URI. Never printed, because it can hold a password.
        names: names of the tables.
        connect_timeout: seconds to wait for a connection; libpq rounds 1 up to 2.
        statement_timeout: seconds that a statement may take; batches stay far below it.
        lock_timeout: seconds to wait for a lock; short, because the application queues behind it.
        origin: where the URL was given, for errors.
        next_command: what errors advise to run once the server answers.
    """

    url: str
    names: TableNames = TableNames()
    connect_timeout: int = 10
    statement_timeout: float = 300.0
    lock_timeout: float = 5.0
    origin: str = "DLQ_DATABASE_URL"
    next_command: str = "dlq migrate --check"

    def __repr__(self) -> str:
        return f"Database(names={self.names!r})"

    def open(self) -> Connection:
        """Open a connection in autocommit mode, in UTC and with the timeouts set on the server.

        Behind a pooler they are set for each transaction, because the application uses the session
        of the server before and after it.

        In autocommit mode only `with connection.transaction():` begins a transaction, and a read
        leaves none open.

        Raises:
            DatabaseUnavailableError: no server answers, or the server refuses the connection.
        """
        self._reject_unescaped_password()
        try:
            connection = Connection.connect(self.url, **self._options())
        except psycopg.Error as error:
            raise self._build_unavailable_error(error) from None
        self._configure(connection)
        return connection

    def pool(self, *, size: int, wait: float) -> "ConnectionPool[Connection]":
        """Return a pool of connections like those of `open`. The pool is not opened yet.

        The pool checks each connection before it hands it out, so that a restart of the server
        costs one round trip and fails no request.

        Args:
            size: maximum number of connections; the first is opened at once, others on demand.
            wait: seconds that a request waits for a connection before
                `psycopg_pool.PoolTimeout` is raised.

        Raises:
            DatabaseUnavailableError: the URL is not a connection string.
        """
        from psycopg_pool import ConnectionPool

        self._reject_unescaped_password()
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

    def _reject_unescaped_password(self) -> None:
        """Reject a URL with an unescaped @ in its password: libpq would show the rest as a host.

        It ends the password at the last @, or at the first one if a colon and no port follow.
        """
        try:
            host = conninfo_to_dict(self.url).get("host")
        except psycopg.Error as error:
            raise self._build_unavailable_error(error) from None
        authority = re.split("[/?]", self.url.partition("://")[2])[0]
        if "://" in self.url and ("@" in str(host) or authority.count("@") > 1):
            raise self._build_url_error(f"{_URL_HINT} In a password, escape @ as %40 and / as %2F.")

    def _build_unavailable_error(self, error: psycopg.Error) -> DatabaseUnavailableError:
        """Name the host only: libpq repeats a malformed connection string with its password."""
        if isinstance(error, psycopg.ProgrammingError):
            return self._build_url_error(_URL_HINT)
        # The first line names the server and the reason; libpq's hints follow.
        origin = self.origin.replace("The ", "the ", 1)  # within a sentence
        reason = str(error).strip().partition("\n")[0].removeprefix("connection failed: ")
        return DatabaseUnavailableError(
            f"Cannot connect to PostgreSQL: {reason or type(error).__name__}.",
            f"Check {origin} and the server, then run `{self.next_command}`.",
        )

    def _build_url_error(self, hint: str) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(f"{self.origin} is not a connection string.", hint)

    def _options(self) -> dict[str, Any]:
        return {
            "autocommit": True,
            "row_factory": dict_row,
            "connect_timeout": self.connect_timeout,
            "application_name": "dlq-pipelines",
            # A statement with optional filters uses an index only if it is planned for its values,
            # and a prepared statement breaks behind a transaction pooler.
            "prepare_threshold": None,
        }

    def _configure(self, connection: Connection) -> None:
        connection.names = self.names
        set_json_loads(parse_json_or_text, connection)
        connection.adapters.register_loader("timestamptz", _TimeLoader)
        connection.adapters.register_loader("date", _DayLoader)
        # A uuid is text, as in JSON, cursors and tables.
        connection.adapters.register_loader("uuid", TextLoader)
        settings = {
            "statement_timeout": _milliseconds(self.statement_timeout),
            "lock_timeout": _milliseconds(self.lock_timeout),
        }
        process = connection.info.backend_pid
        if not connection.run(
            "session.configure", **settings, local=False, process=process
        ).rowcount:
            connection.isolation_level = IsolationLevel.READ_COMMITTED
            connection.local_settings = settings

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a connection for the length of a `with` block."""
        connection = self.open()
        try:
            yield connection
        finally:
            connection.close()


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


class _TimeLoader(Loader):
    """Loads a time with psycopg's own loader, and never raises.

    `infinity`, `-infinity`, years after 9999 and years before 1 are valid in PostgreSQL, but not in
    Python. An exception would keep a list from every other row, and a worker from every other event
    of its batch. `day` describes the times that are returned instead.
    """

    first: date = BEFORE_ALL_TIMES
    last: date = LAST_FINITE_TIME
    infinite: date = AFTER_ALL_TIMES

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        found = psycopg.adapters.get_loader(oid, Format.TEXT)
        assert found is not None  # noqa: S101 - psycopg has one for each of its types
        self._loader = found(oid, context)

    def load(self, data: Buffer) -> Any:
        try:
            return self._loader.load(data)
        except psycopg.DataError:
            text = bytes(data)
            if text.startswith(b"-") or text.endswith(b"BC"):
                return self.first
            return self.infinite if text == b"infinity" else self.last


class _DayLoader(_TimeLoader):
    """Loads a day; the first or the last that Python has instead of one that it has not."""

    first, last, infinite = date.min, date.max, date.max
