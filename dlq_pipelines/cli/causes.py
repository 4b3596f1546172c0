"""`dlq causes`: why do events die, and what do people say of it?"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dlq_pipelines.cli.act import Actor, DryRun, Reason, act
from dlq_pipelines.cli.output import (
    After,
    Format,
    columns,
    formatted,
    program,
    show_list,
    show_one,
    show_table,
    tell_more,
)
from dlq_pipelines.cli.progress import progress
from dlq_pipelines.cli.session import session
from dlq_pipelines.text import counted, plain_text

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.causes.catalogue import Change, Described
    from dlq_pipelines.operation import Act
    from dlq_pipelines.postgres.connect import Connection

T = TypeVar("T")
app = typer.Typer(help="The causes of death.", no_args_is_help=True)
CauseId = Annotated[str, typer.Argument(help="The cause, as `dlq causes list` lists it.", metavar="CAUSE")]


@app.callback()
def causes() -> None:
    """The causes of death."""


@app.command("list")
@formatted
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    after: After = None,
    format: Format = Format.TABLE,
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
    more = found[-1].key if len(found) == limit else None
    show_list(
        "causes",
        rows,
        format=format,
        brief=brief,
        empty=empty,
        header=columns(Cause, "state"),
        spare=("owner", "deaths", "state"),
        also={"next": more},
    )
    tell_more(more, format=format)


@app.command("show")
@formatted
def show_(cause: CauseId, format: Format = Format.TABLE) -> None:
    """Show all of a cause: what it is, what people say of it, its details, its changes and a sample.

    Example: `dlq causes show v1-3f9a0c6d2b7e4a51`
    """
    from dlq_pipelines.causes.catalogue import describe_cause

    found = _ask(lambda connection: describe_cause(connection, cause))
    if format is not Format.TABLE:
        show_one(asdict(found), format=format)
        return
    about = asdict(found.cause) | {"state": found.cause.state(datetime.now(UTC))}
    show_table([{"of the cause": key, "": _listed(value)} for key, value in about.items() if value])
    show_table([{"detail": key, "texts": _listed(texts)} for key, texts in found.details.items()])
    changes = [
        {"change": c.operation, "what": c.kind, "by": c.actor, "at": c.at, "why": c.reason} for c in found.changes
    ]
    show_table(changes, empty="Nobody has changed it.", spare=("why", "what"))
    typer.echo(f"\n{plain_text(found.sample)}")


@app.command()
@formatted
def similar(format: Format = Format.TABLE) -> None:
    """Propose causes to merge: their messages are equal but for one word. Nothing is merged by itself.

    Example: `dlq causes similar`
    """
    from dlq_pipelines.causes.catalogue import list_causes
    from dlq_pipelines.causes.similar import Proposal, similar_causes

    found = _ask(lambda connection: similar_causes(list_causes(connection, limit=1000)))
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
    show_list(
        "pairs",
        rows,
        format=format,
        brief=brief,
        empty="No two causes are equal but for one word.",
        header=columns(Proposal),
        spare=("what", "deaths"),
    )


@app.command()
@formatted
def merge(
    cause: CauseId,
    into: Annotated[str, typer.Argument(help="The cause that it is shown as from now on.", metavar="INTO")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """Show a cause as another one. Its deaths keep it, so a split gives all of it back.

    Example: `dlq causes merge v1-3f9a0c6d2b7e4a51 v1-51c2aa07e9b3d846 --reason "the same time-out" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import merge_causes

    doing = act(actor, reason, dry_run=dry_run)
    _tell(_ask(lambda connection: merge_causes(connection, cause, into=into, act=doing)), format=format)


@app.command()
@formatted
def split(cause: CauseId, reason: Reason, actor: Actor, dry_run: DryRun = False, format: Format = Format.TABLE) -> None:
    """Show a merged cause on its own again.

    Example: `dlq causes split v1-9d0c55aa01b2c3d4 --reason "two services after all" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import split_cause

    doing = act(actor, reason, dry_run=dry_run)
    _tell(_ask(lambda connection: split_cause(connection, cause, act=doing)), format=format)


