"""Which channel is told of what?

`DLQ_ALERT_URLS` holds entries between white space. An entry is an address that Apprise knows, or http(s):// for the
signed webhook, with at most two conditions before it: the least severity, and a pattern for the event type.

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
    """An address and what it is told.

    Attributes:
        url: where to; never shown, it holds secrets.
        least: less severe ones are not told.
        event_types: only alerts of an event type that this pattern (`*`, `?`) matches; None: all.
    """

    url: str = field(repr=False)
    least: Severity = Severity.INFO
    event_types: str | None = None

    @property
    def channel(self) -> str:
        """How the channel is called: its scheme, and enough of a hash to tell two apart and to guess nothing by."""
        return compute_channel_id(self.url)

    def takes(self, severity: Severity, event_type: str | None) -> bool:
        """Whether the channel is told of that. What is of no event type goes to those that ask for none."""
        if severity.rank < self.least.rank:
            return False
        return self.event_types is None or (
            event_type is not None and fnmatchcase(event_type, self.event_types)
        )


def compute_channel_id(url: str) -> str:
    """The name of an address that can be shown."""
    return f"{url.partition('://')[0].lower()}:{sha256(url.encode()).hexdigest()[:6]}"


def parse_routes(text: str) -> tuple[Route, ...]:
    """The entries of `DLQ_ALERT_URLS`.

    Raises:
        ValueError: an entry is none; the message gives its place and nothing of it, because it may be a secret.
    """
    routes = []
    for place, entry in enumerate(text.split(), 1):
        read = _ENTRY.fullmatch(entry)
        if read is None:
            raise ValueError(
                f"entry {place} is no address: write [severity:][event_type=pattern:]scheme://..."
            )
        least = Severity(read["severity"].lower()) if read["severity"] else Severity.INFO
        routes.append(Route(read["url"], least, read["pattern"]))
    return tuple(routes)


def select_channels(
    routes: Iterable[Route], severity: Severity, event_type: str | None
) -> list[str]:
    """The channels to tell, each once."""
    return sorted({route.channel for route in routes if route.takes(severity, event_type)})
