"""Assets, checks, jobs and the sensor, run by Dagster with its records in PostgreSQL."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines import OutboxRepository
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.definitions import defs
from dlq_pipelines.defs.factory import dead_letter_definitions
from dlq_pipelines.defs.reports import _build_page_link
from dlq_pipelines.defs.session import get_location_tag
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings, build_settings
from tests.conftest import _new_database, database_url
from tests.defs.conftest import OUTBOX, Job
from tests.rows import add_events, date_deaths_by_due_times, kill, one
from tests.runs import read_result

ERROR = "TimeoutError: no answer"
LAST = date(2026, 3, 31)
DAYS = ["2026-03-29", "2026-03-30", "2026-03-31"]
ALL_OF_IT = {"ops": {"dead_event_archive": {"config": {"older_than_days": 0, "dry_run": False}}}}
COUNTS = """
    select (select count(*) from outbox_event) as outbox,
           (select count(*) from dlq.archived) as archive,
           (select count(*) from dlq.death) as deaths,
           (select sum(deaths) from dlq.cause_day) as counted,
           (select count(*) from dlq.cause) as causes,
           (select sum(rows) from dlq.export_day) as exported,
           (select coalesce(sum(events), 0) from dlq.audit) as changed
"""

DIED = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, last_error, next_run_at)
    select 'order', n::text, 'e', '{}', 'dead', error, day::date + interval '12 hours'
    from (values (%s, %s, %s)) given (events, error, day),
        generate_series(1, given.events::integer) n
"""
STAGE_WITHOUT_RELEASE = """
    with f as (
        insert into dlq.fix ("all", note, flagged_by, flagged_at) values (true, 'n', 'a', now())
    )
    insert into dlq.fix_stage (fix_id, stage, size, begun_at, released)
    values (1, 1, 10, now(), 1)
"""


@pytest.fixture(autouse=True)
def _three_days_of_deaths(connection: Connection) -> None:
    """Two deaths on each of three days."""
    for day in DAYS:
        connection.execute(DIED, [2, ERROR, day])
    date_deaths_by_due_times(connection)


