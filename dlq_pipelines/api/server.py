"""Runs the HTTP API until a signal arrives, and completes the requests under way."""

import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

import uvicorn

from dlq_pipelines.api.app import create_app, wrap_with_guard
from dlq_pipelines.api.auth import read_tokens
from dlq_pipelines.api.connections import ConnectionLimits, choose_limits, limit_connections
from dlq_pipelines.errors import DlqError, RefusedError
from dlq_pipelines.installation import find_database, open_connection, prepare_embedded
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings

# Seconds that requests under way have to complete after a signal to stop.
_STOP_SECONDS = 20


class _Server(uvicorn.Server):
    """A uvicorn server that calls `announce` once it accepts requests."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests on these sockets."""
        await super().startup(sockets)
        self._announce()


def serve_api(
    settings: Settings,
    *,
    host: str,
    port: int,
    announce: Callable[[], None],
) -> int:
    """Serve the API until SIGINT or SIGTERM.

    Args:
        settings: the settings of the installation.
        host: the address to listen on, or a host name that resolves to it.
        port: the port to listen on.
        announce: called once the server accepts requests.

    Returns:
        The exit code of the process: 0, or 1 if the server did not start.

    Raises:
        RefusedError: other machines can reach the address, and `DLQ_API_TOKENS` is unset.
        DlqError: the database is unavailable or not migrated, `DLQ_API_TOKENS` is invalid, or
            the server cannot listen on the address.
    """
    require_tokens(settings, host)
    prepare_embedded(settings)
    open_connection(settings).close()
    server = make_server(settings, find_database(settings), host=host, announce=announce)
    sockets = _open_sockets(host, port)
    # uvicorn completes the requests under way and then raises the signal again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _raise_keyboard_interrupt)
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
    limits: ConnectionLimits | None = None,
) -> uvicorn.Server:
    """Make the server without starting it; its `run` takes the sockets to listen on.

    Args:
        settings: the settings of the installation.
        database: the database of the outbox.
        host: a host name that the server answers to, in addition to the names of the loopback
            interface and those of `DLQ_API_HOSTS`.
        announce: called once the server accepts requests; the default does nothing.
        limits: limits of its connections; None: those for this process.

    Raises:
        DlqError: `DLQ_API_TOKENS` is invalid.
    """
    app = create_app(settings, replace(database, statement_timeout=settings.api_timeout_seconds))
    limits = limits or choose_limits()
    config = uvicorn.Config(
        wrap_with_guard(app, settings, host=host, limits=limits),
        ws="none",
        access_log=False,
        # Any client can send X-Forwarded-For, so it does not identify the client.
        proxy_headers=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=_STOP_SECONDS,
        **limit_connections(limits),
    )
    return _Server(config, announce)


def require_tokens(settings: Settings, host: str) -> None:
    """Refuse to listen on an address that other machines can reach without tokens.

    Raises:
        RefusedError: `host` is not a loopback address, and `DLQ_API_TOKENS` is unset.
    """
    tokens = read_tokens(settings.api_tokens.get_secret_value() if settings.api_tokens else "")
    if not tokens and not _is_loopback(host):
        raise RefusedError(
            f"Refusing to listen on {host} without tokens: other machines can reach this address.",
            "Make a token with `dlq tokens new NAME --scope read` and add its entry to "
            "DLQ_API_TOKENS, or omit --host to listen on 127.0.0.1.",
        )


def _open_sockets(host: str, port: int) -> list[socket.socket]:
    """Open a listening socket for each address of the host.

    Raises:
        DlqError: the host has no address, or one of its addresses cannot be bound.
    """
    listening: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            listening.append(socket.create_server(address, family=family))
    except OSError as error:
        for opened in listening:
            opened.close()
        raise DlqError(
            _describe_bind_error(error, host, port),
            "Choose another address: `dlq serve --host 127.0.0.1 --port 8081`.",
        ) from None
    return listening


def _describe_bind_error(error: OSError, host: str, port: int) -> str:
    match error:
        case socket.gaierror():
            return f"Unknown host: {host} is not an address and does not resolve to one."
        case OSError(errno=errno.EADDRINUSE):
            return f"Port {port} of {host} is already in use by another program."
        case OSError(errno=errno.EADDRNOTAVAIL):
            return f"Invalid host: {host} is not an address of this machine."
        case _:
            reason = os.strerror(error.errno or 0)
            return f"Cannot listen on port {port} of {host}: {reason}."


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _raise_keyboard_interrupt(*_: object) -> None:
    raise KeyboardInterrupt
