"""Tests the daily report: its texts, stable bytes, publishing, and hostile texts."""

import json
import os
import re
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console
from rich.markdown import Markdown

import dlq_pipelines.reports
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import merge_causes, set_cause_text
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import DlqError
from dlq_pipelines.exports.target import Target, open_local_target, open_target
from dlq_pipelines.links import Links
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.decisions import OpenDecision, list_open_decisions
from dlq_pipelines.reports.digest import build_digest
from dlq_pipelines.reports.figures import ReportPolicy, ReportWindow
from dlq_pipelines.reports.json_report import render_report_json
from dlq_pipelines.reports.publish import fetch_report_page
from dlq_pipelines.reports.read import read_report_figures
from dlq_pipelines.reports.report import Report, build_report, make_report
from dlq_pipelines.reports.states import CauseState
from dlq_pipelines.reports.wording import build_headline
from dlq_pipelines.retries.advance import pause_fix, resume_fix
from dlq_pipelines.retries.timeline import list_series
from dlq_pipelines.text import (
    escape_markdown,
    shorten_markdown,
    unescape_markdown,
    wrap_markdown,
)
from tests.reports import story
from tests.reports.rows import add_cause, add_death, count_again
from tests.reports.story import BERLIN, DAY, WINDOW
from tests.rows import one
from tests.shapes import ShapedOutbox

