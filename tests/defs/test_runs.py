"""The clean-up of Dagster's runs: which it deletes, and which records it keeps."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster_postgres import PostgresRunStorage

from dlq_pipelines.definitions import defs
from dlq_pipelines.defs.runs import clean_up_runs
from dlq_pipelines.defs.session import LOCATION, get_location_tag
from dlq_pipelines.postgres.connect import Connection
from tests.defs.conftest import OUTBOX, Job
from tests.rows import add_events, kill

TAG = get_location_tag()
DAYS = ["2026-03-29", "2026-03-30", "2026-03-31"]
RANGE = {
    "dagster/asset_partition_range_start": DAYS[0],
    "dagster/asset_partition_range_end": DAYS[-1],
}
EXPORT, CAUSES = dg.AssetKey("dead_event_export"), dg.AssetKey("dead_event_causes")
DELETING = {"ops": {"clean_up_runs_op": {"config": {"dry_run": False}}}}


class Ours:
    """Runs jobs with the tag of the code location's own runs."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, name: str, **options: Any) -> str:
        tags = TAG | options.pop("tags", {})
        return self._job(name, tags=tags, **options).run_id


@pytest.fixture
def ours(job: Job) -> Ours:
    return Ours(job)


def _left(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_run_ids(dg.RunsFilter(tags=TAG)))


