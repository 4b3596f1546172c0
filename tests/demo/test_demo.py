"""`dlq demo`, killed once and continued: its output, its rows and its files.

Each closing figure is compared with the test's own SQL.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import time as time_of_day
from pathlib import Path

import dagster as dg
import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.conninfo import make_conninfo

from dlq_pipelines.installation import create_tables, prepare_dagster
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings
from tests.databases import with_dagster
from tests.demo.test_handlers import LAST_LINE, _matches
from tests.noon import find_noon_zone
from tests.rows import one

EVENTS = 4000
ZONE = find_noon_zone()
PLAY = f"""
import sys
from dlq_pipelines.demo.demo import play_demo
from dlq_pipelines.settings import read_settings
play_demo(read_settings(), reset="--reset" in sys.argv, events={EVENTS})
"""
# A row keeps the number of its transaction in xmin until it is changed, and nothing changes these.
WITNESS = """
    create table witness (event_id bigint primary key);
    create function witness() returns trigger language plpgsql as
        'begin insert into public.witness values (new.id); return null; end';
    create trigger witness after insert on outbox_event for each row execute function witness();
"""
# The deaths of days that are over, in the demo's time zone.
PAST = f"""
    select died_at at time zone '{ZONE}' as died_at from dlq.death
    where died_at < date_trunc('day', now(), '{ZONE}')
"""
# Business rows that no handler has changed because their events died, by their payload field.
UNTOUCHED = {
    ("newsletter.sent", "mail"): "select number as name, xmin from shop_mail where sent_at is null",
    (
        "prices.received",
        "list",
    ): "select number as name, xmin from shop_price_list where prices is null",
    (
        "stock.reserved",
        "slip",
    ): "select slip as name, xmin from shop_stock_movement where booked_by = 'hand'",
}


@dataclass(frozen=True)
class Demo:
    """The demo's installation and its output: on a terminal until the kill, then to a pipe."""

    database: Database
    home: Path
    dagster: str
    environment: Mapping[str, str]
    shown: str
    output: str

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the demo again."""
        return _start(self.environment, *arguments)


@pytest.fixture(scope="module")
def demo(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Kill the demo in the middle of a Dagster run, then play it to its end."""
    home = tmp_path_factory.mktemp("demo") / "dlq"
    with with_dagster(server_url) as url:
        database = Database(url)
        create_tables(database)
        with database.connect() as connection:
            connection.execute(WITNESS.encode())
            dagster = make_conninfo(server_url, dbname=f"{connection.info.dbname}_dagster")
            environment = dict(os.environ) | {
                "DLQ_DATABASE_URL": url,
                "DLQ_HOME": str(home),
                "DLQ_TIMEZONE": ZONE,
                "TERM": "xterm",
            }
            with _terminal() as (terminal, shown):
                killed = _start(environment, output=terminal)
                _wait_for(lambda: _in_a_run_after_the_second_export(connection, dagster), killed)
                killed.kill()
                killed.wait()
        output, _ = (again := _start(environment)).communicate()
        assert again.returncode == 0, output
        yield Demo(database, home, dagster, environment, "".join(shown), output)


@pytest.fixture
def connection(demo: Demo) -> Iterator[Connection]:
    """To the demo's own database."""
    with demo.database.connect() as opened:
        yield opened


