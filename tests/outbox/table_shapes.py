"""Reads the tables of `shapes/`, and inspects a table as an installation would.

A file has sections: `create` the table, `write` an event, its worker's `give up`, how the worker
would `take` an event that waits, and how it would `deliver` what it has taken.
"""

import re
from pathlib import Path

from dlq_pipelines.outbox.mapping_sql import (
    CONDITIONS,
    MappingSql,
    quote_identifier,
    render_mapping,
)
from dlq_pipelines.outbox.mapping_types import (
    CANONICAL_COLUMNS,
    MappedColumn,
    Mapping,
)
from dlq_pipelines.postgres.connect import Connection

FOLDER = Path(__file__).parent / "shapes"
SHAPES = sorted(file.stem for file in FOLDER.glob("*.sql"))


def read_shape(name: str) -> dict[str, str]:
    """Return the statements of a shape by section."""
    text = (FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^-- (create|write|give up|take|deliver)$", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def inspect_columns(connection: Connection, schema: str, table: str) -> list[MappedColumn]:
    """Return the columns of a table from the catalog."""
    rows = connection.execute(
        """
        select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) as type,
            t.typtype = 'e' as is_enum, t.typcategory = 'A' as is_array,
            not a.attnotnull as nullable, a.attgenerated <> '' as is_generated,
            array(select e.enumlabel::text from pg_catalog.pg_enum e
                  where e.enumtypid = t.oid order by e.enumsortorder) as labels
        from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
        where a.attrelid = pg_catalog.format('%%I.%%I', %s::text, %s::text)::regclass
            and a.attnum > 0 and not a.attisdropped
        order by a.attnum
        """,
        (schema, table),
    ).fetchall()
    return [
        MappedColumn(
            row["attname"],
            row["type"],
            row["is_enum"],
            row["is_array"],
            row["nullable"],
            tuple(row["labels"]),
            row["is_generated"],
        )
        for row in rows
    ]


def render_for(connection: Connection, mapping: Mapping) -> MappingSql:
    """Render a mapping for its table in the database."""
    return render_mapping(mapping, inspect_columns(connection, mapping.schema, mapping.table))


def name_table(mapping: Mapping) -> str:
    """Return the quoted name of the table."""
    return f"{quote_identifier(mapping.schema)}.{quote_identifier(mapping.table)}"


def write_select(rendered: MappingSql) -> str:
    """Return the select of a canonical view."""
    columns = [f"{rendered.expression(name)} as {name}" for name in CANONICAL_COLUMNS]
    conditions = [f"{rendered.condition(name)} as {name}" for name in CONDITIONS]
    return f"select {', '.join([*columns, *conditions])} from {name_table(rendered.mapping)} o"
