"""`dlq fixes`: what was said to be mended, and what came of it?"""

from dataclasses import asdict
from typing import Annotated

import typer

from dlq_pipelines.cli.act import Actor, Reason
from dlq_pipelines.cli.output import Json, show

app = typer.Typer(help="Flagged fixes.", no_args_is_help=True)


@app.callback()
def fixes() -> None:
    """Flagged fixes."""


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50, json: Json = False
) -> None:
    """List fixes, the last flagged first.

    Example: `dlq fixes list`
    """
    from dlq_pipelines.installation import open_connection
    from dlq_pipelines.retries.ledger import list_fixes
    from dlq_pipelines.settings import read_settings

    with open_connection(read_settings()) as connection:
        found = list_fixes(connection, limit=limit)
    rows = [asdict(fix) for fix in found]
    if not json:
        rows = [
            {
                "fix": fix.id,
                "state": fix.status.value,
                "stage": fix.stage,
                "cause": fix.cause_id,
                "flagged": fix.flagged_at,
                "by": fix.flagged_by,
                "verdict": fix.verdict or "not decided yet",
            }
            for fix in found
        ]
    show(rows, as_json=json, empty="No fix was ever flagged.")


@app.command()
def withdraw(
    fix: Annotated[int, typer.Argument(min=1, help="The fix, as `dlq fixes list` lists it.")],
    reason: Reason,
    actor: Actor,
    json: Json = False,
) -> None:
    """End a fix whose claim is taken back. What it has released stays with the worker; nothing else follows.

    Example: `dlq fixes withdraw 1 --reason "rolled back upstream"`
    """
    from datetime import UTC, datetime

    from dlq_pipelines.installation import open_connection
    from dlq_pipelines.retries.retry import withdraw_fix
    from dlq_pipelines.settings import read_settings

    with open_connection(read_settings()) as connection:
        done = withdraw_fix(connection, fix, now=datetime.now(UTC), actor=actor, reason=reason)
    show(
        [asdict(done)] if json else [{"fix": done.id, "state": done.status.value, "verdict": done.verdict or ""}],
        as_json=json,
        empty="",
    )
