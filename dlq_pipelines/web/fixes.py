"""Lists and shows fixes, steers them, and flags one after a preview."""

from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Any

from markupsafe import Markup

from dlq_pipelines.audit import CONFIRM_ABOVE
from dlq_pipelines.causes.catalogue import find_cause_id
from dlq_pipelines.day import convert_to_zone
from dlq_pipelines.deployments import get_deployment
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.installation import build_fix_terms, build_redact_errors
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.reports.timeline import draw_fix_timeline
from dlq_pipelines.retries.advance import pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import Fix, FixStatus
from dlq_pipelines.retries.fixes import (
    FixFlag,
    FixPreview,
    FixProgress,
    FlagInput,
    build_flag,
    flag_fix,
    get_fix,
    get_fix_progress,
    list_fixes,
    preview_fix,
    validate_note,
)
from dlq_pipelines.retries.recall import STOPPED, recall_fix
from dlq_pipelines.retries.timeline import read_fix_timeline
from dlq_pipelines.web.render import build_shown_error
from dlq_pipelines.web.visit import (
    PageAnswer,
    PageVisit,
    build_path,
    describe_input_error,
    parse_whole_number,
)

_LISTED = 50
_REFRESH_SECONDS = 10
_SHOWN_EVIDENCE = 5
_FILTERS = ("cause", "detail", "where", "event_type", "aggregate_type", "aggregate_id")
_FIELDS = (*_FILTERS, "note", "link", "owner", "deployment", "canary", "rate")


@dataclass(frozen=True)
class FixAction:
    """What a person can do with a fix.

    Attributes:
        name: the last part of its path.
        title: its heading.
        effect: what it does, in a sentence.
        done: what the page of the fix says afterwards.
        states: the states of a fix in which it is offered.
        run: does it.
    """

    name: str
    title: str
    effect: str
    done: str
    states: frozenset[FixStatus]
    run: Callable[..., object]


ACTIONS = {
    action.name: action
    for action in (
        FixAction(
            "pause",
            "Pause",
            "No further event is released. What no worker has taken is recalled.",
            "The fix is paused.",
            frozenset({FixStatus.ACTIVE}),
            pause_fix,
        ),
        FixAction(
            "resume",
            "Resume",
            "The fix goes on where it stopped.",
            "The fix is active again.",
            frozenset({FixStatus.PAUSED}),
            resume_fix,
        ),
        FixAction(
            "withdraw",
            "Withdraw",
            "The fix ends. What no worker has taken is recalled.",
            "The fix is withdrawn.",
            frozenset({FixStatus.ACTIVE, FixStatus.PAUSED}),
            withdraw_fix,
        ),
        FixAction(
            "recall",
            "Recall",
            "Released events that no worker has taken are dead again. Pause, withdraw and a halt "
            "do this by themselves; this completes what was interrupted.",
            "What no worker had taken is recalled.",
            frozenset(STOPPED),  # a verified fix has released nothing that has no outcome
            recall_fix,
        ),
    )
}


def show_fixes(visit: PageVisit) -> PageAnswer:
    """List fixes, the latest first."""
    after = visit.get_text("after")
    found = list_fixes(
        visit.connection,
        limit=_LISTED,
        after=parse_whole_number("after", after) if after else None,
    )
    following = build_path("fixes", after=found[-1].id) if len(found) == _LISTED else None
    return PageAnswer("fixes.html.j2", {"fixes": found, "next": following})


def show_fix(visit: PageVisit) -> PageAnswer:
    """Show a fix: stages, outcomes, timeline, verdict and evidence. An open one refreshes."""
    fix_id, settings = visit.path["fix_id"], visit.settings
    progress = get_fix_progress(
        visit.connection, fix_id, now=visit.now, terms=build_fix_terms(settings)
    )
    fix = progress.fix
    timeline = read_fix_timeline(visit.connection, fix_id, until=visit.now)
    is_open = fix.closed_at is None
    refreshes = is_open and visit.query.get("refresh") != "no"
    redact = build_redact_errors(settings)
    action = ACTIONS.get(visit.query.get("done", ""))
    return PageAnswer(
        "fix.html.j2",
        {
            "fix": fix,
            "deployment": get_deployment(visit.connection, fix.deployment)
            if fix.deployment
            else None,
            "selection": fix.selection.describe(settings.zone),
            "cause_link": build_path("causes", fix.selection.cause)
            if fix.selection.cause
            else None,
            "stages": progress.stages,
            "next": progress.next,
            "is_open": is_open,
            "timeline": Markup(  # noqa: S704 - numbers and times only
                draw_fix_timeline(
                    timeline,
                    zone=settings.zone,
                    day=convert_to_zone(visit.now, settings.zone).date(),
                )
            )
            if timeline.intervals
            else None,
            "evidence": [
                {
                    "events": pair.get("events"),
                    "outcome": pair.get("outcome"),
                    "before": build_shown_error(redact([str(pair.get("before") or "")])[0]),
                    "after": build_shown_error(redact([str(pair.get("after") or "")])[0]),
                }
                for pair in fix.evidence[:_SHOWN_EVIDENCE]
            ],
            "actions": _list_actions(progress) if visit.may_change else [],
            "said": action.done if action else "flagged" in visit.query and "The fix is flagged.",
            "refreshes": refreshes,
            "path": build_path("fixes", fix.id),
            "lines": [f"dlq fixes show {fix.id}"],
        },
        refresh=_REFRESH_SECONDS if refreshes else None,
    )


