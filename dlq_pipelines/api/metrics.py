"""Serves `/metrics` for Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dlq_pipelines.api.auth import Reader
from dlq_pipelines.api.session import ApiSettings, require_schema
from dlq_pipelines.installation import build_redact_errors
from dlq_pipelines.metrics import DeadLetterCollector, build_snapshot_reader
from dlq_pipelines.postgres.connect import Connection

router = APIRouter(tags=["metrics"])
# Seconds. Prometheus gives up after ten seconds, and reading can take five.
_POOL_TIMEOUT = 2.0


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(_: Reader, request: Request, settings: ApiSettings) -> Response:
    """Return all metrics, read from the database now.

    Without a database only `dlq_up 0` is returned.
    """

    @contextmanager
    def connect() -> Iterator[Connection]:
        with request.app.state.pool.connection(timeout=_POOL_TIMEOUT) as connection:
            require_schema(request.app.state, connection)
            yield connection

    registry = CollectorRegistry()
    read = build_snapshot_reader(
        connect,
        max_retries=settings.max_retries,
        archive_retention_days=settings.archive_retention_days,
        redact=build_redact_errors(settings),
    )
    registry.register(DeadLetterCollector(read, outbox=settings.label))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type})
