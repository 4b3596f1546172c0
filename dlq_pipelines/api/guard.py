"""Rejects requests before they reach a route: unknown hosts and origins, unknown callers, overload.

A browser lets any page send requests to 127.0.0.1. The Host check stops pages whose name was bound
to this address (DNS rebinding). The Origin check stops pages that post forms across sites; such a
page cannot read the response, but a POST does harm without it.
"""

import asyncio
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlq_pipelines.api.auth import Token, authenticate
from dlq_pipelines.api.connections import ConnectionLimits
from dlq_pipelines.api.errors import RequestError, accepts_html, build_error_response
from dlq_pipelines.api.swagger import DOCS_FILES
from dlq_pipelines.validate import parse_host_name

# Bytes of a body: enough for ten thousand ids or a large payload.
MAX_BODY_BYTES = 1_048_576
_LENGTH_DIGITS = 9
# Concurrent requests. Forty of them run, the others wait for a thread.
_MAX_CONCURRENT = 200
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Served without a token: whether the process is up and ready, and the description of the API.
OPEN = ("/health", "/ready", "/openapi.json", *DOCS_FILES)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Checks each request, and adds the security headers to each response.

    Args:
        app: the application.
        hosts: accepted host names, without ports.
        origins: other origins whose pages may send changes, such as https://ops.example.com.
        tokens: accepted tokens. Every route outside `OPEN` requires one; if there are none, no
            route does.
        limits: limits of the connections.
        pages: first parts of the paths of pages, which check the session of the browser themselves.
        names: first parts of the paths of all other routes. A browser that asks for any other path
            gets a page that says so, without a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        origins: Iterable[str],
        tokens: tuple[Token, ...],
        limits: ConnectionLimits,
        pages: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        self._names = frozenset(names)
        self._pages = frozenset(pages)
        self._app, self._hosts, self._origins, self._tokens = (
            app,
            frozenset(hosts),
            frozenset(origins),
            tokens,
        )
        self._running = 0
        self._limits = limits
        # The deadlines of bodies that arrive now, the first one first.
        self._bodies: dict[asyncio.Timeout, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Any scope other than a request or the lifespan is rejected."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
            if scope["method"] not in _SAFE_METHODS:
                receive = _replay_body(await self._read_body_in_time(receive), receive)
            self._check_load()
        except RequestError as error:
            await build_error_response(error.status, str(error), error.headers)(
                scope, receive, answer
            )
        except TimeoutError:
            late = f"The body did not arrive in time, at most {self._limits.body_seconds:g} s."
            await build_error_response(408, late, {"Connection": "close"})(scope, receive, answer)
        else:
            await self._run(scope, receive, answer)

    async def _run(self, scope: Scope, receive: Receive, answer: Send) -> None:
        self._running += 1
        try:
            await self._app(scope, receive, answer)
        finally:
            self._running -= 1

    def _check_load(self) -> None:
        """Raise RequestError if too many requests run."""
        if self._running >= _MAX_CONCURRENT:
            raise RequestError(
                503, "Too many requests are running. Try again.", {"Retry-After": "1"}
            )

    async def _read_body_in_time(self, receive: Receive) -> bytes:
        """Read the body. One more than may arrive at a time ends the wait for the first one.

        Raises:
            TimeoutError: it did not arrive in time, or too many others arrive.
        """
        async with asyncio.timeout(self._limits.body_seconds) as deadline:
            if len(self._bodies) >= self._limits.bodies:
                first = next(iter(self._bodies))
                del self._bodies[first]
                first.reschedule(asyncio.get_running_loop().time())
            self._bodies[deadline] = None
            try:
                return await _read_body(receive)
            finally:
                self._bodies.pop(deadline, None)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        """Raise RequestError if the request is not for this server or its caller is unknown."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) > 1:
            raise RequestError(400, "A request has one Host header.")
        if parse_host_name(host) not in self._hosts:
            raise RequestError(
                421,
                "Unknown host name. DLQ_API_HOSTS lists the accepted host names.",
            )
        origin = headers.get("origin")
        if (
            origin
            and method not in _SAFE_METHODS
            and origin not in self._origins
            and origin.partition("://")[2] != host
        ):
            raise RequestError(
                403,
                "Another site's page may not make changes. "
                "DLQ_API_CORS_ORIGINS lists the accepted origins.",
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > _LENGTH_DIGITS or int(length) > MAX_BODY_BYTES:
            raise RequestError(
                413, f"A body has at most {MAX_BODY_BYTES:,} bytes.", {"Connection": "close"}
            )
        if path not in OPEN and method != "OPTIONS" and not self._is_page(path, headers):
            authenticate(self._tokens, headers.get("authorization"))

    def _is_page(self, path: str, headers: Headers) -> bool:
        """Whether the path is that of a page, or no route has it and a browser asks.

        That of a page is `/`, or its first part is one of theirs.
        """
        if not self._pages:
            return False
        first = path.removeprefix("/").partition("/")[0]
        is_missing = first not in self._names and accepts_html(headers.get("accept", ""))
        return path == "/" or first in self._pages or is_missing


async def _read_body(receive: Receive) -> bytes:
    """Read the body up to the limit; a body without a length is counted while it arrives."""
    body = bytearray()
    while True:
        message = await receive()
        # A partial request must not pass for a request without a body.
        if message["type"] == "http.disconnect":
            raise RequestError(400, "The client disconnected.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise RequestError(
                413, f"A body has at most {MAX_BODY_BYTES:,} bytes.", {"Connection": "close"}
            )
        if not message.get("more_body"):
            return bytes(body)


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields the body once, and then the original messages."""
    sent = False

    async def next_message() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message
