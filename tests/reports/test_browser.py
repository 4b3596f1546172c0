"""Tests the pages in a real browser: light and dark, at three widths, printed, with hostile texts.

The browser measures the layout. Reference screenshots are not used: system fonts differ between
machines, and a tolerance for that hides real differences. A screenshot is taken for what only
pixels show: that colors are drawn, and that the dark page is dark.
"""

import base64
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal, Protocol

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.reports.report import build_report
from tests.conftest import _new_database, database_url
from tests.reports import story
from tests.reports.test_report import LATER, hostile

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)
ColorScheme = Literal["light", "dark"]
WIDTHS = (1280, 768, 375)
PAGES = (
    "story/2026-11-20.html",
    "story/2026-11-21.html",
    "story/2026-11-22.html",
    "story/index.html",
    "hostile/2026-11-20.html",
)
# Elements that are outside of the page, and the position of each section.
LEAVING = """
    () => [...document.body.querySelectorAll('*')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1)
            && !e.closest('.scroll, pre, .hidden, .spark, thead');
    }).map(e => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`)
"""
TOPS = """
    () => [
        '.lead', '.minute', '.facts', '.charts', '#causes', '#heat', '#fixes', '#retention',
        'footer'
    ].map(name => document.querySelector(name).getBoundingClientRect().top)
"""

# The color in the corner of a picture, and all colors of more than 40 pixels.
COLORS = """
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
        const common = [...counts].filter(one => one[1] > 40).map(one => one[0]);
        return [`${data[0]},${data[1]},${data[2]}`, common];
    }
"""


@pytest.fixture(scope="module")
def reports(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the reports of the story's day, of the quiet day after it, and of hostile texts."""
    folder = tmp_path_factory.mktemp("reports")
    for name, play in (("story", story.create_story), ("hostile", hostile)):
        with (
            _new_database(server_url, template) as database,
            Database(database_url(server_url, database)).connect() as connection,
        ):
            play(connection)
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
class OpenPage:
    """An open page with its requests and the messages of its console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


class OpenFunction(Protocol):
    """Opens a page at a width, in light or dark."""

    def __call__(self, name: str, *, width: int = 1280, scheme: ColorScheme = "light") -> OpenPage:
        """Open the page."""


@pytest.fixture
def see(browser: Browser, reports: Path) -> Iterator[OpenFunction]:
    """Return a function that opens a page at a width, in light or dark."""
    contexts = []

    def open_page(name: str, *, width: int = 1280, scheme: ColorScheme = "light") -> OpenPage:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        seen = OpenPage(context.new_page())

        def record_dialog(dialog: Dialog) -> None:
            seen.messages.append(dialog.message)
            dialog.dismiss()

        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("console", lambda message: seen.messages.append(message.text))
        seen.page.on("pageerror", lambda error: seen.messages.append(str(error)))
        seen.page.on("dialog", record_dialog)
        seen.page.goto((reports / name).as_uri())
        return seen

    yield open_page
    for context in contexts:
        context.close()


# The layout depends on the width, and the colors on the scheme.
@pytest.mark.parametrize(
    ("width", "scheme"), [*((width, "light") for width in WIDTHS), (WIDTHS[-1], "dark")]
)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_self_contained_fits_and_is_accessible(
    see: OpenFunction, reports: Path, name: str, width: int, scheme: ColorScheme
) -> None:
    """One request, an empty console, nothing beyond the edges, no axe-core violation."""
    seen = see(name, width=width, scheme=scheme)
    assert seen.page.evaluate(LEAVING) == []
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.page.evaluate(LEAVING) == []
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.requests == [(reports / name).as_uri()]
    assert seen.messages == []
    found = Axe().run(seen.page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", WIDTHS)
def test_sections_are_in_order(see: OpenFunction, width: int) -> None:
    """Headline, urgent causes, totals, charts, causes, fixes, retention."""
    tops = see(PAGES[0], width=width).page.evaluate(TOPS)
    assert tops == sorted(tops)
    assert tops[1] < (900 if width > 400 else 1_000)


@pytest.mark.parametrize(("width", "columns"), [(1280, 4), (768, 2), (375, 1)])
def test_urgent_causes_use_the_available_width(see: OpenFunction, width: int, columns: int) -> None:
    """Four boxes in a row, two, or one. Charts fill their figures."""
    page = see(PAGES[0], width=width).page
    lefts = page.evaluate(
        "[...document.querySelectorAll('.minute > div')]"
        ".map(one => Math.round(one.getBoundingClientRect().left))"
    )
    assert len(set(lefts)) == columns
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure:not(.timeline) > svg')]"
        ".map(one => [one.getBoundingClientRect().width,"
        " one.parentElement.getBoundingClientRect().width])"
    )
    assert [round(svg) for svg, _ in boxes] == [round(place) for _, place in boxes]
    assert len({round(svg) for svg, _ in boxes}) == 1
    assert boxes[0][0] > min(300, width * 0.8)


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_of_a_cause_do_not_overlap(see: OpenFunction, width: int) -> None:
    """No text overlaps another one."""
    overlapping = see(PAGES[0], width=width).page.evaluate("""
        () => [...document.querySelectorAll('.cause')].flatMap(cause => {
            const parts = cause.querySelectorAll('h3, .template, .types, .figs > div, .notes > *');
            const boxes = [...parts].map(one => one.getBoundingClientRect())
                .filter(box => box.width && box.height);
            return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
                Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1
            ).map(b => [cause.id, a.top, b.top]));
        })
    """)
    assert overlapping == []


def test_links_open_causes_fixes_and_other_days(see: OpenFunction) -> None:
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


def test_a_sample_unfolds_without_a_script(see: OpenFunction) -> None:
    """A click shows the traceback."""
    page = see(PAGES[0]).page
    trace = page.locator("#cause-1 pre")
    assert not trace.is_visible()
    page.locator("#cause-1 summary").click()
    assert trace.is_visible()
    assert 'File "/srv/shop/worker.py", line 88' in trace.inner_text()


def test_printed_page_is_white_and_short(see: OpenFunction, tmp_path: Path) -> None:
    """On white, without navigation, on a few sheets."""
    page = see(PAGES[0], width=760, scheme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav.days").is_visible()
    assert page.locator("#cause-1 h3").is_visible()
    assert page.evaluate(LEAVING) == []
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    sheets = (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n")
    assert 1 <= sheets <= 6


@pytest.mark.parametrize(
    ("width", "scheme"), [(WIDTHS[0], "light"), (WIDTHS[0], "dark"), (WIDTHS[-1], "light")]
)
def test_screenshot_has_the_colors_of_the_scheme(
    see: OpenFunction, width: int, scheme: ColorScheme
) -> None:
    """A light or dark background, the colors of the chart and the darkest cell of the heat map."""
    page = see(PAGES[0], width=width, scheme=scheme).page
    picture = base64.b64encode(page.screenshot(full_page=True)).decode()
    background, colors = page.context.new_page().evaluate(COLORS, picture)
    assert background == ("253,253,252" if scheme == "light" else "20,23,26")
    heat = "220,156,87" if scheme == "light" else "124,89,48"
    assert {"74,127,181", "208,139,62", "77,154,138", "181,97,111", heat} <= set(colors)
