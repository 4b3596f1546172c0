"""Parses an error text into exception type, root type and message.

A worker stores a message, a traceback of Python, Java, .NET or Node with its chain of causes, or a
part of one. The parser skips frames and finds the relevant lines by the marks around them, so a
traceback of a few kilobytes costs little more than a message.
"""

import re
import unicodedata
from typing import NamedTuple

from dlq_pipelines.text import sanitize_text

# An error may be megabytes long. Python prints the outer exception last, other languages first.
_HALF = 16_384

_PYTHON = "Traceback (most recent call last):"
_PYTHON_GROUP = "Exception Group Traceback (most recent call last):"
_PYTHON_FRAME = '\n  File "'
_PYTHON_LINKS = (
    "\nDuring handling of the above exception,",
    "\nThe above exception was the direct cause",
)
_PYTHON_LINK = "he above exception"
_MARGIN = re.compile(r"(?m)^[ |+-]*(?: [0-9]+ -+$)?")

# The first line after the frames that is not indented names the exception.
_RAISED = re.compile(r"\n([A-Za-z_][\w.<>]{0,200}+)(?:: ?|(?=\n|\Z))")
# Elsewhere the name must look like an exception: "OrderError: ", "Error [ERR_ASSERTION]: ",
# "SqlException (0x80131904): ".
_TYPED = re.compile(
    r"(?P<type>(?:[A-Za-z_]\w{0,100}+(?:\.|::|\\|\$))*+"
    r"(?:[A-Z]\w*?(?:Error|Exception|Warning|Failure|Fault|Timeout|Interrupt|Exit)"
    r"|[A-Z][a-z]++(?:[A-Z][a-z]++)++|Error"
    r"|(?<=\.)[A-Z][A-Za-z]+|(?<=[.:])(?:error|timeout|gaierror|herror)))"
    r"(?: \[(?P<code>[A-Z][A-Z0-9_]*+)\]| \(0x[0-9A-Fa-f]{8}\))?+(?:: ?|\Z)"
)
_REPR = re.compile(
    r"(?P<type>[A-Za-z_][\w.]{0,200}+)\((?P<quote>['\"])(?P<message>.*)(?P=quote),?\)"
)
# The prefixes that runtimes and logs write before the first line.
_LEADS = re.compile(
    r"(?:Exception in thread \"[^\"\n]{0,200}\" |Uncaught |Unhandled exception\. "
    r"|Unhandled Exception: |Caused by: |PHP Fatal error:  Uncaught |\[?(?:ERROR|FATAL)\]?:\s+)"
)
_LINKS = ("\nCaused by: ", "---> ", "[cause]: ")
# Node's causes all have the type "Error"; their code distinguishes them:
# "Error: connect ECONNREFUSED 10.0.0.7:443".
_CAUSE = re.compile(
    r"(?:\nCaused by: |---> |\[cause\]: )(?:\([^()\n]{0,100}\) ?)?"
    r"(?P<type>[A-Za-z_][\w.$]{0,200}+)(?:(?<=: Error): [a-z ]{0,40}(?P<code>E[A-Z_]{3,40}+)\b)?"
)
_FRAME = re.compile(r"\n\s+at ([\w.$<>\[\] /@-]{1,200})")
_PYTHON_PLACE = re.compile(r'File "([^"\n]{1,500})", line [0-9]+(?:, in (\S{1,200}))?')
_LIBRARY = re.compile(r"site-packages|dist-packages|/lib/python3|[\\/]Lib[\\/]|<frozen |<string>")
_RUNTIME = (
    "java.",
    "javax.",
    "jdk.",
    "sun.",
    "System.",
    "node:",
    "Object.<anonymous>",
    "new NodeError",
)

# PostgreSQL's further fields, which some drivers join into one line. Their values differ by event.
_FIELDS = (" LINE 1: ", " DETAIL: ", " HINT: ", " CONTEXT: ", " Detail: ", " Hint: ", " Position: ")
# A further line with the reason of the failure: "Reason: Not Found", "ErrorCode:BlobNotFound".
_REASON_LINE = re.compile(
    r"\n[ \t]*+(?:Error ?Code|Error|Reason|Status|The server responded with|error|status) ?[:=]"
    r"[^\n]{1,300}+"
)
_OPEN_ENDS = (":", "{", "(", "[", "with")
_VALIDATION = re.compile(r"[0-9]+ validation errors? for (\S{1,200})")
_INVALID_FIELD = re.compile(r"\n(\S[^\n]{0,200})\n +([^\n]{1,300}?) [\[(]type=([\w.]{1,100})")


