"""`dlq causes`: why do events die, and what do people say of it?"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dlq_pipelines.cli.mutation import Actor, DryRun, Reason, prepare_change
from dlq_pipelines.cli.output import (
    After,
    OutputFormat,
    list_columns,
    print_list,
    print_next_cursor,
    print_record,
    print_table,
    program,
    with_output_format,
)
from dlq_pipelines.cli.progress import show_progress
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import format_count, sanitize_text

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.audit import AuditContext, RunOptions
    from dlq_pipelines.causes.catalogue import CauseChange, CauseTextColumn
    from dlq_pipelines.postgres.connect import Connection

T = TypeVar("T")
app = typer.Typer(help="The causes of death.", no_args_is_help=True)
CauseId = Annotated[
    str, typer.Argument(help="The cause, as `dlq causes list` lists it.", metavar="CAUSE")
]


@app.callback()
def causes() -> None:
    """The causes of death."""


@app.command("list")
@with_output_format
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    after: After = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List causes, those with most dead events now first.

    Example: `dlq causes list --limit 10`
    """
    from dlq_pipelines.causes.catalogue import Cause, list_causes

    found = _ask(lambda connection: list_causes(connection, limit=limit, after=after))
    now = datetime.now(UTC)
    rows = [asdict(cause) | {"state": cause.state(now)} for cause in found]
    brief = [
        {
            "cause": cause.id,
            "state": cause.state(now),
            "dead now": cause.dead,
            "deaths": cause.deaths,
            "what": cause.title[:100],
            "owner": cause.owner or "",
        }
        for cause in found
    ]
    empty = "No cause is known: nothing has died and been classified yet."
    more = found[-1].cursor if len(found) == limit else None
    print_list(
        "causes",
        rows,
        format=format,
        brief=brief,
        empty=empty,
        header=list_columns(Cause, "state"),
        spare=("owner", "deaths", "state"),
        also={"next": more},
    )
    print_next_cursor(more, format=format)


