"""Removes an installation: triggers, added columns, and the schema or what reads the table.

Everything is removed by one transaction, so a killed run changes nothing. What the application had
before stays, and so does what holds data: archived events and error texts.
"""

import re
from dataclasses import dataclass
from functools import partial

import psycopg
from psycopg import sql

from dlq_pipelines.audit import AuditContext, record_audit_entry
from dlq_pipelines.errors import RefusedError, SchemaError
from dlq_pipelines.outbox.inspect import inspect_session
from dlq_pipelines.outbox.preflight import check_session, require_no_refusal
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.migrate import hold_runner_lock, load_migrations, retry_for_lock
from dlq_pipelines.text import format_count

_TABLE = re.compile(r'^create table (?:if not exists )?:"dlq_schema"\.(\w+)', re.MULTILINE)
_VIEW = re.compile(r'^create view :"dlq_schema"\.(\w+)', re.MULTILINE)
_FUNCTION = re.compile(r'^create (?:or replace )?function :"dlq_schema"\.(\w+)', re.MULTILINE)


@dataclass(frozen=True)
class RemovalScope:
    """What a removal takes with it.

    Attributes:
        keep_ledger: keep the schema with the ledger, the archived events and the audit log.
        discard_archived: drop archived events with the schema.
    """

    keep_ledger: bool = False
    discard_archived: bool = False


@dataclass(frozen=True)
class RemovalPlan:
    """What a removal does.

    Attributes:
        statements: run in this order, in one transaction. Empty: nothing is installed.
        kept: each thing that stays, and why.
    """

    statements: tuple[str, ...]
    kept: tuple[str, ...]


def plan_removal(connection: Connection, scope: RemovalScope) -> RemovalPlan:
    """Return what a removal would do. Changes nothing.

    Args:
        connection: in autocommit mode, or in the transaction that removes.
        scope: what the removal takes with it.

    Raises:
        RefusedError: the archive holds events that would be lost, or something that is not part of
            the installation needs what would be dropped.
    """
    if not connection.fetch_one("migration.exists")["found"]:
        return RemovalPlan((), ())
    names = {"views": _list_attached(_VIEW), "functions": _list_attached(_FUNCTION)}
    _require_no_blockers(connection, scope, names["views"])
    if not scope.keep_ledger:
        _require_only_ours(connection)
        _require_no_archived(connection, scope)
    columns, kept = _plan_columns(connection)
    triggers = _list_statements(connection, "remove.triggers")
    if scope.keep_ledger:
        kept.append(f"the schema {connection.names.dlq_schema} with the ledger and the audit log")
        readers = _list_statements(connection, "remove.readers", **names)
        attachment = _list_statements(connection, "remove.attachment")
        return RemovalPlan((*triggers, *readers, *columns, *attachment), tuple(kept))
    schema = _list_statements(connection, "remove.schema")
    return RemovalPlan((*triggers, *schema, *columns), tuple(kept))


def remove_installation(
    connection: Connection, scope: RemovalScope, *, audit: AuditContext
) -> RemovalPlan:
    """Remove the installation and return what was done. Running it again changes nothing.

    Args:
        connection: in autocommit mode, with the rights of the table's owner.
        scope: what the removal takes with it.
        audit: who removes it, and why; recorded if the audit log is kept.

    Raises:
        RefusedError: the archive holds events that would be lost, or something that is not part of
            the installation needs what would be dropped.
        SchemaError: the session or the role cannot do it, another `dlq migrate` is running, or a
            long transaction holds the application's table.
    """
    require_no_refusal(check_session(inspect_session(connection)))
    with hold_runner_lock(connection):
        return _remove_with_retries(connection, scope, audit=audit)


def _list_attached(pattern: re.Pattern[str]) -> list[str]:
    """Return the names of what `sql/outbox` creates."""
    texts = (migration.text for migration in load_migrations() if migration.is_attachment)
    return sorted({name for text in texts for name in pattern.findall(text)})


def _list_statements(connection: Connection, name: str, **values: object) -> list[str]:
    return [row["statement"] for row in connection.run(name, **values).fetchall()]


def _require_no_blockers(connection: Connection, scope: RemovalScope, views: list[str]) -> None:
    rows = connection.run("remove.blockers", keep_ledger=scope.keep_ledger, views=views).fetchall()
    if rows:
        listed = ", ".join(f"{row['name']} needs {row['needs']}" for row in rows)
        raise RefusedError(
            f"Objects that are not part of this installation need it: {listed}.",
            "Drop them first, and run `dlq migrate --remove` again.",
        )