@app.command()
@formatted
def rename(
    cause: CauseId,
    name: Annotated[str, typer.Argument(help="What people call it; empty: its message again.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """Give a cause a name.

    Example: `dlq causes rename v1-3f9a0c6d2b7e4a51 "Carrier closed at night" --reason "known since May" --dry-run`
    """
    _say("name", cause, name, act(actor, reason, dry_run=dry_run), format=format)


@app.command()
@formatted
def note(
    cause: CauseId,
    text: Annotated[str, typer.Argument(help="What is known: a runbook, a link; empty: nothing.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """Write a note on a cause.

    Example: `dlq causes note v1-3f9a0c6d2b7e4a51 "See the runbook of the carrier" --reason "on-call asked" --dry-run`
    """
    _say("note", cause, text, act(actor, reason, dry_run=dry_run), format=format)


@app.command()
@formatted
def own(
    cause: CauseId,
    owner: Annotated[str, typer.Argument(help="Who looks after it; empty: nobody.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """Say who looks after a cause.

    Example: `dlq causes own v1-3f9a0c6d2b7e4a51 team-shipping --reason "their service" --dry-run`
    """
    _say("owner", cause, owner, act(actor, reason, dry_run=dry_run), format=format)


@app.command()
@formatted
def mute(
    cause: CauseId,
    reason: Reason,
    actor: Actor,
    days: Annotated[int, typer.Option(min=0, max=365, help="For how long; 0 ends it.")] = 7,
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """Tell nobody of a cause for some days. It is still counted, reported and retried.

    Example: `dlq causes mute v1-3f9a0c6d2b7e4a51 --days 3 --reason "the carrier mends it by Friday" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import mute_cause

    doing = act(actor, reason, dry_run=dry_run)
    until = doing.now + timedelta(days=days) if days else None
    _tell(_ask(lambda connection: mute_cause(connection, cause, until, act=doing)), format=format)


@app.command()
@formatted
def undo(
    change: Annotated[int, typer.Argument(min=1, help="The change, as `dlq causes show` lists it.")],
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """Take a change back. Refused when its cause was changed again since.

    Example: `dlq causes undo 12 --reason "merged the wrong pair" --dry-run`
    """
    from dlq_pipelines.causes.catalogue import undo as undo_change

    doing = act(actor, reason, dry_run=dry_run)
    _tell(_ask(lambda connection: undo_change(connection, change, act=doing)), format=format)


@app.command()
@formatted
def reindex(
    actor: Actor,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "a new version of the fingerprint",
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """After an upgrade with a new version of the fingerprint: lead its fingerprints to the causes that are known.

    Example: `dlq causes reindex --dry-run`
    """
    from dlq_pipelines.causes.reindex import Alias, apply_reindex, plan_reindex

    doing = act(actor, reason, dry_run=dry_run)

    def run(connection: "Connection") -> tuple[list[Alias], int]:
        with progress("Reading the ledger", "death") as told:
            aliases = plan_reindex(connection, progress=told)
        return aliases, apply_reindex(connection, aliases, act=doing)

    aliases, added = _ask(run)
    rows = [asdict(alias) for alias in aliases]
    show_list(
        "aliases",
        rows,
        format=format,
        brief=[row | {"others": _listed(row["others"])} for row in rows],
        empty="The ledger is empty: there is nothing to lead anywhere.",
        header=columns(Alias),
        also={"added": added, "dry_run": dry_run},
    )
    if format is Format.TABLE:
        said = "Nothing was changed: this was a dry run."
        typer.echo(said if dry_run else f"{counted(added, 'fingerprint')} added.")


def _say(column: "Described", cause: str, text: str, doing: "Act", *, format: Format) -> None:
    from dlq_pipelines.causes.catalogue import describe_as

    _tell(_ask(lambda connection: describe_as(connection, cause, column, text, act=doing)), format=format)


def _ask(question: Callable[["Connection"], T]) -> T:
    with session() as (connection, _):
        return question(connection)


def _listed(value: Any) -> Any:
    """A list as people write one."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _tell(change: "Change", *, format: Format) -> None:
    """What was changed, and how it is taken back."""
    rows = [
        {"cause": one["cause"], "column": key, "before": one["before"][key], "after": value}
        for one in change.changes
        for key, value in one["after"].items()
    ]
    if format is not Format.TABLE:
        show_one(asdict(change), format=format)
        return
    show_table(rows, empty="It is so already: nothing was changed.")
    if change.operation:
        typer.echo(f"To take it back: `{program()} causes undo {change.operation} --reason ...`")
    elif rows:
        typer.echo("Nothing was changed: this was a dry run.")
