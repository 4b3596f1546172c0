"""`dlq causes`: why do events die?"""

from dataclasses import asdict
from typing import Annotated

import typer

from dlq_pipelines.cli.output import Json, show

app = typer.Typer(help="The causes of death.", no_args_is_help=True)


@app.callback()
def causes() -> None:
    """The causes of death."""


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50, json: Json = False
) -> None:
    """List causes, those with most dead events now first.

    Example: `dlq causes list --limit 10`
    """
    from dlq_pipelines.causes.catalogue import list_causes
    from dlq_pipelines.installation import open_connection
    from dlq_pipelines.settings import read_settings

    with open_connection(read_settings()) as connection:
        found = list_causes(connection, limit=limit)
    rows = [asdict(cause) for cause in found]
    if not json:
        rows = [
            {
                "cause": cause.id,
                "state": cause.status,
                "dead now": cause.dead,
                "deaths": cause.deaths,
                "what": cause.title[:100],
            }
            for cause in found
        ]
    show(rows, as_json=json, empty="No cause is known: nothing has died and been classified yet.")
