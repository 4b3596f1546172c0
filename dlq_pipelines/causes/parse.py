"""What failed, according to an error text?

A worker stores what it has: a message, a traceback of Python, Java, .NET or Node with its chain of causes, or a part
of one. Frames are skipped, not read: the lines that matter are found by what stands around them, so a traceback of a
few kilobytes costs little more than a message.
"""

import re
import unicodedata
from typing import NamedTuple

from dlq_pipelines.text import sanitize_text

# An error may be megabytes long. The outer exception stands at the end in Python and at the beginning elsewhere.
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

# After frames, a line that is not indented names the exception.
_RAISED = re.compile(r"\n([A-Za-z_][\w.<>]{0,200}+)(?:: ?|(?=\n|\Z))")
# Elsewhere the name must look like one: "OrderError: ", "Error [ERR_ASSERTION]: ", "SqlException (0x80131904): ".
_TYPED = re.compile(
    r"(?P<type>(?:[A-Za-z_]\w{0,100}+(?:\.|::|\\|\$))*+"
    r"(?:[A-Z]\w*?(?:Error|Exception|Warning|Failure|Fault|Timeout|Interrupt|Exit)|[A-Z][a-z]++(?:[A-Z][a-z]++)++|Error"
    r"|(?<=\.)[A-Z][A-Za-z]+|(?<=[.:])(?:error|timeout|gaierror|herror)))"
    r"(?: \[(?P<code>[A-Z][A-Z0-9_]*+)\]| \(0x[0-9A-Fa-f]{8}\))?+(?:: ?|\Z)"
)
_REPR = re.compile(
    r"(?P<type>[A-Za-z_][\w.]{0,200}+)\((?P<quote>['\"])(?P<message>.*)(?P=quote),?\)"
)
# What a runtime or a log writes in front of the first line.
_LEADS = re.compile(
    r"(?:Exception in thread \"[^\"\n]{0,200}\" |Uncaught |Unhandled exception\. |Unhandled Exception: |Caused by: "
    r"|PHP Fatal error:  Uncaught |\[?(?:ERROR|FATAL)\]?:\s+)"
)
_LINKS = ("\nCaused by: ", "---> ", "[cause]: ")
# Node's causes are of the one type "Error"; what failed is in their code: "Error: connect ECONNREFUSED 10.0.0.7:443".
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

# PostgreSQL's further fields, of which some drivers make one line. What they say differs from event to event.
_FIELDS = (" LINE 1: ", " DETAIL: ", " HINT: ", " CONTEXT: ", " Detail: ", " Hint: ", " Position: ")
# A further line that does say what went wrong: "Reason: Not Found", "ErrorCode:BlobNotFound".
_TOLD = re.compile(
    r"\n[ \t]*+(?:Error ?Code|Error|Reason|Status|The server responded with|error|status) ?[:=][^\n]{1,300}+"
)
_OPEN_ENDS = (":", "{", "(", "[", "with")
_VALIDATION = re.compile(r"[0-9]+ validation errors? for (\S{1,200})")
_INVALID_FIELD = re.compile(r"\n(\S[^\n]{0,200})\n +([^\n]{1,300}?) [\[(]type=([\w.]{1,100})")


class ParsedError(NamedTuple):
    """What an error text says before anything in it is hidden.

    Attributes:
        exception_type: the outer exception, with its module; empty where the text names none.
        root_type: the exception at the root of the chain, or those of an exception group; empty without a chain.
        message: the primary message, without traceback, details and hints.
        truncated: a part of a traceback is missing.
        names: what the message is about and does not say in its first line, such as the fields of a validation.
    """

    exception_type: str
    root_type: str
    message: str
    truncated: bool
    names: tuple[str, ...] = ()


def parse_error(error: str) -> ParsedError:
    """What failed, according to an error text."""
    text = normalize_text(error)
    if _PYTHON_GROUP in text:
        return _group(text)
    start = _last_frame(text)
    return _plain(text) if start < 0 else _python(text, start)


def find_app_frame(error: str) -> str:
    """The innermost place in the application's own code, of an error text with a trace; else nothing."""
    text = normalize_text(error)
    return _frame(text) if _last_frame(text) < 0 else _python_frame(text)


def _last_frame(text: str) -> int:
    """Where the last frame of a Python traceback stands, or its head, as there may be no frames; -1 without one."""
    if "Traceback" not in text and 'File "' not in text:
        return -1
    frame = text.rfind(_PYTHON_FRAME)
    return max(
        frame, text.find(_PYTHON, frame + 1), 0 if text.startswith(_PYTHON_FRAME[1:]) else -1
    )


def normalize_text(error: str) -> str:
    """The text in NFC without terminal codes, with line feeds; of a very long one both ends."""
    text = error if len(error) <= 2 * _HALF else f"{error[:_HALF]}\n{error[-_HALF:]}"
    if not text.isascii() or "\x1b" in text or "\r" in text:
        # Before and after: a terminal code may end in a letter that a mark follows, or stand between the two.
        text = unicodedata.normalize("NFC", sanitize_text(unicodedata.normalize("NFC", text)))
    return text.strip("\n\t\0 ") if not text.startswith(_PYTHON_FRAME[1:]) else text.rstrip()


