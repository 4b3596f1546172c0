"""Parses an error text into the outer exception and the exceptions at the root of its chain.

A worker stores a message, a traceback of Python, Java, .NET, Node, Ruby, PHP, Rust, Elixir or
Julia with its chain of causes, or a part of one. The parser skips frames and finds the relevant
lines by the marks around them, so a traceback of a few kilobytes costs little more than a message.
"""

import re
import unicodedata
from typing import NamedTuple

from dlq_pipelines.causes.cut import COLUMN_LENGTH, repair_cut_text
from dlq_pipelines.causes.prefix import strip_log_prefix
from dlq_pipelines.text import sanitize_text

# An error may be megabytes long. Python prints the outer exception last, other languages first.
_HALF = 16_384
_MAX_MESSAGE, _MAX_BODY = 2_000, 8_000
# An exception group may have thousands of leaves.
_MAX_LEAVES = 20
_SHORT, _MAX_AWAITED = 200, 2

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
# "SqlException (0x80131904): ", "SocketException (111): ".
_TYPE = (
    r"(?P<type>(?:[A-Za-z_]\w{0,100}+(?:\.|::|\\|\$))*+"
    r"(?:_?[A-Z]\w*?(?:Error|Exception|Warning|Failure|Fault|Timeout|Interrupt|Exit|Rendezvous)"
    r"|[A-Z][a-z]++(?:[A-Z][a-z]++)++|Error"
    r"|(?<=[.$])[A-Z][A-Za-z]+|(?<=::)[A-Z][A-Za-z0-9]+|(?<=[.:])(?:error|timeout|gaierror|herror)))"
)
_TYPED = re.compile(
    rf"{_TYPE}"
    r"(?:`[0-9]\[[\w.,`\[\] ]{1,200}\])?"
    r"(?: \[(?P<code>[A-Z][A-Z0-9_]*+)\]| \(0x[0-9A-Fa-f]{8}\)| \((?P<number>[0-9]{1,6})\))?+"
    r"(?:: ?|\Z)"
)
_REPR = re.compile(
    r"(?P<type>[A-Za-z_][\w.]{0,200}+)\((?P<quote>['\"])(?P<message>.*)(?P=quote),?\)"
)
# Ruby and Rails: "ActiveRecord::RecordNotFound (Couldn't find Order):". The end may be cut off.
_RUBY = re.compile(rf"{_TYPE} \((?=[A-Za-z])(?P<message>.+)")
_ELIXIR = re.compile(r"\*\* \((?P<type>[A-Za-z][\w.]{0,200}+)\) ?")
_PHP = re.compile(r"exception '(?P<type>[\w\\]{1,200}+)' with message '")
_PANIC = re.compile(
    r"thread '[^'\n]{0,100}' (?:\([0-9]+\) )?panicked at (?:'|[^\s,]{1,300}:[0-9]+:[0-9]+:\s+)"
)
_PANIC_PLACE = re.compile(r"', [^\s,']{1,300}:[0-9]+(?::[0-9]+)?\Z")
# C++: "terminate called after throwing an instance of 'T'\n  what():  message".
_TERMINATE = re.compile(
    r"(?:libc\+\+abi(?:\.dylib)?: )?terminat(?:e|ing)\b[^'\n:]{0,60} (?:instance of|of type) '?"
    r"(?P<type>[A-Za-z_](?:\w|::|[<>*& ,])*+)'?(?:\s+what\(\):[ \t]*+|: |(?=\n|\Z))"
)
# SQL Server and Sybase: "Msg 2627, Level 14, State 1, Line 3\nmessage", also localized.
_MSG = re.compile(
    r"(?:Msg|Meldung|Message|Messaggio|Mens\.?) (?P<number>[0-9]{1,6})"
    r"(?:, [A-Z][a-z]{2,9} [^\s,:]{1,200})+[:.]?\s+(?:Server '[^'\n]{1,99}',[^\n:]{0,200}:\s+)?"
)
_HEADERS = ("libc++", "terminat", "Msg ", "Me")
# The prefixes that runtimes write before the first line.
_LEADS = re.compile(
    r"(?:Exception in thread \"[^\"\n]{0,200}\" |(?:Unc|C)aught |Unhandled exception\. "
    r"|Unhandled [Ee]xception:\s|Caused by: |(?:PHP )?Fatal error:  ?(?:Uncaught )?"
    r"|\[?(?:ERROR|FATAL)\]?:[ \t]{1,8}"
    # Julia wraps the error of a file or of a module.
    r"|(?:LoadError|InitError): (?=[A-Z]\w{1,60}(?:Error|Exception)\b)){1,3}"
)
_LEAD_LETTERS, _SPECIAL = frozenset("EUCFPc[uLI"), frozenset("*[et")
# Swift's place or thread in front of a failed assertion.
_PLACED = re.compile(
    r"(?:Thread [0-9]{1,6}: |[^\s:]{1,300}\.[a-z]{1,5}:[0-9]{1,7}: )"
    r"(?=(?:Fatal error|Precondition failed|Assertion failed)\b)"
)
_PLACED_MARKS = ("Fatal error", "Precondition failed", "Assertion failed")
# Where the next cause of a chain begins. "Caused by:" at the end of a line precedes lines.
_LINK = re.compile(
    r"(?:\n[Cc]aused by: ?| ---> |\[cause\]: |\n *\*\* \(EXIT\) |\nCaused by:\n"
    r"|\n +nested task error: )"
)
_INNER = re.compile(r"\(Inner Exception #[0-9]+\) ?")
_LEAF = re.compile(r"\n\s+(?P<head>(?:[A-Z]\w{0,80})?Error(?: \[[A-Z_0-9]+\])?: [^\n]{1,300})")
_NUMBERED = re.compile(r"(?:\A|\n) {1,8}(?P<number>[0-9]{1,2}): +(?P<message>[^\n]*)")
_FRAME = re.compile(r"\n\s+at ([\w.$<>\[\] /@-]{1,200})([^\n]{0,300})")
_RUNTIME_PLACE = re.compile(r"node_modules|node:|\A:|<anonymous>")
_PYTHON_PLACE = re.compile(r'File "([^"\n]{1,500})", line [0-9]+(?:, in (\S{1,200}))?')
_LIBRARY = re.compile(r"site-packages|dist-packages|/lib/python3|[\\/]Lib[\\/]|<frozen |<string>")
_RUNTIME = (
    *("java.", "javax.", "jakarta.", "jdk.", "sun.", "kotlin.", "kotlinx.", "scala.", "akka."),
    *("com.fasterxml.", "com.mysql.", "com.zaxxer.", "feign.", "io.grpc.", "io.lettuce."),
    *("io.netty.", "okhttp3.", "org.apache.", "org.eclipse.", "org.hibernate.", "reactor."),
    *("org.postgresql.", "org.springframework.", "System.", "Microsoft.", "Npgsql."),
    *("node:", "process.", "new", "ignore-listed", "Object.<anonymous>"),
)

