"""An export equals the ledger in every reader, after kills, late commits, deletes and races."""

import csv
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.purge import purge_archive, purge_deaths
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.errors import DatabaseUnavailableError, DlqError, RefusedError
from dlq_pipelines.exports import export as exporting
from dlq_pipelines.exports.export import ExportResult, export_day
from dlq_pipelines.exports.export import verify_day as verify
from dlq_pipelines.exports.formats import EXPORT_SCHEMA
from dlq_pipelines.exports.manifest import ExportOptions
from dlq_pipelines.exports.missing import list_days_without_export
from dlq_pipelines.exports.redact import parse_redaction
from dlq_pipelines.exports.stream import read_export_schema
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.retry import retry_events, retry_with_payload
from dlq_pipelines.settings import ExportFormat
from tests.rows import add_events, deaths_at, kill, one, wait_for_blocked_session
from tests.shapes import REFERENCE, ShapedOutbox, adapt_connection

BERLIN = ZoneInfo("Europe/Berlin")
DAY = Day.of(date(2026, 3, 10), BERLIN)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
PARQUET, CSV = "died_on=2026-03-10/part-00000.parquet", "_csv/died_on=2026-03-10/part-00000.csv.gz"
JSONL, MANIFEST = (
    "_jsonl/died_on=2026-03-10/part-00000.jsonl.gz",
    "died_on=2026-03-10/_manifest.json",
)
HOSTILE = [
    None,
    "",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",  # noqa: RUF001 - spreadsheets run the wide ones too
    "'quoted",
    "''twice",
    'Zoë 日本 🎉 "said", a;b\nsecond line\r\nthird',
    "\x1b[31mred\x1b[0m \u202eevil",
    "NULL",
    "NA",
]
PAYLOAD = (
    '{"big": 9007199254740993, "exact": 12345678901234567890.123456789012345678,'
    ' "nul": "\\\\u0000", "name": "Zoë"}'
)
LEDGER = """
    select d.id as death_id,
        d.event_id,
        d.aggregate_type,
        d.aggregate_id,
        d.event_type,
        e.payload,
        e.created_at,
        d.attempts,
        d.died_at,
        d.error,
        d.cause_id as fingerprint,
        d.cause_id,
        c.exception_type,
        c.template,
        d.detail
    from dlq.death d join dlq.cause c on c.id = d.cause_id
    left join (select {key} as id, {payload} as payload, {created_at} as created_at from {table}
        union all select {key}, {payload}, {created_at} from dlq.archived) e on e.id = d.event_id
    where (d.died_at at time zone 'Europe/Berlin')::date = %s
    order by d.died_at, d.id
"""
# A process that kills itself when the export calls a function.
KILLED = """
import os, signal, sys
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo
from dlq_pipelines.day import Day
from dlq_pipelines.exports import export, target
from dlq_pipelines.postgres.connect import Database
url, folder, place = sys.argv[1:]
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
setattr(target if hasattr(target, place) else export, place, kill)
day = Day.of(date(2026, 3, 10), ZoneInfo("Europe/Berlin"))
with Database(url).connect() as connection:
    place = target.open_local_target(Path(folder).parent)
    now = datetime(2026, 12, 1, tzinfo=UTC)
    export.export_day(connection, url=url, day=day, target=place, now=now)
"""

Export = Callable[..., ExportResult]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The root of the dataset, which the export creates."""
    return tmp_path / "exports" / "dead_events"


@pytest.fixture
def export(request: pytest.FixtureRequest, folder: Path) -> Export:
    """A function that exports a day of the test's outbox on its own connection."""
    is_shaped = "outbox" in request.fixturenames
    database: Database = (
        request.getfixturevalue("outbox").database
        if is_shaped
        else request.getfixturevalue("database")
    )

    def run(day: Day = DAY, now: datetime = NOW, **options: Any) -> ExportResult:
        with database.connect() as connection:
            return export_day(
                connection,
                url=database.url,
                day=day,
                target=open_local_target(folder.parent),
                now=now,
                options=ExportOptions(**options),
            )

    return run


def verify_day(connection: Connection, *, day: Day, folder: Path) -> list[str]:
    return verify(connection, day=day, target=open_local_target(folder.parent), now=NOW)


def counts_as_exported(connection: Connection) -> bool:
    """Whether schedule and archive take the day for exported. They must agree."""
    missing = list_days_without_export(connection, [DAY]) == [DAY.date]
    archived = bool(connection.fetch_one("archive.exported_times", before=NOW)["times"] != "{}")
    assert missing != archived
    return archived


def break_off(export: Export, folder: Path, now: datetime = NOW + timedelta(days=1)) -> None:
    """Export to a disk that accepts the first file and refuses the second."""
    (folder / CSV).unlink()
    (folder / CSV / "in the way").mkdir(parents=True)
    with pytest.raises(DlqError, match="The export of 2026-03-10 cannot be written to"):
        export(now=now)
    assert not (folder / MANIFEST).exists()
    shutil.rmtree(folder / CSV)