def _metadata(instance: dg.DagsterInstance, asset: str, day: str) -> dict[str, Any]:
    """What the UI shows of the last materialization of a day."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[day]), limit=1
    ).records
    found = records[0].asset_materialization
    assert found is not None
    return {key: value.value for key, value in found.metadata.items()}


def _range(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _play_all(job: Job) -> list[dg.ExecuteInProcessResult]:
    return [
        job("classify_deaths"),
        job("export_day", tags=_range(DAYS[0], DAYS[-1])),
        job("build_report", tags=_range(DAYS[0], DAYS[-1])),
        job("archive_dead_events", run_config=ALL_OF_IT),
    ]


def test_all_jobs_run_twice_without_counting_anything_twice(
    connection: Connection, instance: dg.DagsterInstance, job: Job
) -> None:
    """A range of days is one run with metadata for each day, and every check passes."""
    for result in _play_all(job):
        assert result.success
        assert [
            check.check_name for check in result.get_asset_check_evaluations() if not check.passed
        ] == []
    before = one(connection, COUNTS)
    assert before == {
        "outbox": 0,
        "archive": 6,
        "deaths": 6,
        "counted": 6,
        "causes": 1,
        "exported": 6,
        "changed": 6,
    }
    for day in DAYS:
        export, report = (
            _metadata(instance, asset, day) for asset in ("dead_event_export", "failure_report")
        )
        assert export["dagster/row_count"] == report["deaths"] == 2
        assert [path.name for path in Path(export["folder"]).glob("*.parquet")] == [
            "part-00000.parquet"
        ]
        assert report["headline"].startswith(f"2 events died on {day}")
        assert Path(report["report"]).is_file()
        assert report["chart"].startswith("![deaths a day by cause](data:image/svg+xml;base64,")
    assert report["dagster/row_count"] == 3  # of its table, a row a day
    assert all(result.success for result in _play_all(job))
    assert one(connection, COUNTS) == before


def test_thirty_days_are_exported_in_one_run(
    connection: Connection, instance: dg.DagsterInstance, job: Job
) -> None:
    """With metadata a day and one check over all of them."""
    days = [(LAST - timedelta(days=days)).isoformat() for days in range(29, -1, -1)]
    assert days[0] >= "2026-01-01"
    classify_deaths(connection, zone=Settings().zone)
    result = job("export_day", tags=_range(days[0], days[-1]))
    assert result.success
    (found,) = result.get_asset_check_evaluations()
    assert (found.passed, found.metadata["differences"].value) == (True, [])
    rows = [_metadata(instance, "dead_event_export", day)["dagster/row_count"] for day in days]
    assert rows == [0] * 27 + [2, 2, 2]
    counted = one(connection, "select count(*), count(verified_at) as verified from dlq.export_day")
    assert counted == {"count": 30, "verified": 30}


@pytest.mark.parametrize(
    ("name", "asset", "reason"),
    [
        ("export_day", "dead_event_export", f"2 deaths of {DAYS[0]} have no cause yet"),
        ("build_report", "failure_report", f"The report of {DAYS[0]} cannot be written to"),
    ],
)
def test_a_day_that_is_refused_stops_no_other_of_its_run(
    *,
    connection: Connection,
    instance: dg.DagsterInstance,
    job: Job,
    home: Path,
    name: str,
    asset: str,
    reason: str,
) -> None:
    """One of three days is refused and named; Dagster has the figures of the other two."""
    classify_deaths(connection, zone=Settings().zone)
    connection.execute("delete from dlq.dead where died_at < %s::date + 1", [DAYS[0]])
    connection.execute(
        "update dlq.death set cause_id = null where died_at < %s::date + 1", [DAYS[0]]
    )
    (home / "reports" / f"{DAYS[0]}.json" / "in the way").mkdir(parents=True)
    message = _read_failure(job(name, tags=_range(DAYS[0], DAYS[-1])))
    assert message.startswith("1 of 3 days was refused; the others are done. ")
    assert reason in message
    assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(DAYS[1:])
    rows = [_metadata(instance, asset, day)["dagster/row_count"] for day in DAYS[1:]]
    assert rows == ([2, 2] if asset == "dead_event_export" else [1, 2])


def test_days_before_the_database_went_away_stay_on_record(
    connection: Connection, instance: dg.DagsterInstance, job: Job
) -> None:
    """The connection breaks on the second of two days."""
    classify_deaths(connection, zone=Settings().zone)
    connection.execute(
        "create function away() returns trigger language plpgsql as $$ begin"
        f" if new.day = '{DAYS[1]}' then perform pg_terminate_backend(pg_backend_pid()); end if;"
        " return new; end $$;"
        " create trigger away before insert on dlq.export_day for each row execute function"
        " away()".encode()
    )
    assert "PostgreSQL refused" in _read_failure(job("export_day", tags=_range(*DAYS[:2])))
    assert instance.get_materialized_partitions(dg.AssetKey("dead_event_export")) == {DAYS[0]}


def test_a_run_observes_the_outbox_and_shows_its_causes(
    instance: dg.DagsterInstance, job: Job
) -> None:
    """The figures are metadata of the materialization."""
    (materialized,) = job("classify_deaths").asset_materializations_for_node("dead_event_causes")
    metadata = {key: value.value for key, value in materialized.metadata.items()}
    assert (
        metadata["deaths_classified"],
        metadata["new_causes"],
        metadata["dagster/row_count"],
    ) == (6, 1, 1)
    assert compute_cause_id(ERROR) in str(metadata["causes"])
    seen = (
        instance.fetch_observations(dg.AssetKey("outbox_event"), limit=1)
        .records[0]
        .asset_observation
    )
    assert seen is not None
    assert (seen.metadata["dead"].value, seen.metadata["waiting"].value) == (6, 0)
    assert seen.metadata["dagster/row_count"].value == 6
    assert str(seen.metadata["dagster/table_name"].value).endswith(".public.outbox_event")
    assert str(seen.metadata["dagster/uri"].value).startswith("postgresql://")
    assert "last_error" in _columns(seen.metadata["dagster/column_schema"].value)


def test_the_catalog_knows_the_tables_before_a_run_as_a_run_finds_them(
    instance: dg.DagsterInstance, job: Job
) -> None:
    """Names, types and nulls of every column, and the last part of the table's name and address."""
    for result in _play_all(job):
        assert result.success
    purge = {"ops": {"archive_purge": {"config": {"dry_run": False}}}}
    for name, config in (("archive_dead_events", ARCHIVING), ("purge_archive", purge)):
        assert job(name, run_config=config).success
    seen = (
        instance.fetch_observations(dg.AssetKey("outbox_event"), limit=1)
        .records[0]
        .asset_observation
    )
    found: dict[str, dg.AssetObservation | dg.AssetMaterialization | None] = {
        "outbox_event": seen,
        "failure_report": None,
    }
    for key in ("dead_event_causes", "dead_event_archive", "archive_purge"):
        found[key] = (
            instance.fetch_materializations(dg.AssetKey(key), limit=1)
            .records[0]
            .asset_materialization
        )
    with OUTBOX.session() as session:
        report_day = session.describe_table("dlq", "report_day")
    for spec in defs.resolve_all_asset_specs():
        if spec.key.to_user_string() not in found:
            continue
        event = found[spec.key.to_user_string()]
        by_run: dict[str, Any] = (
            {name: value.value for name, value in event.metadata.items()} if event else report_day
        )
        assert _columns(spec.metadata["dagster/column_schema"]) == _columns(
            by_run["dagster/column_schema"]
        ), spec.key
        place = by_run["dagster/table_name"].partition(".")[2]
        assert spec.metadata["dagster/table_name"].partition(".")[2] == place
        if event:
            assert str(by_run["dagster/uri"]).endswith(f"#{place}")


