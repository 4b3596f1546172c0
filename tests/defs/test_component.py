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

from dlq_pipelines import DeadLetterQueue
from dlq_pipelines.defs.component import build_outbox_name
from dlq_pipelines.settings import NAME_PATTERN

HOST = Path(__file__).resolve().parents[1] / "host"
DG = Path(sys.executable).parent / "dg"


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
    for folder in names:
        _run_dg(project, environment, "scaffold", "defs", "dlq_pipelines.DeadLetterQueue", folder)
    for folder, name in names.items():
        written = (project / "shop" / "defs" / folder / "defs.yaml").read_text(encoding="utf-8")
        attributes = yaml.safe_load(written)["attributes"]
        assert attributes["name"] == name
        assert attributes["database_url"] == f"{{{{ env.{name.upper()}_DATABASE_URL }}}}"
        assert attributes["schema_name"] == f"dlq_{name}"
    _run_dg(project, environment, "check", "defs")


def _run_dg(project: Path, environment: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(
        [DG, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
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