def _require_only_ours(connection: Connection) -> None:
    known = {
        name
        for migration in load_migrations()
        for pattern in (_TABLE, _VIEW, _FUNCTION)
        for name in pattern.findall(migration.text)
    }
    unknown = [row["name"] for row in connection.run("remove.objects") if row["name"] not in known]
    if unknown:
        raise RefusedError(
            f"The schema {connection.names.dlq_schema} holds objects that are not part of this "
            f"installation: {', '.join(unknown)}.",
            "Move them to another schema first, or pass --keep-ledger.",
        )


def _require_no_archived(connection: Connection, scope: RemovalScope) -> None:
    if scope.discard_archived or not connection.fetch_one("remove.has_archive")["found"]:
        return
    events = connection.fetch_one("remove.count_archived")["events"]
    if events:
        raise RefusedError(
            f"The archive holds {format_count(events, 'event')}, which would be lost. Nothing was "
            "changed.",
            'Restore them with `dlq archive restore --all --reason "..."` (discarded ones by their '
            "ids), keep them with --keep-ledger, or drop them with --discard-archived.",
        )


def _plan_columns(connection: Connection) -> tuple[list[str], list[str]]:
    """Return the statements for the columns that the attachment added, and what is kept of them."""
    statements, kept = list[str](), list[str]()
    for row in connection.run("remove.added").fetchall():
        table = sql.Identifier(row["schema_name"], row["table_name"])
        columns = [sql.Identifier(name) for name in row["columns"]]
        if _has_values(connection, table, columns):
            listed = " and ".join(row["columns"])
            place = f"{row['schema_name']}.{row['table_name']}"
            kept.append(f"{listed} of {place}, because they hold error texts")
            continue
        drops = sql.SQL(", ").join(
            sql.SQL("drop column if exists {}").format(column) for column in columns
        )
        statement = sql.SQL("alter table {} {}").format(table, drops)
        statements.append(statement.as_string(connection))
    return statements, kept


def _has_values(
    connection: Connection, table: sql.Identifier, columns: list[sql.Identifier]
) -> bool:
    """Return whether a worker has written an error. Reads the table up to the first one."""
    query = sql.SQL("select exists (select from {} where num_nonnulls({}) > 0) as found").format(
        table, sql.SQL(", ").join(columns)
    )
    row = connection.execute(query).fetchone()
    return row is not None and bool(row["found"])


def _remove_with_retries(
    connection: Connection, scope: RemovalScope, *, audit: AuditContext
) -> RemovalPlan:
    """Remove; try again while the application holds a lock, because it queues behind a wait."""
    try:
        return retry_for_lock(
            connection, partial(_remove_once, connection, scope, audit=audit), name="The removal"
        )
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"The removal is not permitted: {error.diag.message_primary}.",
            "Run `dlq migrate --remove` as the owner of the outbox table.",
        ) from None
    except psycopg.errors.DependentObjectsStillExist as error:
        raise RefusedError(
            f"Nothing was removed: {error.diag.message_primary} ({error.diag.message_detail}).",
            "Drop what needs it, and run `dlq migrate --remove` again.",
        ) from None


def _remove_once(
    connection: Connection, scope: RemovalScope, *, audit: AuditContext
) -> RemovalPlan:
    with connection.transaction():
        if not connection.fetch_one("migration.exists")["found"]:
            return RemovalPlan((), ())
        _lock_tables(connection, scope)
        plan = plan_removal(connection, scope)
        for statement in plan.statements:
            connection.execute(statement.encode())
        if (
            scope.keep_ledger
            and plan.statements
            and connection.fetch_one("remove.has_audit")["found"]
        ):
            filter_ = {"statements": list(plan.statements)}
            record_audit_entry(connection, "installation.remove", filter_, audit=audit)
    return plan


def _lock_tables(connection: Connection, scope: RemovalScope) -> None:
    """Lock what is dropped if it is empty, so that nothing is written to it meanwhile."""
    for row in connection.run("remove.added").fetchall():
        table = sql.Identifier(row["schema_name"], row["table_name"])
        connection.execute(sql.SQL("lock table {} in access exclusive mode").format(table))
    if not scope.keep_ledger and connection.fetch_one("remove.has_archive")["found"]:
        connection.run("remove.lock_archive")
