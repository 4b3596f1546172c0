"""The alert sensor and its job: when they run, and which failed jobs they record."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlq_pipelines.alerts.checks import CHECK_DESCRIPTIONS
from dlq_pipelines.definitions import defs
from dlq_pipelines.defs import alerts, session
from dlq_pipelines.defs.outbox import ASSETS, DAILY_JOBS, JOBS
from dlq_pipelines.defs.session import get_location_tag
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import build_alert_sender
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import Settings
from tests.alerts.servers import http_server
from tests.defs.conftest import Job
from tests.rows import add_events, kill, one

SECRET = "whsec_" + "QUJD" * 8


def evaluate_sensor(instance: dg.DagsterInstance) -> Any:
    """Evaluate the sensor as the daemon does."""
    context = dg.build_sensor_context(instance=instance, definitions=defs)
    return defs.resolve_sensor_def("dead_event_alert_sensor").evaluate_tick(context)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dead events are a backlog."""
    monkeypatch.setenv("DLQ_BACKLOG_WARN", "1")


def test_the_sensor_skips_when_no_alert_has_changed(
    instance: dg.DagsterInstance,
) -> None:
    tick = evaluate_sensor(instance)
    assert tick.run_requests == []
    assert tick.skip_message == "No alert has changed and no message waits."


