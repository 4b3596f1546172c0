"""How does an export reach a caller while it is being written, however large it is?

A thread writes into a pipe, the answer reads from it, so memory stays that of a batch. A reader who leaves closes the
pipe, and the export ends with it. So does one who takes nothing for half a minute: the export's snapshot keeps the
database from cleaning up meanwhile.
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
    """The reader takes nothing any more."""


class ExportResponse(StreamingResponse):
    """An answer that ends its export when it has ended itself, read to the end or not."""

    def __init__(
        self, chunks: Generator[bytes], *, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def hurried(message: Message) -> None:
            with move_on_after(_STALLED_SECONDS) as waiting:
                await send(message)
            if waiting.cancelled_caught:
                raise _StalledError

        try:
            await super().__call__(scope, receive, hurried)
        except _StalledError:
            log.warning(
                "An export was broken off: its reader took nothing for %.0f s.", _STALLED_SECONDS
            )
        finally:
            with CancelScope(shield=True):
                await run_in_threadpool(self._chunks.close)


def export_stream(
    state: Any, selection: Selection, *, format: ExportFormat, redaction: Redaction
) -> Generator[bytes]:
    """The file's bytes. What goes wrong before the first of them is raised here, so that it can be answered.

    Args:
        state: of the application: its database and its places for exports.
        selection: which deaths.
        format: of the file.
        redaction: what is hidden.

    Raises:
        RequestError: too many exports are under way.
        DatabaseUnavailableError: the database does not answer.
        SchemaError: it has to be migrated first.
    """
    if not state.exports.acquire(blocking=False):
        raise RequestError(
            503, "Other exports are under way. Ask again when one has ended.", {"Retry-After": "30"}
        )
    chunks = _chunks(state, selection, format, redaction)
    # Runs up to its first bytes, so that it is begun and will give its place back whatever happens.
    return _with(next(chunks, b""), chunks)


def _chunks(
    state: Any, selection: Selection, format: ExportFormat, redaction: Redaction
) -> Generator[bytes]:
    failed: list[BaseException] = []
    reading, writing = os.pipe()

    def write() -> None:
        from dlq_pipelines.exports.adhoc import export_selected

        try:
            with os.fdopen(writing, "wb", _CHUNK) as file, state.database.connect() as connection:
                require_schema(state, connection)
                export_selected(
                    connection,
                    url=state.database.url,
                    selection=selection,
                    format=format,
                    file=file,
                    redaction=redaction,
                    progress=lambda _: None,
                )
        except BaseException as error:  # noqa: BLE001 - raised again by who reads
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


def _with(first: bytes, rest: Generator[bytes]) -> Generator[bytes]:
    try:
        yield first
        yield from rest
    finally:
        rest.close()
