"""Checks `dlq dead-events export`: the columns of the daily export, to a file or a pipe."""

import csv
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.cli.main import main
from dlq_pipelines.exports.formats import EXPORT_SCHEMA
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import stop_progress
from tests.rows import date_deaths_by_due_times

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(
    home: Path,
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Run:
    """Return a function that runs the command in a new folder, with five deaths of two types.

    It runs in the test's process: another one imports Arrow for a second first.
    """
    connection.execute(
        "insert into outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, last_error, next_run_at)"
        " select 'order', n::text, 'order.' || mod(n, 2),"
        " jsonb_build_object('n', n, 'pin', 'hush'), 'dead', 'KeyError: ' || n,"
        " '2026-03-10T12:00Z'::timestamptz + n * interval '1 hour' from generate_series(1, 5) n"
    )
    date_deaths_by_due_times(connection)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert home.parent == tmp_path

    monkeypatch.chdir(tmp_path)
    stop_progress(monkeypatch)

    def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["dlq", "dead-events", "export", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        return subprocess.CompletedProcess(
            arguments, code if isinstance(code, int) else 0, *capfdbinary.readouterr()
        )

    return command


def _read_ids(done: "subprocess.CompletedProcess[bytes]") -> list[int]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["event_id"] for line in done.stdout.splitlines()]


def test_each_format_has_the_columns_of_the_daily_export(run: Run, tmp_path: Path) -> None:
    """The file has the usual permissions; stderr has one line."""
    (tmp_path / "other").touch()
    for format in ("json", "jsonl", "csv", "parquet"):
        done = run("--format", format, "--output", f"deaths.{format}")
        assert (done.returncode, done.stdout, done.stderr.decode()) == (
            0,
            b"",
            f"5 deaths to deaths.{format}\n",
        )
        assert (tmp_path / f"deaths.{format}").stat().st_mode == (tmp_path / "other").stat().st_mode
    table = pq.read_table(tmp_path / "deaths.parquet")
    assert table.schema.equals(EXPORT_SCHEMA)
    with (tmp_path / "deaths.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    lines = [json.loads(line) for line in (tmp_path / "deaths.json").read_text().splitlines()]
    for read in (rows, lines):
        assert list(read[0]) == EXPORT_SCHEMA.names
        assert [row["payload"] for row in read] == table["payload"].to_pylist()
    kept = ["deaths.csv", "deaths.json", "deaths.jsonl", "deaths.parquet"]
    assert sorted(path.name for path in tmp_path.glob("*deaths*")) == kept
    assert (tmp_path / "deaths.jsonl").read_bytes() == (tmp_path / "deaths.json").read_bytes()


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["2", "4", "99"], [2, 4]),
        (["--event-type", "order.1"], [1, 3, 5]),
        (["--aggregate-type", "invoice"], []),
        (["--error-contains", "KeyError: 3"], [3]),
        (["--error-contains", "%"], []),
        (["--since", "2026-03-10T14:00"], [2, 3, 4, 5]),
        (["--since", "2026-03-10T14:00", "--until", "2026-03-10T16:00+00:00"], [2, 3]),
        (["--until", "2026-03-10"], []),
        (["--limit", "2"], [1, 2]),
        (["--limit", "1", "--event-type", "order.0"], [2]),
    ],
)
def test_filters_select_deaths(run: Run, filter_: list[str], found: list[int]) -> None:
    """On stdout, in the order of death."""
    assert _read_ids(run("--output", "-", *filter_)) == found


def test_json_describes_the_file(run: Run, tmp_path: Path) -> None:
    """Its rows, bytes and checksum. It cannot describe an export to stdout."""
    done = run("--format", "csv", "--output", "deaths.csv", "--event-type", "order.1", "--json")
    file = (tmp_path / "deaths.csv").read_bytes()
    description = {
        "file": "deaths.csv",
        "rows": 3,
        "bytes": len(file),
        "sha256": hashlib.sha256(file).hexdigest(),
    }
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, description, b"")
    refused = run("--output", "-", "--json")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"Pass --output FILE" in refused.stderr


def test_a_cause_includes_the_causes_merged_into_it(run: Run, connection: Connection) -> None:
    connection.execute(
        "update outbox_event set status = 'dead', last_error = 'TimeoutError: x' where id = 1"
    )
    connection.execute(
        "insert into outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
        " values ('order', '6', 'order.0', '{}', 'dead', 'TimeoutError: x')"
    )
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    rows = connection.execute(
        "select cause_id from dlq.death where event_id in (1, 6) order by event_id"
    ).fetchall()
    first, other = (row["cause_id"] for row in rows)
    assert _read_ids(run("--output", "-", "--cause", other)) == [6]
    connection.execute("update dlq.cause set merged_into = %s where id = %s", [other, first])
    assert _read_ids(run("--output", "-", "--cause", other)) == [1, 2, 3, 4, 5, 6]


