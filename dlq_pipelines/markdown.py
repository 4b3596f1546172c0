"""How is hostile text shown in Markdown without becoming markup?"""

import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~$&-])")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape_markdown(text: str) -> str:
    """The text in one line, showing as itself: markup escaped, control and direction characters taken out."""
    return _MARKUP.sub(r"\\\1", " ".join(_UNSEEN.sub("", text).split()))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers are shown with a thousands separator, everything else escaped."""

    def cells(values: Sequence[object]) -> str:
        shown = (f"{value:,}" if isinstance(value, int) else escape_markdown(str(value)) for value in values)
        return f"| {' | '.join(shown)} |"

    return "\n".join([cells(header), "|" + " --- |" * len(header), *map(cells, rows)])