LATER = datetime(2027, 6, 1, tzinfo=UTC)
SCHEMA = json.loads(
    (Path(dlq_pipelines.reports.__file__).parent / "report.schema.json").read_text(encoding="utf-8")
)
HOSTILE = (
    '<script>alert(1)</script>"\' onmouseover=alert(1) x="</pre></bdi></details>'
    "<img src=x onerror=alert(1)>{{ 7*7 }} \x1b]0;pwned\x07\x1b[31m & &lt;b&gt; ]]> -->"
    " </style><svg onload=alert(1)> \u202eevil"
    " [x](javascript:alert(1)) | a | https://evil.example"
)
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Parses a page: its tags with attributes, and its text."""

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


def make(connection: Connection, policy: ReportPolicy | None = None) -> Report:
    return make_report(connection, day=DAY, zone=BERLIN, policy=policy or ReportPolicy(), now=LATER)


def build(connection: Connection, target: Target, *, ago: int = 0) -> Report:
    day = DAY - timedelta(days=ago)
    return build_report(
        connection, day=day, zone=BERLIN, target=target, policy=story.POLICY, now=LATER
    )


def install(connection: Connection, *, days_before: int) -> None:
    """Date the installation some days before the reported day."""
    installed = WINDOW.start - timedelta(days=days_before, hours=-12)
    connection.execute("update dlq.installation set created_at = %s", [installed])


def add_days(connection: Connection, *, before: int, on_the_day: int) -> None:
    """Insert deaths of one cause on each of the 14 days before, and on the day."""
    add_cause(connection, "slow", "TimeoutError", "no answer in <n> s")
    for ago in range(1, 15):
        for event in range(before):
            add_death(
                connection,
                WINDOW.start - timedelta(days=ago, hours=-3),
                cause="slow",
                event=ago * 1000 + event,
            )
    for event in range(on_the_day):
        add_death(
            connection, WINDOW.start + timedelta(minutes=event), cause="slow", event=event + 1
        )
    count_again(connection)


@pytest.mark.parametrize(
    ("before", "on_the_day", "words"),
    [
        (
            10,
            14,
            (
                "14 events died on 2026-11-20, 40 % above the mean of the 14 days before (10)."
                " No new causes; 1 known one."
            ),
        ),
        (10, 4, "4 events died on 2026-11-20, 60 % below the mean of the 14 days before (10). "),
        (2, 9, "9 events died on 2026-11-20, 4.5 times the mean of the 14 days before (2). "),
        (
            3,
            30,
            (
                "30 events died on 2026-11-20, 10.0 times the mean of the 14 days before (3)."
                " 1 cause: 1 escalating."
            ),
        ),
        (1, 1, "1 event died on 2026-11-20, equal to the mean of the 14 days before (1). "),
        (0, 3, "3 events died on 2026-11-20, none in the 14 days before. 1 cause: 1 new. "),
    ],
)
def test_headline_compares_the_day_with_the_days_before(
    connection: Connection, before: int, on_the_day: int, words: str
) -> None:
    """Deaths, comparison, causes, and the most affected cause."""
    install(connection, days_before=90)
    add_days(connection, before=before, on_the_day=on_the_day)
    report = make(connection)
    assert report.headline.startswith(words)
    deaths = f"{on_the_day} death{'s' * (on_the_day > 1)}"
    assert f"Most affected: TimeoutError: no answer in <n> s, 1 order, {deaths}." in report.headline
    assert report.headline in Page(report.html).text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("days", "words", "means"),
    [
        (0, "and no day before is recorded.", ""),
        (1, "none in the day before.", "; mean of the day before 0"),
        (3, "80 % above the mean of the 3 days before (3.3).", "; mean of the 3 days before 3.3"),
        (
            8,
            "4.8 times the mean of the 8 days before (1.2).",
            "; mean of the 8 days before 1.2, of the last Friday 0",
        ),
        (
            60,
            "8.4 times the mean of the 14 days before (0.7).",
            "; mean of the 14 days before 0.7, of the last two Fridays 0",
        ),
    ],
)
def test_the_means_ignore_days_before_the_installation(
    connection: Connection, days: int, words: str, means: str
) -> None:
    """Days since then count, also before the first death. Ten events died two days before."""
    install(connection, days_before=days)
    add_cause(connection, "slow")
    for event in range(10 if days > 1 else 0):
        add_death(connection, WINDOW.start - timedelta(days=2), cause="slow", event=100 + event)
    for event in range(6):
        add_death(connection, WINDOW.start, cause="slow", event=event)
    count_again(connection)
    report = make(connection)
    assert report.headline.startswith(f"6 events died on 2026-11-20, {words}")
    assert f"6 deaths{means}\n" in report.markdown
    jsonschema.validate(json.loads(report.json), SCHEMA)
    assert ("-day mean" in Page(report.html).text) == bool(days)


def test_an_event_that_died_twice_is_one_event(connection: Connection) -> None:
    """Without a classified death, the headline says so."""
    install(connection, days_before=90)
    for hour in (1, 5):
        add_death(connection, WINDOW.start + timedelta(hours=hour), event=7)
    report = make(connection)
    assert (
        report.headline == "1 event died 2 times on 2026-11-20, none in the 14 days before."
        " No death is classified yet."
    )
    assert [cause.title for cause in report.figures.causes] == ["not classified yet"]


def test_the_story_has_its_states_fixes_and_backlog(outbox: ShapedOutbox) -> None:
    """New, regressed, escalating, fixing and muted causes; an open and a halted fix."""
    connection = outbox.connection
    played = story.create_story(outbox)
    figures = make(connection, story.POLICY).figures
    states = {cause.cause_id: cause.state for cause in figures.causes}
    assert states == {
        compute_cause_id(story.REFUSED): CauseState.ESCALATING,
        compute_cause_id(story.DOUBLE.format(name="x")): CauseState.NEW,
        compute_cause_id(story.CARRIER): CauseState.REGRESSED,
        compute_cause_id(story.ROUTE): CauseState.ESCALATING,
        compute_cause_id(story.LABEL): CauseState.FIXING,
        compute_cause_id(story.MAIL): CauseState.MUTED,
        "": CauseState.UNCLASSIFIED,
    }
    by_id = {cause.cause_id: cause for cause in figures.causes}
    assert by_id[compute_cause_id(story.LABEL)].owner == "shipping-team"
    assert (by_id[compute_cause_id(story.REFUSED)].note or "").startswith("Runbook")
    assert [(fix.id, fix.status, fix.ended) for fix in figures.fixes] == [
        (played.route_fix, "halted", True), (played.label_fix, "active", False),
    ]  # fmt: skip
    route, label = figures.fixes
    assert [vars(stage) for stage in label.stages] == [
        {
            "stage": 1,
            "released": 10,
            "delivered": 10,
            "died_again": 0,
            "timed_out": 0,
            "deleted": 0,
            "recalled": 0,
        },
        {
            "stage": 2,
            "released": 96,
            "delivered": 0,
            "died_again": 0,
            "timed_out": 0,
            "deleted": 0,
            "recalled": 0,
        },
    ]
    assert (route.released, route.died_again, len(route.evidence)) == (10, 10, 1)
    for fix in (route, label):
        counts = list_series(fix.timeline)
        # What falls due after the day is released and not in the timeline yet.
        assert sum(counts["released"]) == fix.released
        assert sum(counts["delivered"]) == fix.delivered
        assert sum(counts["died_again"]) == fix.died_again
    backlog = figures.backlog
    assert (backlog.added, backlog.retried, backlog.archived, backlog.unexplained) == (
        167,
        116,
        135,
        0,
    )
    assert backlog.dead_at_end == backlog.dead_at_start + 167 - 116 - 135
    assert (backlog.delivered, backlog.died_again) == (10, 10)
    assert figures.totals.unclassified == 4
    assert figures.reconciliation is not None
    assert (figures.reconciliation.missing, figures.reconciliation.duplicated) == (0, 0)
    due = one(
        connection,
        "select count(*) as n from dlq.dead_now where died_at < '2026-11-13 23:00Z'",
    )
    assert figures.upcoming.archived == due["n"]


def test_a_rebuilt_day_has_the_same_bytes(outbox: ShapedOutbox, tmp_path: Path) -> None:
    """After deaths, retries, recalls, fixes, notes, mutes, discards, archive, restore and purge."""
    connection = outbox.connection
    played = story.create_story(outbox)
    story.release_far_ahead(played)
    classify_deaths(connection, zone=BERLIN)
    first = build(connection, open_local_target(tmp_path / "first", ""))
    before = outbox.count_states()["dead"]
    story.continue_story(played)
    moved = one(
        connection,
        "select (select count(*) from dlq.purged) as purged,"
        " (select count(*) from dlq.restored) as r,"
        f" (select count(*) from dlq.recalled where recalled_at < '{WINDOW.until}') as that_day,"
        " (select count(*) from dlq.recalled) as recalled",
    )
    assert (moved["that_day"], moved["recalled"]) == (4, 11)
    assert moved["purged"] > 200
    assert moved["r"] == 15
    assert outbox.count_states()["dead"] < before / 4
    second = build(connection, open_local_target(tmp_path / "second", ""))
    assert (second.html, second.markdown, second.json) == (first.html, first.markdown, first.json)
    for suffix in ("html", "md", "json"):
        name = f"2026-11-20.{suffix}"
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_all_days_of_the_story_have_the_same_bytes_later(outbox: ShapedOutbox) -> None:
    """Also days with an open fix, or with events that are archived later."""
    connection = outbox.connection
    played = story.create_story(outbox)
    story.release_far_ahead(played)
    classify_deaths(connection, zone=BERLIN)

    def days() -> list[str]:
        read = [
            read_report_figures(
                connection,
                ReportWindow(DAY - timedelta(days=ago), BERLIN),
                policy=story.POLICY,
                now=LATER,
            )
            for ago in range(0, 16, 3)
        ]
        return [render_report_json(figures, build_headline(figures)) for figures in read]

    before = days()
    story.continue_story(played)
    assert days() == before


def test_only_merging_and_naming_change_a_past_day(connection: Connection) -> None:
    """On purpose: they correct what the failures are."""
    add_days(connection, before=1, on_the_day=3)
    before = make(connection).json
    set_cause_text(connection, "slow", "owner", "ann", audit=AuditContext("ann", "r", LATER))
    assert make(connection).json == before
    set_cause_text(
        connection, "slow", "name", "Slow carrier", audit=AuditContext("ann", "r", LATER)
    )
    assert make(connection).figures.causes[0].title == "Slow carrier"
    add_cause(connection, "root")
    connection.execute(
        "update dlq.cause set first_seen = now(), last_seen = now() where id = 'root'"
    )
    merge_causes(connection, "slow", into="root", audit=AuditContext("ann", "r", LATER))
    assert make(connection).figures.causes[0].cause_id == "root"


def test_a_paused_fix_is_paused_in_later_reports(connection: Connection) -> None:
    """It was paused at the end of the day and resumed later."""
    played = story.create_story(connection)
    paused = AuditContext("ann", "look first", WINDOW.until - timedelta(hours=1))
    pause_fix(connection, played.label_fix, audit=paused)
    resume_fix(connection, played.label_fix, audit=AuditContext("ann", "go on", WINDOW.until))
    assert [fix.status for fix in make(connection).figures.fixes] == ["halted", "paused"]


def test_deleted_dead_events_are_unexplained(connection: Connection) -> None:
    """The balance of the day shows how many are missing."""
    story.create_story(connection)
    connection.execute(
        "delete from outbox_event where id in ("
        "select event_id from dlq.dead_now order by died_at desc limit 2)"
    )
    report = make(connection, story.POLICY)
    assert report.figures.backlog.unexplained == 2
    assert "2 fewer: deleted or changed outside dlq-pipelines." in Page(report.html).text
    assert "**2 unexplained**" in " ".join(report.markdown.split())


def test_what_healed_by_itself_is_shown_if_anything_did(connection: Connection) -> None:
    """Counted on the day of the outcome; retries of people do not count."""
    add_cause(connection, "timeout")
    for event in range(1, 7):
        add_death(connection, WINDOW.start, cause="timeout", event=event)
    count_again(connection)
    before = make(connection)
    assert "healed_by_probes" not in json.loads(before.json)
    assert "without a person" not in before.html + before.markdown
    connection.execute(
        "insert into dlq.fix (cause_id, note, flagged_by, flagged_at, status, verdict, closed_at)"
        " values ('timeout', 'n', 'probe', %(at)s, 'verified', 'v', %(at)s)",
        {"at": WINDOW.start},
    )
    connection.execute(
        "insert into dlq.retry (death_id, event_id, event_created_at, aggregate_type,"
        " aggregate_id, fix_id, stage, actor, reason, retried_at, due_at, outcome, settled_at)"
        " select id, event_id, event_created_at, aggregate_type, aggregate_id,"
        " case when id > 2 then 1 end, case when id > 2 then 1 end,"
        " case id when 1 then 'probe' when 2 then 'ann' else 'sensor' end, 'r', %(at)s, %(at)s,"
        " case when id < 6 then 'delivered' else 'died_again' end, %(at)s from dlq.death",
        {"at": WINDOW.start},
    )
    after = make(connection)
    schema = Path(dlq_pipelines.reports.__file__).with_name("report.schema.json")
    jsonschema.validate(json.loads(after.json), json.loads(schema.read_text(encoding="utf-8")))
    assert json.loads(after.json)["healed_by_probes"] == {"events": 4, "causes": ["timeout"]}
    assert after.headline.endswith("1 verified. Healed without a person: 4 events.")
    assert "Healed without a person: 4 events." in build_digest(after).text
    text = " ".join(Page(after.html).text.split())
    assert "Healed without a person: 4 events, 1 cause." in text
    assert text.index("4 events, 1 cause.") < text.index("Dead at end of day")
    assert after.markdown.index("## Healed") < after.markdown.index("## Causes")
    for text in (after.html, after.markdown):
        assert "Healed without a person" in text
        assert "4 events delivered by probes, untouched by a person" in text


def test_the_first_screen_says_what_a_person_has_to_decide(connection: Connection) -> None:
    """Parked events, halted and paused fixes, and causes that regressed without an open fix."""
    quiet = make(connection)
    assert "o decide" not in quiet.html + quiet.markdown
    played = story.create_story(connection)
    figures = make(connection, story.POLICY).figures
    rank = figures.list_causes(CauseState.REGRESSED)[0].rank
    cause = compute_cause_id(story.CARRIER)
    regressed = OpenDecision(
        "1 regressed cause without an open fix",
        f"dlq causes show {cause}",
        address=f"#cause-{rank}",
    )
    halted = OpenDecision("fix 3 was halted", "dlq fixes show 3", "route v2 works again", "#fix-3")
    assert list_open_decisions(figures) == [halted, regressed]
    pause_fix(
        connection,
        played.label_fix,
        audit=AuditContext("ann", "look first", WINDOW.until - timedelta(hours=1)),
    )
    links = Links("https://dlq.example.com")
    figures = make(connection, replace(story.POLICY, max_retries=1, links=links)).figures
    assert figures.backlog.parked == 10
    parked = OpenDecision(
        "10 parked events", "dlq fixes parked", address="https://dlq.example.com/parked"
    )
    paused = OpenDecision(
        "fix 2 is paused", "dlq fixes show 2", "labels read the new field", "#fix-2"
    )
    assert list_open_decisions(figures) == [parked, halted, paused, regressed]
    report = make(connection, replace(story.POLICY, max_retries=1))
    text = " ".join(Page(report.html).text.split())
    assert "To decide: 10 parked events (dlq fixes parked); fix 3 was halted (route v2" in text
    assert text.index("To decide:") < text.index("Dead at end of day")
    assert (
        "## To decide\n\n- 10 parked events:\n  `dlq fixes parked`\n- fix 3 was halted"
        in unescape_markdown(report.markdown)
    )
    assert report.markdown.index("## To decide") < report.markdown.index("## Causes")
    flagged = replace(figures.fixes[1], cause_id=figures.fixes[0].cause_id)
    assert halted not in list_open_decisions(replace(figures, fixes=(figures.fixes[0], flagged)))


def test_the_last_reconciliation_of_the_day_is_shown(connection: Connection) -> None:
    """Later ones do not change the report."""
    connection.execute(
        "insert into dlq.reconciliation values (%s, 2, 1, 3, '{7,8,9}'), (%s, 0, 0, 0, '{}')",
        [WINDOW.start, WINDOW.until],
    )
    report = make(connection)
    text = Page(report.html).text
    assert "found 2 missing events and 1 duplicated: 7, 8, 9." in text
    assert "It recorded 3 deaths that no trigger saw. Run dlq doctor." in text
    markdown = " ".join(report.markdown.split())
    assert "2 events missing, 1 duplicated, 3 deaths missed" in markdown
    assert json.loads(report.json)["reconciliation"] == {
        "checked_at": "2026-11-19T23:00:00Z",
        "missing": 2,
        "duplicated": 1,
        "missed": 3,
        "event_ids": [7, 8, 9],
    }


def hostile(connection: Connection) -> None:
    """Insert markup as error, exception type, template, types, notes and fix."""
    add_cause(connection, "evil", HOSTILE, HOSTILE[::-1] + HOSTILE)
    add_death(
        connection, WINDOW.start, cause="evil", error=HOSTILE, event_type=HOSTILE, aggregate=HOSTILE
    )
    add_death(connection, WINDOW.start, event=2, error=HOSTILE, event_type=HOSTILE)
    add_death(
        connection, WINDOW.start, cause="evil", event=3, error="x" * 1_000_000, event_type="t" * 500
    )
    count_again(connection)
    connection.execute(
        "update dlq.cause set name = %(text)s, owner = %(text)s, note = %(text)s", {"text": HOSTILE}
    )
    pairs = [
        {
            "events": 1,
            "outcome": "died_again",
            "before": HOSTILE.replace("\x1b", ""),
            "after": "<b>",
        }
    ]
    connection.execute(
        "insert into dlq.fix (cause_id, note, link, owner, flagged_by, flagged_at, status, verdict,"
        " closed_at, evidence) values ('evil', %(text)s, 'javascript:alert(1)',"
        " left(%(text)s, 200), %(text)s, %(at)s, 'halted', %(text)s, %(at)s, %(evidence)s)",
        {"text": HOSTILE, "at": WINDOW.start + timedelta(hours=1), "evidence": json.dumps(pairs)},
    )


def test_hostile_texts_are_inert_in_the_page(connection: Connection) -> None:
    """Shown as text; links go to the page itself and to other reports only."""
    hostile(connection)
    page = Page(make(connection).html)
    names = {tag for tag, _ in page.tags}
    attributes = {name for _, found in page.tags for name in found}
    assert not names & {"script", "img", "iframe", "link", "object", "form", "base"}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert not attributes & {"src", "xlink:href", "srcset", "action"}
    links = {str(found["href"]) for tag, found in page.tags if tag == "a"}
    assert [
        link
        for link in links
        if not re.fullmatch(r"#(cause|fix)-\d+|(index|2026-11-\d\d)\.html", link)
    ] == []
    assert not page.open
    assert page.text.count("<script>alert(1)</script>\"' onmouseover=alert(1)") >= 6
    assert "{{ 7*7 }}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.text)


def test_hostile_texts_are_inert_in_markdown(connection: Connection) -> None:
    """No tag, link, code or table cell comes from an error."""
    hostile(connection)
    report = make(connection)
    for hostile_text in ("<script", "](javascript", "https://evil", "\x1b"):
        assert hostile_text not in report.markdown
    lines = report.markdown.splitlines()
    assert {line.count(" | ") for line in lines if line.startswith("| ")} == {3}
    assert [line for line in lines if "`" in line] == [
        "  `dlq fixes show 1`",
        "- `dlq causes explain evil`",
        '- `dlq fixes flag --cause evil --note "..." --dry-run`',
    ]
    assert report.json.isascii()


def test_page_fetches_nothing_and_allows_only_its_style(connection: Connection) -> None:
    """The content security policy allows the style sheet alone; the page has no URL."""
    add_days(connection, before=1, on_the_day=3)
    html = make(connection).html
    (policy,) = [found["content"] for tag, found in Page(html).tags if found.get("http-equiv")]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; base-uri 'none'; form-action 'none'",
        policy or "",
    )
    assert "url(" not in html
    assert "@import" not in html
    assert set(re.findall(r"https?://[^\"' ]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_page_is_readable_by_screen_readers(connection: Connection) -> None:
    """Language, title, landmarks, scopes, a label for every image, a table for each chart."""
    story.create_story(connection)
    page = Page(make(connection).html)
    assert [found["lang"] for tag, found in page.tags if tag == "html"] == ["en"]
    names = [tag for tag, _ in page.tags]
    assert {"title", "header", "main", "footer", "h1", "nav"} <= set(names)
    assert all(found.get("scope") for tag, found in page.tags if tag == "th")
    assert all(found.get("aria-label") for tag, found in page.tags if tag == "svg")
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    linked = {
        str(found["href"])[1:]
        for tag, found in page.tags
        if str(found.get("href", "")).startswith("#")
    }
    assert linked <= set(ids)
    assert page.text.count("As a table") == 2


def test_a_day_without_deaths_shows_the_backlog(connection: Connection) -> None:
    """Dead events, fixes and the days before are shown."""
    story.create_story(connection)
    quiet = make_report(
        connection, day=DAY + timedelta(days=1), zone=BERLIN, policy=story.POLICY, now=LATER
    )
    page = Page(quiet.html)
    assert quiet.headline.startswith(
        "No event died on 2026-11-21; the mean of the 14 days before is 3"
    )
    assert "367 events of earlier days are still dead, the oldest for 15 days." in quiet.headline
    assert "No event died on this day." in page.text
    assert "2026-11-20: 167" in quiet.html
    assert "labels read the new field" in page.text
    assert "## Causes" not in quiet.markdown


def test_an_empty_ledger_makes_a_report(connection: Connection) -> None:
    """The first day of an installation, and a later one."""
    report = make(connection)
    assert report.headline == "No event died on 2026-11-20; no day before is recorded."
    assert Page(report.html).text
    install(connection, days_before=90)
    later = make(connection)
    assert later.headline == "No event died on 2026-11-20 or in the 14 days before."
    jsonschema.validate(json.loads(report.json), SCHEMA)


def test_json_matches_its_schema(connection: Connection) -> None:
    """For the story and for hostile texts. The schema is valid and forbids other fields."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
    hostile(connection)
    validator.validate(json.loads(make(connection).json))
    connection.execute(
        "truncate dlq.death, dlq.cause_day, dlq.fix_outcome, dlq.fix_stage, dlq.fix, dlq.cause"
        " cascade"
    )
    story.create_story(connection)
    report = make(connection, story.POLICY)
    content = json.loads(report.json)
    validator.validate(content)
    assert (
        content["totals"]["deaths"]
        == report.figures.totals.deaths
        == sum(hour["deaths"] for hour in content["hours"])
    )
    matrix = content["causes_by_event_type"]["rows"]
    assert (
        sum(sum(row["deaths"]) + row["other_event_types"] for row in matrix)
        == content["totals"]["deaths"]
    )
    content["more"] = 1
    assert not validator.is_valid(content)


