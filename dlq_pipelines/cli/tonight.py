"""`dlq tonight`: what began, what is back, what rose, which alerts fire, and what to do next."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.output import (
    OutputFormat,
    print_record,
    print_table,
    with_output_format,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import format_count, sanitize_line

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.alerts.alert import Alert
    from dlq_pipelines.causes.recent import RecentCause, RecentDeaths

_SHOWN_ALERTS = 20
app = typer.Typer()


@app.command("tonight")
@with_output_format
def show_tonight_command(
    since: Annotated[
        str,
        typer.Option(
            help="From this time until now: 2h, today, yesterday, 2026-11-24T18:30.",
            metavar="TIME",
        ),
    ] = "12h",
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Show what failed lately: new causes, those that are back, those that rose, and alerts.

    Example: `dlq tonight --since 2h`
    """
    from dlq_pipelines.alerts.alert import NoticeKind, list_alerts, list_transitions
    from dlq_pipelines.causes.recent import list_recent_causes
    from dlq_pipelines.day import parse_past_time
    from dlq_pipelines.installation import build_alert_policy

    now = datetime.now(UTC)
    with open_session() as (connection, settings):
        at = parse_past_time("since", since, settings.zone, now=now)
        recent = list_recent_causes(connection, since=at, now=now, zone=settings.zone)
        alerts = [
            alert
            for alert in list_alerts(connection, limit=_SHOWN_ALERTS)
            if alert.state(now) == "firing"
        ]
        with connection.transaction():  # no sensor may run tonight
            policy = build_alert_policy(settings, sends=False)
            unrecorded = [
                transition.alert
                for transition in list_transitions(connection, now=now, policy=policy)
                if transition.notice is NoticeKind.FIRED
            ]
    if format is not OutputFormat.TABLE:
        print_record(
            {
                "since": at,
                "causes": [asdict(item) for item in recent.causes],
                "unclassified": recent.unclassified,
                "alerts": [asdict(alert) for alert in alerts],
                "unrecorded_alerts": [asdict(alert) for alert in unrecorded],
            },
            format=format,
        )
        return
    _print_causes(recent)
    typer.echo()
    _print_alerts(alerts, unrecorded)
    if recent.causes:
        typer.echo(f"\nNext:\n{_list_next_commands(recent.causes[0])}")


def _print_causes(recent: "RecentDeaths") -> None:
    from dlq_pipelines.causes.recent import Recency

    print_table(
        [
            {
                "state": item.recency.value,
                "cause": item.cause.id,
                "deaths": item.deaths,
                "usual": "" if item.usual is None else f"{item.usual:,.1f}",
                "dead now": item.cause.dead,
                "first death": item.first_death,
                "began": item.cause.beginning if item.recency is Recency.NEW else "",
                "title": sanitize_line(item.cause.title, 100),
            }
            for item in recent.causes
        ],
        empty="Nothing died since then."
        if not recent.unclassified
        else "No death since then has a cause yet.",
        optional=("first death", "usual", "dead now", "began"),
    )
    if recent.unclassified:
        count = format_count(recent.unclassified, "death")
        typer.echo(f"{count} without a cause yet: `dlq causes classify` classifies them now.")


def _print_alerts(alerts: "list[Alert]", unrecorded: "list[Alert]") -> None:
    if alerts or not unrecorded:
        print_table(
            [_summarize_alert(alert) | {"since": alert.fired_at} for alert in alerts],
            empty="No alert fires.",
            optional=("since",),
        )
    if unrecorded:
        if alerts:
            typer.echo()
        typer.echo(
            "These alerts fire now, but no run has recorded and sent them. If that lasts for "
            "minutes, the dead_event_alert_sensor does not run; `dlq doctor` says why."
        )
        print_table([_summarize_alert(alert) for alert in unrecorded[:_SHOWN_ALERTS]], empty="")


def _summarize_alert(alert: "Alert") -> dict[str, object]:
    return {
        "key": alert.key,
        "severity": alert.severity,
        "alert": sanitize_line(alert.summary, 100),
    }


def _list_next_commands(first: "RecentCause") -> str:
    commands = (
        f"dlq causes show {first.cause.id}",
        f"dlq causes explain {first.cause.id}",
        f"dlq dead-events list --cause {first.cause.id} --limit 5",
    )
    return "\n".join(f"  {command}" for command in commands)
