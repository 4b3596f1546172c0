"""How is a stranger's text shown so that it is only read and never obeyed?

Error texts and payloads are hostile: terminals obey escape codes, browsers markup, spreadsheets formulas. These
functions are for terminals and Markdown; HTML is escaped by its templates.
"""

import re
from collections.abc import Iterable, Sequence

_TERMINAL_CODE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_LINE_END = re.compile("\r\n|[\r\u2028\u2029\x85]")
# Control characters but tab and line feed, and the marks that reorder what stands around them.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
# Entities where a backslash is not enough for every parser, a backslash where it is.
_MARKDOWN_ENTITIES = {character: f"&#{ord(character)};" for character in "&<>|\\`"}
_MARKDOWN_SPECIAL = re.compile(r"[&<>|\\`*_{}\[\]()#~$]")
# What spreadsheets run, the wide forms too.
_FORMULA = re.compile(r"[=+\-@\t\r\n'＝＋－＠]")  # noqa: RUF001 - the wide ones
_LINK_START = re.compile(r"(?i)(?<=://)|(?<=www)(?=\.)|(?<=@)|(?<=mailto:)|(?<=xmpp:)")


def plain_text(text: str) -> str:
    """The text without terminal codes, control characters and direction overrides; lines end in a line feed."""
    return _INVISIBLE.sub("", _TERMINAL_CODE.sub("", _LINE_END.sub("\n", text)))


def plain_line(text: str, limit: int) -> str:
    """`plain_text` in one line of at most `limit` characters; an ellipsis says that it was cut."""
    line = " ".join(plain_text(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def spreadsheet_text(text: str) -> str:
    """The text as a cell that a spreadsheet shows and does not run: one that it would has an apostrophe before it.

    So has one that begins with an apostrophe: taking one away always gives the text as it was.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def markdown_text(text: str, limit: int = 500) -> str:
    """A text of anybody's as Markdown that shows just this text: one line, no table cells, code, HTML or links.

    Addresses get an invisible break, because some renderers make links of escaped ones too.
    """
    line = _LINK_START.sub("\u200b", plain_line(text, limit))
    return _MARKDOWN_SPECIAL.sub(lambda found: _MARKDOWN_ENTITIES.get(found[0], f"\\{found[0]}"), line)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; whole numbers with a thousands separator, everything else as text."""

    def cells(values: Sequence[object]) -> str:
        shown = (f"{value:,}" if isinstance(value, int) else markdown_text(str(value)) for value in values)
        return f"| {' | '.join(shown)} |"

    return "\n".join([cells(header), "|" + " --- |" * len(header), *map(cells, rows)])