class ParsedError(NamedTuple):
    """The parts of an error text, with all their values.

    Attributes:
        exception_type: the outer exception, with its module; empty if the text names none.
        root_type: the exception at the root of the chain, or the exceptions of a group; empty
            without a chain.
        message: the primary message, without traceback, details and hints.
        truncated: a part of the traceback is missing.
        names: what the message concerns but does not name in its first line, such as the fields
            of a validation.
    """

    exception_type: str
    root_type: str
    message: str
    truncated: bool
    names: tuple[str, ...] = ()


def parse_error(error: str) -> ParsedError:
    """Parse an error text."""
    text = normalize_text(error)
    if _PYTHON_GROUP in text:
        return _parse_python_group(text)
    start = _find_last_frame(text)
    return _parse_other(text) if start < 0 else _parse_python(text, start)


def find_app_frame(error: str) -> str:
    """Return the innermost frame in the application's own code; empty without a trace."""
    text = normalize_text(error)
    return (
        _find_other_app_frame(text) if _find_last_frame(text) < 0 else _find_python_app_frame(text)
    )


def _find_last_frame(text: str) -> int:
    """Return the offset of a Python traceback's last frame, or of its head if it has no frames.

    Returns -1 if the text has no Python traceback.
    """
    if "Traceback" not in text and 'File "' not in text:
        return -1
    frame = text.rfind(_PYTHON_FRAME)
    return max(
        frame, text.find(_PYTHON, frame + 1), 0 if text.startswith(_PYTHON_FRAME[1:]) else -1
    )


def normalize_text(error: str) -> str:
    """Return both ends of the text in NFC, with line feeds and without terminal codes."""
    text = error if len(error) <= 2 * _HALF else f"{error[:_HALF]}\n{error[-_HALF:]}"
    if not text.isascii() or "\x1b" in text or "\r" in text:
        # Twice: a terminal code may end in a letter before a combining mark, or stand between a
        # letter and its mark.
        text = unicodedata.normalize("NFC", sanitize_text(unicodedata.normalize("NFC", text)))
    return text.strip("\n\t\0 ") if not text.startswith(_PYTHON_FRAME[1:]) else text.rstrip()


def _parse_python(text: str, start: int) -> ParsedError:
    raised = _RAISED.search(text, start)
    links = (
        [at for link in _PYTHON_LINKS if (at := text.find(link)) >= 0]
        if _PYTHON_LINK in text
        else []
    )
    headless = not text.startswith(_PYTHON) and _is_headless(text)
    root = _find_python_root(text, min(links)) if links else ""
    if raised is None:
        return ParsedError("", root, "", truncated=True)
    message, names = _read_message(text, raised.end())
    return ParsedError(raised[1], root, message, headless, names)


def _is_headless(text: str) -> bool:
    """Whether frames precede the first "Traceback", so the text was cut off before them."""
    frame = 0 if text.startswith(_PYTHON_FRAME[1:]) else text.find(_PYTHON_FRAME)
    return frame >= 0 and _PYTHON not in text[:frame]


def _find_python_root(text: str, link: int) -> str:
    """Return the type of the first exception: Python prints the root of a chain first."""
    after = max(text.rfind(_PYTHON_FRAME, 0, link), text.rfind(_PYTHON, 0, link))
    if after < 0 and (typed := _TYPED.match(text)):
        return typed["type"]
    raised = _RAISED.search(text, max(after, 0), link)
    return raised[1] if raised else ""


def _find_python_app_frame(text: str) -> str:
    """Return the last frame outside libraries; the last frame if all are in libraries."""
    end, innermost = len(text), ""
    for _ in range(30):
        end = text.rfind('  File "', 0, end)
        place = _PYTHON_PLACE.match(text, end + 2) if end >= 0 else None
        if place is None:
            break
        shown = _format_place(place[1], place[2])
        innermost = innermost or shown
        if not _LIBRARY.search(place[1]):
            return shown
    return innermost


def _format_place(path: str, function: str | None) -> str:
    short = "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])
    return f"{short} in {function}" if function else short


