"""Is the database at the schema that this release needs, and how does it get there?

Plain SQL files in two lines, `sql/migrations/dlq` (our own schema) and `sql/migrations/outbox` (additive changes of
the application's tables), applied in the order of their numbers, our line first where the numbers are equal. A file
runs in one transaction with the row that records it, unless its first line says `-- transaction: none`: then its
statements, separated by blank lines, run one by one and must be safe to run again. With `lock timeout: none` they wait
as long as it takes: concurrent builds of indexes, for transactions that are older, while the application goes on.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psycopg

from dlq_pipelines.errors import DlqError, SchemaError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.queries import SQL_FOLDER, TableNames, bind_names

MigrationSeries = Literal["outbox", "dlq"]

# One number for all runners of a database: "dlqm" in ASCII.
_RUNNER_LOCK = 0x646C716D
_RUNNER_WAIT_SECONDS = 60.0
_LOCK_TRIES = 10
_STATEMENT_END = re.compile(r";[ \t]*\n[ \t]*\n")


@dataclass(frozen=True)
class Migration:
    """One file: its line, its number in that line, its text with psql's tokens."""

    line: MigrationSeries
    number: int
    name: str
    text: str

    @property
    def label(self) -> str:
        """How people and the database call it."""
        return f"{self.line}/{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, by which an edit after the fact is noticed."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        """Whether the whole file is one transaction."""
        return not self.text.startswith("-- transaction: none")

    @property
    def patient(self) -> bool:
        """Whether it waits for others without end, because nobody waits for it meanwhile."""
        return self.text.startswith("-- transaction: none, lock timeout: none")

    @property
    def statements(self) -> list[str]:
        """What is sent to the server, one piece at a time."""
        return (
            [self.text]
            if self.transactional
            else [s for s in _STATEMENT_END.split(self.text) if s.strip()]
        )


def load_migrations(folder: Path = SQL_FOLDER / "migrations") -> list[Migration]:
    """Every migration of this release, in the order in which they are applied."""
    found = [
        Migration(line, int(file.name[:4]), file.stem, file.read_text(encoding="utf-8"))
        for line in ("dlq", "outbox")
        for file in (folder / line).glob("[0-9][0-9][0-9][0-9]_*.sql")
    ]
    return sorted(found, key=lambda migration: (migration.number, migration.line))


def list_pending_migrations(connection: Connection, migrations: list[Migration]) -> list[Migration]:
    """The migrations that this database lacks.

    Raises:
        SchemaError: an applied file was edited since, or the database was migrated by a newer release.
    """
    applied = _applied(connection)
    known = {(migration.line, migration.number): migration for migration in migrations}
    for key, (name, checksum) in applied.items():
        migration = known.get(key)
        if migration is None:
            raise SchemaError(
                f"The database has migration {key[0]}/{name}, which this release does not know: it was migrated by a "
                "newer one. Install that release."
            )
        if migration.checksum != checksum:
            raise SchemaError(
                f"Migration {migration.label} was edited after it was applied. Put the file back as it was released "
                "and write the change as a new migration."
            )
    return [
        migration for migration in migrations if (migration.line, migration.number) not in applied
    ]


def apply_migrations(
    connection: Connection,
    migrations: list[Migration],
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Migration]:
    """Apply what is missing and return it; nothing missing is no error.

    Args:
        connection: in autocommit mode, with the rights of the tables' owner.
        migrations: normally `all_migrations()`.
        tell: is called with what is done, before it is: which migration is applied, and which sessions it waits for.

    Raises:
        SchemaError: the application's outbox table is not there or has another type of a column, another runner did not
            finish in a minute, or a lock on the application's table or rows was not to be had in ten tries of
            `lock_timeout` each; what was applied until then stays and the next run goes on.
    """
    if not list_pending_migrations(connection, migrations):
        return []
    if not connection.fetch_one("migration.host_exists")["found"]:
        names = connection.names
        raise SchemaError(
            f"There is no outbox table {names.outbox_schema}.{names.outbox_table} in this database. "
            "Set DLQ_OUTBOX_SCHEMA and DLQ_OUTBOX_TABLE to the application's, and run `dlq migrate` again."
        )
    with _only_runner(connection):
        todo = list_pending_migrations(connection, migrations)
        for migration in todo:
            tell(f"applying {migration.label}")
            if migration.patient:
                _tell_what_it_waits_for(connection, tell)
            _apply(connection, migration)
    return todo


def require_current(connection: Connection) -> None:
    """Refuse to work on another schema than this release's.

    Raises:
        SchemaError: the message names the command that mends it.
    """
    missing = list_pending_migrations(connection, load_migrations())
    if missing:
        raise SchemaError(
            f"The database lacks {len(missing)} migration(s), first {missing[0].label}. Run `dlq migrate`."
        )


def render_migrations(line: MigrationSeries, names: TableNames) -> str:
    """A line's migrations as one script for plain `psql -f`, for people who apply migrations with their own tools.

    The names are psql variables with the configured ones as defaults. The script records what it applied, so
    `dlq migrate` knows. Our line comes first: the other one's trigger calls a function of it.
    """
    migrations = [migration for migration in load_migrations() if migration.line == line]
    head = [
        f"-- dlq-pipelines, migrations of line {line}. Apply line dlq before line outbox.",
        *_variables(asdict(names)),
    ]
    return "\n".join([*head, *map(_printed, migrations), ""])


