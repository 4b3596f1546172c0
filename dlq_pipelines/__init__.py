"""Dead-letter operations for a PostgreSQL transactional outbox."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlq_pipelines.outbox.event import OutboxEvent
    from dlq_pipelines.outbox.repository import OutboxRepository

__all__ = ["OutboxEvent", "OutboxRepository"]


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: psycopg takes 0.1 s, for which `dlq --help` must not wait."""
    match name:
        case "OutboxEvent":
            from dlq_pipelines.outbox.event import OutboxEvent

            return OutboxEvent
        case "OutboxRepository":
            from dlq_pipelines.outbox.repository import OutboxRepository

            return OutboxRepository
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
