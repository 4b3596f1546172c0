"""Renders untrusted texts for terminals, Markdown and spreadsheets.

Error texts and payloads are untrusted: terminals interpret escape codes, browsers markup,
spreadsheets formulas. The templates escape HTML by themselves.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

_TERMINAL_CODE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_LINE_END = re.compile("\r\n|[\r\u2028\u2029\x85]")
# Control characters except tab and line feed, and the marks that reorder text.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
# A backslash escapes most characters; these need entities, because some parsers ignore it.
_MARKDOWN_ENTITIES = {character: f"&#{ord(character)};" for character in "&<>|\\`"}
_MARKDOWN_SPECIAL = re.compile(r"[&<>|\\`*_{}\[\]()#~$]")
_MARKDOWN_ESCAPED = re.compile(r"&#(\d+);|\\([&<>|\\`*_{}\[\]()#~$])")
# A word, with what follows it and may not begin a line.
_MARKDOWN_WORDS = re.compile(r"[^ ]+(?: (?:[-+=:%]+|\d+[.)])(?![^ ]))*")
_MARKDOWN_WIDTH = 80
# Characters that begin a formula in spreadsheets, in their wide forms too.
_FORMULA = re.compile(r"[=+\-@\t\r\n'＝＋－＠]")  # noqa: RUF001 - the wide ones
_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s"\[\]{},:]+')
# Limits that common JSON parsers accept: jq stops at 256 levels, Python at a thousand and at
# numbers of 4,300 digits.
_DEEPEST, _LONGEST_NUMBER = 100, 1_000
_WIDEST_INDENT = 40
_LINK_START = re.compile(r"(?i)(?<=://)|(?<=www)(?=\.)|(?<=@)|(?<=mailto:)|(?<=xmpp:)")

# Hides parts of texts, such as secrets; returns as many texts, in their order.
RedactTexts = Callable[[Sequence[str]], Sequence[str]]


class RawJson:
    """A JSON value as text, not parsed: exact for any number and any depth."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def is_portable(self) -> bool:
        """Return whether common parsers read it.

        It is JSON with at most 100 levels and no number of more than 1,000 characters.
        """
        depth = 0
        for part in _tokens(self.text) if len(self.text) > 2 * _DEEPEST else ():
            depth += (part in "[{") - (part in "]}")
            if depth > _DEEPEST or (len(part) > _LONGEST_NUMBER and not part.startswith('"')):
                return False
        return is_json(self.text)

    def indented(self) -> str:
        """Return it in indented lines, each value as it is written. The indent has a maximum."""
        lines, depth, before = [""], 0, ""
        for part in _tokens(self.text):
            opens, closes = before in ("[", "{"), part in ("]", "}")
            depth += opens - closes
            if opens != closes or before == ",":
                lines.append(" " * min(2 * depth, _WIDEST_INDENT))
            lines[-1] += ": " if part == ":" else part
            before = part
        return "\n".join(lines)


def _tokens(text: str) -> Iterator[str]:
    return (found[0] for found in _JSON_TOKEN.finditer(text))


def is_json(text: str) -> bool:
    """Return whether the text is valid JSON that is not nested too deeply for Python."""
    try:
        # Numbers are not converted: Python refuses those of thousands of digits.
        json.loads(text, parse_int=len, parse_float=len, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(name)


def parse_json_or_text(text: str | bytes) -> Any:
    """Parse JSON; return the text itself if Python cannot, as for numbers of thousands of digits.

    An exception would keep a worker from every other event of its batch, again and again.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text if isinstance(text, str) else text.decode()


def render_json(value: Any, *, indent: int | None = None) -> str:
    """Render dataclasses, lists, times and the like as JSON. A `RawJson` keeps its text."""
    from secrets import token_hex  # 4 ms to import, which help does without

    from pydantic_core import to_json

    mark, texts = token_hex(16), []

    def keep_place(found: RawJson) -> str:
        texts.append(found.text)
        return mark

    written = to_json(value, fallback=keep_place, indent=indent, inf_nan_mode="null").decode()
    first, *rest = written.split(f'"{mark}"')
    return first + "".join(text + part for text, part in zip(texts, rest, strict=True))


def sanitize_text(text: str) -> str:
    """Remove terminal codes, control characters and direction overrides; normalize line ends."""
    return _INVISIBLE.sub("", _TERMINAL_CODE.sub("", _LINE_END.sub("\n", text)))


def sanitize_line(text: str, limit: int) -> str:
    """Sanitize a text to one line of at most `limit` characters; an ellipsis marks a cut."""
    line = " ".join(sanitize_text(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def format_count(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun: `1 event`, `2,000 events`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def format_aggregate(aggregate_type: str | None, aggregate_id: str | None) -> str:
    """Return type and id of an aggregate; `none` where the outbox table has neither."""
    return " ".join(part for part in (aggregate_type, aggregate_id) if part) or "none"


def format_seconds(seconds: float) -> str:
    """Return a duration in its two largest units: `4 h 10 min`, `35 s`."""
    if seconds < 1:
        return "less than a second"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def format_duration(length: timedelta) -> str:
    """Return a duration in its largest unit: `3 days`, `5 h`, `12 min`."""
    minutes = int(length.total_seconds() // 60)
    if minutes >= 2 * 24 * 60:
        return f"{minutes // (24 * 60):,} days"
    hours = minutes // 60
    return f"{hours} h" if hours else f"{minutes} min"


def escape_spreadsheet_text(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula.

    A text that begins with an apostrophe gets one too, so removing one always restores the text.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def escape_markdown(text: str, limit: int = 500) -> str:
    """Escape an untrusted text for Markdown: one line, no table cells, code, HTML or links.

    Addresses get an invisible break, because some renderers link escaped addresses too.
    """
    line = _LINK_START.sub("\u200b", sanitize_line(text, limit))
    return _MARKDOWN_SPECIAL.sub(
        lambda found: _MARKDOWN_ENTITIES.get(found[0], f"\\{found[0]}"), line
    )


def unescape_markdown(markdown: str) -> str:
    """Undo `escape_markdown`. Code, which is between backticks, stays."""
    parts = markdown.split("`")
    parts[::2] = [
        _MARKDOWN_ESCAPED.sub(
            lambda found: chr(int(found[1])) if found[1] else found[2], part
        ).replace("\u200b", "")
        for part in parts[::2]
    ]
    return "`".join(parts)


def shorten_markdown(text: str, width: int) -> str:
    """Return as much of a text as has at most `width` characters when it is escaped."""
    limit = width
    while len(escape_markdown(text, limit)) > width:
        limit -= 1
    return sanitize_line(text, limit)


def wrap_markdown(text: str, start: str = "") -> str:
    """Wrap escaped text at 80 columns.

    No further line begins with a word that would begin a list, a heading or a table.

    Args:
        text: without code and links.
        start: of the first line, such as `- `; further lines are indented by as much.
    """
    lines, line = [], start
    for part in _MARKDOWN_WORDS.findall(text):
        if len(line) + len(part) > _MARKDOWN_WIDTH - 1 and line.strip() != start.strip():
            lines.append(line.rstrip())
            line = " " * len(start)
        line += part if line.endswith(" ") or not line else f" {part}"
    return "\n".join([*lines, line])


def render_markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Render a Markdown table; integers get a thousands separator, other values are escaped."""

    def cells(values: Sequence[object]) -> str:
        shown = (
            f"{value:,}" if isinstance(value, int) else escape_markdown(str(value))
            for value in values
        )
        return f"| {' | '.join(shown)} |"

    return "\n".join([cells(header), "|" + " --- |" * len(header), *map(cells, rows)])