@pytest.fixture
def instance(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of that home, as `dlq up` opens it."""
    for name in ("DLQ_DATABASE_URL", "DLQ_HOME"):
        monkeypatch.setenv(name, demo.environment[name])
    for name, value in prepare_dagster(Settings()).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as opened:
        yield opened


def test_the_closing_figures_are_the_tables(demo: Demo, connection: Connection) -> None:
    """Every figure is counted again."""
    tables = {
        "deaths": "select count(*) from dlq.death",
        "events": "select count(distinct event_id) from dlq.death",
        "causes": "select count(distinct cause_id) from dlq.death",
        "exported": f"select count(*) from ({PAST}) past",
        "days": f"select count(distinct died_at::date) from ({PAST}) past",
        "retried": "select count(*) from dlq.retry",
        "delivered": "select count(*) from dlq.retry join outbox_event e on e.id = event_id"
        " where e.status = 'done'",
        "again": "select count(*) - count(distinct event_id) from dlq.death",
        "archived": "select count(*) from dlq.archived",
        "dead": "select count(*) from outbox_event where status = 'dead'",
        "done": "select count(*) from outbox_event where status = 'done'",
        "waiting": "select count(*) from outbox_event where status not in ('done', 'dead')",
    }
    figures = re.findall(r"\d[\d,]*", demo.output.partition("\n\n")[2].partition("Fix 1")[0])
    printed = dict(zip(tables, (int(figure.replace(",", "")) for figure in figures), strict=True))
    assert printed == {
        name: next(iter(one(connection, statement).values())) for name, statement in tables.items()
    }
    assert printed["causes"] == 9
    assert printed["days"] == 14
    assert printed["waiting"] == 0
    assert (
        printed["dead"] + printed["done"] + printed["archived"]
        == one(connection, "select count(*) from witness")["count"]
    )
    assert abs(one(connection, "select count(*) from witness")["count"] - EVENTS) <= 14


def test_a_terminal_shows_bars_and_nothing_of_dagsters_log(demo: Demo) -> None:
    """Each line that was drawn belongs to one of the three bars that were started."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", demo.shown)
    lines = {line.partition("  ")[0] for line in re.split(r"[\r\n]+", plain) if line.strip()}
    assert lines == {
        "Playing the shop's days: orders, events, workers",
        "Trying two flagged fixes: sensor, runs, workers",
        "Classifying, exporting and reporting all days",
    }
    assert "14/14" in plain


def test_every_step_is_announced_where_the_output_is_piped(demo: Demo) -> None:
    """Dagster's log is in its own file."""
    assert [line for line in demo.output.splitlines() if line.endswith(" ...")] == [
        "Playing the shop's days: orders, events, workers ...",
        "Trying two flagged fixes: sensor, runs, workers ...",
        "Classifying, exporting and reporting all days ...",
        "Archiving old events, checking the outbox ...",
    ]
    assert "RUN_SUCCESS" not in demo.output
    assert "RUN_SUCCESS" in (demo.home / "demo.log").read_text()


@pytest.mark.parametrize(("event_type", "field"), UNTOUCHED)
def test_business_rows_and_their_events_were_written_in_one_transaction(
    connection: Connection, event_type: str, field: str
) -> None:
    """The business row has the transaction in which its event was inserted."""
    rows = connection.execute(
        f"select business.xmin = w.xmin as same from ({UNTOUCHED[event_type, field]}) business"
        f" join ({_everywhere(connection)}) e on e.event_type = %s and e.payload ->> %s ="
        " business.name"
        " join witness w on w.event_id = e.id",
        [event_type, field],
    ).fetchall()
    died = one(connection, f"select count(*) from dlq.death where event_type = '{event_type}'")[
        "count"
    ]
    assert len(rows) == died > 0
    assert all(row["same"] for row in rows)


def test_every_death_has_the_genuine_traceback_of_its_exception(connection: Connection) -> None:
    """Ten faults of nine causes, each after five attempts; a dead event has its last error."""
    causes: dict[str, set[str]] = {}
    for death in connection.execute("select event_type, attempts, error, cause_id from dlq.death"):
        (fault,) = (
            fault
            for fault, (event_type, last) in LAST_LINE.items()
            if event_type == death["event_type"] and _matches(last, death["error"])
        )
        causes.setdefault(fault, set()).add(death["cause_id"])
        assert death["error"].startswith("Traceback (most recent call last):\n")
        assert "handlers.py" in death["error"]
        assert death["attempts"] == 5
    assert causes.keys() == LAST_LINE.keys()
    assert [len(ids) for ids in causes.values()] == [1] * 10
    assert len(set().union(*causes.values())) == 9
    same = connection.execute(
        f"select e.last_error = d.error as same from ({_everywhere(connection)}) e"
        " join dlq.dead_event d on d.event_id = e.id where e.status = 'dead'"
    ).fetchall()
    assert len(same) > 100
    assert all(row["same"] for row in same)


