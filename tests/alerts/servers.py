"""Starts real HTTP and SMTP servers that record the messages they receive."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.controller import Controller


@dataclass
class Received:
    """The requests of an HTTP server, each with headers and body, and how the server answers.

    Attributes:
        status: status of each response.
        hang: no request is answered before this event is set; None: requests are answered.
    """

    port: int = 0
    requests: list[tuple[dict[str, str], str]] = field(default_factory=list)
    status: int = 204
    hang: threading.Event | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def http_server() -> Iterator[Received]:
    """Run an HTTP server on a free port of loopback."""
    received = Received()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            received.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
            if received.hang is not None:
                received.hang.wait()
            self.send_response(received.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        received.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            if received.hang is not None:
                received.hang.set()
            server.shutdown()
            thread.join()


@contextmanager
def smtp_server() -> Iterator[tuple[int, list[bytes]]]:
    """Run a mail server; yield its port and the messages that it accepts."""
    accepted: list[bytes] = []

    class Handler:
        async def handle_DATA(  # noqa: N802 - the name that aiosmtpd calls
            self, _server: Any, _session: Any, envelope: Any
        ) -> str:
            accepted.append(envelope.content)
            return "250 OK"

    controller = Controller(Handler(), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port, accepted
    finally:
        controller.stop()


def free_port() -> int:
    """Return a port of loopback on which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
