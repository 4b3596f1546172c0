"""Opens the database of the environment's settings for a command."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.postgres.connect import Connection
    from dlq_pipelines.settings import Settings


@contextmanager
def open_session() -> Iterator[tuple["Connection", "Settings"]]:
    """Yield a connection to the outbox's database and the settings, for one `with` block."""
    from dlq_pipelines.installation import open_connection
    from dlq_pipelines.settings import read_settings

    settings = read_settings()
    with open_connection(settings) as connection:
        yield connection, settings