def test_the_true_fix_is_verified_and_the_false_one_halted_at_its_canary(
    demo: Demo, connection: Connection
) -> None:
    _, true, false = connection.execute(
        "select f.status, c.status as cause, f.stage, max(k.status) as detail,"
        " array_agg(r.outcome::text) as outcomes,"
        " count(*) filter (where r.stage = 1) as canary,"
        " (select count(*) from dlq.death d where d.cause_id = f.cause_id and d.died_at <"
        " f.flagged_at and d.detail = coalesce(f.detail, d.detail)) as targets"
        " from dlq.fix f join dlq.cause c on c.id = f.cause_id join dlq.retry r on r.fix_id = f.id"
        " left join dlq.cause_detail k on (k.cause_id, k.detail) = (f.cause_id, f.detail)"
        " group by f.id, c.id order by f.id"
    ).fetchall()
    assert (true["status"], true["cause"], true["detail"], true["stage"], true["canary"]) == (
        "verified",
        "open",
        "fixed",
        2,
        10,
    )
    assert one(connection, "select status from dlq.cause_detail where detail = 'sku'") == {
        "status": "open"
    }
    assert true["outcomes"] == ["delivered"] * true["targets"]
    assert (false["status"], false["cause"], false["stage"]) == ("halted", "open", 1)
    # Two of ten decide. What no worker had taken then is recalled.
    recalled = one(connection, "select count(*) from dlq.recalled where fix_id = 3")["count"]
    assert false["canary"] + recalled == 10
    assert one(
        connection,
        "select count(*) from dlq.recalled r join dlq.fix f on f.id = r.fix_id"
        " where r.retried_at < f.flagged_at or r.recalled_at > f.closed_at + interval '1 minute'",
    ) == {"count": 0}
    assert false["outcomes"] == ["died_again"] * false["canary"]
    assert false["targets"] > 10
    assert one(connection, "select count(*) from shop_parcel where label is null")["count"] == 0
    assert re.search(
        rf"Fix 2 by shipping-team .*: VERIFIED after {true['targets']} events;", demo.output
    )
    assert re.search(
        r"Fix 3 by payments-team .*: HALTED after 10 events; stage 1: \d+ of \d+ failed",
        demo.output,
    )


def test_the_fix_of_the_first_week_is_verified_and_its_cause_regresses(
    demo: Demo, connection: Connection
) -> None:
    """On the evening of its day; the last day's release wrote to the old ledger again."""
    found = one(
        connection,
        "select f.status, c.status as cause, f.flagged_by,"
        f" (f.flagged_at at time zone '{ZONE}')::time as flagged,"
        f" (now() at time zone '{ZONE}')::date - (f.flagged_at at time zone '{ZONE}')::date as ago,"
        " (select count(*) from dlq.retry r where r.fix_id = f.id and r.outcome = 'delivered'"
        "     and r.retried_at >= f.flagged_at and r.settled_at <= f.closed_at) as delivered,"
        " (select count(*) from dlq.retry r where r.fix_id = f.id) as released"
        " from dlq.fix f join dlq.cause c on c.id = f.cause_id where f.id = 1",
    )
    assert (found["status"], found["cause"]) == ("verified", "regressed")
    assert found["flagged"] == time_of_day(22)
    assert found["ago"] == 7
    assert found["delivered"] == found["released"] > 20
    assert "Fix 1 by invoicing-team" in demo.output


