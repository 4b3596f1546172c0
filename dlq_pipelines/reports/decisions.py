"""Lists what waits for the decision of a person at the end of a day."""

from collections.abc import Iterator
from dataclasses import dataclass

from dlq_pipelines.reports.figures import FixFigures, ReportFigures
from dlq_pipelines.reports.states import CauseState
from dlq_pipelines.text import format_count


@dataclass(frozen=True)
class OpenDecision:
    """Something that waits for the decision of a person.

    Attributes:
        text: what waits, such as `fix 3 is paused`.
        note: what the fix resolves; empty without a fix.
        command: shows it.
        address: of its page, or its place on the page of the report; None: neither exists.
    """

    text: str
    command: str
    note: str = ""
    address: str | None = None


def list_open_decisions(figures: ReportFigures) -> list[OpenDecision]:
    """Return parked events, halted and paused fixes, and regressed causes without an open fix.

    A halted fix of a cause whose next fix is open needs no decision.
    """
    return [
        *_find_parked_events(figures),
        *(
            OpenDecision(
                f"fix {fix.id} {'was halted' if fix.ended else 'is paused'}",
                f"dlq fixes show {fix.id}",
                fix.note,
                f"#fix-{fix.id}",
            )
            for fix in figures.fixes
            if _is_undecided(fix, figures)
        ),
        *_find_regressed_causes(figures),
    ]


def _find_parked_events(figures: ReportFigures) -> Iterator[OpenDecision]:
    if parked := figures.backlog.parked:
        yield OpenDecision(
            format_count(parked, "parked event"),
            "dlq fixes parked",
            address=figures.policy.links.link_parked_events(),
        )


def _is_undecided(fix: FixFigures, figures: ReportFigures) -> bool:
    if not fix.ended:
        return fix.status == "paused"
    return fix.status == "halted" and not any(
        fix.cause_id and other.cause_id == fix.cause_id and not other.ended
        for other in figures.fixes
    )


def _find_regressed_causes(figures: ReportFigures) -> Iterator[OpenDecision]:
    """A cause with an open fix is in the state `fixing`."""
    if causes := figures.list_causes(CauseState.REGRESSED):
        yield OpenDecision(
            f"{format_count(len(causes), 'regressed cause')} without an open fix",
            f"dlq causes show {causes[0].cause_id}" if len(causes) == 1 else "dlq causes list",
            address=f"#cause-{causes[0].rank}" if causes[0].is_detailed else None,
        )
