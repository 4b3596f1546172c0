"""The daily report: what it says, that it never changes, and that strangers' texts stay texts."""

import os
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import Window
from dlq_pipelines.reports.report import Report, build_report, markdown_text, report_markdown
from tests.reports.test_figures import BERLIN, DAY, add_cause, add_death

WINDOW = Window(DAY, BERLIN)
HOSTILE = (
    '<script>alert(1)</script>"\' onmouseover=alert(1) x="</pre></bdi></details><img src=x onerror=alert(1)>'
    "{{ 7*7 }} \x1b]0;pwned\x07\x1b[31m & &lt;b&gt; ]]> --> </style><svg onload=alert(1)> \u202eevil"
)
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """What a browser makes of a page: its tags with attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def build(connection: Connection, folder: Path) -> Report:
    return build_report(connection, day=DAY, zone=BERLIN, folder=folder)


def read(report: Report) -> Page:
    return Page(report.path.read_text(encoding="utf-8"))


def add_days(connection: Connection, *, before: int, on_the_day: int) -> None:
    """`before` deaths on each of the 14 days before and `on_the_day` on the day, all of one cause."""
    add_cause(connection, "slow", "TimeoutError", "no answer in <n> s")
    for ago in range(1, 15):
        for event in range(before):
            add_death(connection, WINDOW.start - timedelta(days=ago, hours=-3), cause="slow", event=ago * 1000 + event)
    for event in range(on_the_day):
        add_death(connection, WINDOW.start + timedelta(minutes=event), cause="slow", event=event + 1)


@pytest.mark.parametrize(
    ("before", "on_the_day", "words"),
    [
        (10, 14, "14 events died on 2026-11-20, 40 % above the mean of the 14 days before (10); "),
        (10, 4, "4 events died on 2026-11-20, 60 % below the mean of the 14 days before (10); "),
        (2, 9, "9 events died on 2026-11-20, 4.5 times the mean of the 14 days before (2); "),
        (1, 1, "1 event died on 2026-11-20, as many as the mean of the 14 days before (1); "),
        (0, 3, "3 events died on 2026-11-20, none in the 14 days before; "),
    ],
)
def test_the_headline_says_how_unusual_the_day_is(
    connection: Connection, tmp_path: Path, before: int, on_the_day: int, words: str
) -> None:
    """The number, what it is compared with, and the largest cause."""
    add_days(connection, before=before, on_the_day=on_the_day)
    report = build(connection, tmp_path)
    assert report.headline.startswith(words)
    assert f"the largest cause is TimeoutError: no answer in <n> s ({on_the_day}, 100 %)" in report.headline
    assert (report.deaths, report.mean) == (on_the_day, before)
    assert report.headline in read(report).text.replace("\u00a0", " ")


def test_an_event_that_died_twice_is_one_event(connection: Connection, tmp_path: Path) -> None:
    """Deaths and events are not the same thing; without a known cause the headline says so."""
    for hour in (1, 5):
        add_death(connection, WINDOW.start + timedelta(hours=hour), event=7)
    report = build(connection, tmp_path)
    assert report.headline == ("1 event died 2 times on 2026-11-20, none in the 14 days before; no cause is known yet.")
    assert list(report.causes["cause"]) == ["not classified yet"]


def test_a_past_day_is_the_same_file_whatever_happened_since(connection: Connection, tmp_path: Path) -> None:
    """Events are retried, die again, are archived and deleted; causes are fixed: the file keeps its bytes."""
    add_cause(connection, "slow")
    connection.execute(
        "insert into public.outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, dead_at)"
        " select 'order', n::text, 'OrderPlaced', '{}', 'dead', 5, 'boom ' || n, %s + n * interval '9 minutes'"
        " from generate_series(1, 90) n",
        [WINDOW.start],
    )
    connection.execute("update dlq.death set cause_id = 'slow' where event_id % 4 > 0")
    first = build(connection, tmp_path / "first").path.read_bytes()

    connection.execute(
        "insert into dlq.retry (death_id, event_id, aggregate_type, aggregate_id, actor, reason, retried_at, due_at)"
        " select id, event_id, aggregate_type, aggregate_id, 'ana', 'mended', now(), now() from dlq.death"
        " where event_id <= 30"
    )
    connection.execute("update public.outbox_event set status = 'pending', attempts = 0 where id <= 30")
    connection.execute("update public.outbox_event set status = 'dead', last_error = 'again' where id <= 10")
    connection.execute(
        "with moved as (delete from public.outbox_event where id > 60 returning *)"
        " insert into public.outbox_event_archive (id, aggregate_type, aggregate_id, event_type, payload, status,"
        " attempts, next_run_at, created_at) select id, aggregate_type, aggregate_id, event_type, payload, status,"
        " attempts, next_run_at, created_at from moved"
    )
    connection.execute(
        "update dlq.cause set status = 'fixed', fixed_at = now(), last_seen = now() + interval '1 day',"
        " sample = 'other'"
    )
    for event, at in ((1001, WINDOW.end), (1002, WINDOW.end + timedelta(days=2))):
        add_death(connection, at, cause="slow", event=event)

    assert build(connection, tmp_path / "second").path.read_bytes() == first
    assert build(connection, tmp_path / "first").path.read_bytes() == first
    assert b"90 events died" in first


def test_hostile_texts_are_inert_in_the_page(connection: Connection, tmp_path: Path) -> None:
    """An error, an exception type, a template and an event type that are markup are shown, not obeyed."""
    add_cause(connection, "evil", HOSTILE, HOSTILE[::-1] + HOSTILE)
    add_death(connection, WINDOW.start, cause="evil", error=HOSTILE, event_type=HOSTILE, aggregate=HOSTILE)
    add_death(connection, WINDOW.start, event=2, error=HOSTILE, event_type=HOSTILE)
    page = read(build(connection, tmp_path))
    names = {tag for tag, _ in page.tags}
    attributes = {name for _, found in page.tags for name in found}
    assert not names & {"script", "img", "iframe", "link", "object", "a", "form", "base"}
    assert not [name for name in attributes if name.startswith("on")]
    assert not attributes & {"src", "href", "xlink:href", "srcset", "action"}
    assert not page.open
    assert page.text.count("<script>alert(1)</script>\"' onmouseover=alert(1)") >= 4
    assert "{{ 7*7 }}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.text)


def test_the_page_fetches_nothing_and_allows_nothing(connection: Connection, tmp_path: Path) -> None:
    """A policy that forbids everything but its own styles, and no address in the styles."""
    add_days(connection, before=1, on_the_day=3)
    html = build(connection, tmp_path).path.read_text(encoding="utf-8")
    policies = [found["content"] for tag, found in Page(html).tags if found.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "url(" not in html
    assert "@import" not in html
    assert set(re.findall(r"https?://[^\"' ]+", html)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_page_can_be_read_without_seeing_it(connection: Connection, tmp_path: Path) -> None:
    """Language, title, landmarks, captions, scopes, and a name for every picture."""
    add_days(connection, before=1, on_the_day=3)
    tags = read(build(connection, tmp_path)).tags
    assert [found["lang"] for tag, found in tags if tag == "html"] == ["en"]
    names = [tag for tag, _ in tags]
    assert {"title", "header", "main", "footer", "h1"} <= set(names)
    assert names.count("caption") == names.count("table") == 3
    assert all(found.get("scope") for tag, found in tags if tag == "th")
    assert all(found.get("aria-label") for tag, found in tags if tag == "svg")
    assert names.count("svg") == 3


def test_a_day_without_deaths_says_so_and_shows_the_trend(connection: Connection, tmp_path: Path) -> None:
    """The days before are still there to look at."""
    add_days(connection, before=3, on_the_day=0)
    report = build(connection, tmp_path)
    page = read(report)
    assert report.headline == "No event died on 2026-11-20; the mean of the 14 days before is 3."
    assert report.causes.empty
    assert "No event died on this day." in page.text
    assert "2026-11-19: 3" in report.chart_svg
    assert report_markdown(report) == "No event died on 2026-11-20; the mean of the 14 days before is 3."


def test_an_empty_ledger_makes_a_report(connection: Connection, tmp_path: Path) -> None:
    """The first day of an installation."""
    report = build(connection, tmp_path)
    assert report.headline == "No event died on 2026-11-20; none did in the 14 days before."
    assert read(report).text


def test_a_long_error_is_cut_and_a_missing_one_named(connection: Connection, tmp_path: Path) -> None:
    """The page says how much there was, and that there was nothing."""
    add_cause(connection, "long")
    add_death(connection, WINDOW.start, cause="long", error="y" * 5_000)
    add_death(connection, WINDOW.start, event=2, error=None)
    text = read(build(connection, tmp_path)).text
    assert "y" * 4_000 in text
    assert "y" * 4_001 not in text
    assert "The first 4,000 of 5,000 characters." in text
    assert "No error text was recorded." in text


def test_a_failed_write_leaves_the_earlier_file(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the wrong moment costs nothing that was there, and leaves no litter."""
    before = build(connection, tmp_path).path.read_bytes()
    add_death(connection, WINDOW.start)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        build(connection, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["2026-11-20.html"]
    assert (tmp_path / "2026-11-20.html").read_bytes() == before


def test_markdown_is_one_row_a_cause_and_strangers_texts_stay_texts(connection: Connection, tmp_path: Path) -> None:
    """No cell, code, link or tag comes out of an error."""
    add_cause(connection, "evil", "Evil|Error", "a | b `c` [d](javascript:e) <b>\n| x | https://evil.example")
    for event in range(3):
        add_death(connection, WINDOW.start + timedelta(hours=1), cause="evil", event=event)
    lines = report_markdown(build(connection, tmp_path)).splitlines()
    cells = lines[4].strip("| ").split(" | ")
    assert len(lines) == 5
    assert cells[0] == "1"
    assert cells[1] == (
        "Evil&#124;Error: a &#124; b &#96;c&#96; \\[d\\]\\(javascript:e\\) &#60;b&#62; &#124; x &#124; "
        "https://\u200bevil.example"
    )
    assert cells[2:] == ["new", "3", "100\u00a0%", "1", "OrderPlaced"]


def test_markdown_shows_ten_causes_and_counts_the_rest(connection: Connection, tmp_path: Path) -> None:
    """Dagster's UI has no room for more."""
    for number in range(12):
        add_cause(connection, f"c{number:02}")
        add_death(connection, WINDOW.start, cause=f"c{number:02}", event=number)
    text = report_markdown(build(connection, tmp_path))
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 10
    assert text.endswith("2 more deaths of other causes: see the HTML report.")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a|b", "a&#124;b"),
        ("a\\|b", "a&#92;&#124;b"),
        ("`rm`", "&#96;rm&#96;"),
        ("<img src=x>", "&#60;img src=x&#62;"),
        ("&lt;", "&#38;lt;"),
        ("![x](y) *b* _i_ ~s~", r"!\[x\]\(y\) \*b\* \_i\_ \~s\~"),
        ("a\n\n# b", r"a \# b"),
        ("www.evil.example me@evil.example", "www\u200b.evil.example me@\u200bevil.example"),
    ],
)
def test_markdown_text_shows_just_the_text(text: str, safe: str) -> None:
    """Each character that Markdown gives a meaning has lost it."""
    assert markdown_text(text) == safe