def _columns(schema: object) -> dict[str, tuple[str, bool]]:
    assert isinstance(schema, dg.TableSchema)
    return {column.name: (column.type, column.constraints.nullable) for column in schema.columns}


@pytest.mark.parametrize(("warn", "error"), [(3, 5), (5, 3), (1_000, 5)])
def test_a_backlog_above_either_bound_fails(
    job: Job, monkeypatch: pytest.MonkeyPatch, warn: int, error: int
) -> None:
    """Also if the bound of the error is below the bound of the warning."""
    monkeypatch.setenv("DLQ_BACKLOG_WARN", str(warn))
    monkeypatch.setenv("DLQ_BACKLOG_ERROR", str(error))
    (found,) = [
        c
        for c in job("check_outbox").get_asset_check_evaluations()
        if c.check_name == "backlog_is_small"
    ]
    assert (found.passed, found.severity.value) == (False, "ERROR")


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        (
            "check_outbox",
            "update dlq.cause_day set deaths = deaths + 1",
            "rollup_matches_ledger",
        ),
        (
            "check_outbox",
            STAGE_WITHOUT_RELEASE,
            "stages_match_ledger",
        ),
        ("archive_dead_events", "delete from outbox_event where id = 1", "no_event_is_missing"),
    ],
)
def test_a_check_fails_when_another_process_changes_its_tables(
    *,
    connection: Connection,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: str,
    check: str,
) -> None:
    """And passes before."""
    # The deaths are of fixed days, past the usual retention.
    monkeypatch.setenv("DLQ_DEAD_RETENTION_DAYS", "3650")
    classify_deaths(connection, zone=Settings().zone)
    for changed in (False, True):
        if changed:
            connection.execute(change.encode())
        found = {
            check.check_name: check.passed
            for check in job(
                name, run_config=ARCHIVING if name == "archive_dead_events" else None
            ).get_asset_check_evaluations()
        }
        assert (found.pop(check), set(found.values()) <= {True}) == (not changed, True)


def test_the_export_check_fails_on_a_death_that_is_not_in_the_files(
    connection: Connection, job: Job
) -> None:
    """Verification compares the files with the current ledger."""
    classify_deaths(connection, zone=Settings().zone)
    connection.execute(
        "create function late() returns trigger language plpgsql as $$ begin"
        " insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts,"
        " died_at, cause_id)"
        " select 99, 'o', '1', 'e', 5, died_at, cause_id from dlq.death order by id desc limit"
        " 1; return new; end $$;"
        "create trigger late after insert on dlq.export_day for each row execute function late()"
    )
    result = job("export_day", partition_key=DAYS[-1])
    (found,) = result.get_asset_check_evaluations()
    assert not found.passed
    assert found.metadata["differences"].value == [
        f"{DAYS[-1]}: the record has 2 rows, the ledger 3",
        f"{DAYS[-1]}: died_on={DAYS[-1]}/part-00000.parquet has 2 rows, the ledger 3",
        f"{DAYS[-1]}: _csv/died_on={DAYS[-1]}/part-00000.csv.gz has 2 rows, the ledger 3",
        f"{DAYS[-1]}: _jsonl/died_on={DAYS[-1]}/part-00000.jsonl.gz has 2 rows, the ledger 3",
    ]


def test_many_days_are_reported_in_one_run(
    connection: Connection, instance: dg.DagsterInstance, job: Job
) -> None:
    """Each day has its headline, causes, chart and links; one check covers all days."""
    classify_deaths(connection, zone=Settings().zone)
    days = [(LAST - timedelta(days=days)).isoformat() for days in range(9, -1, -1)]
    result = job("build_report", tags=_range(days[0], days[-1]))
    assert result.success
    (found,) = result.get_asset_check_evaluations()
    assert (found.check_name, found.passed, found.metadata["differences"].value) == (
        "report_equals_ledger",
        True,
        [],
    )
    assert one(connection, "select count(*) from dlq.report_day") == {"count": 10}
    shown = _metadata(instance, "failure_report", days[-1])
    assert shown["headline"].startswith(f"2 events died on {days[-1]}")
    assert "| 1 | ongoing | 2 | TimeoutError: no answer |" in shown["causes"]
    assert "\n- ongoing: 2 orders, 2 deaths " in shown["causes"]
    assert shown["chart"].startswith("![deaths a day by cause](data:image/svg+xml;base64,")
    for name in (f"{days[-1]}.html", f"{days[-1]}.md", f"{days[-1]}.json", "index.html"):
        assert (Path(shown["report"]).parent / name).is_file()
        assert name in shown["files"]
    assert shown["open_at_the_days_end"] == 6


