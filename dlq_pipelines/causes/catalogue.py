"""Lists the causes, and records what people change about them: merges, names, owners, notes, mutes.

A change sets columns of the cause and nothing else. A merged cause keeps its id, its deaths and its
rollup, and points to the cause that it is shown as. Merging millions of deaths is therefore one
small update, and undoing it is exact. The audit log keeps the values before and after each change.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from psycopg.rows import DictRow

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.causes.classify import MAX_DETAILS, DetailKey, extract_excerpt
from dlq_pipelines.causes.title import build_title
from dlq_pipelines.deployments import Deployment
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import build_merged_cause_error, build_unknown_cause_error
from dlq_pipelines.paging import decode_cursor, encode_cursor
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RedactTexts
from dlq_pipelines.validate import validate_positive, validate_storable

CauseTextColumn = Literal["name", "owner", "note"]
ProbeMode = Literal["on", "off", "default"]
_MAX_LENGTH: dict[CauseTextColumn, int] = {"name": 200, "owner": 200, "note": 10_000}
# A mute always ends: a permanent one is how failures are forgotten. A leap year, so that a year
# from any day is allowed.
MAX_MUTE = timedelta(days=366)
# Details that a list shows of each cause.
_LISTED_DETAILS = 5
_LISTED_CHANGES = 50
# Ids that the refusal of an ambiguous one names.
_NAMED_IDS = 4


@dataclass(frozen=True)
class CauseDetail:
    """What errors of a cause name, such as a missing key or a host.

    Attributes:
        detail: the name; `other` counts the details beyond the first 200.
        status: open, fixing, fixed or regressed.
        fixed_at: the time of the fix, of a detail that is fixed or regressed.
        deaths: all deaths that name it.
        dead: events that are dead now because of it.
    """

    detail: str
    status: str
    fixed_at: datetime | None
    first_seen: datetime
    last_seen: datetime
    deaths: int
    dead: int


@dataclass(frozen=True)
class Cause:
    """A class of failures with the same root cause.

    Attributes:
        status: open, fixing, fixed or regressed.
        fixed_at: the time of the fix, of a cause that is fixed or regressed.
        name: the name that people gave it; None: it has none.
        muted_until: no alert is sent for the cause before this time.
        probe: `on` or `off` overrides DLQ_PROBES for the cause; None: it applies.
        is_transient: such failures pass without a change of code or data.
        deaths: all deaths of the cause and its members, from the rollup.
        dead: events that are dead now because of it.
        members: the causes that are merged into it.
        deployment: the last one within the hour before the first death; None: none was noted.
        details: its details with most deaths, those of the members included: five in a list.
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
    probe: str | None
    is_transient: bool
    first_seen: datetime
    last_seen: datetime
    deaths: int
    dead: int
    members: tuple[str, ...]
    deployment: Deployment | None
    details: tuple[CauseDetail, ...]

    @property
    def title(self) -> str:
        """Its name, or else its exception type and template, with the detail that most name.

        By the events that are dead now: a detail that is fixed would mislead a person who looks
        for what to fix. Without any, by all deaths.
        """
        counts = [
            (detail.detail, detail.dead if self.dead else detail.deaths) for detail in self.details
        ]
        details = sorted(counts, key=lambda counted: -counted[1])[:1]
        return self.name or build_title(
            self.exception_type, self.template, details, deaths=self.dead or self.deaths
        )

    @property
    def beginning(self) -> str:
        """Which deployment its first death followed: `6 minutes after checkout v42`; else empty."""
        return self.deployment.describe_delay(self.first_seen) if self.deployment else ""

    @property
    def cursor(self) -> str:
        """The keyset cursor of the page that follows this cause."""
        return encode_cursor(self.dead, self.deaths, self.id)

    def state(self, now: datetime) -> str:
        """Return `muted` while the cause is muted, otherwise its status."""
        return "muted" if self.muted_until is not None and self.muted_until > now else self.status


@dataclass(frozen=True)
class CauseEdit:
    """The columns of one cause that a change sets, with their values before and after."""

    cause: str
    before: dict[str, str | None]
    after: dict[str, str | None]


@dataclass(frozen=True)
class CauseChange:
    """A change of one or more causes.

    Attributes:
        audit_id: the id of its audit entry, by which it can be undone; 0: nothing was changed.
        kind: cause.merge, cause.split, cause.name, cause.owner, cause.note, cause.mute,
            cause.probe or cause.undo.
        changes: one for each cause whose columns differ.
    """

    audit_id: int
    kind: str
    actor: str
    reason: str
    at: datetime
    changes: tuple[CauseEdit, ...]


