"""`/api/alerts`: what is wrong, who was told, and who shall not be?"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from dlq_pipelines.alerts.alert import Alert, list_alerts, silence_alert
from dlq_pipelines.alerts.delivery import Channel, list_channels
from dlq_pipelines.api.auth import Admin, Reader
from dlq_pipelines.api.filters import After, Body, DryRun, Limit, Reason
from dlq_pipelines.api.session import Outbox
from dlq_pipelines.audit import RunOptions

router = APIRouter(prefix="/api/alerts", tags=["alerts"])


class Silence(Body):
    """Which alert nobody is told of, for how many hours; 0 ends it."""

    key: str = Field(min_length=1, max_length=500, description="The alert, as the list names it.")
    hours: float = Field(default=8, ge=0, le=720)
    reason: Reason
    dry_run: DryRun = False


@dataclass(frozen=True)
class ShownAlert(Alert):
    """An alert, and whether it is firing, silenced or resolved."""

    state_now: Annotated[str, Field(serialization_alias="state")] = ""


@dataclass(frozen=True)
class AlertList:
    """Alerts, what fires first, and how the channels are doing; addresses are never shown.

    `next` is the `after` of the next page, null on the last.
    """

    alerts: list[ShownAlert]
    count: int
    limit: int
    next: str | None
    channels: list[Channel]


@router.get("")
def list_(_: Reader, outbox: Outbox, limit: Limit = 50, after: After = None) -> AlertList:
    """Alerts: what fires, the gravest first, then what ended last."""
    now, alerts = datetime.now(UTC), list_alerts(outbox, limit=limit, after=after)
    found = [ShownAlert(**vars(alert), state_now=alert.state(now)) for alert in alerts]
    return AlertList(
        found,
        len(found),
        limit,
        alerts[-1].cursor if len(alerts) == limit else None,
        list_channels(outbox),
    )


@router.post("/silence")
def silence(caller: Admin, asked: Silence, outbox: Outbox) -> Alert:
    """Tell nobody of an alert for some hours. That it is over is told all the same."""
    audit = caller.sign(asked.reason)
    return silence_alert(
        outbox,
        asked.key,
        audit.now + timedelta(hours=asked.hours) if asked.hours else None,
        audit=audit,
        options=RunOptions(dry_run=asked.dry_run),
    )
