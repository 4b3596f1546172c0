"""What does each check promise, what does it mean that one fails, and what is to be done then?

Dagster shows all three as the check's description; the alert of a check that failed says the promise and what to do.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckDescription:
    """A check of the books: its promise, what a failure means, and the next thing to do. A sentence each, or two."""

    promise: str
    failure: str
    next: str


# What of the backlog is worth telling, without what is muted, is for the rule `backlog` to say.
CHECKS_WITH_OWN_RULE = "backlog_is_small"
CHECK_DESCRIPTIONS = {
    CHECKS_WITH_OWN_RULE: CheckDescription(
        "No more events are dead than `DLQ_BACKLOG_WARN`; more than `DLQ_BACKLOG_ERROR` are an error.",
        "Events die faster than people mend what they die of.",
        "`dlq causes list` says why they died. Mend the cause with the most dead events and flag its fix.",
    ),
    "rollup_matches_ledger": CheckDescription(
        "Every classified death is counted once in the daily rollup.",
        "Reports of past days and metrics are wrong by the difference that the figures show: somebody else wrote to "
        "the ledger or to its counts.",
        "The ledger `dlq.death` is right. `dlq doctor` looks at the schema's tables, triggers and rights; restore "
        "`dlq.cause_day` and `dlq.death_count` from a backup or from the ledger.",
    ),
    "stages_match_ledger": CheckDescription(
        "The counted outcomes of every stage are those of its retries.",
        "A fix was or will be judged on counts that are not the ledger's: somebody else wrote to `dlq.fix_stage` or "
        "`dlq.retry`.",
        "`dlq fixes pause` the fixes that are named while they are open, and correct `dlq.fix_stage` by `dlq.retry`.",
    ),
    "export_is_complete": CheckDescription(
        "The files, read again, have the sums of the manifest, and a row for each death of the ledger.",
        "A file was damaged on its way, a replica lagged behind, or a death was recorded late. The archive keeps the "
        "day's events until its export is whole.",
        "Materialize those days of `dead_event_export` in Dagster again. Where that fails too, look at the target, or "
        "unset `DLQ_EXPORT_DATABASE_URL` until the replica has caught up.",
    ),
    "report_equals_ledger": CheckDescription(
        "The report has as many deaths, events and causes as the ledger has on that day.",
        "A death of the day was recorded while the report was built, or another process changed "
        "the ledger.",
        "`dlq reports build --day DAY` builds the report again. If the totals still differ, run "
        "`dlq doctor`.",
    ),
    "books_balance": CheckDescription(
        "Every event that ever died is in the outbox, in the archive, or delivered.",
        "Events are lost or doubled: something other than this project deleted or copied rows.",
        "`dlq dead-events show ID` tells the history of one. Stop `purge_weekly`, and bring missing rows back from a "
        "backup or from the day's export.",
    ),
    "archive_has_every_column": CheckDescription(
        "The archive table has every column of the outbox table.",
        "The application added or changed a column. Nothing is archived, because events would lose it.",
        "Add the columns that are named to the archive table with `alter table`, nullable and of the same type.",
    ),
    "nothing_stays_too_long": CheckDescription(
        "No dead event is older than the retention and a day, unless a fix wants it.",
        "The archive did not run, or days are not exported completely. Nothing is lost.",
        "Materialize those days of `dead_event_export` in Dagster, then `dlq archive run --dry-run`.",
    ),
}
