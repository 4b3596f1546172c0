"""`dlq tokens`: create tokens for the HTTP API."""

from typing import Annotated, Literal

import typer

from dlq_pipelines.cli.output import print_json

app = typer.Typer(
    name="tokens",
    help="Tokens of the HTTP API.\n\nExample: `dlq tokens new grafana --scope read`",
    no_args_is_help=True,
)


@app.command("new")
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
