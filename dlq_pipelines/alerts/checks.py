"""Describes each asset check: what it promises, what a failure means, and what to do next.

Dagster shows all three as the description of the check. The alert of a failed check shows the
promise and the next step.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckDescription:
    """The promise of a check, the meaning of a failure, and the next step;

    one or two sentences each.
    """

    promise: str
    failure: str
    next: str


# The alert rule `backlog` reports this check, because it leaves out muted causes.
CHECKS_WITH_OWN_RULE = "backlog_is_small"
CHECK_DESCRIPTIONS = {
    CHECKS_WITH_OWN_RULE: CheckDescription(
        "At most `DLQ_BACKLOG_WARN` events are dead; more than `DLQ_BACKLOG_ERROR` are an error.",
        "Events die faster than their causes are resolved.",
        "`dlq causes list` shows why they died. Resolve the cause with the most dead events and "
        "flag a fix.",
    ),
    "rollup_matches_ledger": CheckDescription(
        "The daily rollup and the details count every classified death once.",
        "Reports of past days and metrics are wrong by the difference that the figures show: "
        "another program wrote to the ledger or to its counts.",
        "The ledger `dlq.death` is authoritative. Check tables, triggers and rights with `dlq "
        "doctor`, and restore `dlq.cause_day`, `dlq.cause_detail` and `dlq.death_count` from a "
        "backup or from the ledger.",
    ),
    "stages_match_ledger": CheckDescription(
        "The counted outcomes of every stage equal the outcomes of its retries.",
        "The verdict of a fix rests on wrong counts: another program wrote to the counts of a "
        "stage or to `dlq.retry`.",
        "Pause the named fixes with `dlq fixes pause`, and correct the counts from `dlq.retry`.",
    ),
    "export_is_complete": CheckDescription(
        "The files have the checksums of the manifest and one row for each death of the day.",
        "A file was damaged, a replica lagged behind, or a death was recorded late. The archive "
        "keeps the events of the day in the outbox until the export is complete.",
        "Materialize those days of `dead_event_export` again. If that fails too, check the "
        "target, or unset `DLQ_EXPORT_DATABASE_URL` until the replica has caught up.",
    ),
    "export_is_current": CheckDescription(
        "Two hours after the schedule the day before has a complete export.",
        "The export of the last day did not run, was refused, or lacks a death. The archive keeps "
        "the events of that day in the outbox.",
        "Look at the last runs of `export_day`, and materialize the day of `dead_event_export`.",
    ),
    "report_is_current": CheckDescription(
        "Two hours after the schedule the day before has a report.",
        "The report of the last day did not run or was refused.",
        "Look at the last runs of `build_report`, and materialize the day of `failure_report`.",
    ),
    "report_equals_ledger": CheckDescription(
        "The report has as many deaths, events and causes as the ledger has on that day.",
        "A death of the day was recorded while the report was built, or another process changed "
        "the ledger.",
        "`dlq reports build --day DAY` builds the report again. If the totals still differ, run "
        "`dlq doctor`.",
    ),
    "no_event_is_missing": CheckDescription(
        "Every event that ever died is in the outbox, in the archive, or delivered, and every "
        "death was recorded by a trigger.",
        "Events are missing or duplicated: another program deleted or copied rows. Or deaths were "
        "missed: the triggers of the outbox table were disabled or dropped. The reconciliation "
        "has recorded those deaths.",
        "`dlq dead-events show ID` shows the history of an event. Stop `purge_weekly`, and "
        "restore missing rows from a backup or from the export of the day. If deaths were missed, "
        "run `dlq doctor`, which names disabled triggers.",
    ),
    "archive_has_every_column": CheckDescription(
        "The archive has every column of the outbox table.",
        "The application added or changed a column. Nothing is archived, because events would "
        "lose that column.",
        "`dlq migrate` adds new columns to `dlq.archived`. For a changed type, run the statement "
        "that the error of `dlq archive run` names.",
    ),
    "nothing_stays_too_long": CheckDescription(
        "No dead event is older than the retention and a day, unless an open fix targets it.",
        "The archive did not run, or days are not exported completely. No event is lost.",
        "Materialize those days of `dead_event_export`, then run `dlq archive run --dry-run`.",
    ),
}
