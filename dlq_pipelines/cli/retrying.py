"""How does a command retry many events: counted first, asked for where they are many, and told?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.act import confirm
from dlq_pipelines.cli.output import duration, program, show
from dlq_pipelines.errors import NotFoundError

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.operation import Act
    from dlq_pipelines.retries.retry import Retried
    from dlq_pipelines.settings import Settings

Rate = Annotated[float | None, typer.Option(help="Events a second that fall due. Default: the installation's.")]


def pace(rate: float | None, settings: "Settings") -> float:
    """The rate that was asked for, or the installation's.

    Raises:
        ValueError: it is out of its bounds.
    """
    from dlq_pipelines.installation import fix_terms

    policy = fix_terms(settings).policy
    return policy.rate if rate is None else replace(policy, rate=rate).rate


def retry_many(retry: "Callable[[Act], Retried]", doing: "Act", *, named: bool, kind: str, yes: bool) -> "Retried":
    """Retry what is meant.

    Args:
        retry: does it, or in a dry run counts it.
        doing: who asks for it.
        named: events were named by their ids, so that none of them may be none by mistake.
        kind: what they have to be: "dead" or "parked".
        yes: the person need not be asked.

    Raises:
        NotFoundError: none of the named events is of that kind.
        RefusedError: they are many, and the person does not mean it or cannot be asked.
    """
    if not doing.dry_run and not yes:
        confirm("retry", retry(replace(doing, dry_run=True)).events, yes=False)
    done = retry(doing)
    if named and not done.events:
        raise NotFoundError(f"None of these events is {kind}. `dlq dead-events show ID` says what became of one.")
    return done


def tell_retried(done: "Retried", ids: Sequence[int] | None, *, rate: float, dry_run: bool, json: bool) -> None:
    """Say how many events go back to the worker, how long that takes, and how many of the named ones do not."""
    if json:
        show([asdict(done) | {"rate": rate, "dry_run": dry_run}], as_json=True, empty="")
        return
    if not done.events:
        typer.echo("No dead event is meant by this. Nothing was changed.")
        return
    lasts = duration((done.events - 1) / rate)
    said = "Would retry" if dry_run else "Retried"
    typer.echo(f"{said} {done.events:,} dead events at {rate:g} a second: they fall due within {lasts}.")
    if ids and (passed := len(set(ids)) - done.events):
        typer.echo(f"Passed over: {passed:,} of those that were named.")
    typer.echo(
        "Nothing was changed: this was a dry run."
        if dry_run
        else f"What became of one: `{program()} dead-events show ID`."
    )
