"""Which causes are known, what do people say of them, and how is that taken back?

What a person does to a cause changes columns of its row and nothing else: a merged cause keeps its id, its deaths and
its rollup and only points to the cause that it is shown as. So a merge of millions of deaths is one small update, and
taking it back is exact. Each change is kept with the values before and after it, which is what `undo` needs.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from psycopg.rows import DictRow

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.causes.fingerprint import compute_fingerprint
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import build_merged_cause_error, build_unknown_cause_error
from dlq_pipelines.paging import decode_cursor, encode_cursor
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.validate import validate_positive

CauseTextColumn = Literal["name", "owner", "note"]
_LONGEST: dict[CauseTextColumn, int] = {"name": 200, "owner": 200, "note": 10_000}
# A leap year's, so that a year from any day is within it.
MAX_MUTE = timedelta(days=366)
# Deaths whose errors are read for a cause's details.
_DETAILED = 1_000


@dataclass(frozen=True)
class Cause:
    """A class of failures with one root, as it is shown.

    Attributes:
        status: open, fixing, fixed or regressed.
        fixed_at: since when events met the mended upstream, of a cause that was fixed.
        name: what people call it; None: they have not said.
        muted_until: until then nobody is told of it.
        deaths: all deaths of it and of its members, in the ledger's rollup.
        dead: events that are dead of it in the outbox now.
        members: causes that were merged into it.
    """

    id: str
    exception_type: str
    template: str
    status: str
    fixed_at: datetime | None
    name: str | None
    owner: str | None
    note: str | None
    muted_until: datetime | None
    first_seen: datetime
    last_seen: datetime
    deaths: int
    dead: int
    members: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its name, or exception type and template in one line."""
        return self.name or ": ".join(part for part in (self.exception_type, self.template) if part)

    @property
    def key(self) -> str:
        """Where the page of a list ends of which it is the last."""
        return encode_cursor(self.dead, self.deaths, self.id)

    def state(self, now: datetime) -> str:
        """`muted` while it is, otherwise its status."""
        return "muted" if self.muted_until is not None and self.muted_until > now else self.status


@dataclass(frozen=True)
class CauseChange:
    """Something that was done to causes: which columns of which cause, from what, to what.

    Attributes:
        operation: its number, for `undo`; of a change that is only planned: 0.
        kind: cause.merge, cause.split, cause.name, cause.owner, cause.note, cause.mute or cause.undo.
        changes: objects with `cause`, `before`, `after`.
    """

    operation: int
    kind: str
    actor: str
    reason: str
    at: datetime
    changes: tuple[dict[str, Any], ...]


def list_causes(
    connection: Connection, *, limit: int = 50, after: str | None = None
) -> list[Cause]:
    """Causes, those with most dead events now first, then by deaths.

    Args:
        connection: to the ledger.
        limit: how many at most, 1 to 1,000.
        after: `key` of the last one of the page before. A cause whose figures change meanwhile may be missed or be met
            twice; every other one is met once.

    Raises:
        ValueError: a limit out of its bounds, or `after` is no key.
    """
    asked = {"id": None, "limit": validate_positive("limit", limit, most=1000)}
    return [_cause(row) for row in connection.run("cause.list", **asked, **_behind(after))]


def get_cause(connection: Connection, cause_id: str) -> Cause:
    """The cause as it is shown.

    Raises:
        NotFoundError: there is none of that id.
        RefusedError: it was merged into another, which the message names.
    """
    row = connection.run("cause.list", id=cause_id, limit=1, **_behind(None)).fetchone()
    if row is not None:
        return _cause(row)
    merged = connection.run("cause.get", id=cause_id).fetchone()
    raise (
        build_unknown_cause_error(cause_id)
        if merged is None
        else build_merged_cause_error(cause_id, merged["merged_into"])
    )


@dataclass(frozen=True)
class CauseDescription:
    """All of a cause that fits on a screen.

    Attributes:
        details: what of the schema its latest deaths name, such as a constraint or a missing key, by distinct texts.
        changes: what people did to it, the last first.
        sample: one of its errors.
    """

    cause: Cause
    details: dict[str, int]
    changes: list[CauseChange]
    sample: str


def describe_cause(connection: Connection, cause_id: str) -> CauseDescription:
    """All of a cause that fits on a screen.

    Raises:
        NotFoundError: there is none of that id.
        RefusedError: it was merged into another, which the message names.
    """
    cause = get_cause(connection, cause_id)
    texts = connection.run(
        "cause.list_latest_errors", ids=[cause.id, *cause.members], limit=_DETAILED
    )
    details = Counter(compute_fingerprint(row["error"]).detail for row in texts)
    details.pop("", None)
    sample = connection.fetch_one("cause.get", id=cause_id)["sample"]
    return CauseDescription(
        cause, dict(details.most_common(20)), list_changes(connection, cause_id), sample
    )


