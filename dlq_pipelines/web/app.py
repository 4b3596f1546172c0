"""Adds the pages to the application of `dlq serve`.

They are plain routes of Starlette: no API, so OpenAPI does not describe them.
"""

from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dlq_pipelines.api.auth import TokenScope
from dlq_pipelines.api.errors import accepts_html
from dlq_pipelines.web.causes import show_cause, show_causes
from dlq_pipelines.web.edits import (
    change_silence,
    edit_cause,
    show_cause_form,
    show_silence_form,
)
from dlq_pipelines.web.events import show_event, show_parked_events
from dlq_pipelines.web.fixes import (
    change_fix,
    preview_or_flag,
    show_fix,
    show_fix_action,
    show_fixes,
    show_flag_form,
)
from dlq_pipelines.web.lists import (
    go_to_reports,
    show_alerts,
    show_audit,
    show_report,
    show_reports,
)
from dlq_pipelines.web.merges import (
    merge_cause,
    show_merge_form,
    show_undo_form,
    undo_cause_change,
)
from dlq_pipelines.web.render import STYLE_SHEET, STYLE_VERSION
from dlq_pipelines.web.sessions import SessionStore
from dlq_pipelines.web.signin import show_signin, sign_in, sign_out
from dlq_pipelines.web.visit import (
    PageAnswer,
    PageRules,
    PageVisit,
    ShowPage,
    answer_missing_page,
    make_endpoint,
)

# First parts of the paths of pages. The guard leaves their authentication to `visit.py`.
PAGE_NAMES = frozenset(
    {
        "signin",
        "signout",
        "causes",
        "fixes",
        "parked",
        "events",
        "alerts",
        "audit",
        "reports",
        "web",
    }
)
_READ = PageRules()
_RETRY = PageRules(TokenScope.RETRY)
_CHANGE = PageRules(TokenScope.RETRY, changes=True)
_ADMIN = PageRules(TokenScope.ADMIN)
_EDIT = PageRules(TokenScope.ADMIN, changes=True)
_OPEN = PageRules(is_open=True)


def _go_home(_: PageVisit) -> PageAnswer:
    return PageAnswer(go_to="/causes")


# Method, path, function and rules of each page; the first that matches answers.
_PAGES: tuple[tuple[str, str, ShowPage, PageRules], ...] = (
    ("GET", "/", _go_home, _OPEN),
    ("GET", "/signin", show_signin, _OPEN),
    ("POST", "/signin", sign_in, _OPEN),
    ("POST", "/signout", sign_out, _OPEN),
    ("GET", "/causes", show_causes, _READ),
    ("GET", "/causes/{cause:path}/edit", show_cause_form, _ADMIN),
    ("POST", "/causes/{cause:path}/edit", edit_cause, _EDIT),
    ("GET", "/causes/{cause:path}/merge", show_merge_form, _ADMIN),
    ("POST", "/causes/{cause:path}/merge", merge_cause, _EDIT),
    ("GET", "/causes/{cause:path}/undo", show_undo_form, _ADMIN),
    ("POST", "/causes/{cause:path}/undo", undo_cause_change, _EDIT),
    ("GET", "/causes/{cause:path}", show_cause, _READ),
    ("GET", "/fixes", show_fixes, _READ),
    ("GET", "/fixes/new", show_flag_form, _RETRY),
    ("POST", "/fixes/new", preview_or_flag, _CHANGE),
    ("GET", "/fixes/{fix_id:int}", show_fix, _READ),
    ("GET", "/fixes/{fix_id:int}/{action}", show_fix_action, _RETRY),
    ("POST", "/fixes/{fix_id:int}/{action}", change_fix, _CHANGE),
    ("GET", "/parked", show_parked_events, _READ),
    ("GET", "/events/{event_id:path}", show_event, _READ),
    ("GET", "/alerts", show_alerts, _READ),
    ("GET", "/alerts/silence", show_silence_form, _ADMIN),
    ("POST", "/alerts/silence", change_silence, _EDIT),
    ("GET", "/audit", show_audit, _READ),
    ("GET", "/reports", show_reports, _READ),
    ("GET", "/reports/index.html", go_to_reports, _READ),
    ("GET", "/reports/{day}.html", show_report, _READ),
)


def add_pages(app: FastAPI) -> None:
    """Add the pages and the store of their sessions to an application."""
    app.state.sessions = SessionStore()
    _answer_missing_pages(app)
    app.add_route(f"/web/pages-{STYLE_VERSION}.css", _send_style_sheet)
    for method, path, show, rules in _PAGES:
        app.add_route(path, make_endpoint(show, rules), methods=[method])


def _answer_missing_pages(app: FastAPI) -> None:
    """Answer a browser with a page where programs get JSON: at paths outside of /api."""
    answer_program: Any = app.exception_handlers[HTTPException]

    async def answer(request: Request, error: HTTPException) -> Response:
        is_api = request.url.path.startswith("/api/")
        if is_api or not accepts_html(request.headers.get("accept", "")):
            found: Response = await answer_program(request, error)
            return found
        return await run_in_threadpool(answer_missing_page, request, error)

    app.add_exception_handler(HTTPException, answer)  # type: ignore[arg-type]


async def _send_style_sheet(request: Request) -> Response:
    tag = f'"{STYLE_VERSION}"'
    headers = {"ETag": tag, "Cache-Control": "public, max-age=31536000, immutable"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(STYLE_SHEET, headers=headers, media_type="text/css; charset=utf-8")
