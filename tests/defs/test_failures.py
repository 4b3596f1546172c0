"""The message of a failed run: one sentence that names the next step, and no secret."""

import os
from pathlib import Path

import dagster as dg
import pytest

from dlq_pipelines.definitions import defs
from dlq_pipelines.postgres.connect import Connection
from tests.defs.conftest import Job
from tests.rows import add_events, date_deaths, kill, one

DAY = "2026-03-31"


def _read_failure(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """Return the failure as the UI shows it; the log holds no DSN and none of our frames."""
    assert not result.success
    log = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert os.environ["DLQ_DATABASE_URL"] not in log
    # The trace ends at the definition and its session; the sentence has the reason.
    assert "dlq_pipelines/exports" not in log
    assert "dlq_pipelines/causes" not in log
    assert "psycopg" not in log
    failed, *_ = (event for event in result.all_events if event.is_step_failure)
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    return str(failure.description)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            "perform pg_terminate_backend(pg_backend_pid())",
            "terminating connection due to administrator command",
        ),
        ("raise 'no room' using errcode = '53100'", "no room"),
        ("raise 'permission denied' using errcode = '42501'", "permission denied"),
    ],
)
def test_a_database_error_in_the_middle_is_reported(
    connection: Connection, instance: dg.DagsterInstance, job: Job, action: str, words: str
) -> None:
    """The batch is rolled back; the next run repeats it."""
    add_events(connection, 2)
    kill(connection, "boom")
    connection.execute(
        f"create function refuse() returns trigger language plpgsql as $$ begin {action}; return"
        " new; end $$;"
        " create trigger refuse before insert on dlq.cause for each row"
        " execute function refuse()".encode()
    )
    message = _read_failure(instance, job("classify_deaths"))
    assert (
        message == f"PostgreSQL refused: {words}. Check the role and the server, then run it again."
    )
    connection.execute("drop trigger refuse on dlq.cause")
    assert job("classify_deaths").success
    assert one(connection, "select deaths from dlq.cause_day") == {"deaths": 2}


def test_a_folder_that_cannot_be_written_is_named(
    instance: dg.DagsterInstance, job: Job, home: Path
) -> None:
    (home / "exports").write_text("in the way")
    assert str(home / "exports") in _read_failure(instance, job("export_day", partition_key=DAY))


def test_a_server_that_does_not_answer_is_named_with_its_reason(
    instance: dg.DagsterInstance, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host, port and reason; never the account."""
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://ann:s3cr3t@127.0.0.1:1/none")
    assert _read_failure(instance, job("classify_deaths")) == (
        'Cannot connect to PostgreSQL: connection to server at "127.0.0.1", port 1 failed:'
        " Connection refused. "
        "Check DLQ_DATABASE_URL and the server, then run `dlq migrate --check`."
    )


def test_what_a_failed_check_guards_is_not_archived(
    connection: Connection, instance: dg.DagsterInstance
) -> None:
    """The export's check blocks: no event leaves the outbox unless its day's files are complete."""
    add_events(connection, 1)
    connection.execute("update outbox_event set status = 'dead', last_error = 'boom'")
    date_deaths(connection, f"'{DAY} 12:00+00'")
    connection.execute(
        "create function change() returns trigger language plpgsql as $$ begin new.rows := 7;"
        " return new; end $$;"
        " create trigger change before insert on dlq.export_day for each row execute function"
        " change()"
    )
    assets = [
        defs.resolve_assets_def(name)
        for name in ("dead_event_causes", "dead_event_export", "dead_event_archive")
    ]
    result = dg.materialize(
        assets,
        instance=instance,
        partition_key=DAY,
        run_config={
            "ops": {"dead_event_archive": {"config": {"older_than_days": 0, "dry_run": False}}}
        },
        raise_on_error=False,
    )
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.blocking) == ("export_is_complete", False, True)
    materialized = {
        event.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert materialized == {"dead_event_causes", "dead_event_export"}
    assert one(connection, "select count(*) from outbox_event") == {"count": 1}