def test_the_report_check_fails_on_a_total_that_the_ledger_does_not_have(
    connection: Connection, job: Job
) -> None:
    """A death is recorded while the report is published."""
    classify_deaths(connection, zone=Settings().zone)
    connection.execute(
        "create function late() returns trigger language plpgsql as $$ begin"
        " insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts,"
        " died_at, cause_id)"
        " select 99, 'o', '1', 'e', 5, died_at, cause_id from dlq.death order by died_at desc"
        " limit 1; return new;"
        " end $$; create trigger late after insert on dlq.report_day for each row execute"
        " function late()"
    )
    (found,) = job("build_report", partition_key=DAYS[-1]).get_asset_check_evaluations()
    assert (found.passed, found.blocking) == (False, True)
    differences = found.metadata["differences"].value
    assert isinstance(differences, list)
    assert f"{DAYS[-1]}: the report has 2 deaths, the ledger 3" in differences


def test_settings_decide_what_reports_redact_and_where_they_are(
    instance: dg.DagsterInstance, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of the run apply."""
    job("classify_deaths")
    monkeypatch.setenv("DLQ_REPORT_URI", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("DLQ_EXPORT_REDACT_ERRORS", "answer")
    assert job("build_report", partition_key=DAYS[-1]).success
    place = Path(_metadata(instance, "failure_report", DAYS[-1])["report"])
    assert place == tmp_path / "elsewhere" / f"{DAYS[-1]}.html"
    page = place.read_text(encoding="utf-8")
    assert "TimeoutError: no [redacted]" in page
    assert "no answer" not in page


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("/srv/reports/2026-11-24.html", dg.MetadataValue.path("/srv/reports/2026-11-24.html")),
        (
            "s3://bucket/reports/2026-11-24.html",
            dg.MetadataValue.path("s3://bucket/reports/2026-11-24.html"),
        ),
        (
            "gs://bucket/all reports/2026-11-24.html",
            dg.MetadataValue.url(
                "https://storage.cloud.google.com/bucket/all%20reports/2026-11-24.html"
            ),
        ),
    ],
)
def test_a_report_is_a_link_where_a_browser_follows_it(place: str, shown: dg.MetadataValue) -> None:
    assert _build_page_link(place) == shown


def _read_log(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """Return all that the UI shows of a failed run."""
    return "\n".join(str(entry) for entry in instance.all_logs(result.run_id))


def test_a_refusal_has_no_stack_trace(instance: dg.DagsterInstance, job: Job) -> None:
    """It names the next step."""
    result = job("export_day", partition_key=DAYS[0])
    assert not result.success
    log = _read_log(instance, result)
    assert f"2 deaths of {DAYS[0]} have no cause yet. Materialize dead_event_causes" in log
    assert "exports/export.py" not in log


def test_an_invalid_redaction_rule_is_refused_before_the_export(
    connection: Connection, instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a run whose environment differs from that of the loaded definitions."""
    classify_deaths(connection, zone=Settings().zone)
    monkeypatch.setenv("DLQ_EXPORT_REDACT_ERRORS", "(")
    log = _read_log(instance, job("export_day", partition_key=DAYS[0]))
    assert "DLQ_EXPORT_REDACT_ERRORS: '(' is not a valid RE2 pattern" in log
    assert one(connection, "select count(*) from dlq.export_day") == {"count": 0}


def test_exports_read_from_a_replica_and_report_its_lag(
    *,
    connection: Connection,
    instance: dg.DagsterInstance,
    job: Job,
    database: Database,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy of the database is the replica; later deaths are missing in it."""
    classify_deaths(connection, zone=Settings().zone)
    connection.close()
    name = str(conninfo_to_dict(database.url)["dbname"])
    with _new_database(server_url, name) as replica, database.connect() as primary:
        monkeypatch.setenv("DLQ_EXPORT_DATABASE_URL", database_url(server_url, replica))
        assert job("export_day", partition_key=DAYS[0]).success
        primary.execute(DIED, [1, ERROR, DAYS[0]])
        date_deaths_by_due_times(primary)
        job("classify_deaths")
        behind = job("export_day", partition_key=DAYS[0])
        assert "the record has 2 rows, the ledger 3" in _read_log(instance, behind)
        monkeypatch.delenv("DLQ_EXPORT_DATABASE_URL")
        assert job("export_day", partition_key=DAYS[0]).success
        assert one(primary, "select rows from dlq.export_day where verified_at is not null") == {
            "rows": 3
        }


def test_an_unavailable_database_is_reported_without_its_password(
    instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run, and by the sensor's skipped tick."""
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://ann:s3cr3t@127.0.0.1:1/none")
    log = _read_log(instance, job("classify_deaths"))
    assert "Cannot connect to PostgreSQL" in log
    with pytest.raises(dg.Failure, match="Cannot connect to PostgreSQL") as raised:
        _tick(instance)
    assert "s3cr3t" not in log + str(raised.value)


def _tick(instance: dg.DagsterInstance) -> Any:
    sensor = defs.resolve_sensor_def("fix_flag_sensor")
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, definitions=defs))


