"""Applies migrations and checks that the database has the schema of this release.

Migrations are SQL files in `sql/migrations`, for our own schema, applied in the order of their
numbers, each in one transaction with the row that records it. Then `sql/outbox` is attached to the
application's table in one transaction: views and functions that know its columns, and last the
triggers that record deaths.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg

from dlq_pipelines.errors import SchemaError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.missed import record_missed_deaths
from dlq_pipelines.postgres.queries import (
    SQL_FOLDER,
    TableNames,
    bind_names,
    load_queries,
)
from dlq_pipelines.text import format_count

Result = TypeVar("Result")
# The key of the advisory lock that one `dlq migrate` at a time holds: "dlqm" in ASCII.
_RUNNER_LOCK = 0x646C716D
_RUNNER_WAIT_SECONDS = 60.0
# The application queues behind a lock that waits: a second in three at most, for 90 s.
_LOCK_TRIES = 30
_PAUSES_PER_WAIT = 2
# How the attachment to the application's table is listed among the migrations.
_ATTACHMENT = 9999


@dataclass(frozen=True)
class Migration:
    """One file: its number, its name, and its text with psql variables."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, which reveals an edit after the migration was applied."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def is_attachment(self) -> bool:
        """Whether this is `sql/outbox`, which is applied again whenever it or the table changes."""
        return self.number == _ATTACHMENT


def load_migrations(folder: Path = SQL_FOLDER) -> list[Migration]:
    """Return every migration of this release in the order of application."""
    files = sorted((folder / "migrations").glob("[0-9][0-9][0-9][0-9]_*.sql"))
    attached = sorted((folder / "outbox").glob("[0-9]_*.sql"))
    return [
        *(Migration(int(file.name[:4]), file.stem, file.read_text("utf-8")) for file in files),
        Migration(_ATTACHMENT, "outbox", "\n".join(file.read_text("utf-8") for file in attached)),
    ]


def list_pending_migrations(
    connection: Connection,
    migrations: list[Migration],
    shape: Mapping[str, str] | None = None,
) -> list[Migration]:
    """Return the migrations that this database lacks.

    Args:
        connection: to the database.
        migrations: those of this release.
        shape: the SQL that stands for the application's columns, to compare with what is attached;
            None: not compared. With a shape, columns that the application has added since are
            pending too: without it, a new column stops nothing but the archive.

    Raises:
        SchemaError: an applied file was edited, or a newer release migrated the database.
    """
    applied = _list_applied(connection)
    known = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in applied.items():
        migration = known.get(number)
        if migration is None:
            raise SchemaError(
                f"The database has the migration {name} of a newer release.",
                "Install that release.",
            )
        if migration.checksum != checksum:
            raise SchemaError(
                f"Migration {migration.name} was edited after it was applied.",
                "Restore the released file and put the change into a new migration.",
            )
    return [
        migration
        for migration in migrations
        if (
            not _is_attached(connection, migration, shape)
            if migration.is_attachment
            else migration.number not in applied
        )
    ]


def _is_attached(
    connection: Connection, migration: Migration, shape: Mapping[str, str] | None
) -> bool:
    if not connection.fetch_one("migration.exists")["found"]:
        return False
    row = connection.run("migration.attached").fetchone()
    return (
        row is not None
        and row["recorded_at"] is not None
        and row["checksum"] == migration.checksum
        and (
            shape is None
            or (
                row["shape"] == dict(shape)
                and all(row["archived_as"] for row in connection.run("archive.columns_lacking"))
            )
        )
    )


