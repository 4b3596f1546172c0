"""Reads facts about a table of the application, the session and the server. Changes nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import psycopg

from dlq_pipelines.postgres.connect import Connection

# The states are counted in this time, or else in a sample of about so many rows.
_COUNT_TIMEOUT = "3s"
_SAMPLE_ROWS = 100_000
# Looks at the server processes of two connections. One look finds a pooler unless others use it.
_POOLER_LOOKS = 3


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a table.

    Attributes:
        type: as PostgreSQL writes it, such as `character varying(20)`; of a domain its name.
        base_type: without a length; of a domain the type that it is based on.
        category: `base`, `enum`, `array`, `composite` or `range`.
        max_length: of `varchar(n)` and `char(n)`; None: no limit.
        generated: computed by PostgreSQL; an identity column is not generated.
        has_default: whether an insert may omit the column although it is not nullable.
        default_text: the default, if it is a constant.
        labels: of an enum.
    """

    name: str
    type: str
    base_type: str
    category: str
    is_domain: bool
    max_length: int | None
    nullable: bool
    generated: bool
    has_default: bool
    default_text: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignKeyFacts:
    """A foreign key of another table that references the table.

    Attributes:
        table, columns: where the references are.
        on_delete: `no action`, `restrict`, `cascade`, `set null` or `set default`.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    on_delete: str


@dataclass(frozen=True)
class TriggerFacts:
    """A trigger of the application's own.

    Attributes:
        timing: `before`, `after` or `instead of`.
        events: of `insert`, `update`, `delete` and `truncate`.
    """

    name: str
    timing: str
    events: tuple[str, ...]
    for_each_row: bool
    enabled: bool


@dataclass(frozen=True)
class RowSecurityFacts:
    """Row level security of a table.

    Attributes:
        forced: whether it applies to the owner too.
        applies: whether it applies to the current role, whose queries then miss rows.
    """

    enabled: bool
    forced: bool
    applies: bool


@dataclass(frozen=True)
class RightsFacts:
    """What the current role may do with a table.

    Attributes:
        is_owner: whether it is the owner, a member of the owner, or a superuser.
        may_update: whether it may lock rows; any column is enough.
        may_use_schema: whether it may look up the table in its schema.
    """

    role: str
    is_superuser: bool
    is_owner: bool
    may_select: bool
    may_update: bool
    may_trigger: bool
    may_use_schema: bool


@dataclass(frozen=True)
class TableFacts:
    """A table, or another relation that has the name of the table.

    Attributes:
        kind: `table`, `partitioned table`, `partition`, `temporary table`, `view`,
            `materialized view`, `foreign table`, ...
        columns: in their order.
        primary_key: its columns; empty: the table has no primary key.
        unique_keys: the columns of each other unique key.
        parents, children: by inheritance; declarative partitions are in `partitions`.
        foreign_keys: of other tables that reference this one.
        triggers: of the application's own.
    """

    schema: str
    name: str
    kind: str
    oid: int
    owner: str
    columns: tuple[ColumnFacts, ...]
    primary_key: tuple[str, ...]
    unique_keys: tuple[tuple[str, ...], ...]
    parents: tuple[str, ...]
    children: tuple[str, ...]
    partitions: tuple[str, ...]
    row_security: RowSecurityFacts
    foreign_keys: tuple[ForeignKeyFacts, ...]
    triggers: tuple[TriggerFacts, ...]
    rights: RightsFacts

    def find_column(self, name: str) -> ColumnFacts | None:
        """Return the column of this name; None if the table has none."""
        return next((column for column in self.columns if column.name == name), None)


PoolerKind = Literal["none", "session", "transaction"]


@dataclass(frozen=True)
class SessionFacts:
    """The session and its server.

    Attributes:
        server_version: such as 150004.
        date_style, default_isolation: as the session began, before our connection set its own.
        is_standby: whether the server is a replica, which accepts no writes.
        may_create_in_database: whether the role may create a schema.
        may_create_in_dlq_schema: None: there is no such schema yet.
        pooler: `transaction`: statements of one connection run in several server sessions.
    """

    server_version: int
    server_encoding: str
    date_style: str
    default_isolation: str
    is_standby: bool
    database: str
    may_create_in_database: bool
    may_create_in_dlq_schema: bool | None
    pooler: PoolerKind


@dataclass(frozen=True)
class StateCounts:
    """The values of a column with their counts, the most frequent first.

    Attributes:
        states: at most 20; None is the null state.
        is_sample: whether a sample was counted, because the table is large.
    """

    states: tuple[tuple[str | None, int], ...]
    is_sample: bool


def inspect_table(connection: Connection, schema: str, table: str) -> TableFacts | None:
    """Return the facts about a table; None if nothing has that name.

    Args:
        connection: in autocommit mode.
        schema: of the table.
        table: its name.
    """
    row = connection.run("inspect.table", schema=schema, table=table).fetchone()
    if row is None:
        return None
    keys = connection.run("inspect.keys", oid=row["oid"]).fetchall()
    primary = [tuple(key["columns"]) for key in keys if key["is_primary"]]
    return TableFacts(
        schema=schema,
        name=table,
        kind=row["kind"],
        oid=row["oid"],
        owner=row["owner"],
        columns=tuple(
            ColumnFacts(**column | {"labels": tuple(column["labels"])})
            for column in connection.run("inspect.columns", oid=row["oid"])
        ),
        primary_key=primary[0] if primary else (),
        unique_keys=tuple(tuple(key["columns"]) for key in keys if not key["is_primary"]),
        parents=tuple(row["parents"]),
        children=tuple(row["children"]),
        partitions=tuple(row["partitions"]),
        row_security=RowSecurityFacts(
            row["row_security_enabled"], row["row_security_forced"], row["row_security_applies"]
        ),
        foreign_keys=_read_foreign_keys(connection, row["oid"]),
        triggers=_read_triggers(connection, row["oid"]),
        rights=RightsFacts(
            row["role"],
            row["is_superuser"],
            row["is_owner"],
            row["may_select"],
            row["may_update"],
            row["may_trigger"],
            row["may_use_schema"],
        ),
    )


def _read_foreign_keys(connection: Connection, oid: int) -> tuple[ForeignKeyFacts, ...]:
    return tuple(
        ForeignKeyFacts(row["name"], row["table"], tuple(row["columns"]), row["on_delete"])
        for row in connection.run("inspect.foreign_keys", oid=oid)
    )


def _read_triggers(connection: Connection, oid: int) -> tuple[TriggerFacts, ...]:
    return tuple(
        TriggerFacts(
            row["name"], row["timing"], tuple(row["events"]), row["for_each_row"], row["enabled"]
        )
        for row in connection.run("inspect.triggers", oid=oid)
    )


def inspect_session(connection: Connection) -> SessionFacts:
    """Return the facts about the session and its server.

    Args:
        connection: in autocommit mode.
    """
    return SessionFacts(**connection.fetch_one("inspect.session"), pooler=detect_pooler(connection))


def detect_pooler(connection: Connection) -> PoolerKind:
    """Find out whether a pooler is between this connection and the server, and its kind.

    A pooler invents the process id that libpq is given at the start. If that differs from the
    process that answers, a second connection is opened: a process that answers both, or a process
    that changes, shows that the pooler shares server sessions between transactions.

    Args:
        connection: in autocommit mode.
    """
    if _read_server_process(connection) == connection.info.backend_pid:
        return "none"
    mine, others = set[int](), set[int]()
    password = connection.info.password or None
    with psycopg.connect(connection.info.dsn, password=password, autocommit=True) as second:
        for _ in range(_POOLER_LOOKS):
            mine.add(_read_server_process(connection))
            (pid,) = second.execute("select pg_catalog.pg_backend_pid()").fetchone() or (0,)
            others.add(pid)
    return "transaction" if len(mine) > 1 or mine & others else "session"


def _read_server_process(connection: Connection) -> int:
    return int(connection.fetch_one("inspect.server_process")["pid"])


def find_bad_patterns(connection: Connection, patterns: Iterable[str]) -> dict[str, str]:
    """Return the regular expressions that PostgreSQL does not read, with its reasons.

    Args:
        connection: in autocommit mode.
        patterns: of a mapping.
    """
    found = {}
    for pattern in patterns:
        try:
            connection.run("inspect.pattern", pattern=pattern)
        except psycopg.errors.InvalidRegularExpression as error:
            found[pattern] = error.diag.message_primary or "it is invalid"
    return found


def count_states(connection: Connection, column: str) -> StateCounts:
    """Count the values of a column of the outbox: all for three seconds, else in a sample.

    Args:
        connection: in autocommit mode.
        column: such as `status`.

    Raises:
        psycopg.errors.QueryCanceled: even the sample took longer than three seconds.
    """
    try:
        found = _count_states_within_timeout(connection, "inspect.states", column=column)
        return StateCounts(found, is_sample=False)
    except psycopg.errors.QueryCanceled:
        rows = connection.fetch_one("inspect.estimated_rows")["rows"]
        percent = min(100.0, 100.0 * _SAMPLE_ROWS / max(rows, 1))
        found = _count_states_within_timeout(
            connection, "inspect.sampled_states", column=column, percent=percent
        )
        return StateCounts(found, is_sample=True)


def _count_states_within_timeout(
    connection: Connection, statement: str, **values: float | str
) -> tuple[tuple[str | None, int], ...]:
    with connection.transaction():
        connection.run("session.set_statement_timeout", timeout=_COUNT_TIMEOUT)
        rows = connection.run(statement, **values).fetchall()
    return tuple((row["state"], row["events"]) for row in rows)
