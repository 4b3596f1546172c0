"""Kills exports many times and checks their files. Takes minutes; a test does it a few times.

`SEED=7 make drill` repeats the moments of a run.
"""

import os
import secrets
import sys

from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.databases import scratch_server
from tests.drills.exports import survive_kills

KILLS = 60


def main() -> int:
    """Run the drill; an assertion ends it."""
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    print(f"seed {seed}", flush=True)
    with scratch_server() as (folder, server):
        database = Database(server.ensure_database("drill"))
        with database.connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
        hit = survive_kills(database, folder / "exports", kills=KILLS, seed=seed)
    print(f"exports: {KILLS} kills, {hit} before the end")
    print("every file is complete, and so is the last export")
    return 0


if __name__ == "__main__":
    sys.exit(main())
