"""`dlq causes`: list, classify and correct the causes of death."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.causes.states import ListedCauseState
from dlq_pipelines.cli.mutation import (
    NOTHING_CHANGED,
    REASON_HELP,
    Actor,
    DryRun,
    Reason,
    prepare_change,
)
from dlq_pipelines.cli.output import (
    After,
    Limit,
    OutputFormat,
    list_columns,
    print_list,
    print_page,
    print_record,
    print_table,
    with_output_format,
)
from dlq_pipelines.cli.progress import show_progress
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import format_count, sanitize_text

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.audit import AuditContext, RunOptions
    from dlq_pipelines.causes.catalogue import CauseChange, CauseDetail, CauseTextColumn

app = typer.Typer(
    name="causes",
    help="The causes of death.\n\nExample: `dlq causes list`",
    no_args_is_help=True,
)
CauseId = Annotated[
    str,
    typer.Argument(
        help="The cause, as `dlq causes list` lists it, or the beginning of its id.",
        metavar="CAUSE",
    ),
]


@app.command("list")
@with_output_format
def list_causes_command(
    state: Annotated[
        ListedCauseState | None,
        typer.Option("--state", help="Only causes in this state. See --since for new and rose."),
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Only causes of this owner, in any case.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="With --state new or rose: from this time until now, such as 2h, yesterday or an "
            "ISO time. Default: 24h.",
            show_default=False,
        ),
    ] = None,
    event_type: Annotated[
        str | None,
        typer.Option("--event-type", help="Only causes that events of this type died of."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Only causes whose title contains it, in any case."),
    ] = None,
    limit: Limit = 50,
    after: After = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List causes, those with most dead events first.

    Example: `dlq causes list --state regressed --owner team-shipping`
    """
    from dlq_pipelines.causes.catalogue import Cause
    from dlq_pipelines.causes.search import build_cause_filter, search_causes

    now = datetime.now(UTC)
    with open_session() as (connection, settings):
        wanted = build_cause_filter(
            connection,
            state=state,
            owner=owner,
            since=since,
            event_type=event_type,
            now=now,
            zone=settings.zone,
        )
        page = search_causes(connection, wanted, text=text or None, limit=limit, after=after)
    found = page.causes
    is_filtered = any((state, owner, event_type, text))
    brief = [
        {
            "cause": cause.id,
            "state": cause.state(now),
            "dead now": cause.dead,
            "deaths": cause.deaths,
            "title": cause.title[:100],
            "details": ", ".join(_describe_detail(detail) for detail in cause.details),
            "owner": cause.owner or "",
        }
        for cause in found
    ]
    print_page(
        "causes",
        [asdict(cause) | {"state": cause.state(now)} for cause in found],
        cursor=page.next,
        format=format,
        brief=brief,
        empty="No cause matches."
        if is_filtered
        else "No causes yet: nothing has died and been classified.",
        header=list_columns(Cause, "state"),
        optional=("owner", "details", "deaths", "state"),
    )


