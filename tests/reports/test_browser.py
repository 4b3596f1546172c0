"""What a person sees: the page in a real browser, light and dark, at three widths, printed, with hostile texts.

The layout is guarded by what the browser measures. Reference screenshots lost: system fonts differ from machine to
machine, so their tolerance would have to hide what they are for. A picture is still taken, and looked at for what only
pixels show: that colours are drawn, and that what is dark is dark.
"""

import base64
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.reports.report import build_report
from tests.conftest import _new_database, database_url
from tests.reports import story
from tests.reports.test_report import LATER, hostile

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no browser here; it comes with: apt-get install chromium"
)
WIDTHS = (1280, 768, 375)
PAGES = (
    "story/2026-11-20.html",
    "story/2026-11-21.html",
    "story/2026-11-22.html",
    "story/index.html",
    "hostile/2026-11-20.html",
)
# What the page measures of itself: elements that leave it, and what overlaps in a row of figures.
LEAVING = """
    () => [...document.body.querySelectorAll('*')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('.scroll, pre, .hidden, .spark')
            && !e.closest('thead');
    }).map(e => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`)
"""
TOPS = """
    () => ['.lead', '.minute', '.facts', '.charts', '#causes', '#heat', '#fixes', '#retention', 'footer']
        .map(one => document.querySelector(one).getBoundingClientRect().top)
"""

# Of a picture: the colour in its corner, and those of more than 40 pixels.
COLOURS = """
    async picture => {
        const bytes = Uint8Array.from(atob(picture), one => one.charCodeAt(0));
        const image = await createImageBitmap(new Blob([bytes], {type: 'image/png'}));
        const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
        canvas.drawImage(image, 0, 0);
        const data = canvas.getImageData(0, 0, image.width, image.height).data, counts = new Map();
        for (let at = 0; at < data.length; at += 4) {
            const colour = `${data[at]},${data[at + 1]},${data[at + 2]}`;
            counts.set(colour, (counts.get(colour) ?? 0) + 1);
        }
        return [`${data[0]},${data[1]},${data[2]}`, [...counts].filter(one => one[1] > 40).map(one => one[0])];
    }
"""


