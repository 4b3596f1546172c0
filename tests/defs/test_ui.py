"""Dagster's UI in a real browser, on `dlq up` with the embedded server.

tests/drills/drill_ui.py flags a fix in the Launchpad and follows it until it is verified.
"""

import re
import signal
from collections.abc import Iterator

import httpx
import psutil
import pytest
from playwright.sync_api import Page, expect

from dlq_pipelines.definitions import defs
from tests.clicks import (
    ASSETS,
    CHROMIUM,
    NO_BROWSER,
    Served,
    materialize,
    open_browser,
    re_execute,
    serve_ui,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`dlq up` on thirty events that died yesterday."""
    with serve_ui(tmp_path_factory.mktemp("ui")) as running:
        yield running


@pytest.fixture(scope="module")
def page(served: Served) -> Iterator[Page]:
    """One page for all tests: a new browser would compile ten megabytes of script again."""
    with open_browser(served) as opened:
        yield opened


def test_the_lineage_shows_every_asset(page: Page) -> None:
    """No dialog asks for an e-mail address first."""
    page.goto("/asset-groups")
    for asset in ("outbox_event", *ASSETS):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_assets_are_materialized_and_re_executed_by_clicks(page: Page, served: Served) -> None:
    """A second run changes nothing. tests/drills/drill_ui.py does it with every asset."""
    for asset in ("dead_event_causes", "failure_report"):
        materialize(page, asset)
    before = served.count_rows()
    re_execute(page)
    assert served.count_rows() == before == (30, 0, 30, 2, 30, None, None)

    page.goto("/assets/failure_report?view=events")
    expect(
        page.get_by_role("cell", name=re.compile("^30 events died on .*Most affected: ")).first
    ).to_be_visible()
    page.get_by_text("[Show Markdown]").click()
    expect(page.get_by_role("img", name="deaths a day by cause").first).to_be_visible()


def test_schedules_and_sensors_are_listed_and_show_their_description(page: Page) -> None:
    """All are listed under Automation. tests/drills/drill_ui.py opens the page of each."""
    repository = defs.get_repository_def()
    pages = {one.name: ("schedules", one.description or "") for one in repository.schedule_defs}
    pages |= {one.name: ("sensors", one.description or "") for one in repository.sensor_defs}
    assert len(pages) == 11
    page.goto("/automation")
    for name in pages:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    for name in ("report_daily", "fix_flag_sensor"):
        kind, description = pages[name]
        page.goto(f"/locations/dlq_pipelines/{kind}/{name}")
        # The installation that is served has another time zone.
        text = re.escape(description).replace(r"in\ UTC", r"in [\w/+-]+")
        expect(page.get_by_text(re.compile(f"^{text}$"))).to_be_visible()


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
    page = f"{served.url}/server_info"
    assert httpx.get(page, timeout=120).status_code == 200
    assert httpx.get(page, headers={"Host": "evil.example.com"}, timeout=120).status_code == 421
    processes = served.list_processes()
    assert len(processes) > 8
    served.process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
