"""`dlq alerts`: list alerts, test their channels, silence one."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.cli.mutation import (
    NOTHING_CHANGED,
    Actor,
    DryRun,
    Reason,
    prepare_change,
)
from dlq_pipelines.cli.output import (
    After,
    Limit,
    OutputFormat,
    format_local_time,
    list_columns,
    print_list,
    print_page,
    print_record,
    with_output_format,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.errors import DlqError, RefusedError

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.alerts.alert import Alert

app = typer.Typer(
    name="alerts",
    help="Alerts and the channels that they are sent to.\n\n"
    "DLQ_ALERT_URLS lists the channels. Conditions precede an address: a lowest severity "
    "(`critical:`), and patterns for the event type (`event_type=order.*:`) and the owner of the "
    "cause (`owner=payments*:`).\n\n"
    "Example: `dlq alerts list`",
    no_args_is_help=True,
)


@app.command("list")
@with_output_format
def list_alerts_command(
    limit: Limit = 50,
    after: After = None,
    channels: Annotated[
        bool, typer.Option("--channels", help="List the state of the channels instead.")
    ] = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List alerts, firing ones first, by severity.

    Ended alerts follow, the latest first. Addresses of channels are never shown.

    Example: `dlq alerts list --limit 20`
    """
    from dlq_pipelines.alerts.alert import Alert, list_alerts

    now = datetime.now(UTC)
    if channels:
        _print_channels(format=format)
        return
    with open_session() as (connection, _):
        found = list_alerts(connection, limit=limit, after=after)
    print_page(
        "alerts",
        [asdict(alert) | {"state": alert.state(now)} for alert in found],
        cursor=found[-1].cursor if len(found) == limit else None,
        format=format,
        brief=[_summarize_alert(alert, now) for alert in found],
        empty="No alert is recorded. The dead_event_alert_sensor evaluates the rules every minute; "
        "`dlq tonight` does so now.",
        header=list_columns(Alert, "state"),
        optional=("silenced until", "sent", "since"),
    )


def _summarize_alert(alert: "Alert", now: datetime) -> dict[str, Any]:
    is_silenced = alert.silenced_until is not None and alert.silenced_until > now
    return {
        "key": alert.key,
        "state": alert.state(now),
        "severity": alert.severity,
        "since": alert.fired_at,
        "sent": alert.notified_at or "",
        "silenced until": alert.silenced_until if is_silenced else "",
        "summary": alert.summary[:100],
    }


def _print_channels(*, format: OutputFormat) -> None:
    from dlq_pipelines.alerts.delivery import Channel, list_channels

    with open_session() as (connection, _):
        rows = [asdict(channel) for channel in list_channels(connection)]
    empty = "Nothing was ever sent to a channel."
    print_list("channels", rows, format=format, empty=empty, header=list_columns(Channel))


@app.command("test")
@with_output_format
def send_test_command(dry_run: DryRun = False, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Send a test message to every channel.

    The conditions of a channel do not apply. Exits with 1 if a channel did not accept it.

    Example: `dlq alerts test --dry-run`, then `dlq alerts test`
    """
    from dlq_pipelines.alerts.delivery import send_test_message
    from dlq_pipelines.installation import build_alert_sender
    from dlq_pipelines.settings import read_settings

    sender = build_alert_sender(read_settings())
    if not sender.routes:
        raise RefusedError(
            "There is no channel to test: DLQ_ALERT_URLS is not set. Nothing was sent.",
            "Set DLQ_ALERT_URLS to the address of a channel.",
        )
    results = (
        dict.fromkeys(sender.urls, "would be sent")
        if dry_run
        else send_test_message(sender, now=datetime.now(UTC))
    )
    rows = [{"channel": name, "result": result or "sent"} for name, result in results.items()]
    print_list("channels", rows, format=format, added={"dry_run": dry_run})
    failed = [name for name, error in results.items() if error is not None and not dry_run]
    if failed:
        raise DlqError(
            f"{len(failed)} of {len(results)} channels did not accept the message.",
            "Check their addresses in DLQ_ALERT_URLS.",
        )


@app.command("silence")
@with_output_format
def silence_alert_command(
    key: Annotated[
        str, typer.Argument(help="The alert, as `dlq alerts list` lists it.", metavar="KEY")
    ],
    reason: Reason,
    actor: Actor,
    hours: Annotated[
        float, typer.Option(min=0, max=720, help="Length of the silence; 0 ends it.")
    ] = 8,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Silence an alert for some hours. The message that it has ended is still sent.

    Example: `dlq alerts silence backlog --hours 4 --reason "carrier is working on it" --dry-run`
    """
    from dlq_pipelines.alerts.alert import silence_alert

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    if isnan(hours):
        raise ValueError("--hours: nan is not a number of hours. Write it as 8 or 0.5.")
    until = audit.now + timedelta(hours=hours) if hours else None
    with open_session() as (connection, settings):
        silenced = silence_alert(connection, key, until, audit=audit, options=options)
    if format is not OutputFormat.TABLE:
        print_record(asdict(silenced) | {"dry_run": dry_run}, format=format)
        return
    end = until and format_local_time(until, settings.zone)
    typer.echo(
        f"{silenced.key} is silenced until {end}." if end else f"{silenced.key} is not silenced."
    )
    if dry_run:
        typer.echo(NOTHING_CHANGED)
