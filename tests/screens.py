"""Takes the screenshots of the documentation: `make screens`.

It plays the demo, clicks through the UI, and saves the pictures in docs/images. The tests of the
screens are in tests/reports and tests/defs.
"""

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import FloatRect, Locator, Page, ViewportSize, sync_playwright

from dlq_pipelines.causes.catalogue import mark_regressed_causes
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.installation import build_report_policy, open_connection, open_reports_target
from dlq_pipelines.reports.report import build_report
from dlq_pipelines.settings import Settings
from tests.memory import remove_data
from tests.rows import date_deaths_by_due_times

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DLQ = Path(sys.executable).with_name("dlq")
# The pictures show its path.
SHOP = Path(tempfile.gettempdir()) / "shop"
PORT = 3131
WINDOW, TALL = ViewportSize(width=1280, height=830), ViewportSize(width=1280, height=1420)
ADDRESS = f"http://127.0.0.1:{PORT}"
FLAG = """\
ops:
  flag_fix_op:
    config:
      event_type: newsletter.sent
      note: the mail provider raised our limit
      actor: ann
      dry_run: true
"""
# The rest of the demo's last day, on which its two fixes ended: the fixed cause is regressed, a new
# cause appears, and a known cause escalates.
EVENING = """
    insert into outbox_event
        (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error,
        last_error_at, next_run_at)
    select 'order', n::text, 'label.printed', '{{}}', 'dead', 5, failure.error, at, at
    from (values
        (24, (select d.error from dlq.death d join dlq.fix f using (cause_id)
              where f.status = 'verified' limit 1)),
        (19, 'ssl.SSLCertVerificationError: certificate verify failed: certificate has expired'),
        (37, (select error from dlq.death where error like '%UniqueViolation%' limit 1))
    ) failure (deaths, error), generate_series(1, failure.deaths) n,
    lateral (select now() + ('{midnight}' - now()) * n / (failure.deaths + 1) as at) moment
"""


def main() -> int:
    """Play the demo, serve the UI, and take the pictures."""
    first = datetime.now(UTC).date() - timedelta(days=14)
    variables = {
        "DLQ_HOME": str(SHOP / "dlq"),
        "DLQ_TIMEZONE": "UTC",
        "DLQ_PARTITIONS_START": first.isoformat(),
    }
    os.environ.update(variables)
    SHOP.mkdir()
    # Functions registered later, which stop the server, run earlier.
    atexit.register(_remove_shop)
    subprocess.run([DLQ, "demo"], check=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), chromium_sandbox=os.geteuid() != 0
        )
        with _serve():
            _take_interface(browser.new_page(base_url=ADDRESS, viewport=WINDOW))
        _take_report(browser.new_page(viewport={"width": 1100, "height": 900}))
        browser.close()
    return 0


def _remove_shop() -> None:
    remove_data(SHOP / "dlq")
    shutil.rmtree(SHOP)


def _take_interface(page: Page) -> None:
    """Take the pictures of Dagster's UI for the tutorial and the how-to guides."""
    page.set_default_timeout(60_000)
    page.goto("/assets/archive_purge")
    page.get_by_text("Hide navigation").click()
    page.get_by_role("button", name=re.compile("Materialize$")).click()
    _wait_for_launched_run(page)
    _take_lineage(page)
    _take_days(page)
    _take_fix(page)


def _take_lineage(page: Page) -> None:
    """Take the lineage, laid out from top to bottom so that each asset is legible."""
    page.set_viewport_size(TALL)
    page.goto("/asset-groups")
    page.get_by_text("dead_event_causes", exact=True).last.wait_for()
    page.locator("button:has([aria-label=settings])").last.click()
    page.get_by_role("menuitem", name=re.compile("vertical")).click()
    page.reload()
    first, last = (
        page.get_by_text(name, exact=True).last for name in ("outbox_event", "archive_purge")
    )
    page.get_by_text("100% filled").nth(1).wait_for()
    # The schedule that runs every five minutes may be running.
    page.get_by_text(re.compile(r"Materializing|\b0 / ")).first.wait_for(state="hidden")
    page.wait_for_timeout(1_500)  # the graph is animated
    top, left, right, bottom = (
        _find_bounding_box(first)["y"],
        _find_bounding_box(last)["x"],
        _find_bounding_box(page.get_by_text("failure_report", exact=True).last)["x"],
        _find_bounding_box(last)["y"],
    )
    # An asset is 320 pixels wide and 190 high, with its kinds.
    clip = FloatRect(x=left - 60, y=top - 30, width=right - left + 400, height=bottom - top + 220)
    page.screenshot(path=IMAGES / "lineage.png", clip=clip)
    page.set_viewport_size(WINDOW)


def _find_bounding_box(found: Locator) -> FloatRect:
    found.wait_for()
    box = found.bounding_box()
    assert box is not None
    return box