def add_death(
    connection: Connection,
    died_at: datetime = DAY.start + timedelta(hours=12),
    error: str | None = "KeyError: 'postcode'",
    *,
    payload: str = "{}",
    aggregate: str = "1",
) -> None:
    """Add an event that died at that time, classified."""
    add_unclassified(connection, died_at, error, payload=payload, aggregate=aggregate)
    classify_deaths(connection, zone=BERLIN)


def add_old_death(
    outbox: ShapedOutbox,
    died_at: datetime = DAY.start + timedelta(hours=12),
    error: str | None = "KeyError: 'postcode'",
    *,
    payload: str = "{}",
    aggregate: str = "1",
) -> None:
    """Add an event of any shape that died at that time, classified."""
    with deaths_at(outbox.connection, died_at):
        numbers = outbox.add_events(1, payload=payload, aggregate=aggregate)
        outbox.give_up(numbers, error)
    classify_deaths(outbox.connection, zone=BERLIN)


def add_unclassified(
    connection: Connection,
    died_at: datetime,
    error: str | None = None,
    *,
    payload: str = "{}",
    aggregate: str = "1",
) -> None:
    with deaths_at(connection, died_at):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " attempts, last_error) values ('order', %s, 'order.placed', %s::jsonb, 'dead', 5, %s)",
            [aggregate, payload, error],
        )


def ledger(connection: Connection, day: Day = DAY) -> list[dict[str, Any]]:
    return read_ledger(adapt_connection(connection), day)


