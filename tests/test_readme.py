"""Tests that the README is true: its commands run, its names and figures are those of the code."""

import re
import subprocess
import tomllib
from pathlib import Path

import dagster as dg

from dlq_pipelines.definitions import defs
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.settings import Settings
from tests.cli.test_main import _seed
from tests.rows import add_events, one
from tests.test_docs import blocks, play

ROOT = Path(__file__).parents[1]
QUICK_START, FIX = "Quick start", "What a fix does"
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [
    line.partition("#")[0].strip()
    for language, text in BLOCKS
    if language in {"", "text"}
    for line in text.splitlines()
]
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`([^`\n]+)`", PROSE)
TARGETS = {
    found[1]
    for line in (*SHELL, *INLINE)
    if (found := re.match(r"(?:\w+=\w+ )?make ([a-z-]+)", line))
}


def test_the_quick_start_builds_a_report(empty_database: Database, tmp_path: Path) -> None:
    """On an application's outbox that already has dead events, with the commands as printed."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        add_events(connection, 3)
        connection.execute(
            "update outbox_event set status = 'dead', next_run_at = now() - interval '1 day'"
        )
        play(ROOT / "README.md", empty_database, tmp_path, languages=("sh",), under=QUICK_START)
        reports = (tmp_path / "dlq" / "reports").rglob("*.html")
        pages = [path.read_text(encoding="utf-8") for path in reports]
        assert any("3 deaths" in page for page in pages), pages
        classified = one(connection, "select count(*) from dlq.death where cause_id is not null")
        assert classified == {"count": 3}
        connection.execute("update outbox_event set status = 'pending' where id = 1")
        connection.execute("update outbox_event set status = 'dead' where id = 1")
        deaths = one(connection, "select count(*) from dlq.death where event_id = 1")
        assert deaths == {"count": 2}


def test_a_fix_is_flagged_from_the_command_line_and_in_sql(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """The role of the SQL snippet can flag a fix with the grants of the snippet alone."""
    _seed(connection)
    connection.execute("truncate dlq.fix restart identity cascade")
    play(ROOT / "README.md", database, tmp_path, languages=("sh",), under=FIX)
    assert one(connection, "select id, note from dlq.fix") == {"id": 1, "note": "fixed in v42"}

    connection.execute("truncate dlq.fix restart identity cascade")
    ((_, text),) = blocks(ROOT / "README.md", ("sql",), under=FIX)
    *granting, flagging = text.split(";\n")[:-1]
    with connection.transaction(force_rollback=True):  # a role belongs to the whole server
        for statement in granting:
            connection.execute(statement.encode())
        connection.execute("set local session authorization checkout_team")
        connection.execute(flagging.encode())
        connection.execute("reset session authorization")
        assert one(connection, "select flagged_by, note from dlq.fix") == {
            "flagged_by": "checkout_team",
            "note": "fixed in v42",
        }


def test_every_make_target_of_the_readme_exists() -> None:
    helped = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = dict(re.findall(r"^  make (\S+) +(\S.*)$", helped, re.MULTILINE))
    assert {"install", "demo", "test", "up"} <= TARGETS <= targets.keys()
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def test_every_phony_target_has_a_help_text() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))


def test_every_path_of_the_readme_exists() -> None:
    paths = [word for word in INLINE if re.fullmatch(r"[\w./-]+\.(py|sql|yaml|md)", word)]
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_readme_lists_every_schedule_with_its_time() -> None:
    daily = re.findall(r"^\| (\d\d):(\d\d) \|", README, re.MULTILINE)
    hourly = re.findall(r"^\| hourly, at :(\d\d) \|", README, re.MULTILINE)
    sundays = re.findall(r"^\| Sunday (\d\d):(\d\d) \|", README, re.MULTILINE)
    listed = {
        *(f"{int(minute)} {int(hour)} * * *" for hour, minute in daily),
        *(f"{int(minute)} {int(hour)} * * 0" for hour, minute in sundays),
        *(f"{int(minute)} * * * *" for minute in hourly),
    }
    crons = {
        schedule.cron_schedule
        for schedule in defs.get_repository_def().schedule_defs
        if isinstance(schedule, dg.ScheduleDefinition)
    }
    assert listed == crons


def test_the_figures_of_the_readme_are_the_defaults() -> None:
    settings = Settings.model_construct()
    text = " ".join(README.split())
    assert (settings.canary, settings.growth, settings.min_success) == (10, 10.0, 0.9)
    assert (settings.retry_rate, settings.max_retries) == (50.0, 3)
    for words in (
        "releases 10 events",
        "90 % of its events are delivered",
        "10 times larger",
        "at 50 a second",
        "after 3 retries",
    ):
        assert words in text


def test_every_name_in_the_picture_is_an_asset_job_or_sensor() -> None:
    flow = (ROOT / "docs" / "images" / "flow.svg").read_text(encoding="utf-8")
    repository = defs.get_repository_def()
    known = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    known |= {job.name for job in repository.get_all_jobs()}
    known |= {sensor.name for sensor in repository.sensor_defs}
    shown = set(re.findall(r"<text [^>]*>([a-z]+(?:_[a-z]+)+)<", flow))
    assert shown <= known
    assert len(shown) == 8


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_the_python_versions_of_the_readme_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first, last = re.findall(r"Python (3\.\d+) to (3\.\d+)", README)[0]
    assert project["requires-python"] == f">={first},<3.{int(last[2:]) + 1}"
    versions = [
        name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)
    ]
    assert (versions[0], versions[-1]) == (first, last)
