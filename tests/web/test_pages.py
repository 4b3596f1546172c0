"""Tests what the pages show, that their links work, and that hostile texts stay texts."""

import html
import re
from datetime import date
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.causes.catalogue import CauseFilter
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.recent import count_daily_deaths
from dlq_pipelines.causes.search import search_causes
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.web.render import PAGE_POLICY, ShownError, build_shown_error
from tests.api.conftest import Serve
from tests.rows import add_events, date_deaths, kill, one
from tests.web.conftest import TRACE, Visitor, list_links

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e\"'><img src=x onerror=alert(2)>{{ 7*7 }}"
LISTS = ("/causes", "/fixes", "/parked", "/alerts", "/audit", "/reports", "/fixes/new")


def list_texts(page: str) -> str:
    """Return the text of a page without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.parametrize("path", LISTS)
def test_an_empty_installation_has_pages(visitor: Visitor, path: str) -> None:
    page = visitor.open_page(path)
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert 'href="#content"' in page


def test_every_link_of_every_page_answers(visitor: Visitor, cause_id: str, fix_id: int) -> None:
    """Each page that can be reached from the causes, and none of the API's."""
    base = str(visitor.client.base_url)
    waiting, seen = {f"{base}/"}, set[str]()
    while waiting:
        url = waiting.pop()
        seen.add(url)
        if url.endswith("/signout"):
            continue
        answer = visitor.client.get(url, follow_redirects=True)
        assert answer.status_code == 200, url
        if "text/html" in answer.headers["content-type"]:
            assert answer.headers["content-security-policy"] == PAGE_POLICY, url
            assert "<title>" in answer.text
            assert "style=" not in answer.text
            assert "<script" not in answer.text
            found = list_links(answer.text, str(answer.url))
            waiting |= {link.partition("#")[0] for link in found} - seen
    paths = {url.removeprefix(base).partition("?")[0] for url in seen}
    wanted = {"", "/edit"}
    assert {f"/causes/{cause_id}{end}" for end in wanted} <= paths
    assert {f"/fixes/{fix_id}", f"/fixes/{fix_id}/pause", "/parked"} <= paths
    assert any(path.startswith("/events/") for path in paths)


def test_a_cause_shows_what_sets_its_events_apart(visitor: Visitor, cause_id: str) -> None:
    page = visitor.open_page(f"/causes/{cause_id}")
    shown = list_texts(page)
    assert "KeyError: 'postcode'" in shown
    assert "$.acquirer = northbank 30 of 30 0 of 40" in shown
    assert "Traceback (most recent call last):" in page
    assert f"dlq causes explain {cause_id}" in shown
    assert "where=%24.acquirer" in page or "where=%24" in page
    assert page.count("<article>") == 3


def test_nothing_separates_events_that_are_alike(connection: Connection, visitor: Visitor) -> None:
    add_events(connection, 60)
    connection.execute("update outbox_event set status = 'done' where id % 2 = 0")
    kill(connection, "ValueError: x", where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    cause = one(connection, "select id from dlq.cause")["id"]
    assert "Nothing separates 30 dead" in visitor.open_page(f"/causes/{cause}")


def test_new_causes_come_before_old_ones(connection: Connection, visitor: Visitor) -> None:
    """An old cause has more dead events, and is in the second list; filters find each."""
    for count, error, age in ((20, "OSError: full", "40 days"), (2, "KeyError: 'sku'", "1 hour")):
        add_events(connection, count)
        kill(connection, error, where="status = 'pending'")
        date_deaths(connection, f"now() - interval '{age}'", where="d.cause_id is null")
        classify_deaths(connection, zone=ZoneInfo("UTC"))
    page = list_texts(visitor.open_page("/causes"))
    urgent, _, others = page.partition("Other causes, most dead events first")
    assert "KeyError: 'sku'" in urgent
    assert "KeyError" not in others
    assert "OSError" in others
    assert "OSError" not in visitor.open_page("/causes?text=keyerror")
    assert "KeyError" not in visitor.open_page("/causes?text=full")
    assert "OSError" not in visitor.open_page("/causes?state=new")
    assert "KeyError" not in visitor.open_page("/causes?state=fixed")
    wrong = visitor.client.get("/causes?state=odd")
    assert (wrong.status_code, "is not one of new, rose" in wrong.text) == (400, True)
    assert "not a time" in visitor.open_page("/causes?since=soon", status=400)


def test_a_search_pages_through_the_causes_that_match(connection: Connection) -> None:
    """Every match once, in pages of two; the other causes are skipped."""
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, owner, first_seen, last_seen)"
        " select 'v2-' || n, 'Error' || n % 2, 'x', case when n % 3 = 0 then 'Payments' end,"
        " now(), now() from generate_series(1, 12) n"
    )
    now = one(connection, "select now()")["now"]
    found: list[str] = []
    after = None
    while True:
        page = search_causes(
            connection, CauseFilter(now, "open"), text="error1", limit=2, after=after
        )
        found += [cause.id for cause in page.causes]
        assert len(page.causes) <= 2
        if (after := page.next) is None:
            break
    assert sorted(found) == sorted(f"v2-{n}" for n in range(1, 13, 2))
    owned = search_causes(connection, CauseFilter(now, owner="payments"))
    assert {cause.id for cause in owned.causes} == {"v2-3", "v2-6", "v2-9", "v2-12"}
    with pytest.raises(ValueError, match="Invalid cursor"):
        search_causes(connection, CauseFilter(now), after="x")


