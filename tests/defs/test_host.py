"""A host's code location with own assets, own executor and three outboxes on one instance."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from dlq_pipelines import (
    DeadLetterQueue,
    OutboxRepository,
    TableNames,
    build_settings,
    dead_letter_definitions,
    read_settings,
)
from dlq_pipelines.defs.outbox import ASSETS, CRONS, JOBS, SENSORS
from dlq_pipelines.defs.runs import clean_up_runs
from dlq_pipelines.defs.session import get_location_tag
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.defs.conftest import build_test_outbox
from tests.rows import one

HOST = Path(__file__).resolve().parents[1] / "host"
BIN = Path(sys.executable).parent
OUTBOXES = ("orders", "billing", "letters")
PREFIXES = {"orders": "orders", "billing": "billing", "letters": "mail/letters"}
# Yesterday: all of its deaths can be exported, whatever the time of the test is.
DAY = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


class Shop:
    """The host's location, its outboxes, and runs of its jobs."""

    def __init__(
        self, instance: dg.DagsterInstance, database: Database, defs: dg.Definitions
    ) -> None:
        self.instance = instance
        self.database = database
        self.defs = defs

    @contextmanager
    def connect(self, outbox: str) -> Iterator[Connection]:
        """Connect with the names of an outbox."""
        names = TableNames(outbox, "outbox_event", f"dlq_{outbox}")
        with Database(self.database.url, names).connect() as connection:
            yield connection

    def run(self, job: str, **options: Any) -> dg.ExecuteInProcessResult:
        """Run a job in this process, with the tag that the daemon gives to its runs."""
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            tags=get_location_tag() | options.pop("tags", {}),
            **options,
        )

    def tick(self, sensor: str) -> Any:
        """Evaluate a sensor as the daemon does."""
        return self.defs.resolve_sensor_def(sensor).evaluate_tick(
            dg.build_sensor_context(instance=self.instance, definitions=self.defs)
        )

    def kill(self, outbox: str, events: int, error: str) -> None:
        """Let events die on the day before."""
        with self.connect(outbox) as connection:
            connection.execute(
                f"insert into {outbox}.outbox_event (aggregate_type, aggregate_id, event_type,"
                " payload, status, attempts, last_error, next_run_at)"
                " select 'parcel', n::text, 'parcel.sent', '{}', 'dead', 5, %s, now()"
                " from generate_series(1, %s) n".encode(),
                [error, events],
            )
            connection.execute(
                f"update dlq_{outbox}.death set died_at = %s::date + interval '12 hours'".encode(),
                [DAY],
            )


@pytest.fixture
def shop(
    instance: dg.DagsterInstance,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Shop:
    """The location as `dg` loads it, with a migrated table for each outbox."""
    monkeypatch.delenv("DLQ_DATABASE_URL")  # of no outbox here
    for name, value in {
        "SHOP_HOME": str(tmp_path / "shop"),
        "ORDERS_DATABASE_URL": database.url,
        "ORDERS_CANARY": "3",
        "BILLING_DATABASE_URL": database.url,
        "LETTERS_DATABASE_URL": database.url,
        "LETTERS_SCHEMA": "dlq_letters",
        "LETTERS_OUTBOX_SCHEMA": "letters",
        "LETTERS_HOME": str(tmp_path / "letters"),
    }.items():
        monkeypatch.setenv(name, value)
    for outbox in OUTBOXES:
        names = TableNames(outbox, "outbox_event", f"dlq_{outbox}")
        with Database(database.url, names).connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
    return Shop(instance, database, load_shop(monkeypatch))


def load_shop(monkeypatch: pytest.MonkeyPatch, project: Path = HOST) -> dg.Definitions:
    """Load the host's definitions anew."""
    monkeypatch.syspath_prepend(str(project))
    for module in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, module)
    with monkeypatch.context() as inside:
        inside.chdir(project)
        return dg.load_from_defs_folder(path_within_project=project / "shop")


