"""Compares the schema of a database before and after a change, as pg_dump writes it."""

import os
import subprocess

from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.embedded.programs import find_programs


def dump_schema(database: Database) -> str:
    """Return the schema of a whole database as pg_dump writes it."""
    parts = conninfo_to_dict(database.url)
    options = ["-h", str(parts["host"]), "-U", str(parts["user"]), "-d", str(parts["dbname"])]
    port = ["-p", str(parts["port"])] if "port" in parts else []
    done = subprocess.run(
        [str(find_programs() / "pg_dump"), "--schema-only", *options, *port],
        env=os.environ | {"PGPASSWORD": str(parts.get("password") or "")},
        capture_output=True,
        text=True,
        check=True,
    )
    # Newer versions guard the script with a random word.
    return "\n".join(line for line in done.stdout.splitlines() if "restrict" not in line)