def apply_migrations(
    connection: Connection,
    migrations: list[Migration],
    *,
    shape: Mapping[str, str],
    report: Callable[[str], None] = lambda _: None,
) -> list[Migration]:
    """Apply the pending migrations and return them.

    Args:
        connection: in autocommit mode, with the rights of the tables' owner.
        migrations: normally the result of `load_migrations`.
        shape: the SQL that stands for the columns of the application's table.
        report: called before each step with a sentence.

    Raises:
        SchemaError: the outbox table does not exist or a column has the wrong type; another
            `dlq migrate` did not finish within a minute; or a lock on the application's table was
            not granted (see `retry_for_lock`). Migrations that were applied before stay applied,
            and the next run continues after them.
    """
    if not list_pending_migrations(connection, migrations, shape):
        return []
    if not connection.fetch_one("migration.host_exists")["found"]:
        table = f"{connection.names.outbox_schema}.{connection.names.outbox_table}"
        raise SchemaError(
            f"There is no outbox table {table} in this database.",
            "Set DLQ_OUTBOX_SCHEMA and DLQ_OUTBOX_TABLE, and run `dlq migrate` again.",
        )
    with hold_runner_lock(connection):
        pending = list_pending_migrations(connection, migrations, shape)
        for migration in pending:
            report(f"applying {migration.name}")
            _apply(connection, migration, shape)
        # The triggers record what dies from here on. Events that were dead before follow, in
        # batches of their own transactions; a killed run goes on with the next `dlq migrate`.
        now = connection.fetch_one("session.clock")["now"]
        record_missed_deaths(connection, now=now, is_missed=False)
        connection.run("migration.record_existing")
    return pending


def require_current(connection: Connection) -> None:
    """Check that the database has the schema of this release, and shows all rows of the outbox.

    Raises:
        SchemaError: migrations are pending; the schema records another table, whose events a run
            would archive; or row level security hides rows: with hidden rows nothing would seem to
            be dead.
    """
    missing = list_pending_migrations(connection, load_migrations())
    if missing:
        raise SchemaError(
            f"The database lacks {format_count(len(missing), 'migration')}, first "
            f"{missing[0].name}.",
            "Run `dlq migrate`.",
        )
    other = connection.run("migration.other_table").fetchone()
    if other is not None:
        names = connection.names
        raise SchemaError(
            f"The schema {names.dlq_schema} records the deaths of {other['attached']}, not of "
            f"{names.outbox_schema}.{names.outbox_table}.",
            "Set the table of that schema, or another schema (DLQ_SCHEMA) for this table, and run "
            "`dlq migrate`.",
        )
    roles = connection.fetch_one("migration.hidden_from")["roles"]
    if roles:
        raise SchemaError(
            f"Row level security hides rows of the outbox from {roles}: nothing would seem dead.",
            "Use roles that it does not apply to: `alter role ... bypassrls`.",
        )


def render_migrations(names: TableNames, shape: Mapping[str, str]) -> str:
    """Return all migrations as one script of plain SQL, to apply them with other tools.

    The script records what it applies, and the deaths of events that were dead before, so
    `dlq migrate` skips it.
    """
    scripts = [_render_migration(migration, names, shape) for migration in load_migrations()]
    head = ["-- dlq-pipelines: all migrations.", "set client_min_messages = warning;"]
    return "\n".join([*head, *scripts, _render_existing_deaths(names), ""])


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


def _render_migration(migration: Migration, names: TableNames, shape: Mapping[str, str]) -> str:
    if migration.is_attachment:
        given = json.dumps(dict(shape)).replace("'", "''")
        target = 'delete from :"dlq_schema".attachment;\ninsert into :"dlq_schema".attachment'
        columns, values = "checksum, shape", f"'{migration.checksum}', '{given}'"
    else:
        target = 'insert into :"dlq_schema".migration'
        columns = "number, name, checksum"
        values = f"{migration.number}, '{migration.name}', '{migration.checksum}'"
    return "\n".join(
        [
            f"\n-- {migration.name}",
            "set lock_timeout = '5s';",
            "begin;",
            bind_names(migration.text.rstrip(), names, shape),
            f"{bind_names(target, names)} ({columns}) values ({values});",
            "commit;",
        ]
    )


