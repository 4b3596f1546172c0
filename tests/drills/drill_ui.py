"""Every asset by clicks in Dagster's UI, each run twice, a backfill of ninety days, and a fix."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import psycopg
import pytest
from playwright.sync_api import Page, expect

from dlq_pipelines import OutboxRepository
from dlq_pipelines.definitions import defs
from tests.clicks import (
    ASSETS,
    CHROMIUM,
    NO_BROWSER,
    Served,
    archive,
    configure,
    expect_success,
    materialize,
    open_browser,
    open_days,
    re_execute,
    serve_ui,
    wait_until,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
# With their own cause for the fix, and in aggregates without other events.
DEAD_SINCE = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
         last_error_at, next_run_at)
    select 'parcel', n::text, 'parcel.sent', '{}', 'dead', 5, 'TimeoutError: no answer',
        now(), now()
    from generate_series(1, 25) n
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


def test_a_fix_flagged_in_the_launchpad_is_followed_to_verified(page: Page, served: Served) -> None:
    """With the sensor on and a worker that delivers; the last run shows the outcomes."""
    with psycopg.connect(served.database) as connection:
        connection.execute(DEAD_SINCE)
    materialize(page, "dead_event_causes")
    page.goto("/locations/dlq_pipelines/jobs/flag_fix/playground")
    configure(page, FLAG)
    page.get_by_role("button", name="Launch Run").click()
    expect_success(page)

    page.goto("/locations/dlq_pipelines/sensors/fix_flag_sensor")
    page.locator("label:has(input[type=checkbox])").first.click()
    page.goto("about:blank")  # an open page polls, and takes half of a core
    with _run_worker(served):
        wait_until(served, "select status = 'verified' from dlq.fix", seconds=240)
    page.goto("/locations/dlq_pipelines/jobs/retry_stage/runs")
    page.get_by_role("link").filter(has_text=re.compile("^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_text("Fix 1 is verified")).to_be_visible()
    expect(page.get_by_text("died again").first).to_be_attached()
    with psycopg.connect(served.database) as connection:
        outcomes = connection.execute(
            "select stage, count(*) filter (where outcome = 'delivered') from dlq.retry group by 1"
        )
        assert sorted(outcomes.fetchall()) == [(1, 10), (2, 15)]


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