ARCHIVING = {"ops": {"dead_event_archive": {"config": {"dry_run": False}}}}
CONFIG = {"all": True, "reason": "requested", "actor": "bob"}
FLAG = {"cause": compute_cause_id(ERROR), "note": "fixed", "actor": "ann"}


def _read_metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Return the metadata of a job's only step."""
    (output,) = [
        event for event in result.all_node_events if event.event_type_value == "STEP_OUTPUT"
    ]
    return {key: value.value for key, value in output.step_output_data.metadata.items()}


def _read_failure(result: dg.ExecuteInProcessResult) -> str:
    """Return why a job's only step failed."""
    (failure,) = [
        event for event in result.all_node_events if event.event_type_value == "STEP_FAILURE"
    ]
    failed = failure.step_failure_data.user_failure_data
    assert failed is not None
    return str(failed.description)


def _flag(job: Job, **config: object) -> dg.ExecuteInProcessResult:
    return job("flag_fix", run_config={"ops": {"flag_fix_op": {"config": {**FLAG, **config}}}})


def test_flagging_a_fix_is_a_dry_run_by_default(connection: Connection, job: Job) -> None:
    """The dry run returns the number of events that it would target."""
    classify_deaths(connection, zone=Settings().zone)
    would = _read_metadata(_flag(job))
    assert (would["events"], would["aggregates"], would["stages"]) == (6, 2, "6")
    assert one(connection, "select count(*) as n from dlq.fix") == {"n": 0}
    assert _flag(job, dry_run=False).success
    audit = one(
        connection, "select kind, actor, events, run_id is not null as by_run from dlq.audit"
    )
    assert audit == {"kind": "fix.flag", "actor": "ann", "events": 6, "by_run": True}


def test_the_sensor_runs_a_fix_to_its_end(
    connection: Connection, database: Database, instance: dg.DagsterInstance, job: Job
) -> None:
    """It requests a run only when a step is due."""
    classify_deaths(connection, zone=Settings().zone)
    assert _tick(instance).skip_message == "No step of a fix is due."
    _flag(job, dry_run=False)
    (request,) = _tick(instance).run_requests
    assert (
        request.tags.items()
        >= {"dlq/fix": "1", "dlq/stage": "0", "dlq/cause": compute_cause_id(ERROR)}.items()
    )
    assert job("retry_stage", run_config=request.run_config, tags=request.tags).success
    for _ in range(3):  # an aggregate has three events, one after the other
        assert _tick(instance).skip_message == "No step of a fix is due."
        with OutboxRepository(database.url) as repository:
            connection.execute(
                "update outbox_event set next_run_at = now() where status = 'pending'"
            )
            for event in repository.fetch_pending(10):
                repository.mark_success(event.id)
        (request,) = _tick(instance).run_requests
        assert job("retry_stage", run_config=request.run_config, tags=request.tags).success
    assert one(connection, "select status from dlq.fix") == {"status": "verified"}
    assert one(connection, "select status from dlq.cause") == {"status": "fixed"}


