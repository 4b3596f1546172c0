"""Changes what people decide about causes and alerts: name, owner, note, mutes and silences."""

from collections.abc import Mapping
from datetime import timedelta

from dlq_pipelines.alerts.alert import MAX_SILENCE, Alert, get_alert, silence_alert
from dlq_pipelines.causes.catalogue import (
    MAX_MUTE,
    Cause,
    CauseTextColumn,
    find_cause,
    mute_cause,
    redact_causes,
    set_cause_text,
)
from dlq_pipelines.installation import build_redact_errors
from dlq_pipelines.web.visit import (
    PageAnswer,
    PageVisit,
    build_path,
    describe_input_error,
    parse_whole_number,
)

_MOST_HOURS = MAX_SILENCE // timedelta(hours=1)
_TEXTS: tuple[CauseTextColumn, ...] = ("name", "owner", "note")


def show_cause_form(visit: PageVisit) -> PageAnswer:
    """Show the form that changes name, owner, note and mute of a cause."""
    cause = find_cause(visit.connection, visit.path["cause"])
    return _build_cause_form(visit, cause, _list_texts(cause))


def _list_texts(cause: Cause) -> dict[CauseTextColumn, str]:
    return {"name": cause.name or "", "owner": cause.owner or "", "note": cause.note or ""}


def _read_texts(visit: PageVisit, prefix: str) -> dict[CauseTextColumn, str]:
    """Return the texts of a form; a browser ends a line with two characters."""
    return {name: visit.form.get(f"{prefix}{name}", "").replace("\r\n", "\n") for name in _TEXTS}


def edit_cause(visit: PageVisit) -> PageAnswer:
    """Change what the person changed. All changes are made, or none; each has its audit entry.

    A text that the form showed and that stayed as it was is not written: somebody else may have
    changed it meanwhile.
    """
    cause = find_cause(visit.connection, visit.path["cause"])
    given = _read_texts(visit, "")
    shown = _read_texts(visit, "shown_")
    days = visit.form.get("days", "").strip()
    try:
        audit = visit.sign(visit.form.get("reason", ""))
        with visit.connection.transaction():
            for name in (name for name in _TEXTS if given[name] != shown[name]):
                set_cause_text(visit.connection, cause.id, name, given[name], audit=audit)
            if days:
                ahead = timedelta(days=_parse_number("days", days, most=MAX_MUTE.days))
                until = audit.now + ahead if ahead else None
                mute_cause(visit.connection, cause.id, until, audit=audit)
    except Exception as error:
        found = describe_input_error(error)
        if found is None:
            raise
        return _build_cause_form(visit, cause, given, error=found[1], status=found[0])
    return PageAnswer(go_to=build_path("causes", cause.id, changed="yes"))


def _build_cause_form(
    visit: PageVisit,
    cause: Cause,
    given: Mapping[CauseTextColumn, str],
    *,
    error: str = "",
    status: int = 200,
) -> PageAnswer:
    (shown,) = redact_causes([cause], build_redact_errors(visit.settings))
    values = {
        "cause": shown,
        "given": given,
        "shown": _read_texts(visit, "shown_") if visit.form else given,
        "days": visit.form.get("days", ""),
        "reason": visit.form.get("reason", ""),
        "muted_until": cause.muted_until if cause.state(visit.now) == "muted" else None,
        "error": error,
        "path": build_path("causes", cause.id),
    }
    return PageAnswer("edit_cause.html.j2", values, status)


def show_silence_form(visit: PageVisit) -> PageAnswer:
    """Show the form that silences an alert."""
    return _build_silence_form(visit, get_alert(visit.connection, visit.query.get("key", "")))


def change_silence(visit: PageVisit) -> PageAnswer:
    """Silence an alert for some hours; 0 ends the silence."""
    alert = get_alert(visit.connection, visit.form.get("key", ""))
    try:
        audit = visit.sign(visit.form.get("reason", ""))
        hours = visit.form.get("hours", "").strip()
        ahead = timedelta(hours=_parse_number("hours", hours, most=_MOST_HOURS))
        until = audit.now + ahead if ahead else None
        silence_alert(visit.connection, alert.key, until, audit=audit)
    except Exception as error:
        found = describe_input_error(error)
        if found is None:
            raise
        return _build_silence_form(visit, alert, error=found[1], status=found[0])
    return PageAnswer(go_to="/alerts")


def _build_silence_form(
    visit: PageVisit, alert: Alert, *, error: str = "", status: int = 200
) -> PageAnswer:
    values = {
        "alert": alert,
        "hours": visit.form.get("hours", "8"),
        "reason": visit.form.get("reason", ""),
        "error": error,
    }
    return PageAnswer("silence.html.j2", values, status)


def _parse_number(name: str, text: str, *, most: int) -> int:
    number = parse_whole_number(name, text)
    if number > most:
        raise ValueError(f"{name} must be from 0 to {most}, not {number}.")
    return number
