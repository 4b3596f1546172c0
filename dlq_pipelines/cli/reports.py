"""`dlq reports`: build, open and show the daily failure reports."""

import sys
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.mutation import DryRun
from dlq_pipelines.cli.output import OutputFormat, print_list, with_output_format
from dlq_pipelines.cli.progress import show_progress
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.day import validate_year
from dlq_pipelines.text import unescape_markdown

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.exports.target import Target
    from dlq_pipelines.postgres.connect import Connection
    from dlq_pipelines.reports.report import Report
    from dlq_pipelines.settings import Settings


class ReportFormat(StrEnum):
    """The format of a report in the terminal."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


app = typer.Typer(
    name="reports",
    help="The daily failure reports.\n\nExample: `dlq reports show`",
    no_args_is_help=True,
)
Day = Annotated[
    str | None,
    typer.Option(
        metavar="DATE", help="The day, such as 2026-11-24, in DLQ_TIMEZONE. Default: yesterday."
    ),
]


@app.command("build")
@with_output_format
def build_reports_command(
    day: Day = None,
    days: Annotated[
        int, typer.Option(min=1, max=366, help="Number of days, --day being the last.")
    ] = 1,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Build the reports of one or more days, and the list of reports. Repeatable.

    Example: `dlq reports build --days 7`
    """
    from dlq_pipelines.installation import build_links, open_reports_target

    with open_session() as (connection, settings):
        last, target = _parse_day(day, settings), open_reports_target(settings)
        built = []
        with show_progress("Build", "report", total=days) as report_progress:
            for ago in range(days - 1, -1, -1):
                built.append(
                    _build_report(
                        connection, settings, target, last - timedelta(days=ago), dry_run=dry_run
                    )
                )
                report_progress(len(built))
    rows, brief, links = [], [], build_links(settings)
    for report in built:
        row = {"day": str(report.day), "headline": report.headline}
        files, place = [*report.places.values()], report.places["html"]
        link = links.link_report(report.day)
        rows.append({**row, "report": place, "link": link, "files": files, "dry_run": dry_run})
        brief.append(
            row | ({"would write": ", ".join(files)} if dry_run else {"report": link or place})
        )
    print_list("reports", rows, format=format, brief=brief)


@app.command("open")
def open_report_command(day: Day = None) -> None:
    """Open the report of a day in the browser. A report that does not exist is built first.

    Example: `dlq reports open --day 2026-11-24`
    """
    import webbrowser

    from dlq_pipelines.installation import get_reports_folder, open_reports_target
    from dlq_pipelines.reports.publish import fetch_report_page

    with open_session() as (connection, settings):
        wanted, target, folder = (
            _parse_day(day, settings),
            open_reports_target(settings),
            get_reports_folder(settings),
        )
        page = fetch_report_page(target, wanted, folder=folder)
        if page is None:
            _build_report(connection, settings, target, wanted)
            page = fetch_report_page(target, wanted, folder=folder)
    typer.echo(page)
    if page is None or not webbrowser.open(Path(page).as_uri()):
        typer.echo("No browser could be started. Open this file in a browser.")


@app.command("show")
def show_report_command(
    day: Day = None,
    format: Annotated[
        ReportFormat,
        typer.Option(help="text for people; json and markdown as in the report's files."),
    ] = ReportFormat.TEXT,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Print the report of a day from the ledger. Writes no file.

    Example: `dlq reports show --day 2026-11-24`
    """
    from dlq_pipelines.installation import build_report_policy
    from dlq_pipelines.reports.report import make_report

    with open_session() as (connection, settings):
        report = make_report(
            connection,
            day=_parse_day(day, settings),
            zone=settings.zone,
            policy=build_report_policy(settings),
            now=datetime.now(UTC),
        )
    if json and format is ReportFormat.MARKDOWN:
        raise ValueError("--json cannot be combined with --format markdown.")
    if json or format is ReportFormat.JSON:
        typer.echo(report.json, nl=False)
    elif format is ReportFormat.MARKDOWN:
        typer.echo(report.markdown, nl=False)
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(report.markdown, hyperlinks=False))
    else:
        typer.echo(unescape_markdown(report.markdown), nl=False)


def _build_report(
    connection: "Connection",
    settings: "Settings",
    target: "Target",
    day: date,
    *,
    dry_run: bool = False,
) -> "Report":
    from dlq_pipelines.installation import build_report_policy
    from dlq_pipelines.reports.report import build_report

    policy, now = build_report_policy(settings), datetime.now(UTC)
    return build_report(
        connection,
        day=day,
        zone=settings.zone,
        target=target,
        policy=policy,
        now=now,
        dry_run=dry_run,
    )


def _parse_day(text: str | None, settings: "Settings") -> date:
    if text is None:
        return datetime.now(settings.zone).date() - timedelta(days=1)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--day: {text!r} is not a day. Write it as 2026-11-24.") from None
    validate_year(day)
    return day
