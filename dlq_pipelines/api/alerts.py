"""Serves `/api/alerts`: lists and silences alerts."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from dlq_pipelines.alerts.alert import Alert, list_alerts, silence_alert
from dlq_pipelines.alerts.delivery import Channel, list_channels
from dlq_pipelines.api.auth import Admin, Reader
from dlq_pipelines.api.filters import After, ChangeBody, Limit
from dlq_pipelines.api.session import Outbox

router = APIRouter(prefix="/api/alerts", tags=["alerts"])


class SilenceBody(ChangeBody):
    """The alert to silence, and for how many hours; 0 ends the silence."""

    key: str = Field(
        min_length=1, max_length=500, description="Key of the alert, as the list shows it."
    )
    hours: float = Field(default=8, ge=0, le=720)


@dataclass(frozen=True)
class ShownAlert(Alert):
    """An alert and its state: firing, silenced or resolved."""

    state_now: Annotated[str, Field(serialization_alias="state")] = ""


@dataclass(frozen=True)
class AlertList:
    """Alerts, firing ones first, and the state of the channels, without URLs.

    `next` is the `after` of the next page, null on the last.
    """

    alerts: list[ShownAlert]
    count: int
    limit: int
    next: str | None
    channels: list[Channel]


@router.get("")
def get_alerts(_: Reader, outbox: Outbox, limit: Limit = 50, after: After = None) -> AlertList:
    """List firing alerts, the most severe first, then resolved alerts, the latest first."""
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
def post_silence(caller: Admin, body: SilenceBody, outbox: Outbox) -> Alert:
    """Silence an alert for some hours. The notice of its resolution is sent anyway."""
    change = body.sign(caller)
    until = change["audit"].now + timedelta(hours=body.hours) if body.hours else None
    return silence_alert(outbox, body.key, until, **change)