def test_a_run_in_progress_prevents_a_second_and_a_failed_run_is_requested_again(
    instance: dg.DagsterInstance, job: Job
) -> None:
    """A failed run must not lose the fix."""
    job("classify_deaths")
    _flag(job, dry_run=False)
    (request,) = _tick(instance).run_requests
    waiting = instance.create_run_for_job(
        defs.resolve_job_def("retry_stage"),
        run_config=request.run_config,
        tags=get_location_tag() | request.tags,
    )
    assert _tick(instance).skip_message == "1 fixes have a due step; a run of each is in progress."
    instance.report_run_failed(waiting)
    assert len(_tick(instance).run_requests) == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"canary": 0}, "canary must be from 1 to 5000"),
        ({"expiry_days": 0}, "expiry_days must be"),
        ({"since": "soon"}, "since: 'soon' is not a time"),
        ({"all": True}, "all cannot be combined with filters"),
        ({"cause": None}, "no filter was given"),
        ({"cause": "v2-0000000000000000"}, "There is no cause 'v2-0000000000000000'"),
        ({"note": " "}, "note must not be empty"),
        ({"note": "a\x00b"}, "note is not valid UTF-8 or contains NUL"),
        ({"note": "n" * 10_001}, "note has 10001 characters; the maximum is 10000"),
        ({"actor": "a\x00b"}, "actor is not valid UTF-8 or contains NUL"),
        ({"actor": "a" * 301}, "actor has 301 characters; the maximum is 300"),
        ({"link": " "}, "link must not be empty"),
        (
            {"not_before": "9999-12-31"},
            "not_before: 9999-12-31 lies outside the years 1900 to 9000",
        ),
        ({"rate": 1e-12}, "rate must be from 0.001 to 100000, not 1e-12"),
        ({"min_success": 0.0}, "min_success must be more than 0 and at most 1, not 0.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_flag_is_one_clear_sentence(
    connection: Connection, job: Job, wrong: dict[str, object], named: str
) -> None:
    """The Launchpad accepts these values; the op refuses them and names the field."""
    classify_deaths(connection, zone=Settings().zone)
    for dry_run in (True, False):
        assert named in _read_failure(_flag(job, dry_run=dry_run, **wrong))
    assert one(connection, "select count(*) as n from dlq.fix") == {"n": 0}


def test_a_fix_that_cannot_end_before_it_expires_is_refused(
    connection: Connection, job: Job
) -> None:
    """Entered in the Launchpad; the figures are in the failure of the run."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', n::text, 'slow', '{}', 'dead' from generate_series(1, 90) n"
    )
    slow = {"cause": None, "event_type": "slow", "rate": 0.001}
    figures = "90 events at 0.001 per second take 1 day 01:00:00, and the fix expires in "
    for dry_run in (True, False):
        assert figures in _read_failure(_flag(job, dry_run=dry_run, expiry_days=1, **slow))
    assert one(connection, "select count(*) as n from dlq.fix") == {"n": 0}
    assert _flag(job, dry_run=False, expiry_days=2, **slow).success


def test_a_halted_fix_shows_its_stage_and_the_errors(
    connection: Connection, instance: dg.DagsterInstance, job: Job
) -> None:
    """In the run's metadata; a second run changes nothing and shows the same."""
    classify_deaths(connection, zone=Settings().zone)
    _flag(job, dry_run=False, order="none")
    (request,) = _tick(instance).run_requests
    released = _read_metadata(job("retry_stage", run_config=request.run_config, tags=request.tags))
    assert (released["status"], released["released_now"]) == ("active", 6)
    rates = [released[name] for name in ("rate", "current_rate", "release_rate")]
    assert len(set(rates)) == 1
    assert released["next"] == "6 events of stage 1 have no outcome yet"
    assert "timeline" not in released
    connection.execute(
        "update outbox_event set status = 'dead', last_error = 'KeyError: 1' where status ="
        " 'pending'"
    )
    connection.execute("update dlq.retry set due_at = now() - interval '1 second'")
    (request,) = _tick(instance).run_requests
    halted = [
        _read_metadata(job("retry_stage", run_config=request.run_config, tags=request.tags))
        for _ in range(2)
    ]
    assert [(step["status"], step["settled_now"]) for step in halted] == [
        ("halted", 6),
        ("halted", 0),
    ]
    for step in halted:
        assert "6 of 6 failed" in step["next"]
        (stage,) = (list(record.data.values()) for record in step["stages"].records)
        assert stage == [1, 10, 6, 0, 6, 0, 0, 0, 0]
        assert re.search(r"died again +█ +6 ", step["timeline"])
        intervals = [record.data for record in step["intervals"].records]
        assert sum(int(interval["died again"]) for interval in intervals) == 6
        (errors,) = (record.data for record in step["errors"].records)
        assert errors["after"] == "KeyError: 1"
        assert str(errors["before"]).startswith("TimeoutError")


