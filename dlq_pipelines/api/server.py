"""How does one command serve the API, and stop without breaking off what is under way?"""

import ipaddress
import signal
from dataclasses import replace

import uvicorn

from dlq_pipelines.api.app import create_app, guarded
from dlq_pipelines.api.auth import read_tokens
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.installation import find_database, open_connection, prepare_embedded
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings

# A request has this long to end once the server is told to.
_STOP_SECONDS = 20


def serve_api(settings: Settings, *, host: str, port: int) -> int:
    """Serve until a signal comes; returns the exit code.

    Raises:
        RefusedError: others could reach that address, and nobody would be asked for a token.
        DlqError: the database is not to be had or not migrated, or `DLQ_API_TOKENS` cannot be read.
        OSError: the address cannot be bound.
    """
    require_tokens(settings, host)
    prepare_embedded(settings)
    open_connection(settings).close()
    server = make_server(settings, find_database(settings), host=host, port=port)
    # uvicorn ends what is under way and then raises the signal again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        server.run()
    except KeyboardInterrupt:
        return 0
    return 0 if server.started else 1


def make_server(settings: Settings, database: Database, *, host: str, port: int) -> uvicorn.Server:
    """The server, not yet started.

    Raises:
        DlqError: `DLQ_API_TOKENS` cannot be read.
    """
    app = create_app(settings, replace(database, statement_timeout=settings.api_timeout_seconds))
    config = uvicorn.Config(
        guarded(app, settings, host=host),
        host=host,
        port=port,
        access_log=False,
        # Whoever connects may write these headers, so they say nothing of who that is.
        proxy_headers=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    return uvicorn.Server(config)


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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