def test_the_redaction_of_exports_applies(run: Run) -> None:
    """An invalid rule is an error before a file is created."""
    done = run(
        "--output",
        "-",
        DLQ_EXPORT_REDACT_PAYLOAD="drop $.pin",
        DLQ_EXPORT_REDACT_ERRORS=r"KeyError: \d",
    )
    assert _read_ids(done) == [1, 2, 3, 4, 5]
    assert b"hush" not in done.stdout
    assert json.loads(done.stdout.splitlines()[0])["error"] == "[redacted]"
    refused = run("--output", "-", DLQ_EXPORT_REDACT_PAYLOAD="hide $.pin")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.startswith(
        b"dlq: DLQ_EXPORT_REDACT_PAYLOAD: a rule is drop, mask or hash"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--output", "x", "--since", "soon"], 2, "not a time. Write it as 2026-11-24"),
        (["--output", "x", "--cause", "v2-none"], 3, "There is no cause 'v2-none'."),
        (["--output", "nowhere/x"], 1, "Cannot use 'nowhere/x': No such file or directory. Check"),
        (["--output", "-", "99", "999"], 3, "None of these events ever died. List dead"),
        (["--output", "x", "99"], 3, "None of these events ever died. List dead"),
        (["--output", "-", "--limit", "0"], 2, "0 is not in the range"),
        (["--output", "-", "--format", "xml"], 2, "xml"),
    ],
)
def test_an_error_leaves_no_file(
    run: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    """And prints no stack trace."""
    done = run(*arguments)
    assert done.returncode == code
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not (tmp_path / "x").exists()


def test_an_interrupted_export_leaves_the_old_file(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    """A locked table interrupts the stream."""
    (tmp_path / "deaths.json").write_text("old")
    with connection.transaction():
        connection.execute("lock table dlq.archived in access exclusive mode")
        done = run("--output", "deaths.json")
    assert (done.returncode, b"a table was locked" in done.stderr) == (1, True)
    assert (tmp_path / "deaths.json").read_text() == "old"
    assert [path.name for path in tmp_path.glob(".deaths*")] == []


def test_only_a_regular_file_is_replaced(run: Run, tmp_path: Path) -> None:
    """A fifo and a device are written to, a symbolic link keeps pointing to its file."""
    (tmp_path / "deaths.json").write_text("old")
    (tmp_path / "latest").symlink_to("deaths.json")
    assert run("--output", "latest").returncode == 0
    assert (tmp_path / "latest").readlink() == Path("deaths.json")
    assert len((tmp_path / "deaths.json").read_text().splitlines()) == 5

    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit((tmp_path / "pipe").read_bytes)
        assert run("--output", "pipe").returncode == 0
        assert len(reading.result(60).splitlines()) == 5
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)

    done = run("--output", "pipe", "--json")
    assert (done.returncode, b"not a stream" in done.stderr) == (2, True)
    done = run("--output", ".")
    assert (done.returncode, b". is a folder" in done.stderr) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root creates device nodes")
def test_a_file_that_is_replaced_keeps_its_owner_and_mode(run: Run, tmp_path: Path) -> None:
    """It has payloads: nobody may read them who could not read the old ones."""
    old = tmp_path / "deaths.json"
    old.write_text("old")
    old.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(old, 12, 34)
    owner = (old.stat().st_uid, old.stat().st_gid)
    assert run("--format", "json", "--output", str(old)).returncode == 0
    assert old.read_text() != "old"
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert (old.stat().st_uid, old.stat().st_gid) == owner


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "The name of the output is empty"),
        (" ", "The name of the output is empty"),
        ("/dev/full", "Cannot use '/dev/full': No space left on device"),
    ],
)
def test_an_output_that_cannot_be_written_is_named(run: Run, output: str, message: str) -> None:
    ended = run("--format", "json", "--output", output)
    assert ended.returncode
    assert message in ended.stderr.decode()


def test_a_device_is_never_replaced(run: Run, tmp_path: Path) -> None:
    """The numbers are those of /dev/null and /dev/full, in the test's own folder."""
    for name, minor in (("null", 3), ("full", 7)):
        try:
            os.mknod(tmp_path / name, stat.S_IFCHR | 0o600, os.makedev(1, minor))
        except PermissionError:
            pytest.skip("this container may not create device nodes")
    assert run("--output", "null").returncode == 0
    done = run("--output", "full")
    assert (done.returncode, b"No space left on device" in done.stderr) == (1, True)
    for name in ("null", "full"):
        assert stat.S_ISCHR((tmp_path / name).lstat().st_mode)


@pytest.mark.usefixtures("run")
def test_a_reader_that_stops_ends_it_silently(connection: Connection) -> None:
    """Such as `| head -1`."""
    connection.execute(
        "insert into outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, next_run_at)"
        " select 'order', n::text, 'e', to_jsonb(repeat('x', 1000)), 'dead', '2026-03-09'"
        " from generate_series(1, 9000) n"
    )
    date_deaths_by_due_times(connection)
    command = [str(Path(sys.executable).parent / "dlq"), "dead-events", "export", "--output", "-"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert json.loads(child.stdout.readline())["aggregate_id"] == "1"
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 141)


def test_a_time_without_zone_is_in_the_zone_of_the_settings(run: Run) -> None:
    in_berlin = run("--output", "-", "--since", "2026-03-10T16:00", DLQ_TIMEZONE="Europe/Berlin")
    assert _read_ids(in_berlin) == [3, 4, 5]
    first = json.load(io.BytesIO(in_berlin.stdout.splitlines()[0]))
    assert datetime.fromisoformat(first["died_at"]) == datetime(2026, 3, 10, 15, tzinfo=UTC)