@pytest.fixture(scope="module")
def reports(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story's day, the quiet one after it, their list, and a day of hostile texts."""
    folder = tmp_path_factory.mktemp("reports")
    for name, tell in (("story", story.tell), ("hostile", hostile)):
        with (
            _new_database(server_url, template) as database,
            Database(database_url(server_url, database)).connect() as connection,
        ):
            tell(connection)
            _build(connection, folder / name, days=2 if name == "story" else 1)
    return folder


def _build(connection: Connection, folder: Path, *, days: int) -> None:
    for ahead in range(days):
        day = story.DAY + timedelta(days=ahead)
        build_report(
            connection,
            day=day,
            zone=story.BERLIN,
            target=open_local_target(folder, ""),
            policy=story.POLICY,
            now=LATER,
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0
        )
        yield launched
        launched.close()


@dataclass
class Seen:
    """An open page and what it did: requests beside its own file, and what the console said."""

    page: Page
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture
def see(browser: Browser, reports: Path) -> Iterator[Any]:
    """Open a page at a width, in light or dark."""
    contexts = []

    def open_page(name: str, *, width: int = 1280, scheme: str = "light") -> Seen:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("console", lambda message: seen.said.append(message.text))
        seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
        seen.page.on("dialog", lambda dialog: (seen.said.append(dialog.message), dialog.dismiss()))
        seen.page.goto((reports / name).as_uri())
        return seen

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_runs_is_fetched_or_leaves_the_page_and_accessibility_rules_hold(
    see: Any, reports: Path, name: str, width: int, scheme: str
) -> None:
    """One request, a silent console, no element beyond the edges, folded or not; all rules of axe-core's, unfolded."""
    seen = see(name, width=width, scheme=scheme)
    assert seen.page.evaluate(LEAVING) == []
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.page.evaluate(LEAVING) == []
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.requests == [(reports / name).as_uri()]
    assert seen.said == []
    found = Axe().run(seen.page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_read_from_top_to_bottom_in_the_order_of_need(see: Any, width: int) -> None:
    """What is different, figures, charts, causes, fixes, books: each below the one before it."""
    tops = see(PAGES[0], width=width).page.evaluate(TOPS)
    assert tops == sorted(tops)
    assert tops[1] < (900 if width > 400 else 1_000)


@pytest.mark.parametrize(("width", "columns"), [(1280, 4), (768, 2), (375, 1)])
def test_what_is_different_stands_side_by_side_where_there_is_room(
    see: Any, width: int, columns: int
) -> None:
    """Four boxes in a row, two, or one below the other; charts fill their places."""
    page = see(PAGES[0], width=width).page
    lefts = page.evaluate(
        "[...document.querySelectorAll('.minute > div')].map(one => Math.round(one.getBoundingClientRect().left))"
    )
    assert len(set(lefts)) == columns
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure > svg')].map(one => [one.getBoundingClientRect().width,"
        " one.parentElement.getBoundingClientRect().width])"
    )
    assert [round(svg) for svg, _ in boxes] == [round(place) for _, place in boxes]
    assert len({round(svg) for svg, _ in boxes}) == 1
    assert boxes[0][0] > min(300, width * 0.8)


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_of_a_cause_do_not_overlap(see: Any, width: int) -> None:
    """No text lies on another one."""
    overlapping = see(PAGES[0], width=width).page.evaluate("""
        () => [...document.querySelectorAll('.cause')].flatMap(cause => {
            const boxes = [...cause.querySelectorAll('h3, .template, .types, .figs > div, .notes > *')]
                .map(one => one.getBoundingClientRect()).filter(box => box.width && box.height);
            return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
                Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1).map(b => [cause.id, a.top, b.top]));
        })
    """)
    assert overlapping == []


def test_links_lead_to_causes_fixes_and_neighbours(see: Any) -> None:
    """By clicks."""
    page = see(PAGES[0]).page
    page.get_by_role("link", name="psycopg.errors.UniqueViolation").first.click()
    assert page.url.endswith("#cause-2")
    assert page.locator("#cause-2").evaluate("one => one.getBoundingClientRect().top") < 200
    page.get_by_role("link", name="labels read the new field").first.click()
    assert "#fix-" in page.url
    page.get_by_role("link", name="21 Nov").click()
    assert (
        page.get_by_role("heading", level=1).inner_text().startswith("Saturday, 21 November 2026")
    )
    page.get_by_role("link", name="22 Nov").click()
    assert page.get_by_text("There is no report for this day yet.").is_visible()
    page.get_by_role("link", name="All days").click()
    page.get_by_role("link", name="2026-11-20").click()
    assert page.url.endswith("2026-11-20.html")


def test_a_sample_unfolds_without_a_script(see: Any) -> None:
    """The traceback is there for who asks."""
    page = see(PAGES[0]).page
    trace = page.locator("#cause-1 pre")
    assert not trace.is_visible()
    page.locator("#cause-1 summary").click()
    assert trace.is_visible()
    assert 'File "/srv/shop/worker.py", line 88' in trace.inner_text()


def test_the_printed_page_has_what_matters(see: Any, tmp_path: Path) -> None:
    """On white, without what can only be clicked; a few sheets."""
    page = see(PAGES[0], width=760, scheme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav.days").is_visible()
    assert page.locator("#cause-1 h3").is_visible()
    assert page.evaluate(LEAVING) == []
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    sheets = (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n")
    assert 1 <= sheets <= 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_screenshot_shows_what_is_drawn(see: Any, width: int, scheme: str) -> None:
    """The ground is light or dark, each of the chart's colours and the darkest heat are on it."""
    page = see(PAGES[0], width=width, scheme=scheme).page
    picture = base64.b64encode(page.screenshot(full_page=True)).decode()
    ground, colours = page.context.new_page().evaluate(COLOURS, picture)
    assert ground == ("253,253,252" if scheme == "light" else "20,23,26")
    heat = "220,156,87" if scheme == "light" else "124,89,48"
    assert {"74,127,181", "208,139,62", "77,154,138", "181,97,111", heat} <= set(colours)
