"""What Dagster finds: complete, described, scheduled, and loadable by each command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlq_pipelines.definitions import defs
from dlq_pipelines.settings import list_setting_names

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
REPOSITORY = defs.get_repository_def()
ASSETS = {
    "outbox_event",
    "dead_event_causes",
    "dead_event_export",
    "failure_report",
    "dead_event_archive",
    "archive_purge",
}
CHECKS = {
    "backlog_is_small",
    "rollup_matches_ledger",
    "stages_match_ledger",
    "export_is_complete",
    "report_equals_ledger",
    "no_event_is_missing",
    "export_is_current",
    "report_is_current",
    "archive_has_every_column",
    "nothing_stays_too_long",
}
SCHEDULES = {
    "check_hourly": "15 * * * *",
    "export_daily": "30 0 * * *",
    "sample_daily": "0 2 * * *",
    "archive_daily": "0 3 * * *",
    "report_daily": "0 6 * * *",
    "purge_weekly": "0 4 * * 0",
    "clean_up_runs_daily": "0 5 * * *",
}


JOBS = {job.name: job for job in REPOSITORY.get_all_jobs() if not job.name.startswith("__")}
SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
MARKDOWN: dict[str, Any] = SPECS | JOBS
# The UI shows these texts unrendered.
PLAIN: dict[str, Any] = {schedule.name: schedule for schedule in REPOSITORY.schedule_defs} | {
    sensor.name: sensor for sensor in REPOSITORY.sensor_defs
}
DESCRIBED = MARKDOWN | PLAIN
GRAPH = REPOSITORY.asset_graph


def test_nothing_is_missing_from_the_catalog() -> None:
    assert set(SPECS) == ASSETS
    assert len(JOBS) == 15
    assert {key.name for key in GRAPH.asset_check_keys} == CHECKS
    assert {schedule.name for schedule in REPOSITORY.schedule_defs} == set(SCHEDULES)
    assert {sensor.name for sensor in REPOSITORY.sensor_defs} == {
        "new_death_sensor",
        "fix_flag_sensor",
        "probe_sensor",
        "dead_event_alert_sensor",
    }


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_every_definition_describes_itself(
    name: str,
) -> None:
    """Each has a summary, when it runs, what it changes and how to rerun it, and an owner."""
    assert all(len(part) > 10 for part in _split_description(name)), _split_description(name)
    assert DESCRIBED[name].owners == ["team:data-platform"]


def _split_description(name: str) -> list[str]:
    """Return the summary, When, Changes and Rerun of a definition."""
    text, parts = DESCRIBED[name].description or "", ("When", "Changes", "Rerun")
    if name in MARKDOWN:
        return _parts(text, *parts)
    found = re.fullmatch(r"([^`*\n]+) When: ([^`*\n]+) Changes: ([^`*\n]+) Rerun: ([^`*\n]+)", text)
    assert found, text
    return list(found.groups())


@pytest.mark.parametrize(
    "key", sorted(GRAPH.asset_check_keys, key=str), ids=lambda key: str(key.name)
)
def test_every_check_describes_its_failure_and_the_remedy(key: dg.AssetCheckKey) -> None:
    parts = _parts(GRAPH.get_check_spec(key).description, "Failure", "To do")
    assert all(len(part) > 10 for part in parts), parts


CATALOG = """
import json
from dlq_pipelines.definitions import defs
specs = defs.resolve_all_asset_specs()
print(json.dumps({s.key.to_user_string(): [
    s.metadata.get("dagster/table_name"), s.metadata.get("dagster/uri"), sorted(s.kinds),
    s.group_name, len(s.metadata["dagster/column_schema"].columns),
    s.freshness_policy is not None] for s in specs}))
