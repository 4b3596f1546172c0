"""The job of probes and its sensor, run by Dagster."""

from typing import Any

import dagster as dg
import pytest

from dlq_pipelines.definitions import defs
from dlq_pipelines.postgres.connect import Connection, Database
from tests.defs.conftest import Job
from tests.retries.helpers import CAUSE, add_dead, run_worker
from tests.rows import date_deaths, one


def _tick(instance: dg.DagsterInstance) -> Any:
    sensor = defs.resolve_sensor_def("probe_sensor")
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, definitions=defs))


def _read_metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (output,) = [
        event for event in result.all_node_events if event.event_type_value == "STEP_OUTPUT"
    ]
    return {key: value.value for key, value in output.step_output_data.metadata.items()}


def test_the_sensor_asks_first_and_the_job_flags_a_fix(
    connection: Connection,
    database: Database,
    instance: dg.DagsterInstance,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Off by default; no run is requested while nothing is due or a run is in progress."""
    add_dead(connection, 3)
    date_deaths(connection, "now() - interval '10 minutes'")
    connection.execute("update dlq.cause set last_seen = now() - interval '10 minutes'")
    assert _tick(instance).skip_message == "No step of a probe is due."
    monkeypatch.setenv("DLQ_PROBES", "true")
    (request,) = _tick(instance).run_requests
    done = job("probe_causes", run_config=request.run_config, tags=request.tags)
    assert done.success
    assert one(connection, "select actor, run_id is not null as by_run from dlq.audit") == {
        "actor": "probe",
        "by_run": True,
    }
    assert _tick(instance).skip_message == "No step of a probe is due."
    run_worker(database, delivers=True)
    assert len(_tick(instance).run_requests) == 1
    assert _read_metadata(job("probe_causes"))["fixes"] == "1"
    assert one(connection, "select cause_id, flagged_by from dlq.fix") == {
        "cause_id": CAUSE,
        "flagged_by": "probe",
    }
    assert one(connection, "select count(*) as n from dlq.job_run where job = 'probe_causes'") == {
        "n": 1
    }
    assert _tick(instance).skip_message == "No step of a probe is due."