# PostgreSQL's further fields, which some drivers join into one line. Their values differ by event.
_FIELDS = (" LINE 1: ", " DETAIL: ", " HINT: ", " CONTEXT: ", " Detail: ", " Hint: ", " Position: ")
# A further line with the reason of the failure: "Reason: Not Found", "ErrorCode:BlobNotFound".
_REASON_LINE = re.compile(
    r"\n[ \t]*+(?:Error ?Code|Error|Error [Mm]essage|Reason|Status|The server responded with|error"
    r"|status|Code|Response(?: content| body)?) ?[:=][^\n]{1,300}+"
)
_OPEN_ENDS = (":", "{", "(", "[", "with")
# Lines between an open end and the reason: echoed source with its arrow, rulers, bullets alone.
_ECHO = re.compile(r"\s*(?:→|>|[0-9]+\s|[-=~^*]+\s*\Z|[})\]]|\Z|at |/\S+:[0-9]+)")
_DATA = ("{", "[{")
_MARKUP = ("<html", "<head", "<body", "<?xml", "<!doct", "<error", "<soap", "<s:env", "<env:")
_VALIDATION = re.compile(r"[0-9]+ validation errors? for (\S{1,200})")
_INVALID_FIELD = re.compile(r"\n(\S[^\n]{0,200})\n +([^\n]{1,300}?) [\[(]type=([\w.]{1,100})")


