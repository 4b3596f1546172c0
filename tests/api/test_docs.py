"""`/docs`: does a person see every route, offline, with nothing that the strictest policy forbids?"""

import shutil

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is missing: apt-get install chromium"
)


def test_the_page_shows_every_route_and_asks_for_nothing_else(api: httpx.Client) -> None:
    """In a browser: each route once with its arguments, no other request, no complaint, nobody shut out."""
    routes = [
        f"{method.upper()} {path}"
        for path, methods in api.get("/openapi.json").json()["paths"].items()
        for method in methods
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 380, "height": 800})
        asked, complaints = list[str](), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"{api.base_url}/docs")
        shown = [" ".join(text.split()) for text in page.locator("article h3").all_inner_texts()]
        assert shown == routes
        assert (
            page.locator("article", has_text="GET /api/dead-events/stats")
            .locator("tbody tr")
            .count()
            > 8
        )
        assert page.evaluate("document.documentElement.scrollWidth") == 380
        assert (
            page.evaluate("getComputedStyle(document.querySelector('article')).borderStyle")
            == "solid"
        )
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        browser.close()
    assert ([url for url in asked if not url.endswith("/favicon.ico")], complaints) == (
        [f"{api.base_url}/docs"],
        [],
    )
