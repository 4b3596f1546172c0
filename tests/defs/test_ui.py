"""Dagster's UI in a real browser, on `dlq up` with the embedded server."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import psycopg
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dlq_pipelines import OutboxRepository
from dlq_pipelines.definitions import defs
from dlq_pipelines.installation import create_tables
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.embedded import start_server
from tests.memory import remove_data
from tests.noon import find_noon_zone
from tests.rows import date_deaths_by_due_times

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no browser here; it comes with: apt-get install chromium"
)
# In the order of the lineage: each reads what the one before it wrote.
ASSETS = ("dead_event_causes", "dead_event_export", "failure_report", "dead_event_archive")
DAILY = ("dead_event_export", "failure_report")
DEAD_YESTERDAY = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
         last_error_at, next_run_at)
    select 'order', n::text, 'order.placed', '{}', 'dead', 5,
        case n % 3
            when 0 then 'KeyError: ''postcode'''
            else 'ConnectionRefusedError: [Errno 111] refused'
        end,
        died_at, died_at
    from generate_series(1, 30) n, (select now() - interval '1 day' as died_at) yesterday
"""
# With their own cause for the fix, and in aggregates without other events.
DEAD_SINCE = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
         last_error_at, next_run_at)
    select 'parcel', n::text, 'parcel.sent', '{}', 'dead', 5, 'TimeoutError: no answer',
        now(), now()
    from generate_series(1, 25) n
"""
ARCHIVE = """
ops:
  dead_event_archive:
    config:
      dry_run: false
"""
FLAG = """
ops:
  flag_fix_op:
    config:
      event_type: parcel.sent
      note: the carrier responds again
      actor: ann
      dry_run: false
"""
COUNTS = """
    select (select count(*) from outbox_event), (select count(*) from dlq.archived),
           (select count(*) from dlq.death), (select count(*) from dlq.cause),
           (select sum(deaths) from dlq.cause_day), (select sum(rows) from dlq.export_day),
           (select sum(events) from dlq.audit)
