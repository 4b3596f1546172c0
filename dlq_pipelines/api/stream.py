"""Streams an export to the caller while it is written, in constant memory.

A thread writes into a pipe from which the response reads. A caller who disconnects closes the pipe,
which ends the export. So does a caller who reads nothing for 30 seconds, because the snapshot of
the export holds back vacuum.
"""

import logging
import os
import threading
from collections.abc import Generator
from typing import Any

from anyio import CancelScope, move_on_after
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from dlq_pipelines.api.errors import RequestError
from dlq_pipelines.api.session import require_schema
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.settings import ExportFormat

log = logging.getLogger("dlq.api")
_CHUNK = 65_536
_STALLED_SECONDS = 30.0


class _StalledError(Exception):
    """The caller stopped reading."""


class ExportResponse(StreamingResponse):
    """A response that ends its export when it ends, whether or not it was read completely."""

    def __init__(
        self, chunks: Generator[bytes], *, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""

        async def send_with_timeout(message: Message) -> None:
            with move_on_after(_STALLED_SECONDS) as waiting:
                await send(message)
            if waiting.cancelled_caught:
                raise _StalledError

        try:
            await super().__call__(scope, receive, send_with_timeout)
        except _StalledError:
            log.warning("Export aborted: the caller read nothing for %.0f s.", _STALLED_SECONDS)
        finally:
            with CancelScope(shield=True):
                await run_in_threadpool(self._chunks.close)


def export_stream(
    state: Any, selection: Selection, *, format: ExportFormat, redaction: Redaction
) -> Generator[bytes]:
    """Return the bytes of the file. Errors before the first byte are raised here, so that they get
    a response.

    Args:
        state: the state of the application, with its database and its limit of exports.
        selection: the deaths.
        format: the format of the file.
        redaction: the rules of redaction.

    Raises:
        RequestError: too many exports are running.
        DatabaseUnavailableError: the database does not answer.
        SchemaError: migrations are pending.
    """
    if not state.exports.acquire(blocking=False):
        raise RequestError(
            503,
            "Too many exports are running. Try again when one has ended.",
            {"Retry-After": "30"},
        )
    chunks = _chunks(state, selection, format, redaction)
    # Runs until the first bytes, so that the generator has begun and always releases the semaphore.
    return _prepend(next(chunks, b""), chunks)


def _chunks(
    state: Any, selection: Selection, format: ExportFormat, redaction: Redaction
) -> Generator[bytes]:
    failed: list[BaseException] = []
    reading, writing = os.pipe()

    def write() -> None:
        from dlq_pipelines.exports.adhoc import export_selected
        from dlq_pipelines.exports.formats import create_writer
        from dlq_pipelines.exports.stream import read_export_schema

        try:
            with os.fdopen(writing, "wb", _CHUNK) as file, state.database.connect() as connection:
                require_schema(state, connection)
                export_selected(
                    connection,
                    url=state.database.url,
                    selection=selection,
                    writer=create_writer(format, file, read_export_schema(connection)),
                    redaction=redaction,
                )
        except BaseException as error:  # noqa: BLE001 - the reading side raises it
            failed.append(error)

    writer = threading.Thread(target=write, name="export", daemon=True)
    try:
        with os.fdopen(reading, "rb", 0) as file:
            writer.start()
            while chunk := file.read(_CHUNK):
                yield chunk
        writer.join()
        if failed:
            raise failed[0]
    finally:
        state.exports.release()


def _prepend(first: bytes, rest: Generator[bytes]) -> Generator[bytes]:
    try:
        yield first
        yield from rest
    finally:
        rest.close()
