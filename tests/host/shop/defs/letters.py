"""The outbox of letters, by the factory."""

from functools import partial

import dagster as dg

from dlq_pipelines import dead_letter_definitions, read_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Define the dead-letter operations; the variables begin with `LETTERS_`."""
    return dead_letter_definitions(
        partial(read_settings, "LETTERS_"),
        name="letters",
        key_prefix=["mail", "letters"],
        group="mail",
        schedules={"archive_daily": "0 4 * * *", "purge_weekly": None},
    )