def test_deaths_are_counted_by_day(connection: Connection, cause_id: str) -> None:
    today = one(connection, "select (now() at time zone 'UTC')::date as day")["day"]
    assert count_daily_deaths(connection, [cause_id], last_day=today)[-1] == 30
    assert count_daily_deaths(connection, [cause_id], last_day=date(2020, 1, 1)) == [0] * 14


def test_hostile_texts_are_shown_escaped(connection: Connection, visitor: Visitor) -> None:
    """In titles, owners, notes, errors, payloads, fixes, audit entries and alerts."""
    add_events(connection, 5, payload='{"x": "</pre><script>alert(3)</script>"}')
    kill(connection, f"<b>Error</b>: {HOSTILE}")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    cause = one(connection, "select id from dlq.cause")["id"]
    connection.execute(
        "update dlq.cause set name = %(x)s, owner = %(x)s, note = %(x)s", {"x": HOSTILE}
    )
    connection.execute(
        "insert into dlq.alert (key, rule, severity, summary, detail, fired_at, link)"
        " values ('k', 'r', %s, %s, %s, now(), 'javascript:alert(4)')",
        [Severity.WARNING, HOSTILE, HOSTILE],
    )
    answer = visitor.send_form(
        "/fixes/new", cause=cause, note=HOSTILE, link="javascript:alert(5)", step="flag"
    )
    assert answer.status_code == 303
    event = one(connection, "select min(id) as id from outbox_event")["id"]
    paths = ("/causes", f"/causes/{cause}", f"/events/{event}", "/fixes", "/fixes/1", "/audit")
    for path in (*paths, "/alerts"):
        page = visitor.open_page(path)
        assert "&lt;script&gt;alert(1)" in page, path
        for raw in ("<script", "<img", "<b>", "\x1b", "\u202e", 'href="javascript', "49"):
            assert raw not in re.sub(r"<time.*?</time>|[0-9a-f]{64}", "", page), (path, raw)


def test_pages_hide_what_exports_hide(connection: Connection, serve: Serve) -> None:
    """In titles, errors and payloads, of a cause and of an event."""
    add_events(connection, 3, payload='{"card": "4711-0815", "shop": "north"}')
    kill(connection, "KeyError: 'ann@example.com'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    client = serve(export_redact_payload="mask $.card", export_redact_errors=r"[a-z]+@example\.com")
    cause = one(connection, "select id from dlq.cause")["id"]
    event = one(connection, "select min(id) as id from outbox_event")["id"]
    for path in ("/causes", f"/causes/{cause}", f"/events/{event}"):
        page = client.get(path).text
        assert "ann@" not in page, path
        assert "4711" not in page, path
    assert "north" in page


def test_an_event_shows_its_whole_life(
    connection: Connection, visitor: Visitor, cause_id: str, fix_id: int
) -> None:
    event = one(connection, "select min(event_id) as id from dlq.dead")["id"]
    page = visitor.open_page(f"/events/{event}")
    shown = list_texts(page)
    assert "It is in the outbox." in shown
    assert "KeyError: 'postcode'" in shown
    assert f"causes/{cause_id}" in page
    assert f"{fix_id}: labels read v2" in shown
    assert '"acquirer": "northbank"' in shown


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/causes/v2-none", 404, "dlq causes list"),
        ("/causes?after=x", 400, "Invalid cursor"),
        ("/fixes/99", 404, "There is no fix 99"),
        ("/fixes/99999999999999999999", 400, ""),
        ("/fixes/1/dance", 404, "There is no action"),
        ("/fixes?after=-1", 400, "is not a whole number"),
        ("/events/999", 404, "has never died"),
        ("/events/a%2Fb%00c", 400, ""),
        ("/alerts?after=zzz", 400, "Invalid cursor"),
        ("/audit?after=1e5", 400, "is not a whole number"),
        ("/reports/2026-13-01.html", 404, "is not a day"),
        ("/reports/2020-01-01.html", 404, "There is no report of 2020-01-01"),
        ("/causes?text=%00", 200, "Causes"),
    ],
)
def test_an_error_is_a_page_with_a_next_step(
    visitor: Visitor, path: str, status: int, text: str
) -> None:
    answer = visitor.client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-security-policy"] == PAGE_POLICY
    assert text in html.unescape(answer.text)
    assert "Go to the causes" in answer.text or status == 200
    assert "line " not in answer.text.partition("<h1>")[2].partition("style")[0]