@dataclass(frozen=True)
class CauseDescription:
    """A cause with all its details, its changes and a sample.

    Attributes:
        changes: what people changed, also merges into the cause, the latest first.
        sample: its latest error, both ends of a long one; None: the ledger has no death of it.
    """

    cause: Cause
    changes: list[CauseChange]
    sample: str | None


@dataclass(frozen=True)
class CauseFilter:
    """Which causes are listed; a None matches all of them.

    Attributes:
        now: the time at which a cause is muted.
        state: open, fixing, fixed, regressed or muted.
        owner: the owner, in any case.
        ids: the causes.
    """

    now: datetime
    state: str | None = None
    owner: str | None = None
    ids: frozenset[str] | None = None

    def matches(self, cause: Cause) -> bool:
        """Return whether a cause meets all that was given."""
        return (
            (self.state is None or cause.state(self.now) == self.state)
            and (self.owner is None or (cause.owner or "").lower() == self.owner.lower())
            and (self.ids is None or cause.id in self.ids)
        )


def list_causes(
    connection: Connection,
    *,
    limit: int = 50,
    after: str | None = None,
    wanted: CauseFilter | None = None,
) -> list[Cause]:
    """Return causes, those with most dead events now first, then by deaths.

    Args:
        connection: to the ledger.
        limit: 1 to 1,000 causes.
        after: the `cursor` of the last cause of the previous page. A cause whose figures change
            between two pages may appear twice or not at all; every other cause appears once.
        wanted: which causes; None: all.

    Raises:
        ValueError: the limit is out of range, or `after` is not a cursor.
    """
    return _fetch_causes(
        connection,
        limit=validate_positive("limit", limit, most=1000),
        after=after,
        ids=None if wanted is None or wanted.ids is None else sorted(wanted.ids),
        wanted=wanted,
    )


def get_causes(connection: Connection, cause_ids: Sequence[str]) -> dict[str, Cause]:
    """Return causes by their ids, with the figures of the causes that are merged into them.

    A cause that does not exist, or is merged into another one, is left out.
    """
    ids = list(cause_ids)
    found = _fetch_causes(connection, limit=len(ids), ids=ids, details=MAX_DETAILS + 1)
    return {cause.id: cause for cause in found}


def get_cause(connection: Connection, cause_id: str) -> Cause:
    """Return the cause with the figures of the causes that are merged into it.

    The id of a cause of an earlier version of the fingerprint points to its first successor.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is merged into another one, which the message names.
    """
    found = _fetch_causes(connection, limit=1, ids=[cause_id], details=MAX_DETAILS + 1)
    if found:
        return found[0]
    row = connection.run("cause.get", id=cause_id).fetchone()
    if row is None:
        raise build_unknown_cause_error(cause_id)
    if row["outdated"]:
        return get_cause(connection, row["merged_into"])
    raise build_merged_cause_error(cause_id, row["merged_into"])


def find_shown_cause_id(connection: Connection, cause_id: str) -> str:
    """Return the id of the cause that a cause is shown as: the one it is merged into, or its own.

    Raises:
        NotFoundError: the cause does not exist.
    """
    row = connection.run("cause.get", id=cause_id).fetchone()
    if row is None:
        raise build_unknown_cause_error(cause_id)
    return str(row["merged_into"] or cause_id)


def find_cause_id(connection: Connection, text: str) -> str:
    """Return the id of the only cause whose id is a text or begins with it.

    The version may be left out: `3f9a` finds `v2-3f9a0c6d2b7e4a51`. Another text is returned as it
    is: the operation that takes it says that there is no such cause.

    Raises:
        RefusedError: several ids begin with it.
    """
    wanted = text.strip()
    if not wanted:
        return text
    rows = connection.run("cause.starting_with", text=wanted, limit=_NAMED_IDS + 1)
    found = [row["id"] for row in rows]
    if wanted in found or not found:
        return wanted
    if len(found) > 1:
        more = " and others" if len(found) > _NAMED_IDS else ""
        raise RefusedError(
            f"The ids of several causes begin with {wanted!r}: {', '.join(found[:_NAMED_IDS])}"
            f"{more}.",
            "Write more of the id.",
        )
    return str(found[0])