"""


@dataclass
class Served:
    """A running `dlq up`: the address of its UI, its process and its database."""

    url: str
    process: psutil.Process
    database: str
    data: Path

    def count_rows(self) -> tuple[Any, ...]:
        """Count the rows of every table that an asset writes."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(COUNTS).fetchone() or ()

    def list_processes(self) -> list[psutil.Process]:
        """Return all of its processes, and PostgreSQL's, which is not its child."""
        server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        return [self.process, *self.process.children(recursive=True), server, *server.children()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`dlq up` on thirty events that died yesterday."""
    home = tmp_path_factory.mktemp("ui") / "dlq"
    with start_server(home) as server:
        database = Database(server.ensure_database("outbox"))
        create_tables(database)
        with database.connect() as connection:
            connection.execute(DEAD_YESTERDAY.encode())
            date_deaths_by_due_times(connection)
    # Retention 0: events that died yesterday can be archived. No autostart: the test clicks.
    given = {
        "DLQ_HOME": str(home),
        "DLQ_AUTOSTART": "false",
        "DLQ_DEAD_RETENTION_DAYS": "0",
        "DLQ_TIMEZONE": find_noon_zone(),
    }
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("DLQ_", "DAGSTER_"))
    } | given
    port = _free_port()
    command = [str(Path(sys.executable).with_name("dlq")), "up", "--port", str(port)]
    with (home / "up.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    served = Served(
        f"http://127.0.0.1:{port}",
        psutil.Process(process.pid),
        database.url,
        (home / "postgres").resolve(),
    )
    try:
        _wait_for(f"{served.url}/server_info", process)
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        remove_data(home)


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    """Open a page in a new browser."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0
        )
        page = browser.new_page(base_url=served.url, viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def test_the_lineage_shows_every_asset(page: Page) -> None:
    """No dialog asks for an e-mail address first."""
    page.goto("/asset-groups")
    for asset in ("outbox_event", *ASSETS):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_every_asset_is_materialized_and_re_executed_by_clicks(page: Page, served: Served) -> None:
    """A second run changes nothing. The archive is a dry run by default."""
    for asset in ASSETS:
        _materialize(page, asset)
        before = served.count_rows()
        _re_execute(page)
        assert served.count_rows() == before, asset
    assert before == (30, 0, 30, 2, 30, 30, None)
    _archive(page)
    assert served.count_rows() == (0, 30, 30, 2, 30, 30, 30)
    _re_execute(page)
    assert served.count_rows() == (0, 30, 30, 2, 30, 30, 30)

    page.goto("/assets/failure_report?view=events")
    expect(
        page.get_by_role("cell", name=re.compile("^30 events died on .*Most affected: ")).first
    ).to_be_visible()
    page.get_by_text("[Show Markdown]").click()
    expect(page.get_by_role("img", name="deaths a day by cause").first).to_be_visible()


def test_ninety_days_are_exported_by_one_backfill_in_one_run(page: Page, served: Served) -> None:
    """Each day has its own record; a day that was exported before is replaced."""
    page.goto("/assets/dead_event_export")
    page.get_by_role("button", name=re.compile("Materialize…$")).click()
    page.get_by_role("dialog").get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Launch backfill").click()
    _wait_until(served, "select count(*) = 90 and sum(rows) = 30 from dlq.export_day")
    page.goto("/runs")
    expect(page.get_by_text(re.compile("90 partitions")).first).to_be_visible()
    page.goto("/assets/dead_event_export?view=partitions")
    expect(page.get_by_text("Materialized", exact=False).first).to_be_visible()


def test_a_fix_flagged_in_the_launchpad_is_followed_to_verified(page: Page, served: Served) -> None:
    """With the sensor on and a worker that delivers; the last run shows the outcomes."""
    with psycopg.connect(served.database) as connection:
        connection.execute(DEAD_SINCE)
    _materialize(page, "dead_event_causes")
    page.goto("/locations/dlq_pipelines/jobs/flag_fix/playground")
    _configure(page, FLAG)
    page.get_by_role("button", name="Launch Run").click()
    _expect_success(page)

    page.goto("/locations/dlq_pipelines/sensors/fix_flag_sensor")
    page.locator("label:has(input[type=checkbox])").first.click()
    with _run_worker(served):
        _wait_until(served, "select status = 'verified' from dlq.fix", seconds=240)
    page.goto("/locations/dlq_pipelines/jobs/retry_stage/runs")
    page.get_by_role("link").filter(has_text=re.compile("^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_text("Fix 1 is verified")).to_be_visible()
    page.get_by_text("[Show Markdown]").click()
    expect(page.get_by_role("dialog").get_by_text("died again")).to_be_visible()
    with psycopg.connect(served.database) as connection:
        outcomes = connection.execute(
            "select stage, count(*) filter (where outcome = 'delivered') from dlq.retry group by 1"
        )
        assert sorted(outcomes.fetchall()) == [(1, 10), (2, 15)]


def test_every_schedule_and_sensor_shows_its_description(page: Page) -> None:
    """It is listed under Automation, and its page has the description."""
    repository = defs.get_repository_def()
    pages = {one.name: ("schedules", one.description or "") for one in repository.schedule_defs}
    pages |= {one.name: ("sensors", one.description or "") for one in repository.sensor_defs}
    assert len(pages) == 8
    page.goto("/automation")
    for name in pages:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    for name, (kind, description) in pages.items():
        page.goto(f"/locations/dlq_pipelines/{kind}/{name}")
        expect(page.get_by_text(description, exact=True)).to_be_visible()


def test_a_job_and_an_asset_show_their_description_as_a_list(page: Page) -> None:
    """Their Markdown is rendered: each item begins in bold."""
    for place in (
        "/locations/dlq_pipelines/jobs/archive_dead_events",
        "/assets/dead_event_archive",
    ):
        page.goto(place)
        for part in ("When:", "Changes:", "Rerun:"):
            bold = page.get_by_role("listitem").filter(has=page.locator("strong", has_text=part))
            expect(bold).to_be_visible()


def test_ctrl_c_ends_every_process(served: Served) -> None:
    """Dagster's processes, and the embedded PostgreSQL that only it used."""
    processes = served.list_processes()
    assert len(processes) > 8
    served.process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []


def _materialize(page: Page, asset: str) -> None:
    """Materialize an asset, the latest day if it has days, and wait for the run's success."""
    page.goto(f"/assets/{asset}")
    page.get_by_role(
        "button", name=re.compile("Materialize…$" if asset in DAILY else "Materialize$")
    ).click()
    if asset in DAILY:
        page.get_by_role("dialog").get_by_role("button", name="Latest").click()
        page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("Launched run").wait_for()
    page.get_by_text("View", exact=True).click()
    _expect_success(page)


def _archive(page: Page) -> None:
    """Materialize the archive with the configuration that moves events."""
    page.goto("/assets/dead_event_archive")
    page.get_by_role("button", name=re.compile("Materialize$")).click(modifiers=["Shift"])
    _configure(page, ARCHIVE)
    page.get_by_role("button", name=re.compile("Materialize$")).last.click()
    _expect_success(page)


def _configure(page: Page, config: str) -> None:
    """Replace the Launchpad's config."""
    page.locator(".CodeMirror").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(config)
    expect(page.get_by_text("No errors")).to_be_visible()


def _re_execute(page: Page) -> None:
    """Re-execute all of the run that the page shows."""
    first = page.url
    page.get_by_role("button", name="Re-execute all").click()
    page.wait_for_url(lambda url: url != first and "/runs/" in url)
    _expect_success(page)


@contextmanager
def _run_worker(served: Served) -> Iterator[None]:
    """Deliver all due events for the length of the block."""
    stop = Event()

    def deliver() -> None:
        with OutboxRepository(served.database) as repository:
            while not stop.wait(0.2):
                for event in repository.fetch_pending(50):
                    repository.mark_success(event.id)

    with ThreadPoolExecutor(1) as pool:
        delivering = pool.submit(deliver)
        try:
            yield
        finally:
            stop.set()
            delivering.result(30)


def _wait_until(served: Served, condition: str, *, seconds: float = 90) -> None:
    """Wait until a query returns true."""
    until = time.monotonic() + seconds
    with psycopg.connect(served.database, autocommit=True) as connection:
        while True:
            row = connection.execute(condition.encode()).fetchone()
            if row and row[0]:
                return
            assert time.monotonic() < until, condition
            time.sleep(0.5)


def _expect_success(page: Page) -> None:
    page.wait_for_url("**/runs/*")
    expect(
        page.get_by_text("RUN_SUCCESS").or_(page.get_by_text("RUN_FAILURE")).first
    ).to_be_visible()
    expect(page.get_by_text("RUN_FAILURE")).to_have_count(0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the UI answers; Dagster takes up to ten seconds on two cores."""
    until = time.monotonic() + 240
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "dlq up has ended"
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.2)
        else:
            return
