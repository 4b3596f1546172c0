"""What do people see? `make screens` plays the demo, clicks through the UI and takes the pictures of the documentation.

Pictures are for readers; what must hold on a screen is tested in tests/reports and tests/defs.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DLQ = Path(sys.executable).with_name("dlq")
PORT = 3131
FLAG = """
ops:
  flag_fix_op:
    config:
      event_type: {event_type}
      note: mended in v42
      actor: ann
      dry_run: true
"""


def main() -> int:
    """Play, serve, look."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "dlq"
        given = os.environ | {"DLQ_HOME": str(home), "DLQ_TIMEZONE": "UTC"}
        try:
            subprocess.run([DLQ, "demo"], env=given, check=True)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), chromium_sandbox=os.geteuid() != 0
                )
                _report(browser.new_page(viewport={"width": 1100, "height": 900}), home)
                _interface(browser.new_page(viewport={"width": 1440, "height": 860}), given)
                browser.close()
        finally:
            shutil.rmtree((home / "postgres").resolve(), ignore_errors=True)
    return 0


def _report(page: Page, home: Path) -> None:
    """The last day that has one."""
    reports = sorted((home / "reports").rglob("20*.html")) or sorted((home / "reports").rglob("report.html"))
    page.goto(reports[-4].as_uri())  # the day of the outage; the last one says that its day has no report yet
    page.screenshot(path=IMAGES / "report.png")


def _interface(page: Page, given: dict[str, str]) -> None:
    """Lineage, a materialization, the Launchpad, the stages of the demo's first fix."""
    running = subprocess.Popen([DLQ, "up", "--port", str(PORT)], env=given, stdout=subprocess.DEVNULL)
    try:
        _wait()
        for name, address in (
            ("lineage", "/asset-groups"),
            ("report-in-dagster", "/assets/failure_report?view=events"),
            ("export-in-dagster", "/assets/dead_event_export"),
            ("launchpad", "/locations/dlq_pipelines/jobs/flag_fix/playground"),
        ):
            page.goto(f"http://127.0.0.1:{PORT}{address}")
            page.wait_for_timeout(4_000)
            if name == "launchpad":
                page.locator(".CodeMirror").click()
                page.keyboard.press("Control+a")
                page.keyboard.insert_text(FLAG.format(event_type=_dead_type(given)).lstrip())
                page.wait_for_timeout(2_000)
            page.screenshot(path=IMAGES / f"{name}.png")
        page.get_by_role("button", name="Launch Run").click()
        page.wait_for_url(re.compile("/runs/"))
        page.get_by_text("RUN_SUCCESS").or_(page.get_by_text("RUN_FAILURE")).first.wait_for()
        page.wait_for_timeout(1_500)
        page.screenshot(path=IMAGES / "preview.png")
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def _dead_type(given: dict[str, str]) -> str:
    """Of an event that is dead still."""
    asked = [DLQ, "dead-events", "list", "--limit", "1", "--json"]
    (event,) = json.loads(subprocess.run(asked, env=given, capture_output=True, check=True).stdout)["events"]
    return str(event["event_type"])


def _wait() -> None:
    until = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/server_info", timeout=5).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
