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

from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize, sync_playwright

from tests.memory import remove_data

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DLQ = Path(sys.executable).with_name("dlq")
# The pictures show its path.
SHOP = Path(tempfile.gettempdir()) / "shop"
PORT, PAGES_PORT = 3131, 3132
WINDOW, TALL = ViewportSize(width=1280, height=830), ViewportSize(width=1280, height=1420)
ADDRESS, PAGES = (f"http://127.0.0.1:{port}" for port in (PORT, PAGES_PORT))
FLAG = """\
ops:
  flag_fix_op:
    config:
      event_type: newsletter.sent
      note: the mail provider raised our limit
      actor: ann
      dry_run: true
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
        _take_report(browser.new_page(viewport={"width": 1100, "height": 900}))
        with _serve("serve", PAGES_PORT, "ready"):
            _take_pages(browser)
        with _serve("up", PORT, "server_info"):
            _take_interface(browser.new_page(base_url=ADDRESS, viewport=WINDOW))
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
    # A schedule or a sensor may have started a run.
    page.get_by_text(re.compile("Materializing")).first.wait_for(state="hidden")
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

    page.goto("/runs?q[]=tag:dlq/fix=2")
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
    """Take the report of the last day, on which the demo's fixes ended."""
    # The page of the next day exists too, and says that there is no report yet.
    last = max((SHOP / "dlq" / "reports").glob("*-*-*.json"))
    page.goto(last.with_suffix(".html").as_uri())
    charts = page.locator(".charts").bounding_box()
    assert charts is not None
    clip = FloatRect(x=0, y=0, width=1100, height=charts["y"] + charts["height"])
    page.screenshot(path=IMAGES / "report.png", full_page=True, clip=clip)


def _take_pages(browser: Browser) -> None:
    """Take the pages of `dlq serve`: the causes, one of them, its fix, and a phone's."""
    page = browser.new_page(base_url=PAGES, viewport={"width": 1100, "height": 800})
    page.goto("/causes?since=3d")
    page.screenshot(path=IMAGES / "page-causes.png")
    page.get_by_role("link", name=re.compile("Service Unavailable")).first.click()
    page.get_by_role("rowheader", name="$.acquirer").first.wait_for()
    # Below it are tracebacks with the paths of this machine.
    end = _find_bounding_box(page.get_by_role("heading", name="Latest samples"))["y"]
    clip = FloatRect(x=0, y=0, width=1100, height=end - 16)
    page.screenshot(path=IMAGES / "page-cause.png", full_page=True, clip=clip)
    page.goto("/fixes/2")
    page.get_by_role("heading", name="Timeline").wait_for()
    page.screenshot(path=IMAGES / "page-fix.png")
    phone = browser.new_page(
        base_url=PAGES, viewport={"width": 390, "height": 800}, color_scheme="dark"
    )
    phone.goto("/causes?since=3d")
    phone.screenshot(path=IMAGES / "page-causes-phone.png")


@contextmanager
def _serve(command: str, port: int, path: str) -> Iterator[None]:
    """Run `dlq up` or `dlq serve` for the length of a `with` block."""
    running = subprocess.Popen([DLQ, command, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while not _answers(f"http://127.0.0.1:{port}/{path}"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"`dlq {command}` does not answer on port {port}")
            time.sleep(0.2)
        yield
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - an address of loopback
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
