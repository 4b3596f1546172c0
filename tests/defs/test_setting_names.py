"""Checks that texts name a setting as the owner of an outbox can change it.

An outbox is configured by a component in YAML, or by variables with a prefix of its own.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlq_pipelines import DeadLetterQueue, dead_letter_definitions, read_settings
from dlq_pipelines.defs.outbox import CRONS, JOBS, SENSORS
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import add_events, kill, one

DAY = "2026-01-05"
Define = Callable[..., dg.Definitions]
ShowName = Callable[[str], str]


def _show_field(name: str) -> str:
    return "schema_name" if name == "schema" else name


def _show_variable(name: str) -> str:
    return f"ORDERS_{name.upper()}"


@pytest.fixture(params=["component", "prefix"])
def owned(
    request: pytest.FixtureRequest,
    connection: Connection,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Define, ShowName]:
    """Return what defines the outbox `orders` with some settings, and the names of the settings."""
    assert connection
    usual = {"database_url": database.url, "home": str(tmp_path / "orders")}
    monkeypatch.delenv("DLQ_DATABASE_URL", raising=False)

    def define_component(**settings: str) -> dg.Definitions:
        given = {_show_field(name): value for name, value in (usual | settings).items()}
        component = DeadLetterQueue(name="orders", **given)
        return component.build_defs(dg.ComponentTree.for_test().load_context)

    def define_with_prefix(**settings: str) -> dg.Definitions:
        for name, value in (usual | settings).items():
            monkeypatch.setenv(_show_variable(name), value)
        return dead_letter_definitions(partial(read_settings, "ORDERS_"), name="orders")

    if request.param == "component":
        return define_component, _show_field
    return define_with_prefix, _show_variable


def _run(defs: dg.Definitions, job: str, **options: Any) -> str:
    """Run a job; return why it failed, or an empty text."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def(f"orders_{job}").execute_in_process(
            instance=instance, raise_on_error=False, **options
        )
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return "\n".join(
        data.user_failure_data.description or "" for data in failures if data.user_failure_data
    )


@pytest.mark.parametrize(
    ("setting", "value", "job", "named"),
    [
        ("canary", "0", "check_outbox", "{canary}: '0' is not a whole number"),
        ("schema", "x" * 64, "check_outbox", "{schema}: "),
        ("alert_urls", "nonsense", "send_alerts", "{alert_urls}: "),
        ("alert_urls", "json+x://host/", "send_alerts", "{alert_urls}: entry 1 "),
        ("alert_urls", "https://example.com/hook", "send_alerts", "{webhook_secret} is required"),
        ("export_redact_payload", "hide $.a", "export_day", "{export_redact_payload}: a rule is"),
        ("export_redact_payload", "hash $.a", "export_day", "{export_hash_key} is required"),
        ("export_redact_errors", "(", "build_report", "{export_redact_errors}: '(' is not"),
        ("export_uri", "s3://b/?region=%", "export_day", "{export_uri} cannot be used"),
        ("outbox_table", "nothing", "check_outbox", "another schema ({schema}) for this table"),
        (
            "database_url",
            "postgresql://ann:s3cr3t@127.0.0.1:1/none",
            "check_outbox",
            "Check {database_url} and the server.",
        ),
        ("database_url", "nonsense", "check_outbox", "{database_url} is not a connection string."),
    ],
)
def test_a_failure_names_the_setting_that_its_owner_can_change(
    owned: tuple[Define, ShowName], setting: str, value: str, job: str, named: str
) -> None:
    define, show = owned
    daily = {"partition_key": DAY} if job in {"export_day", "build_report"} else {}
    why = _run(define(**{setting: value}), job, **daily)
    assert why.startswith("orders: ")
    expected = re.sub(r"\{(\w+)\}", lambda found: show(found[1]), named)
    assert expected in why
    table = " DLQ_OUTBOX_TABLE=nothing" if setting == "outbox_table" else ""
    command = f" `dlq` needs DLQ_DATABASE_URL for this database and DLQ_SCHEMA=dlq{table}."
    for line in why.splitlines():
        assert line.endswith(command) == ("`dlq migrate" in line)
        assert "DLQ_" not in line.removesuffix(command)
    assert "s3cr3t" not in why


def test_an_alert_names_the_threshold(
    owned: tuple[Define, ShowName], connection: Connection
) -> None:
    define, show = owned
    add_events(connection, 2)
    kill(connection, "boom")
    assert not _run(define(backlog_warn="0"), "send_alerts")
    detail = one(connection, "select detail from dlq.alert where key = 'backlog'")["detail"]
    assert f"({show('backlog_warn')})" in detail


def _list_texts(defs: dg.Definitions) -> Iterator[str]:
    """Yield what Dagster's UI shows of the definitions."""
    repository = defs.get_repository_def()
    for name in JOBS:
        job = repository.get_job(f"orders_{name}")
        yield job.description or ""
        for node in job.graph.node_defs:
            yield node.description or ""
            if isinstance(node, dg.OpDefinition) and node.config_schema:
                yield from _list_field_descriptions(node.config_schema.config_type)
    for schedule in CRONS:
        yield repository.get_schedule_def(f"orders_{schedule}").description or ""
    for sensor in SENSORS:
        yield repository.get_sensor_def(f"orders_{sensor}").description or ""
    for spec in defs.resolve_all_asset_specs():
        yield spec.description or ""
        columns = spec.metadata.get("dagster/column_schema")
        if isinstance(columns, dg.TableSchema):
            yield from (column.description or "" for column in columns.columns)
    for check in repository.asset_graph.asset_check_keys:
        yield repository.asset_graph.get_check_spec(check).description or ""


def _list_field_descriptions(config_type: Any) -> Iterator[str]:
    for field in getattr(config_type, "fields", {}).values():
        yield field.description or ""
        yield from _list_field_descriptions(field.config_type)


def test_the_descriptions_name_the_settings_of_the_owner(owned: tuple[Define, ShowName]) -> None:
    define, show = owned
    texts = list(_list_texts(define(timezone="Europe/Berlin")))
    assert len(texts) > 100
    assert [text for text in texts if "DLQ_" in text] == []
    whole = "\n".join(texts)
    for setting in ("report_uri", "dead_retention_days", "backlog_warn", "alert_urls", "probes"):
        assert f"`{show(setting)}`" in whole
    assert "in Europe/Berlin" in whole


def test_the_fields_of_the_component_name_each_other() -> None:
    schema = DeadLetterQueue.get_model_cls().model_json_schema()  # type: ignore[union-attr]
    described = schema["properties"].values()
    assert len(described) > 50
    assert [field for field in described if "DLQ_" in field.get("description", "")] == []
