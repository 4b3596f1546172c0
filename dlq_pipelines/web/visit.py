"""Runs the function of a page: who asks, what was sent, and what goes back to the browser.

Each page is a function that takes a `PageVisit`, calls one function of the package, and returns a
`PageAnswer`. What is the same for all of them is here: the session, the token of the forms, the
scope, the rate limit, the connection, and errors, which are pages too.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dlq_pipelines.api.auth import TokenScope, limit_rate
from dlq_pipelines.api.errors import RequestError, describe_error
from dlq_pipelines.api.session import require_schema
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError, SchemaError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import Settings
from dlq_pipelines.text import sanitize_line
from dlq_pipelines.web.render import PAGE_POLICY, render_template
from dlq_pipelines.web.sessions import (
    SESSION_COOKIE,
    SESSION_SECONDS,
    SessionStore,
    SignedInSession,
    create_browser_id,
    read_browser_id,
)

log = logging.getLogger("dlq.web")
_MAX_FIELDS, _MAX_PERSON = 50, 200
_NOT_FOUND, _SERVER_ERROR = 404, 500
# Of a number that a bigint holds.
_DIGITS = 18
# The name in the audit log of a person who gave none, where no token is configured.
_NAMELESS = "web"


@dataclass(frozen=True)
class PageVisit:
    """A request of a page.

    Attributes:
        path: the parameters of the path.
        query: the query, the last value of each name.
        form: the fields of the form that was sent.
        root: the relative address of the first page, because a proxy may serve it below a path.
        session: who signed in; None: no token is configured, or the page is the sign-in.
        form_token: what each form sends back.
        now: the time of the request.
    """

    request: Request
    path: Mapping[str, Any]
    query: Mapping[str, str]
    form: Mapping[str, str]
    root: str
    session: SignedInSession | None
    form_token: str
    now: datetime
    connections: list[Connection] = field(default_factory=list)

    @property
    def connection(self) -> Connection:
        """The connection of the request."""
        return self.connections[0]

    @property
    def settings(self) -> Settings:
        """The settings of the installation."""
        settings: Settings = self.request.app.state.settings
        return settings

    @property
    def may_change(self) -> bool:
        """Whether the person may flag and steer fixes."""
        return self.session is None or self.session.scope.allows(TokenScope.RETRY)

    @property
    def may_edit(self) -> bool:
        """Whether the person may change causes and silence alerts."""
        return self.session is None or self.session.scope.allows(TokenScope.ADMIN)

    @property
    def needs_name(self) -> bool:
        """Whether a form asks for the name of the person: no token names anybody."""
        return self.session is None

    def get_text(self, name: str) -> str | None:
        """Return a value of the query without spaces around it; None: it is not given or blank."""
        return self.query.get(name, "").strip() or None

    def sign(self, reason: str) -> AuditContext:
        """Return the audit context of a change of this person."""
        person = self.form.get("person", "").strip()[:_MAX_PERSON]
        actor = self.session.actor if self.session else person or _NAMELESS
        return AuditContext(actor, reason, self.now)


@dataclass(frozen=True)
class PageAnswer:
    """What a page sends: a template with its values, or an address to go to.

    Attributes:
        template: the name of the template.
        values: its values.
        status: the HTTP status.
        go_to: the path to redirect to, such as `/causes`, instead of a template.
        refresh: seconds after which the browser asks again; None: never.
        session_id: the id of a session that has begun; empty: the session has ended.
        document: a finished page instead of a template.
        policy: the content security policy.
    """

    template: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    go_to: str | None = None
    refresh: int | None = None
    session_id: str | None = None
    document: str | None = None
    policy: str = PAGE_POLICY


ShowPage = Callable[[PageVisit], PageAnswer]


@dataclass(frozen=True)
class PageRules:
    """What a page needs.

    Attributes:
        scope: the scope of the token.
        changes: whether it changes data, which is rate limited.
        is_open: whether it is shown to people who are not signed in, without a connection.
    """

    scope: TokenScope = TokenScope.READ
    changes: bool = False
    is_open: bool = False


def make_endpoint(show: ShowPage, rules: PageRules) -> Callable[[Request], Awaitable[Response]]:
    """Make the endpoint of a page from its function."""

    async def endpoint(request: Request) -> Response:
        body = await request.body() if request.method == "POST" else b""
        return await run_in_threadpool(_answer_request, request, body, show, rules)

    return endpoint


def answer_missing_page(request: Request, error: HTTPException) -> Response:
    """Answer a browser that asks for a page that does not exist, or in the wrong way."""
    visit = _build_visit(request, b"", read_browser_id(request.cookies.get(SESSION_COOKIE)) or "")
    text = "There is no such page." if error.status_code == _NOT_FOUND else f"{error.detail}."
    response = _build_response(visit, _build_error_page(error.status_code, text, ""))
    response.headers.update(error.headers or {})
    return response


def _build_visit(request: Request, body: bytes, browser_id: str) -> PageVisit:
    store: SessionStore = request.app.state.sessions
    return PageVisit(
        request=request,
        path=request.path_params,
        query=dict(request.query_params),
        form=_read_form(body),
        root=_find_root(request),
        session=store.find_session(browser_id),
        form_token=store.make_form_token(browser_id),
        now=datetime.now(UTC),
    )


def _answer_request(request: Request, body: bytes, show: ShowPage, rules: PageRules) -> Response:
    given_id = read_browser_id(request.cookies.get(SESSION_COOKIE))
    browser_id = given_id or create_browser_id()
    visit = _build_visit(request, body, browser_id)
    try:
        if request.app.state.tokens and visit.session is None and not rules.is_open:
            answer = PageAnswer(go_to=_build_signin_path(request))
        else:
            _check_request(visit, rules, given_id)
            answer = _show_page(visit, show, rules)
        response = _build_response(visit, answer)
    except Exception as error:  # noqa: BLE001 - a page says what failed, and the log says why
        answer = build_error_answer(error)
        response = _build_response(visit, answer)
    _set_cookie(response, visit, answer, None if given_id else browser_id)
    return response


def _show_page(visit: PageVisit, show: ShowPage, rules: PageRules) -> PageAnswer:
    if rules.is_open:
        return show(visit)
    state = visit.request.app.state
    with state.pool.connection() as connection:
        require_schema(state, connection)
        visit.connections.append(connection)
        return show(visit)


def _check_request(visit: PageVisit, rules: PageRules, given_id: str | None) -> None:
    """Raise RequestError if a form is not ours, the scope does not suffice, or too many change."""
    state = visit.request.app.state
    if visit.request.method == "POST" and not state.sessions.is_form_token(
        given_id, visit.form.get("csrf", "")
    ):
        raise RequestError(
            403,
            "This form is not valid any more, and nothing was changed. "
            "Open its page again and send it once more.",
        )
    session = visit.session
    if session is not None and not session.scope.allows(rules.scope):
        raise RequestError(
            403,
            f"The scope {rules.scope} is required; the token {session.token_name} has "
            f"{session.scope}. Nothing was changed.",
        )
    if rules.changes:
        client = visit.request.client
        limit_rate(
            state.limiter,
            state.rate,
            session.token_name if session else client.host if client else "unknown",
        )


def build_error_answer(error: Exception) -> PageAnswer:
    """Build the page that says in a sentence what failed, and what to do next."""
    if isinstance(error, RequestError):
        return _build_error_page(error.status, str(error), "")
    known = isinstance(error, (DlqError, ValueError, OSError, psycopg.Error))
    if not known:
        log.error("A page failed.", exc_info=error)
        return _build_error_page(500, "The server has a defect.", "See the server's log.")
    status, body = describe_error(error)
    if status >= _SERVER_ERROR:
        log.error("%s: %s", type(error).__name__, error)
    if isinstance(error, (NotFoundError, RefusedError, SchemaError)):
        return _build_error_page(status, error.message, error.hint)
    return _build_error_page(status, body.error, body.hint)


def _build_error_page(status: int, error: str, hint: str) -> PageAnswer:
    return PageAnswer("error.html.j2", {"error": error, "hint": hint}, status)


def _build_response(visit: PageVisit, answer: PageAnswer) -> Response:
    headers = {
        "Content-Security-Policy": answer.policy,
        # With no-referrer a browser sends `Origin: null` with a form, which the guard refuses.
        "Referrer-Policy": "same-origin",
    }
    if answer.go_to is not None:
        # Relative: a proxy may serve the pages below a path.
        headers["Location"] = visit.root + answer.go_to.removeprefix("/")
        return Response(status_code=303, headers=headers)
    if answer.refresh is not None:
        headers["Refresh"] = str(answer.refresh)
    settings = visit.settings
    page = answer.document or render_template(
        answer.template,
        root=visit.root,
        visit=visit,
        zone=settings.zone,
        label=settings.label,
        csrf=visit.form_token,
        has_tokens=bool(visit.request.app.state.tokens),
        status=answer.status,
        **answer.values,
    )
    clean = page.encode("utf-8", "replace")
    return Response(clean, answer.status, headers, media_type="text/html; charset=utf-8")


def _set_cookie(
    response: Response, visit: PageVisit, answer: PageAnswer, new_id: str | None
) -> None:
    """Set the cookie of a session that began or ended, or of a browser that has none yet.

    Without a path of its own, so that the outboxes of one host that a proxy serves below different
    paths have different cookies.
    """
    id_ = answer.session_id if answer.session_id is not None else new_id
    if id_ is not None:
        response.set_cookie(
            SESSION_COOKIE,
            id_,
            max_age=SESSION_SECONDS if id_ else 0,
            path=None,
            httponly=True,
            samesite="lax",
            secure=_is_secure(visit),
        )


def _is_secure(visit: PageVisit) -> bool:
    """Whether the browser speaks HTTPS: with this server, or with the proxy at the public URL."""
    public = urlsplit(visit.settings.public_url or "")
    return visit.request.url.scheme == "https" or (
        public.scheme == "https" and public.netloc == visit.request.headers.get("host")
    )


def _read_form(body: bytes) -> dict[str, str]:
    try:
        text = body.decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:  # more fields than any form has; without its token nothing is changed
        return {}


def _find_root(request: Request) -> str:
    """Return the relative address of the first page from the one that was asked for."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return "../" * (raw.partition(b"?")[0].count(b"/") - 1) or "./"


def _build_signin_path(request: Request) -> str:
    if request.method != "GET":
        return "/signin"
    raw: bytes = request.scope.get("raw_path") or b"/"
    here = raw.decode("ascii", "replace")
    query = request.url.query
    return f"/signin?{urlencode({'next': f'{here}?{query}' if query else here})}"


def build_path(*parts: object, **query: object) -> str:
    """Build a path of a page, with a query of the values that are given."""
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def describe_input_error(error: Exception) -> tuple[int, str] | None:
    """Return status and text of an error that the values of a form caused; None: of any other."""
    if isinstance(error, (NotFoundError, RefusedError)):
        return (404 if isinstance(error, NotFoundError) else 409), str(error)
    if isinstance(error, (ValueError, psycopg.Error)):
        status, body = describe_error(error)
        if status < _SERVER_ERROR:
            return status, sanitize_line(f"{body.error} {body.hint}".strip(), 1_000)
    return None


def parse_whole_number(name: str, text: str) -> int:
    """Return the number that a text stands for.

    Raises:
        ValueError: it is not a whole number that PostgreSQL can store.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise ValueError(f"{name}: {text[:60]!r} is not a whole number.")
    return int(text)