@app.command("show")
@with_output_format
def show_cause_command(cause: CauseId, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Show a cause with its probes, its details, its changes and a sample.

    DLQ_EXPORT_REDACT_ERRORS applies to the sample.

    Example: `dlq causes show v2-3f9a0c6d2b7e4a51`
    """
    from dlq_pipelines.causes.catalogue import describe_cause, find_cause_id
    from dlq_pipelines.installation import build_probe_policy, build_redact_errors
    from dlq_pipelines.retries.probes import describe_probes

    with open_session() as (connection, settings):
        found = describe_cause(
            connection, find_cause_id(connection, cause), redact=build_redact_errors(settings)
        )
        probes = describe_probes(connection, found.cause.id, policy=build_probe_policy(settings))
    if format is not OutputFormat.TABLE:
        print_record(asdict(found) | {"probes": asdict(probes)}, format=format)
        return
    fields = asdict(found.cause) | {
        "state": found.cause.state(datetime.now(UTC)),
        "probe": None,
        "probes": str(probes),
        "deployment": found.cause.beginning,
        "details": None,
    }
    print_table(
        [{"field": key, "value": _join_list(value)} for key, value in fields.items() if value]
    )
    print_table(
        [
            {
                "detail": detail.detail,
                "state": detail.status,
                "dead now": detail.dead,
                "deaths": detail.deaths,
                "first seen": detail.first_seen,
                "last seen": detail.last_seen,
            }
            for detail in found.cause.details
        ],
        empty="Its errors name no detail.",
        optional=("first seen", "last seen"),
    )
    changes = [
        {
            "change": change.audit_id,
            "kind": change.kind,
            "actor": change.actor,
            "at": change.at,
            "reason": change.reason,
        }
        for change in found.changes
    ]
    print_table(changes, empty="It was never changed.", optional=("reason", "kind"))
    if found.sample is not None:
        typer.echo(f"\n{sanitize_text(found.sample)}")


@app.command("explain")
@with_output_format
def explain_cause_command(
    cause: CauseId,
    detail: Annotated[
        str | None, typer.Option("--detail", help="Only events whose error names this detail.")
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Show what sets the dead events of a cause apart from delivered ones.

    Compares payloads, event types, aggregates and hours of the latest 2,000 dead events with those
    of 2,000 delivered events of the same types. Paths that DLQ_EXPORT_REDACT_PAYLOAD hides are
    left out.

    Example: `dlq causes explain v2-3f9a0c6d2b7e4a51`
    """
    from dlq_pipelines.causes.catalogue import find_cause_id
    from dlq_pipelines.causes.explain import explain_cause
    from dlq_pipelines.installation import build_hides_path

    with open_session() as (connection, settings):
        explanation = explain_cause(
            connection,
            find_cause_id(connection, cause),
            detail=detail,
            zone=settings.zone,
            is_hidden=build_hides_path(settings),
        )
    if format is not OutputFormat.TABLE:
        print_record(asdict(explanation), format=format)
        return
    found = explanation.separation
    print_table(
        [
            {
                "condition": finding.condition,
                "dead": f"{finding.dead:,} of {found.dead:,}",
                "delivered": f"{finding.delivered:,} of {found.delivered:,}",
                "same events": "; ".join(finding.equivalents),
            }
            for finding in found.findings
        ],
        empty=str(explanation),
        optional=("same events",),
    )
    if hidden := explanation.describe_hidden():
        typer.echo(hidden)
    if found.findings and (filters := found.findings[0].filters):
        given = {"detail": detail} | filters if detail else filters
        options = " ".join(
            f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in given.items()
        )
        typer.echo(
            "\nRetry these events once they are fixed:\n  "
            f"dlq fixes flag --cause {explanation.cause} {options} --note ... --dry-run"
        )
    elif found.findings:
        typer.echo("\nNo filter selects exactly the events of the first condition.")


@app.command("classify")
@with_output_format
def classify_deaths_command(format: OutputFormat = OutputFormat.TABLE) -> None:
    """Classify deaths that have no cause yet.

    Also marks fixed causes and details as regressed if an event died of them again. The Dagster
    asset dead_event_causes does the same every five minutes. Repeatable.

    Example: `dlq causes classify`
    """
    from dlq_pipelines.causes.update import update_causes

    with open_session() as (connection, settings), show_progress("Classify", "death") as report:
        update = update_causes(
            connection,
            now=datetime.now(UTC),
            zone=settings.zone,
            announce=settings.death_webhook_url is not None,
            progress=report,
        )
    if format is not OutputFormat.TABLE:
        print_record(asdict(update), format=format)
        return
    typer.echo(
        f"Classified {format_count(update.deaths, 'death')}: "
        f"{format_count(len(update.new_causes), 'new cause')}, "
        f"{format_count(len(update.new_details), 'new detail')}, "
        f"{format_count(len(update.regressed), 'regressed cause')}, "
        f"{format_count(len(update.regressed_details), 'regressed detail')}."
    )
    for state, causes, details in (
        ("new", update.new_causes, update.new_details),
        ("regressed", update.regressed, update.regressed_details),
    ):
        for cause in causes:
            typer.echo(f"{state}: {cause}")
        for key in details:
            typer.echo(f"{state}: {key.cause} {sanitize_text(key.detail)}")


@app.command("similar")
@with_output_format
def list_similar_causes_command(format: OutputFormat = OutputFormat.TABLE) -> None:
    """Propose causes to merge.

    Prints pairs of causes whose messages differ in one word, and larger groups of such causes.
    Changes nothing.

    Example: `dlq causes similar`
    """
    from dlq_pipelines.causes.catalogue import list_causes
    from dlq_pipelines.causes.similar import (
        MergeProposal,
        find_similar_causes,
        find_similar_groups,
    )

    with open_session() as (connection, _):
        causes = list_causes(connection, limit=1000)
    proposals, groups = find_similar_causes(causes), find_similar_groups(causes)
    brief = [
        {
            "merge": proposal.other.id,
            "into": proposal.cause.id,
            "deaths": f"{proposal.other.deaths} + {proposal.cause.deaths}",
            "difference": " / ".join(word or "(nothing)" for word in proposal.differs),
            "title": proposal.cause.title[:100],
        }
        for proposal in proposals
    ]
    print_list(
        "pairs",
        [asdict(proposal) for proposal in proposals],
        format=format,
        brief=brief,
        empty="No two causes differ in only one word.",
        header=list_columns(MergeProposal),
        optional=("title", "deaths"),
        added={"groups": [asdict(group) for group in groups]},
    )
    for group in groups if format is OutputFormat.TABLE else ():
        typer.echo(f"\n{sanitize_text(group.describe_difference())}")
        print_table(
            [
                {"cause": cause.id, "word": word, "deaths": cause.deaths}
                for cause, word in zip((group.cause, *group.others), group.differs, strict=True)
            ]
        )
        ids = " ".join(cause.id for cause in (*group.others, group.cause))
        typer.echo(f"To merge them: dlq causes merge {ids} --reason ...")


@app.command("merge")
@with_output_format
def merge_causes_command(
    causes: Annotated[
        list[str],
        typer.Argument(help="The causes, as `dlq causes list` lists them.", metavar="CAUSE..."),
    ],
    into: Annotated[
        str, typer.Argument(help="The cause that they become part of.", metavar="INTO")
    ],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Merge causes into another one. Their deaths keep them, so a split undoes the merge.

    Example:
    `dlq causes merge v2-3f9a0c6d2b7e4a51 v2-51c2aa07e9b3d846 --reason "same timeout" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import merge_causes

    prepared = prepare_change(actor, reason, dry_run=dry_run)
    _change_cause(
        merge_causes, causes[0], others=[*causes[1:], into], prepared=prepared, format=format
    )


@app.command("split")
@with_output_format
def split_cause_command(
    cause: CauseId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Split a merged cause off again.

    Example: `dlq causes split v2-9d0c55aa01b2c3d4 --reason "two different services" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import split_cause

    prepared = prepare_change(actor, reason, dry_run=dry_run)
    _change_cause(split_cause, cause, prepared=prepared, format=format)


@app.command("rename")
@with_output_format
def rename_cause_command(
    cause: CauseId,
    name: Annotated[str, typer.Argument(help="The new name; empty: its message.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Name a cause.

    Example:
    `dlq causes rename v2-3f9a0c6d2b7e4a51 "Carrier closed" --reason "known since May" --dry-run`
    """
    _set_text("name", cause, name, prepare_change(actor, reason, dry_run=dry_run), format=format)


@app.command("note")
@with_output_format
def note_cause_command(
    cause: CauseId,
    text: Annotated[str, typer.Argument(help="The note, such as a runbook's link; empty: none.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Write the note of a cause.

    Example:
    `dlq causes note v2-3f9a0c6d2b7e4a51 "See runbook 7" --reason "on-call asked" --dry-run`
    """
    _set_text("note", cause, text, prepare_change(actor, reason, dry_run=dry_run), format=format)


@app.command("own")
@with_output_format
def own_cause_command(
    cause: CauseId,
    owner: Annotated[str, typer.Argument(help="Who is responsible; empty: nobody.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Set the owner of a cause.

    Example:
    `dlq causes own v2-3f9a0c6d2b7e4a51 team-shipping --reason "their service" --dry-run`
    """
    _set_text("owner", cause, owner, prepare_change(actor, reason, dry_run=dry_run), format=format)


@app.command("mute")
@with_output_format
def mute_cause_command(
    cause: CauseId,
    reason: Reason,
    actor: Actor,
    days: Annotated[
        int, typer.Option(min=0, max=365, help="Days without alerts; 0 ends the mute.")
    ] = 7,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Send no alerts of a cause for some days. It is still counted, reported and retried.

    Example:
    `dlq causes mute v2-3f9a0c6d2b7e4a51 --days 3 --reason "fix is due on Friday" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import mute_cause

    prepared = prepare_change(actor, reason, dry_run=dry_run)
    until = prepared[0].now + timedelta(days=days) if days else None
    _change_cause(mute_cause, cause, until, prepared=prepared, format=format)


class ProbeSwitch(StrEnum):
    """What a person decides about the probes of a cause."""

    ON = "on"
    OFF = "off"
    DEFAULT = "default"


@app.command("probe")
@with_output_format
def set_cause_probe_command(
    cause: CauseId,
    mode: Annotated[
        ProbeSwitch,
        typer.Argument(help="default: follow DLQ_PROBES, which probes transient causes only."),
    ],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Switch the probes of a cause on or off, whatever DLQ_PROBES says.

    A probe releases one dead event from time to time. Once one is delivered, a fix is flagged.

    Example:
    `dlq causes probe v2-3f9a0c6d2b7e4a51 on --reason "the carrier recovers by itself" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import set_cause_probe

    prepared = prepare_change(actor, reason, dry_run=dry_run)
    _change_cause(set_cause_probe, cause, mode.value, prepared=prepared, format=format)


@app.command("undo")
@with_output_format
def undo_cause_change_command(
    change: Annotated[
        int, typer.Argument(min=1, help="The change, as `dlq causes show` lists it.")
    ],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Undo a change of a cause. Refused if the cause was changed again since.

    Example: `dlq causes undo 12 --reason "merged the wrong pair" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import undo_change

    prepared = prepare_change(actor, reason, dry_run=dry_run)
    _change_cause(undo_change, change, prepared=prepared, format=format)


@app.command("reindex")
@with_output_format
def reindex_causes_command(
    actor: Actor,
    reason: Annotated[str, typer.Option(help=REASON_HELP)] = "a new version of the fingerprint",
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Classify the ledger anew after an upgrade with a new version of the fingerprint.

    Each cause of the earlier version points to its successors from then on. Run it as the role that
    migrates, while the system runs; after an interruption, run it again.

    Example: `dlq causes reindex --dry-run`
    """
    from dlq_pipelines.causes.reindex import CauseSuccession, plan_reindex, reindex_causes

    audit, _ = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings), show_progress("Classifying", "death") as report:
        found = (
            plan_reindex(connection, progress=report)
            if dry_run
            else reindex_causes(connection, zone=settings.zone, audit=audit, progress=report)
        )
    print_list(
        "causes",
        [asdict(succession) for succession in found],
        format=format,
        brief=[
            {
                "cause": succession.cause_id,
                "deaths": sum(successor.deaths for successor in succession.successors),
                "successors": ", ".join(
                    f"{successor.cause_id} ({successor.deaths:,})"
                    for successor in succession.successors
                ),
            }
            for succession in found
        ],
        empty="The ledger has no deaths of an earlier version.",
        header=list_columns(CauseSuccession),
        added={"dry_run": dry_run},
    )
    if format is OutputFormat.TABLE and dry_run:
        typer.echo(NOTHING_CHANGED)


def _set_text(
    column: "CauseTextColumn",
    cause: str,
    text: str,
    prepared: "tuple[AuditContext, RunOptions]",
    *,
    format: OutputFormat,
) -> None:
    from dlq_pipelines.causes.catalogue import set_cause_text

    _change_cause(set_cause_text, cause, column, text, prepared=prepared, format=format)


def _describe_detail(detail: "CauseDetail") -> str:
    """Return a detail with its deaths, and with its state unless it is open."""
    state = "" if detail.status == "open" else f", {detail.status}"
    return f"{detail.detail} ({detail.deaths:,}{state})"


def _join_list(value: Any) -> Any:
    """Return a list as comma-separated text, and any other value as it is."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _change_cause(
    change_cause: Callable[..., "CauseChange"],
    *arguments: Any,
    prepared: "tuple[AuditContext, RunOptions]",
    format: OutputFormat,
    others: Sequence[str] | None = None,
) -> None:
    """Change a cause; print what was changed, and the command that undoes it.

    Args:
        change_cause: changes it.
        arguments: the cause, or what else the change is of, and values.
        prepared: who makes the change, and how it runs.
        format: of the output.
        others: of a merge: further causes, and the one that all become part of.
    """
    from dlq_pipelines.causes.catalogue import find_cause_id

    audit, options = prepared
    given: dict[str, Any] = {}
    with open_session() as (connection, _):
        subject, *rest = arguments
        if isinstance(subject, str):  # an undo takes the number of a change
            subject = find_cause_id(connection, subject)
        if others is not None:
            given |= {
                "into": find_cause_id(connection, others[-1]),
                "also": [find_cause_id(connection, other) for other in others[:-1]],
            }
        change = change_cause(connection, subject, *rest, audit=audit, options=options, **given)
    if format is not OutputFormat.TABLE:
        print_record(asdict(change), format=format)
        return
    rows = [
        {
            "cause": changed.cause,
            "column": column,
            "before": changed.before[column] or "",
            "after": value or "",
        }
        for changed in change.changes
        for column, value in changed.after.items()
    ]
    print_table(rows, empty="Nothing was changed: the cause has this value already.")
    if change.audit_id:
        typer.echo(f"To undo it: `dlq causes undo {change.audit_id} --reason ...`.")
    elif rows:
        typer.echo(NOTHING_CHANGED)