def _render_existing_deaths(names: TableNames) -> str:
    queries = load_queries(names)
    statement = queries["reconcile.record_missed"].decode()
    for parameter, value in (
        ("after", "null"),
        ("limit", "null"),
        ("now", "clock_timestamp()"),
        ("is_missed", "false"),
    ):
        statement = statement.replace(f"%({parameter})s", value)
    recorded = queries["migration.record_existing"].decode()
    script = f"\n-- events that were dead before\nbegin;\n{statement};\n{recorded};\ncommit;"
    return script.replace("%%", "%")


def _list_applied(connection: Connection) -> dict[int, tuple[str, str]]:
    if not connection.fetch_one("migration.exists")["found"]:
        return {}
    rows = connection.run("migration.applied").fetchall()
    return {row["number"]: (row["name"], row["checksum"]) for row in rows}


@contextmanager
def hold_runner_lock(connection: Connection) -> Iterator[None]:
    """Hold the lock that one `dlq migrate` at a time holds, without a statement timeout."""
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
    if (settings := connection.local_settings) is not None:  # each transaction sets them anew
        connection.local_settings = settings | {
            f"{name}_timeout": value for name, value in timeouts.items()
        }
        try:
            yield
        finally:
            connection.local_settings = settings
        return
    before = connection.fetch_one("migration.timeouts")
    connection.run("migration.set_timeouts", **(before | timeouts))
    try:
        yield
    finally:
        if not connection.closed:
            connection.run("migration.set_timeouts", **before)


def retry_for_lock(connection: Connection, change: Callable[[], Result], *, name: str) -> Result:
    """Make a change of the application's table, with short waits for its locks and pauses between.

    Args:
        connection: in autocommit mode. A wait takes its `lock_timeout`, at most a second.
        change: a transaction of its own, which is repeated if it got no lock.
        name: what is done, for the error.

    Raises:
        SchemaError: no lock was granted in 30 tries.
    """
    milliseconds = connection.fetch_one("migration.lock_wait")["milliseconds"]
    with _override_timeouts(connection, lock=f"{milliseconds}ms"):
        for _ in range(_LOCK_TRIES):
            try:
                return change()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                time.sleep(_PAUSES_PER_WAIT * milliseconds / 1000)
    raise SchemaError(
        f"{name} got no lock in {_LOCK_TRIES} tries: a long transaction holds the table or its "
        "rows.",
        "End that transaction (pg_stat_activity shows it) and run the command again.",
    )


def _apply(connection: Connection, migration: Migration, shape: Mapping[str, str]) -> None:
    try:
        retry_for_lock(
            connection,
            partial(_apply_once, connection, migration, shape),
            name=f"Migration {migration.name}",
        )
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"Migration {migration.name}: {error.diag.message_primary}.",
            "Run `dlq migrate` as the owner of the outbox table.",
        ) from None
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise SchemaError(error.diag.message_primary or "", error.diag.message_hint or "") from None


def _apply_once(connection: Connection, migration: Migration, shape: Mapping[str, str]) -> None:
    with connection.transaction():
        connection.execute(bind_names(migration.text, connection.names, shape).encode())
        _record(connection, migration, shape)


def _record(connection: Connection, migration: Migration, shape: Mapping[str, str]) -> None:
    if migration.is_attachment:
        connection.run(
            "migration.record_attachment",
            checksum=migration.checksum,
            shape=json.dumps(dict(shape)),
        )
        return
    connection.run(
        "migration.record",
        number=migration.number,
        name=migration.name,
        checksum=migration.checksum,
    )


def create_host_tables(connection: Connection) -> None:
    """Create the reference table for the demo and for tests, unless the outbox table exists."""
    if connection.fetch_one("migration.host_exists")["found"]:
        return
    text = (SQL_FOLDER / "host" / "outbox_event.sql").read_text("utf-8")
    connection.execute(bind_names(text, connection.names).encode())
