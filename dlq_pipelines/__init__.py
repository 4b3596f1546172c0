"""Dead-letter operations for a PostgreSQL transactional outbox."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlq_pipelines.outbox.event import OutboxEvent
    from dlq_pipelines.outbox.selection import Selection
    from dlq_pipelines.repository import OutboxRepository

__all__ = ["OutboxEvent", "OutboxRepository", "Selection"]


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: psycopg takes 0.1 s, for which `dlq --help` must not wait."""
    match name:
        case "OutboxEvent" | "Selection":
            from dlq_pipelines.outbox import event

            return getattr(event, name)
        case "OutboxRepository":
            from dlq_pipelines.repository import OutboxRepository

            return OutboxRepository
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
