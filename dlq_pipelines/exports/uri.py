"""Shows where a target is, without credentials and without a connection."""

from pathlib import Path
from urllib.parse import urlsplit

FOLDER = "dead_events"


def redact_uri(uri: str, folder: str = FOLDER) -> str:
    """Return the URI of a target without credentials and options. Does not connect."""
    if "://" not in uri:
        return (Path(uri) / folder).resolve().as_uri()
    parts, below = urlsplit(uri), f"/{folder}" if folder else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}{below}"