def test_files_index_and_missing_pages_are_published(
    connection: Connection, tmp_path: Path
) -> None:
    """Three files a day, a list of all days with their figures, and no broken link."""
    story.create_story(connection)
    target = open_local_target(tmp_path, "")
    for ago in (0, 1, 2):
        report = build(connection, target, ago=ago)
    assert {file.name for file in tmp_path.iterdir()} == {
        "index.html", "2026-11-17.html", "2026-11-21.html",
        *(f"2026-11-{day}.{suffix}" for day in (18, 19, 20) for suffix in ("html", "md", "json")),
    }  # fmt: skip
    assert report.places["html"] == str(tmp_path / "2026-11-18.html")
    assert "There is no report for this day yet." in (tmp_path / "2026-11-21.html").read_text(
        encoding="utf-8"
    )
    index = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    listed = [found["href"] for tag, found in index.tags if tag == "a"]
    assert listed == [
        f"2026-11-{day}.html" for day in (20, 20, 19, 18)
    ]  # the headline of the last day is first
    for file in tmp_path.glob("*.html"):
        links = [
            str(found["href"])
            for tag, found in Page(file.read_text(encoding="utf-8")).tags
            if tag == "a"
        ]
        assert [link for link in links if link[0] != "#" and not (tmp_path / link).is_file()] == []
    build_report(
        connection,
        day=DAY + timedelta(days=1),
        zone=BERLIN,
        target=target,
        policy=story.POLICY,
        now=LATER,
    )
    assert "No event died" in (tmp_path / "2026-11-21.html").read_text(encoding="utf-8")