def find_cause(connection: Connection, text: str) -> Cause:
    """Return the only cause whose id is a text or begins with it.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: several ids begin with it, or the cause is merged into another one.
    """
    return get_cause(connection, find_cause_id(connection, text))


def redact_causes(causes: Iterable[Cause], redact: RedactTexts) -> list[Cause]:
    """Return causes whose templates and details hide what they should, and so their titles."""
    return [
        replace(
            cause,
            template=redact([cause.template])[0],
            details=tuple(
                replace(detail, detail=shown)
                for detail, shown in zip(
                    cause.details, redact([detail.detail for detail in cause.details]), strict=True
                )
            ),
        )
        for cause in causes
    ]


def describe_cause(
    connection: Connection, cause_id: str, *, redact: RedactTexts = list
) -> CauseDescription:
    """Return a cause with all its details, its changes and a sample.

    Args:
        connection: to the ledger.
        cause_id: the cause.
        redact: hides parts of the sample. Template and details are shown as they are stored,
            because filters take them.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is merged into another one, which the message names.
    """
    cause = get_cause(connection, cause_id)
    latest = connection.run("cause.latest_error", ids=[cause.id, *cause.members]).fetchone()
    changes = connection.run("cause.list_changes", id=cause.id, limit=_LISTED_CHANGES)
    return CauseDescription(
        cause,
        changes=[_build_change(row) for row in changes],
        # Before the cut: a pattern may not match half of a secret.
        sample=None if latest is None else extract_excerpt(redact([latest["error"] or ""])[0]),
    )


