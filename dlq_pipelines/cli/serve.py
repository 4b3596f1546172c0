"""`dlq serve`: run the HTTP API until Ctrl-C. `dlq tokens`: create tokens for it."""

from functools import partial
from typing import Annotated, Literal

import typer

from dlq_pipelines.cli.output import print_json

tokens_app = typer.Typer(
    help="Tokens of the HTTP API.\n\nExample: `dlq tokens new grafana --scope read`",
    no_args_is_help=True,
)


def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Serve the HTTP API, which is described at /docs. Ctrl-C stops it.

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


@tokens_app.command("new")
def create_token_command(
    name: Annotated[
        str, typer.Argument(help="Its owner: the actor in the audit log.", metavar="NAME")
    ],
    scope: Annotated[
        Literal["read", "retry", "admin"],
        typer.Option(help="read; retry: read and retry events; admin: everything."),
    ] = "read",
    json: Annotated[
        bool, typer.Option("--json", help="Print name, scope, token and entry as JSON.")
    ] = False,
) -> None:
    """Create a token. It is shown once; DLQ_API_TOKENS gets only its hash.

    Example: `dlq tokens new grafana --scope read`
    """
    from dlq_pipelines.api import auth

    secret, token = auth.create_token(name, auth.TokenScope(scope))
    if json:
        print_json({"name": name, "scope": scope, "token": secret, "entry": str(token)})
        return
    typer.echo(f"token for {name}, shown only now:  {secret}")
    typer.echo(f"entry for DLQ_API_TOKENS:  {token}")
