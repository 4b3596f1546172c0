"""Dead-letter operations for a PostgreSQL transactional outbox."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlq_pipelines.defs.component import DeadLetterQueue
    from dlq_pipelines.defs.factory import dead_letter_definitions
    from dlq_pipelines.errors import (
        DatabaseUnavailableError,
        DlqError,
        NotFoundError,
        RefusedError,
        SchemaError,
    )
    from dlq_pipelines.outbox.dead_events import (
        AgeCount,
        DeadEvent,
        DeadEventPage,
        DeadEventStats,
        NamedCount,
    )
    from dlq_pipelines.outbox.event import OutboxEvent
    from dlq_pipelines.outbox.selection import Selection
    from dlq_pipelines.postgres.queries import TableNames
    from dlq_pipelines.repository import OutboxRepository
    from dlq_pipelines.settings import Settings, build_settings, read_settings

__all__ = [
    "AgeCount",
    "DatabaseUnavailableError",
    "DeadEvent",
    "DeadEventPage",
    "DeadEventStats",
    "DeadLetterQueue",
    "DlqError",
    "NamedCount",
    "NotFoundError",
    "OutboxEvent",
    "OutboxRepository",
    "RefusedError",
    "SchemaError",
    "Selection",
    "Settings",
    "TableNames",
    "build_settings",
    "dead_letter_definitions",
    "read_settings",
]

_MODULES = {
    "defs.component": ("DeadLetterQueue",),
    "defs.factory": ("dead_letter_definitions",),
    "errors": (
        "DatabaseUnavailableError",
        "DlqError",
        "NotFoundError",
        "RefusedError",
        "SchemaError",
    ),
    "outbox.dead_events": (
        "AgeCount",
        "DeadEvent",
        "DeadEventPage",
        "DeadEventStats",
        "NamedCount",
    ),
    "outbox.event": ("OutboxEvent",),
    "outbox.selection": ("Selection",),
    "postgres.queries": ("TableNames",),
    "repository": ("OutboxRepository",),
    "settings": ("Settings", "build_settings", "read_settings"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: psycopg takes 0.1 s, and `dlq --help` does not need it."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(_import(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _import(module: str) -> ModuleType:
    """Import a module of ours; name the extra of a package that is missing."""
    from dlq_pipelines.extras import describe_missing_package

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = describe_missing_package(error)
        if missing is None:
            raise
        raise ImportError(missing) from None


def __dir__() -> list[str]:
    """List the public names before their first use: Dagster finds the component so."""
    return sorted({*globals(), *__all__})
