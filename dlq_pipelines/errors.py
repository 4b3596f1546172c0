"""What went wrong, about which thing, and what to do next?

Every message that reaches a person says the object, the reason and the next command, and never holds a
connection string, a token or a stack trace. The faces catch `DlqError` alone: anything else is a defect.
"""


class DlqError(Exception):
    """A request that cannot be done, said so that the reader can act on it."""


class DatabaseUnavailableError(DlqError):
    """PostgreSQL could not be reached or started."""


class SchemaError(DlqError):
    """The database is not at the schema version that this release needs."""


class RefusedError(DlqError):
    """The request is understood and not allowed in the present state: nothing was changed."""


class NotFoundError(DlqError):
    """The thing that was named does not exist (or is not dead)."""
