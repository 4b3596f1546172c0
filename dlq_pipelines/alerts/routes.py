"""Routes notices to channels by the entries of `DLQ_ALERT_URLS`.

White space separates the entries. An entry is a URL that Apprise supports, or http(s):// for the
signed webhook, after at most two conditions: the lowest severity, and a pattern for the event type.

    slack://token-a/token-b/token-c
    critical:pagerduty://integration@key
    event_type=order.*:mailto://user:password@mail.example.com?to=orders@example.com
    warning:event_type=order.*:https://example.com/hooks/dead-letters
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256

from dlq_pipelines.alerts.rules import Severity

_ENTRY = re.compile(
    r"(?:(?P<severity>info|warning|critical):(?!//))?(?:event_type=(?P<pattern>[^:\s]+):)?(?P<url>[a-z][\w+.-]*://\S+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Route:
    """A channel and the notices that it receives.

    Attributes:
        url: where notices go; never shown, because it holds secrets.
        least: the lowest severity that the channel receives.
        event_types: a pattern (`*`, `?`) of event types; None: all notices.
    """

    url: str = field(repr=False)
    least: Severity = Severity.INFO
    event_types: str | None = None

    @property
    def channel(self) -> str:
        """The id of the channel: the scheme, and six digits of the hash of the URL."""
        return compute_channel_id(self.url)

    def takes(self, severity: Severity, event_type: str | None) -> bool:
        """Return whether the channel receives a notice.

        A notice without an event type goes only to channels without a pattern.
        """
        if severity.rank < self.least.rank:
            return False
        return self.event_types is None or (
            event_type is not None and fnmatchcase(event_type, self.event_types)
        )


def compute_channel_id(url: str) -> str:
    """Return an id for a URL that can be shown.

    Any part of a URL can be a secret, and a position in the list changes with the list.
    """
    return f"{url.partition('://')[0].lower()}:{sha256(url.encode()).hexdigest()[:6]}"


def parse_routes(text: str) -> tuple[Route, ...]:
    """Parse `DLQ_ALERT_URLS`.

    Raises:
        ValueError: an entry is invalid; the message gives its position and no part of it, because
            it can be a secret.
    """
    routes = []
    for place, entry in enumerate(text.split(), 1):
        read = _ENTRY.fullmatch(entry)
        if read is None:
            raise ValueError(
                f"entry {place} is not a URL: write [severity:][event_type=pattern:]scheme://..."
            )
        least = Severity(read["severity"].lower()) if read["severity"] else Severity.INFO
        routes.append(Route(read["url"], least, read["pattern"]))
    return tuple(routes)


def select_channels(
    routes: Iterable[Route], severity: Severity, event_type: str | None
) -> list[str]:
    """Return the ids of the channels that receive a notice."""
    return sorted({route.channel for route in routes if route.takes(severity, event_type)})
