"""Dagster's UI in a real browser, on `dlq up` with the embedded server: what its tests share."""

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
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import psycopg
from playwright.sync_api import Error, Locator, Page, expect, sync_playwright

from dlq_pipelines.installation import create_tables
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.embedded import start_server
from tests.memory import remove_data
from tests.noon import find_noon_zone
from tests.rows import date_deaths_by_due_times

CHROMIUM = shutil.which("chromium")
NO_BROWSER = "there is no browser here; it comes with: apt-get install chromium"
# On a loaded machine a page takes a minute to become usable.
_PATIENCE_MS = 300_000
# In the order of the lineage: each reads what the one before it wrote.
ASSETS = ("dead_event_causes", "dead_event_export", "failure_report", "dead_event_archive")
_DAILY = ("dead_event_export", "failure_report")
_DEAD_YESTERDAY = """
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
_ARCHIVE = """
ops:
  dead_event_archive:
    config:
      dry_run: false
"""
_COUNTS = """
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
            return connection.execute(_COUNTS).fetchone() or ()

    def list_processes(self) -> list[psutil.Process]:
        """Return all of its processes, and PostgreSQL's, which is not its child."""
        server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        return [self.process, *self.process.children(recursive=True), server, *server.children()]


@contextmanager
def serve_ui(folder: Path, *, days: int = 1) -> Iterator[Served]:
    """Run `dlq up` on thirty events that died yesterday, the last of so many partitions."""
    home = folder / "dlq"
    with start_server(home) as server:
        database = Database(server.ensure_database("outbox"))
        create_tables(database)
        with database.connect() as connection:
            connection.execute(_DEAD_YESTERDAY.encode())
            date_deaths_by_due_times(connection)
    # Retention 0: events that died yesterday can be archived. No autostart: the test clicks.
    given = {
        "DLQ_HOME": str(home),
        "DLQ_AUTOSTART": "false",
        "DLQ_DEAD_RETENTION_DAYS": "0",
        "DLQ_TIMEZONE": find_noon_zone(),
    }
    if days > 1:  # `dlq up` itself begins at the first recorded death
        today = datetime.now(ZoneInfo(given["DLQ_TIMEZONE"])).date()
        given["DLQ_PARTITIONS_START"] = (today - timedelta(days=days)).isoformat()
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("DLQ_", "DAGSTER_"))
    } | given
    port = free_port()
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
        wait_until_served(f"{served.url}/server_info", process)
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        remove_data(home)


@contextmanager
def open_browser(served: Served) -> Iterator[Page]:
    """Open a page in a new browser."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0
        )
        page = browser.new_page(base_url=served.url, viewport={"width": 1440, "height": 900})
        page.set_default_timeout(_PATIENCE_MS)
        expect.set_options(timeout=_PATIENCE_MS)
        yield page
        browser.close()


def materialize(page: Page, asset: str) -> None:
    """Materialize an asset, the latest day if it has days, and wait for the run's success."""
    page.goto(f"/assets/{asset}")
    if asset in _DAILY:
        open_days(page).get_by_role("button", name="Latest").click()
        page.get_by_role("button", name="Launch 1 run").click()
    else:
        page.get_by_role("button", name=re.compile("Materialize$")).click()
    page.get_by_text("Launched run").wait_for()
    page.get_by_text("View", exact=True).click()
    expect_success(page)


def open_days(page: Page) -> Locator:
    """Open the dialog that asks for the days of a daily asset.

    The page draws the button anew while it loads, and a click on the old one is lost.
    """
    dialog = page.get_by_role("dialog")
    while True:
        page.get_by_role("button", name=re.compile("Materialize…$")).click()
        try:
            dialog.wait_for(timeout=20_000)
        except Error:
            continue
        return dialog


def archive(page: Page) -> None:
    """Materialize the archive with the configuration that moves events."""
    page.goto("/assets/dead_event_archive")
    page.get_by_role("button", name=re.compile("Materialize$")).click(modifiers=["Shift"])
    configure(page, _ARCHIVE)
    page.get_by_role("button", name=re.compile("Materialize$")).last.click()
    expect_success(page)


def configure(page: Page, config: str) -> None:
    """Replace the Launchpad's config."""
    page.locator(".CodeMirror").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(config)
    expect(page.get_by_text("No errors")).to_be_visible()


def re_execute(page: Page) -> None:
    """Re-execute all of the run that the page shows."""
    first = page.url
    page.get_by_role("button", name="Re-execute all").click()
    page.wait_for_url(lambda url: url != first and "/runs/" in url)
    expect_success(page)


def wait_until(served: Served, condition: str, *, seconds: float = 90) -> None:
    """Wait until a query returns true."""
    until = time.monotonic() + seconds
    with psycopg.connect(served.database, autocommit=True) as connection:
        while True:
            row = connection.execute(condition.encode()).fetchone()
            if row and row[0]:
                return
            assert time.monotonic() < until, condition
            time.sleep(0.5)


def expect_success(page: Page) -> None:
    page.wait_for_url("**/runs/*")
    expect(
        page.get_by_text("RUN_SUCCESS").or_(page.get_by_text("RUN_FAILURE")).first
    ).to_be_visible()
    expect(page.get_by_text("RUN_FAILURE")).to_have_count(0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_served(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the UI answers; Dagster takes up to ten seconds on two cores."""
    until = time.monotonic() + 240
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "Dagster has ended"
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.2)
        else:
            return
