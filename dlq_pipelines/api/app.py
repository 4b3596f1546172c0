"""Builds the FastAPI application of the HTTP API and of the pages."""

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
    audit,
    causes,
    dead_events,
    deployments,
    erase,
    fixes,
    health,
    metrics,
    reports,
    swagger,
)
from dlq_pipelines.api.arguments import reject_undescribed_arguments
from dlq_pipelines.api.auth import read_tokens
from dlq_pipelines.api.connections import ConnectionLimits
from dlq_pipelines.api.describe import clean_descriptions
from dlq_pipelines.api.errors import RESPONSES, install_error_handlers
from dlq_pipelines.api.guard import Guard
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.settings import Settings
from dlq_pipelines.web.app import PAGE_NAMES, add_pages

# One module per concept, in the order of the documentation.
CONCEPTS = (
    dead_events,
    causes,
    fixes,
    deployments,
    archive,
    erase,
    reports,
    alerts,
    audit,
    metrics,
)
# uvicorn answers a longer request line itself, before the guard and the error handlers see it.
_DESCRIPTION = """\
A request line has at most 64 KiB. The server answers a longer one with status 400 and plain text,
instead of the JSON of all other errors. Changes take their arguments, such as `event_ids`, in the
body, which has at most 1 MiB.
"""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# One connection per request thread would be 40; ten keep a database of ordinary size responsive.
_MAX_CONNECTIONS = 10
_POOL_TIMEOUT = 5.0
_MAX_EXPORTS = 2


class _Api(FastAPI):
    """An application whose OpenAPI description requires a token only if tokens are set.

    Its texts are written for readers of the API, not of the code.
    """

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description."""
        has_tokens = bool(self.state.tokens)
        if has_tokens not in _DESCRIBED:
            _DESCRIBED[has_tokens] = self._describe(has_tokens=has_tokens)
        return _DESCRIBED[has_tokens]

    def _describe(self, *, has_tokens: bool) -> dict[str, Any]:
        described = super().openapi()
        clean_descriptions(described)
        if not has_tokens:
            described.get("components", {}).pop("securitySchemes", None)
            for methods in described["paths"].values():
                for operation in methods.values():
                    operation.pop("security", None)
        return described


# The descriptions of all applications of a process: with tokens, and without. FastAPI takes 75 ms
# to build one, and each request with a query asks for it.
_DESCRIBED: dict[bool, dict[str, Any]] = {}


def create_app(settings: Settings, database: Database) -> FastAPI:
    """Build the application, without its guard.

    Args:
        settings: the settings of the installation.
        database: the database of the outbox; its statement timeout is that of a request.

    Raises:
        DlqError: `DLQ_API_TOKENS` is invalid.
    """
    app = _Api(
        title="dlq-pipelines",
        summary="Dead-letter operations for a PostgreSQL transactional outbox.",
        description=_DESCRIPTION,
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(database),
        dependencies=[Depends(reject_undescribed_arguments)],
    )
    app.state.settings, app.state.database = settings, database
    app.state.tokens = read_tokens(
        settings.api_tokens.get_secret_value() if settings.api_tokens else ""
    )
    app.state.limiter = MovingWindowRateLimiter(MemoryStorage())
    app.state.rate = RateLimitItemPerMinute(settings.api_changes_per_minute)
    app.state.exports = threading.BoundedSemaphore(_MAX_EXPORTS)
    app.state.schema_checked_until = 0.0
    install_error_handlers(app)
    for concept in CONCEPTS:
        app.include_router(concept.router, responses=RESPONSES)
    app.include_router(health.router)
    app.include_router(swagger.router)
    add_pages(app)
    if settings.api_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.api_cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Actor"],
        )
    return app


def wrap_with_guard(
    app: FastAPI, settings: Settings, *, host: str, limits: ConnectionLimits
) -> ASGIApp:
    """Wrap the application in its guard, which accepts the names of this machine and of
    `DLQ_API_HOSTS`.
    """
    hosts = {*_LOOPBACK, *settings.api_hosts, host.lower()}
    return Guard(
        app,
        hosts=hosts,
        origins=settings.api_cors_origins,
        tokens=app.state.tokens,
        limits=limits,
        pages=PAGE_NAMES,
        names=_list_route_names(),
    )


def _list_route_names() -> set[str]:
    """Return the first parts of the paths of all routes except the pages."""
    routers = (*(concept.router for concept in CONCEPTS), health.router, swagger.router)
    paths = [str(getattr(route, "path", "/")) for router in routers for route in router.routes]
    return {path.removeprefix("/").partition("/")[0] for path in (*paths, "/openapi.json")}


def _lifespan(database: Database) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Open the pool for the lifetime of the application.

    Requests that run at the end keep their connections.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with database.pool(size=_MAX_CONNECTIONS, wait=_POOL_TIMEOUT) as pool:
            app.state.pool = pool
            yield

    return lifespan
