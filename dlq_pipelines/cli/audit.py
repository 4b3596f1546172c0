"""`dlq audit`: who changed what, when and why."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from dlq_pipelines.cli.output import (
    Limit,
    OutputFormat,
    list_columns,
    print_page,
    with_output_format,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import sanitize_line

app = typer.Typer(
    name="audit",
    help="The audit log: who changed what, when and why.\n\nExample: `dlq audit list --limit 10`",
    no_args_is_help=True,
)


@app.callback()
def audit_command() -> None:
    """Keep the group: Typer would take its only command for the group itself."""


@app.command("list")
@with_output_format
def list_audit_entries_command(
    since: Annotated[
        str | None,
        typer.Option("--since", help="From this time on, such as 2h, yesterday or an ISO time."),
    ] = None,
    limit: Limit = 50,
    after: Annotated[
        int | None, typer.Option(min=1, help="`next` of the previous page.", metavar="ID")
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List the changes, the latest first.

    Example: `dlq audit list --since yesterday`
    """
    from dlq_pipelines.audit import AuditEntry, list_audit_entries
    from dlq_pipelines.day import parse_past_time

    with open_session() as (connection, settings):
        at = since and parse_past_time("since", since, settings.zone, now=datetime.now(UTC))
        found = list_audit_entries(connection, limit=limit, after=after, since=at or None)
    print_page(
        "entries",
        [asdict(entry) for entry in found],
        cursor=str(found[-1].id) if len(found) == limit else None,
        format=format,
        brief=[
            {
                "id": entry.id,
                "at": entry.at,
                "change": entry.kind,
                "events": entry.events,
                "actor": entry.actor,
                "reason": sanitize_line(entry.reason, 100),
                "of": sanitize_line(json.dumps(entry.filter), 100),
            }
            for entry in found
        ],
        empty="No older changes."
        if after is not None
        else f"Nothing was changed since {since}."
        if since
        else "Nothing was changed yet.",
        header=list_columns(AuditEntry),
        optional=("of", "events", "at"),
    )
