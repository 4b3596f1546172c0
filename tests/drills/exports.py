"""Kills exports at random moments and checks that readers see complete files or none.

Each export is a process. After each kill all visible files are complete; one more export after the
last kill completes the day.
"""

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.target import Target, open_local_target
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import deaths_at, wait_until_alone

UTC_ZONE = ZoneInfo("UTC")
DAY = Day.of(date(2026, 3, 10), UTC_ZONE)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
ROWS = 20_000
# Prints a line when the export begins, with all imports loaded.
CHILD = """
import sys
from pathlib import Path
from dlq_pipelines.exports.target import open_target
from dlq_pipelines.postgres.connect import Database
from tests.drills.exports import export
database, target = Database(sys.argv[1]), open_target(sys.argv[2], staging=Path(sys.argv[3]))
print("begun", flush=True)
export(database, target)
"""


def export(database: Database, target: Target) -> None:
    """Export the day."""
    with database.connect() as connection:
        export_day(connection, url=database.url, day=DAY, target=target, now=NOW)


def add_deaths(connection: Connection, count: int) -> None:
    """Add classified deaths of the day, with payloads that do not compress well."""
    with deaths_at(connection, DAY.start):
        connection.execute(
            "insert into outbox_event"
            " (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
            " select 'o', n::text, 'e',"
            " jsonb_build_object('n', n, 'text', md5(n::text) || md5((n + 1)::text)),"
            " 'dead', 'boom' from generate_series(1, %s) n",
            [count],
        )
    classify_deaths(connection, zone=UTC_ZONE)


def survive_kills(database: Database, folder: Path, *, kills: int, seed: int) -> int:
    """Kill exports, the first one as it begins; return how many died before their end.

    Raises:
        AssertionError: a visible file was incomplete, or the last export failed.
    """
    chance = random.Random(seed)
    target = open_local_target(folder)
    with database.connect() as connection:
        add_deaths(connection, ROWS)
        with _start_export(database, folder) as child:
            begun = time.monotonic()
            assert child.wait() == 0
            length = time.monotonic() - begun
        hit = 0
        for number in range(kills):
            add_deaths(connection, 1)  # otherwise each export would write the same files
            with _start_export(database, folder) as child:
                time.sleep(chance.uniform(0, length) if number else 0)
                child.send_signal(signal.SIGKILL)
                hit += child.wait() == -signal.SIGKILL
            require_whole(folder / "dead_events")
            wait_until_alone(connection)
        export(database, target)
        assert verify_day(connection, day=DAY, target=target, now=NOW) == []
    assert list((folder / "dead_events").glob(".*")) == [], (
        "unfinished files of a killed export are left"
    )
    return hit


@contextmanager
def _start_export(database: Database, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CHILD, database.url, str(folder), str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        yield child


def require_whole(folder: Path) -> None:
    """Check that each visible file is complete, and that the manifest names exactly these files."""
    rows = {}
    for path in (
        path
        for path in folder.rglob("part-*")
        if not path.relative_to(folder).parts[0].startswith(".")
    ):
        rows[str(path.relative_to(folder))] = _COUNT_ROWS[path.name.split(".", 1)[1]](path)
    assert all(count >= ROWS for count in rows.values()), rows
    manifest = folder / f"died_on={DAY.date}" / "_manifest.json"
    if manifest.exists():
        files = json.loads(manifest.read_bytes())["files"]
        assert {file["name"]: file["sha256"] for file in files} == {
            name: sha256((folder / name).read_bytes()).hexdigest() for name in rows
        }
        assert len(set(rows.values())) == 1


def _count_lines(path: Path) -> int:
    return gzip.decompress(path.read_bytes()).count(b"\n")


_COUNT_ROWS: dict[str, Callable[[Path], int]] = {
    "parquet": lambda path: int(pq.ParquetFile(path).read().num_rows),
    "csv.gz": lambda path: _count_lines(path) - 1,
    "jsonl.gz": _count_lines,
}