def test_the_style_sheet_is_kept_by_browsers(visitor: Visitor) -> None:
    page = visitor.open_page("/causes")
    path = re.search(r'href="\./(web/pages-[0-9a-f]{16}\.css)"', page)
    assert path
    answer = visitor.client.get(path[1])
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    tag = {"If-None-Match": answer.headers["etag"]}
    assert visitor.client.get(path[1], headers=tag).status_code == 304


@pytest.mark.usefixtures("cause_id")
def test_a_report_is_served_with_its_own_style_sheet_alone(visitor: Visitor) -> None:
    """The policy of the response allows the style sheet by its hash and no script."""
    visitor.client.post("/api/reports/2026-11-20", json={})
    page = visitor.open_page("/reports")
    assert "2026-11-20.html" in page
    answer = visitor.client.get("/reports/2026-11-20.html")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/=]{44}';", policy)
    assert policy.startswith("default-src 'none'; ")
    assert "script" not in policy
    assert visitor.client.get("/reports/index.html").headers["location"] == "../reports"


def test_the_beginning_of_an_id_is_enough(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    """In the address of a cause, in those of its forms, and in the form that flags a fix."""
    page = visitor.client.get(f"/causes/{cause_id[:7]}")
    assert (page.status_code, page.headers["location"]) == (303, f"../causes/{cause_id}")
    for form in ("edit", "merge"):
        assert cause_id in visitor.open_page(f"/causes/{cause_id[3:8]}/{form}")
    flagged = visitor.send_form("/fixes/new", note="x", step="preview", cause=cause_id[:7])
    assert f"cause {cause_id}" in flagged.text.replace("<wbr>", ""), flagged.text
    add_events(connection, 1)
    kill(connection, "OtherError: x", where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert "begin with" in visitor.open_page("/causes/v2", status=409)


@pytest.mark.parametrize(
    ("path", "status"), [("/fixes/abc", 404), ("/nonsense", 404), ("/signout", 405)]
)
def test_a_browser_gets_a_page_where_no_page_is(
    visitor: Visitor, serve: Serve, tokens: dict[str, str], path: str, status: int
) -> None:
    """Programs get JSON. No token is needed to learn that a path has no route."""
    guarded = serve(api_tokens=tokens["entries"])
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for client in (visitor.client, guarded):
        answer = client.get(path, headers=browser)
        assert answer.status_code == status
        assert "<h1>" in answer.text
        assert answer.headers["content-security-policy"] == PAGE_POLICY
    assert "error" in visitor.client.get(path).json()
    for route in ("/metrics", "/api/causes", "/api/nonsense"):
        assert guarded.get(route, headers=browser).status_code == 401
    assert guarded.get("/nonsense").status_code == 401


def test_the_message_of_an_error_comes_before_its_traceback() -> None:
    """A single line is shown once."""
    trace = build_shown_error(TRACE.format("KeyError: 'postcode'"))
    assert trace.summary == "KeyError: 'postcode'"
    assert trace.more.startswith("Traceback (most recent call last):")
    assert build_shown_error("KeyError: 'sku'") == ShownError(
        "KeyError: 'sku'", "KeyError: 'sku'", ""
    )
    assert build_shown_error(" ") == ShownError("", "", "")


def test_a_page_has_no_sentence_for_a_shell(visitor: Visitor) -> None:
    answer = visitor.send_form("/fixes/new", note="x", step="preview", where=".acquirer=north")
    assert "where must be PATH=VALUE" in answer.text
    assert "shell" not in answer.text


def test_the_audit_log_begins_at_a_time(connection: Connection, visitor: Visitor) -> None:
    """As `dlq audit list --since`. A page that follows keeps the time."""
    connection.execute(
        "insert into dlq.audit (kind, actor, reason, filter, events, at) select 'fix.flag', 'ann',"
        " 'reason ' || n, '{}', 1, now() - n * interval '1 hour' from generate_series(70, 1, -1) n"
    )
    recent = visitor.open_page("/audit?since=150m")
    assert ("reason 2<" in recent, "reason 3<" in recent) == (True, False)
    base = str(visitor.client.base_url)
    first = visitor.open_page("/audit?since=65h")
    (following,) = [link for link in list_links(first, base) if "after=" in link]
    assert "since=65h" in following
    rest = visitor.open_page(following.removeprefix(base))
    assert ("reason 64<" in rest, "reason 66<" in rest) == (True, False)
    assert "Nothing was changed since 1m." in visitor.open_page("/audit?since=1m")
    assert visitor.client.get("/audit?since=soon").status_code == 400
