"""Every asset by clicks in Dagster's UI, each run twice, and a backfill of ninety days."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from dlq_pipelines.definitions import defs
from tests.clicks import (
    ASSETS,
    CHROMIUM,
    NO_BROWSER,
    Served,
    archive,
    materialize,
    open_browser,
    open_days,
    re_execute,
    serve_ui,
    wait_until,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`dlq up` on thirty events that died yesterday."""
    with serve_ui(tmp_path_factory.mktemp("ui"), days=90) as running:
        yield running


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    """Open a page in a new browser."""
    with open_browser(served) as opened:
        yield opened


def test_every_asset_is_materialized_and_re_executed_by_clicks(page: Page, served: Served) -> None:
    """A second run changes nothing. The archive is a dry run by default."""
    for asset in ASSETS:
        materialize(page, asset)
        before = served.count_rows()
        re_execute(page)
        assert served.count_rows() == before, asset
    assert before == (30, 0, 30, 2, 30, 30, None)
    archive(page)
    assert served.count_rows() == (0, 30, 30, 2, 30, 30, 30)
    re_execute(page)
    assert served.count_rows() == (0, 30, 30, 2, 30, 30, 30)

    page.goto("/assets/failure_report?view=events")
    expect(
        page.get_by_role("cell", name=re.compile("^30 events died on .*Most affected: ")).first
    ).to_be_visible()
    page.get_by_text("[Show Markdown]").click()
    expect(page.get_by_role("img", name="deaths a day by cause").first).to_be_visible()


def test_ninety_days_are_exported_by_one_backfill_in_one_run(page: Page, served: Served) -> None:
    """Each day has its own record; a day that was exported before is replaced."""
    materialize(page, "dead_event_causes")
    page.goto("/assets/dead_event_export")
    open_days(page).get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Launch backfill").click()
    wait_until(served, "select count(*) = 90 and sum(rows) = 30 from dlq.export_day")
    page.goto("/runs")
    expect(page.get_by_text(re.compile("90 partitions")).first).to_be_visible()
    page.goto("/assets/dead_event_export?view=partitions")
    expect(page.get_by_text("Materialized", exact=False).first).to_be_visible()


def test_every_schedule_and_sensor_shows_its_description(page: Page) -> None:
    """On a page of its own."""
    repository = defs.get_repository_def()
    pages = {one.name: ("schedules", one.description or "") for one in repository.schedule_defs}
    pages |= {one.name: ("sensors", one.description or "") for one in repository.sensor_defs}
    assert len(pages) == 11
    for name, (kind, description) in pages.items():
        page.goto(f"/locations/dlq_pipelines/{kind}/{name}")
        # The installation that is served has another time zone.
        text = re.escape(description).replace(r"in\ UTC", r"in [\w/+-]+")
        expect(page.get_by_text(re.compile(f"^{text}$"))).to_be_visible()
