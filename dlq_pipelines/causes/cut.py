"""Repairs a text that a column of 255 characters has cut off.

The half word at the end differs from text to text although the cause is the same. It is removed,
and so is a last line that names nothing yet, or a key without its value. What is open is closed, so
that the text is read like one that ends there.
"""

import re

COLUMN_LENGTH = 255
# Such a text is complete: a sentence, a quote or a bracket ends it.
_ENDS = (".", "!", "?", ")", "]", "}", "'", '"', "`", ">", "\n")
_HALF_WORD = re.compile(r"[^\s,;()\[\]{}'\"`]*+\Z")
_DANGLING = " \t\n,;:=([{-"
# A key without its value: "; Request ID:", ", 'code':", "; nested exception is".
_KEY = re.compile(r"[,;({] ?(?:['\"]?[\w .-]{1,40}['\"]?[:=] ?|nested exception is ?)\Z")
# A line of a trace that is complete enough: it has a message, or a path and a line.
_NAMED_LINE = re.compile(r": |\":|\", line [0-9]+|\A\s*+at \S+\(")
_BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_MARK = re.compile(r"[()\[\]{}\"`>]|<(?=[A-Za-z])|(?<!\w)'|'(?!\w)")


def repair_cut_text(text: str) -> str:
    """Return a text of the length of a column without its half word, and with closed brackets."""
    if text.endswith(_ENDS):
        return text
    lead, _, last = text.rpartition("\n")
    if lead and not _NAMED_LINE.search(last):
        return lead.rstrip(_DANGLING)
    kept = _HALF_WORD.sub("", text).rstrip("'\"` ")
    kept = _KEY.sub("", kept).rstrip(_DANGLING)
    if not kept:
        return text
    return kept + _list_open_marks(kept.rpartition("\n")[2])


def _list_open_marks(line: str) -> str:
    """Return the marks that close what is open at the end of a line, the innermost first."""
    opened: list[str] = []
    for found in _MARK.finditer(line):
        mark = found[0]
        if opened and opened[-1] == mark:
            opened.pop()
        elif mark in _BRACKETS and not (opened and opened[-1] in "\"'`"):
            opened.append(_BRACKETS[mark])
        elif mark in "\"'`":
            opened.append(mark)
    return "".join(reversed(opened))
