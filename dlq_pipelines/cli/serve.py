"""`dlq serve`: the HTTP API, until Ctrl-C. `dlq tokens`: who may use it?"""

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from dlq_pipelines.cli.output import print_json


class Scope(StrEnum):
    """What a token allows; each one also what stands before it."""

    READ = "read"
    RETRY = "retry"
    ADMIN = "admin"


tokens = typer.Typer(help="Tokens of the HTTP API.", no_args_is_help=True)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Serve the HTTP API; what it offers is described at /docs. Ctrl-C stops it.

    Without DLQ_API_TOKENS everybody on this machine may use it, and it listens on no address that others can reach.

    Example: `dlq serve --port 8081`
    """
    from dlq_pipelines.api.server import serve_api
    from dlq_pipelines.settings import read_settings

    shown = f"[{host}]" if ":" in host else host
    said = f"Serving on http://{shown}:{port}, described at /docs. Ctrl-C stops it."
    announce = partial(typer.echo, said, err=True)
    raise typer.Exit(serve_api(read_settings(), host=host, port=port, announce=announce))


@tokens.callback()
def tokens_() -> None:
    """Tokens of the HTTP API."""


@tokens.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Whose it is: the actor in the audit.", metavar="NAME")
    ],
    scope: Annotated[
        Scope, typer.Option(help="read; retry: also bring events back; admin: all.")
    ] = Scope.READ,
    json: Annotated[
        bool, typer.Option("--json", help="Print name, scope, token and entry as JSON.")
    ] = False,
) -> None:
    """Make a token. It is shown once; DLQ_API_TOKENS gets its hash alone.

    Example: `dlq tokens new grafana --scope read`
    """
    from dlq_pipelines.api.auth import TokenScope as ApiScope
    from dlq_pipelines.api.auth import create_token

    secret, token = create_token(name, ApiScope(scope))
    if json:
        print_json({"name": name, "scope": scope, "token": secret, "entry": str(token)})
        return
    typer.echo(f"token, for {name}, shown only now:  {secret}")
    typer.echo(f"entry, for DLQ_API_TOKENS:  {token}")