def _connect_to_storage(instance: dg.DagsterInstance) -> psycopg.Connection[Any]:
    storage = instance.run_storage
    assert isinstance(storage, PostgresRunStorage)
    return psycopg.connect(storage.postgres_url.replace("+psycopg2", ""), autocommit=True)


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def _status(instance: dg.DagsterInstance, day: str) -> tuple[bool, Any]:
    """Return whether a day counts as exported, and the metadata that the UI shows."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=EXPORT, asset_partitions=[day]), limit=1
    ).records
    found = records[0].asset_materialization if records else None
    return day in instance.get_materialized_partitions(EXPORT), found and found.metadata


def test_superseded_runs_are_deleted_and_the_latest_record_of_each_day_is_kept(
    instance: dg.DagsterInstance, ours: Ours
) -> None:
    """After one day is exported again, the first run has the latest record of two days."""
    overtaken = ours("classify_deaths")
    last = ours("classify_deaths")
    three_days, again = ours("export_day", tags=RANGE), ours("export_day", partition_key=DAYS[0])
    before = [_status(instance, day) for day in DAYS]
    assert all(materialized for materialized, _ in before)

    done = clean_up_runs(instance, OUTBOX, before=_soon())
    assert (done.deleted, done.kept) == (1, 3)
    assert _left(instance) == {last, three_days, again}
    assert instance.all_logs(overtaken) == []
    assert [_status(instance, day) for day in DAYS] == before

    for day in DAYS[1:]:
        ours("export_day", partition_key=day)
    assert clean_up_runs(instance, OUTBOX, before=_soon()).deleted == 1
    assert three_days not in _left(instance)
    assert all(_status(instance, day)[0] for day in DAYS)
    assert clean_up_runs(instance, OUTBOX, before=_soon()).deleted == 0


def test_a_failed_attempt_is_kept_until_the_next_one(
    instance: dg.DagsterInstance, ours: Ours, home: Path
) -> None:
    """The UI shows the day as failed, not as missing."""
    (home / "exports").write_text("in the way")
    first, second = (ours("export_day", partition_key=DAYS[0]) for _ in range(2))
    assert clean_up_runs(instance, OUTBOX, before=_soon()).deleted == 1
    assert _left(instance) == {second}
    (home / "exports").unlink()
    third = ours("export_day", partition_key=DAYS[0])
    assert first != second
    clean_up_runs(instance, OUTBOX, before=_soon())
    assert _left(instance) == {third}


def test_a_failed_run_with_an_observation_is_kept(
    connection: Connection, instance: dg.DagsterInstance, ours: Ours
) -> None:
    """It holds the latest observation of the outbox."""
    succeeded = ours("classify_deaths")
    add_events(connection, 2)
    kill(connection, "boom")
    connection.execute(
        "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    )
    connection.execute(
        "create trigger no before insert on dlq.cause for each row execute function no()"
    )
    failed = ours("classify_deaths")
    clean_up_runs(instance, OUTBOX, before=_soon())
    assert _left(instance) == {succeeded, failed}
    seen = (
        instance.fetch_observations(dg.AssetKey("outbox_event"), limit=1)
        .records[0]
        .asset_observation
    )
    assert seen is not None
    assert seen.metadata["dead"].value == 2


@pytest.mark.parametrize(
    "kept",
    [
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.CANCELING,
        "another's",
        "a root",
    ],
)
def test_these_runs_are_kept(
    instance: dg.DagsterInstance, ours: Ours, kept: dg.DagsterRunStatus | str
) -> None:
    """Unfinished runs, runs of other code locations, and the root of a retried run."""
    config = {
        "ops": {"retry_dead_events_op": {"config": {"reason": "r", "actor": "a", "all": True}}}
    }
    run = ours(
        "retry_dead_events",
        run_config=config,
        tags={"dagster/code_location": "x"} if kept == "another's" else {},
    )
    gone = ours("retry_dead_events", run_config=config)
    with _connect_to_storage(instance) as storage:
        if isinstance(kept, dg.DagsterRunStatus):
            storage.execute("update runs set status = %s where run_id = %s", [kept.value, run])
    if kept == "a root":
        child = ours("retry_dead_events", run_config=config, tags={"dagster/root_run_id": run})
        instance.report_run_canceling(instance.get_run_by_id(child))  # type: ignore[arg-type]
    clean_up_runs(instance, OUTBOX, before=_soon())
    assert instance.get_run_by_id(run) is not None
    assert gone not in _left(instance)


def test_a_limit_a_dry_run_and_a_crash_between_lose_nothing(
    instance: dg.DagsterInstance, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deletes the oldest first; finds a run whose events are deleted already."""
    runs = [ours("classify_deaths") for _ in range(4)]
    assert clean_up_runs(instance, OUTBOX, before=_soon(), dry_run=True).deleted == 3
    assert _left(instance) == set(runs)
    assert clean_up_runs(instance, OUTBOX, before=_soon(), limit=1).deleted == 1
    assert _left(instance) == set(runs[1:])

    with monkeypatch.context() as crash:
        crash.setattr(type(instance), "delete_run", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            clean_up_runs(instance, OUTBOX, before=_soon())
    assert instance.all_logs(runs[1]) == []
    assert clean_up_runs(instance, OUTBOX, before=_soon()).deleted == 2
    assert _left(instance) == {runs[3]}


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_job_respects_the_retention_and_is_a_dry_run_by_default(
    instance: dg.DagsterInstance, ours: Ours, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its schedule deletes."""
    old, last = ours("classify_deaths"), ours("classify_deaths")
    with _connect_to_storage(instance) as storage:
        storage.execute(
            "update runs set end_time = end_time - 91 * 86400, update_timestamp = now() -"
            " interval '91 days'"
        )
        counted = job("clean_up_runs")
        monkeypatch.setenv("DLQ_RUN_RETENTION_DAYS", "92")
        assert job("clean_up_runs", run_config=DELETING).success
        monkeypatch.setenv("DLQ_RUN_RETENTION_DAYS", "0")
        assert job("clean_up_runs", run_config=DELETING).success
    assert counted.success
    assert {old, last} <= _left(instance)
    monkeypatch.delenv("DLQ_RUN_RETENTION_DAYS")
    schedule = defs.resolve_schedule_def("clean_up_runs_daily")
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 11, 21, 5, tzinfo=UTC)
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.run_config["ops"] == DELETING["ops"]
    assert job("clean_up_runs", run_config=request.run_config).success
    assert {old, last} & _left(instance) == {last}


def test_a_location_of_another_name_has_its_own_runs_cleaned_up(
    instance: dg.DagsterInstance, job: Job
) -> None:
    """Such as Dagster's Helm chart: the tag of the clean-up's run has the name."""
    chart = {"dagster/code_location": "dlq-pipelines"}
    old = job("classify_deaths", tags=chart).run_id
    others = [job("classify_deaths", tags=TAG).run_id for _ in range(2)]
    with _connect_to_storage(instance) as storage:
        storage.execute(
            "update runs set end_time = end_time - 91 * 86400, update_timestamp = now() -"
            " interval '91 days'"
        )
    last = job("classify_deaths", tags=chart).run_id
    assert job("clean_up_runs", tags=chart, run_config=DELETING).success
    assert old not in set(instance.get_run_ids())
    assert {last, *others} <= set(instance.get_run_ids())


def test_the_name_of_the_location_is_that_of_the_workspaces() -> None:
    """Otherwise no run would have the tag."""
    root = Path(__file__).parents[2]
    for workspace in (root / "workspace.yaml", root / "deploy" / "workspace.yaml"):
        assert f"location_name: {LOCATION}\n" in workspace.read_text(encoding="utf-8")
