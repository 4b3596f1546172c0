"""`dlq deployments`: note deployments, which causes and fixes are shown with."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.mutation import (
    NOTHING_CHANGED,
    REASON_HELP,
    Actor,
    DryRun,
    prepare_change,
)
from dlq_pipelines.cli.output import (
    Limit,
    OutputFormat,
    format_local_time,
    list_columns,
    print_page,
    print_record,
    with_output_format,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import sanitize_line

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from typing import Any

    from dlq_pipelines.deployments import Deployment

app = typer.Typer(
    name="deployments",
    help="Deployments of services, which causes and fixes are shown with.\n\n"
    "Example: `dlq deployments note checkout v42`",
    no_args_is_help=True,
)


@app.command("note")
@with_output_format
def note_deployment_command(
    service: Annotated[str, typer.Argument(help="What was deployed.", metavar="SERVICE")],
    version: Annotated[str, typer.Argument(help="Its version or commit.", metavar="VERSION")],
    actor: Actor,
    reason: Annotated[str, typer.Option(help=REASON_HELP)] = "deployed",
    link: Annotated[str | None, typer.Option(help="Address of the change.")] = None,
    deployed_at: Annotated[
        str | None,
        typer.Option(help="When: 10m, 2026-11-24T18:30. Default: now.", metavar="TIME"),
    ] = None,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Note a deployment. A cause that begins within the hour is shown with it.

    The same service, version and time are noted once; without a time, the same version within ten
    minutes.

    Example: `dlq deployments note checkout v42 --link https://git.example.org/checkout/v42`
    """
    from dlq_pipelines.day import parse_past_time
    from dlq_pipelines.deployments import note_deployment

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        noted = note_deployment(
            connection,
            service,
            version,
            link=link,
            deployed_at=None
            if deployed_at is None
            else parse_past_time("deployed_at", deployed_at, settings.zone, now=datetime.now(UTC)),
            audit=audit,
            options=options,
        )
    if format is not OutputFormat.TABLE:
        print_record(asdict(noted) | {"dry_run": dry_run}, format=format)
        return
    when = format_local_time(noted.deployed_at, settings.zone)
    typer.echo(f"{'Would note' if dry_run else f'Deployment {noted.id}:'} {noted} at {when}.")
    if dry_run:
        typer.echo(NOTHING_CHANGED)


@app.command("list")
@with_output_format
def list_deployments_command(
    service: Annotated[str | None, typer.Option(help="Only those of this service.")] = None,
    limit: Limit = 50,
    after: Annotated[
        int | None, typer.Option(min=1, help="`next` of the previous page.", metavar="ID")
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List deployments, the one that was noted last first.

    Example: `dlq deployments list --limit 10`
    """
    from dlq_pipelines.deployments import Deployment, list_deployments

    with open_session() as (connection, _):
        found = list_deployments(connection, service=service, limit=limit, after=after)
    print_page(
        "deployments",
        [asdict(deployment) for deployment in found],
        cursor=found[-1].id if len(found) == limit else None,
        format=format,
        brief=[_summarize_deployment(deployment) for deployment in found],
        empty="No deployment was noted. `dlq deployments note checkout v42` notes one."
        if service is None and after is None
        else "No deployments match.",
        header=list_columns(Deployment),
        optional=("link", "by"),
    )


def _summarize_deployment(deployment: "Deployment") -> "dict[str, Any]":
    return {
        "id": deployment.id,
        "service": sanitize_line(deployment.service, 80),
        "version": sanitize_line(deployment.version, 80),
        "deployed": deployment.deployed_at,
        "by": deployment.noted_by,
        "link": deployment.link or "",
    }