class ExceptionLink(NamedTuple):
    """One exception of a chain: its type, empty if unnamed, and its message."""

    type: str
    message: str


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
        roots: the exception at the root of the chain with its message, or the leaves of a group.
    """

    exception_type: str
    root_type: str
    message: str
    truncated: bool
    names: tuple[str, ...] = ()
    roots: tuple[ExceptionLink, ...] = ()


# The exception that a line names, its message, and the names of the fields of a validation.
_Head = tuple[str, str, tuple[str, ...]]


def parse_error(error: str) -> ParsedError:
    """Parse an error text."""
    text = strip_log_prefix(normalize_text(error))
    if "\n" not in text and " ---> " not in text:
        head = _read_head(text, 0)
        return ParsedError(head[0], "", head[1], text.startswith(("at ", "... ")), head[2])
    if _PYTHON_GROUP in text:
        return _parse_python_group(text)
    start = _find_last_frame(text)
    return _parse_other(text) if start < 0 else _parse_python(text, start)


def find_app_frame(error: str, *, is_own: bool = False) -> str:
    """Return the innermost frame in the application's own code; empty without a trace.

    If all frames are in libraries, it is the innermost of them, or with `is_own` empty.
    """
    text = normalize_text(error)
    find = _find_other_app_frame if _find_last_frame(text) < 0 else _find_python_app_frame
    frame, own = find(text)
    return own if is_own else own or frame


def _find_last_frame(text: str) -> int:
    """Return the offset of a Python traceback's last frame, or of its head if it has no frames.

    Returns -1 if the text has no Python traceback. Frames as Rollbar prints them follow a head that
    names a class: they are no traceback.
    """
    if "Traceback" not in text and 'File "' not in text:
        return -1
    frame = text.rfind(_PYTHON_FRAME)
    head = text.find(_PYTHON, frame + 1)
    if frame >= 0 and head < 0 and _PYTHON not in text and not text.startswith(_PYTHON_FRAME[1:]):
        first = text[:500].partition("\n")[0]
        if not _RAISED.search(text, frame) and _TYPED.match(first):
            return -1
    return max(frame, head, 0 if text.startswith(_PYTHON_FRAME[1:]) else -1)


def normalize_text(error: str) -> str:
    """Return both ends of the text in NFC, with line feeds and without terminal codes."""
    text = error if len(error) <= 2 * _HALF else f"{error[:_HALF]}\n{error[-_HALF:]}"
    if len(text) == COLUMN_LENGTH:
        text = repair_cut_text(text)
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
    root = _find_python_root(text, min(links)) if links else None
    roots, root_type = ((root,), root.type) if root else ((), "")
    if raised is None:
        return ParsedError("", root_type, "", truncated=True, roots=roots)
    message, names = _read_message(text, raised.end())
    return ParsedError(raised[1], root_type, message, headless, names, roots)


def _is_headless(text: str) -> bool:
    """Whether frames precede the first "Traceback", so the text was cut off before them."""
    frame = 0 if text.startswith(_PYTHON_FRAME[1:]) else text.find(_PYTHON_FRAME)
    return frame >= 0 and _PYTHON not in text[:frame]


def _find_python_root(text: str, link: int) -> ExceptionLink | None:
    """Return the first exception: Python prints the root of a chain first."""
    after = max(text.rfind(_PYTHON_FRAME, 0, link), text.rfind(_PYTHON, 0, link))
    if after < 0 and (typed := _TYPED.match(text[: min(link, 500)].partition("\n")[0])):
        return ExceptionLink(typed["type"], _read_message(text[:link], typed.end())[0])
    raised = _RAISED.search(text, max(after, 0), link)
    if raised is None:
        return None
    return ExceptionLink(raised[1], _read_message(text[:link], raised.end())[0])


def _find_python_app_frame(text: str) -> tuple[str, str]:
    """Return the last frame, and the last frame outside libraries."""
    end, innermost = len(text), ""
    for _ in range(30):
        end = text.rfind('  File "', 0, end)
        place = _PYTHON_PLACE.match(text, end + 2) if end >= 0 else None
        if place is None:
            break
        shown = _format_place(place[1], place[2])
        innermost = innermost or shown
        if not _LIBRARY.search(place[1]):
            return innermost, shown
    return innermost, ""


def _format_place(path: str, function: str | None) -> str:
    short = "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])
    return f"{short} in {function}" if function else short


def _parse_python_group(text: str) -> ParsedError:
    """Parse an exception group. Its roots are its leaves: tasks fail in any order."""
    flat = "\n" + _MARGIN.sub("", text)
    raised = [
        found for found in _RAISED.finditer(flat) if found[1].rpartition(".")[2][:1].isupper()
    ]
    outer = next((found for found in raised if found[1].endswith("Group")), None)
    leaves = {
        ExceptionLink(found[1], _read_message(flat, found.end())[0])
        for found in raised
        if not found[1].endswith("Group") and found[1] not in ("Exception", "Traceback")
    }
    message = _read_message(flat, outer.end())[0] if outer else ""
    return ParsedError(
        outer[1] if outer else "",
        "+".join(sorted({leaf.type for leaf in leaves})),
        message,
        truncated=outer is None,
        roots=tuple(sorted(leaves)[:_MAX_LEAVES]),
    )


def _parse_other(text: str) -> ParsedError:
    """Parse a message, or a trace of another language: outer exception first, root last."""
    start, cut = _find_primary_line(text)
    roots: tuple[ExceptionLink, ...]
    if "\nNext " in text and "\nStack trace:" in text:  # PHP prints the root first
        outer = text.rfind("\nNext ") + len("\nNext ")
        head, roots = _read_head(text, outer), (_link(_read_head(text, start)),)
    elif _is_report(text):
        head, roots = _parse_report(text)
    else:
        head = _read_head(text, start)
        roots = () if cut else _find_roots(text)
    root_type = "+".join(sorted({root.type for root in roots if root.type}))
    return ParsedError(head[0], root_type, head[1], cut, head[2], roots)


def _link(head: _Head) -> ExceptionLink:
    return ExceptionLink(head[0], head[1])


def _is_report(text: str) -> bool:
    """Whether the text is a report of eyre: "Error: " and numbered lines."""
    return text.startswith("Error:") and _NUMBERED.match(text.partition("\n")[2][:40]) is not None


def _parse_report(text: str) -> tuple[_Head, tuple[ExceptionLink, ...]]:
    lines = list(_NUMBERED.finditer("\n" + text.partition("\n")[2].partition("\n\n")[0]))
    head: _Head = ("Error", lines[0]["message"].strip(), ())
    roots = (ExceptionLink("", lines[-1]["message"].strip()),) if len(lines) > 1 else ()
    return head, roots


def _read_head(text: str, start: int) -> _Head:
    """Read the exception and the message at `start`."""
    if (at := text.find(": ", start, start + _MAX_MESSAGE)) > 0 and text.startswith(
        _PLACED_MARKS, at + 2
    ):
        placed = _PLACED.match(text, start)
        start = placed.end() if placed else start
    if text[start : start + 1] in _LEAD_LETTERS and (lead := _LEADS.match(text, start)):
        start = lead.end()
    first = text[start : start + _MAX_MESSAGE]
    if "\n" in first:
        first = first.partition("\n")[0].rstrip()
    if first[:1] in _SPECIAL and (head := _read_special_head(text, start, first)):
        return head
    if first.startswith(_HEADERS) and (head := _read_header(text, start)):
        return head
    # A type ends at a colon, or at the end of a line that has at most a code after it.
    typed = _TYPED.match(first) if ":" in first or first.count(" ") <= 1 else None
    if typed:
        exception_type = typed["type"] + (f" [{typed['code']}]" if typed["code"] else "")
        message, names = _read_message(text, start + typed.end())
        number = f"error {typed['number']}: " if typed["number"] else ""
        return exception_type, number + message, names
    if first[-1:] == ")" and (quoted := _REPR.fullmatch(first)):
        return quoted["type"], quoted["message"], ()
    if " (" in first and (ruby := _RUBY.match(first)):
        qualifier, _, message = ruby["message"].partition("): ")
        if not message or "(" in qualifier:
            message = ruby["message"].removesuffix(":").removesuffix(")")
        return ruby["type"], _strip_fields(message), ()
    return "", *_read_message(text, start)


def _read_special_head(text: str, start: int, first: str) -> _Head | None:
    """Read the first line of Elixir, of Node's inspect(), of PHP 5 and of a panic."""
    if elixir := _ELIXIR.match(first):
        return elixir["type"], *_read_message(text, start + elixir.end())
    if first[0] == "[" and (typed := _TYPED.match(first[1:])):
        message = first[1 + typed.end() :].removesuffix("{").rstrip().removesuffix("]")
        code = f" [{typed['code']}]" if typed["code"] else ""
        return typed["type"] + code, _strip_fields(message), ()
    if php := _PHP.match(first):
        message = text[start + php.end() : start + _MAX_MESSAGE].partition("\nStack trace:")[0]
        return php["type"], message.rpartition("' in ")[0] or message, ()
    if panic := _PANIC.match(text, start):
        message = text[panic.end() : panic.end() + _MAX_MESSAGE].partition("\n")[0]
        return "panic", _PANIC_PLACE.sub("", message), ()
    return None


