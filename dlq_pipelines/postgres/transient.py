"""Does a refusal of PostgreSQL's pass by itself, so that asking again is all there is to do?"""

import psycopg


def describe_transient_error(error: Exception) -> str | None:
    """What is said of it and what to do next, in every face; None: it does not pass by itself."""
    match error:
        case psycopg.errors.QueryCanceled():
            return "The database did not answer in time. Ask for less at once, or again when it is less busy."
        case psycopg.errors.LockNotAvailable() | psycopg.errors.DeadlockDetected():
            return "Other transactions hold what this needs. Ask again when they have ended."
        case _:
            return None
