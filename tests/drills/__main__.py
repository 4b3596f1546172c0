"""What survives being killed, many times? `make drill` takes minutes; the quick version of each is a test.

`SEED=7 make drill` plays the same moments again.
"""

import os
import secrets
import sys

from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.migrate import apply_migrations, create_host_tables, load_migrations
from tests.databases import scratch_server
from tests.drills.exports import survive_kills

KILLS = 60


def main() -> int:
    """Play the drills; an assertion ends them."""
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    print(f"seed {seed}", flush=True)  # noqa: T201 - a command
    with scratch_server() as (folder, server):
        database = Database(server.ensure_database("drill"))
        with database.connect() as connection:
            create_host_tables(connection)
            apply_migrations(connection, load_migrations())
        hit = survive_kills(database, folder / "exports", kills=KILLS, seed=seed)
    print(
        f"exports: {KILLS} kills, {hit} of them before the end; every file whole, the last export complete"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
