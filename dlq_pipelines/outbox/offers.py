"""Refuses operations that the mapping of the outbox does not offer."""

from dlq_pipelines.errors import RefusedError
from dlq_pipelines.postgres.connect import Connection


def require_offer(connection: Connection, operation: str) -> None:
    """Return if the mapping of the attached outbox offers the operation.

    Args:
        connection: to the outbox.
        operation: one of those that `mapping_offers.list_offers` names, such as `retries`.

    Raises:
        RefusedError: the mapping does not offer it; the message says why.
    """
    reason = connection.fetch_one("outbox.offers")["offers"][operation]
    if reason:
        raise RefusedError(reason)