def test_a_missing_page_never_replaces_a_report(connection: Connection, tmp_path: Path) -> None:
    """Days are built in any order."""
    target = open_local_target(tmp_path, "")
    pages = {ago: build(connection, target, ago=ago).html for ago in (1, 3, 2, 0)}
    for ago, html in pages.items():
        assert (tmp_path / f"{DAY - timedelta(days=ago)}.html").read_text(encoding="utf-8") == html


def test_reports_are_published_to_s3(connection: Connection, s3: str, tmp_path: Path) -> None:
    """With the same bytes as in a folder, and with content types; the page can be fetched."""
    staging = tmp_path / "staging"
    target = open_target(
        "s3://bucket/team/reports", staging=staging, folder="", setting="DLQ_REPORT_URI"
    )
    report = build(connection, target)
    assert report.places["html"] == "s3://bucket/team/reports/2026-11-20.html"
    for suffix, text, content in (
        ("html", report.html, "text/html; charset=utf-8"),
        ("md", report.markdown, "text/markdown; charset=utf-8"),
        ("json", report.json, "application/json"),
    ):
        with urllib.request.urlopen(
            f"http://{s3}/bucket/team/reports/2026-11-20.{suffix}"
        ) as answer:
            assert answer.headers["Content-Type"] == content
            assert answer.read().decode() == text
    assert list(staging.iterdir()) == []
    page = fetch_report_page(target, DAY, folder=tmp_path / "pages")
    assert Path(page or "").read_text(encoding="utf-8") == report.html
    assert fetch_report_page(target, DAY - timedelta(days=1), folder=tmp_path / "pages") is None


