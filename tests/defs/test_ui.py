"""What an engineer sees and clicks: Dagster's UI in a real browser, on `dlq up` with the embedded server."""

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
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dlq_pipelines.installation import create_tables
from dlq_pipelines.postgres import embedded
from dlq_pipelines.postgres.connect import Database

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no browser here; it comes with: apt-get install chromium"
)
# In the order of the lineage: each needs what the one before it made.
ASSETS = ("dead_event_causes", "dead_event_export", "failure_report", "dead_event_archive")
DAILY = ("dead_event_export", "failure_report")
DEAD_YESTERDAY = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, last_error_at, dead_at)
    select 'order', n::text, 'order.placed', '{}', 'dead', 5,
           case n % 3 when 0 then 'KeyError: ''postcode''' else 'ConnectionRefusedError: [Errno 111] refused' end,
           died_at, died_at
    from generate_series(1, 30) n, (select now() - interval '1 day' as died_at) yesterday
"""
COUNTS = """
    select (select count(*) from outbox_event), (select count(*) from outbox_event_archive),
           (select count(*) from dlq.death), (select count(*) from dlq.cause),
           (select sum(deaths) from dlq.cause_day), (select sum(rows) from dlq.export_day),
           (select sum(events) from dlq.operation)
"""


@dataclass
class Served:
    """A running `dlq up`: the address of its UI, its process, and the database that it works on."""

    url: str
    process: psutil.Process
    database: str
    data: Path

    def counts(self) -> tuple[int, ...]:
        """Rows of every table that an asset writes."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(COUNTS).fetchone() or ()

    def family(self) -> list[psutil.Process]:
        """Every process that it has started, and PostgreSQL's, which is nobody's child."""
        server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        return [self.process, *self.process.children(recursive=True), server, *server.children()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`dlq up` on thirty events that died yesterday."""
    home = tmp_path_factory.mktemp("ui") / "dlq"
    with embedded.start(home) as server:
        database = Database(server.ensure_database("outbox"))
        create_tables(database)
        with database.connect() as connection:
            connection.execute(DEAD_YESTERDAY.encode())
    # Retention 0: what died yesterday may be archived today. Nothing by itself: the clicks are what is tested.
    given = {"DLQ_HOME": str(home), "DLQ_AUTOSTART": "false", "DLQ_DEAD_RETENTION_DAYS": "0", "DLQ_TIMEZONE": "UTC"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DLQ_", "DAGSTER_"))} | given
    port = _free_port()
    command = [Path(sys.executable).with_name("dlq"), "up", "--port", str(port)]
    with (home / "up.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    served = Served(f"http://127.0.0.1:{port}", psutil.Process(process.pid), database.url, embedded._data_folder(home))
    try:
        _wait_for(f"{served.url}/server_info", process)
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        shutil.rmtree(served.data, ignore_errors=True)


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    """A page of a fresh browser."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(base_url=served.url, viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def test_the_lineage_shows_the_way_of_the_data(page: Page) -> None:
    """Five assets, and no dialog before them that asks for an e-mail address."""
    page.goto("/asset-groups")
    for asset in ("outbox_event", *ASSETS):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_every_asset_is_materialized_and_re_executed_by_clicks(page: Page, served: Served) -> None:
    """The first run does the work; the second doubles nothing."""
    for asset in ASSETS:
        _materialize(page, asset)
        before = served.counts()
        _re_execute(page)
        assert served.counts() == before, asset
    assert before == (0, 30, 30, 2, 30, 30, 30)

    page.goto("/assets/failure_report?view=events")
    expect(page.get_by_role("cell", name=re.compile("^30 events died on .*Most harm: ")).first).to_be_visible()
    page.get_by_text("[Show Markdown]").click()
    expect(page.get_by_role("img", name="deaths a day by cause").first).to_be_visible()


def test_schedules_and_the_sensor_say_what_they_do(page: Page) -> None:
    """Visible under Automation with their descriptions."""
    page.goto("/automation")
    for name in ("causes_every_five_minutes", "export_daily", "archive_daily", "report_daily", "fix_flag_sensor"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()


def test_ctrl_c_ends_every_process(served: Served) -> None:
    """Dagster's, and the embedded PostgreSQL that only it used."""
    family = served.family()
    assert len(family) > 8
    served.process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def _materialize(page: Page, asset: str) -> None:
    """Materialize from the asset's page, the latest day where it has days, and follow the run to its success."""
    page.goto(f"/assets/{asset}")
    page.get_by_role("button", name=re.compile("Materialize…$" if asset in DAILY else "Materialize$")).click()
    if asset in DAILY:
        page.get_by_role("dialog").get_by_role("button", name="Latest").click()
        page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("Launched run").wait_for()
    page.get_by_text("View", exact=True).click()
    _expect_success(page)


def _re_execute(page: Page) -> None:
    """Re-execute all of the run that the page shows."""
    first = page.url
    page.get_by_role("button", name="Re-execute all").click()
    page.wait_for_url(lambda url: url != first and "/runs/" in url)
    _expect_success(page)


def _expect_success(page: Page) -> None:
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text("RUN_SUCCESS").or_(page.get_by_text("RUN_FAILURE")).first).to_be_visible()
    expect(page.get_by_text("RUN_FAILURE")).to_have_count(0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the UI answers; Dagster takes up to ten seconds on two cores."""
    until = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - http, and our own
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "dlq up has ended"
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.2)
        else:
            return
