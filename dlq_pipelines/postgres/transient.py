"""Recognizes transient PostgreSQL errors, for which a second try is all there is to do."""

import psycopg


def describe_transient_error(error: Exception) -> str | None:
    """Return a message with advice for a transient error; None for any other error."""
    match error:
        case psycopg.errors.QueryCanceled():
            return (
                "The database did not answer in time. "
                "Select fewer events, or try again when the database is less busy."
            )
        case psycopg.errors.LockNotAvailable() | psycopg.errors.DeadlockDetected():
            return "Other transactions hold the rows. Try again when those transactions have ended."
        case _:
            return None
