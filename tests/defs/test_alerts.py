"""Does Dagster's part of alerts ask only when there is something to do, and know which jobs failed?"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlq_pipelines.alerts.checks import CHECK_DESCRIPTIONS
from dlq_pipelines.definitions import defs
from dlq_pipelines.defs import alerts, health
from dlq_pipelines.defs.resources import OutboxResource, get_location_tag
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import build_alert_sender
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import Settings
from tests.alerts.servers import http_server
from tests.defs.conftest import Job
from tests.rows import add_events, kill, one

SECRET = "whsec_" + "QUJD" * 8


def ask(instance: dg.DagsterInstance) -> Any:
    """A tick of the sensor, as the daemon makes it."""
    context = dg.build_sensor_context(
        instance=instance, definitions=defs, resources={"outbox": OutboxResource()}
    )
    return defs.resolve_sensor_def("dead_event_alert_sensor").evaluate_tick(context)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dead events are a backlog, and no job ran yet."""
    monkeypatch.setenv("DLQ_BACKLOG_WARN", "1")


def test_where_nothing_is_to_be_told_the_sensor_asks_for_nothing(
    instance: dg.DagsterInstance,
) -> None:
    tick = ask(instance)
    assert tick.run_requests == []
    assert tick.skip_message == "Nothing is to be told."


