"""Renders the templates of the pages. Every text of the database is untrusted and escaped."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dlq_pipelines.causes.classify import extract_excerpt
from dlq_pipelines.day import convert_to_zone, format_time
from dlq_pipelines.reports.wording import summarize_error
from dlq_pipelines.text import (
    RawJson,
    format_count,
    format_seconds,
    is_json,
    sanitize_line,
    sanitize_text,
)

_FOLDER = Path(__file__).parent
# Characters of a line and of a block of text.
_MAX_LINE, _MAX_BLOCK = 500, 6_000
# A longer payload is not indented: that takes seconds.
_MAX_INDENTED = 200_000
STYLE_SHEET = (_FOLDER / "static" / "pages.css").read_bytes()
# In the path of the style sheet, so that a browser keeps it until a release changes it.
STYLE_VERSION = hashlib.sha256(STYLE_SHEET).hexdigest()[:16]
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


@dataclass(frozen=True)
class ShownError:
    """An error as a page shows it.

    Attributes:
        text: the error, redacted.
        summary: exception and message, in one line.
        more: the whole text; empty if the summary has all of it.
    """

    text: str
    summary: str
    more: str


def build_shown_error(text: str) -> ShownError:
    """Build what a page shows of a redacted error: its message first, then the whole text.

    The end of a traceback says what failed, and a page would show its beginning.
    """
    summary = (summarize_error(text) or sanitize_line(text, _MAX_LINE)) if text.strip() else ""
    is_whole = sanitize_line(text, _MAX_LINE) == summary
    return ShownError(text.strip(), summary, "" if is_whole else extract_excerpt(text))


def render_template(template: str, **values: Any) -> str:
    """Render a template with its values."""
    return _build_environment().get_template(template).render(style=STYLE_VERSION, **values)


def cut_text(text: str, limit: int = _MAX_BLOCK) -> str:
    """Sanitize a text of several lines and cut it to a length; an ellipsis marks a cut."""
    clean = sanitize_text(text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


def format_payload(payload: object, redact: Callable[[str], str | None]) -> str | None:
    """Return a payload as a page shows it, redacted and then indented; None: nothing is left."""
    if payload is None:
        return None
    text = redact(str(payload))
    if not text:
        return None
    if len(text) <= _MAX_INDENTED and is_json(text):
        text = RawJson(text).indented()
    return cut_text(text)


def _format_when(at: datetime | None, zone: tzinfo) -> Markup | str:
    if at is None:
        return ""
    shown = format_time(convert_to_zone(at, zone))
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), shown)


def _link_address(address: str | None) -> Markup | str:
    """Link an address of the web; any other text, such as a version, is shown as it is.

    A stored `javascript:` address would run in the page of the person who follows it.
    """
    if not address:
        return ""
    shown = sanitize_line(address, _MAX_LINE)
    if not shown.startswith(("https://", "http://")):
        return escape(shown)
    return Markup('<a href="{0}" rel="noreferrer noopener">{0}</a>').format(shown)


@cache
def _build_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "line": lambda value, limit=_MAX_LINE: sanitize_line(str(value or ""), limit),
        "block": lambda value, limit=_MAX_BLOCK: cut_text(str(value or ""), limit),
        "when": _format_when,
        "number": lambda value: f"{value:,}",
        "counted": format_count,
        "seconds": format_seconds,
        "address": _link_address,
        "percent": lambda share: f"{share:.0%}",
        "words": lambda name: str(name).replace("_", " "),
    }
    return environment
