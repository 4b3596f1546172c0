"""Which failures are the same failure?

Pure. A text becomes an exception type, the type at the root of its chain and a template of its message. The
fingerprint is a hash of these and carries the version of the rules, because ids that were given out must never
change their meaning. What is only shown, such as names of columns and the place in the code, is not in the hash.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

from dlq_pipelines.causes.parse import ParsedError, find_app_frame, parse_error
from dlq_pipelines.causes.template import Template, build_template, build_template_key

VERSION = 1
# The cache holds texts, so their number and length bound its memory.
_REMEMBERED, _LONGEST_REMEMBERED = 2_048, 8_192
_SHOWN_NAMES = 5
_POSITION = re.compile(r" \([^()]{1,200}, line [0-9]+\)\Z")


class Fingerprint(NamedTuple):
    """What an error text says about its cause.

    Attributes:
        id: the fingerprint, such as `v1-3f9a0c6d2b7e4a51`: version and 64 bits of SHA-256.
        exception_type: as the text names it, with its module; empty where there is none.
        template: the message with typed placeholders, for people.
        root_type: the type at the root of the chain, where there is a chain.
        code: what the failing system calls it: HTTP status, errno, SQLSTATE, exit code.
        detail: names that tell sub-causes apart: constraint, column, missing key.
        frame: the innermost place in the application's own code.
        truncated: a part of the traceback is missing.
    """

    id: str
    exception_type: str
    template: str
    root_type: str = ""
    code: str = ""
    detail: str = ""
    frame: str = ""
    truncated: bool = False


def compute_fingerprint(error: str | None) -> Fingerprint:
    """The fingerprint of an error text; None and blank texts share one."""
    text = error or ""
    failure = parse_error(text)
    message, frame = _message(failure), find_app_frame(text)
    found = build_template(message) if message or failure.exception_type else _left(failure, frame)
    return Fingerprint(
        id=_id(failure, found.key),
        exception_type=failure.exception_type,
        template=found.text,
        root_type=failure.root_type,
        code=" ".join(dict.fromkeys(found.codes)),
        detail=", ".join((failure.names or found.names)[:_SHOWN_NAMES]),
        frame=frame,
        truncated=failure.truncated,
    )


def compute_cause_key(error: str | None) -> str:
    """The fingerprint's id alone, in half the time: nothing is made that is only shown."""
    text = error or ""
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _cause_key(text)


def _cause_key(text: str) -> str:
    failure = parse_error(text)
    message = _message(failure)
    named = message or failure.exception_type
    return _id(
        failure, build_template_key(message) if named else _left(failure, find_app_frame(text)).key
    )


_remembered = lru_cache(_REMEMBERED)(_cause_key)


def _message(failure: ParsedError) -> str:
    """The message without its exception's name in front, which some libraries repeat."""
    message = failure.message.removeprefix(f"{_class(failure.exception_type)}: ")
    if (
        message[-1:] == ")"
    ):  # a syntax error without its traceback: "invalid syntax (orders.py, line 7)"
        message = _POSITION.sub("", message)
    # Not an object's repr but a message in its brackets, as urllib writes: "<urlopen error timed out>".
    return (
        message[1:-1]
        if message[:1] == "<" and message[-1:] == ">" and " error " in message
        else message
    )


def _left(failure: ParsedError, frame: str) -> Template:
    """Where a traceback stops is all that is left to tell such failures apart; of blanks or colours, nothing is."""
    cut_off = f"traceback cut off in {frame}" if frame else "traceback cut off"
    text = cut_off if frame or failure.truncated else "no error text"
    return Template(text, text, (), ())


def _class(exception_type: str) -> str:
    """The class without its module: `psycopg2.Error` in one release is `psycopg2.errors.Error` in the next."""
    return exception_type.rpartition(".")[2]


def _id(failure: ParsedError, key: str) -> str:
    root = _class(failure.root_type) if failure.root_type != failure.exception_type else ""
    told = f"{_class(failure.exception_type)}\n{root}\n{key}".encode(errors="backslashreplace")
    digest = hashlib.sha256(told).hexdigest()
    return f"v{VERSION}-{digest[:16]}"
