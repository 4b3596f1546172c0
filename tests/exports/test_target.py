"""Targets: a folder or a URI; errors name the target without its secrets."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.errors import DlqError
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.manifest import ExportOptions
from dlq_pipelines.exports.target import Target, open_target
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import ExportFormat
from tests.rows import deaths_at

UTC_ZONE = ZoneInfo("UTC")
DAY = Day.of(date(2026, 3, 10), UTC_ZONE)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
NAMES = [
    "_csv/died_on=2026-03-10/part-00000.csv.gz",
    "_jsonl/died_on=2026-03-10/part-00000.jsonl.gz",
    "died_on=2026-03-10/_manifest.json",
    "died_on=2026-03-10/part-00000.parquet",
]


@pytest.fixture
def deaths(connection: Connection) -> None:
    with deaths_at(connection, DAY.start):
        connection.execute(
            "insert into outbox_event"
            " (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
            " select 'o', n::text, 'e', jsonb_build_object('n', n), 'dead', 'boom'"
            " from generate_series(1, 1000) n"
        )
    classify_deaths(connection, zone=UTC_ZONE)


def export(database: Database, target: Target, *formats: ExportFormat) -> None:
    with database.connect() as connection:
        options = ExportOptions(formats or tuple(ExportFormat))
        export_day(connection, url=database.url, day=DAY, target=target, now=NOW, options=options)


def keys(root: str) -> list[str]:
    """Every object below."""
    files, path = pa_fs.FileSystem.from_uri(root)
    found = files.get_file_info(pa_fs.FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(info.path.removeprefix(f"{path}/") for info in found if info.is_file)


@pytest.mark.usefixtures("deaths")
def test_day_is_exported_to_s3_and_verified_there(
    connection: Connection, database: Database, s3: str, tmp_path: Path
) -> None:
    """With AWS_* variables alone. The bytes are those of a folder. The staging folder is empty."""
    target = open_target(
        "s3://bucket/some prefix/exports/".replace(" ", "%20"), staging=tmp_path / "staging"
    )
    export(database, target)
    assert keys("s3://bucket/some%20prefix/exports/dead_events") == NAMES
    assert list((tmp_path / "staging").iterdir()) == []
    assert verify_day(connection, day=DAY, target=target, now=NOW) == []
    local = open_target(str(tmp_path / "local"), staging=tmp_path)
    export(database, local)
    for name in NAMES:
        with target.open(name) as there, local.open(name) as here:
            assert there.read() == here.read()
    assert s3


@pytest.mark.usefixtures("deaths")
def test_s3_is_configured_by_query_parameters(
    connection: Connection,
    database: Database,
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    options = f"region=eu-central-1&scheme=http&endpoint_override={s3}"
    target = open_target(f"s3://key:s3cr3t@bucket?{options}", staging=tmp_path)
    export(database, target)
    assert target.uri == "s3://bucket/dead_events"
    assert "s3cr3t" not in repr(target)
    assert verify_day(connection, day=DAY, target=target, now=NOW) == []
    files, path = pa_fs.FileSystem.from_uri(f"s3://key:s3cr3t@bucket/dead_events?{options}")
    table = pq.read_table(
        f"{path}/died_on=2026-03-10/part-00000.parquet", filesystem=files, partitioning=None
    )
    assert [json.loads(text)["n"] for text in table["payload"].to_pylist()] == list(range(1, 1001))


@pytest.mark.usefixtures("deaths", "s3")
def test_second_export_replaces_the_objects_of_a_day(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """It removes those of unwanted formats. Verification finds missing and changed objects."""
    target = open_target("s3://bucket/x", staging=tmp_path)
    export(database, target)
    export(database, target, ExportFormat.PARQUET)
    assert keys("s3://bucket/x/dead_events") == NAMES[2:]
    files, path = pa_fs.FileSystem.from_uri("s3://bucket/x/dead_events")
    with files.open_output_stream(f"{path}/{NAMES[3]}") as stream:
        stream.write(b"half")
    assert verify_day(connection, day=DAY, target=target, now=NOW) == [
        f"{NAMES[3]} differs from its checksum in the record"
    ]
    files.delete_file(f"{path}/{NAMES[2]}")
    assert f"{NAMES[2]} is missing" in verify_day(connection, day=DAY, target=target, now=NOW)


@pytest.mark.usefixtures("deaths")
def test_failed_upload_leaves_no_manifest(
    connection: Connection,
    database: Database,
    tmp_path: Path,
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No manifest names objects of two exports. The next export completes the day."""
    target = open_target("s3://bucket/x", staging=tmp_path)
    export(database, target)
    put = Target.put

    def refuse(self: Target, file: Path, name: str) -> None:
        if "_csv" in name:
            raise OSError(
                "AWS Error SLOW_DOWN during UploadPart operation: reduce your request rate"
            )
        put(self, file, name)

    with monkeypatch.context() as patched:
        patched.setattr(Target, "put", refuse)
        with pytest.raises(
            DlqError, match="written to s3://bucket/x/dead_events: AWS Error SLOW_DOWN"
        ):
            export(database, target)
    assert keys("s3://bucket/x/dead_events") == [name for name in NAMES if "manifest" not in name]
    assert verify_day(connection, day=DAY, target=target, now=NOW) == [f"{NAMES[2]} is missing"]
    export(database, target)
    assert verify_day(connection, day=DAY, target=target, now=NOW) == []
    assert s3


