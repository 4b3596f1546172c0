"""What is turned away before any route is asked: other hosts' names, strange origins, strangers, too much at once.

A browser lets any page send requests to 127.0.0.1. The Host check stops a page whose name was bound to this address
(DNS rebinding), the Origin check one that posts forms across sites; neither could read an answer, and a post needs none
to do harm.
"""

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlq_pipelines.api.auth import Token, admit
from dlq_pipelines.api.errors import RequestError, failure
from dlq_pipelines.api.swagger import DOCS_FILES

# Ten thousand ids or a large payload; whoever sends more means something else.
MOST_BYTES = 1_048_576
_LENGTH_DIGITS = 9
# A body that takes longer keeps a connection for nothing.
_BODY_SECONDS = 30
# Requests under way at once. Forty of them work, the others wait for a thread.
_MOST_AT_ONCE = 200
_SAFE = ("GET", "HEAD", "OPTIONS")
# Served without a token: whether the process is up and ready, and the description of the API.
OPEN = ("/health", "/ready", "/openapi.json", *DOCS_FILES)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Looks at each request first, and puts the security headers on each answer.

    Args:
        app: what is guarded.
        hosts: names that a request may be addressed to, without ports.
        origins: of pages elsewhere that may ask, such as https://ops.example.com.
        tokens: one of which every request needs but those for `OPEN`; none: nobody is asked for one.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str], origins: Iterable[str], tokens: tuple[Token, ...]
    ) -> None:
        self._app, self._hosts, self._origins, self._tokens = app, frozenset(hosts), frozenset(origins), tokens
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Beside requests there is only the server's own life; what else may come is refused."""
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

        self._under_way += 1
        try:
            self._look(scope["method"], scope["path"], Headers(scope=scope))
            if scope["method"] not in _SAFE:
                receive = _once(await asyncio.wait_for(_body(receive), _BODY_SECONDS), receive)
        except RequestError as error:
            await failure(error.status, str(error), error.headers)(scope, receive, answer)
        except TimeoutError:
            await failure(408, f"The body took longer than {_BODY_SECONDS} s.")(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)
        finally:
            self._under_way -= 1

    def _look(self, method: str, path: str, headers: Headers) -> None:
        """Raises RequestError where the request is not for us, or from nobody that we know."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) > 1:
            raise RequestError(400, "A request has one Host header.")
        if _name(host) not in self._hosts:
            raise RequestError(421, "This server does not answer to that host name. DLQ_API_HOSTS lists those it does.")
        origin = headers.get("origin")
        if origin and method not in _SAFE and origin not in self._origins and origin.partition("://")[2] != host:
            raise RequestError(
                403, "Another site's page may change nothing here. DLQ_API_CORS_ORIGINS lists those it may."
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > _LENGTH_DIGITS or int(length) > MOST_BYTES:
            raise RequestError(413, f"A body has at most {MOST_BYTES:,} bytes.", {"Connection": "close"})
        if self._under_way > _MOST_AT_ONCE:
            raise RequestError(503, "Too many requests are under way. Ask again.", {"Retry-After": "1"})
        if path not in OPEN and method != "OPTIONS":
            admit(self._tokens, headers.get("authorization"))


def _name(host: str) -> str:
    """A host without its port, in lower case; of an IPv6 address without brackets. Nothing, where it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


async def _body(receive: Receive) -> bytes:
    """All of it, as far as it is not too much: what says no length is counted as it comes."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":  # half a request is none: it must not be taken for one without a body
            raise RequestError(400, "The request broke off.")
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            raise RequestError(413, f"A body has at most {MOST_BYTES:,} bytes.", {"Connection": "close"})
        if not message.get("more_body"):
            return bytes(body)


def _once(body: bytes, receive: Receive) -> Receive:
    """A `receive` that says the body, and after it whatever comes."""
    said = False

    async def next_message() -> Message:
        nonlocal said
        if said:
            return await receive()
        said = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message