@pytest.mark.usefixtures("few")
def test_an_alert_goes_from_the_sensor_to_the_channel(
    connection: Connection, instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the sensor itself has changed nothing."""
    with http_server() as web:
        monkeypatch.setenv("DLQ_ALERT_URLS", f"http://{web.host}/")
        monkeypatch.setenv("DLQ_WEBHOOK_SECRET", SECRET)
        add_events(connection, 2)
        kill(connection, "boom")
        (request,) = ask(instance).run_requests or []
        assert request.run_key
        assert one(connection, "select count(*) from dlq.alert") == {"count": 0}
        assert job("send_alerts", run_config=request.run_config).success
        assert len(web.requests) == 1
        assert ask(instance).skip_message == "Nothing is to be told."


@pytest.mark.usefixtures("few")
def test_what_was_decided_is_sent_where_deciding_takes_too_long(
    connection: Connection, instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy database holds up no message that lies there, and what is not known then is told with it."""
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
        assert len(ask(instance).run_requests or []) == 1
        assert job("send_alerts").success
        assert len(web.requests) == 2
        assert "Whether there is something to tell of new_cause is not known" in web.requests[1][1]
        assert "Nothing is to be told." in (ask(instance).skip_message or "")


def test_a_database_that_is_away_skips_the_tick(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://ann:s3cr3t@127.0.0.1:1/none")
    tick = ask(instance)
    assert tick.run_requests == []
    assert "PostgreSQL does not answer" in (tick.skip_message or "")
    assert "s3cr3t" not in (tick.skip_message or "")


def test_the_digest_of_a_day_is_told_once_and_no_channel_fails_a_report(
    connection: Connection, instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of yesterday, not of days that are built anew; sent by the next run that sends."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    monkeypatch.setenv("DLQ_REPORT_DIGEST", "true")
    monkeypatch.setenv("DLQ_ALERT_URLS", "nonsense")
    assert job("build_report", partition_key=yesterday).success
    with http_server() as web:
        monkeypatch.setenv("DLQ_ALERT_URLS", f"critical:json://{web.host}/x json://{web.host}/")
        for day in (yesterday, yesterday, "2026-01-05"):
            assert job("build_report", partition_key=day).success
        assert one(connection, "select key, kind from dlq.alert_notice") == {
            "key": f"digest:{yesterday}",
            "kind": "digest",
        }
        assert len(ask(instance).run_requests or []) == 1
        assert job("send_alerts").success
        ((_, body),) = web.requests
    assert json.loads(body)["title"].startswith(f"DAILY DIGEST: Dead events {yesterday}: 0 deaths")


@pytest.fixture
def ours(job: Job) -> Job:
    """Run a job with the tag that Dagster's daemon gives to runs of our code location."""

    def run(name: str, **options: Any) -> dg.ExecuteInProcessResult:
        return job(name, tags=get_location_tag() | options.pop("tags", {}), **options)

    return run


@pytest.fixture
def in_the_way(home: Path) -> Path:
    """A file where exports want their folder; without it they succeed."""
    home.mkdir(exist_ok=True)
    (home / "exports").write_text("in the way")
    return home / "exports"


def told(connection: Connection) -> dict[str, Any]:
    """The alert about exports as it is now, after a run that decides and sends."""
    return one(
        connection,
        "select summary, detail, severity, missing_since is not null as over from dlq.alert"
        " where key = 'job:export_day'",
    )


def test_a_day_that_failed_is_an_alert_until_that_day_succeeds(
    connection: Connection, instance: dg.DagsterInstance, ours: Job, in_the_way: Path
) -> None:
    """Known from Dagster, so a killed run counts too; that it succeeds is written down by the run.

    As each morning: what was refused is asked for again first, and yesterday, which succeeds, after it.
    """
    failed = ours("export_day", partition_key="2026-01-01")
    assert not failed.success
    in_the_way.unlink()
    assert ours("export_day", partition_key="2026-01-02").success
    assert len(ask(instance).run_requests or []) == 1
    assert ours("send_alerts").success
    alert = told(connection)
    assert (alert["summary"], alert["severity"]) == (
        "The job export_day failed for 2026-01-01",
        "warning",
    )
    assert f"Run {failed.run_id} of " in alert["detail"]
    assert (
        "re-execute it there, or backfill the days once that is mended. `dlq doctor`"
        in alert["detail"]
    )
    assert ask(instance).skip_message == "Nothing is to be told."
    assert ours("export_day", partition_key="2026-01-03").success
    ours("send_alerts")
    assert not told(connection)["over"]
    assert ours("export_day", partition_key="2026-01-01").success
    assert len(ask(instance).run_requests or []) == 1
    ours("send_alerts")
    assert told(connection)["over"]


def test_of_a_backfill_the_days_that_failed_are_told_and_no_other(
    connection: Connection, instance: dg.DagsterInstance, ours: Job, in_the_way: Path
) -> None:
    """A backfill from an asset's page is of no job of ours, and a run of many days does what it can."""
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
    assert len(ask(instance).run_requests or []) == 1
    ours("send_alerts")
    assert told(connection)["summary"] == "The job export_day failed for 2026-01-01 and 2026-01-04"
    assert ours("classify_deaths").success
    assert backfill("2026-01-01", "2026-01-04")
    ours("send_alerts")
    assert told(connection)["over"]


def test_no_failure_is_lost_where_there_are_more_than_one_look_takes(
    connection: Connection,
    instance: dg.DagsterInstance,
    ours: Job,
    in_the_way: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sensor asks until all were looked at, also those that are nobody's matter."""
    monkeypatch.setattr(alerts, "_RUNS_A_LOOK", 2)
    for name in ("2026-01-05", "2026-01-04", "2026-01-03", "2026-01-02", "2026-01-01"):
        assert not ours("export_day", partition_key=name).success
    in_the_way.unlink()
    for name in ("2026-01-04", "2026-01-05"):
        assert ours("export_day", partition_key=name).success
    looks = 0
    while ask(instance).run_requests:
        assert ours("send_alerts").success
        looks += 1
        assert looks < 10
    failed = (
        "select day from dlq.job_run where failed_at > coalesce(succeeded_at, '-infinity')"
        " order by day"
    )
    assert [row["day"] for row in connection.execute(failed)] == [
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]


def test_a_run_of_another_outbox_on_the_instance_is_not_ours(
    connection: Connection,
    instance: dg.DagsterInstance,
    job: Job,
    in_the_way: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its failures are no alerts of ours, and its runs under way hold up none of ours."""
    theirs = {"dagster/code_location": "other_outbox"}
    assert in_the_way.exists()
    assert not job("export_day", partition_key="2026-01-01", tags=theirs).success
    assert ask(instance).skip_message == "Nothing is to be told."
    monkeypatch.setenv("DLQ_BACKLOG_WARN", "0")
    add_events(connection, 1)
    kill(connection, "boom")
    fix = one(
        connection, "select dlq.flag_fix(note => 'mended', event_type => 'order.placed') as id"
    )
    flagged = defs.resolve_sensor_def("fix_flag_sensor")
    for tags, asked in ((theirs, 1), (get_location_tag(), 0)):
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
        assert len(ask(instance).run_requests or []) == asked
        context = dg.build_sensor_context(
            instance=instance, definitions=defs, resources={"outbox": OutboxResource()}
        )
        assert len(flagged.evaluate_tick(context).run_requests or []) == asked


def test_a_run_that_dagster_tries_again_is_no_failure_yet(
    instance: dg.DagsterInstance, ours: Job, in_the_way: Path
) -> None:
    assert in_the_way.exists()
    tries_again = {"dagster/max_retries": "1", "dagster/retry_on_asset_or_op_failure": "true"}
    assert not ours("export_day", partition_key="2026-01-01", tags=tries_again).success
    assert ask(instance).skip_message == "Nothing is to be told."


def test_every_job_of_ours_is_watched_and_says_when_it_succeeded() -> None:
    ours = [
        one_job
        for one_job in defs.get_repository_def().get_all_jobs()
        if not one_job.name.startswith("__")
    ]
    assert {one_job.name for one_job in ours} == set(health.JOBS)
    assert {
        one_job.name for one_job in ours if health.record_success_hook in one_job.hook_defs
    } == set(health.JOBS)
    assert all(
        health.JOBS[one_job.name] in {node.name for node in one_job.all_node_defs}
        for one_job in ours
    )
    assert {one_job.name for one_job in ours if one_job.partitions_def} == set(
        health.DAILY.values()
    )


def test_a_job_whose_work_fails_has_not_succeeded_because_a_check_of_it_did(
    connection: Connection, job: Job
) -> None:
    """The backlog is counted where nothing can be classified."""
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute(
        "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    )
    connection.execute(
        "create trigger no before insert on dlq.cause for each row execute function no()"
    )
    failed = job("classify_deaths")
    assert (failed.success, [check.passed for check in failed.get_asset_check_evaluations()]) == (
        False,
        [True],
    )
    succeeded = (
        "select count(*) from dlq.job_run where job = 'classify_deaths' and succeeded_at"
        " is not null"
    )
    assert one(connection, succeeded) == {"count": 0}
    connection.execute("drop trigger no on dlq.cause")
    assert job("classify_deaths").success
    assert one(connection, succeeded) == {"count": 1}


def test_every_check_is_written_down_for_metrics(
    connection: Connection, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks of days too: the last result. Of a backlog one alert tells, not two."""
    monkeypatch.setenv("DLQ_BACKLOG_ERROR", "1")
    add_events(connection, 2)
    kill(connection, "boom")
    day = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    for name, options in (
        ("classify_deaths", {}),
        ("export_day", {"partition_key": day}),
        ("build_report", {"partition_key": day}),
        ("archive_dead_events", {}),
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


def test_what_the_books_say_is_kept_for_metrics_and_alerts(
    connection: Connection, job: Job
) -> None:
    """An event that is nowhere is critical."""
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute("delete from outbox_event")
    job("archive_dead_events")
    assert one(
        connection,
        "select passed, severity, figures->'missing' as missing from dlq.check_result where name"
        " = 'books_balance'",
    ) == {"passed": False, "severity": "critical", "missing": 1}
    job("send_alerts")
    alert = one(
        connection, "select severity, detail from dlq.alert where key = 'check:books_balance'"
    )
    assert alert["severity"] == "critical"
    assert (
        "in the outbox, in the archive, or delivered. Found: doubled 0; missing 1; examples 1. `dlq"
        in alert["detail"]
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alert_urls": "slack://s3cr3t/b/c nonsense"}, "DLQ_ALERT_URLS: entry 2 is no address: "),
        (
            {"alert_urls": "nonsense://s3cr3t"},
            r"DLQ_ALERT_URLS: entry 1 \(nonsense:\w{6}\) is no address that Apprise",
        ),
        ({"alert_urls": "https://example.com/s3cr3t"}, "DLQ_WEBHOOK_SECRET: a webhook is signed"),
        (
            {"death_webhook_url": "https://example.com/s3cr3t"},
            "DLQ_WEBHOOK_SECRET: a webhook is signed",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_said_without_it(
    given: dict[str, str], said: str
) -> None:
    with pytest.raises(DlqError, match=said) as raised:
        build_alert_sender(Settings(**given))  # type: ignore[arg-type]
    assert "s3cr3t" not in str(raised.value)