@pytest.mark.usefixtures("few")
def test_an_alert_goes_from_the_sensor_to_the_channel(
    connection: Connection, instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor itself changes nothing."""
    with http_server() as web:
        monkeypatch.setenv("DLQ_ALERT_URLS", f"http://{web.host}/")
        monkeypatch.setenv("DLQ_WEBHOOK_SECRET", SECRET)
        add_events(connection, 2)
        kill(connection, "boom")
        (request,) = evaluate_sensor(instance).run_requests or []
        assert request.run_key
        assert one(connection, "select count(*) from dlq.alert") == {"count": 0}
        assert job("send_alerts", run_config=request.run_config).success
        assert len(web.requests) == 1
        assert evaluate_sensor(instance).skip_message == (
            "No alert has changed and no message waits."
        )


@pytest.mark.usefixtures("few")
def test_earlier_notices_are_sent_even_if_a_rule_times_out(
    connection: Connection,
    instance: dg.DagsterInstance,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A busy database delays no queued message, and the log names the rule that timed out."""
    with http_server() as web:
        monkeypatch.setenv("DLQ_ALERT_URLS", f"json://{web.host}/")
        add_events(connection, 2)
        kill(connection, "boom")
        assert job("classify_deaths").success
        web.status = 500
        assert job("send_alerts").success
        connection.execute("update dlq.alert_channel set due_at = now()")
        connection.execute("alter table dlq.cause rename to cause_elsewhere")
        connection.execute(
            "create view dlq.cause as select * from dlq.cause_elsewhere where pg_sleep(60)::text"
            " is not null"
        )
        web.status = 200
        assert len(evaluate_sensor(instance).run_requests or []) == 1
        assert job("send_alerts").success
        assert len(web.requests) == 2
        assert "Alert rule new_cause timed out." in caplog.messages
        assert "No alert has changed and no message waits." in (
            evaluate_sensor(instance).skip_message or ""
        )


def test_an_unavailable_database_fails_the_tick(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://ann:s3cr3t@127.0.0.1:1/none")
    with pytest.raises(dg.Failure, match="Cannot connect to PostgreSQL") as raised:
        evaluate_sensor(instance)
    assert "s3cr3t" not in str(raised.value)


def test_the_digest_of_a_day_is_sent_once_and_no_channel_fails_a_report(
    connection: Connection, instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only of yesterday, not of days that are built again; the next run sends it."""
    monkeypatch.setattr(session, "get_utc_now", lambda: datetime(2026, 4, 1, 12, tzinfo=UTC))
    yesterday = "2026-03-31"
    monkeypatch.setenv("DLQ_REPORT_DIGEST", "true")
    monkeypatch.setenv("DLQ_PUBLIC_URL", "https://dlq.example.com")
    monkeypatch.setenv("DLQ_ALERT_URLS", "nonsense")
    built = job("build_report", partition_key=yesterday)
    (report,) = built.asset_materializations_for_node("failure_report")
    address = f"https://dlq.example.com/reports/{yesterday}.html"
    assert report.metadata["report_address"].value == address
    with http_server() as web:
        monkeypatch.setenv("DLQ_ALERT_URLS", f"critical:json://{web.host}/x json://{web.host}/")
        for day in (yesterday, yesterday, "2026-01-05"):
            assert job("build_report", partition_key=day).success
        assert one(connection, "select key, kind from dlq.alert_notice") == {
            "key": f"digest:{yesterday}",
            "kind": "digest",
        }
        assert len(evaluate_sensor(instance).run_requests or []) == 1
        assert job("send_alerts").success
        ((_, body),) = web.requests
    sent = json.loads(body)
    assert sent["title"].startswith(f"DAILY DIGEST: Dead events {yesterday}: 0 deaths")
    assert f"\n{address}\n" in sent["message"]


@pytest.fixture
def ours(job: Job) -> Job:
    """Run a job with the tag that Dagster's daemon gives to runs of our code location."""

    def run(name: str, **options: Any) -> dg.ExecuteInProcessResult:
        return job(name, tags=get_location_tag() | options.pop("tags", {}), **options)

    return run


@pytest.fixture
def in_the_way(home: Path) -> Path:
    """A file in the place of the exports' folder; exports succeed once it is deleted."""
    home.mkdir(exist_ok=True)
    (home / "exports").write_text("in the way")
    return home / "exports"


def read_export_alert(connection: Connection) -> dict[str, Any]:
    """Return the current alert about exports."""
    return one(
        connection,
        "select summary, detail, link, severity, missing_since is not null as over from dlq.alert"
        " where key = 'job:export_day'",
    )


def test_a_day_that_failed_is_an_alert_until_that_day_succeeds(
    connection: Connection,
    instance: dg.DagsterInstance,
    ours: Job,
    in_the_way: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure is read from Dagster, so a killed run counts; a success is recorded by the run.

    As each morning, the refused day is requested first, and yesterday, which succeeds, after it.
    """
    failed = ours("export_day", partition_key="2026-01-01")
    assert not failed.success
    monkeypatch.setenv("DLQ_DAGSTER_UI_URL", "https://dagster.example.com/")
    in_the_way.unlink()
    assert ours("export_day", partition_key="2026-01-02").success
    assert len(evaluate_sensor(instance).run_requests or []) == 1
    assert ours("send_alerts").success
    alert = read_export_alert(connection)
    assert (alert["summary"], alert["severity"]) == (
        "The job export_day failed for 2026-01-01",
        "warning",
    )
    assert f"Dagster shows why in run {failed.run_id} of " in alert["detail"]
    assert alert["link"] == f"https://dagster.example.com/runs/{failed.run_id}"
    assert (
        "Once the cause is resolved, re-execute the run, or backfill the days. `dlq doctor`"
        in alert["detail"]
    )
    assert evaluate_sensor(instance).skip_message == "No alert has changed and no message waits."
    assert ours("export_day", partition_key="2026-01-03").success
    ours("send_alerts")
    assert not read_export_alert(connection)["over"]
    assert ours("export_day", partition_key="2026-01-01").success
    assert len(evaluate_sensor(instance).run_requests or []) == 1
    ours("send_alerts")
    assert read_export_alert(connection)["over"]


def test_a_backfill_alerts_only_for_the_days_that_failed(
    connection: Connection, instance: dg.DagsterInstance, ours: Job, in_the_way: Path
) -> None:
    """A backfill from the page of an asset belongs to no job; its other days succeed."""
    everything = defs.resolve_implicit_global_asset_job_def()
    export = dg.AssetKey("dead_event_export")

    def backfill(first: str, last: str) -> bool:
        days = {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
        return everything.execute_in_process(
            instance=instance,
            asset_selection=[export],
            tags=get_location_tag() | days,
            raise_on_error=False,
        ).success

    assert not backfill("2026-01-01", "2026-01-05")
    in_the_way.unlink()
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute("update dlq.death set died_at = '2026-01-04 12:00+00'")
    assert not backfill("2026-01-02", "2026-01-06")
    assert len(evaluate_sensor(instance).run_requests or []) == 1
    ours("send_alerts")
    assert read_export_alert(connection)["summary"] == (
        "The job export_day failed for 2026-01-01 and 2026-01-04"
    )
    assert ours("classify_deaths").success
    assert backfill("2026-01-01", "2026-01-04")
    ours("send_alerts")
    assert read_export_alert(connection)["over"]


def test_no_failure_is_lost_if_there_are_more_than_one_scan_reads(
    connection: Connection,
    instance: dg.DagsterInstance,
    ours: Job,
    in_the_way: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sensor requests runs until all failed runs are scanned."""
    monkeypatch.setattr(alerts, "_RUNS_PER_SCAN", 2)
    for name in ("2026-01-05", "2026-01-04", "2026-01-03", "2026-01-02", "2026-01-01"):
        assert not ours("export_day", partition_key=name).success
    in_the_way.unlink()
    for name in ("2026-01-04", "2026-01-05"):
        assert ours("export_day", partition_key=name).success
    scans = 0
    while evaluate_sensor(instance).run_requests:
        assert ours("send_alerts").success
        scans += 1
        assert scans < 10
    failed = (
        "select day from dlq.job_run where failed_at > coalesce(succeeded_at, '-infinity')"
        " order by day"
    )
    assert [row["day"] for row in connection.execute(failed)] == [
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]


def test_runs_of_another_code_location_are_ignored(
    connection: Connection,
    instance: dg.DagsterInstance,
    job: Job,
    in_the_way: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its failures raise no alert, and its runs in progress delay none of ours."""
    theirs = {"dagster/code_location": "other_outbox"}
    assert in_the_way.exists()
    assert not job("export_day", partition_key="2026-01-01", tags=theirs).success
    assert evaluate_sensor(instance).skip_message == "No alert has changed and no message waits."
    monkeypatch.setenv("DLQ_BACKLOG_WARN", "0")
    add_events(connection, 1)
    kill(connection, "boom")
    fix = one(
        connection, "select dlq.flag_fix(note => 'fixed', event_type => 'order.placed') as id"
    )
    flagged = defs.resolve_sensor_def("fix_flag_sensor")
    for tags, requested in ((theirs, 1), (get_location_tag(), 0)):
        step = {"ops": {"retry_stage_op": {"config": {"fix_id": fix["id"]}}}}
        for name, config, more in (
            ("send_alerts", {}, {}),
            ("retry_stage", step, {"dlq/fix": str(fix["id"])}),
        ):
            instance.create_run_for_job(
                defs.resolve_job_def(name),
                run_config=config,
                tags=tags | more,
                status=dg.DagsterRunStatus.STARTED,
            )
        assert len(evaluate_sensor(instance).run_requests or []) == requested
        context = dg.build_sensor_context(instance=instance, definitions=defs)
        assert len(flagged.evaluate_tick(context).run_requests or []) == requested


def test_a_run_that_dagster_retries_is_no_failure_yet(
    instance: dg.DagsterInstance, ours: Job, in_the_way: Path
) -> None:
    assert in_the_way.exists()
    tries_again = {"dagster/max_retries": "1", "dagster/retry_on_asset_or_op_failure": "true"}
    assert not ours("export_day", partition_key="2026-01-01", tags=tries_again).success
    assert evaluate_sensor(instance).skip_message == "No alert has changed and no message waits."


def test_the_lists_of_jobs_and_assets_are_those_that_are_defined() -> None:
    repository = defs.get_repository_def()
    jobs = {job.name: job for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert set(jobs) == set(JOBS)
    assert {name for name, job in jobs.items() if job.partitions_def} == set(DAILY_JOBS.values())
    keys = repository.asset_graph.get_all_asset_keys()
    assert {key.to_user_string() for key in keys} == set(ASSETS)
    specs = [spec for spec in defs.resolve_all_asset_specs() if spec.partitions_def is not None]
    assert {spec.key.to_user_string() for spec in specs} == set(DAILY_JOBS)


def test_a_dry_run_is_an_observation_and_ends_no_alert(
    connection: Connection, instance: dg.DagsterInstance, ours: Job
) -> None:
    """It is no materialization, so it makes no asset fresh, and runs no checks."""
    key = dg.AssetKey("dead_event_archive")
    config = {"ops": {"dead_event_archive": {"config": {"older_than_days": -1}}}}
    assert not ours("archive_dead_events", run_config=config).success
    assert ours("send_alerts").success
    state = "select missing_since is not null as over from dlq.alert where key = %s"

    def is_over() -> bool:
        found = connection.execute(state, ["job:archive_dead_events"]).fetchone()
        assert found is not None
        return bool(found["over"])

    assert not is_over()
    dry = ours("archive_dead_events")
    assert dry.success
    assert dry.get_asset_check_evaluations() == []
    assert instance.fetch_materializations(key, limit=1).records == []
    (record,) = instance.fetch_observations(key, limit=10).records
    assert record.asset_observation is not None
    assert record.asset_observation.metadata["dry_run"].value is True
    ours("send_alerts")
    assert not is_over()
    assert ours(
        "archive_dead_events",
        run_config={"ops": {"dead_event_archive": {"config": {"dry_run": False}}}},
    ).success
    assert len(instance.fetch_materializations(key, limit=10).records) == 1
    ours("send_alerts")
    assert is_over()


def test_a_passed_check_does_not_make_a_failed_job_successful(
    connection: Connection, job: Job
) -> None:
    """The backlog is counted although no death can be classified."""
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute(
        "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    )
    connection.execute(
        "create trigger no before insert on dlq.cause for each row execute function no()"
    )
    failed = job("check_outbox")
    checks = {check.check_name: check.passed for check in failed.get_asset_check_evaluations()}
    assert (failed.success, checks["backlog_is_small"]) == (False, True)
    succeeded = (
        "select count(*) from dlq.job_run where job = 'classify_deaths' and succeeded_at"
        " is not null"
    )
    assert one(connection, succeeded) == {"count": 0}
    connection.execute("drop trigger no on dlq.cause")
    assert job("classify_deaths").success
    assert one(connection, succeeded) == {"count": 1}


def test_every_check_is_recorded_for_metrics(
    connection: Connection, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last result of each check. A backlog raises one alert, not two."""
    monkeypatch.setenv("DLQ_BACKLOG_ERROR", "1")
    add_events(connection, 2)
    kill(connection, "boom")
    day = "2026-03-31"
    archive = {"ops": {"dead_event_archive": {"config": {"dry_run": False}}}}
    for name, options in (
        ("check_outbox", {}),
        ("export_day", {"partition_key": day}),
        ("build_report", {"partition_key": day}),
        ("archive_dead_events", {"run_config": archive}),
        ("send_alerts", {}),
    ):
        assert job(name, **options).success
    known = {key.name for key in defs.get_repository_def().asset_graph.asset_check_keys}
    found = connection.execute("select name, passed, severity from dlq.check_result").fetchall()
    assert {row["name"] for row in found} == known == set(CHECK_DESCRIPTIONS)
    assert [(row["name"], row["severity"]) for row in found if not row["passed"]] == [
        ("backlog_is_small", "critical")
    ]
    alerts_of_it = connection.execute(
        "select key, severity from dlq.alert where rule in ('check', 'backlog')"
    )
    assert alerts_of_it.fetchall() == [{"key": "backlog", "severity": "critical"}]


def test_a_missing_event_is_recorded_for_metrics_and_alerts(
    connection: Connection, job: Job
) -> None:
    """The alert is critical."""
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute("delete from outbox_event")
    archive = {"ops": {"dead_event_archive": {"config": {"dry_run": False}}}}
    job("archive_dead_events", run_config=archive)
    assert one(
        connection,
        "select passed, severity, figures->'missing' as missing from dlq.check_result where name"
        " = 'no_event_is_missing'",
    ) == {"passed": False, "severity": "critical", "missing": 1}
    job("send_alerts")
    alert = one(
        connection, "select severity, detail from dlq.alert where key = 'check:no_event_is_missing'"
    )
    assert alert["severity"] == "critical"
    assert "in the outbox, in the archive, or delivered" in alert["detail"]
    assert "missing 1" in alert["detail"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alert_urls": "slack://s3cr3t/b/c nonsense"}, "DLQ_ALERT_URLS: entry 2 is not a URL: "),
        (
            {"alert_urls": "nonsense://s3cr3t"},
            r"DLQ_ALERT_URLS: entry 1 \(nonsense:\w{6}\) is not an Apprise address",
        ),
        ({"alert_urls": "https://example.com/s3cr3t"}, "DLQ_WEBHOOK_SECRET is required"),
        (
            {"death_webhook_url": "https://example.com/s3cr3t"},
            "DLQ_WEBHOOK_SECRET is required",
        ),
    ],
)
def test_an_invalid_address_is_reported_without_its_secret(
    given: dict[str, str], message: str
) -> None:
    with pytest.raises(DlqError, match=message) as raised:
        build_alert_sender(Settings(**given))  # type: ignore[arg-type]
    assert "s3cr3t" not in str(raised.value)
