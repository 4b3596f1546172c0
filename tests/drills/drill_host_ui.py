"""A host's project with three outboxes in Dagster's UI: catalog, lineage, automation and runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from dlq_pipelines import TableNames
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.clicks import (
    CHROMIUM,
    NO_BROWSER,
    Served,
    expect_success,
    free_port,
    open_browser,
    wait_until_served,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
HOST = Path(__file__).resolve().parents[1] / "host"
OUTBOXES = ("orders", "billing", "letters")


@pytest.fixture
def served(empty_database: Database, tmp_path: Path) -> Iterator[Served]:
    """`dagster dev` on the host's project, with a dead event in each outbox."""
    for outbox in OUTBOXES:
        names = TableNames(outbox, "outbox_event", f"dlq_{outbox}")
        with Database(empty_database.url, names).connect() as connection:
            create_host_tables(connection)
            install_outbox(connection)
            connection.execute(
                f"insert into {outbox}.outbox_event (aggregate_type, aggregate_id, event_type,"
                " payload, status, attempts, last_error, next_run_at) values"
                " ('parcel', '1', 'parcel.sent', '{}', 'dead', 5, 'KeyError: 1', now())".encode()
            )
    # No dialog asks for an e-mail address.
    settings = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
    (tmp_path / "dagster.yaml").write_text(settings, "utf-8")
    port = free_port()
    environment = os.environ | {
        "DAGSTER_HOME": str(tmp_path),
        "PYTHONPATH": str(HOST),
        "SHOP_HOME": str(tmp_path / "shop"),
        "ORDERS_DATABASE_URL": empty_database.url,
        "BILLING_DATABASE_URL": empty_database.url,
        "LETTERS_DATABASE_URL": empty_database.url,
        "LETTERS_SCHEMA": "dlq_letters",
        "LETTERS_OUTBOX_SCHEMA": "letters",
        "LETTERS_HOME": str(tmp_path / "letters"),
    }
    command = [sys.executable, "-m", "dagster", "dev", "-m", "shop.definitions", "-p", str(port)]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=HOST,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as running:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_served(f"{url}/server_info", running)
            yield Served(url, psutil.Process(running.pid), empty_database.url, tmp_path)
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(60)


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    """Open a page in a new browser."""
    with open_browser(served) as opened:
        yield opened


def test_each_outbox_has_its_place_in_the_ui(page: Page, tmp_path: Path) -> None:
    """The host's asset is among them, and a run of an outbox carries its name."""
    page.goto("/asset-groups")
    for group in ("orders_dead_letters", "billing_dead_letters", "mail", "warehouse"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.screenshot(path=str(tmp_path / "lineage.png"))
    page.goto("/automation")
    for outbox in OUTBOXES:
        for name in ("archive_daily", "fix_flag_sensor", "new_death_sensor"):
            expect(page.get_by_text(f"{outbox}_{name}", exact=True).first).to_be_visible()
    page.screenshot(path=str(tmp_path / "automation.png"))
    page.goto("/assets/mail/letters/dead_event_causes")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("Launched run").wait_for()
    page.get_by_text("View", exact=True).click()
    expect_success(page)
    page.goto("/assets/mail/letters/dead_event_causes?view=events")
    expect(page.get_by_text("KeyError").first).to_be_visible()
    page.screenshot(path=str(tmp_path / "causes.png"))
    page.goto("/assets/orders/dead_event_export?view=lineage")
    expect(page.get_by_text("dead_event_causes").first).to_be_visible()
    page.screenshot(path=str(tmp_path / "export.png"))
