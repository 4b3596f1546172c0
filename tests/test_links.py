"""Checks that every address that we link to is served, and is left out if it is not set."""

from collections.abc import Iterator
from datetime import date
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from starlette.routing import Match

from dlq_pipelines.api.app import create_app
from dlq_pipelines.installation import build_links
from dlq_pipelines.links import NO_LINKS, Links
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import build_settings
from dlq_pipelines.web.app import PAGE_NAMES

SET = build_links(
    build_settings(
        {
            "name": "orders",
            "public_url": "https://dlq.example.com/orders/",
            "dagster_ui_url": "https://dagster.example.com/",
        }
    )
)


def served(links: Links) -> Iterator[str | None]:
    """Yield the address of one of each thing that `dlq serve` shows."""
    yield links.link_alerts()
    yield links.link_causes()
    yield links.link_cause("v2-3f9a0c6d2b7e4a51")
    yield links.link_event("a/b c")
    yield links.link_fix(7)
    yield links.link_parked_events()
    yield links.link_report(date(2026, 11, 24))


@pytest.mark.parametrize("address", served(SET))
def test_every_address_is_that_of_a_route(address: str | None) -> None:
    assert address is not None
    assert address.startswith("https://dlq.example.com/orders/")
    path = unquote(urlsplit(address).path.removeprefix("/orders"))
    scope = {"type": "http", "method": "GET", "path": path}
    routes = create_app(build_settings({}), Database("")).routes
    assert any(route.matches(scope)[0] is Match.FULL for route in routes)
    assert path.split("/")[1] in PAGE_NAMES


def test_reports_may_be_elsewhere() -> None:
    links = Links("https://dlq.example.com", report_url="https://reports.example.com/o")
    assert links.link_report(date(2026, 11, 24)) == "https://reports.example.com/o/2026-11-24.html"
    assert links.link_fix(7) == "https://dlq.example.com/fixes/7"


def test_a_run_and_the_runs_of_an_outbox_are_in_the_ui_of_dagster() -> None:
    assert SET.link_run("0f3c") == "https://dagster.example.com/runs/0f3c"
    assert SET.link_run(None) is None
    address = urlsplit(SET.link_runs() or "")
    assert (address.path, parse_qs(address.query)) == ("/runs", {"q[0]": ["tag:dlq/outbox=orders"]})


def test_there_is_no_link_without_an_address() -> None:
    assert {*served(NO_LINKS), NO_LINKS.link_run("0f3c"), NO_LINKS.link_runs()} == {None}
