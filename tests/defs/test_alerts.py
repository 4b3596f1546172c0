"""Does Dagster's part of alerts ask only when there is something to do, and know which jobs failed?"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlq_pipelines.definitions import defs
from dlq_pipelines.defs import alerts, health
from dlq_pipelines.defs.resources import OutboxResource
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import alert_sender
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import Settings
from tests.alerts.servers import http_server
from tests.defs.conftest import Job
from tests.rows import add_events, kill, one

SECRET = "whsec_" + "QUJD" * 8


def ask(instance: dg.DagsterInstance) -> Any:
    """A tick of the sensor, as the daemon makes it."""
    context = dg.build_sensor_context(instance=instance, definitions=defs, resources={"outbox": OutboxResource()})
    return defs.resolve_sensor_def("dead_event_alert_sensor").evaluate_tick(context)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dead events are a backlog, and no job ran yet."""
    monkeypatch.setenv("DLQ_BACKLOG_WARN", "1")


def test_where_nothing_is_to_be_told_the_sensor_asks_for_nothing(instance: dg.DagsterInstance) -> None:
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
            "create view dlq.cause as select * from dlq.cause_elsewhere where pg_sleep(60)::text is not null"
        )
        web.status = 200
        assert len(ask(instance).run_requests or []) == 1
        assert job("send_alerts").success
        assert len(web.requests) == 2
        assert "Whether there is something to tell of new_cause is not known" in web.requests[1][1]
        assert "Nothing is to be told." in (ask(instance).skip_message or "")


def test_a_database_that_is_away_skips_the_tick(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_job_that_fails_is_an_alert_until_it_succeeds_again(
    connection: Connection, instance: dg.DagsterInstance, job: Job, home: Path
) -> None:
    """Known from Dagster, so a killed run counts too; that it succeeds is written down by the run."""
    home.mkdir(exist_ok=True)
    (home / "exports").write_text("in the way")
    day = datetime.now(UTC).date().replace(day=1).isoformat()
    assert not job(
        "export_day", partition_key=day if day < datetime.now(UTC).date().isoformat() else "2026-01-01"
    ).success
    assert len(ask(instance).run_requests or []) == 1
    job("send_alerts")
    assert one(connection, "select key, severity from dlq.alert") == {"key": "job:export_day", "severity": "warning"}
    assert ask(instance).skip_message == "Nothing is to be told."
    (home / "exports").unlink()
    assert job("export_day", partition_key="2026-01-02").success
    assert one(connection, "select succeeded_at > failed_at as well from dlq.job_run where job = 'export_day'") == {
        "well": True
    }
    job("send_alerts")
    assert one(connection, "select missing_since is not null as over from dlq.alert") == {"over": True}


def test_a_run_that_dagster_tries_again_is_no_failure_yet(instance: dg.DagsterInstance, job: Job, home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "exports").write_text("in the way")
    tries_again = {"dagster/max_retries": "1", "dagster/retry_on_asset_or_op_failure": "true"}
    failed = job("export_day", partition_key="2026-01-01", tags=tries_again)
    assert not failed.success
    assert alerts.failed_runs(instance) == []


def test_every_job_of_ours_is_watched_and_says_when_it_succeeded() -> None:
    ours = [one_job for one_job in defs.get_repository_def().get_all_jobs() if not one_job.name.startswith("__")]
    assert {one_job.name for one_job in ours} == set(health.JOBS)
    assert {one_job.name for one_job in ours if health.job_success in one_job.hook_defs} == set(health.JOBS)
    assert all(health.JOBS[one_job.name] in {node.name for node in one_job.all_node_defs} for one_job in ours)


def test_a_job_whose_work_fails_has_not_succeeded_because_a_check_of_it_did(connection: Connection, job: Job) -> None:
    """The backlog is counted where nothing can be classified."""
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute("create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$")
    connection.execute("create trigger no before insert on dlq.cause for each row execute function no()")
    failed = job("classify_deaths")
    assert (failed.success, [check.passed for check in failed.get_asset_check_evaluations()]) == (False, [True])
    succeeded = "select count(*) from dlq.job_run where job = 'classify_deaths' and succeeded_at is not null"
    assert one(connection, succeeded) == {"count": 0}
    connection.execute("drop trigger no on dlq.cause")
    assert job("classify_deaths").success
    assert one(connection, succeeded) == {"count": 1}


def test_what_the_books_say_is_kept_for_metrics_and_alerts(connection: Connection, job: Job) -> None:
    """An event that is nowhere is critical."""
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute("delete from outbox_event")
    job("archive_dead_events")
    assert one(
        connection,
        "select passed, severity, figures->'missing' as missing from dlq.check_result where name = 'books_balance'",
    ) == {"passed": False, "severity": "critical", "missing": 1}
    job("send_alerts")
    assert one(connection, "select severity from dlq.alert where key = 'check:books_balance'") == {
        "severity": "critical"
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alert_urls": "slack://s3cr3t/b/c nonsense"}, "DLQ_ALERT_URLS: entry 2 is no address: "),
        ({"alert_urls": "nonsense://s3cr3t"}, r"DLQ_ALERT_URLS: entry 1 \(nonsense:\w{6}\) is no address that Apprise"),
        ({"alert_urls": "https://example.com/s3cr3t"}, "DLQ_WEBHOOK_SECRET: a webhook is signed"),
        ({"death_webhook_url": "https://example.com/s3cr3t"}, "DLQ_WEBHOOK_SECRET: a webhook is signed"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_without_it(given: dict[str, str], said: str) -> None:
    with pytest.raises(DlqError, match=said) as raised:
        alert_sender(Settings(**given))  # type: ignore[arg-type]
    assert "s3cr3t" not in str(raised.value)