def merge_causes(
    connection: Connection,
    cause_id: str,
    *,
    into: str,
    also: Sequence[str] = (),
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Show a cause, and the causes that are merged into it, as another cause.

    Args:
        connection: in autocommit mode.
        cause_id: the cause that becomes part of another one.
        into: the other one.
        also: further causes that become part of it. All are one change, which one undo undoes.
        audit: who makes the change, and why.
        options: how the change runs.

    Raises:
        NotFoundError: one of the causes does not exist; none is merged.
        RefusedError: one of the causes is merged into another cause, or has an open fix.
        ValueError: a cause would be merged into itself.
    """
    given = list(dict.fromkeys([cause_id, *also]))
    if into in given:
        raise ValueError(f"Cause {into} cannot be merged into itself.")
    with connection.transaction():
        rows = _lock_shown_causes(connection, [*given, into])
        _require_no_open_fix(connection, [*given, into])
        moving = [row for row in rows if not {row["id"], row["merged_into"]}.isdisjoint(given)]
        wanted = [(row, {"merged_into": into}) for row in moving]
        return _apply_change(connection, "cause.merge", wanted, audit, options)


def split_cause(
    connection: Connection,
    cause_id: str,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Show a merged cause on its own again.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is not merged, or the cause that it is merged into has an open fix.
    """
    with connection.transaction():
        row = _lock_cause(connection, cause_id)
        if row["merged_into"] is None:
            raise RefusedError(
                f"Cause {cause_id} is not merged into another one, so there is nothing to split."
            )
        _require_no_open_fix(connection, [row["merged_into"]])
        wanted = [(row, {"merged_into": None})]
        return _apply_change(connection, "cause.split", wanted, audit, options)


def set_cause_text(
    connection: Connection,
    cause_id: str,
    column: CauseTextColumn,
    text: str | None,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Set the name, the owner or the note of a cause. None and a blank text remove it.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is merged into another one.
        ValueError: PostgreSQL cannot store the text, or it is too long: name and owner have at most
            200 characters, a note 10,000.
    """
    value = validate_storable(column, (text or "").strip(), most=_MAX_LENGTH[column])
    return _change_shown_cause(
        connection, f"cause.{column}", cause_id, {column: value or None}, audit, options
    )


def mute_cause(
    connection: Connection,
    cause_id: str,
    until: datetime | None,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Send no alert for a cause until a time at most a year ahead; None unmutes it.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is merged into another one.
        ValueError: `until` has passed, or is more than a year ahead.
    """
    if until is not None and not audit.now < until <= audit.now + MAX_MUTE:
        raise ValueError(f"until must lie within the next year, not at {until:%Y-%m-%d %H:%M}.")
    after = {"muted_until": until.astimezone(UTC).isoformat() if until else None}
    return _change_shown_cause(connection, "cause.mute", cause_id, after, audit, options)


def set_cause_probe(
    connection: Connection,
    cause_id: str,
    mode: ProbeMode,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Release events of a cause as probes, or release none, whatever DLQ_PROBES says.

    Args:
        connection: in autocommit mode.
        cause_id: the cause. `on` also probes a cause that is not known to be transient.
        mode: `default` follows DLQ_PROBES, which probes transient causes only.
        audit: who makes the change, and why.
        options: how the change runs.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is merged into another one.
    """
    after: dict[str, str | None] = {"probe": None if mode == "default" else mode}
    return _change_shown_cause(connection, "cause.probe", cause_id, after, audit, options)


def undo_change(
    connection: Connection,
    audit_id: int,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> CauseChange:
    """Undo a change of causes. An undo can be undone.

    Raises:
        NotFoundError: no change of causes has that audit id.
        RefusedError: a later change set the same columns, which the message names; or a cause of an
            undone merge or split has an open fix.
    """
    with connection.transaction():
        row = connection.run(
            "cause.get_change", id=validate_positive("audit_id", audit_id)
        ).fetchone()
        if row is None:
            raise NotFoundError(
                f"Change {audit_id} does not exist, or it is not a change of a cause.",
                "`dlq causes show CAUSE` lists the changes of a cause.",
            )
        edits = _build_change(row).changes
        affected = _list_affected_causes(edits)
        rows = {row["id"]: row for row in connection.run("cause.lock", ids=affected)}
        _require_unchanged_since(rows, edits, audit_id)
        if any("merged_into" in edit.after for edit in edits):
            _require_no_chain(rows, edits, audit_id)
            _require_no_open_fix(connection, affected)
        wanted = [(rows[edit.cause], edit.before) for edit in edits]
        return _apply_change(connection, "cause.undo", wanted, audit, options)


def mark_regressed_causes(connection: Connection, *, now: datetime) -> tuple[str, ...]:
    """Mark fixed causes regressed if an event died of them that was written after the fix."""
    return tuple(row["id"] for row in connection.run("cause.mark_regressed", now=now))


def mark_regressed_details(connection: Connection, *, now: datetime) -> tuple[DetailKey, ...]:
    """Mark fixed details regressed if an event died of them that was written after the fix."""
    rows = connection.run("cause.mark_regressed_details", now=now)
    return tuple(DetailKey(row["cause_id"], row["detail"]) for row in rows)


def _fetch_causes(
    connection: Connection,
    *,
    limit: int,
    ids: list[str] | None = None,
    after: str | None = None,
    details: int = _LISTED_DETAILS,
    wanted: CauseFilter | None = None,
) -> list[Cause]:
    dead, deaths, last_id = (
        (None, None, None) if after is None else decode_cursor(after, int, int, str)
    )
    rows = connection.run(
        "cause.list",
        ids=ids,
        limit=limit,
        after_dead=dead,
        after_deaths=deaths,
        after_id=last_id,
        state=wanted and wanted.state,
        owner=wanted and wanted.owner,
        now=wanted and wanted.now,
    ).fetchall()
    by_cause: defaultdict[str, list[CauseDetail]] = defaultdict(list)
    for row in connection.run("cause.details", ids=[row["id"] for row in rows], limit=details):
        by_cause[row.pop("cause_id")].append(CauseDetail(**row))
    return [
        Cause(
            id=row["id"],
            exception_type=row["exception_type"],
            template=row["template"],
            status=row["status"],
            fixed_at=row["fixed_at"],
            name=row["name"],
            owner=row["owner"],
            note=row["note"],
            muted_until=row["muted_until"],
            probe=row["probe"],
            is_transient=row["is_transient"],
            first_seen=row["first_seen"],
            last_seen=row["last_seen"],
            deaths=row["deaths"],
            dead=row["dead"],
            members=tuple(row["members"]),
            deployment=Deployment.from_json(row["deployment"]),
            details=tuple(by_cause[row["id"]]),
        )
        for row in rows
    ]


def _build_change(row: DictRow) -> CauseChange:
    """Read a change from its audit entry."""
    edits = tuple(
        CauseEdit(edit["cause"], before=edit["before"], after=edit["after"])
        for edit in row["filter"]["changes"]
    )
    return CauseChange(row["id"], row["kind"], row["actor"], row["reason"], row["at"], edits)


def _change_shown_cause(
    connection: Connection,
    kind: str,
    cause_id: str,
    after: dict[str, str | None],
    audit: AuditContext,
    options: RunOptions,
) -> CauseChange:
    with connection.transaction():
        row = _lock_cause(connection, cause_id)
        if row["merged_into"] is not None:
            raise build_merged_cause_error(cause_id, row["merged_into"])
        return _apply_change(connection, kind, [(row, after)], audit, options)


def _apply_change(
    connection: Connection,
    kind: str,
    wanted: Iterable[tuple[DictRow, Mapping[str, str | None]]],
    audit: AuditContext,
    options: RunOptions,
) -> CauseChange:
    """Set the columns of each row, unless they are set already, and write the audit entry."""
    compared = [
        CauseEdit(row["id"], {key: _to_json_value(row[key]) for key in after}, dict(after))
        for row, after in wanted
    ]
    edits = tuple(edit for edit in compared if edit.before != edit.after)
    audit_id = 0
    if edits and not options.dry_run:
        for edit in edits:
            connection.run("cause.update", id=edit.cause, columns=json.dumps(edit.after))
        if any("merged_into" in edit.after for edit in edits):
            connection.run("cause.align_details", ids=_list_affected_causes(edits))
        changes = [asdict(edit) for edit in edits]
        audit_id = record_audit_entry(connection, kind, {"changes": changes}, audit=audit)
    return CauseChange(audit_id, kind, audit.actor, audit.reason, audit.now, edits)


def _lock_shown_causes(connection: Connection, ids: Sequence[str]) -> list[DictRow]:
    """Lock causes that are not merged, and the causes that are merged into them."""
    rows = connection.run("cause.lock", ids=list(ids)).fetchall()
    by_id = {row["id"]: row for row in rows}
    for cause_id in ids:
        if cause_id not in by_id:
            raise build_unknown_cause_error(cause_id)
        if (merged_into := by_id[cause_id]["merged_into"]) is not None:
            raise build_merged_cause_error(cause_id, merged_into)
    return rows


def _lock_cause(connection: Connection, cause_id: str) -> DictRow:
    """Lock a cause and the cause that it is merged into, so that no fix of that one is flagged."""
    rows = {row["id"]: row for row in connection.run("cause.lock", ids=[cause_id])}
    if cause_id not in rows:
        raise build_unknown_cause_error(cause_id)
    if rows[cause_id]["merged_into"] not in {None, *rows}:
        raise RefusedError(f"A concurrent change merged cause {cause_id}.", "Run it again.")
    return rows[cause_id]


def _require_unchanged_since(
    rows: Mapping[str, DictRow], edits: Iterable[CauseEdit], audit_id: int
) -> None:
    for edit in edits:
        row = rows[edit.cause]
        if any(_to_json_value(row[key]) != value for key, value in edit.after.items()):
            raise RefusedError(
                f"Cause {edit.cause} was changed again after change {audit_id}.",
                f"`dlq causes show {edit.cause}` lists its changes: undo the later one first.",
            )


def _require_no_chain(
    rows: Mapping[str, DictRow], edits: Iterable[CauseEdit], audit_id: int
) -> None:
    """No cause is merged into a merged cause, so one step finds the cause that is shown."""
    restored = {edit.cause: edit.before["merged_into"] for edit in edits}
    merged = {key: row["merged_into"] for key, row in rows.items()} | restored
    for cause, root in merged.items():
        if merged.get(root) is not None:
            later = root if cause in restored else cause
            raise RefusedError(
                f"Cause {later} was merged into {merged[later]} after change {audit_id}.",
                f"Run `dlq causes split {later}` first.",
            )


def _require_no_open_fix(connection: Connection, ids: Sequence[str]) -> None:
    """An open fix selects the deaths of its cause, which must not gain or lose any."""
    fix = connection.run("cause.active_fix", ids=list(ids)).fetchone()
    if fix is not None:
        raise RefusedError(
            f"Fix {fix['id']} for cause {fix['cause_id']} is open.",
            f"Wait until it ends, or run `dlq fixes withdraw {fix['id']}`.",
        )


def _list_affected_causes(edits: Iterable[CauseEdit]) -> list[str]:
    """Return every cause that gains or loses deaths when the edits are undone."""
    values = (
        value
        for edit in edits
        for value in (edit.cause, edit.before.get("merged_into"), edit.after.get("merged_into"))
    )
    return [value for value in values if value is not None]


def _to_json_value(value: str | datetime | None) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else value
