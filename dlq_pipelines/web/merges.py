"""Merges a cause into another one, and undoes changes of causes."""

from dlq_pipelines.causes.catalogue import (
    Cause,
    describe_cause,
    find_cause,
    find_cause_id,
    list_causes,
    merge_causes,
    redact_causes,
    undo_change,
)
from dlq_pipelines.causes.similar import find_similar_causes
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.installation import build_redact_errors
from dlq_pipelines.web.visit import (
    PageAnswer,
    PageVisit,
    build_path,
    describe_input_error,
    parse_whole_number,
)

# Causes with most dead events in which similar ones are searched.
COMPARED_CAUSES = 1_000


def list_similar_pairs(visit: PageVisit, cause_id: str) -> list[tuple[Cause, tuple[str, str]]]:
    """Return the causes that differ from a cause in one word: each with the words of both."""
    return [
        (pair.other, pair.differs)
        if pair.cause.id == cause_id
        else (pair.cause, pair.differs[::-1])
        for pair in find_similar_causes(list_causes(visit.connection, limit=COMPARED_CAUSES))
        if cause_id in {pair.cause.id, pair.other.id}
    ]


def show_merge_form(visit: PageVisit) -> PageAnswer:
    """Ask which cause to merge into, or show both with what the merge does."""
    cause = find_cause(visit.connection, visit.path["cause"])
    into = visit.get_text("into")
    if into is None:
        return _build_merge_page(visit, cause, None)
    try:
        return _build_merge_page(visit, cause, _get_other(visit, cause, into))
    except Exception as error:
        found = describe_input_error(error)
        if found is None:
            raise
        return _build_merge_page(visit, cause, None, error=found[1], status=found[0])


def merge_cause(visit: PageVisit) -> PageAnswer:
    """Merge a cause into another one, and go to that one."""
    cause = find_cause(visit.connection, visit.path["cause"])
    other = find_cause(visit.connection, visit.form.get("into", ""))
    try:
        audit = visit.sign(visit.form.get("reason", ""))
        merge_causes(visit.connection, cause.id, into=other.id, audit=audit)
    except Exception as error:
        found = describe_input_error(error)
        if found is None:
            raise
        return _build_merge_page(visit, cause, other, error=found[1], status=found[0])
    return PageAnswer(go_to=build_path("causes", other.id, merged=cause.id))


def _get_other(visit: PageVisit, cause: Cause, into: str) -> Cause:
    """Return the cause that a person named by its id or the beginning of it."""
    other = find_cause(visit.connection, into)
    if other.id == cause.id:
        raise ValueError("A cause cannot be merged into itself.")
    return other


def _build_merge_page(
    visit: PageVisit, cause: Cause, other: Cause | None, *, error: str = "", status: int = 200
) -> PageAnswer:
    redact = build_redact_errors(visit.settings)
    similar = [] if other else [found for found, _ in list_similar_pairs(visit, cause.id)]
    values = {
        "cause": redact_causes([cause], redact)[0],
        "other": redact_causes([other], redact)[0] if other else None,
        "similar": redact_causes(similar, redact),
        "into": visit.get_text("into") or "",
        "reason": visit.form.get("reason", ""),
        "error": error,
        "path": build_path("causes", cause.id),
    }
    return PageAnswer("merge_cause.html.j2", values, status)


def show_undo_form(visit: PageVisit) -> PageAnswer:
    """Show the form that undoes a change of a cause."""
    return _build_undo_form(visit, visit.query.get("change", ""))


def undo_cause_change(visit: PageVisit) -> PageAnswer:
    """Undo a change, and go to its cause."""
    given = visit.form.get("change", "")
    try:
        audit = visit.sign(visit.form.get("reason", ""))
        undo_change(visit.connection, parse_whole_number("change", given), audit=audit)
    except Exception as error:
        found = describe_input_error(error)
        if found is None:
            raise
        return _build_undo_form(visit, given, error=found[1], status=found[0])
    return PageAnswer(go_to=build_path("causes", visit.path["cause"], changed="yes"))


def _build_undo_form(
    visit: PageVisit, change_id: str, *, error: str = "", status: int = 200
) -> PageAnswer:
    cause_id = find_cause_id(visit.connection, visit.path["cause"])
    described = describe_cause(visit.connection, cause_id)
    cause = described.cause
    changes = {str(change.audit_id): change for change in described.changes}
    if change_id not in changes:
        raise NotFoundError(
            f"{change_id[:20]!r} is not one of the latest changes of this cause.",
            "The page of the cause lists its changes.",
        )
    values = {
        "cause": redact_causes([cause], build_redact_errors(visit.settings))[0],
        "change": changes[change_id],
        "reason": visit.form.get("reason", ""),
        "error": error,
        "path": build_path("causes", cause.id),
    }
    return PageAnswer("undo_change.html.j2", values, status)
