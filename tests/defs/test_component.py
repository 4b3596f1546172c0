"""The component: the file that `dg` scaffolds, and paths that are relative to the project."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import yaml
from jsonschema import Draft202012Validator

from dlq_pipelines import DeadLetterQueue
from dlq_pipelines.defs.component import build_outbox_name
from dlq_pipelines.settings import NAME_PATTERN, SettingsError, build_settings

HOST = Path(__file__).resolve().parents[1] / "host"
DG = Path(sys.executable).parent / "dg"
# In one process: each start of `dg` takes seconds.
SCAFFOLD = """
import sys
from dagster_dg_cli.cli import cli
for folder in sys.argv[1:]:
    words = ["scaffold", "defs", "dlq_pipelines.DeadLetterQueue", folder]
    cli.main(words, standalone_mode=False)
"""


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("orders", "orders"),
        ("orders-eu", "orders_eu"),
        ("Orders EU", "orders_eu"),
        ("2fast", "outbox_2fast"),
        ("_private", "private"),
        ("Aufträge", "auftrage"),
        ("注文", "outbox"),
        ("x" * 40, "x" * 30),
        ("a" * 29 + "-b", "a" * 29),
        ('"; drop', "drop"),
    ],
)
def test_the_name_of_an_outbox_follows_its_folder_and_is_valid(folder: str, name: str) -> None:
    assert build_outbox_name(folder) == name
    assert re.fullmatch(NAME_PATTERN, name)


def test_dg_scaffolds_folders_with_odd_names_and_checks_them(tmp_path: Path) -> None:
    """`no` is a truth value of YAML."""
    project = tmp_path / "project"
    shutil.copytree(HOST, project)
    names = {"2fast": "outbox_2fast", "no": "no", "orders eu/big": "big"}
    environment = os.environ | {"PYTHONPATH": str(project)}
    environment |= {
        f"{name.upper()}_DATABASE_URL": "postgresql://127.0.0.1:1/x"
        for name in (*names.values(), "orders", "billing", "letters")
    }
    environment |= {"SHOP_HOME": str(tmp_path), "ORDERS_CANARY": "3"}
    _run_in_project(project, environment, sys.executable, "-c", SCAFFOLD, *names)
    for folder, name in names.items():
        written = (project / "shop" / "defs" / folder / "defs.yaml").read_text(encoding="utf-8")
        attributes = yaml.safe_load(written)["attributes"]
        assert attributes["name"] == name
        assert attributes["database_url"] == f"{{{{ env.{name.upper()}_DATABASE_URL }}}}"
        assert attributes["schema_name"] == f"dlq_{name}"
    _run_in_project(project, environment, DG, "check", "defs")


def _run_in_project(project: Path, environment: dict[str, str], *command: str | Path) -> None:
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _read_metadata(project: Path, asset: str, entry: str, **attributes: str) -> str:
    """Return what the catalog shows of an asset of a component in this project."""
    component = DeadLetterQueue(
        name="orders", **{"database_url": "postgresql://host/shop"} | attributes
    )
    context = replace(dg.ComponentTree.for_test().load_context, project_root=project)
    specs = component.build_defs(context).resolve_all_asset_specs()
    (found,) = [spec for spec in specs if spec.key.path[-1] == asset]
    return str(found.metadata[entry])


def test_a_relative_folder_is_below_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not below the folder in which a process of Dagster happens to start."""
    monkeypatch.chdir(tmp_path)

    def find_files(asset: str, **attributes: str) -> str:
        return _read_metadata(HOST, asset, "dagster/uri", **attributes)

    here, exports = HOST.as_uri(), "dead_events"
    assert find_files("dead_event_export") == f"{here}/.dlq/orders/exports/{exports}"
    assert find_files("failure_report") == f"{here}/.dlq/orders/reports"
    assert find_files("dead_event_export", export_uri="files") == f"{here}/files/{exports}"
    assert find_files("failure_report", report_uri="s3://bucket/x") == "s3://bucket/x"
    home = tmp_path / "home"
    assert find_files("failure_report", home=str(home)) == f"{home.as_uri()}/reports"


def test_a_mapping_file_is_found_below_the_project(tmp_path: Path) -> None:
    """Its table is in the catalog; a preset keeps its name."""
    (tmp_path / "letters.toml").write_text(
        'table = "mail.letter"\n[columns]\nid = "id"\n[dead]\nstate = "dead"\n', encoding="utf-8"
    )
    for mapping, table in (("letters.toml", "mail.letter"), ("oban", "public.oban_jobs")):
        shown = _read_metadata(
            tmp_path, "outbox_event", "dagster/table_name", outbox_mapping=mapping
        )
        assert shown == f"shop.{table}"


