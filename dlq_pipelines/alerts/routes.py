"""Routes notices to channels by the entries of `DLQ_ALERT_URLS`.

White space separates the entries. An entry is a URL that Apprise supports, or http(s):// for the
signed webhook, after its conditions: the lowest severity, and patterns for the event type and the
owner of the cause. `*` stands for any characters and `?` for one, such as a space.

    slack://token-a/token-b/token-c
    critical:pagerduty://integration@key
    event_type=order.*:mailto://user:password@mail.example.com?to=orders@example.com
    warning:event_type=order.*:https://example.com/hooks/dead-letters
    owner=payments*:slack://token-d/token-e/token-f
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256

from dlq_pipelines.alerts.rules import Severity

_ENTRY = re.compile(
    r"(?:(?P<severity>info|warning|critical):(?!//))?(?P<patterns>(?:(?:event_type|owner)=[^:\s]+:)*)(?P<url>[a-z][\w+.-]*://\S+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Route:
    """A channel and the notices that it receives.

    Attributes:
        url: where notices go; never shown, because it holds secrets.
        least: the lowest severity that the channel receives.
        event_types: a pattern (`*`, `?`) of event types; None: all notices.
        owners: a pattern of owners of causes; None: all notices.
    """

    url: str = field(repr=False)
    least: Severity = Severity.INFO
    event_types: str | None = None
    owners: str | None = None

    @property
    def channel(self) -> str:
        """The id of the channel: the scheme, and six digits of the hash of the URL."""
        return compute_channel_id(self.url)

    def takes(self, severity: Severity, event_type: str | None, owner: str | None = None) -> bool:
        """Return whether the channel receives a notice.

        A notice without an event type, or without an owner, goes only to channels without a pattern
        for it.
        """
        return (
            severity.rank >= self.least.rank
            and _matches(event_type, self.event_types)
            and _matches(owner, self.owners)
        )


def _matches(name: str | None, pattern: str | None) -> bool:
    return pattern is None or (name is not None and fnmatchcase(name, pattern))


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
                f"entry {place} is not a URL: write "
                "[severity:][event_type=pattern:][owner=pattern:]scheme://..."
            )
        given = [part.partition("=")[::2] for part in read["patterns"].split(":") if part]
        patterns = {name.lower(): pattern for name, pattern in given}
        if len(patterns) < len(given):
            raise ValueError(f"entry {place} has a condition twice: write each once")
        least = Severity(read["severity"].lower()) if read["severity"] else Severity.INFO
        routes.append(Route(read["url"], least, patterns.get("event_type"), patterns.get("owner")))
    return tuple(routes)


def select_channels(
    routes: Iterable[Route], severity: Severity, event_type: str | None, owner: str | None = None
) -> list[str]:
    """Return the ids of the channels that receive a notice."""
    return sorted({route.channel for route in routes if route.takes(severity, event_type, owner)})