def _read_header(text: str, start: int) -> _Head | None:
    """Read the line that C++ or SQL Server prints before the message."""
    if header := _MSG.match(text, start):
        message, names = _read_message(text, header.end())
        return "", f"error {header['number']}: {message}", names
    if header := _TERMINATE.match(text, start):
        return header["type"], *_read_message(text, header.end())
    return None


def _find_roots(text: str) -> tuple[ExceptionLink, ...]:
    """Return the last cause: all languages but Python and PHP print the root last."""
    link = None
    for found in _LINK.finditer(text):
        link = found
    if link is None:
        return ()
    if link[0] == "[cause]: " and (leaves := _find_leaves(text, link.end())):
        return leaves
    if link[0].endswith(":\n") or text[link.end() : link.end() + 1] == "\n":
        return _find_lines(text, link.end())
    at = link.end()
    if inner := _INNER.match(text, at):
        at = inner.end()
    end = text.find("\n", at)
    head = _read_head(text if end < 0 else text[: at + _MAX_BODY], at)
    return (_link(head),)


def _find_leaves(text: str, start: int) -> tuple[ExceptionLink, ...]:
    """Return the errors of an AggregateError that has no message of its own."""
    errors = text.find("[errors]: [", start)
    if errors < 0:
        return ()
    heads = {_link(_read_head(leaf["head"], 0)) for leaf in _LEAF.finditer(text, errors)}
    return tuple(sorted(heads)[:_MAX_LEAVES])