def _parse_python_group(text: str) -> ParsedError:
    """Parse an exception group. Its root types are its leaves, sorted: tasks fail in any order."""
    flat = "\n" + _MARGIN.sub("", text)
    types = [
        found[1] for found in _RAISED.finditer(flat) if found[1].rpartition(".")[2][:1].isupper()
    ]
    outer = next((found for found in _RAISED.finditer(flat) if found[1].endswith("Group")), None)
    leaves = sorted(
        {
            name
            for name in types
            if not name.endswith("Group") and name not in ("Exception", "Traceback")
        }
    )
    message = _read_message(flat, outer.end())[0] if outer else ""
    return ParsedError(
        outer[1] if outer else "", "+".join(leaves), message, truncated=outer is None
    )


def _parse_other(text: str) -> ParsedError:
    """Parse a message, or a trace of Java, .NET or Node: outer exception first, root last."""
    start, cut = _find_primary_line(text)
    if lead := _LEADS.match(text, start):
        start = lead.end()
    first = text[start : start + 2_000].partition("\n")[0].rstrip()
    # A type ends at a colon, or at the end of a line that has at most a code after it.
    typed = _TYPED.match(first) if ":" in first or first.count(" ") <= 1 else None
    if typed:
        exception_type = typed["type"] + (f" [{typed['code']}]" if typed["code"] else "")
        message, names = _read_message(text, start + typed.end())
    elif first[-1:] == ")" and (quoted := _REPR.fullmatch(first)):
        exception_type, message, names = quoted["type"], quoted["message"], ()
    else:
        exception_type = ""
        message, names = _read_message(text, start)
    alone = cut or (len(first) == len(text) and " ---> " not in first)
    return ParsedError(exception_type, "" if alone else _find_root(text), message, cut, names)


def _find_root(text: str) -> str:
    """Return the type of the last cause: all languages but Python print the root last."""
    at = max(text.rfind(link) for link in _LINKS)
    cause = _CAUSE.match(text, at) if at >= 0 else None
    if cause is None:
        return ""
    return f"{cause['type']} [{cause['code']}]" if cause["code"] else cause["type"]


def _find_primary_line(text: str) -> tuple[int, bool]:
    """Return the offset of the primary line, and whether the text was cut off before it."""
    if text.startswith(("at ", "... ")):
        last = text.rfind("\nCaused by: ")
        return (last + 1 if last >= 0 else 0), True
    frame = text.find("\n    at ")
    # Node prints the line of source before an uncaught error.
    if frame > 0 and not _TYPED.match(text) and (blank := text.rfind("\n\n", 0, frame)) >= 0:
        return blank + 2, False
    return 0, False


def _find_other_app_frame(text: str) -> str:
    if " at " not in text and "\tat " not in text:
        return ""
    frames = [found[1].strip() for found in _FRAME.finditer(text[:8_192])]
    own = (frame for frame in frames if not frame.startswith(_RUNTIME))
    return next(own, frames[0] if frames else "")


def _read_message(text: str, start: int) -> tuple[str, tuple[str, ...]]:
    """Return the message at `start`, and the names of the fields that a validation rejects."""
    end = text.find("\n", start)
    if end < 0:
        return _strip_fields(text[start:].strip()), ()
    message = text[start:end].strip()
    if checked := _VALIDATION.match(message):
        return _summarize_validation(checked[1], text[end : end + 4_096])
    awaited = text[start - 1 : start] in {":", " "} if not message else message.endswith(_OPEN_ENDS)
    if awaited:
        message = " ".join([message, *text[end : end + 2_000].split("\n")[1:3]]).strip()
    elif reason := _REASON_LINE.search(text, end, end + 500):
        message += reason[0].replace("\n", " ", 1)
    return _strip_fields(message), ()


def _strip_fields(message: str) -> str:
    message = message[:2_000].partition(" ---> ")[0]
    if ": " in message:
        for field in _FIELDS:
            message = message.partition(field)[0]
    return message


def _summarize_validation(model: str, fields: str) -> tuple[str, tuple[str, ...]]:
    """Reduce a report of Pydantic to the distinct rules that were broken, in sorted order."""
    broken = _INVALID_FIELD.findall(fields)
    rules = sorted({f"{rule} [type={kind}]" for _, rule, kind in broken})
    return f"validation failed: {'; '.join(rules)}", tuple(
        f"{model}.{field}" for field, _, _ in broken
    ) or (model,)