"""
OF_A_SERVER = {
    "DLQ_DATABASE_URL": "postgresql://ann:s3cr3t@db.example.com/shop",
    "DLQ_EXPORT_URI": "s3://key:s3cr3t@bucket/dlq?region=eu-central-1",
    "DLQ_REPORT_URI": "/srv/reports",
    "DLQ_HOME": "/var/lib/dlq",
}


@pytest.mark.parametrize(
    ("given", "database", "server", "exports", "reports"),
    [
        (
            OF_A_SERVER,
            "shop",
            "db.example.com:5432",
            "s3://bucket/dlq/dead_events",
            "file:///srv/reports",
        ),
        (
            {"DLQ_HOME": "/var/lib/dlq"},
            "outbox",
            None,
            "file:///var/lib/dlq/exports/dead_events",
            "file:///var/lib/dlq/reports",
        ),
        (
            {"DLQ_HOME": "/var/lib/dlq", "DLQ_DATABASE_URL": "host=a,b dbname=shop"},
            "shop",
            None,
            "file:///var/lib/dlq/exports/dead_events",
            "file:///var/lib/dlq/reports",
        ),
    ],
    ids=["a server", "the embedded one", "several servers"],
)
def test_the_catalog_is_full_before_any_run(
    given: dict[str, str], database: str, server: str | None, exports: str, reports: str
) -> None:
    """Table, address, columns, kinds, group and freshness, from the settings, without secrets."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DLQ_")
    } | given
    done = subprocess.run(
        [sys.executable, "-c", CATALOG],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "s3cr3t" not in done.stdout

    def table(name: str) -> list[str | None]:
        return [
            f"{database}.{name}",
            f"postgresql://{server}/{database}#{name}" if server else None,
        ]

    assert json.loads(done.stdout) == {
        "outbox_event": [*table("public.outbox_event"), ["postgres"], "dead_letters", 11, False],
        "dead_event_causes": [
            *table("dlq.cause"),
            ["postgres", "python"],
            "dead_letters",
            14,
            True,
        ],
        "dead_event_export": [None, exports, ["parquet", "postgres"], "dead_letters", 15, False],
        "failure_report": [
            table("dlq.report_day")[0],
            reports,
            ["pandas", "postgres"],
            "dead_letters",
            6,
            False,
        ],
        "dead_event_archive": [
            *table("dlq.archived"),
            ["postgres"],
            "dead_letters",
            13,
            True,
        ],
        "archive_purge": [
            *table("dlq.archived"),
            ["postgres"],
            "dead_letters",
            13,
            True,
        ],
    }


def test_the_catalog_has_the_lineage_of_columns_and_links_to_the_code() -> None:
    """Every column of the lineage is one that the asset and its source have."""
    lineages = 0
    for name, spec in SPECS.items():
        if name != "outbox_event":
            assert "dagster/code_references" in spec.metadata, name
        lineage = spec.metadata.get("dagster/column_lineage")
        if lineage is None:
            continue
        lineages += 1
        own = {column.name for column in spec.metadata["dagster/column_schema"].columns}
        for column, sources in lineage.deps_by_column.items():
            assert column in own, (name, column)
            for source in sources:
                of = SPECS[source.asset_key.to_user_string()].metadata["dagster/column_schema"]
                assert source.column_name in {found.name for found in of.columns}
    assert lineages == 4


def test_no_sentence_is_in_two_descriptions() -> None:
    """A sentence that fits every definition describes none."""
    sentences = [
        sentence
        for name in DESCRIBED
        for part in _split_description(name)
        for sentence in re.split(r"(?<=[.:]) ", part)
        if len(sentence) > 60
    ]
    assert len(sentences) == len(set(sentences)), sorted(
        one for one in set(sentences) if sentences.count(one) > 1
    )


def test_every_description_names_existing_settings_and_definitions() -> None:
    """A renamed job or variable must be renamed there too."""
    known = {f"DLQ_{name.upper()}" for name in list_setting_names()}
    for name, one in DESCRIBED.items():
        assert set(re.findall(r"DLQ_[A-Z_]+", one.description)) <= known, name
        word = r"`([a-z]+_[a-z_]+)`" if name in MARKDOWN else r"(?<![.\w])([a-z]+_[a-z_]+)"
        assert set(re.findall(word, one.description)) - {"dry_run", "next_run_at"} <= set(
            DESCRIBED
        ), name


def _parts(text: str | None, *names: str) -> list[str]:
    """Return the summary and the items of the list, which must have these names in order."""
    first, *items = re.split(r"\n+- ", text or "")
    assert [item.partition(":**")[0] for item in items] == [f"**{name}" for name in names], text
    return [first, *(" ".join(item.partition(":**")[2].split()) for item in items)]


def test_schedules_run_at_their_hours_and_are_stopped_by_default() -> None:
    """A laptop must not archive production: DLQ_AUTOSTART starts them."""
    found = {schedule.name: schedule for schedule in REPOSITORY.schedule_defs}
    assert {name: schedule.cron_schedule for name, schedule in found.items()} == SCHEDULES
    statuses = {schedule.default_status.value for schedule in found.values()}
    statuses |= {sensor.default_status.value for sensor in REPOSITORY.sensor_defs}
    assert statuses == {"STOPPED"}


def test_the_time_zone_and_the_start_are_the_settings() -> None:
    """They are read when the definitions load."""
    code = (
        "import json; from dlq_pipelines.definitions import defs; r = defs.get_repository_def();"
        "print(json.dumps([[s.execution_timezone, s.default_status.value] for s in r.schedule_defs]"
        " + [[defs.resolve_assets_def('failure_report').partitions_def.timezone,"
        " r.sensor_defs[0].default_status.value]]))"
    )
    given = os.environ | {"DLQ_TIMEZONE": "Europe/Berlin", "DLQ_AUTOSTART": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=given,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert json.loads(done.stdout) == [["Europe/Berlin", "RUNNING"]] * 8


def test_dg_lists_the_definitions(tmp_path: Path) -> None:
    """In the project's root, without a database. `make check` runs the commands that check them."""
    given = os.environ | {
        "DAGSTER_HOME": str(tmp_path),
        "DLQ_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    }
    done = subprocess.run(
        [BIN / "dg", "list", "defs", "--json"],
        env=given,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(asset in done.stdout for asset in ASSETS)


def test_no_definition_route_or_command_runs_a_statement_itself() -> None:
    """Each calls a function of a concept's folder, which runs the statement."""
    package = ROOT / "dlq_pipelines"
    files = [
        package / "definitions.py",
        *(file for face in ("defs", "cli", "api") for file in package.glob(f"{face}/**/*.py")),
    ]
    assert len(files) > 40
    # Health asks whether the database answers, which is no statement of a concept.
    statements = {
        file.name: found
        for file in files
        if (
            found := re.findall(
                r'\.(?:run|fetch_one|execute)\(\s*"([^"]+)"', file.read_text("utf-8")
            )
        )
    }
    assert statements == {"health.py": ["session.ping"]}
