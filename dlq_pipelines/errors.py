"""Defines the errors that reach a user: what is wrong, the next command, and a code.

A message never holds a connection string, a token or a stack trace. The faces catch `DlqError`
alone: any other exception is a defect.
"""

from typing import ClassVar


class DlqError(Exception):
    """A request that cannot be done.

    Each face renders the parts in its own way: the command line prints message and hint in one
    sentence, the HTTP API returns them as separate fields.

    Args:
        message: what is wrong, with the value, and why. Full sentences.
        hint: what to do next, with a command that can be copied. Empty: nothing can be done.

    Attributes:
        code: identifies the kind of error for programs.
    """

    code: ClassVar[str] = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class DatabaseUnavailableError(DlqError):
    """PostgreSQL could not be reached or started."""

    code = "database_unavailable"


class SchemaError(DlqError):
    """The database does not have the schema that this release needs."""

    code = "schema_outdated"


class RefusedError(DlqError):
    """The present state does not allow the request. Nothing was changed."""

    code = "refused"


class NotFoundError(DlqError):
    """What the request names does not exist, or is not dead."""

    code = "not_found"
