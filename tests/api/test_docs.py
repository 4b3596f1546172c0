"""`/docs` shows every route and sends authorized requests, without files from other servers."""

import json
import shutil
from collections.abc import Iterator

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from dlq_pipelines.api.guard import HEADERS
from dlq_pipelines.api.swagger import DOCS_FILES, DOCS_POLICY
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve
from tests.rows import add_events, kill, one

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None,
    reason="chromium is missing: apt-get install chromium",
)
# The accessibility rules that the markup of Swagger UI violates: its h1 is followed by an h3, and
# its title is outside every landmark.
KNOWN_VIOLATIONS = {"heading-order", "region"}


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A real browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_docs(
    browser: Browser,
    api: httpx.Client,
    *,
    width: int,
) -> tuple[Page, list[str], list[str]]:
    """Open `/docs`; returns the page, its requests, and its errors and console messages.

    The console also reports each violation of the content security policy.
    """
    page = browser.new_page(viewport={"width": width, "height": 800})
    requests, messages = list[str](), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"{api.base_url}/docs")
    page.locator(".opblock").first.wait_for()
    return page, requests, messages


@needs_chromium
@pytest.mark.parametrize("width", [1280, 380])
def test_docs_shows_every_route_from_files_of_this_server(
    browser: Browser,
    api: httpx.Client,
    width: int,
) -> None:
    """Without an error, a policy violation or horizontal scrolling."""
    page, requests, messages = open_docs(browser, api, width=width)
    shown = [
        f"{route.locator('.opblock-summary-method').inner_text()}"
        f" {route.locator('.opblock-summary-path').get_attribute('data-path')}"
        for route in page.locator(".opblock").all()
    ]
    assert shown == [
        f"{method.upper()} {path}"
        for path, methods in api.get("/openapi.json").json()["paths"].items()
        for method in methods
    ]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    violations = {
        violation["id"]: [node["target"] for node in violation["nodes"]]
        for violation in Axe().run(page).response["violations"]
    }
    assert violations.keys() == KNOWN_VIOLATIONS, violations
    paths = (*DOCS_FILES, "/openapi.json")
    assert sorted(requests) == sorted(f"{api.base_url}{path}" for path in paths)
    assert messages == []


def try_route(page: Page, method: str, path: str) -> Locator:
    """Open a route's form."""
    named = page.locator(f"[data-path='{path}']")
    route = page.locator(f".opblock-{method}").filter(has=named)
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    return route


def execute(route: Locator) -> str:
    """Send the request of a route's form and return the body of its response."""
    route.get_by_role("button", name="Execute").click()
    response = route.locator(".live-responses-table tbody")
    assert response.locator(".response-col_status").inner_text() == "200"
    return response.locator(".highlight-code").first.inner_text().removeprefix("Download")


@needs_chromium
@pytest.mark.parametrize("width", [1280, 380])
def test_try_it_out_sends_the_token(
    browser: Browser, serve: Serve, tokens: dict[str, str], connection: Connection, width: int
) -> None:
    """The suggested body is a dry run, and the browser does not store the token."""
    add_events(connection, 1)
    kill(connection, "KeyError: 'sku'")
    api = serve(api_tokens=tokens["entries"])
    page, requests, messages = open_docs(browser, api, width=width)
    page.get_by_role("button", name="Authorize").click()
    page.locator(".auth-container input").fill(tokens["retry"])
    page.locator(".auth-container input").press("Enter")
    page.get_by_role("button", name="Close").last.click()
    listing = try_route(page, "get", "/api/dead-events")
    assert listing.locator(".parameters tbody tr").count() > 8
    assert json.loads(execute(listing))["events"][0]["last_error"] == "KeyError: 'sku'"
    retrying = try_route(page, "post", "/api/dead-events/{event_id}/retry")
    body = retrying.locator("textarea.body-param__text")
    assert json.loads(body.input_value())["dry_run"] is True
    body.fill('{"dry_run": true}')
    retrying.get_by_placeholder("event_id").fill("1")
    assert json.loads(execute(retrying))["message"] == "Event 1 would be pending again."
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert one(connection, "select status from outbox_event") == {"status": "dead"}
    assert messages == []
    assert {httpx.URL(url).netloc for url in requests} == {api.base_url.netloc}


def test_the_description_declares_the_bearer_token_if_tokens_are_set(
    serve: Serve,
    tokens: dict[str, str],
) -> None:
    described = serve(api_tokens=tokens["entries"]).get("/openapi.json").json()
    ((name, scheme),) = described["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert described["paths"]["/api/dead-events"]["get"]["security"] == [{name: []}]
    assert "securitySchemes" not in serve().get("/openapi.json").json()["components"]


def test_only_docs_has_a_policy_that_allows_scripts(api: httpx.Client) -> None:
    """It allows neither inline scripts and styles nor other origins."""
    for path in DOCS_FILES:
        answer = api.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == DOCS_POLICY
        assert "http" not in DOCS_POLICY
        assert "unsafe" not in DOCS_POLICY
    for path in ("/openapi.json", "/health", "/api/dead-events", "/docs/nothing", "/docs/"):
        answer = api.get(path)
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


def test_docs_refuses_arguments_and_serves_no_other_files(api: httpx.Client) -> None:
    """An argument of Swagger UI's address could name the description of another server."""
    assert api.get("/docs?url=https://example.com/openapi.json").status_code == 400
    assert api.get("/docs/__init__.py").status_code == 404