def test_no_record_of_a_run_has_redacted_errors(
    connection: Connection, instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither metadata of assets, checks and runs nor logs: of causes, fixes, alerts, reports."""
    monkeypatch.setenv("DLQ_EXPORT_REDACT_ERRORS", "answer\npost[a-z]+")
    for error in ("KeyError: 'postcode'", "ValueError: the postman has no van"):
        connection.execute(DIED, [1, error, DAYS[-1]])
    ran = [job("classify_deaths"), _flag(job, dry_run=False, order="none")]
    (request,) = _tick(instance).run_requests
    ran.append(job("retry_stage", run_config=request.run_config, tags=request.tags))
    connection.execute(
        "update outbox_event set status = 'dead', last_error = $$KeyError: 'postcode'$$"
        " where status = 'pending'"
    )
    connection.execute("update dlq.retry set due_at = now() - interval '1 second'")
    (request,) = _tick(instance).run_requests
    ran.append(job("retry_stage", run_config=request.run_config, tags=request.tags))
    errors = str(_read_metadata(ran[-1])["errors"].records)
    assert errors.count("redacted") == 2
    ran += [job("classify_deaths"), job("send_alerts")]
    assert "redacted" in str(_read_metadata(ran[-1])["alerts"].records)
    ran.append(job("build_report", tags=_range(DAYS[0], DAYS[-1])))
    assert all(result.success for result in ran)
    for result in ran:
        log = _read_log(instance, result)
        assert "no answer" not in log
        assert "postcode" not in log
        assert "postman" not in log
    (classified,) = ran[0].asset_materializations_for_node("dead_event_causes")
    shown = {key: str(value.value) for key, value in classified.metadata.items()}
    assert "redacted" in shown["causes"]
    assert "redacted" in shown["details"]


def test_named_events_are_retried_by_a_job(connection: Connection, job: Job) -> None:
    """A dry run by default; an invalid id is reported in one line."""
    config = {"event_ids": [1, 2, 99], "reason": "requested", "actor": "bob"}

    def retry(**more: object) -> dg.ExecuteInProcessResult:
        return job(
            "retry_dead_events",
            run_config={"ops": {"retry_dead_events_op": {"config": {**config, **more}}}},
        )

    assert retry().success
    assert one(connection, "select count(*) as n from outbox_event where status = 'pending'") == {
        "n": 0
    }
    assert retry(dry_run=False).success
    assert one(
        connection, "select array_agg(event_id order by event_id) as ids from dlq.retry"
    ) == {"ids": [1, 2]}
    assert not retry(event_ids=["zero"]).success
    assert "no filter was given" in _read_failure(retry(event_ids=None))
    assert (
        _read_metadata(retry(event_ids=None, error_contains="no answer", dry_run=False))["events"]
        == 4
    )


@pytest.mark.usefixtures("connection")
def test_released_events_are_recalled_by_a_job(job: Job) -> None:
    """Those of people by filters, those of a fix by its id; a dry run by default."""

    def recall(**config: object) -> dict[str, Any]:
        given = {"reason": "stop", "actor": "eve", **config}
        done = job("recall_events", run_config={"ops": {"recall_events_op": {"config": given}}})
        return _read_metadata(done) if done.success else {"failure": _read_failure(done)}

    config = {**CONFIG, "rate": 0.01, "dry_run": False}
    assert job(
        "retry_dead_events", run_config={"ops": {"retry_dead_events_op": {"config": config}}}
    ).success
    assert recall(all=True) == {"recalled": 5, "with_worker": 1}
    assert recall(all=True, dry_run=False) == {"recalled": 5, "with_worker": 1}
    assert recall(all=True, dry_run=False) == {"recalled": 0, "with_worker": 1}
    assert "There is no fix 77" in recall(fix_id=77)["failure"]
    assert "fix_id cannot be combined with filters" in recall(fix_id=77, all=True)["failure"]
    assert "no filter was given" in recall()["failure"]


def test_a_retry_by_hand_has_the_installations_rate_unless_it_sets_one(
    connection: Connection, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one event a second the sixth falls due after five seconds, at two in half of that."""
    monkeypatch.setenv("DLQ_RETRY_RATE", "1")
    for more, seconds in (({}, 5.0), ({"rate": 2.0}, 2.5)):
        connection.execute("update outbox_event set status = 'dead' where status = 'pending'")
        config = {**CONFIG, **more, "dry_run": False}
        assert job(
            "retry_dead_events", run_config={"ops": {"retry_dead_events_op": {"config": config}}}
        ).success
        due = (
            "select extract(epoch from max(next_run_at) - min(next_run_at))::float as seconds"
            " from outbox_event"
        )
        assert one(connection, due) == {"seconds": seconds}


@pytest.mark.parametrize(
    ("name", "op", "config", "named"),
    [
        (
            "archive_dead_events",
            "dead_event_archive",
            {"older_than_days": -1},
            "older_than_days must be a whole number",
        ),
        (
            "archive_dead_events",
            "dead_event_archive",
            {"older_than_days": 99_999},
            "from 0 to 36500, not 99999",
        ),
        ("archive_dead_events", "dead_event_archive", {"reason": " "}, "reason must not be empty"),
        ("retry_stage", "retry_stage_op", {"fix_id": 0}, "fix_id must be a whole number from 1"),
        ("retry_stage", "retry_stage_op", {"fix_id": 77}, "There is no fix 77"),
        *(
            ("retry_dead_events", "retry_dead_events_op", {**CONFIG, **wrong}, named)
            for wrong, named in (
                ({"rate": 0.0}, "rate must be from 0.001 to 100000, not 0.0"),
                ({"rate": float("nan")}, "rate must be from 0.001 to 100000, not nan"),
                ({"rate": 2e5}, "rate must be from 0.001 to 100000, not 200000.0"),
                ({"attempts": -1, "all": False}, "attempts must be a whole number"),
                ({"reason": "a\x00b"}, "reason is not valid UTF-8 or contains NUL"),
                ({"reason": "r" * 10_001}, "reason has 10001 characters; the maximum is 10000"),
                ({"actor": "a\x00b"}, "actor is not valid UTF-8 or contains NUL"),
                ({"since": "9999-12-31"}, "since: 9999-12-31 lies outside the years"),
                (
                    {"cause": "nope", "all": False},
                    "There is no cause 'nope'. `dlq causes list` lists the causes.",
                ),
            )
        ),
    ],
)
def test_a_value_out_of_range_is_one_clear_sentence(
    *, connection: Connection, job: Job, name: str, op: str, config: dict[str, object], named: str
) -> None:
    """The op refuses it, because the Launchpad accepts it; nothing is changed."""
    for more in ({},) if name == "retry_stage" else ({}, {"dry_run": False}):
        message = _read_failure(job(name, run_config={"ops": {op: {"config": config | more}}}))
        assert named in message
        assert "\n" not in message
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_an_archive_run_by_hand_is_a_dry_run_and_its_schedule_moves_events(
    connection: Connection, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every other change in the Launchpad."""
    monkeypatch.setenv("DLQ_DEAD_RETENTION_DAYS", "0")
    classify_deaths(connection, zone=Settings().zone)
    job("export_day", tags=_range(DAYS[0], DAYS[-1]))
    counted = read_result(job("archive_dead_events"), "dead_event_archive")
    assert (counted["moved"].value, counted["dry_run"].value) == (6, True)
    assert one(connection, "select count(*) from dlq.archived") == {"count": 0}
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 11, 21, 3, tzinfo=UTC)
    )
    (request,) = (
        defs.resolve_schedule_def("archive_daily").evaluate_tick(context).run_requests or []
    )
    assert job("archive_dead_events", run_config=request.run_config).success
    assert one(connection, "select count(*) from dlq.archived") == {"count": 6}


def test_dagster_keeps_its_records_in_postgresql(instance: dg.DagsterInstance, job: Job) -> None:
    """SQLite would hide the statements that Dagster sends to PostgreSQL."""
    result = job("classify_deaths")
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        assert "Postgres" in type(storage).__name__
    assert [run.run_id for run in instance.get_runs()] == [result.run_id]


def test_the_sample_of_payloads_is_kept_by_a_job_that_a_setting_removes(
    connection: Connection, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the values that exports hide."""
    add_events(connection, 3, payload='{"card": "4111", "bank": "north"}')
    monkeypatch.setenv("DLQ_EXPORT_REDACT_PAYLOAD", "drop $.card")
    assert job("sample_delivered_events").success
    kept = connection.execute("select payload from dlq.delivered_sample").fetchall()
    assert [json.loads(row["payload"]) for row in kept] == [{"bank": "north"}] * 3
    without = dead_letter_definitions(build_settings({"sample_delivered": False}))
    names = {found.name for found in without.get_repository_def().get_all_jobs()}
    assert "classify_deaths" in names
    assert "sample_delivered_events" not in names


def test_a_new_cause_is_explained_in_the_run_that_finds_it(
    connection: Connection, job: Job
) -> None:
    add_events(connection, 12, payload='{"bank": "south"}')
    connection.execute("update outbox_event set status = 'done'")
    add_events(connection, 8, payload='{"bank": "north"}')
    kill(connection, "KeyError: 'a'", where="status = 'pending'")
    (event,) = job("classify_deaths").asset_materializations_for_node("dead_event_causes")
    table = event.metadata["new_causes_explained"]
    assert isinstance(table, dg.TableMetadataValue)
    said = {str(row.data["what sets its events apart"]) for row in table.records}
    assert "$.bank = north: 8 of 8 dead, 0 of 12 delivered" in said