def _find_lines(text: str, start: int) -> tuple[ExceptionLink, ...]:
    """Return the last of Rust's numbered causes, or the exception that Ruby prints on a line."""
    block = text[start : start + _MAX_BODY].strip("\n").partition("\n\n")[0]
    numbered = None
    for found in _NUMBERED.finditer(block):
        numbered = found
    if numbered:
        return (ExceptionLink("", numbered["message"].strip()),)
    return (_link(_read_head(block.lstrip(), 0)),) if block else ()


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


def _find_other_app_frame(text: str) -> tuple[str, str]:
    """Return the first frame, and the first frame outside libraries."""
    if " at " not in text and "\tat " not in text:
        return "", ""
    first = ""
    for found in _FRAME.finditer(text[:8_192]):
        frame = found[1].strip()
        first = first or frame
        if not frame.startswith(_RUNTIME) and not _RUNTIME_PLACE.search(found[2]):
            return first, frame
    return first, ""


def _read_message(text: str, start: int) -> tuple[str, tuple[str, ...]]:
    """Return the message at `start`, and the names of the fields that a validation rejects."""
    end = text.find("\n", start)
    if end < 0:
        message = text[start:].strip()
        return message if len(message) < _SHORT and ": " not in message else _strip_fields(
            message
        ), ()
    message = text[start:end].strip()
    if checked := _VALIDATION.match(message):
        return _summarize_validation(checked[1], text[end : end + 4_096])
    if (
        message.startswith(_DATA)
        or message.endswith(_DATA)
        or ("<" in message and any(mark in message.lower() for mark in _MARKUP))
    ):
        return text[start : start + _MAX_BODY].strip(), ()
    awaited = text[start - 1 : start] in {":", " "} if not message else message.endswith(_OPEN_ENDS)
    if awaited:
        message = _read_awaited_lines(message, text[end : end + _MAX_MESSAGE])
    elif message.count('"') % 2:
        message = " ".join([message, *text[end : end + _MAX_MESSAGE].split("\n")[1:3]])
    elif reason := _REASON_LINE.search(text, end, end + 500):
        message = _append_reason(message, reason[0])
    return _strip_fields(message), ()


def _append_reason(message: str, line: str) -> str:
    """Append a line with the reason unless the message says the same."""
    reason = re.split("[:=]", line, maxsplit=1)[1].strip(" \t'\",;")
    is_said = reason and re.search(rf"(?<!\w){re.escape(reason)}(?!\w)", message)
    return message if is_said else f"{message} {line[1:]}"


def _read_awaited_lines(message: str, rest: str) -> str:
    """Append the lines after an open end, up to a line that ends the sentence."""
    lines = [message] if message else []
    for line in rest.split("\n")[1:]:
        if line.startswith("Traceback") or (not lines and line.lstrip().startswith("at ")):
            break
        if lines and not lines[-1].endswith(_OPEN_ENDS) and len(lines) > _MAX_AWAITED:
            break
        if not _ECHO.match(line):
            lines.append(line.strip())
            # The status of gRPC precedes its details: "status = X", "details = y".
            if not lines[-1].endswith((*_OPEN_ENDS, ",")) and not lines[-1].startswith("status = "):
                break
    return " ".join(lines)


def _strip_fields(message: str) -> str:
    message = message[:_MAX_MESSAGE].partition(" ---> ")[0]
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
