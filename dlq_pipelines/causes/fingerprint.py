"""Computes the fingerprint of an error text: failures with the same fingerprint have one cause.

Pure. The fingerprint hashes the exception type, the template of the message, and type and template
at the root of the chain; the templates hold the codes. Its id holds the version of the rules,
because an id must never change its meaning. The detail and the place in the code are not hashed.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

from dlq_pipelines.causes.condense import condense_message
from dlq_pipelines.causes.detail import choose_detail, drop_persons
from dlq_pipelines.causes.parse import ExceptionLink, ParsedError, find_app_frame, parse_error
from dlq_pipelines.causes.template import Template, build_template, build_template_key
from dlq_pipelines.causes.vocabulary import FAILURE_KEYS, MONTHS

VERSION = 2
# The cache holds texts: their number and length bound its memory.
_CACHED_TEXTS, _LONGEST_CACHED = 2_048, 8_192
_CACHED_MESSAGES = 8_192
_MAX_DETAIL = 200
# The numbers of shorter messages are masked before they are looked up.
_LONGEST_MASKED = 1_000
_STATUS = len(" 503")
_NUMBER = re.compile(r" [0-9]++(?=[ ,;)\n]|: |\.?\Z)")
_BEFORE_CODES = FAILURE_KEYS | {month.lower() for month in MONTHS} | {"port"}
_CLOSING = frozenset("\"'`)]")
_QUOTED_KEY = re.compile(r'\A(key )"([^"\']{1,200})"(?= not found)')
_BARE_NAME = re.compile(r"[\w./$:-]+")
_POSITION = re.compile(r" \([^()]{1,200}, line [0-9]+\)\Z")

_Names = tuple[tuple[str, str], ...]
_Reading = tuple[str, _Names]
# A text without any of these has no frames.
_FRAMES = ('  File "', "\tat ", "\n   at", "\n    at")


class CauseKey(NamedTuple):
    """What classifies a death: the id of its fingerprint, and the detail of its cause."""

    id: str
    detail: str


class Fingerprint(NamedTuple):
    """The fingerprint of an error text, and the parts of the text that people read.

    Attributes:
        id: such as `v2-3f9a0c6d2b7e4a51`: the version and 64 bits of SHA-256.
        exception_type: with its module; empty if the text names none.
        template: the message with typed placeholders.
        root_type: the type at the root of the chain; empty without a chain.
        root_template: the message at the root of the chain with typed placeholders.
        code: the codes of the failing system: HTTP status, errno, SQLSTATE, exit code.
        detail: what the message names that shows whose problem it is, such as a constraint; where
            it names nothing, the innermost function of the application.
        frame: the innermost frame in the application's own code.
        truncated: a part of the traceback is missing.
    """

    id: str
    exception_type: str
    template: str
    root_type: str = ""
    root_template: str = ""
    code: str = ""
    detail: str = ""
    frame: str = ""
    truncated: bool = False


def compute_fingerprint(error: str | None) -> Fingerprint:
    """Compute the fingerprint of an error text; None and blank texts share one."""
    text = error or ""
    id_, detail = compute_cause_key(text)
    failure = parse_error(text)
    frame = find_app_frame(text)
    message, _ = _select_message(_strip_module(failure.exception_type), failure.message)
    found = (
        build_template(message)
        if message or failure.exception_type
        else _describe_cut_off_error(failure, frame)
    )
    roots = [_build_root_template(root) for root in failure.roots]
    codes = [*found.codes, *(code for built in roots for code in built.codes)]
    return Fingerprint(
        id=id_,
        exception_type=failure.exception_type,
        template=found.text,
        root_type=failure.root_type,
        root_template=" + ".join(dict.fromkeys(built.text for built in roots)),
        code=" ".join(dict.fromkeys(codes)),
        detail=detail,
        frame=frame,
        truncated=failure.truncated,
    )


def compute_cause_key(error: str | None) -> CauseKey:
    """Compute id and detail alone: the parts that are only shown are left out."""
    text = error or ""
    return _cached_cause_key(text) if len(text) <= _LONGEST_CACHED else _compute_uncached_key(text)


def compute_cause_id(error: str | None) -> str:
    """Compute the id alone."""
    return compute_cause_key(error).id


def _compute_uncached_key(text: str) -> CauseKey:
    failure = parse_error(text)
    names = _name_fields(failure)
    keys = []
    for root in failure.roots:
        key, found = _read_message(root.type, root.message)
        keys.append((root.type, key))
        names += found
    if failure.message or failure.exception_type:
        key, found = _read_message(failure.exception_type, failure.message)
        names += found
    else:
        key = _describe_cut_off_error(failure, find_app_frame(text)).key
    detail = choose_detail(names) if names else ""
    if not detail and not failure.truncated and any(map(text.__contains__, _FRAMES)):
        detail = find_app_frame(text, is_own=True)[:_MAX_DETAIL]
    return CauseKey(_hash_failure(failure.exception_type, key, keys), detail)


_cached_cause_key = lru_cache(_CACHED_TEXTS)(_compute_uncached_key)


def _read_message(exception_type: str, message: str) -> _Reading:
    """Return the key of a message, and the names in it with their nouns.

    Most messages of a cause differ in a number only, and share a reading.
    """
    name = exception_type.rpartition(".")[2]
    if len(message) >= _LONGEST_MASKED:
        return _read_masked_message(name, message)
    return _read_cached_message(name, _NUMBER.sub(_mask_number, message))


def _read_masked_message(name: str, message: str) -> _Reading:
    text, names = _select_message(name, message)
    key, hidden = build_template_key(text)
    if hidden:
        hidden = drop_persons(text, hidden)
    noun = _NAMING_TYPES.get(name)
    if noun and len(hidden) == 1 and not hidden[0][0]:
        hidden = [(noun, hidden[0][1])]
    return key, (*names, *hidden)


_read_cached_message = lru_cache(_CACHED_MESSAGES)(_read_masked_message)


def _mask_number(found: re.Match[str]) -> str:
    """Replace a plain number that follows a word or a quote by zero; codes and statuses stay."""
    number, text, start = found[0], found.string, found.start()
    if len(number) == _STATUS and number[1] in "45":
        return number
    if text[start - 1 : start] in _CLOSING:
        return " 0"
    word = text[text.rfind(" ", 0, start) + 1 : start]
    return number if not word.isalpha() or word.lower() in _BEFORE_CODES else " 0"


def _name_fields(failure: ParsedError) -> list[tuple[str, str]]:
    """Return the fields of a validation as one name, in sorted order."""
    if not failure.names:
        return []
    return [("constraint", ", ".join(sorted(set(failure.names)))[:_MAX_DETAIL])]


# Their whole message is the name of what is missing.
_NAMING_TYPES = {
    "ClassNotFoundException": "class",
    "KeyError": "key",
    "LookupError": "key",
    "NoClassDefFoundError": "class",
    "NoSuchElementException": "key",
    "NoSuchFieldError": "field",
    "UndefVarError": "variable",
    "UnknownHostException": "host",
}


def _build_root_template(root: ExceptionLink) -> Template:
    return build_template(_select_message(_strip_module(root.type), root.message)[0])


def _select_message(name: str, message: str) -> tuple[str, _Names]:
    """Return the condensed message without the exception's name, which some libraries repeat."""
    if name and message.startswith(name):
        message = message.removeprefix(f"{name}: ")
    if message[-1:] == ")":  # a syntax error without its traceback: "... (orders.py, line 7)"
        message = _POSITION.sub("", message)
    if name in _NAMING_TYPES and _BARE_NAME.fullmatch(message):
        message = f"'{message}'"
    elif name == "KeyError" and '"' in message:  # repr() of Julia and Elixir: key "sku" not found
        message = _QUOTED_KEY.sub(r"\1'\2'", message)
    elif name == "UndefVarError":  # newer releases of Julia name the module
        message = message.partition(" in `")[0]
    text, names = condense_message(message)
    # A message in angle brackets, as urllib writes it: "<urlopen error timed out>".
    if text[:1] == "<" and text[-1:] == ">" and " error " in text:
        text = text[1:-1]
    return text, names


def _describe_cut_off_error(failure: ParsedError, frame: str) -> Template:
    """Return the template of a text without message and type: the place where it was cut off."""
    cut_off = f"traceback cut off in {frame}" if frame else "traceback cut off"
    text = cut_off if frame or failure.truncated else "no error text"
    return Template(text, text, (), ())


def _strip_module(exception_type: str) -> str:
    """Return the class alone: `psycopg2.Error` may become `psycopg2.errors.Error` in a release."""
    return exception_type.rpartition(".")[2]


def _hash_failure(exception_type: str, key: str, roots: list[tuple[str, str]]) -> str:
    hashed = f"{exception_type.rpartition('.')[2]}\n{key}"
    if roots:  # sorted: the tasks of a group fail in any order
        hashed += "".join(sorted({f"\n{_strip_module(name)}\n{root}" for name, root in roots}))
    digest = hashlib.sha256(hashed.encode(errors="backslashreplace")).hexdigest()
    return f"v{VERSION}-{digest[:16]}"