@pytest.mark.parametrize(
    ("attribute", "valid", "invalid"),
    [
        ("name", ["orders", "{{ env.NAME }}"], ["Orders", "2fast", "x" * 31]),
        ("canary", [1, 5000, "20", None, "{{ env.CANARY }}"], [0, 5001, -1, 1.5, "ten", [1]]),
        ("growth", [1, 2.5, "2.5"], [0.5, "fast"]),
        ("min_success", [1, 0.5], [0, 1.1]),
        ("probes", [True, "false"], [2, "maybe"]),
        ("retry_order", ["none"], ["fifo", 1]),
        ("export_formats", [["csv"], "csv, parquet"], [["csv", "xml"], "xml"]),
        ("partitions_start", ["2026-01-01"], ["1 January", "2026-1-1", "2026-13-01"]),
        ("timezone", ["UTC", "Europe/Berlin", "America/Argentina/Salta"], ["CET", "Berlin"]),
        ("export_hash_key", ["k" * 16], ["short"]),
    ],
)
def test_dg_check_yaml_refuses_what_the_settings_refuse(
    attribute: str, valid: list[object], invalid: list[object]
) -> None:
    """`dg` checks a file against this schema. The settings are checked where a run begins."""
    for values, is_valid in ((valid, True), (invalid, False)):
        for value in values:
            stated = {"name": "orders", "database_url": "x", attribute: value}
            assert _is_stated_well(stated) == is_valid, value
            if "{{" not in str(value) and not isinstance(value, list):
                assert _is_read(stated) == is_valid, value


@pytest.mark.parametrize(
    ("attributes", "is_valid"),
    [
        ({"owners": ["team:data", "a@example.com", "{{ env.OWNER }}"]}, True),
        ({"owners": ["data"]}, False),
        ({"owners": "team:data"}, False),
        ({"owners": "{{ env.OWNERS }}", "schedules": "{{ env.CRONS }}"}, True),
        ({"schedules": {"archive_daily": "0 4 * * *", "purge_weekly": None}}, True),
        ({"schedules": {"archive_daily": "{{ env.CRON }}", "export_daily": "@daily"}}, True),
        ({"schedules": {"archive_daily": "4"}}, False),
        ({"schedules": {"archive_nightly": "0 4 * * *"}}, False),
        ({"canarry": 1}, False),
    ],
)
def test_dg_check_yaml_knows_owners_and_schedules(
    attributes: dict[str, object], is_valid: bool
) -> None:
    assert _is_stated_well({"name": "orders", "database_url": "x", **attributes}) == is_valid


def _is_stated_well(attributes: dict[str, object]) -> bool:
    schema = DeadLetterQueue.get_model_cls().model_json_schema()  # type: ignore[union-attr]
    return bool(Draft202012Validator(schema).is_valid(attributes))


def _is_read(attributes: dict[str, object]) -> bool:
    try:
        build_settings(attributes)
    except SettingsError:
        return False
    return True


def test_every_attribute_of_the_component_has_a_description() -> None:
    """Dagster shows them with the component, and editors while a file is written."""
    schema = DeadLetterQueue.get_model_cls().model_json_schema()  # type: ignore[union-attr]
    assert [
        name for name, field in schema["properties"].items() if "description" not in field
    ] == []


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"OWNER": "team:data", "CRON": "0 4 * * *"}, ""),
        ({"OWNER": "team:data", "CRON": "61 4 * * *"}, "schedules: '61 4 * * *' of archive_daily"),
        ({"OWNER": "team:data"}, "schedules: '' of archive_daily is not a cron"),
        ({"OWNER": "nobody", "CRON": "0 4 * * *"}, "owners: 'nobody' is not an owner"),
        ({"CRON": "0 4 * * *"}, "owners: '' is not an owner"),
    ],
)
def test_a_wrong_variable_fails_the_runs_and_not_the_location(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], why: str
) -> None:
    """And an unset one leaves no schedule out, as null does."""
    for name in ("OWNER", "CRON"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    component = DeadLetterQueue.resolve_from_dict(
        {
            "name": "orders",
            "database_url": "postgresql://127.0.0.1:1/x",
            "home": str(tmp_path),
            "owners": ["{{ env.OWNER }}"],
            "schedules": {"archive_daily": "{{ env.CRON }}", "purge_weekly": None},
        },
    )
    defs = component.build_defs(dg.ComponentTree.for_test().load_context)
    names = {schedule.name for schedule in defs.get_repository_def().schedule_defs}
    assert "orders_archive_daily" in names
    assert "orders_purge_weekly" not in names
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("orders_check_outbox").execute_in_process(
            instance=instance, raise_on_error=False
        )
    failed = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    shown = str(failed[0].user_failure_data and failed[0].user_failure_data.description)
    assert shown.startswith("orders: ")
    assert why in shown
    assert bool(why) != ("Check database_url" in shown)
