"""Connections on which half of a request arrives: they are closed, and keep nobody out."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from dlq_pipelines.api.connections import ConnectionLimits, choose_limits
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings
from tests.api.conftest import serving

HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY = (
    b"POST /api/dead-events/retry-batch HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"all": '
)
IGNORED_BODY = HEAD + b"Content-Length: 100\r\n\r\nabc"
LIMITS = ConnectionLimits(connections=40, head_seconds=1.0, body_seconds=1.0)
# Far longer than any limit: a slow machine reaches it only if a connection is not closed.
PATIENCE = 60


@pytest.fixture
def address(database: Database, home: Path) -> Iterator[str]:
    """The address of a server with short limits."""
    with serving(Settings(home=home), database, LIMITS) as found:
        yield found


@contextlib.contextmanager
def send_half(address: str, sent: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Open so many connections, and send the start of a request on each."""
    url = httpx.URL(address)
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection((url.host, url.port or 80), timeout=PATIENCE))
            with contextlib.suppress(OSError):  # closed already, to make room
                opened[-1].sendall(sent)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that the server sends until it closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            received += part
    return received


@pytest.mark.parametrize("sent", [b"", b"GET", HEAD, BODY, IGNORED_BODY], ids=len)
def test_half_sent_requests_keep_nobody_out_and_are_closed(address: str, sent: bytes) -> None:
    """More of them than the server keeps open; each is closed once its time is over."""
    with send_half(address, sent, 300) as opened:
        for path in ("/health", "/api/dead-events"):
            assert httpx.get(f"{address}{path}", timeout=PATIENCE).status_code == 200
        answers = [read_to_end(connection) for connection in opened]
    assert sent != BODY or answers[-1].startswith(b"HTTP/1.1 408 ")


def test_a_head_that_arrives_byte_by_byte_is_closed_too(address: str) -> None:
    """A byte does not extend the time, neither of the first request nor of the next one."""
    for first in (HEAD + b"X: ", HEAD + b"\r\n" + HEAD + b"X: "):
        with send_half(address, first, 1) as (connection,):
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while time.monotonic() - began < PATIENCE:
                    connection.sendall(b"G")
                    time.sleep(0.1)
            assert 0.9 < time.monotonic() - began < PATIENCE


def test_a_head_without_end_is_refused(address: str) -> None:
    with send_half(address, HEAD + b"X: " + b"x" * 100_000, 1) as (connection,):
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_a_slow_request_within_the_limits_is_answered(database: Database, home: Path) -> None:
    """In two parts, three times on one connection, and longer than the limit in all."""
    patient = replace(LIMITS, head_seconds=3.0)
    with (
        serving(Settings(home=home), database, patient) as address,
        send_half(address, b"", 1) as (connection,),
    ):
        for _ in range(3):
            connection.sendall(HEAD)
            time.sleep(1.1)
            connection.sendall(b"\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_the_limit_leaves_descriptors_for_the_rest_of_the_process() -> None:
    assert 32 <= choose_limits().connections <= 512
