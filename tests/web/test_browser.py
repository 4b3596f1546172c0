"""Tests the pages in a real browser: from a cause to a fix, at three widths, light and dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dlq_pipelines.causes.catalogue import set_cause_text
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve
from tests.retries.helpers import build_audit
from tests.rows import add_events, kill, one

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)
WIDTHS = (1280, 768, 360)
# Elements that are outside of the page.
LEAVING = """
    () => [...document.body.querySelectorAll('*')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1)
            && !e.closest('.scroll, pre, .hidden, .skip, thead');
    }).map(e => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()


def check_layout(page: Page) -> None:
    """Nothing beyond the edges, no violation that axe-core finds."""
    page.wait_for_load_state()  # a click returns while the page it opens has no body yet
    assert page.evaluate(LEAVING) == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
    found = Axe().run(page)
    assert found.violations_count == 0, (page.url, found.generate_report())


def open_browser_page(
    browser: Browser, address: str, width: int, scheme: Literal["light", "dark"]
) -> tuple[Page, list[str]]:
    """Open a page of a browser without script; return it and what its console says."""
    context = browser.new_context(
        base_url=address, viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page, messages = context.new_page(), list[str]()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    return page, messages


@pytest.mark.parametrize("width", WIDTHS)
def test_a_person_goes_from_a_cause_to_a_fix(
    connection: Connection,
    browser: Browser,
    serve: Serve,
    tokens: dict[str, str],
    cause_id: str,
    width: int,
) -> None:
    """Signs in, opens a cause, previews a fix of what sets its events apart, flags, pauses it."""
    client = serve(api_tokens=tokens["entries"])
    scheme: Literal["light", "dark"] = "dark" if width == WIDTHS[1] else "light"
    page, messages = open_browser_page(browser, str(client.base_url), width, scheme)
    page.goto("/")
    check_layout(page)
    page.get_by_label("API token").fill(tokens["retry"])
    page.get_by_label("Your name").fill("ann")
    page.get_by_role("button", name="Sign in").click()
    check_layout(page)
    page.get_by_role("link", name="KeyError: 'postcode'").click()
    assert page.url.endswith(f"/causes/{cause_id}")
    check_layout(page)
    page.get_by_role("link", name="Flag a fix of these").first.click()
    check_layout(page)
    page.get_by_label("What was fixed").fill("northbank answers again")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name="Preview: 30 events")).to_be_visible()
    check_layout(page)
    page.get_by_role("button", name="Flag this fix").click()
    expect(page.get_by_text("The fix is flagged.")).to_be_visible()
    check_layout(page)
    page.get_by_role("link", name="Pause").click()
    check_layout(page)
    page.get_by_label("Reason").fill("one moment")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("The fix is paused.")).to_be_visible()
    for name in ("Fixes", "Alerts", "Reports", "Audit log", "Causes"):
        page.get_by_role("link", name=name, exact=True).first.click()
        check_layout(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert messages == []
    assert one(connection, "select status, flagged_by from dlq.fix") == {
        "status": "paused",
        "flagged_by": "ann via a-retry",
    }
    page.context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_long_and_hostile_texts_stay_within_the_page(
    connection: Connection, browser: Browser, serve: Serve, width: int
) -> None:
    long = "x" * 3_000
    add_events(connection, 3, payload=f'{{"{long}": "{long}"}}', event_type=long[:200])
    kill(connection, f"{long}: <script>alert(1)</script> {long}")
    client = serve()
    client.get("/causes")
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, name, owner, note, first_seen,"
        " last_seen) values ('v2-x', %(x)s, %(x)s, %(y)s, %(y)s, %(x)s, now(), now())",
        {"x": long, "y": long[:200]},
    )
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " values ('v2-y', %(x)s, %(x)s, now(), now())",
        {"x": long},
    )
    change = set_cause_text(
        connection, "v2-y", "note", long[:2_000], audit=build_audit(reason=long[:500])
    ).audit_id
    connection.execute(
        "insert into dlq.audit (kind, actor, reason, filter, events, at)"
        " values ('cause.name', %s, %s, '{}', 1, now())",
        [long[:300], long],
    )
    page, messages = open_browser_page(browser, str(client.base_url), width, "dark")
    event = one(connection, "select min(id) as id from outbox_event")["id"]
    paths = (
        *("/causes", "/causes/v2-x", f"/events/{event}", "/audit", "/fixes/new"),
        *(
            "/causes/v2-x/edit",
            "/causes/v2-x/merge?into=v2-y",
            f"/causes/v2-y/undo?change={change}",
        ),
    )
    for path in paths:
        page.goto(path)
        check_layout(page)
    assert messages == []
    page.context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_keyboard_reaches_the_content(browser: Browser, serve: Serve, width: int) -> None:
    """The first tab stop skips the navigation, and what has the focus is outlined."""
    page, _ = open_browser_page(browser, str(serve().base_url), width, "light")
    page.goto("/causes")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    assert skip.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("State")).to_be_focused()
    assert Path(page.url).name.endswith("causes#content")
    page.context.close()
