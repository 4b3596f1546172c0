"""Shows where a target is, without credentials and without a connection."""

from pathlib import Path
from urllib.parse import urlsplit

FOLDER = "dead_events"


def redact_uri(uri: str, folder: str = FOLDER) -> str:
    """Return the URI of a target without credentials and options. Does not connect."""
    if "://" not in uri:
        return (Path(uri) / folder).resolve().as_uri()
    parts, below = urlsplit(uri), f"/{folder}" if folder else ""
    account, _, host = parts.netloc.rpartition("@")
    # abfs://container@account.dfs.core.windows.net/folder
    container = f"{account}@" if parts.scheme.startswith("abfs") and ":" not in account else ""
    place = f"{container if account else ''}{host}{parts.path.rstrip('/')}"
    return f"{parts.scheme}://{place}{below}"
