"""Deletes the files of exports past their retention.

A day is one transaction under the lock of its export. Its files are deleted first, the manifest
before the others, and then the day is recorded as deleted. A run that is killed in between leaves
the day as it was recorded, and the next run deletes the remaining files. Only names that the record
of the day has, and that an export of it writes, are deleted: other files in the folders stay.

The day still counts as exported, so its events may be archived: they were handed over, and the
retention of the files is a decision about the files. The place of the files is the one that
`DLQ_EXPORT_URI` names now. What an earlier value named is not looked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.exports.export import MANIFEST, list_possible_files
from dlq_pipelines.exports.target import Target, explain_storage_errors
from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class FilePurgeResult:
    """Number of days and of deleted files; of a dry run, what a real run would delete."""

    days: int
    files: int


def purge_export_files(
    connection: Connection,
    *,
    before: date,
    target: Target,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> FilePurgeResult:
    """Delete the files of exported days before a day. A day that is exported now is left.

    Args:
        connection: in autocommit mode.
        before: the first day whose files stay.
        target: where the days were exported to.
        audit: who deletes, and why.
        options: how the change runs.

    Raises:
        DlqError: the target cannot be written to.
    """
    days = files = 0
    for row in connection.run("export.expired_days", before=before, day=None).fetchall():
        with (
            explain_storage_errors(target, "Exports cannot be deleted from", "purge again"),
            connection.transaction(force_rollback=options.dry_run),
        ):
            day: date = row["day"]
            if not connection.fetch_one("export.lock_day", day=day)["locked"]:
                continue
            recorded = connection.run("export.expired_days", before=before, day=day).fetchone()
            if recorded is None:
                continue
            names = select_recorded_names(recorded["files"], list_possible_files(day))
            names.sort(key=lambda name: not name.endswith(MANIFEST))
            removed = remove_files(target, names, options)
            if not options.dry_run:
                for folder in {name.rpartition("/")[0] for name in names}:
                    target.remove_empty_folder(folder)
            connection.run("export.record_deleted", day=day, now=audit.now)
            filter_ = {"day": day.isoformat(), "files": removed}
            record_audit_entry(connection, "export.purge", filter_, audit=audit)
        days, files = days + 1, files + removed
        options.progress(days)
    return FilePurgeResult(days, files)


def select_recorded_names(files: Iterable[Mapping[str, Any]], possible: Iterable[str]) -> list[str]:
    """Return the names of a record that are names of its day: a record may have been edited."""
    names = {str(file["name"]) for file in files}
    return [name for name in possible if name in names]


def remove_files(target: Target, names: Iterable[str], options: RunOptions) -> int:
    """Delete the files that exist; return their number. A dry run only counts."""
    found = [name for name in names if target.has(name)]
    for name in found:
        if not options.dry_run:
            target.remove(name)
    return len(found)