def read_ledger(outbox: ShapedOutbox, day: Day = DAY) -> list[dict[str, Any]]:
    """Return the deaths of a day as the export must have them."""
    shape = outbox.shape
    statement = LEDGER.format(key=shape.key, table=shape.table, **shape.columns)
    rows = outbox.connection.execute(statement.encode(), [day.date]).fetchall()
    return [
        {**row, "event_id": row["event_id"] if shape is REFERENCE else str(row["event_id"])}
        for row in rows
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file below the folder, including hidden ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def query_duckdb(query: str) -> list[Any]:
    relation = duckdb.sql(query)
    assert relation is not None
    return relation.fetchall()


@contextmanager
def stalled_stream(database: Database) -> Iterator[None]:
    """Block the stream of every export during the block by a lock on the archive."""
    with database.connect() as blocker, blocker.transaction():
        blocker.execute("lock table dlq.archived in access exclusive mode")
        yield


def wait_until(connection: Connection, condition: str) -> None:
    """Wait until the SQL condition is true."""
    while not one(connection, f"select ({condition}) as holds")["holds"]:
        time.sleep(0.01)


def test_parquet_equals_the_ledger_in_every_reader(
    outbox: ShapedOutbox, export: Export, folder: Path
) -> None:
    """In pyarrow, pandas and DuckDB: numbers beyond 2^53, Unicode, escapes, nulls."""
    for text in HOSTILE:
        add_old_death(outbox, error=text, payload=PAYLOAD, aggregate=text or "-")
    exported = export()
    expected = read_ledger(outbox)
    assert (exported.rows, exported.first_id, exported.last_id) == (len(HOSTILE), 1, len(HOSTILE))
    path = folder / PARQUET
    assert pq.read_schema(path).equals(read_export_schema(outbox.connection))
    assert pq.ParquetFile(path).read().to_pylist() == expected
    assert pd.read_parquet(path)["payload"].tolist() == [row["payload"] for row in expected]
    rows = query_duckdb(f"select payload, error, died_at::varchar from read_parquet('{path}')")
    assert [row[:2] for row in rows] == [(row["payload"], row["error"]) for row in expected]
    numbers = json.loads(rows[0][0], parse_float=Decimal)
    assert (numbers["big"], numbers["exact"]) == (
        2**53 + 1,
        Decimal("12345678901234567890.123456789012345678"),
    )
    assert numbers["nul"] == "\\u0000"


def test_csv_equals_the_ledger_and_no_cell_is_a_formula(
    connection: Connection, export: Export, folder: Path
) -> None:
    """A leading apostrophe protects such cells; removing it restores the text."""
    for text in HOSTILE:
        add_death(connection, error=text, payload=PAYLOAD, aggregate=text or "-")
    export()
    path = folder / CSV
    options = pa_csv.ConvertOptions(
        column_types=EXPORT_SCHEMA, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    options.null_values = [""]
    table = pa_csv.read_csv(
        path, convert_options=options, parse_options=pa_csv.ParseOptions(newlines_in_values=True)
    ).to_pylist()
    texts = [field.name for field in EXPORT_SCHEMA if field.type == pa.string()]
    for row in table:
        row.update({name: row[name] and row[name].removeprefix("'") for name in texts})
    assert table == ledger(connection)
    with gzip.open(path, "rt", newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.DictReader(stream) for cell in row.values()]
    formulas = ("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}")
    assert [cell for cell in cells if cell.startswith(formulas)] == []


def test_json_lines_equal_the_ledger(outbox: ShapedOutbox, export: Export, folder: Path) -> None:
    """A payload is text, so that no reader turns its numbers into doubles."""
    for text in [*HOSTILE, "".join(map(chr, range(1, 0x80))), "\u2028\ufeff\U0010ffff\\"]:
        add_old_death(outbox, error=text, payload=PAYLOAD, aggregate=text or "-")
    export()
    with gzip.open(folder / JSONL, "rt", newline="\n", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    for row in rows:
        row.update(
            {
                name: row[name] and datetime.fromisoformat(row[name])
                for name in ("created_at", "died_at")
            }
        )
    assert rows == read_ledger(outbox)
    read = query_duckdb(
        f"select payload, error from read_json('{folder / JSONL}') order by died_at, death_id"
    )
    assert read == [(row["payload"], row["error"]) for row in rows]


def test_payload_of_ten_megabytes_is_exported(
    connection: Connection, export: Export, folder: Path
) -> None:
    """In each format; also one nested as deep as PostgreSQL allows."""
    deep = "[" * 1000 + '"\\\\u0000 \\u2028"' + "]" * 1000
    for payload in (
        '{"n": 1}',
        json.dumps({"text": 'Zoë "日本"\n' * 1_000_000}, ensure_ascii=False),
        deep,
    ):
        add_death(connection, payload=payload)
    export()
    assert verify_day(connection, day=DAY, folder=folder) == []
    payloads = [row["payload"] for row in ledger(connection)]
    assert [len(text.encode()) > 10_000_000 for text in payloads] == [False, True, False]
    assert pq.ParquetFile(folder / PARQUET).read()["payload"].to_pylist() == payloads
    with gzip.open(folder / JSONL, "rt", encoding="utf-8") as stream:
        assert [json.loads(line)["payload"] for line in stream] == payloads
    csv.field_size_limit(2**30)
    with gzip.open(folder / CSV, "rt", newline="", encoding="utf-8") as stream:
        assert [row["payload"] for row in csv.DictReader(stream)] == payloads


def test_payload_column_may_have_the_type_json(
    connection: Connection, export: Export, folder: Path
) -> None:
    """It keeps spaces, repeated members and the escape of NUL, and so does the export."""
    connection.execute(
        "drop view dlq.outbox, dlq.archive;"
        " alter table outbox_event alter payload type json; delete from dlq.attachment"
    )
    install_outbox(connection)
    payload = '{ "nul": "\\u0000", "n": 1.00, "n": 1e2 }'
    with deaths_at(connection, DAY.start):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
            " values ('o', '1', 'e', %s::json, 'dead')",
            [payload],
        )
    classify_deaths(connection, zone=BERLIN)
    export(redaction=parse_redaction("drop $.absent", "", None))
    assert pq.ParquetFile(folder / PARQUET).read()["payload"].to_pylist() == [payload]


def test_parquet_has_even_row_groups_and_metadata(
    connection: Connection, export: Export, folder: Path
) -> None:
    """131,072 rows a group, zstd in every column, the day in the key-value metadata."""
    add_death(connection)
    connection.execute(  # of the same cause: classifying them would take longer than the export
        "insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts,"
        " died_at, cause_id, detail)"
        " select n, 'order', n::text, 'e', 5, %s::timestamptz + n * interval '100 ms',"
        " d.cause_id, d.detail"
        " from generate_series(2, 140000) n, dlq.death d where d.id = 1",
        [DAY.start],
    )
    export(formats=(ExportFormat.PARQUET,))
    metadata = pq.read_metadata(folder / PARQUET)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [131_072, 8_928]
    assert {groups[0].column(number).compression for number in range(len(EXPORT_SCHEMA))} == {
        "ZSTD"
    }
    stored = {
        key.decode(): value.decode()
        for key, value in metadata.metadata.items()
        if key.startswith(b"dlq.")
    }
    assert stored == {
        "dlq.version": "1",
        "dlq.unrepresentable_times": "{}",
        "dlq.day": "2026-03-10",
        "dlq.from": "2026-03-09T23:00:00Z",
        "dlq.until": "2026-03-10T23:00:00Z",
        "dlq.rows": "140000",
        "dlq.first_id": "1",
        "dlq.last_id": "140000",
        "dlq.redaction": '{"payload": [], "errors": []}',
    }


def test_second_export_removes_files_of_unwanted_formats(
    connection: Connection, export: Export, folder: Path
) -> None:
    """The manifest names every file."""
    add_death(connection)
    export()
    assert contents(folder).keys() == {PARQUET, CSV, JSONL, MANIFEST}
    for formats in ((ExportFormat.CSV,), (ExportFormat.PARQUET, ExportFormat.JSONL)):
        export(formats=formats)
        names = {
            {"csv": CSV, "parquet": PARQUET, "jsonl": JSONL}[format.value] for format in formats
        }
        assert contents(folder).keys() == {*names, MANIFEST}
        assert verify_day(connection, day=DAY, folder=folder) == []


def test_manifest_describes_the_files(connection: Connection, export: Export, folder: Path) -> None:
    """Rows, ids, checksums, schema and settings; no time of writing, and never the key."""
    add_death(connection, error="Bearer abc", payload='{"card": 1, "email": "a@b"}')
    redaction = parse_redaction("drop $.card; hash $.email", r"Bearer \S+", b"0123456789abcdef")
    export(redaction=redaction)
    text = (folder / MANIFEST).read_text()
    manifest = json.loads(text)
    assert (manifest["day"], manifest["rows"], manifest["first_id"], manifest["last_id"]) == (
        "2026-03-10",
        1,
        1,
        1,
    )
    assert {file["name"]: (file["bytes"], file["sha256"]) for file in manifest["files"]} == {
        name: (len(data), hashlib.sha256(data).hexdigest())
        for name, data in contents(folder).items()
        if name != MANIFEST
    }
    assert manifest["schema"][0] == {"name": "death_id", "type": "int64", "nullable": False}
    assert len(manifest["schema"]) == len(EXPORT_SCHEMA)
    hides = {"payload": ["drop $.card", "hash $.email"], "errors": [r"Bearer \S+"]}
    assert manifest["settings"] == {
        "formats": ["parquet", "csv", "jsonl"],
        "row_group_rows": 131_072,
        "redaction": hides,
    }
    assert "0123456789abcdef" not in text


def test_hidden_values_are_in_no_file(connection: Connection, export: Export, folder: Path) -> None:
    """Neither in the payload nor in the error nor in the template."""
    add_death(connection, error="KeyError: 'hush-hush'", payload='{"a": {"pin": "1234x"}, "b": 1}')
    export(redaction=parse_redaction("mask $..pin", "hush-hush", None))
    (row,) = pq.ParquetFile(folder / PARQUET).read().to_pylist()
    assert (row["payload"], row["error"]) == (
        '{"a": {"pin": "***"}, "b": 1}',
        "KeyError: '[redacted]'",
    )
    for name, data in contents(folder).items():
        text = gzip.decompress(data) if name.endswith("gz") else data
        assert name == MANIFEST or (
            b"1234x" not in text and (name == PARQUET or b"hush-hush" not in text)
        )


def test_merge_changes_the_cause_but_not_the_fingerprint(
    connection: Connection, export: Export, folder: Path
) -> None:
    """A merge is the only change of a past day."""
    add_death(connection, error="KeyError: 'a b'")
    add_death(connection, error="TimeoutError: no answer")
    own = [row["cause_id"] for row in ledger(connection)]
    connection.execute("update dlq.cause set merged_into = %s where id = %s", [own[1], own[0]])
    export()
    rows = pq.ParquetFile(folder / PARQUET).read().to_pylist()
    assert [(row["fingerprint"], row["cause_id"]) for row in rows] == [
        (own[0], own[1]),
        (own[1], own[1]),
    ]
    assert rows[0]["exception_type"] == "TimeoutError"


def add_deaths(connection: Connection, count: int, at: str) -> None:
    """Add classified deaths at a time."""
    with deaths_at(connection, f"timestamptz '{at}'"):
        add_events(connection, count)
        kill(connection, "boom", where="status = 'pending'")
    classify_deaths(connection, zone=BERLIN)


def test_a_death_that_commits_late_makes_its_day_due_again(
    connection: Connection, export: Export, folder: Path
) -> None:
    """The archive waits for the next export, also of a day long ago, and then goes on."""
    days = [Day.of(DAY.date + timedelta(days=later), BERLIN) for later in range(30)]
    add_deaths(connection, 3, "2026-03-10T12:00Z")
    export()
    assert verify_day(connection, day=DAY, folder=folder) == []
    assert counts_as_exported(connection)
    assert DAY.date not in list_days_without_export(connection, days)
    add_deaths(connection, 1, "2026-03-10T13:00Z")
    assert not counts_as_exported(connection)
    assert list_days_without_export(connection, days)[0] == DAY.date
    audit = AuditContext("job", "retention", NOW)
    assert archive_dead_events(connection, before=NOW, only_exported=True, audit=audit).moved == 0
    assert export(now=NOW + timedelta(hours=1)).rows == 4
    assert verify_day(connection, day=DAY, folder=folder) == []
    assert archive_dead_events(connection, before=NOW, only_exported=True, audit=audit).moved == 4


def test_another_time_zone_exports_all_days_again(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """Each death is in one file again, and the archive goes on. A second look finds nothing."""
    for hour in range(0, 72, 3):
        add_deaths(connection, 1, f"2026-03-{10 + hour // 24}T{hour % 24:02}:30Z")
    target, audit = open_local_target(tmp_path / "exports"), AuditContext("job", "retention", NOW)

    def export_all(zone: ZoneInfo) -> list[date]:
        days = [Day.of(date(2026, 3, 1) + timedelta(days=n), zone) for n in range(60)]
        due = list_days_without_export(connection, days)
        for day in days:
            if day.date in due:
                export_day(connection, url=database.url, day=day, target=target, now=NOW)
                assert verify(connection, day=day, target=target, now=NOW) == []
        return due

    for day in (date(2026, 3, 10), date(2026, 3, 11), date(2026, 3, 12)):
        utc = Day.of(day, ZoneInfo("UTC"))
        export_day(connection, url=database.url, day=utc, target=target, now=NOW)
        assert verify(connection, day=utc, target=target, now=NOW) == []
    tokyo = ZoneInfo("Asia/Tokyo")
    assert [str(day) for day in export_all(tokyo)[:4]] == [
        "2026-03-10", "2026-03-11", "2026-03-12", "2026-03-13",
    ]  # fmt: skip
    assert export_all(tokyo) == []
    exported = [
        number
        for file in (tmp_path / "exports").rglob("*.parquet")
        for number in pq.read_table(file, columns=["death_id"])["death_id"].to_pylist()
    ]
    assert sorted(exported) == list(range(1, 25))
    assert archive_dead_events(connection, before=NOW, only_exported=True, audit=audit).moved == 24


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-06-01", 24), ("2026-10-25", 25)]
)
def test_day_has_the_hours_of_its_time_zone(
    connection: Connection, export: Export, day: str, hours: int
) -> None:
    """From midnight in Berlin, inclusive, to the next midnight, exclusive."""
    this = Day.of(date.fromisoformat(day), BERLIN)
    moment = this.start - timedelta(hours=1)
    while moment <= this.until + timedelta(hours=1):
        add_unclassified(connection, moment, "boom")
        moment += timedelta(minutes=30)
    classify_deaths(connection, zone=BERLIN)
    exported = export(this)
    died = pq.ParquetFile(f"{exported.folder}/part-00000.parquet").read()["died_at"].to_pylist()
    assert (Path(exported.folder).name, len(died)) == (f"died_on={day}", 2 * hours)
    assert (died[0], died[-1]) == (this.start, this.until - timedelta(minutes=30))


def test_days_form_one_hive_dataset(connection: Connection, export: Export, folder: Path) -> None:
    """DuckDB, pandas and Polars read the column `died_on` from the names of the folders."""
    days = [Day.of(DAY.date + timedelta(days=number), BERLIN) for number in range(3)]
    for number, day in enumerate(days):
        for _ in range(number):
            add_death(connection, day.start)
    for day in days:
        export(day)
    dataset = f"read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    counted = f"select died_on::varchar, count(*) from {dataset} group by 1 order by 1"
    assert query_duckdb(counted) == [
        ("2026-03-11", 1),
        ("2026-03-12", 2),
    ]
    assert (
        pd.read_parquet(folder, columns=["death_id", "died_on"])["died_on"].tolist()
        == ["2026-03-11"] + ["2026-03-12"] * 2
    )
    read = (
        pl.scan_parquet(f"{folder}/*/*.parquet", hive_partitioning=True)
        .select("died_on", "payload")
        .collect()
    )
    assert read.rows() == [(days[1].date, "{}"), (days[2].date, "{}"), (days[2].date, "{}")]
    for kind, reader in (("_csv", "read_csv"), ("_jsonl", "read_json")):
        files = f"{reader}('{folder}/{kind}/*/*.gz', hive_partitioning = true)"
        assert query_duckdb(f"select count(*) from {files} where died_on > '1999-01-01'") == [(3,)]


def test_day_without_deaths_has_files_without_rows(
    connection: Connection, export: Export, folder: Path
) -> None:
    """They have the schema of the other days."""
    exported = export()
    assert (exported.rows, exported.first_id, exported.last_id) == (0, None, None)
    table = pq.ParquetFile(folder / PARQUET).read()
    assert (table.num_rows, table.schema.equals(EXPORT_SCHEMA)) == (0, True)
    header = ",".join(f'"{name}"' for name in EXPORT_SCHEMA.names)
    assert gzip.decompress((folder / CSV).read_bytes()).decode() == f"{header}\n"
    assert one(connection, "select day, rows from dlq.export_day") == {"day": DAY.date, "rows": 0}
    assert verify_day(connection, day=DAY, folder=folder) == []


@pytest.mark.parametrize(
    ("classified", "now", "reason"),
    [
        (
            True,
            DAY.until - timedelta(seconds=1),
            "2026-03-10 is not over yet. Export it after 2026-03-10 23:00 UTC",
        ),
        (False, NOW, "1 deaths of 2026-03-10 have no cause yet. .*`dlq causes classify`"),
    ],
)
def test_day_that_is_not_ready_is_refused(
    connection: Connection,
    export: Export,
    folder: Path,
    *,
    classified: bool,
    now: datetime,
    reason: str,
) -> None:
    """The message says when or how to export it. Neither disk nor table is changed."""
    (add_death if classified else add_unclassified)(connection, DAY.start)
    with pytest.raises(RefusedError, match=reason):
        export(now=now)
    assert not folder.exists()
    assert one(connection, "select count(*) from dlq.export_day") == {"count": 0}


def test_death_committed_during_the_export_is_found_by_verification(
    connection: Connection, database: Database, export: Export, folder: Path
) -> None:
    """The export reads one snapshot, which has no death without a cause."""
    add_death(connection)
    with ThreadPoolExecutor(1) as pool:
        with stalled_stream(database):
            running = pool.submit(export)
            wait_for_blocked_session(connection)
            add_unclassified(connection, DAY.start)
        assert running.result().rows == 1
    assert pq.read_table(folder / PARQUET).column("cause_id").null_count == 0
    differences = verify_day(connection, day=DAY, folder=folder)
    assert differences[0] == "the record has 1 rows, the ledger 2"


def test_repeated_export_has_the_same_bytes(
    outbox: ShapedOutbox, export: Export, folder: Path
) -> None:
    """Events that were retried, changed, died again or were archived change no past death."""
    connection = outbox.connection
    for hour in range(6):
        add_old_death(outbox, DAY.start + timedelta(hours=hour), payload=PAYLOAD)
    export()
    before = contents(folder)
    first, *others = outbox.event_ids(1, 2, 3)
    audit = AuditContext("ann", "fixed", NOW)
    retry_with_payload(connection, first, '{"edited": true}', audit=audit, allowed=True)
    retry_events(connection, others, audit=audit)
    outbox.give_up([1], "again")
    retry_with_payload(connection, first, '{"edited": "again"}', audit=audit, allowed=True)
    moved = archive_dead_events(
        connection, before=DAY.until, only_exported=False, audit=AuditContext("test", "test", NOW)
    ).moved
    assert moved == 3
    export(now=NOW + timedelta(days=1))
    assert contents(folder) == before
    assert one(connection, "select exported_at from dlq.export_day")[
        "exported_at"
    ] == NOW + timedelta(days=1)


@pytest.mark.parametrize(
    "lost", ["event purged", "death purged", "deleted by the application once delivered"]
)
def test_day_with_deleted_events_is_not_exported_again(
    outbox: ShapedOutbox, export: Export, folder: Path, lost: str
) -> None:
    """The existing files hold more. Once they are moved away, the rest is exported."""
    add_old_death(outbox, payload=PAYLOAD)
    add_old_death(outbox, payload=PAYLOAD)
    export()
    before = contents(folder)
    _lose_an_event(outbox, lost)
    with pytest.raises(
        RefusedError,
        match=r"2026-03-10 is exported, and some .* move them away \(died_on=2026-03-10/_manif",
    ):
        export(now=NOW + timedelta(days=1))
    assert contents(folder) == before
    for name in contents(folder):
        with pytest.raises(RefusedError):
            export(now=NOW + timedelta(days=1))
        (folder / name).unlink()
    assert export(now=NOW + timedelta(days=1)).rows == (1 if lost == "death purged" else 2)


def _lose_an_event(outbox: ShapedOutbox, how: str) -> None:
    connection, audit = outbox.connection, AuditContext("job", "retention", NOW)
    if how.startswith("deleted"):
        retry_events(connection, outbox.event_ids(1), audit=audit)
        outbox.deliver([1])
        outbox.delete_rows([1])
        return
    archive_dead_events(connection, before=DAY.until, only_exported=False, audit=audit)
    connection.execute(
        "update dlq.archived set dlq_archived_at = %s where dlq_death_id = 2",
        [NOW + timedelta(days=9)],
    )
    purge_archive(connection, before=NOW + timedelta(days=1), audit=audit)
    if how == "death purged":
        purge_deaths(connection, before=NOW, audit=audit)


def test_day_with_events_purged_before_its_first_export_is_exported(
    connection: Connection, export: Export, folder: Path
) -> None:
    """The archive did not wait for the export, and there are no files to keep."""
    add_death(connection, payload=PAYLOAD)
    _lose_an_event(adapt_connection(connection), "event purged")
    assert export().rows == 1
    assert verify_day(connection, day=DAY, folder=folder) == []


def test_verified_day_is_missing_after_a_broken_export_until_the_next(
    connection: Connection, export: Export, folder: Path
) -> None:
    """Nothing is archived without a manifest, and the schedule exports the day again."""
    add_death(connection)
    export()
    assert verify_day(connection, day=DAY, folder=folder) == []
    assert counts_as_exported(connection)
    break_off(export, folder)
    assert not counts_as_exported(connection)
    export(now=NOW + timedelta(days=2))
    assert verify_day(connection, day=DAY, folder=folder) == []
    assert counts_as_exported(connection)


def test_files_of_a_broken_export_are_not_replaced_by_fewer_rows(
    connection: Connection, export: Export, folder: Path
) -> None:
    """Each is complete without its manifest, and may hold the only copy of a purged event."""
    add_death(connection)
    add_death(connection)
    export()
    break_off(export, folder)
    _lose_an_event(adapt_connection(connection), "event purged")
    with pytest.raises(RefusedError, match="another export would hold less"):
        export(now=NOW + timedelta(days=2))


def test_verification_does_not_verify_a_concurrent_export(
    connection: Connection, export: Export, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export begins after the last file was read, and breaks off."""
    add_death(connection)
    export()
    real = exporting._compare_file

    def overtaken(*given: Any) -> Iterator[str]:
        yield from real(*given)
        if given[1].name == MANIFEST:
            break_off(export, folder)

    monkeypatch.setattr(exporting, "_compare_file", overtaken)
    assert verify_day(connection, day=DAY, folder=folder) == []
    assert not counts_as_exported(connection)


def test_export_changes_nothing_after_a_concurrent_export(
    connection: Connection, export: Export, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run exports the day, with one more death, between its two transactions."""
    add_death(connection)
    real = exporting._lock_day
    entered: list[Connection] = []

    def meanwhile(own: Connection, day: Day) -> Any:
        entered.append(own)
        if len(entered) == 2:
            add_death(connection)
            assert export(now=NOW + timedelta(hours=1)).rows == 2
            assert verify_day(connection, day=DAY, folder=folder) == []
        return real(own, day)

    monkeypatch.setattr(exporting, "_lock_day", meanwhile)
    with pytest.raises(RefusedError, match="Another run is exporting 2026-03-10"):
        export()
    assert verify_day(connection, day=DAY, folder=folder) == []
    assert (pq.read_metadata(folder / PARQUET).num_rows, list(folder.glob(".*"))) == (2, [])


def test_second_export_replaces_the_day(outbox: ShapedOutbox, export: Export, folder: Path) -> None:
    """It contains a death that was committed after the first export."""
    connection = outbox.connection
    add_old_death(outbox)
    export()
    add_old_death(outbox)
    assert verify_day(connection, day=DAY, folder=folder) == [
        "the record has 1 rows, the ledger 2",
        *(f"{name} has 1 rows, the ledger 2" for name in (PARQUET, CSV, JSONL)),
    ]
    assert one(connection, "select verified_at from dlq.export_day") == {"verified_at": None}
    assert export().rows == 2
    assert verify_day(connection, day=DAY, folder=folder) == []
    assert one(connection, "select verified_at from dlq.export_day") == {"verified_at": NOW}


def test_death_of_a_deleted_event_is_exported_without_payload(
    outbox: ShapedOutbox, export: Export, folder: Path
) -> None:
    """The application may delete its rows; the ledger keeps the death."""
    add_old_death(outbox, payload=PAYLOAD)
    created = outbox.read_row(1)["created_at"]
    outbox.delete_rows([1])
    export()
    (row,) = pq.ParquetFile(folder / PARQUET).read().to_pylist()
    assert (row["payload"], row["created_at"], row["error"]) == (
        None,
        created,
        "KeyError: 'postcode'",
    )


def test_death_has_the_payload_of_its_own_event(
    outbox: ShapedOutbox, export: Export, folder: Path
) -> None:
    """Ids begin again after a truncate: another event, dead and archived, has the id now."""
    connection = outbox.connection
    add_old_death(outbox, payload='{"n": 1}')
    audit = AuditContext("test", "test", NOW)
    archive_dead_events(connection, before=NOW, only_exported=False, audit=audit)
    connection.execute(f"truncate {outbox.shape.table}".encode())
    outbox.written = 0  # ids begin again
    add_old_death(outbox, payload='{"n": 2}')
    export()
    rows = pq.ParquetFile(folder / PARQUET).read().to_pylist()
    event = outbox.event_id(1)
    assert [(row["event_id"], row["payload"]) for row in rows] == [
        (event, '{"n": 1}'),
        (event, '{"n": 2}'),
    ]


def test_broken_stream_leaves_the_old_files(
    connection: Connection,
    database: Database,
    export: Export,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL ends the session in the middle of a large day. No unfinished file is left."""
    add_death(connection)
    export()
    before = contents(folder)
    with deaths_at(connection, DAY.start):
        connection.execute(
            "insert into outbox_event"
            " (aggregate_type, aggregate_id, event_type, payload, status, attempts)"
            " select 'order', n::text, 'order.placed', to_jsonb(repeat(md5(n::text), 100)), 'dead',"
            " 5 from generate_series(1, 20000) n"
        )
    classify_deaths(connection, zone=BERLIN)
    # The first batch is read, and the next one only once the session has ended.
    begun, ended = threading.Event(), threading.Event()
    add = exporting._Totals.add

    def pause(totals: exporting._Totals, batch: pa.RecordBatch) -> None:
        begun.set()
        ended.wait()
        add(totals, batch)

    monkeypatch.setattr(exporting._Totals, "add", pause)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(export)
        begun.wait()
        end_stream = (
            "select pg_terminate_backend(pid, 60000) as ended from pg_stat_activity"
            " where query like 'COPY %' and datname = current_database()"
        )
        assert one(connection, end_stream) == {"ended": True}
        ended.set()
        with pytest.raises(
            DatabaseUnavailableError, match="stream from PostgreSQL broke off"
        ) as raised:
            running.result()
    assert database.url not in str(raised.value)
    assert contents(folder) == before
    assert list(folder.glob(".*")) == []
    assert one(connection, "select rows from dlq.export_day") == {"rows": 1}


@pytest.mark.parametrize("place", ["_write_files", "_publish_files", "_sync"])
def test_next_export_completes_a_killed_one(
    connection: Connection, database: Database, export: Export, folder: Path, place: str
) -> None:
    """Killed before the stream, before the renames or at the first of them.

    Readers read the old files. The day counts as missing once a file may differ from the record.
    """
    add_death(connection)
    export()
    assert verify_day(connection, day=DAY, folder=folder) == []
    before = contents(folder)
    add_death(connection)
    child = subprocess.run(
        [sys.executable, "-c", KILLED, database.url, str(folder), place], check=False
    )
    assert child.returncode == -signal.SIGKILL
    if place == "_sync":  # the first change removes the manifest, before the files that it names
        del before[MANIFEST]
    assert {
        name: data for name, data in contents(folder).items() if not name.startswith(".")
    } == before
    assert len(list(folder.glob(".*"))) == 1
    read = f"select count(*) from read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    assert query_duckdb(read) == [(1,)]
    verified = one(connection, "select verified_at is not null as verified from dlq.export_day")[
        "verified"
    ]
    assert verified == (place == "_write_files")
    assert verify_day(connection, day=DAY, folder=folder) != []
    wait_until(
        connection, "select count(*) = 1 from pg_stat_activity where datname = current_database()"
    )
    export()
    assert list(folder.glob(".*")) == []
    assert verify_day(connection, day=DAY, folder=folder) == []


def test_wait_for_a_locked_table_has_a_timeout(
    database: Database, export: Export, folder: Path
) -> None:
    """An export does not queue behind an application that rewrites its table."""
    with (
        stalled_stream(database),
        pytest.raises(DatabaseUnavailableError, match="a table was locked"),
    ):
        export()
    assert contents(folder) == {}


def test_one_run_at_a_time_exports_a_day(
    connection: Connection, database: Database, export: Export, folder: Path
) -> None:
    """A second run is refused for this day alone. Files and manifest are those of the first."""
    add_death(connection)
    with ThreadPoolExecutor(1) as pool, stalled_stream(database):
        running = pool.submit(export)
        wait_for_blocked_session(connection)
        with pytest.raises(RefusedError, match="Another run is exporting 2026-03-10"):
            export()
        with pytest.raises(RefusedError, match="is not over yet"):
            export(Day.of(date(2026, 3, 11), BERLIN), now=DAY.start)
    assert running.result().rows == 1
    assert verify_day(connection, day=DAY, folder=folder) == []


def test_concurrent_exports_leave_files_that_match_their_manifest(
    connection: Connection, database: Database, export: Export, folder: Path
) -> None:
    """Four at a time on a day that grows; a refused export runs again."""
    add_death(connection)

    def run(_: int) -> int:
        with database.connect() as own:
            add_death(own)
        while True:
            try:
                return export().rows
            except RefusedError:  # another run exports the day, or classifies its deaths
                time.sleep(0.01)

    with ThreadPoolExecutor(4) as pool:
        rows = max(pool.map(run, range(12)))
    assert rows == 13
    assert one(connection, "select rows from dlq.export_day") == {"rows": rows}
    assert pq.read_metadata(folder / PARQUET).num_rows == rows
    assert verify_day(connection, day=DAY, folder=folder) == []


@pytest.mark.parametrize(
    ("tamper", "differences"),
    [
        (lambda c, _: c.execute("delete from dlq.export_day"), ["2026-03-10 was never exported"]),
        (
            lambda c, _: c.execute("update dlq.export_day set rows = 7"),
            ["the record has 7 rows, the ledger 2", "_manifest.json has 2 rows, the record 7"],
        ),
        (
            lambda c, _: c.execute("delete from dlq.death where id = 1"),
            [
                "the record has 2 rows, the ledger 1",
                *(f"{name} has 2 rows, the ledger 1" for name in (PARQUET, CSV, JSONL)),
            ],
        ),
        (lambda _, root: (root / CSV).unlink(), [f"{CSV} is missing"]),
        (
            lambda _, root: os.truncate(root / PARQUET, 100),
            [f"{PARQUET} differs from its checksum in the record"],
        ),
        (lambda _, root: (root / MANIFEST).unlink(), [f"{MANIFEST} is missing"]),
        (
            lambda _, root: (root / MANIFEST).write_text("{}"),
            [f"{MANIFEST} differs from its checksum in the record"],
        ),
        (
            lambda _, root: (root / CSV).write_text("x"),
            [f"{CSV} differs from its checksum in the record"],
        ),
    ],
)
def test_verification_names_each_difference(
    outbox: ShapedOutbox,
    export: Export,
    folder: Path,
    tamper: Callable[[Connection, Path], object],
    differences: list[str],
) -> None:
    """It compares the files with the manifest, and the manifest with the ledger."""
    connection = outbox.connection
    for _ in range(2):
        add_old_death(outbox)
    export()
    assert verify_day(connection, day=DAY, folder=folder) == []
    tamper(connection, folder)
    assert verify_day(connection, day=DAY, folder=folder) == differences
