"""`dlq serve`: serve the pages and the HTTP API until Ctrl-C."""

from functools import partial
from typing import Annotated

import typer

app = typer.Typer()


@app.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Serve the pages and the HTTP API, which is described at /docs. Ctrl-C stops it.

    Without DLQ_API_TOKENS every user of this machine may use it, and it refuses to listen on
    addresses that other machines can reach.

    Example: `dlq serve --port 8081`
    """
    from dlq_pipelines.api.server import serve_api
    from dlq_pipelines.settings import read_settings

    address = f"[{host}]" if ":" in host else host
    line = f"Serving on http://{address}:{port}, described at /docs. Ctrl-C stops it."
    announce = partial(typer.echo, line, err=True)
    raise typer.Exit(serve_api(read_settings(), host=host, port=port, announce=announce))
