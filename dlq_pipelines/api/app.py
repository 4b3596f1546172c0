"""What does the HTTP API consist of, and how does it begin and end?"""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from dlq_pipelines.api import (
    alerts,
    archive,
    causes,
    dead_events,
    fixes,
    health,
    metrics,
    operations,
    reports,
    swagger,
)
from dlq_pipelines.api.arguments import only_what_is_described
from dlq_pipelines.api.auth import read_tokens
from dlq_pipelines.api.errors import RESPONSES, handle_errors
from dlq_pipelines.api.guard import Guard
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings

# Of a concept each, in the order of the documentation.
CONCEPTS = (dead_events, causes, fixes, archive, reports, alerts, operations, metrics)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# As many as threads work on requests would be forty; ten keep a database of ordinary size responsive.
_CONNECTIONS = 10
_WAIT_SECONDS = 5.0
_EXPORTS = 2


class _Api(FastAPI):
    """An application whose description asks for a token only where one is set."""

    def openapi(self) -> dict[str, Any]:
        """The description of all routes."""
        described = super().openapi()
        if not self.state.tokens:
            described.get("components", {}).pop("securitySchemes", None)
            for methods in described["paths"].values():
                for operation in methods.values():
                    operation.pop("security", None)
        return described


def create_app(settings: Settings, database: Database) -> FastAPI:
    """The application, not yet guarded.

    Args:
        settings: of the installation.
        database: of the outbox; its statement time-out is that of a request.

    Raises:
        DlqError: `DLQ_API_TOKENS` cannot be read.
    """
    app = _Api(
        title="dlq-pipelines",
        summary="Dead-letter operations for a PostgreSQL transactional outbox.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(database),
        dependencies=[Depends(only_what_is_described)],
    )
    app.state.settings, app.state.database = settings, database
    app.state.tokens = read_tokens(settings.api_tokens.get_secret_value() if settings.api_tokens else "")
    app.state.limiter = MovingWindowRateLimiter(MemoryStorage())
    app.state.rate = RateLimitItemPerMinute(settings.api_changes_per_minute)
    app.state.exports = threading.BoundedSemaphore(_EXPORTS)
    app.state.schema_known_until = 0.0
    handle_errors(app)
    for concept in CONCEPTS:
        app.include_router(concept.router, responses=RESPONSES)
    app.include_router(health.router)
    app.include_router(swagger.router)
    if settings.api_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.api_cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Actor"],
        )
    return app


def guarded(app: FastAPI, settings: Settings, *, host: str) -> ASGIApp:
    """The application behind its guard, which answers to the names of this machine and of `DLQ_API_HOSTS`."""
    hosts = {*_LOOPBACK, *settings.api_hosts, host.lower()}
    return Guard(app, hosts=hosts, origins=settings.api_cors_origins, tokens=app.state.tokens)


def _lifespan(database: Database) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A pool from beginning to end; what is under way at the end keeps its connections until it has ended."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with database.pool(size=_CONNECTIONS, wait=_WAIT_SECONDS) as pool:
            app.state.pool = pool
            yield

    return lifespan
