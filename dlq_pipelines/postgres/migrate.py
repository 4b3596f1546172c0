"""Applies migrations and checks that the database has the schema of this release.

Migrations are SQL files in two series: `sql/migrations/dlq` (our own schema) and
`sql/migrations/outbox` (additive changes to the application's tables). They are applied in the
order of their numbers, `dlq` first where numbers are equal.

A file runs in one transaction with the row that records it, unless its first line is
`-- transaction: none`. Then its statements, separated by blank lines, run one by one and must be
idempotent. With `lock timeout: none` they wait for locks without limit: a concurrent index build
waits for older transactions while the application goes on.
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

# The key of the advisory lock that one `dlq migrate` at a time holds: "dlqm" in ASCII.
_RUNNER_LOCK = 0x646C716D
_RUNNER_WAIT_SECONDS = 60.0
_LOCK_TRIES = 10
_STATEMENT_END = re.compile(r";[ \t]*\n[ \t]*\n")


@dataclass(frozen=True)
class Migration:
    """One file: its series, its number in that series, and its text with psql variables."""

    series: MigrationSeries
    number: int
    name: str
    text: str

    @property
    def label(self) -> str:
        """The name that people see, such as `dlq/0001_schema`."""
        return f"{self.series}/{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, which reveals an edit after the migration was applied."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        """Whether the file runs in one transaction."""
        return not self.text.startswith("-- transaction: none")

    @property
    def waits_for_locks(self) -> bool:
        """Whether it waits for locks without limit, because no other session waits for it."""
        return self.text.startswith("-- transaction: none, lock timeout: none")

    @property
    def statements(self) -> list[str]:
        """The statements that are sent to the server one by one."""
        return (
            [self.text]
            if self.transactional
            else [s for s in _STATEMENT_END.split(self.text) if s.strip()]
        )


def load_migrations(folder: Path = SQL_FOLDER / "migrations") -> list[Migration]:
    """Return every migration of this release in the order of application."""
    found = [
        Migration(series, int(file.name[:4]), file.stem, file.read_text(encoding="utf-8"))
        for series in ("dlq", "outbox")
        for file in (folder / series).glob("[0-9][0-9][0-9][0-9]_*.sql")
    ]
    # dlq before outbox: a trigger needs the function of its schema.
    return sorted(found, key=lambda migration: (migration.number, migration.series))


def list_pending_migrations(connection: Connection, migrations: list[Migration]) -> list[Migration]:
    """Return the migrations that this database lacks.

    Raises:
        SchemaError: an applied file was edited, or a newer release migrated the database.
    """
    applied = _applied(connection)
    known = {(migration.series, migration.number): migration for migration in migrations}
    for key, (name, checksum) in applied.items():
        migration = known.get(key)
        if migration is None:
            raise SchemaError(
                f"The database has the migration {key[0]}/{name} of a newer release.",
                "Install that release.",
            )
        if migration.checksum != checksum:
            raise SchemaError(
                f"Migration {migration.label} was edited after it was applied.",
                "Restore the released file and put the change into a new migration.",
            )
    return [
        migration for migration in migrations if (migration.series, migration.number) not in applied
    ]


def apply_migrations(
    connection: Connection,
    migrations: list[Migration],
    *,
    report: Callable[[str], None] = lambda _: None,
) -> list[Migration]:
    """Apply the pending migrations and return them.

    Args:
        connection: in autocommit mode, with the rights of the tables' owner.
        migrations: normally the result of `load_migrations`.
        report: called before each step with a sentence: which migration is applied, and which
            sessions it waits for.

    Raises:
        SchemaError: the outbox table does not exist or a column has the wrong type; another
            `dlq migrate` did not finish within a minute; or a lock on the application's table was
            not granted in ten tries of `lock_timeout` each. Migrations that were applied before
            stay applied, and the next run continues after them.
    """
    if not list_pending_migrations(connection, migrations):
        return []
    if not connection.fetch_one("migration.host_exists")["found"]:
        table = f"{connection.names.outbox_schema}.{connection.names.outbox_table}"
        raise SchemaError(
            f"There is no outbox table {table} in this database.",
            "Set DLQ_OUTBOX_SCHEMA and DLQ_OUTBOX_TABLE, and run `dlq migrate` again.",
        )
    with _hold_runner_lock(connection):
        pending = list_pending_migrations(connection, migrations)
        for migration in pending:
            report(f"applying {migration.label}")
            if migration.waits_for_locks:
                _report_long_transactions(connection, report)
            _apply(connection, migration)
    return pending


def require_current(connection: Connection) -> None:
    """Check that the database has the schema of this release.

    Raises:
        SchemaError: migrations are pending.
    """
    missing = list_pending_migrations(connection, load_migrations())
    if missing:
        raise SchemaError(
            f"The database lacks {len(missing)} migration(s), first {missing[0].label}.",
            "Run `dlq migrate`.",
        )


def render_migrations(series: MigrationSeries, names: TableNames) -> str:
    """Return a series as one script for `psql -f`, to apply migrations with other tools.

    Table names are psql variables whose defaults are the configured names. The script records what
    it applies, so `dlq migrate` skips it. Apply the series `dlq` first: the trigger of the series
    `outbox` calls its functions.
    """
    migrations = [migration for migration in load_migrations() if migration.series == series]
    head = [
        f"-- dlq-pipelines: migrations of the series {series}. Apply dlq before outbox.",
        *_declare_variables(asdict(names)),
    ]
    return "\n".join([*head, *map(_render_migration, migrations), ""])


def render_roles(names: TableNames) -> str:
    """Return `sql/roles.sql` for `psql -f`: roles with the least rights, such as `dlq_operator`.

    Role names are psql variables: `psql -v reader=dashboards`.
    """
    roles = {role: f"dlq_{role}" for role in ("operator", "reader", "flagger", "worker")}
    text = (SQL_FOLDER / "roles.sql").read_text(encoding="utf-8")
    return "\n".join([*_declare_variables(asdict(names) | roles), text])


def _declare_variables(defaults: dict[str, str]) -> Iterator[str]:
    yield "\\set ON_ERROR_STOP on"
    for token, default in defaults.items():
        value = default.replace("\\", "\\\\").replace("'", "''")
        yield from (f"\\if :{{?{token}}}", "\\else", f"\\set {token} '{value}'", "\\endif")


def _render_migration(migration: Migration) -> str:
    record = (  # the name and checksum of our own file
        'insert into :"dlq_schema".migration (series, number, name, checksum) values '  # noqa: S608
        f"('{migration.series}', {migration.number}, '{migration.name}', '{migration.checksum}');"
    )
    body = f"{migration.text.rstrip()}\n{record}"
    timeout = "0" if migration.waits_for_locks else "5s"
    head = f"\n-- {migration.label}\nset lock_timeout = '{timeout}';\n"
    return head + (f"begin;\n{body}\ncommit;" if migration.transactional else body)


def _applied(connection: Connection) -> dict[tuple[MigrationSeries, int], tuple[str, str]]:
    if not connection.fetch_one("migration.exists")["found"]:
        return {}
    rows = connection.run("migration.applied").fetchall()
    return {(row["series"], row["number"]): (row["name"], row["checksum"]) for row in rows}


@contextmanager
def _hold_runner_lock(connection: Connection) -> Iterator[None]:
    """Hold the runner lock, without a statement timeout, because an index build can take hours.

    The lock is polled: a blocked wait holds a snapshot that a concurrent index build waits for.
    """
    give_up = time.monotonic() + _RUNNER_WAIT_SECONDS
    while not connection.fetch_one("migration.try_lock", key=_RUNNER_LOCK)["locked"]:
        if time.monotonic() > give_up:
            raise SchemaError(
                "Another `dlq migrate` is still running.",
                "Wait for it and run `dlq migrate` again.",
            )
        time.sleep(0.1)
    with _override_timeouts(connection, statement="0"):
        try:
            yield
        finally:
            if not connection.closed:
                connection.run("migration.unlock", key=_RUNNER_LOCK)


@contextmanager
def _override_timeouts(connection: Connection, **timeouts: str) -> Iterator[None]:
    """Set `statement` or `lock` timeouts for the length of a block; "0" for none."""
    before = connection.fetch_one("migration.timeouts")
    connection.run("migration.set_timeouts", **(before | timeouts))
    try:
        yield
    finally:
        if not connection.closed:
            connection.run("migration.set_timeouts", **before)


def _report_long_transactions(connection: Connection, report: Callable[[str], None]) -> None:
    """Report the sessions with an open transaction, as far as this role can see them."""
    for session in connection.run("migration.long_transactions"):
        report(
            f"  waiting for session {session['pid']} ({session['program'] or 'unnamed'}, role "
            f"{session['role']}) to end its transaction, open since "
            f"{session['since']:%Y-%m-%d %H:%M:%S} UTC; the application goes on"
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
                f"Migration {migration.label}: {error.diag.message_primary}.",
                "Run `dlq migrate` as the owner of the outbox table.",
            ) from None
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            raise SchemaError(
                error.diag.message_primary or "", error.diag.message_hint or ""
            ) from None
    raise SchemaError(
        f"Migration {migration.label} got no lock in {_LOCK_TRIES} tries: a long transaction holds "
        "the table or its rows.",
        "End that transaction (pg_stat_activity shows it) and run `dlq migrate` again.",
    )


def _apply_once(connection: Connection, migration: Migration) -> None:
    if migration.transactional:
        with connection.transaction():
            _execute(connection, migration)
            _record(connection, migration)
        return
    with _override_timeouts(connection, lock="0") if migration.waits_for_locks else nullcontext():
        _execute(connection, migration)
    _record(connection, migration)


def _execute(connection: Connection, migration: Migration) -> None:
    for statement in migration.statements:
        connection.execute(bind_names(statement, connection.names).encode())


def _record(connection: Connection, migration: Migration) -> None:
    connection.run(
        "migration.record",
        series=migration.series,
        number=migration.number,
        name=migration.name,
        checksum=migration.checksum,
    )


def create_host_tables(connection: Connection) -> None:
    """Create the reference tables for the demo and for tests, unless the outbox table exists.

    Raises:
        DlqError: the archive table exists without the outbox table.
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
            f"{error.diag.message_primary}, but the outbox table does not.",
            "Set DLQ_OUTBOX_TABLE and DLQ_ARCHIVE_TABLE to tables that belong together.",
        ) from None
