"""`/metrics`: what Prometheus scrapes."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dlq_pipelines.api.auth import Reader
from dlq_pipelines.api.session import Site, require_schema
from dlq_pipelines.metrics import DeadLetterCollector, build_snapshot_reader
from dlq_pipelines.postgres.connect import Connection

router = APIRouter(tags=["metrics"])
# Prometheus gives up after ten seconds; reading itself may take five.
_PATIENCE = 2.0


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(_: Reader, request: Request, site: Site) -> Response:
    """Everything in Prometheus' format, read from the database now; while that is away, only `dlq_up 0`."""

    @contextmanager
    def connect() -> Iterator[Connection]:
        with request.app.state.pool.connection(timeout=_PATIENCE) as connection:
            require_schema(request.app.state, connection)
            yield connection

    registry = CollectorRegistry()
    read = build_snapshot_reader(
        connect, max_retries=site.max_retries, archive_retention_days=site.archive_retention_days
    )
    registry.register(DeadLetterCollector(read))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type})
