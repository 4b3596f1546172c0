"""How does one command serve the API, and stop without breaking off what is under way?"""

import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from dlq_pipelines.api.app import create_app, wrap_with_guard
from dlq_pipelines.api.auth import read_tokens
from dlq_pipelines.api.errors import build_error_response
from dlq_pipelines.api.guard import HEADERS
from dlq_pipelines.errors import DlqError, RefusedError
from dlq_pipelines.installation import find_database, open_connection, prepare_embedded
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings

# A request has this long to end once the server is told to.
_STOP_SECONDS = 20


class _Server(uvicorn.Server):
    """uvicorn's, which says when it answers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin."""
        await super().startup(sockets)
        self._announce()


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's, which also answers bytes that are no request, and reach no application, as everything is answered."""

    def send_400_response(self, msg: str) -> None:
        """Say so, and hang up."""
        answer = build_error_response(400, msg, {**HEADERS, "Connection": "close"})
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, bytes(answer.body)))
        self.transport.close()


def serve_api(settings: Settings, *, host: str, port: int, announce: Callable[[], None]) -> int:
    """Serve until a signal comes; returns the exit code.

    Args:
        settings: of the installation.
        host: the address, or a name of it.
        port: of that address.
        announce: is called once requests are answered.

    Raises:
        RefusedError: others could reach that address, and nobody would be asked for a token.
        DlqError: the database is not to be had or not migrated, `DLQ_API_TOKENS` cannot be read, or the address cannot
            be had.
    """
    require_tokens(settings, host)
    prepare_embedded(settings)
    open_connection(settings).close()
    server = make_server(settings, find_database(settings), host=host, announce=announce)
    sockets = _listen(host, port)
    # uvicorn ends what is under way and then raises the signal again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        server.run(sockets)
    except KeyboardInterrupt:
        return 0
    return 0 if server.started else 1


def make_server(
    settings: Settings,
    database: Database,
    *,
    host: str,
    announce: Callable[[], None] = lambda: None,
) -> uvicorn.Server:
    """The server, not yet started; it runs on the sockets that it is given.

    Raises:
        DlqError: `DLQ_API_TOKENS` cannot be read.
    """
    app = create_app(settings, replace(database, statement_timeout=settings.api_timeout_seconds))
    config = uvicorn.Config(
        wrap_with_guard(app, settings, host=host),
        http=_Protocol,
        ws="none",
        access_log=False,
        # Whoever connects may write these headers, so they say nothing of who that is.
        proxy_headers=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    return _Server(config, announce)


def require_tokens(settings: Settings, host: str) -> None:
    """Refuse an address that others can reach while everybody may do everything.

    Raises:
        RefusedError: it is one, and no token is set.
    """
    tokens = read_tokens(settings.api_tokens.get_secret_value() if settings.api_tokens else "")
    if not tokens and not _is_loopback(host):
        raise RefusedError(
            f"Without tokens the API is for this machine alone, and others can reach {host}. Make one with `dlq tokens "
            "new NAME --scope read` and put its entry into DLQ_API_TOKENS, or leave --host out."
        )


def _listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that the host has here.

    Raises:
        DlqError: it has none, or one cannot be had.
    """
    listening: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            listening.append(socket.create_server(address, family=family))
    except OSError as error:
        for one in listening:
            one.close()
        raise DlqError(
            f"{_why(error, host, port)} Say another one: `dlq serve --host 127.0.0.1 --port 8081`."
        ) from None
    return listening


def _why(error: OSError, host: str, port: int) -> str:
    match error:
        case socket.gaierror():
            return f"{host} is no address or name that is known here."
        case OSError(errno=errno.EADDRINUSE):
            return f"Port {port} of {host} is taken: another program listens there."
        case OSError(errno=errno.EADDRNOTAVAIL):
            return f"{host} is no address of this machine."
        case _:
            return f"Port {port} of {host} cannot be had: {os.strerror(error.errno or 0)}."


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