def test_the_report_of_the_last_day_shows_the_whole_story(demo: Demo) -> None:
    """What is new, with its release, what is back, and what the fixes proved.

    This demo is too small for causes that rise.
    """
    path = max((demo.home / "reports").glob("*-*-*.json"))
    report = json.loads(path.read_text())
    states = {cause["title"]: cause["state"] for cause in report["causes"]}
    (new,) = (cause for cause in report["causes"] if cause["state"] == "new")
    assert "UnknownTaxCodeError: no rate for tax code" in new["title"]
    assert new["beginning"] == "6 minutes after webshop v43"
    (regressed,) = (title for title, state in states.items() if state == "regressed")
    assert "Connection refused" in regressed
    assert {(fix["status"], fix["flagged_by"]) for fix in report["fixes"]} == {
        ("verified", "shipping-team"),
        ("halted", "payments-team"),
    }


def test_its_runs_and_assets_are_in_the_instance_that_dlq_up_opens(
    connection: Connection, instance: dg.DagsterInstance
) -> None:
    """The killed run is deleted, every change names its run, every day has its partition."""
    runs = {run.run_id: run for run in instance.get_runs()}
    assert {run.status for run in runs.values()} == {dg.DagsterRunStatus.SUCCESS}
    assert {run.tags["dlq/demo"] for run in runs.values()} == {"true"}
    jobs = {run.job_name for run in runs.values()}
    assert jobs == {
        "classify_deaths",
        "export_day",
        "build_report",
        "flag_fix",
        "retry_stage",
        "archive_dead_events",
        "check_outbox",
    }
    changes = connection.execute(
        "select kind, run_id from dlq.audit where kind not like 'demo.%'"
        " and kind not like '%.regressed' and actor not in ('invoicing-team', 'deploy-bot')"
    ).fetchall()
    assert {row["kind"] for row in changes} >= {
        "fix.flag",
        "retry.stage",
        "fix.verified",
        "fix.halted",
    }
    assert {row["run_id"] for row in changes} <= set(runs)
    days = {
        row["day"].isoformat()
        for row in connection.execute("select day from dlq.export_day").fetchall()
    }
    for asset in ("dead_event_export", "failure_report"):
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == days


def test_the_report_and_the_export_that_it_prints_exist_and_open(
    demo: Demo, connection: Connection
) -> None:
    """Those of yesterday have the deaths of the ledger."""
    report, export = (
        Path(re.findall(rf"{name}: +(/.*)", demo.output)[0]) for name in ("A report", "An export")
    )
    day = report.stem
    died = connection.execute(
        f"select event_id from dlq.death where (died_at at time zone '{ZONE}')::date = %s"
        " order by 1",
        [day],
    ).fetchall()
    assert export.parent.name == f"died_on={day}"
    assert sorted(pq.read_table(export)["event_id"].to_pylist()) == [
        row["event_id"] for row in died
    ]
    text = re.sub("<[^>]*>", " ", report.read_text(encoding="utf-8"))
    assert re.search(rf"\b{len(died)}\b", text)
    assert "JSONDecodeError" in text
    exported = sum(
        pq.read_metadata(file).num_rows
        for file in demo.home.glob("exports/dead_events/*/*.parquet")
    )
    assert exported == one(connection, "select sum(rows)::int as rows from dlq.export_day")["rows"]


def test_playing_it_again_shows_the_same_and_changes_no_table(
    demo: Demo, connection: Connection
) -> None:
    before, runs = _counts(connection), _count_of_runs(demo)
    output, _ = (again := demo.start()).communicate()
    assert again.returncode == 0
    assert output.startswith("The demo was played before")
    assert output.partition("\n\n")[2] == demo.output.partition("\n\n")[2]
    assert _counts(connection) == before
    assert _count_of_runs(demo) == runs


def test_a_demo_whose_files_are_in_another_home_is_refused(
    demo: Demo, connection: Connection, tmp_path: Path
) -> None:
    """The same database and a new home: old figures would describe files that are not there."""
    before = _counts(connection)
    elsewhere = {**demo.environment, "DLQ_HOME": str(tmp_path)}
    output, _ = (again := _start(elsewhere)).communicate()
    assert again.returncode != 0
    assert f"its reports and exports are not in {tmp_path.resolve()}" in output
    assert "`dlq demo --reset` deletes that demo and plays it again" in output
    assert "deaths" not in output
    assert _counts(connection) == before