@pytest.mark.usefixtures("deaths", "s3")
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://nobody/x", "s3://nobody/x/dead_events: .*NO_SUCH_BUCKET"),
        (
            "s3://k:s3cr3t@bucket?scheme=http&region=x&endpoint_override=127.0.0.1:1",
            "s3://bucket/dead_events: .*NETWORK",
        ),
    ],
)
def test_storage_error_names_the_target_without_secrets(
    connection: Connection, database: Database, tmp_path: Path, uri: str, message: str
) -> None:
    """The day does not count as exported."""
    with pytest.raises(DlqError, match=f"cannot be written to {message}") as raised:
        export(database, open_target(uri, staging=tmp_path))
    assert "s3cr3t" not in str(raised.value)
    assert connection.execute("select verified_at from dlq.export_day").fetchall() == [
        {"verified_at": None}
    ]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://ann:s3cr3t@bucket/x?color=blue",
        "s3://ann:s3cr3t@bucket/x y",
        "s3://ann:s3cr3t@/x",
        "gs://ann:s3cr3t@bucket?anonymous=1",
        "ftp://ann:s3cr3t@host/x",
        "file://ann:s3cr3t@host/x",
    ],
)
def test_invalid_uri_is_refused_without_secrets(uri: str, tmp_path: Path) -> None:
    with pytest.raises(DlqError, match="DLQ_EXPORT_URI cannot be used: ") as raised:
        open_target(uri, staging=tmp_path)
    assert "s3cr3t" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_folder_is_given_as_a_path_or_a_uri(database: Database, tmp_path: Path) -> None:
    """With a space in its name."""
    folder = tmp_path / "a b"
    for uri in (str(folder), folder.as_uri()):
        target = open_target(uri, staging=tmp_path / "unused")
        export(database, target)
        assert json.loads((folder / "dead_events" / NAMES[2]).read_text())["rows"] == 0
        assert target.place("x") == str(folder / "dead_events" / "x")
    assert not (tmp_path / "unused").exists()


def test_google_storage_is_opened_without_a_connection(tmp_path: Path) -> None:
    target = open_target("gs://bucket/x", staging=tmp_path)
    assert (target.uri, target.local) == ("gs://bucket/x/dead_events", None)


@pytest.mark.parametrize("scheme", ["abfs", "abfss"])
def test_azure_storage_is_opened_without_a_connection(tmp_path: Path, scheme: str) -> None:
    """The container stays in the address that people see; a key does not."""
    place = f"{scheme}://dlq@account.dfs.core.windows.net/x"
    target = open_target(place, staging=tmp_path)
    assert (target.uri, target.local) == (f"{place}/dead_events", None)
    keyed = f"{scheme}://:c2VjcmV0@account.blob.core.windows.net/dlq/x"
    assert "c2VjcmV0" not in open_target(keyed, staging=tmp_path).uri
