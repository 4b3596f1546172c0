"""Is the README true? Its snippets run, its commands and targets exist, its figures are the program's."""

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
TOUR, MENDED = "Ten minutes on your own outbox", "When a cause is mended"
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
(PYTHON,) = (text for language, text in BLOCKS if language == "python")
SHELL = [
    line.partition("#")[0].strip()
    for language, text in BLOCKS
    if not language
    for line in text.splitlines()
]
INLINE = re.findall(
    r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
)
TARGETS = {line.split()[1] for line in (*SHELL, *INLINE) if line.startswith("make ")}


def test_the_worker_of_the_readme_delivers_and_reports(
    database: Database, connection: Connection
) -> None:
    """Run as it is printed, with a `deliver` that fails on every third event."""
    add_events(connection, 6)
    delivered = []

    def deliver(event: object) -> None:
        if event.id % 3 == 0:  # type: ignore[attr-defined]
            raise RuntimeError("the parcel is too heavy")
        delivered.append(event.id)  # type: ignore[attr-defined]

    snippet, addresses = re.subn(r'"postgresql://[^"]*"', repr(database.url), PYTHON)
    assert addresses == 1
    exec(compile(snippet, "README.md", "exec"), {"deliver": deliver})  # noqa: S102 - that is what is tested

    rows = connection.execute(
        "select id, status, attempts, last_error from outbox_event order by id"
    ).fetchall()
    assert [(row["id"], row["status"], row["attempts"]) for row in rows] == [
        (n, "retry" if n % 3 == 0 else "done", 1) for n in range(1, 7)
    ]
    assert delivered == [1, 2, 4, 5]
    assert "the parcel is too heavy" in rows[2]["last_error"]
    assert 'File "README.md"' in rows[2]["last_error"]


def test_the_tour_of_the_readme_leads_to_a_report(empty_database: Database, tmp_path: Path) -> None:
    """On an application's outbox in which something is dead already, with the commands as they are printed."""
    with empty_database.connect() as connection:
        create_host_tables(connection)
        add_events(connection, 3)
        connection.execute(
            "update outbox_event set status = 'dead', next_run_at = now() - interval '1 day'"
        )
        play(ROOT / "README.md", empty_database, tmp_path, languages=("sh",), under=TOUR)
        pages = [
            path.read_text(encoding="utf-8")
            for path in (tmp_path / "dlq" / "reports").rglob("*.html")
        ]
        assert any("3 deaths" in page for page in pages), pages
        assert one(connection, "select count(*) from dlq.death where cause_id is not null") == {
            "count": 3
        }
        connection.execute("update outbox_event set status = 'pending' where id = 1")
        connection.execute("update outbox_event set status = 'dead' where id = 1")
        assert one(connection, "select count(*) from dlq.death where event_id = 1") == {"count": 2}


def test_a_fix_is_flagged_as_the_readme_says(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """By a person with the command line, and by a team whose account can do that and nothing else."""
    _seed(connection)
    connection.execute("truncate dlq.fix restart identity cascade")
    play(ROOT / "README.md", database, tmp_path, languages=("sh",), under=MENDED)
    assert one(connection, "select id, note from dlq.fix") == {"id": 1, "note": "mended in v42"}

    connection.execute("truncate dlq.fix restart identity cascade")
    ((_, text),) = blocks(ROOT / "README.md", ("sql",), under=MENDED)
    *granting, flagging = text.split(";\n")[:-1]
    with connection.transaction(force_rollback=True):  # a role is the whole server's
        for statement in granting:
            connection.execute(statement.encode())
        connection.execute("set local session authorization checkout_team")
        connection.execute(flagging.encode())
        connection.execute("reset session authorization")
        assert one(connection, "select flagged_by, note from dlq.fix") == {
            "flagged_by": "checkout_team", "note": "mended in v42",
        }  # fmt: skip


def test_every_target_of_the_readme_is_in_make_help_and_can_be_made() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    helped = dict(re.findall(r"^  make (\S+) +(\S.*)$", shown, re.MULTILINE))
    assert {"demo", "test", "up"} <= TARGETS <= helped.keys()
    for target in helped:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def test_every_phony_target_has_a_help_text() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))


def test_every_path_of_the_readme_exists() -> None:
    paths = [word for word in INLINE if re.fullmatch(r"[\w./-]+\.(py|sql|yaml|md)", word)]
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_schedules_of_the_readme_are_those_of_the_definitions() -> None:
    """A row each, at the same times."""
    times = {
        text: f"{int(text[3:])} {int(text[:2])} * * *"
        for text in re.findall(r"^\| (\d\d:\d\d) \|", README, re.MULTILINE)
    }
    minutes = re.findall(r"^\| every (\d+) minutes \|", README, re.MULTILINE)
    sundays = re.findall(r"^\| Sunday (\d\d):(\d\d) \|", README, re.MULTILINE)
    crons = {
        schedule.cron_schedule
        for schedule in defs.get_repository_def().schedule_defs
        if isinstance(schedule, dg.ScheduleDefinition)
    }
    weekly = (f"{int(minute)} {int(hour)} * * 0" for hour, minute in sundays)
    assert {*times.values(), *(f"*/{n} * * * *" for n in minutes), *weekly} == crons


def test_the_figures_of_the_readme_are_the_defaults() -> None:
    settings = Settings.model_construct()
    said = " ".join(README.split())
    assert (settings.canary, settings.min_success, settings.retry_rate) == (10, 0.9, 50.0)
    for words in ("releases ten events", "nine in ten of them are delivered", "at 50 a second"):
        assert words in said


def test_the_names_in_the_flow_are_assets_jobs_and_sensors() -> None:
    """Every name with an underscore in the picture is something that Dagster shows."""
    flow = (ROOT / "docs" / "images" / "flow.svg").read_text(encoding="utf-8")
    repository = defs.get_repository_def()
    known = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    known |= {thing.name for thing in (*repository.get_all_jobs(), *repository.sensor_defs)}
    shown = set(re.findall(r"<text [^>]*>([a-z]+(?:_[a-z]+)+)<", flow))
    assert shown <= known
    assert len(shown) == 8
    assert "flag_fix" in known & set(INLINE)


def test_the_pythons_of_the_readme_are_those_that_install_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first, last = re.findall(r"Python (3\.\d+) to (3\.\d+)", README)[0]
    assert project["requires-python"] == f">={first},<3.{int(last[2:]) + 1}"