def _list_actions(progress: FixProgress) -> list[FixAction]:
    """Return what can be done now. A recall needs events that wait."""
    has_waiting = any(stage.waiting for stage in progress.stages.values())
    return [
        action
        for action in ACTIONS.values()
        if progress.fix.status in action.states and (action.name != "recall" or has_waiting)
    ]


def show_fix_action(visit: PageVisit) -> PageAnswer:
    """Show the form of an action, which asks for a reason.

    It has a page of its own, because the page of an open fix refreshes while a person writes.
    """
    _get_action(visit)
    return _build_action_form(visit, get_fix(visit.connection, visit.path["fix_id"]))


def change_fix(visit: PageVisit) -> PageAnswer:
    """Pause, resume, withdraw or recall a fix."""
    action, fix_id = _get_action(visit), visit.path["fix_id"]
    try:
        action.run(visit.connection, fix_id, audit=visit.sign(visit.form.get("reason", "")))
    except ValueError as error:
        return _build_action_form(visit, get_fix(visit.connection, fix_id), str(error))
    return PageAnswer(go_to=build_path("fixes", fix_id, done=action.name))


def _get_action(visit: PageVisit) -> FixAction:
    name = visit.path["action"]
    if name not in ACTIONS:
        raise NotFoundError(f"There is no action {name[:60]!r}.", f"Known: {', '.join(ACTIONS)}.")
    return ACTIONS[name]


def _build_action_form(visit: PageVisit, fix: Fix, error: str = "") -> PageAnswer:
    values = {
        "fix": fix,
        "action": _get_action(visit),
        "error": error,
        "reason": visit.form.get("reason", ""),
        "path": build_path("fixes", fix.id),
    }
    return PageAnswer("fix_action.html.j2", values, 400 if error else 200)


def show_flag_form(visit: PageVisit) -> PageAnswer:
    """Show the form that flags a fix, filled with the query."""
    return _build_flag_form(visit, {name: visit.query.get(name, "") for name in _FIELDS})


def preview_or_flag(visit: PageVisit) -> PageAnswer:
    """Preview the fix of the form; flag it if the preview was confirmed."""
    given = {name: visit.form.get(name, "").strip() for name in _FIELDS}
    terms = build_fix_terms(visit.settings)
    try:
        audit = visit.sign(validate_note(given["note"]))
        flag = _build_flag(visit, given)
        preview = preview_fix(visit.connection, flag, audit=audit, default=terms.policy)
        if visit.form.get("step") == "flag" and preview.events <= _read_confirmed(visit):
            fix = flag_fix(visit.connection, flag, audit=audit)
            return PageAnswer(go_to=build_path("fixes", fix.id, flagged="yes"))
    except Exception as error:
        found = describe_input_error(error)
        if found is None:
            raise
        return _build_flag_form(visit, given, error=found[1], status=found[0])
    return _build_flag_form(visit, given, preview=preview, flag=flag)


def _read_confirmed(visit: PageVisit) -> int:
    """Return how many events may be released: as many as the preview showed, or a thousand."""
    return max(parse_whole_number("events", visit.form.get("events", "0")), CONFIRM_ABOVE)


def _build_flag(visit: PageVisit, given: dict[str, str]) -> FixFlag:
    filters = {name: given[name] or None for name in _FILTERS}
    if filters["cause"]:
        filters["cause"] = find_cause_id(visit.connection, filters["cause"])
    selection = Selection.build(filters, visit.settings.zone, now=visit.now)
    return build_flag(
        selection,
        FlagInput(
            link=given["link"] or None,
            owner=given["owner"] or None,
            deployment=_parse_optional(given, "deployment"),
            canary=_parse_optional(given, "canary"),
            rate=_parse_rate(given["rate"]) if given["rate"] else None,
        ),
        terms=build_fix_terms(visit.settings),
        zone=visit.settings.zone,
        now=visit.now,
    )


def _build_flag_form(
    visit: PageVisit,
    given: dict[str, str],
    *,
    error: str = "",
    status: int = 200,
    preview: FixPreview | None = None,
    flag: FixFlag | None = None,
) -> PageAnswer:
    default = build_fix_terms(visit.settings).policy
    values: dict[str, Any] = {
        "given": given,
        "error": error,
        "default": default,
        "preview": preview,
        "policy": (flag.policy if flag else None) or default,
        "selection": flag.selection.describe(visit.settings.zone) if flag else "",
        "has_grown": visit.form.get("step") == "flag",
        "person": visit.form.get("person", ""),
        "command": _build_command(given),
    }
    return PageAnswer("flag.html.j2", values, status)


def _build_command(given: dict[str, str]) -> str:
    """Return the command that does the same in a terminal."""
    options = [
        f"--{name.replace('_', '-')} {quote(value)}" for name, value in given.items() if value
    ]
    return " ".join(["dlq fixes flag", *options])


def _parse_optional(given: dict[str, str], name: str) -> int | None:
    return parse_whole_number(name, given[name]) if given[name] else None


def _parse_rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"rate: {text[:60]!r} is not a number of events per second.") from None
