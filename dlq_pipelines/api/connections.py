"""Limits connections: their number, and the time in which a request must arrive.

uvicorn waits without limit for the rest of a request. A client that opens connections and sends
half of a request on each would use up all file descriptors of the process, and nobody would get
an answer.
"""

import asyncio
import resource
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# Descriptors that are kept for the database, files and libraries.
_OTHER_DESCRIPTORS = 128
_LEAST_CONNECTIONS = 32


def _count_possible_connections() -> int:
    """Return 512, or fewer if the process may not open as many files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 512
    return max(_LEAST_CONNECTIONS, min(512, soft - _OTHER_DESCRIPTORS))


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of the connections of one server.

    Attributes:
        connections: open connections. A further one closes the connection that waits longest for
            the rest of a request, or is closed itself if none waits.
        head_seconds: time in which request line and headers must arrive, from the start of the
            connection or from the end of the previous response. Default 10: a browser needs less
            than one, also on a slow line.
        head_bytes: size of request line and headers.
        body_seconds: time in which a body must arrive.
    """

    connections: int = 512
    head_seconds: float = 10.0
    head_bytes: int = 65_536
    body_seconds: float = 30.0

    @property
    def bodies(self) -> int:
        """How many bodies may arrive at a time: half of the connections."""
        return max(1, self.connections // 2)


def choose_limits() -> ConnectionLimits:
    """Return the limits for this process."""
    return ConnectionLimits(connections=_count_possible_connections())


class _LimitedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that is closed if the head of its next request does not arrive in time.

    The guard of the application limits the time of a body: it can answer.
    """

    # Set by `limit_connections`, for all connections of one server.
    limits: ConnectionLimits
    # Connections that wait for the head of a request, those that wait longest first.
    waiting: dict["_LimitedProtocol", None]

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Start to wait for a request; make room if there are too many connections."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._wait_for_head()
        if len(self.connections) > self.limits.connections:
            next(iter(self.waiting)).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()
        elif self in self.waiting:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
                self.send_400_response("Request line and headers are too long.")

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has arrived already."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        if self.transport.is_closing():
            return
        self._head_bytes = 0
        self.waiting[self] = None
        self._deadline = self.loop.call_later(self.limits.head_seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def limit_connections(limits: ConnectionLimits) -> dict[str, Any]:
    """Return the arguments of `uvicorn.Config` that apply the limits to one server."""
    protocol = type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits, "waiting": {}})
    # How many connections are accepted at once, before the first of them is counted.
    return {"http": protocol, "backlog": _OTHER_DESCRIPTORS // 2}
