"""Which failures are the same failure?

Pure. A text becomes an exception type and a template of its message in which what varies from event to event is a
placeholder, while what tells causes apart stays: HTTP status, errno, exit code, the words. The fingerprint is a hash
of both and carries the version of these rules, because ids that were given out must never change their meaning.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

VERSION = 1
# An error may be megabytes long. Its type and message stand at the end of a traceback, so the end is kept.
_LONGEST = 65_536
_LONGEST_MESSAGE = 1_000

_ANSI = re.compile(r"\x1b(?:\[[0-?]{0,32}[ -/]{0,8}[@-~]|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# "package.module.SomeError: message" or "SomeError" alone, at the beginning of a line.
_EXCEPTION = re.compile(r"(?P<type>[A-Za-z_][\w.$]{0,200})(?::[ \t]*(?P<message>.*))?$")
_TRACEBACK = "Traceback (most recent call last):"

# What a number means when one of these words stands before it: kept, because 404 and 503 are two causes.
_CODE = re.compile(
    r"\b((?:HTTP(?:/\d(?:\.\d)?)?(?: (?:Error|status))?|status(?:[ _]code)?|errno|exit (?:code|status)|SQLSTATE|code)"
    r"[ :=\[(]{0,3})(-?\d{1,5})\b",
    re.IGNORECASE,
)
_LEADING_STATUS = re.compile(r"^([1-5]\d\d)(?= [A-Z])")

# In this order: what contains others comes first. Each pattern is linear: bounded or with disjoint neighbours.
_MASKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("url", re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s'\"<>)\]]+")),
    ("email", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")),
    ("uuid", re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")),
    ("time", re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?")),
    ("ip", re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b")),
    ("address", re.compile(r"\b0x[0-9a-fA-F]+\b")),
    ("hash", re.compile(r"\b(?=[a-f]{0,64}\d)[0-9a-f]{16,128}\b")),
    ("path", re.compile(r"(?<![\w/<])/(?:[\w.@+-]{1,255}/){1,64}[\w.@+-]{0,255}")),
    ("text", re.compile(r"(?<!\w)'[^'\n]{0,500}'(?!\w)|\"[^\"\n]{0,500}\"|`[^`\n]{0,500}`")),
    ("n", re.compile(r"(?<![A-Za-z_<])[-+]?\d+(?:[.,]\d+)*")),
)
_KEPT = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class Fingerprint:
    """What an error text says about its cause.

    Attributes:
        id: the fingerprint, such as `v1-3f9a0c6d2b7e4a51`: version and 64 bits of SHA-256.
        exception_type: as the text names it, with its module; empty where there is none.
        template: the message with typed placeholders, for people.
    """

    id: str
    exception_type: str
    template: str


def fingerprint(error: str | None) -> Fingerprint:
    """The fingerprint of an error text; None and blank texts share one."""
    text = _normalise(error or "")
    if not text:
        return _of("", "no error text")
    exception_type, message = _parse(text)
    return _of(exception_type, _template(message))


def cause_key(error: str | None) -> str:
    """The fingerprint's id alone."""
    return fingerprint(error).id


def _of(exception_type: str, template: str) -> Fingerprint:
    # One placeholder in the hash: whether a value looks like a number or a path must not split a cause.
    plain = re.sub(r"<[a-z]+>", "<>", template)
    digest = hashlib.sha256(f"{exception_type}\n{plain}".encode()).hexdigest()
    return Fingerprint(f"v{VERSION}-{digest[:16]}", exception_type, template)


def _normalise(text: str) -> str:
    text = _ANSI.sub("", text[-_LONGEST:]).replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub("", text)).strip()


def _parse(text: str) -> tuple[str, str]:
    """Exception type and the message's first line: of a Python chain the last traceback, which was raised last."""
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith(_TRACEBACK)]
    candidates = lines[starts[-1] + 1 :] if starts else lines
    for line in candidates:
        found = _EXCEPTION.match(line)
        if found and (starts or found["message"] is not None) and not line.endswith(":"):
            return found["type"], (found["message"] or "").strip()
    return "", lines[0].strip()


def _template(message: str) -> str:
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\ue000{len(kept) - 1}\ue001"

    text = message[:_LONGEST_MESSAGE].replace("\ue000", "").replace("\ue001", "")
    text = _LEADING_STATUS.sub(keep, _CODE.sub(keep, text))
    for name, pattern in _MASKS:
        # Odd and even: the kept codes stand between private marks and are passed over.
        parts = re.split("(\ue000\\d+\ue001)", text)
        text = "".join(part if at % 2 else pattern.sub(f"<{name}>", part) for at, part in enumerate(parts))
    return " ".join(_KEPT.sub(lambda found: kept[int(found[1])], text).split())