def list_changes(connection: Connection, cause_id: str, *, limit: int = 50) -> list[CauseChange]:
    """What was done to the cause, the last first."""
    rows = connection.run(
        "cause.list_changes", id=cause_id, limit=validate_positive("limit", limit, most=1000)
    )
    return [_change(row) for row in rows]


def merge_causes(
    connection: Connection,
    cause_id: str,
    *,
    into: str,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Show a cause, and what was merged into it before, as another one.

    Raises:
        NotFoundError: one of the two does not exist.
        RefusedError: one of the two is merged already, or has a fix under way, whose targets would change.
        ValueError: both are the same.
    """
    if cause_id == into:
        raise ValueError(f"{cause_id} cannot be merged into itself.")
    with connection.transaction():
        rows = _lock(connection, [cause_id, into])
        _refuse_active(connection, [cause_id, into])
        moving = [row for row in rows if row["id"] == cause_id or row["merged_into"] == cause_id]
        return _apply(
            connection,
            "cause.merge",
            [(row, {"merged_into": into}) for row in moving],
            audit,
            options,
        )


def split_cause(
    connection: Connection,
    cause_id: str,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Show a merged cause on its own again.

    Raises:
        NotFoundError: there is none of that id.
        RefusedError: it is not merged, or what it is merged into has a fix under way.
    """
    with connection.transaction():
        row = _row(connection, cause_id)
        if row["merged_into"] is None:
            raise RefusedError(
                f"Cause {cause_id} is not merged into another, so there is nothing to split."
            )
        _refuse_active(connection, [row["merged_into"]])
        return _apply(connection, "cause.split", [(row, {"merged_into": None})], audit, options)


def set_cause_text(
    connection: Connection,
    cause_id: str,
    what: CauseTextColumn,
    text: str | None,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Say something of a cause: its name, its owner, or a note. Nothing takes it away.

    Raises:
        NotFoundError: there is none of that id.
        RefusedError: it is merged into another.
        ValueError: the text is longer than what is kept (name and owner 200 characters, note 10,000).
    """
    said = (text or "").strip()
    if len(said) > _LONGEST[what]:
        raise ValueError(f"{what} has {len(said)} characters, at most {_LONGEST[what]} are kept.")
    return _write(connection, f"cause.{what}", cause_id, {what: said or None}, audit, options)


def mute_cause(
    connection: Connection,
    cause_id: str,
    until: datetime | None,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Tell nobody of a cause until that moment, at most a year ahead; None ends it.

    Raises:
        ValueError: `until` has passed, or is more than a year ahead.
    """
    if until is not None and not audit.now < until <= audit.now + MAX_MUTE:
        raise ValueError(f"until must lie within the next year, {until:%Y-%m-%d %H:%M} does not.")
    after = {"muted_until": until.astimezone(UTC).isoformat() if until else None}
    return _write(connection, "cause.mute", cause_id, after, audit, options)


def undo_change(
    connection: Connection,
    operation: int,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Take back what an operation did to causes. An undo can be undone.

    Raises:
        NotFoundError: there is no such operation on causes.
        RefusedError: what it changed was changed again since: the message names the cause.
    """
    with connection.transaction():
        found = connection.run(
            "cause.get_change", id=validate_positive("operation", operation)
        ).fetchone()
        if found is None:
            raise NotFoundError(
                f"No operation {operation} changed a cause. `dlq causes show CAUSE` lists its changes."
            )
        changes = _change(found).changes
        rows = {
            row["id"]: row
            for row in connection.run(
                "cause.lock", ids=[key for one in changes for key in _roots(one)]
            )
        }
        for one in changes:
            if any(_plain(rows[one["cause"]][key]) != value for key, value in one["after"].items()):
                raise RefusedError(
                    f"Cause {one['cause']} was changed again after operation {operation}. "
                    f"`dlq causes show {one['cause']}` lists its changes: undo the later one first."
                )
        if any("merged_into" in one["after"] for one in changes):
            _refuse_chain(rows, changes, operation)
            _refuse_active(connection, [root for one in changes for root in _roots(one)])
        return _apply(
            connection,
            "cause.undo",
            [(rows[one["cause"]], one["before"]) for one in changes],
            audit,
            options,
        )


def mark_regressed_causes(connection: Connection, *, now: datetime) -> tuple[str, ...]:
    """Turn fixed causes regressed of which an event died that was first attempted after the fix; returns which."""
    return tuple(row["id"] for row in connection.run("cause.mark_regressed", now=now))


def _write(
    connection: Connection,
    kind: str,
    cause_id: str,
    after: dict[str, str | None],
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Change columns of a cause that is shown."""
    with connection.transaction():
        row = _row(connection, cause_id)
        if row["merged_into"] is not None:
            raise build_merged_cause_error(cause_id, row["merged_into"])
        return _apply(connection, kind, [(row, after)], audit, options)


def _apply(
    connection: Connection,
    kind: str,
    changes: Sequence[tuple[DictRow, dict[str, Any]]],
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Write the columns that differ, and the audit row with the values before and after."""
    told = [
        {"cause": row["id"], "before": {key: _plain(row[key]) for key in after}, "after": after}
        for row, after in changes
        if any(_plain(row[key]) != value for key, value in after.items())
    ]
    if options.dry_run or not told:
        return CauseChange(0, kind, audit.actor, audit.reason, audit.now, tuple(told))
    for one in told:
        connection.run("cause.update", id=one["cause"], columns=json.dumps(one["after"]))
    operation = record_audit_entry(connection, kind, {"changes": told}, audit=audit)
    return CauseChange(operation, kind, audit.actor, audit.reason, audit.now, tuple(told))


def _lock(connection: Connection, ids: Sequence[str]) -> list[DictRow]:
    """The rows of causes that are shown, and of what was merged into them, locked."""
    rows = connection.run("cause.lock", ids=list(ids)).fetchall()
    by_id = {row["id"]: row for row in rows}
    for one in ids:
        if one not in by_id:
            raise build_unknown_cause_error(one)
        if by_id[one]["merged_into"] is not None:
            raise build_merged_cause_error(one, by_id[one]["merged_into"])
    return rows


def _row(connection: Connection, cause_id: str) -> DictRow:
    """The cause, locked with the one that it is shown as, so that no fix of that is flagged meanwhile."""
    rows = {row["id"]: row for row in connection.run("cause.lock", ids=[cause_id])}
    if cause_id not in rows:
        raise build_unknown_cause_error(cause_id)
    if rows[cause_id]["merged_into"] not in {None, *rows}:
        raise RefusedError(
            f"Cause {cause_id} was merged by somebody else in this moment. Ask again."
        )
    return rows[cause_id]


def _refuse_chain(
    rows: dict[str, DictRow], changes: Sequence[dict[str, Any]], operation: int
) -> None:
    """One step leads to the cause that is shown: nothing is merged into what is merged itself."""
    back = {one["cause"]: one["before"]["merged_into"] for one in changes}
    merged = {key: row["merged_into"] for key, row in rows.items()} | back
    for cause, root in merged.items():
        if merged.get(root) is not None:
            later = root if cause in back else cause
            raise RefusedError(
                f"Cause {later} was merged into {merged[later]} after operation {operation}. "
                f"Show it on its own first: `dlq causes split {later}`."
            )


def _refuse_active(connection: Connection, ids: Sequence[str]) -> None:
    """A fix under way targets the deaths of its cause as it is: it must end before the cause grows or shrinks."""
    fix = connection.run("cause.active_fix", ids=list(ids)).fetchone()
    if fix is not None:
        raise RefusedError(
            f"Fix {fix['id']} for cause {fix['cause_id']} is under way. Wait for its end, or `dlq fixes withdraw "
            f"{fix['id']}`."
        )


def _roots(change: dict[str, Any]) -> list[str]:
    """Every cause whose targets grow or shrink when a merge or a split is taken back."""
    values = (
        change["cause"],
        change["before"].get("merged_into"),
        change["after"].get("merged_into"),
    )
    return [value for value in values if value is not None]


def _plain(value: Any) -> Any:
    """A column's value as JSON holds it."""
    return value.isoformat() if isinstance(value, datetime) else value


def _behind(after: str | None) -> dict[str, Any]:
    names = ("after_dead", "after_deaths", "after_id")
    return (
        dict.fromkeys(names)
        if after is None
        else dict(zip(names, decode_cursor(after, int, int, str), strict=True))
    )


def _cause(row: DictRow) -> Cause:
    return Cause(**row | {"members": tuple(row["members"])})


def _change(row: DictRow) -> CauseChange:
    return CauseChange(
        row["id"],
        row["kind"],
        row["actor"],
        row["reason"],
        row["at"],
        tuple(row["filter"]["changes"]),
    )
