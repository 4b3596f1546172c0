"""Fixtures that start the real server on a port of loopback, with a real database."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dlq_pipelines.api.auth import TokenScope, create_token
from dlq_pipelines.api.connections import ConnectionLimits
from dlq_pipelines.api.server import make_server
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings

Serve = Callable[..., httpx.Client]
# Without it each client would read all certificates of the machine again: 25 ms.
_CERTIFICATES = ssl.create_default_context()


@contextmanager
def serving(
    settings: Settings, database: Database, limits: ConnectionLimits | None = None
) -> Iterator[str]:
    """Run the server on a free port; yield its address."""
    server = make_server(settings, database, host="127.0.0.1", limits=limits)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def serve(database: Database, home: Path) -> Iterator[Serve]:
    """Start a server with these settings and return a client of it."""
    open_: list[Any] = []

    def start(**settings: Any) -> httpx.Client:
        server = serving(Settings(home=home, **settings), database)
        client = httpx.Client(base_url=server.__enter__(), timeout=120, verify=_CERTIFICATES)
        open_.append((client, server))
        return client

    yield start
    for client, server in open_:
        client.close()
        server.__exit__(None, None, None)


@pytest.fixture
def api(serve: Serve) -> httpx.Client:
    """A client of a server without tokens."""
    return serve()


@pytest.fixture
def tokens() -> dict[str, str]:
    """A secret token of each scope and, under `entries`, the value of `DLQ_API_TOKENS`."""
    made = {scope: create_token(f"a-{scope}", scope) for scope in TokenScope}
    return {
        **{scope: secret for scope, (secret, _) in made.items()},
        "entries": ",".join(str(token) for _, token in made.values()),
    }


def bearer(secret: str) -> dict[str, str]:
    """Return the header that sends a token."""
    return {"Authorization": f"Bearer {secret}"}
