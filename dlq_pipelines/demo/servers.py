"""Runs the servers of other companies that the shop calls, and that fail some of its requests.

An HTTP server on the loopback interface plays the payment provider, the mail provider and the
carrier; the old bookkeeping host is a port on which nothing listens. A response depends only on the
request, so a delivery that fails once fails every time, until the request changes or the outage of
the other companies ends.
"""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

LOCALHOST: Final = "127.0.0.1"
# The acquirer whose cards the payment provider cannot charge, on both of its routes.
DOWN_ACQUIRER: Final = "northbank"
# The mailbox provider whose addresses the mail provider throttles.
THROTTLED_DOMAIN: Final = "slowmail.example"
# The depot whose system answers after the shop's timeout.
SLOW_DEPOT: Final = "harbour"
# The shop's own depot, which needs no carrier.
OWN_DEPOT: Final = "own"
_SLOW_ANSWER_SECONDS: Final = 0.25


@dataclass(frozen=True)
class ProviderServers:
    """Base URLs of the servers that the shop calls. Nothing listens at `bookkeeping`.

    Attributes:
        recovered: set to end the outage: the acquirer, the mailbox provider and the depot work.
    """

    payments: str
    mail: str
    carrier: str
    bookkeeping: str
    recovered: threading.Event


class _Provider(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__((LOCALHOST, 0), _Answer)
        self.closing = threading.Event()
        self.recovered = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up, as the slow depot makes them do; print other errors."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Answer(BaseHTTPRequestHandler):
    server: _Provider

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self._status(request)
        # One write, one packet.
        self.wfile.write(
            f"HTTP/1.0 {status.value} {status.phrase}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    def _status(self, request: dict[str, Any]) -> HTTPStatus:
        is_out = not self.server.recovered.is_set()
        match self.path:
            case "/payments/v1/capture" | "/payments/v2/capture":
                down = is_out and request["acquirer"] == DOWN_ACQUIRER
                return HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK
            case "/mail/send":
                throttled = is_out and request["to"].endswith(f"@{THROTTLED_DOMAIN}")
                return HTTPStatus.TOO_MANY_REQUESTS if throttled else HTTPStatus.OK
            case "/carrier/pickup":
                if is_out and request["depot"] == SLOW_DEPOT:
                    self.server.closing.wait(_SLOW_ANSWER_SECONDS)
                return HTTPStatus.OK
        return HTTPStatus.NOT_FOUND

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal shows the demo's output."""


@contextmanager
def run_provider_servers() -> Iterator[ProviderServers]:
    """Run the servers for the length of a `with` block, on free ports."""
    with find_closed_port() as closed, _Provider() as provider:
        thread = threading.Thread(
            target=provider.serve_forever, args=(0.05,), name="demo-services", daemon=True
        )
        thread.start()
        base = f"http://{LOCALHOST}:{provider.server_port}"
        try:
            yield ProviderServers(
                f"{base}/payments",
                f"{base}/mail",
                f"{base}/carrier",
                f"http://{LOCALHOST}:{closed}",
                provider.recovered,
            )
        finally:
            provider.closing.set()
            provider.shutdown()
            thread.join()


@contextmanager
def find_closed_port() -> Iterator[int]:
    """Yield a port that refuses connections for the length of a `with` block.

    The port is bound and not listened on. A free port could be given to another process, or to the
    connection that is made to it, which would then reach itself.
    """
    with socket.socket() as taken:
        taken.bind((LOCALHOST, 0))
        yield taken.getsockname()[1]
