"""What does each check promise, and what is to be done where it does not hold?

Dagster shows the promise as the check's description; the alert of a check that failed says both.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A check of the books: its promise, and the next thing to do where it is broken. A sentence each, or two."""

    promise: str
    next: str


# What of the backlog is worth telling, without what is muted, is for the rule `backlog` to say.
TOLD_BY_A_RULE = "backlog_is_small"
CHECKS = {
    TOLD_BY_A_RULE: Check(
        "No more events are dead than `DLQ_BACKLOG_WARN`; more than `DLQ_BACKLOG_ERROR` are an error.",
        "`dlq causes list` says why they died.",
    ),
    "rollup_matches_ledger": Check(
        "Every classified death is counted once in the daily rollup.",
        "Somebody else writes to the schema `dlq`: `dlq doctor` looks at its tables, triggers and rights.",
    ),
    "stages_match_ledger": Check(
        "The counted outcomes of every stage are those of its retries.",
        "`dlq fixes show ID` shows its stages; somebody else writes to the schema `dlq`.",
    ),
    "export_is_complete": Check(
        "The files, read again, have the sums of the manifest, and a row for each death of the ledger.",
        "Materialize those days of `dead_event_export` in Dagster again.",
    ),
    "report_equals_ledger": Check(
        "Every figure of the report, counted again by other statements, is what the ledger says.",
        "The check's page in Dagster has the run; `dlq reports build --day DAY` builds its day again.",
    ),
    "books_balance": Check(
        "Every event that ever died is in the outbox, in the archive, or delivered.",
        "`dlq dead-events show ID` tells the history of one; rows are gone that somebody else deleted or copied.",
    ),
    "archive_has_every_column": Check(
        "The archive table has every column of the outbox table.",
        "Nothing is archived until `alter table` gives it to the archive, with the same type.",
    ),
    "nothing_stays_too_long": Check(
        "No dead event is older than the retention and a day, unless a fix wants it.",
        "Its day is not exported completely: materialize it of `dead_event_export`, then `dlq archive run --dry-run`.",
    ),
}
