"""Which fixes are there, what became of what they released, and which of them want a step now?"""

from datetime import datetime

from psycopg.rows import DictRow

from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.operation import Act, record_operation
from dlq_pipelines.outbox.event import positive, required
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import Fix, FixStatus, RetryPolicy, Stage


def flag_fix(  # noqa: PLR0913 - keyword-only, each a part of the statement that a person makes
    connection: Connection,
    *,
    cause_id: str,
    note: str,
    actor: str,
    now: datetime,
    policy: RetryPolicy,
    event_type: str | None = None,
    run_id: str | None = None,
) -> Fix:
    """State that a cause is mended upstream. Targets its dead events that died before `now`.

    Raises:
        NotFoundError: no such cause.
        RefusedError: a fix for this cause is active already, or no dead event has this cause.
        ValueError: the note or the actor is blank.
    """
    act = Act(actor, required("note", note), now, run_id)
    with connection.transaction():
        cause = connection.run("fix.lock_cause", cause_id=cause_id).fetchone()
        if cause is None:
            raise NotFoundError(f"There is no cause {cause_id!r}. `dlq causes list` lists them.")
        if cause["merged_into"] is not None:
            raise RefusedError(f"Cause {cause_id} is merged into {cause['merged_into']}. Flag the fix for that one.")
        active = connection.run("fix.active_for_cause", cause_id=cause_id).fetchone()
        if active:
            raise RefusedError(f"Fix {active['id']} for cause {cause_id} is still active. See `dlq fixes list`.")
        targets = count_targets(connection, cause_id=cause_id, event_type=event_type, now=now)
        if not targets:
            raise RefusedError(f"No dead event has cause {cause_id} now, so a fix could not be proven on any.")
        row = connection.one(
            "fix.flag", cause_id=cause_id, event_type=event_type, note=note, actor=actor, now=now, **vars(policy)
        )
        connection.run("fix.set_cause_status", cause_id=cause_id, status="fixing", flagged_at=now)
        record_operation(connection, "fix.flag", {"fix": row["id"]}, act=act, events=targets)
        return fix_from_row(row)


def count_targets(connection: Connection, *, cause_id: str, event_type: str | None, now: datetime) -> int:
    """How many dead events a fix flagged now would target."""
    causes = targeted_causes(connection, cause_id)
    found = connection.one("fix.count_targets", cause_ids=causes, event_type=event_type, flagged_at=now)
    return int(found["events"])


def targeted_causes(connection: Connection, cause_id: str) -> list[str]:
    """The cause and what is merged into it."""
    return [row["id"] for row in connection.run("fix.causes", cause_id=cause_id)]


def get_fix(connection: Connection, fix_id: int) -> Fix:
    """The fix of that id.

    Raises:
        NotFoundError: there is none.
    """
    row = connection.run("fix.get", fix_id=positive("fix_id", fix_id)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no fix {fix_id}. `dlq fixes list` lists them.")
    return fix_from_row(row)


def list_fixes(connection: Connection, *, limit: int = 100) -> list[Fix]:
    """Fixes, the last flagged first."""
    return [fix_from_row(row) for row in connection.run("fix.list", limit=positive("limit", limit, most=1000))]


def fixes_due(connection: Connection, *, now: datetime, limit: int = 20) -> list[Fix]:
    """Active fixes for which there is something to do: to begin, to go on releasing, or to decide on outcomes."""
    return [fix_from_row(row) for row in connection.run("fix.due", now=now, limit=limit)]


def stages(connection: Connection, fix_id: int) -> dict[int, Stage]:
    """Outcomes of each stage of the fix, by its number."""
    rows = connection.run("retry.stages", fix_id=fix_id)
    return {row.pop("stage"): Stage(**row) for row in rows}


def fix_from_row(row: DictRow) -> Fix:
    """Build from a row of `dlq.fix`."""
    return Fix(
        id=row["id"],
        cause_id=row["cause_id"],
        event_type=row["event_type"],
        note=row["note"],
        flagged_by=row["flagged_by"],
        flagged_at=row["flagged_at"],
        policy=RetryPolicy(row["canary"], row["rate"], row["min_success"], row["settle_seconds"]),
        stage=row["stage"],
        stage_size=row["stage_size"],
        status=FixStatus(row["status"]),
        verdict=row["verdict"],
        closed_at=row["closed_at"],
    )