def test_a_full_disk_leaves_the_earlier_files(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and record are unchanged, no partial file is left, and the error names the cause."""
    target = open_local_target(tmp_path, "")
    before = build(connection, target).html
    files = {file.name for file in tmp_path.iterdir()}
    recorded = one(connection, "select headline, files from dlq.report_day")
    add_death(connection, WINDOW.start)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DlqError, match=r"2026-11-20 cannot be written to .*: No space left.*then build it again\."
    ):
        build(connection, target)
    assert {file.name for file in tmp_path.iterdir()} == files
    assert (tmp_path / "2026-11-20.html").read_text(encoding="utf-8") == before
    assert one(connection, "select headline, files from dlq.report_day") == recorded


def test_the_record_has_the_published_files(connection: Connection, tmp_path: Path) -> None:
    """With their sizes."""
    build(connection, open_local_target(tmp_path, ""))
    files = one(connection, "select files from dlq.report_day")["files"]
    assert {file["name"]: file["bytes"] for file in files} == {
        name: (tmp_path / name).stat().st_size
        for name in ("2026-11-20.html", "2026-11-20.md", "2026-11-20.json")
    }


def test_a_report_links_to_causes_fixes_alerts_and_runs(connection: Connection) -> None:
    """With addresses set; without them the only addresses are those of people's own texts."""
    story.create_story(connection)
    links = Links("https://dlq.example.com", "https://dagster.example.com", "dlq/outbox=orders")
    with_links = make(connection, policy=replace(story.POLICY, links=links))
    linked = set(re.findall(r'href="(https?://[^"]+)"', with_links.html))
    figures = with_links.figures
    runs = "https://dagster.example.com/runs?q%5B0%5D=tag%3Adlq%2Foutbox%3Dorders"
    assert linked == {
        "https://dlq.example.com/alerts",
        runs,
        *(links.link_fix(fix.id) for fix in figures.fixes),
        *(
            links.link_cause(cause.cause_id)
            for cause in figures.causes
            if cause.cause_id and cause.is_detailed
        ),
    }
    assert with_links.markdown.endswith(
        f"[Alerts](https://dlq.example.com/alerts) · [Runs in Dagster]({runs})\n"
    )
    assert not re.findall(r'href="https?:', make(connection).html)


def test_the_digest_fits_a_channel(connection: Connection, tmp_path: Path) -> None:
    """A title, the headline, five causes and the place of the report, in 1,500 characters."""
    story.create_story(connection)
    report = build(connection, open_local_target(tmp_path, ""))
    digest = build_digest(report)
    assert digest.title == "Dead events 2026-11-20: 167 deaths, 1 new, 1 regressed, 2 escalating"
    assert digest.text.splitlines()[0] == report.headline
    assert [line[:15] for line in digest.text.splitlines()[1:3]] == [
        "- escalating: C",
        "- new: psycopg.",
    ]
    assert digest.text.splitlines()[-1] == str(tmp_path / "2026-11-20.html")
    assert len(digest.text) < 1_500
    assert build_digest(make(connection)).text.count("\n") == 5


def test_markdown_fits_80_columns_and_names_the_next_commands(outbox: ShapedOutbox) -> None:
    """Each cause has its id, its page and its commands, which stay on one line."""
    story.create_story(outbox)
    links = Links("https://dlq.example.com")
    report = make(outbox.connection, policy=replace(story.POLICY, links=links))
    lines = report.markdown.splitlines()
    assert [
        line
        for line in lines
        if len(line) > 80 and not re.fullmatch(r"- (`[^`]+`|\[[^]]+\]\(\S+\))", line)
    ] == []
    causes = [cause.cause_id for cause in report.figures.causes if cause.cause_id]
    assert len(causes) == 6
    for cause in causes:
        at = lines.index(f"- [cause {cause}](https://dlq.example.com/causes/{cause})")
        assert lines[at + 1 : at + 3] == [
            f"- `dlq causes explain {cause}`",
            f'- `dlq fixes flag --cause {cause} --note "..." --dry-run`',
        ]
    assert "\n- cause v2-" in make(outbox.connection).markdown


def test_a_terminal_of_80_columns_shows_the_causes_whole(connection: Connection) -> None:
    """Columns are as wide as their words, and no command is broken."""
    story.create_story(connection)
    output = StringIO()
    markdown = Markdown(make(connection, story.POLICY).markdown, hyperlinks=False)
    Console(file=output, width=80).print(markdown)
    lines = [line.strip() for line in output.getvalue().splitlines()]
    cause = compute_cause_id(story.CARRIER)
    assert "2  new           27      psycopg.errors.UniqueViolation: duplicate key…" in lines
    assert f"• cause {cause}" in lines
    assert f'• dlq fixes flag --cause {cause} --note "..." --dry-run' in lines


def test_wrapped_markdown_begins_no_block() -> None:
    """A word that would begin a list, a rule or a table follows the word before it."""
    for words in ("a - ", "a 1. ", "a 12) ", "a + ", "a === ", "a --- ", "40 % "):
        text = (words * 60).strip()
        lines = wrap_markdown(text, "- ").split("\n")
        assert max(map(len, lines)) <= 80
        assert all(re.match(r"(- |  )(a|40) ", line) for line in lines)
        assert " ".join(line[2:] for line in lines) == text
    long = "x" * 100
    assert wrap_markdown(f"{long} b", "- ") == f"- {long}\n  b"


def test_a_shortened_text_fits_when_it_is_escaped() -> None:
    for text in ("<" * 60, "a_b " * 30, "https://example.com/" * 5, "short"):
        shown = shorten_markdown(text, 46)
        assert len(escape_markdown(shown)) <= 46
        assert shown == text or shown.endswith("…")


def test_code_stays_when_markdown_is_unescaped() -> None:
    assert unescape_markdown(r"a\_b `--where '\_\\.'` &#60;") == r"a_b `--where '\_\\.'` <"


def test_markdown_lists_ten_causes_and_counts_the_rest(connection: Connection) -> None:
    """Chats and Dagster's UI have little room."""
    for number in range(12):
        add_cause(connection, f"c{number:02}")
        add_death(connection, WINDOW.start, cause=f"c{number:02}", event=number)
    count_again(connection)
    text = make(connection).markdown
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 10
    assert "2 more causes in the HTML report." in text
