"""Installs outboxes of other shapes than the reference application's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.mapping import load_mapping, parse_mapping
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.queries import TableNames
from tests.outbox.table_shapes import read_shape

# A table of everything that the shapes of public projects lack: the payload's type is given.
_TABLE = """
create table task (
    id {id} primary key,
    kind text,
    body {payload}{required},
    state text not null default 'new',
    tries integer not null default 0,
    due {due} not null default now(),
    written timestamptz default now(),
    failure text{required} default {no_failure}
)
"""
_MAPPING = """
table = "public.task"
{delivered}
[columns]
id = "id"
event_type = "kind"
payload = "body"
attempts = "tries"
due_at = "due"
created_at = "written"
error = "failure"

[dead]
state = "failed"
{retry}
"""
_RETRY = """
[retry]
state = "new"
tries = 0
due = { due = true }
"""


@contextmanager
def install_shape(database: Database, shape: str) -> Iterator[tuple[Database, Connection]]:
    """Yield the database of a public project's outbox, installed, and a connection."""
    mapping = load_mapping(shape)
    found = replace(database, names=TableNames(mapping.schema, mapping.table))
    with found.connect() as connection:
        connection.execute(read_shape(shape)["create"].encode())
        install_outbox(connection, mapping)
        yield found, connection


@contextmanager
def install_tasks(
    database: Database,
    *,
    id_type: str = "uuid",
    payload_type: str = "text",
    due_type: str = "timestamptz",
    offers_retries: bool = True,
    knows_delivered: bool = True,
    requires_texts: bool = False,
) -> Iterator[tuple[Database, Connection]]:
    """Yield the database of a table `task` with these types, installed, and a connection.

    With `requires_texts`, neither the payload nor the error may be null.
    """
    text = _MAPPING.format(
        delivered='delivered = [{ state = "done" }]' if knows_delivered else "",
        retry=_RETRY if offers_retries else "",
    )
    found = replace(database, names=TableNames("public", "task"))
    with found.connect() as connection:
        table = _TABLE.format(
            id=id_type,
            payload=payload_type,
            due=due_type,
            required=" not null" if requires_texts else "",
            no_failure="''" if requires_texts else "null",
        )
        connection.execute(table.encode())
        install_outbox(connection, parse_mapping(text, "task.toml"))
        yield found, connection


def add_task(
    connection: Connection,
    event_id: str,
    payload: str,
    *,
    kind: str | None = "order.placed",
    written: str = "now()",
    error: str = "KeyError: 'sku'",
) -> None:
    """Add a task and let it die."""
    insert = f"insert into task (id, kind, body, written) values ('{event_id}', %s, %s, {written})"
    connection.execute(insert.encode(), [kind, payload])
    die = f"update task set state = 'failed', tries = 5, failure = %s where id = '{event_id}'"
    connection.execute(die.encode(), [error])
