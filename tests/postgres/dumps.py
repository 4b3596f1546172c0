"""Reads the schema or the data of a database as pg_dump writes them, to compare or to search."""

import os
import re
import subprocess

from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.embedded.programs import find_programs

_NOT_EVERYWHERE = re.compile(
    r"SET (transaction_timeout|default_table_access_method)|\\(un)?restrict "
)


def dump_schema(database: Database) -> str:
    """Return the schema of a whole database as pg_dump writes it."""
    # Newer versions guard the script with a random word.
    text = _dump(database, "--schema-only")
    return "\n".join(line for line in text.splitlines() if "restrict" not in line)


def dump_data(database: Database) -> str:
    """Return the rows of all tables of a whole database, one a line."""
    return _dump(database, "--data-only")


def dump_as_inserts(database: Database) -> str:
    """Return a script that creates a whole database, for any version of PostgreSQL."""
    text = _dump(database, "--inserts", "--no-owner", "--rows-per-insert=200")
    # Settings that older versions lack, and the guard of psql's scripts.
    lines = (line for line in text.splitlines() if not _NOT_EVERYWHERE.match(line))
    return "\n".join(lines) + "\n"


def _dump(database: Database, *what: str) -> str:
    parts = conninfo_to_dict(database.url)
    options = ["-h", str(parts["host"]), "-U", str(parts["user"]), "-d", str(parts["dbname"])]
    port = ["-p", str(parts["port"])] if "port" in parts else []
    done = subprocess.run(
        [str(find_programs() / "pg_dump"), *what, *options, *port],
        env=os.environ | {"PGPASSWORD": str(parts.get("password") or "")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