def _python(text: str, start: int) -> ParsedError:
    raised = _RAISED.search(text, start)
    links = (
        [at for link in _PYTHON_LINKS if (at := text.find(link)) >= 0]
        if _PYTHON_LINK in text
        else []
    )
    headless = not text.startswith(_PYTHON) and _is_headless(text)
    root = _python_root(text, min(links)) if links else ""
    if raised is None:
        return ParsedError("", root, "", truncated=True)
    message, names = _primary(text, raised.end())
    return ParsedError(raised[1], root, message, headless, names)


def _is_headless(text: str) -> bool:
    """Frames stand before the first "Traceback", so what stood before them was cut off."""
    frame = 0 if text.startswith(_PYTHON_FRAME[1:]) else text.find(_PYTHON_FRAME)
    return frame >= 0 and _PYTHON not in text[:frame]


def _python_root(text: str, link: int) -> str:
    """The first exception of a chain is its root: Python prints it first, so it is there also where frames are not."""
    after = max(text.rfind(_PYTHON_FRAME, 0, link), text.rfind(_PYTHON, 0, link))
    if after < 0 and (typed := _TYPED.match(text)):
        return typed["type"]
    raised = _RAISED.search(text, max(after, 0), link)
    return raised[1] if raised else ""


def _python_frame(text: str) -> str:
    """The last frame outside the standard library and installed packages; the last one where there is none."""
    end, innermost = len(text), ""
    for _ in range(30):
        end = text.rfind('  File "', 0, end)
        place = _PYTHON_PLACE.match(text, end + 2) if end >= 0 else None
        if place is None:
            break
        shown = _place(place[1], place[2])
        innermost = innermost or shown
        if not _LIBRARY.search(place[1]):
            return shown
    return innermost


def _place(path: str, function: str | None) -> str:
    short = "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])
    return f"{short} in {function}" if function else short


def _group(text: str) -> ParsedError:
    """An exception group: its causes are its leaves, in whatever order its tasks failed."""
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
    message = _primary(flat, outer.end())[0] if outer else ""
    return ParsedError(
        outer[1] if outer else "", "+".join(leaves), message, truncated=outer is None
    )


def _plain(text: str) -> ParsedError:
    """A message, or a trace of Java, .NET or Node: the outer exception first, the root last."""
    start, cut = _head(text)
    if lead := _LEADS.match(text, start):
        start = lead.end()
    first = text[start : start + 2_000].partition("\n")[0].rstrip()
    # A type ends at a colon, or at the end of the line with a code at most.
    typed = _TYPED.match(first) if ":" in first or first.count(" ") <= 1 else None
    if typed:
        exception_type = typed["type"] + (f" [{typed['code']}]" if typed["code"] else "")
        message, names = _primary(text, start + typed.end())
    elif first[-1:] == ")" and (quoted := _REPR.fullmatch(first)):
        exception_type, message, names = quoted["type"], quoted["message"], ()
    else:
        exception_type = ""
        message, names = _primary(text, start)
    alone = cut or (len(first) == len(text) and " ---> " not in first)
    return ParsedError(exception_type, "" if alone else _root(text), message, cut, names)


def _root(text: str) -> str:
    """The last cause of a chain is its root: all but Python print it last."""
    at = max(text.rfind(link) for link in _LINKS)
    cause = _CAUSE.match(text, at) if at >= 0 else None
    if cause is None:
        return ""
    return f"{cause['type']} [{cause['code']}]" if cause["code"] else cause["type"]


def _head(text: str) -> tuple[int, bool]:
    """Where the primary line begins, and whether what stood before it was cut off."""
    if text.startswith(("at ", "... ")):
        last = text.rfind("\nCaused by: ")
        return (last + 1 if last >= 0 else 0), True
    frame = text.find("\n    at ")
    # Node prints the line of source before an error that nobody caught.
    if frame > 0 and not _TYPED.match(text) and (blank := text.rfind("\n\n", 0, frame)) >= 0:
        return blank + 2, False
    return 0, False


def _frame(text: str) -> str:
    if " at " not in text and "\tat " not in text:
        return ""
    frames = [found[1].strip() for found in _FRAME.finditer(text[:8_192])]
    own = (frame for frame in frames if not frame.startswith(_RUNTIME))
    return next(own, frames[0] if frames else "")


def _primary(text: str, start: int) -> tuple[str, tuple[str, ...]]:
    """The message that begins at `start`, and the names of a validation's fields."""
    end = text.find("\n", start)
    if end < 0:
        return _without_fields(text[start:].strip()), ()
    message = text[start:end].strip()
    if checked := _VALIDATION.match(message):
        return _validation(checked[1], text[end : end + 4_096])
    awaited = text[start - 1 : start] in {":", " "} if not message else message.endswith(_OPEN_ENDS)
    if awaited:
        message = " ".join([message, *text[end : end + 2_000].split("\n")[1:3]]).strip()
    elif told := _TOLD.search(text, end, end + 500):
        message += told[0].replace("\n", " ", 1)
    return _without_fields(message), ()


def _without_fields(message: str) -> str:
    message = message[:2_000].partition(" ---> ")[0]
    if ": " in message:
        for field in _FIELDS:
            message = message.partition(field)[0]
    return message


def _validation(model: str, fields: str) -> tuple[str, tuple[str, ...]]:
    """Pydantic's report in one line: which rules were broken, in whatever order and by how many fields."""
    broken = _INVALID_FIELD.findall(fields)
    rules = sorted({f"{rule} [type={kind}]" for _, rule, kind in broken})
    return f"validation failed: {'; '.join(rules)}", tuple(
        f"{model}.{field}" for field, _, _ in broken
    ) or (model,)
