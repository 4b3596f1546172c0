"""Writes and loads the database of a release, so that its successors can be tested on it.

`python -m tests.postgres.releases 0.1.0` writes `tests/data/release_0.1.0.sql`: an outbox with
deaths, causes, fixes in every state, an archive, alerts and an audit log. Written once, at the
release: afterwards its migrations are frozen, and a change is a new migration.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import merge_causes, mute_cause
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.retries.advance import withdraw_fix
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from tests.databases import scratch_server
from tests.postgres.dumps import dump_as_inserts
from tests.retries.helpers import POLICY, add_dead, advance, build_audit, run_worker
from tests.rows import add_events, date_deaths, park

FOLDER = Path(__file__).resolve().parents[1] / "data"
RELEASES = sorted(path.stem.removeprefix("release_") for path in FOLDER.glob("release_*.sql"))


def find_dump(release: str) -> Path:
    """Return the file of a release."""
    return FOLDER / f"release_{release}.sql"


def load_release(connection: Connection, release: str) -> None:
    """Create everything of a release in an empty database of any supported version."""
    connection.execute(find_dump(release).read_bytes())
    # The dump leaves an empty search path.
    connection.execute("select pg_catalog.set_config('search_path', 'public', false)")


def fill_outbox(database: Database) -> None:
    """Do what people, workers and jobs do, in a small installation."""
    with database.connect() as connection:
        create_host_tables(connection)
        install_outbox(connection)
        _verify_and_halt_fixes(connection, database)
        _archive_events(connection)
        _change_causes(connection)
        add_dead(connection, 12, error="TimeoutError: no answer", event_type="order.shipped")
        flag = FixFlag(Selection(event_type="order.shipped"), POLICY)
        advance(connection, flag_fix(connection, flag, audit=build_audit("ann", "it is open")))
        add_events(connection, 5)


def _verify_and_halt_fixes(connection: Connection, database: Database) -> None:
    for error, delivers in (("KeyError: 'postcode'", True), ("HTTPError: HTTP Error 503", False)):
        add_dead(connection, 8, error=error)
        selection = Selection(cause=compute_cause_id(error))
        fix = flag_fix(connection, FixFlag(selection, POLICY), audit=build_audit("ann", "fixed"))
        for _ in range(4):
            advance(connection, fix)
            run_worker(database, delivers=delivers)
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        advance(connection, fix)
    add_dead(connection, 4, error="ValueError: bad", event_type="letter.sent")
    flag = FixFlag(Selection(event_type="letter.sent"), POLICY)
    fix = flag_fix(connection, flag, audit=build_audit("ann", "fixed"))
    withdraw_fix(connection, fix.id, audit=build_audit("ann", "not yet"))


def _archive_events(connection: Connection) -> None:
    add_dead(connection, 20, error="OldError: x", event_type="old")
    date_deaths(connection, "now() - interval '60 days'", where="event_type = 'old'")
    now = datetime.now(UTC)
    archive_dead_events(
        connection,
        before=now - timedelta(days=30),
        only_exported=False,
        audit=AuditContext("job", "retention", now),
    )
    add_dead(connection, 2, error="UselessError: x", event_type="useless")
    discard_events(connection, Selection(event_type="useless"), audit=build_audit())


def _change_causes(connection: Connection) -> None:
    add_dead(connection, 3, error="OneError: x")
    add_dead(connection, 3, error="OtherError: x")
    one, other = (compute_cause_id(f"{name}Error: x") for name in ("One", "Other"))
    merge_causes(connection, one, into=other, audit=build_audit("ann", "the same"))
    mute_cause(
        connection, other, datetime.now(UTC) + timedelta(days=7), audit=build_audit("ann", "known")
    )
    park(connection, [row["id"] for row in connection.execute(PARKED).fetchall()])


PARKED = "select event_id as id from dlq.dead_event where error like 'OneError%' limit 1"


def main() -> int:
    """Write the database of the release that is named."""
    (release,) = sys.argv[1:]
    if find_dump(release).exists():
        sys.exit(f"{find_dump(release)} exists. The database of a release never changes.")
    with scratch_server() as (_, server):
        database = Database(server.ensure_database("release"))
        fill_outbox(database)
        find_dump(release).write_text(dump_as_inserts(database), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