def test_everything_of_an_outbox_carries_its_name_and_the_host_keeps_its_own(shop: Shop) -> None:
    repository = shop.defs.get_repository_def()
    jobs = {job.name: job for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert set(jobs) == {f"{name}_{job}" for name in OUTBOXES for job in JOBS} | {"load_parcels"}
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert keys == {f"{prefix}/{a}" for prefix in PREFIXES.values() for a in ASSETS} | {"parcels"}
    assert shop.defs.executor is dg.multiprocess_executor
    assert all(
        jobs[f"{name}_{job}"].tags["dlq/outbox"] == name for name in OUTBOXES for job in JOBS
    )
    specs = {spec.key.to_user_string(): spec for spec in shop.defs.resolve_all_asset_specs()}
    assert (specs["mail/letters/archive_purge"].group_name, specs["parcels"].group_name) == (
        "mail",
        "warehouse",
    )
    assert list(specs["billing/archive_purge"].owners) == ["team:billing"]
    crons = {schedule.name: schedule.cron_schedule for schedule in repository.schedule_defs}
    assert crons["letters_archive_daily"] == "0 4 * * *"
    assert "letters_purge_weekly" not in crons
    assert len(crons) == 3 * 7 - 1
    pools = {
        asset.op.pool
        for key in ("orders", "billing", "mail/letters")
        for asset in [
            shop.defs.resolve_assets_def(dg.AssetKey([*key.split("/"), "dead_event_archive"]))
        ]
        if isinstance(asset.op, dg.OpDefinition)
    }
    assert pools == {"dlq_orders", "dlq_billing", "dlq_letters"}


def test_dg_checks_the_project(shop: Shop) -> None:
    """In a process of its own, as a person does. The files are checked first."""
    assert shop
    done = subprocess.run(
        [BIN / "dg", "check", "defs"],
        cwd=HOST,
        env=os.environ | {"PYTHONPATH": str(HOST)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All component YAML validated successfully" in done.stdout


def test_every_asset_of_each_outbox_is_materialized_in_its_own_schema(shop: Shop) -> None:
    """With a backfill, and run again; each outbox sees its own deaths only."""
    deaths = {"orders": 4, "billing": 2, "letters": 1}
    first = (date.fromisoformat(DAY) - timedelta(days=2)).isoformat()
    days = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": DAY,
    }
    for outbox, events in deaths.items():
        shop.kill(outbox, events, f"KeyError: '{outbox}'")
        assert len(shop.tick(f"{outbox}_new_death_sensor").run_requests) == 1
        op = f"{PREFIXES[outbox].replace('/', '__')}__dead_event_archive"
        archiving = {"ops": {op: {"config": {"dry_run": False, "older_than_days": 0}}}}
        for job, options in (
            ("classify_deaths", {}),
            ("export_day", {"tags": days}),
            ("build_report", {"tags": days}),
            ("check_outbox", {}),
            ("archive_dead_events", {"run_config": archiving}),
        ):
            for _ in range(2):
                assert shop.run(f"{outbox}_{job}", **options).success, (outbox, job)
        assert shop.tick(f"{outbox}_new_death_sensor").run_requests == []
    for outbox, events in deaths.items():
        with shop.connect(outbox) as connection:
            found = one(
                connection,
                f"select (select sum(rows) from dlq_{outbox}.export_day) as exported,"
                f" (select count(*) from dlq_{outbox}.report_day) as reports,"
                f" (select count(*) from dlq_{outbox}.archived) as archived,"
                f" (select string_agg(exception_type, ',') from dlq_{outbox}.cause) as causes,"
                f" (select count(*) from dlq_{outbox}.job_run where day = '') as jobs",
            )
        assert found == {
            "exported": events,
            "reports": 3,
            "archived": events,
            "causes": "KeyError",
            "jobs": 5,
        }
        key = dg.AssetKey([*PREFIXES[outbox].split("/"), "dead_event_export"])
        assert shop.instance.get_materialized_partitions(key) >= {first, DAY}


def test_a_fix_is_verified_in_one_outbox_while_it_halts_in_another(shop: Shop) -> None:
    for outbox in ("orders", "billing"):
        shop.kill(outbox, 6, "TimeoutError: no answer")
        shop.run(f"{outbox}_classify_deaths")
        flag = {"event_type": "parcel.sent", "note": "up again", "actor": "ann", "dry_run": False}
        config = {"ops": {f"{outbox}_flag_fix_op": {"config": flag}}}
        assert shop.run(f"{outbox}_flag_fix", run_config=config).success
    statuses: dict[str, str] = {}
    tags: dict[str, Any] = {}
    for _ in range(8):
        for outbox in ("orders", "billing"):
            for request in shop.tick(f"{outbox}_fix_flag_sensor").run_requests or []:
                run = shop.run(
                    f"{outbox}_retry_stage", run_config=request.run_config, tags=request.tags
                )
                assert run.success
                tags[outbox] = shop.instance.get_run_by_id(run.run_id)
            with shop.connect(outbox) as connection:
                _work(shop, connection, outbox, delivers=outbox == "orders")
                statuses[outbox] = one(connection, f"select status from dlq_{outbox}.fix")["status"]
    assert statuses == {"orders": "verified", "billing": "halted"}
    with shop.connect("orders") as connection:
        stages = "select count(distinct stage) as n from dlq_orders.retry"
        assert one(connection, stages) == {"n": 2}  # of the canary that its defs.yaml sets
    for outbox, status in statuses.items():
        assert tags[outbox].tags["dlq/fix_status"] == status
        assert tags[outbox].tags["dlq/outbox"] == outbox
        (seen,) = shop.instance.fetch_observations(
            dg.AssetKey([outbox, "dead_event_causes"]), limit=1
        ).records
        assert seen.asset_observation is not None
        assert f"Fix 1 is {status}" in str(seen.asset_observation.description)


def _work(shop: Shop, connection: Connection, outbox: str, *, delivers: bool) -> None:
    """Deliver what is due, or let it die again."""
    connection.execute(f"update {outbox}.outbox_event set next_run_at = now()".encode())
    connection.execute(
        f"update dlq_{outbox}.retry set due_at = now() - interval '1 second'"
        " where outcome is null".encode()
    )
    names = TableNames(outbox, "outbox_event", f"dlq_{outbox}")
    if delivers:
        with OutboxRepository(shop.database.url, names=names) as repository:
            for event in repository.fetch_pending(50):
                repository.mark_success(event.id)
    else:
        connection.execute(
            f"update {outbox}.outbox_event set status = 'dead', last_error = 'KeyError: 1'"
            " where status = 'pending'".encode()
        )


def test_the_clean_up_of_an_outbox_deletes_no_run_of_anybody_else(shop: Shop) -> None:
    """Neither the host's nor another outbox's; also not those of assets of several."""
    hosts = shop.run("load_parcels").run_id
    others = [shop.run("billing_classify_deaths").run_id for _ in range(2)]
    mixed = shop.run("orders_classify_deaths", tags={"dlq/outbox": "none"}).run_id
    own = [shop.run("orders_classify_deaths").run_id for _ in range(2)]
    before = datetime.now(UTC) + timedelta(minutes=1)
    orders = build_test_outbox(lambda: read_settings("ORDERS_"), name="orders")
    assert clean_up_runs(shop.instance, orders, before=before).deleted == 1
    left = set(shop.instance.get_run_ids())
    assert left >= {hosts, *others, mixed, own[1]}
    assert own[0] not in left


def test_a_wrong_variable_of_one_outbox_fails_its_runs_and_ticks_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sentence that names the outbox; the location loads."""
    monkeypatch.setenv("BILLING_CANARY", "many")
    monkeypatch.delenv("ORDERS_DATABASE_URL")
    monkeypatch.setenv("LETTERS_DATABASE_URL", "postgresql://ann:s3cr3t@127.0.0.1:1/none")
    shop.defs = load_shop(monkeypatch)
    for outbox, sentence in {
        "billing": "billing: canary: 'many' is not a whole number from 1 to 5,000.",
        "orders": "orders: database_url is not set.",
        "letters": "letters: Cannot connect to PostgreSQL",
    }.items():
        failed = shop.run(f"{outbox}_classify_deaths")
        (event,) = [found for found in failed.all_events if found.is_step_failure]
        failure = event.step_failure_data.user_failure_data
        assert failure is not None
        assert str(failure.description).startswith(sentence)
        for sensor in ("new_death_sensor", "fix_flag_sensor", "dead_event_alert_sensor"):
            with pytest.raises(dg.Failure, match=sentence) as raised:
                shop.tick(f"{outbox}_{sensor}")
            assert "s3cr3t" not in str(raised.value)
            assert "DLQ_" not in str(raised.value)
    assert shop.run("load_parcels").success


def test_the_snippets_of_the_guide_define_outboxes(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The YAML in a project, and the Python as a location."""
    guide = (HOST.parents[1] / "docs" / "how-to.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(type: dlq_pipelines.*?)```", guide, re.DOTALL)
    (code,) = re.findall(r"```python\n([^`]*dead_letter_definitions.*?)```", guide, re.DOTALL)
    project = tmp_path / "project"
    shutil.copytree(HOST, project, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "shop" / "defs" / "orders" / "defs.yaml").write_text(text, "utf-8")
    shop.defs = load_shop(monkeypatch, project)
    schedules = {one.name for one in shop.defs.get_repository_def().schedule_defs}
    assert "orders_archive_daily" in schedules
    assert "orders_purge_weekly" not in schedules
    assert shop.run("orders_classify_deaths").success

    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 - our own guide
    jobs = set(found["defs"].get_repository_def().job_names)
    assert jobs >= {f"{name}_{job}" for name in ("orders", "billing") for job in JOBS}


def test_an_outbox_with_the_schema_of_another_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would archive the events of the other."""
    shop.kill("billing", 2, "boom")
    monkeypatch.setenv("LETTERS_SCHEMA", "dlq_billing")
    shop.defs = load_shop(monkeypatch)
    config = {
        "ops": {
            "mail__letters__dead_event_archive": {
                "config": {"dry_run": False, "older_than_days": 0}
            }
        }
    }
    failed = shop.run("letters_archive_dead_events", run_config=config)
    assert not failed.success
    sentence = 'The schema dlq_billing records the deaths of "billing"."outbox_event", not of '
    with pytest.raises(dg.Failure, match=re.escape(f"letters: {sentence}letters.outbox_event")):
        shop.tick("letters_new_death_sensor")
    with shop.connect("billing") as connection:
        assert one(connection, "select count(*) as n from billing.outbox_event") == {"n": 2}


def test_a_wrong_value_leaves_the_valid_ones_and_the_location(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its sensors still run, and fail in red, at the hours of its time zone."""
    for name, value in {
        "LETTERS_AUTOSTART": "true",
        "LETTERS_TIMEZONE": "Europe/Berlin",
        "LETTERS_CANARY": "many",
        "LETTERS_OUTBOX_MAPPING": "nope",
    }.items():
        monkeypatch.setenv(name, value)
    shop.defs = load_shop(monkeypatch)
    repository = shop.defs.get_repository_def()
    schedule = repository.get_schedule_def("letters_export_daily")
    assert (schedule.execution_timezone, schedule.default_status.value) == (
        "Europe/Berlin",
        "RUNNING",
    )
    with pytest.raises(dg.Failure, match="letters: LETTERS_CANARY: 'many'"):
        shop.tick("letters_new_death_sensor")
    monkeypatch.delenv("LETTERS_CANARY")
    with pytest.raises(dg.Failure, match=r"letters: .*nope"):
        shop.tick("letters_new_death_sensor")


def test_what_depends_on_a_schedule_follows_it() -> None:
    """Freshness and the checks of the last day; neither is there without the schedule."""
    given = build_settings({"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    crons = {"archive_daily": "0 13 * * *", "purge_weekly": None, "export_daily": None}
    changed = dead_letter_definitions(given, schedules=crons)
    specs = {spec.key.to_user_string(): spec for spec in changed.resolve_all_asset_specs()}
    policy = specs["dead_event_archive"].freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert specs["archive_purge"].freshness_policy is None
    checks = {key.name for key in changed.resolve_asset_graph().asset_check_keys}
    assert "report_is_current" in checks
    assert "export_is_current" not in checks
    assert changed.resolve_job_def("check_outbox")


def test_the_schema_of_the_component_refuses_wrong_types(shop: Shop) -> None:
    """So that `dg check` and editors name the line."""
    assert shop
    model = DeadLetterQueue.get_model_cls()
    assert model is not None
    schema = model.model_json_schema()
    attributes = schema["properties"]
    assert schema["additionalProperties"] is False
    types = {one.get("type") for one in attributes["dead_retention_days"]["anyOf"]}
    assert types == {"integer", "string", "null"}
    assert "executor" not in attributes


def test_descriptions_have_the_names_hours_and_tables_of_their_outbox() -> None:
    """A placeholder that is not filled in, or a name of another outbox, would be shown."""
    given = build_settings(
        {"database_url": "postgresql://nobody@127.0.0.1:1/none", "schema": "own"}
    )
    crons = {"archive_daily": "0 13 * * *", "export_daily": "5 */2 * * *", "purge_weekly": None}
    defined = dead_letter_definitions(given, name="orders", schedules=crons)
    repository = defined.get_repository_def()
    shown: list[Any] = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    shown += [*repository.schedule_defs, *repository.sensor_defs]
    texts = {one.name: one.description or "" for one in shown} | {
        spec.key.path[-1]: spec.description or "" for spec in defined.resolve_all_asset_specs()
    }
    unprefixed = rf"(?<!orders_)(?<!own\.)\b(?:{'|'.join([*JOBS, *CRONS, *SENSORS])})\b"
    for name, text in texts.items():
        assert not re.search(r"[{}]", text), name
        assert not re.search(unprefixed, text), (name, text)
        assert not re.search(r"\bdlq\.[a-z]", text), (name, text)
    assert "At 13:00, by `orders_archive_daily`" in texts["orders_archive_dead_events"]
    assert "By the cron 5 */2 * * *, by `orders_export_daily`" in texts["orders_export_day"]
    assert "When a person launches it. Launched" in texts["orders_purge_archive"]
    assert "`own.cause`" in texts["dead_event_causes"]
