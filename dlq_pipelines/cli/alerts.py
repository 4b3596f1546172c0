"""`dlq alerts`: what is wrong, who was told, and who shall not be?"""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Annotated

import typer

from dlq_pipelines.cli.mutation import Actor, DryRun, Reason, prepare_change
from dlq_pipelines.cli.output import (
    After,
    OutputFormat,
    format_local_time,
    list_columns,
    print_list,
    print_next_cursor,
    print_record,
    with_output_format,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.errors import DlqError, RefusedError

app = typer.Typer(help="Alerts and the channels that are told of them.", no_args_is_help=True)


@app.callback()
def alerts() -> None:
    """Alerts and the channels that are told of them."""


@app.command("list")
@with_output_format
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    after: After = None,
    channels: Annotated[
        bool, typer.Option("--channels", help="How the channels are doing instead.")
    ] = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List alerts: what fires, the gravest first, then what ended last. Addresses of channels are never shown.

    Example: `dlq alerts list --limit 20`
    """
    from dlq_pipelines.alerts.alert import Alert, list_alerts
    from dlq_pipelines.alerts.delivery import Channel, list_channels

    now = datetime.now(UTC)
    with open_session() as (connection, _):
        if channels:
            doing = [asdict(one) for one in list_channels(connection)]
            empty = "Nothing was ever sent to a channel."
            print_list("channels", doing, format=format, empty=empty, header=list_columns(Channel))
            return
        found = list_alerts(connection, limit=limit, after=after)
    rows = [asdict(one) | {"state": one.state(now)} for one in found]
    brief = [
        {
            "key": one.key,
            "state": one.state(now),
            "severity": one.severity,
            "since": one.fired_at,
            "notified": one.notified_at or "",
            "silenced until": one.silenced_until
            if one.silenced_until and one.silenced_until > now
            else "",
            "what": one.summary[:100],
        }
        for one in found
    ]
    more = found[-1].cursor if len(found) == limit else None
    print_list(
        "alerts",
        rows,
        format=format,
        brief=brief,
        empty="No alert has fired. The sensor dead_event_alert_sensor looks each minute.",
        header=list_columns(Alert, "state"),
        spare=("silenced until", "told", "since"),
        also={"next": more},
    )
    print_next_cursor(more, format=format)


@app.command("test")
@with_output_format
def send(dry_run: DryRun = False, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Send a test message to every channel of DLQ_ALERT_URLS, past its conditions. Fails when one did not get it.

    Example: `dlq alerts test --dry-run`, then `dlq alerts test`
    """
    from dlq_pipelines.alerts.delivery import send_test_message
    from dlq_pipelines.installation import build_alert_sender
    from dlq_pipelines.settings import read_settings

    sender = build_alert_sender(read_settings())
    if not sender.routes:
        raise RefusedError(
            "DLQ_ALERT_URLS is not set, so there is no channel to test. Nothing was sent."
        )
    results = (
        dict.fromkeys(sender.urls, "would be sent")
        if dry_run
        else send_test_message(sender, now=datetime.now(UTC))
    )
    rows = [{"channel": name, "result": said or "sent"} for name, said in results.items()]
    print_list("channels", rows, format=format, also={"dry_run": dry_run})
    failed = [name for name, error in results.items() if error is not None and not dry_run]
    if failed:
        raise DlqError(
            f"{len(failed)} of {len(results)} channels did not get it. Check their addresses."
        )


@app.command()
@with_output_format
def silence(
    key: Annotated[
        str, typer.Argument(help="The alert, as `dlq alerts list` lists it.", metavar="KEY")
    ],
    reason: Reason,
    actor: Actor,
    hours: Annotated[float, typer.Option(min=0, max=720, help="For how long; 0 ends it.")] = 8,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Tell nobody of an alert for some hours. That it is over is told all the same.

    Example: `dlq alerts silence backlog --hours 4 --reason "the carrier mends it" --dry-run`
    """
    from dlq_pipelines.alerts.alert import silence_alert

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    if isnan(hours):
        raise ValueError("--hours: nan is no number of hours. Write it as 8 or 0.5.")
    until = audit.now + timedelta(hours=hours) if hours else None
    with open_session() as (connection, settings):
        silenced = silence_alert(connection, key, until, audit=audit, options=options)
    if format is not OutputFormat.TABLE:
        print_record(asdict(silenced) | {"dry_run": dry_run}, format=format)
        return
    ends = until and format_local_time(until, settings.zone)
    typer.echo(
        f"{silenced.key} is silenced until {ends}." if ends else f"{silenced.key} is heard again."
    )
    if dry_run:
        typer.echo("Nothing was changed: this was a dry run.")