def _take_days(page: Page) -> None:
    """Take the export, the report, a backfill of all days, and a report that is executed again."""
    page.goto("/assets/dead_event_export")
    page.get_by_text("Latest materialization").wait_for()
    _take(page, "export-in-dagster", bottom=_find_bottom(page.locator("td")))
    page.get_by_role("button", name=re.compile("Materialize…$")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="All", exact=True).click()
    dialog.get_by_text("Backfills all partitions in a single run").wait_for()
    heading, button = (
        _find_bounding_box(dialog.get_by_text(re.compile("Launch runs to materialize"))),
        _find_bounding_box(dialog.get_by_role("button", name="Launch backfill")),
    )
    page.mouse.move(0, 0)
    page.wait_for_timeout(1_000)
    left, top = heading["x"] - 44, heading["y"] - 12
    right, bottom = button["x"] + button["width"] + 20, button["y"] + button["height"] + 12
    page.screenshot(
        path=IMAGES / "backfill.png",
        clip=FloatRect(x=left, y=top, width=right - left, height=bottom - top),
    )
    page.keyboard.press("Escape")

    page.goto("/assets/failure_report")
    page.get_by_role("button", name=re.compile("Materialize…$")).click()
    dialog.get_by_role("button", name="Latest").click()
    page.get_by_role("button", name="Launch 1 run").click()
    _wait_for_launched_run(page)
    first = page.url
    page.get_by_role("button", name="Re-execute all").click()
    page.wait_for_url(lambda url: url != first and "/runs/" in url)
    _wait_for_success(page)
    # Below the steps of the run.
    last_row = _find_bounding_box(page.get_by_text("Preparing", exact=False).first)
    _take(page, "re-execution", bottom=last_row["y"] + last_row["height"] + 8)
    page.goto("/assets/failure_report?view=events")
    page.get_by_text("[Show Markdown]").first.wait_for()
    _take(page, "report-in-dagster", bottom=_find_bottom(page.locator("td")))


def _take_fix(page: Page) -> None:
    """Take a fix in the Launchpad, the result of its dry run, and the verified fix of the demo."""
    page.goto("/locations/dlq_pipelines/jobs/flag_fix/playground")
    page.locator(".CodeMirror").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(FLAG)
    page.get_by_text("No errors").wait_for()
    page.locator(".CodeMirror-line").nth(4).click()  # shows the description of the field
    page.get_by_text("Only preview the stages").last.evaluate(
        "line => line.scrollIntoView({block: 'start'})"
    )
    page.get_by_text("dry_run", exact=True).last.hover()
    _take(page, "launchpad")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url(re.compile("/runs/"))
    _wait_for_success(page)
    _filter_log(page, "flag_fix_op")
    _take(page, "preview")

    page.goto("/runs?q[]=tag:dlq/fix=1")
    _find_run_links(page).first.click()
    _wait_for_success(page)
    _filter_log(page, "retry_stage_op")
    page.get_by_text("[Show Markdown]").first.click()
    page.get_by_role("dialog").get_by_text("died again").wait_for()
    _take(page, "fix-verified")


def _wait_for_launched_run(page: Page) -> None:
    page.get_by_text("Launched run").wait_for()
    page.get_by_text("View", exact=True).click()
    _wait_for_success(page)


def _wait_for_success(page: Page) -> None:
    page.get_by_text("Success", exact=True).first.wait_for()


def _find_run_links(page: Page) -> Locator:
    return page.get_by_role("link").filter(has_text=re.compile("^[0-9a-f]{8}$"))


def _filter_log(page: Page, step: str) -> None:
    """Filter the log of a run by its step, so that the picture contains all of it."""
    page.get_by_placeholder("Filter…").first.fill(f"step:{step}")
    page.get_by_text("STEP_SUCCESS").first.wait_for()


def _find_bottom(lines: Locator) -> float:
    """Return the bottom of the last of these lines that is completely in the window."""
    ends = [box["y"] + box["height"] for line in lines.all() if (box := line.bounding_box())]
    return max(end for end in ends if end <= WINDOW["height"])


def _take(page: Page, name: str, *, bottom: float = WINDOW["height"]) -> None:
    """Save the window, from its top to `bottom`."""
    page.wait_for_timeout(1_500)
    clip = FloatRect(x=0, y=0, width=WINDOW["width"], height=bottom)
    page.screenshot(path=IMAGES / f"{name}.png", clip=clip)


def _take_report(page: Page) -> None:
    """Take the report of the day on which the demo's fixes ended."""
    settings, now = Settings(), datetime.now(UTC)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    with open_connection(settings) as connection:
        connection.execute(EVENING.format(midnight=midnight).encode())
        date_deaths_by_due_times(connection, where="d.cause_id is null")
        classify_deaths(connection, zone=settings.zone)
        mark_regressed_causes(connection, now=midnight)
        report = build_report(
            connection,
            day=now.date(),
            zone=settings.zone,
            target=open_reports_target(settings),
            policy=build_report_policy(settings),
            now=midnight,
        )
    page.goto(Path(report.places["html"]).as_uri())
    charts = page.locator(".charts").bounding_box()
    assert charts is not None
    clip = FloatRect(x=0, y=0, width=1100, height=charts["y"] + charts["height"])
    page.screenshot(path=IMAGES / "report.png", full_page=True, clip=clip)


@contextmanager
def _serve() -> Iterator[None]:
    """Run `dlq up` for the length of a `with` block."""
    running = subprocess.Popen([DLQ, "up", "--port", str(PORT)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while not _is_serving():
            if time.monotonic() > deadline:
                raise TimeoutError("`dlq up` does not answer on " + ADDRESS)
            time.sleep(0.2)
        yield
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def _is_serving() -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/server_info", timeout=5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