def render_roles(names: TableNames) -> str:
    """`sql/roles.sql` for plain `psql -f`: roles with the least rights, called `dlq_operator` and so on.

    The names are psql variables with the configured ones as defaults: `psql -v reader=dashboards`.
    """
    roles = {role: f"dlq_{role}" for role in ("operator", "reader", "flagger", "worker")}
    text = (SQL_FOLDER / "roles.sql").read_text(encoding="utf-8")
    return "\n".join([*_variables(asdict(names) | roles), text])


def _variables(defaults: dict[str, str]) -> Iterator[str]:
    yield "\\set ON_ERROR_STOP on"
    for token, default in defaults.items():
        value = default.replace("\\", "\\\\").replace("'", "''")
        yield from (f"\\if :{{?{token}}}", "\\else", f"\\set {token} '{value}'", "\\endif")


def _printed(migration: Migration) -> str:
    record = (  # our own file's name and checksum
        'insert into :"dlq_schema".migration (line, number, name, checksum) values '
        f"('{migration.line}', {migration.number}, '{migration.name}', '{migration.checksum}');"
    )
    body = f"{migration.text.rstrip()}\n{record}"
    head = f"\n-- {migration.label}\nset lock_timeout = '{'0' if migration.patient else '5s'}';\n"
    return head + (f"begin;\n{body}\ncommit;" if migration.transactional else body)


def _applied(connection: Connection) -> dict[tuple[MigrationSeries, int], tuple[str, str]]:
    if not connection.fetch_one("migration.exists")["found"]:
        return {}
    rows = connection.run("migration.applied").fetchall()
    return {(row["line"], row["number"]): (row["name"], row["checksum"]) for row in rows}


@contextmanager
def _only_runner(connection: Connection) -> Iterator[None]:
    """Hold the runner's lock, without a statement time-out: an index build takes as long as it takes.

    The lock is polled: a blocked wait is a snapshot that a concurrent index build waits for in turn.
    """
    give_up = time.monotonic() + _RUNNER_WAIT_SECONDS
    while not connection.fetch_one("migration.try_lock", key=_RUNNER_LOCK)["locked"]:
        if time.monotonic() > give_up:
            raise SchemaError(
                "Another `dlq migrate` is still running. Wait for it and run `dlq migrate` again."
            )
        time.sleep(0.1)
    with _timeouts(connection, statement="0"):
        try:
            yield
        finally:
            if not connection.closed:
                connection.run("migration.unlock", key=_RUNNER_LOCK)


@contextmanager
def _timeouts(connection: Connection, **other: str) -> Iterator[None]:
    """Other time-outs for the length of a block: `statement` or `lock`, "0" for none."""
    before = connection.fetch_one("migration.timeouts")
    connection.run("migration.set_timeouts", **(before | other))
    try:
        yield
    finally:
        if not connection.closed:
            connection.run("migration.set_timeouts", **before)


def _tell_what_it_waits_for(connection: Connection, tell: Callable[[str], None]) -> None:
    """Name the sessions that were in a transaction before, as far as this role may see them."""
    for other in connection.run("migration.long_transactions"):
        tell(
            f"  waits until session {other['pid']} ({other['program'] or 'unnamed'}, role {other['role']}) ends its "
            f"transaction, open since {other['since']:%Y-%m-%d %H:%M:%S} UTC; the application goes on meanwhile"
        )


def _apply(connection: Connection, migration: Migration) -> None:
    for attempt in range(1, _LOCK_TRIES + 1):
        try:
            return _apply_once(connection, migration)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if attempt < _LOCK_TRIES:
                time.sleep(0.2 * attempt)
        except psycopg.errors.InsufficientPrivilege as error:
            raise SchemaError(
                f"Migration {migration.label}: {error.diag.message_primary}. Run `dlq migrate` as the owner of the "
                "outbox table."
            ) from None
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            raise SchemaError(error.diag.message_primary or "") from None
    raise SchemaError(
        f"Migration {migration.label} got no lock in {_LOCK_TRIES} tries: a long transaction holds the table or its "
        "rows. End it (pg_stat_activity shows it) and run `dlq migrate` again."
    )


def _apply_once(connection: Connection, migration: Migration) -> None:
    if migration.transactional:
        with connection.transaction():
            _execute(connection, migration)
            _record(connection, migration)
        return
    with _timeouts(connection, lock="0") if migration.patient else nullcontext():
        _execute(connection, migration)
    _record(connection, migration)


def _execute(connection: Connection, migration: Migration) -> None:
    for statement in migration.statements:
        connection.execute(bind_names(statement, connection.names).encode())


def _record(connection: Connection, migration: Migration) -> None:
    connection.run(
        "migration.record",
        line=migration.line,
        number=migration.number,
        name=migration.name,
        checksum=migration.checksum,
    )


def create_host_tables(connection: Connection) -> None:
    """Create the reference application tables, for the demo and for tests, unless the outbox table is there.

    Raises:
        DlqError: half of them is there.
    """
    if connection.fetch_one("migration.host_exists")["found"]:
        return
    try:
        connection.execute(
            bind_names(
                (SQL_FOLDER / "host" / "outbox_event.sql").read_text(), connection.names
            ).encode()
        )
    except psycopg.errors.DuplicateTable as error:
        raise DlqError(
            f"{error.diag.message_primary}, but the outbox table does not. Name both in DLQ_*."
        ) from None
