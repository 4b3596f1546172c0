"""Dead-letter operations for a PostgreSQL transactional outbox."""

from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.outbox.repository import OutboxRepository

__all__ = ["OutboxEvent", "OutboxRepository"]
