"""`dlq up`: run Dagster's UI and daemon until Ctrl-C."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command("up")
def up_command(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the UI, on 127.0.0.1.")
    ] = 3000,
) -> None:
    """Run Dagster's UI and daemon for this installation. Ctrl-C stops them.

    Without DLQ_DATABASE_URL they use the embedded server, and schedules and sensors start running.
    On your own server schedules and sensors start stopped, unless DLQ_AUTOSTART=true.

    Example: `dlq up --port 3001`
    """
    from dlq_pipelines.serving import serve_dagster
    from dlq_pipelines.settings import read_settings

    typer.echo(f"Starting Dagster on http://127.0.0.1:{port}. Ctrl-C stops it.", err=True)
    raise typer.Exit(serve_dagster(read_settings(), port=port))
