"""Deletes the files of reports past their retention.

A day is one transaction under the lock of publishing, as in `exports/purge.py`: the files, then the
record, and the list of reports. The page of the day becomes the page of a missing report while the
report of the next day links to it, and is deleted with that report.
"""

from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.exports.purge import FilePurgeResult, remove_files, select_recorded_names
from dlq_pipelines.exports.target import Target, explain_storage_errors
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.publish import get_report_file_name, put_index, put_missing_page

_SUFFIXES = ("json", "md", "html")
_DAY = timedelta(days=1)


def purge_report_files(
    connection: Connection,
    *,
    before: date,
    zone: ZoneInfo,
    target: Target,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> FilePurgeResult:
    """Delete the files of reports of days before a day.

    Args:
        connection: in autocommit mode.
        before: the first day whose report stays.
        zone: the time zone of the list of reports.
        target: where the reports are.
        audit: who deletes, and why.
        options: how the change runs.

    Raises:
        DlqError: the target cannot be written to.
    """
    days = files = 0
    for row in connection.run("report.expired_days", before=before, day=None).fetchall():
        with (
            explain_storage_errors(target, "Reports cannot be deleted from", "purge again"),
            connection.transaction(force_rollback=options.dry_run),
        ):
            day: date = row["day"]
            connection.run("report.lock_publishing")
            recorded = connection.run("report.expired_days", before=before, day=day).fetchone()
            if recorded is None:
                continue
            possible = [get_report_file_name(day, suffix) for suffix in _SUFFIXES]
            names = select_recorded_names(recorded["files"], possible)
            removed = remove_files(target, names, options)
            connection.run("report.record_deleted", day=day, now=audit.now)
            connection.run("report.delete_explanations", day=day)
            filter_ = {"day": day.isoformat(), "files": removed}
            record_audit_entry(connection, "report.purge", filter_, audit=audit)
            if not options.dry_run:
                with target.unfinished(".report-") as staging:
                    _update_links(connection, target, staging, day, zone)
        days, files = days + 1, files + removed
        options.progress(days)
    return FilePurgeResult(days, files)


def _update_links(
    connection: Connection, target: Target, staging: Path, day: date, zone: ZoneInfo
) -> None:
    """Leave no link to a page that is gone, and no page without a link to it."""
    if connection.fetch_one("report.is_deleted", day=day - _DAY)["is_deleted"]:
        target.remove(get_report_file_name(day - _DAY))
    if connection.fetch_one("report.is_recorded", day=day + _DAY)["is_recorded"]:
        put_missing_page(target, staging, day, zone)
    put_index(connection, target, staging, zone)
