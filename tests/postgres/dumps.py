"""Reads the schema or the data of a database as pg_dump writes them, to compare or to search."""

import os
import subprocess

from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.embedded.programs import find_programs


def dump_schema(database: Database) -> str:
    """Return the schema of a whole database as pg_dump writes it."""
    # Newer versions guard the script with a random word.
    text = _dump(database, "--schema-only")
    return "\n".join(line for line in text.splitlines() if "restrict" not in line)


def dump_data(database: Database) -> str:
    """Return the rows of all tables of a whole database, one a line."""
    return _dump(database, "--data-only")


def _dump(database: Database, what: str) -> str:
    parts = conninfo_to_dict(database.url)
    options = ["-h", str(parts["host"]), "-U", str(parts["user"]), "-d", str(parts["dbname"])]
    port = ["-p", str(parts["port"])] if "port" in parts else []
    done = subprocess.run(
        [str(find_programs() / "pg_dump"), what, *options, *port],
        env=os.environ | {"PGPASSWORD": str(parts.get("password") or "")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
