"""A transaction pooler for tests: after each transaction it gives the server session to others."""

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, quote, urlsplit

_HEADER = 5


class TransactionPooler:
    """Lets each client log in on a session of its own, and puts all sessions into one pool."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self.idle: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.clients: list[tuple[socket.socket, threading.Thread]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self.clients.append((client, thread))
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError), client:
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.socket_path)
            _relay(client, server, replace_key=True)
            self.idle.append(server)
            while select.select([client], [], []):
                server = self.idle.pop()
                try:
                    _relay(client, server)
                finally:
                    self.idle.append(server)

    def close(self) -> None:
        """Close the listener, end all clients, and close the sessions once no thread uses them."""
        self.listener.close()
        for client, thread in self.clients:
            with suppress(OSError):  # a client that left is closed already
                client.shutdown(socket.SHUT_RDWR)
            thread.join()
        for session in self.idle:
            session.close()


def _relay(client: socket.socket, server: socket.socket, *, replace_key: bool = False) -> None:
    """Relay in both directions until the server is ready outside of a transaction."""
    pending = b""
    while True:
        readable, _, _ = select.select([client, server], [], [])
        if client in readable:
            data = _receive(client)
            if data[:1] == b"X":  # the client ends; its session stays in the pool
                raise EOFError
            server.sendall(data)
        if server in readable:
            pending += _receive(server)
            while len(pending) >= _HEADER:
                (length,) = struct.unpack("!I", pending[1:_HEADER])
                if len(pending) <= length:
                    break
                message, pending = pending[: length + 1], pending[length + 1 :]
                if replace_key and message[:1] == b"K":  # as poolers do: a process that is not real
                    message = message[:_HEADER] + b"\x7f\xff\xff\x01" + message[_HEADER + 4 :]
                client.sendall(message)
                if message[:1] == b"Z" and message[_HEADER:] == b"I":
                    return


def _receive(peer: socket.socket) -> bytes:
    data = peer.recv(65_536)
    if not data:
        raise EOFError
    return data


@contextmanager
def pooled_url(url: str) -> Iterator[str]:
    """Yield the URL of a transaction pooler in front of a server on a Unix socket."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    port = query.get("port", ["5432"])[0]
    pooler = TransactionPooler(f"{query['host'][0]}/.s.PGSQL.{port}")
    account = quote(parts.username or "postgres") + (f":{parts.password}" if parts.password else "")
    try:
        yield (
            f"postgresql://{account}@127.0.0.1:{pooler.port}{parts.path}"
            "?sslmode=disable&gssencmode=disable"
        )
    finally:
        pooler.close()
