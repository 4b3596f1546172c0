"""The HTTP API as a program meets it: the real server on a port of loopback, asked with httpx, on a real database."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dlq_pipelines.api.auth import TokenScope, create_token
from dlq_pipelines.api.server import make_server
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings

Serve = Callable[..., httpx.Client]


@contextmanager
def serving(settings: Settings, database: Database) -> Iterator[str]:
    """The server on a free port for the length of a `with` block; its address."""
    server = make_server(settings, database, host="127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        give_up = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < give_up
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def serve(database: Database, home: Path) -> Iterator[Serve]:
    """Start a server with these settings and return a client of it."""
    open_: list[Any] = []

    def start(**settings: Any) -> httpx.Client:
        server = serving(Settings(home=home, **settings), database)
        client = httpx.Client(base_url=server.__enter__(), timeout=30)
        open_.append((client, server))
        return client

    yield start
    for client, server in open_:
        client.close()
        server.__exit__(None, None, None)


@pytest.fixture
def api(serve: Serve) -> httpx.Client:
    """A client of a server without tokens, as it is on a developer's machine."""
    return serve()


@pytest.fixture
def tokens() -> dict[str, str]:
    """A secret of each scope and, under `entries`, what the server is told of them."""
    made = {scope: create_token(f"a-{scope}", scope) for scope in TokenScope}
    return {
        **{scope: secret for scope, (secret, _) in made.items()},
        "entries": ",".join(str(t) for _, t in made.values()),
    }


def bearer(secret: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {secret}"}
