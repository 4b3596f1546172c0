"""`dlq up`: the Dagster UI and daemon, until Ctrl-C."""

from typing import Annotated

import typer


def up(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the UI, on 127.0.0.1.")
    ] = 3000,
) -> None:
    """Run Dagster's UI and daemon on this installation's data. Ctrl-C stops all of it.

    Without DLQ_DATABASE_URL it works on the embedded server, and schedules and sensors start by themselves. On a
    server of yours they start stopped, unless DLQ_AUTOSTART=true.

    Example: `dlq up --port 3001`
    """
    from dlq_pipelines.serving import serve_dagster
    from dlq_pipelines.settings import read_settings

    typer.echo(f"Starting Dagster on http://127.0.0.1:{port}. Ctrl-C stops all of it.", err=True)
    raise typer.Exit(serve_dagster(read_settings(), port=port))