def test_a_database_with_tables_of_an_application_is_refused(
    demo: Demo, empty_database: Database
) -> None:
    """Before anything is created, whatever the tables are called."""
    with empty_database.connect() as connection:
        connection.execute("create schema shop; create table shop.jobs (id uuid primary key)")
    output, _ = (
        started := _start({**demo.environment, "DLQ_DATABASE_URL": empty_database.url})
    ).communicate()
    assert started.returncode != 0
    assert "The demo needs its own database. This one has the table shop.jobs." in output
    with empty_database.connect() as connection:
        tables = one(connection, "select count(*) from pg_tables where schemaname !~ '^pg_|info'")
        assert tables == {"count": 1}


def test_a_reset_deletes_the_demo_and_plays_it_again(demo: Demo, connection: Connection) -> None:
    """Checked after the first new day: no fix, cause, file or run is left."""
    connection.execute("drop function witness cascade")  # ids start at 1 again
    before = one(connection, "select max(at) as at from dlq.audit")["at"]
    again = demo.start("--reset")
    _wait_for(lambda: _began_after(connection, before), again)
    again.kill()
    again.communicate()
    for table in (
        "dlq.fix",
        "dlq.retry",
        "dlq.cause",
        "dlq.cause_day",
        "dlq.death_count",
        "dlq.export_day",
        "dlq.archived",
    ):
        assert one(connection, f"select count(*) from {table}")["count"] == 0, table
    assert one(connection, "select count(*) from outbox_event")["count"] < EVENTS
    assert _count_of_runs(demo) == 0
    assert list(demo.home.glob("reports/*")) + list(demo.home.glob("exports/*/*")) == []


def _start(
    environment: Mapping[str, str], *arguments: str, output: int = subprocess.PIPE
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PLAY, *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
    )


@contextmanager
def _terminal() -> Iterator[tuple[int, list[str]]]:
    """Yield a terminal, and the list of its output, complete at the end of the block."""
    screen, terminal = os.openpty()
    shown: list[str] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # no process has it open
            while piece := os.read(screen, 65536):
                shown.append(piece.decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield terminal, shown
    finally:
        os.close(terminal)
        reader.join()
        os.close(screen)


def _wait_for(condition: Callable[[], bool], running: "subprocess.Popen[str]") -> None:
    give_up = time.monotonic() + 600
    while not condition():
        assert running.poll() is None, running.communicate()[0] if running.stdout else ""
        assert time.monotonic() < give_up
        time.sleep(0.005)


def _in_a_run_after_the_second_export(connection: Connection, dagster: str) -> bool:
    if one(connection, "select count(*) from dlq.export_day")["count"] < 2:
        return False
    with psycopg.connect(dagster) as runs:
        started = "select 1 from runs where status = 'STARTED'"
        return runs.execute(started).fetchone() is not None


def _began_after(connection: Connection, moment: object) -> bool:
    started = "select from dlq.audit where kind = 'demo.begin' and at > %s"
    if connection.execute(started.encode(), [moment]).fetchone() is None:
        return False
    return bool(one(connection, "select count(*) from shop_day")["count"])


def _everywhere(connection: Connection) -> str:
    """Return a query for the events in the outbox and in its archive."""
    rows = connection.execute(
        "select attname from pg_attribute where attrelid = 'outbox_event'::regclass and attnum >"
        " 0 order by attnum"
    ).fetchall()
    columns = ", ".join(row["attname"] for row in rows)
    return f"select {columns} from outbox_event union all select {columns} from dlq.archived"


def _counts(connection: Connection) -> dict[str, int]:
    """Count the rows of every table."""
    tables = connection.execute(
        "select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname"
        " in ('public', 'dlq')"
    ).fetchall()
    return {
        table["name"]: one(connection, f"select count(*) from {table['name']}")["count"]
        for table in tables
    }


def _count_of_runs(demo: Demo) -> int:
    with psycopg.connect(demo.dagster) as connection:
        return int(connection.execute("select count(*) from runs").fetchall()[0][0])