@app.command("show")
@with_output_format
def show_(cause: CauseId, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Show all of a cause: what it is, what people say of it, its details, its changes and a sample.

    Example: `dlq causes show v1-3f9a0c6d2b7e4a51`
    """
    from dlq_pipelines.causes.catalogue import describe_cause

    found = _ask(lambda connection: describe_cause(connection, cause))
    if format is not OutputFormat.TABLE:
        print_record(asdict(found), format=format)
        return
    about = asdict(found.cause) | {"state": found.cause.state(datetime.now(UTC))}
    print_table(
        [{"of the cause": key, "": _listed(value)} for key, value in about.items() if value]
    )
    print_table([{"detail": key, "texts": _listed(texts)} for key, texts in found.details.items()])
    changes = [
        {"change": c.audit_id, "what": c.kind, "by": c.actor, "at": c.at, "why": c.reason}
        for c in found.changes
    ]
    print_table(changes, empty="Nobody has changed it.", spare=("why", "what"))
    typer.echo(f"\n{sanitize_text(found.sample)}")


@app.command()
@with_output_format
def similar(format: OutputFormat = OutputFormat.TABLE) -> None:
    """Propose causes to merge: their messages are equal but for one word. Nothing is merged by itself.

    Example: `dlq causes similar`
    """
    from dlq_pipelines.causes.catalogue import list_causes
    from dlq_pipelines.causes.similar import MergeProposal, find_similar_causes

    found = _ask(lambda connection: find_similar_causes(list_causes(connection, limit=1000)))
    rows = [asdict(proposal) for proposal in found]
    brief = [
        {
            "merge": one.other.id,
            "into": one.cause.id,
            "deaths": f"{one.other.deaths} + {one.cause.deaths}",
            "differs": " / ".join(word or "(nothing)" for word in one.differs),
            "what": one.cause.title[:100],
        }
        for one in found
    ]
    print_list(
        "pairs",
        rows,
        format=format,
        brief=brief,
        empty="No two causes are equal but for one word.",
        header=list_columns(MergeProposal),
        spare=("what", "deaths"),
    )


@app.command()
@with_output_format
def merge(
    cause: CauseId,
    into: Annotated[
        str, typer.Argument(help="The cause that it is shown as from now on.", metavar="INTO")
    ],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Show a cause as another one. Its deaths keep it, so a split gives all of it back.

    Example: `dlq causes merge v1-3f9a0c6d2b7e4a51 v1-51c2aa07e9b3d846 --reason "the same time-out" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import merge_causes

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    _tell(
        _ask(
            lambda connection: merge_causes(
                connection, cause, into=into, audit=audit, options=options
            )
        ),
        format=format,
    )


@app.command()
@with_output_format
def split(
    cause: CauseId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Show a merged cause on its own again.

    Example: `dlq causes split v1-9d0c55aa01b2c3d4 --reason "two services after all" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import split_cause

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    _tell(
        _ask(lambda connection: split_cause(connection, cause, audit=audit, options=options)),
        format=format,
    )


@app.command()
@with_output_format
def rename(
    cause: CauseId,
    name: Annotated[str, typer.Argument(help="What people call it; empty: its message again.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Give a cause a name.

    Example: `dlq causes rename v1-3f9a0c6d2b7e4a51 "Carrier closed at night" --reason "known since May" --dry-run`
    """
    _say("name", cause, name, prepare_change(actor, reason, dry_run=dry_run), format=format)


@app.command()
@with_output_format
def note(
    cause: CauseId,
    text: Annotated[str, typer.Argument(help="What is known: a runbook, a link; empty: nothing.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Write a note on a cause.

    Example: `dlq causes note v1-3f9a0c6d2b7e4a51 "See the runbook of the carrier" --reason "on-call asked" --dry-run`
    """
    _say("note", cause, text, prepare_change(actor, reason, dry_run=dry_run), format=format)


@app.command()
@with_output_format
def own(
    cause: CauseId,
    owner: Annotated[str, typer.Argument(help="Who looks after it; empty: nobody.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Say who looks after a cause.

    Example: `dlq causes own v1-3f9a0c6d2b7e4a51 team-shipping --reason "their service" --dry-run`
    """
    _say("owner", cause, owner, prepare_change(actor, reason, dry_run=dry_run), format=format)


@app.command()
@with_output_format
def mute(
    cause: CauseId,
    reason: Reason,
    actor: Actor,
    days: Annotated[int, typer.Option(min=0, max=365, help="For how long; 0 ends it.")] = 7,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Tell nobody of a cause for some days. It is still counted, reported and retried.

    Example: `dlq causes mute v1-3f9a0c6d2b7e4a51 --days 3 --reason "the carrier mends it by Friday" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import mute_cause

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    until = audit.now + timedelta(days=days) if days else None
    _tell(
        _ask(lambda connection: mute_cause(connection, cause, until, audit=audit, options=options)),
        format=format,
    )


@app.command()
@with_output_format
def undo(
    change: Annotated[
        int, typer.Argument(min=1, help="The change, as `dlq causes show` lists it.")
    ],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Take a change back. Refused when its cause was changed again since.

    Example: `dlq causes undo 12 --reason "merged the wrong pair" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import undo_change

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    _tell(
        _ask(lambda connection: undo_change(connection, change, audit=audit, options=options)),
        format=format,
    )


@app.command()
@with_output_format
def reindex(
    actor: Actor,
    reason: Annotated[
        str, typer.Option(help="Why, for whoever asks later.")
    ] = "a new version of the fingerprint",
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """After an upgrade with a new version of the fingerprint: lead its fingerprints to the causes that are known.

    Example: `dlq causes reindex --dry-run`
    """
    from dlq_pipelines.causes.reindex import CauseAlias, apply_reindex, plan_reindex

    audit, options = prepare_change(actor, reason, dry_run=dry_run)

    def run(connection: "Connection") -> tuple[list[CauseAlias], int]:
        with show_progress("Reading the ledger", "death") as told:
            aliases = plan_reindex(connection, progress=told)
        return aliases, apply_reindex(connection, aliases, audit=audit, options=options)

    aliases, added = _ask(run)
    rows = [asdict(alias) for alias in aliases]
    print_list(
        "aliases",
        rows,
        format=format,
        brief=[row | {"others": _listed(row["others"])} for row in rows],
        empty="The ledger is empty: there is nothing to lead anywhere.",
        header=list_columns(CauseAlias),
        also={"added": added, "dry_run": dry_run},
    )
    if format is OutputFormat.TABLE:
        said = "Nothing was changed: this was a dry run."
        typer.echo(said if dry_run else f"{format_count(added, 'fingerprint')} added.")


def _say(
    column: "CauseTextColumn",
    cause: str,
    text: str,
    change: "tuple[AuditContext, RunOptions]",
    *,
    format: OutputFormat,
) -> None:
    from dlq_pipelines.causes.catalogue import set_cause_text

    audit, options = change
    _tell(
        _ask(
            lambda connection: set_cause_text(
                connection, cause, column, text, audit=audit, options=options
            )
        ),
        format=format,
    )


def _ask(question: Callable[["Connection"], T]) -> T:
    with open_session() as (connection, _):
        return question(connection)


def _listed(value: Any) -> Any:
    """A list as people write one."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _tell(change: "CauseChange", *, format: OutputFormat) -> None:
    """What was changed, and how it is taken back."""
    rows = [
        {"cause": one.cause, "column": key, "before": one.before[key], "after": value}
        for one in change.changes
        for key, value in one.after.items()
    ]
    if format is not OutputFormat.TABLE:
        print_record(asdict(change), format=format)
        return
    print_table(rows, empty="It is so already: nothing was changed.")
    if change.audit_id:
        typer.echo(f"To take it back: `{program()} causes undo {change.audit_id} --reason ...`")
    elif rows:
        typer.echo("Nothing was changed: this was a dry run.")
