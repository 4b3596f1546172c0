"""Builds the template of a message: keeps the words that a person wrote, hides the values.

The template approximates the format string in the source that raised the error. Plain words are
prose and stay. Quoted text, tokens with digits, identifiers, paths, addresses and repr() are
values, and so is a plain word where a name is announced ("for table orders"). Hiding too much costs
little: two format strings seldom differ in such a token alone. Showing too much splits a cause. The
codes that systems give their failures stay although they look like values: HTTP status, errno,
SQLSTATE, exit code, gRPC, cloud and driver codes.

Work is linear in the message, which is truncated first.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from dlq_pipelines.causes.tokens import (
    ARITY,
    CODE,
    CODE_IN_REPR,
    COMPLAINT,
    CONSTRUCT,
    DIGITS,
    ERROR_STATUS,
    FAILURE,
    LONG_TYPE,
    PLACEHOLDER,
    PLAIN_STATUS,
    PLURAL,
    ROW,
    SHAPE,
    TOKEN,
)
from dlq_pipelines.causes.vocabulary import (
    ABBREVIATIONS,
    ANSWER_VERBS,
    ANSWER_WORDS,
    CODE_WORDS,
    FAILURE_KEYS,
    FOUND_WORDS,
    FUNCTION_WORDS,
    KINDS,
    NAME_LEADS,
    PREDICATES,
    SENTENCE_KEYS,
    SQL_WORDS,
    STATUS_WORDS,
    THINGS,
    TYPE_LEADS,
    TYPE_NAMES,
    VERBS,
)

# Characters of a message that are read: its beginning distinguishes causes.
_MAX_MESSAGE = 1_000
_MAX_CODE = 40
# Digits of an HTTP status, and of a database's code before a message, "23505: duplicate key".
# Shorter numbers before a message are line numbers.
_STATUS, _SQLSTATE = 3, (4, 5)
# Runs of plain words repeat in most texts. None exceeds a message: their number bounds the memory.
_CACHE_SIZE = 2_048


class Template(NamedTuple):
    """A message without its values.

    Attributes:
        text: with typed placeholders, for people.
        key: with one placeholder for all types, for the hash.
        codes: the codes of the failure, such as a status or an errno.
        names: the identifiers that are hidden, such as columns and keys.
    """

    text: str
    key: str
    codes: tuple[str, ...]
    names: tuple[str, ...]


def build_template(message: str) -> Template:
    """Build the template of a message; line ends count as spaces."""
    reader = _Reader(_normalize_line(message))
    text = reader.read()
    return Template(text, _build_key(text), tuple(reader.codes), tuple(dict.fromkeys(reader.names)))


def build_template_key(message: str) -> str:
    """Build only the key of a message's template."""
    return _build_key(_Reader(_normalize_line(message)).read())


def _normalize_line(message: str) -> str:
    return " ".join(message[:_MAX_MESSAGE].split())


def _build_key(text: str) -> str:
    key = PLACEHOLDER.sub("<>", text)
    key = ROW.sub(_collapse_row, key)
    if "argument" in key:
        key = ARITY.sub("", key)
    # The plural depends on a value: "1 argument was", "2 arguments were".
    return (
        PLURAL.sub("", key)
        .replace(" were ", " wa ")
        .replace(" are ", " is ")
        .replace(" have ", " ha ")
    )


def _collapse_row(row: re.Match[str]) -> str:
    return '"<>"' if row[0][0] == '"' else "<>"


@lru_cache(_CACHE_SIZE)
def _classify_token(text: str) -> str:
    """Return the kind of a token by its shape; "text" if it has none."""
    if (
        text.isascii()
        and text.isidentifier()
        and (text.isalpha() or ("_" in text and text[0] != "_"))
    ):
        return "name"
    shape = SHAPE.fullmatch(text)
    return (shape.lastgroup if shape else None) or "text"


@lru_cache(_CACHE_SIZE)
def _is_failure(word: str) -> bool:
    """Whether a word in lower case, or a part of an identifier, names a failure."""
    return FAILURE.search(word) is not None


class _Reader:
    """Reads a message from left to right, with the preceding token as context.

    Attributes:
        before: the preceding word or mark, in lower case.
        key: the key of the value that follows.
    """

    __slots__ = ("before", "codes", "key", "message", "names")

    def __init__(self, message: str) -> None:
        self.message, self.before, self.key = message, "", ""
        self.codes: list[str] = []
        self.names: list[str] = []

    def read(self) -> str:
        shown: list[str] = []
        for found in TOKEN.finditer(self.message):
            text, key, self.key = found[0], self.key, ""
            if text[0] == " ":
                shown.append(" ")
                text = text[1:]
            shown.append(_READERS[found.lastgroup](self, text, found, key))
        text = "".join(shown)
        text = LONG_TYPE.sub("<type>", text) if "> " in text else text
        return CONSTRUCT.sub(r"\1 <type>", text) if "cannot " in text else text

    def read_prose(self, text: str, found: re.Match[str], key: str) -> str:
        """Keep plain words; hide those in the place of a value."""
        front = self.before
        shown, names, self.before = _hide_names(text, front if front in _FRONTS else "word")
        if key:
            return text if key in FAILURE_KEYS else _hide_first_word(text)
        if " " not in text and (
            self._is_rejected_value(front, found)
            if front == ":"
            else self._is_bracketed_value(text, found)
        ):
            return "<word>"
        if names:
            self.names += names
        return shown

    def _is_rejected_value(self, front: str, found: re.Match[str]) -> bool:
        """Whether this single word ends a complaint about it: "invalid level: loud"."""
        last = front == ":" and found.end() == len(self.message)
        return (
            last
            and COMPLAINT.search(self.message) is not None
            and not _is_failure(found[0].lower())
        )

    def read_capitals(self, text: str, _found: re.Match[str], key: str) -> str:
        """Keep names of errors, ECONNREFUSED; hide words of SQL and HTTP and names of variables."""
        front, self.before = self.before, text.lower()
        if key and key not in FAILURE_KEYS:
            return "<word>"
        if front in KINDS:
            self.names.append(text)
            return "<name>"
        return text if SQL_WORDS.isdisjoint(text.split(" ")) else "<keyword>"

    def read_url(self, _token: str, _found: re.Match[str], _key: str) -> str:
        self.before = ""
        return "<url>"

    def read_raised(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Keep an exception inside the message without its quote, so that its words are read."""
        self.before = ""
        return text.rstrip("'\"")

    def read_arguments(self, text: str, _found: re.Match[str], _key: str) -> str:
        self.before = "code"
        return text.rstrip("'\"")

    def read_pair(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Keep a key; one in quotes belongs to data and stays only if its value names a failure."""
        name = text.strip("'\" =:")
        self.before = self.key = name.lower()
        if text[0] not in "'\"":
            return "<type>=" if name in TYPE_NAMES else f"{name}="
        return f"{name}: " if self.key in FAILURE_KEYS else ""

    def read_quoted(self, text: str, found: re.Match[str], key: str) -> str:
        """Hide quoted text, unless it is a message or an HTTP status."""
        front, self.before = self.before, ""
        content = text.lstrip("bru")[1:-1]
        whole = found.start() == 0 and found.end() == len(self.message)
        if (
            key in FAILURE_KEYS
            or content.startswith(('{"', '[{"'))
            or ((whole or front in SENTENCE_KEYS) and content.count(" ") > 1)
        ):
            return self._read_nested_message(content)
        if (front in CODE_WORDS or content[:1].isdigit()) and _is_status(content, front):
            self.codes.append(content[:3] if content[0].isdigit() else content)
            return content
        value = self._hide_value(content)
        # The quotes of repr() depend on the value's type; other quotes belong to the message.
        return f'"{value}"' if text[0] == '"' and not whole and not key else value

    def _read_nested_message(self, content: str) -> str:
        """Read a message inside the message. Each level needs another quote, so there are few."""
        inner = _Reader(content)
        text = inner.read()
        self.codes += inner.codes
        self.names += inner.names
        return text

    def _hide_value(self, content: str) -> str:
        return self._hide_as("text" if " " in content else _classify_token(content), content)

    def _hide_as(self, kind: str, value: str) -> str:
        if kind in _NAME_KINDS:
            self.names.append(value)
            return "<name>"
        return f"<{kind}>"

    def read_object(self, text: str, _found: re.Match[str], _key: str) -> str:
        self.before = ""
        return self._hide_repr("object", text)

    def read_call(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Hide a call or a repr() with its arguments; keep the name of an exception."""
        self.before = ""
        name, _, arguments = text.partition("(")
        if not name.islower() and _is_failure(name.lower()):
            return name + self._hide_repr("call", "(" + arguments)
        return self._hide_repr("call", text)

    def _hide_repr(self, kind: str, text: str) -> str:
        codes = CODE_IN_REPR.findall(text)
        self.codes += (code.strip("[]") for code in codes)
        return f"<{' '.join((kind, *codes))}>"

    def read_symbol(self, text: str, found: re.Match[str], _key: str) -> str:
        """Hide an operator; keep a dash between words."""
        dash = (
            not text.strip("-")
            and self.before not in KINDS
            and self.message[found.end() : found.end() + 1] != ":"
        )
        self.before = ""
        return text if dash else "<symbol>"

    def read_mark(self, text: str, _found: re.Match[str], key: str) -> str:
        """Keep punctuation, drop unpaired quotes. A code may follow a bracket or a colon."""
        if text in "\"'`":
            self.key = key
            return ""
        if text not in "=#[" and not (text in ":(" and self.before in FAILURE_KEYS):
            self.before = text
        return text

    def read_stop(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Keep a mark that ends a clause."""
        if text != ":" or self.before not in FAILURE_KEYS:
            self.before = text[-1]
        return text

    def read_number(self, text: str, found: re.Match[str], key: str) -> str:
        """Hide a plain number, by far the most frequent value, unless it is a code."""
        front, self.before = self.before, text
        if key:
            is_code = key in FAILURE_KEYS
        else:
            likely = len(text) == _STATUS or front == "(" or not found.start()
            is_code = front in CODE_WORDS or (likely and self._is_number_code(text, front, found))
        if is_code:
            self.codes.append(text)
            return text
        return "<number>"

    def read_chunk(self, text: str, found: re.Match[str], key: str) -> str:
        """Keep or hide any other token by its shape."""
        bare = text.rstrip(".:!?…") or text
        rest = text[len(bare) : len(bare) + 1]
        front, word = self.before, bare.lower()
        self.before = ":" if rest == ":" and word not in CODE_WORDS else word
        if self._is_code(bare, front, key):
            self.codes.append(bare)
            return text
        kind = _classify_token(bare)
        if kind == "text":
            return "<text>" if bare.isascii() else DIGITS.sub("<number>", bare) + rest
        if key and key not in FAILURE_KEYS:
            return f"<{kind}>{rest}"
        if (
            front not in KINDS
            and not self._is_rejected_value(front, found)
            and self._keeps_token(kind, bare, found)
        ):
            return text
        return self._hide_as(kind, bare) + rest

    def _is_bracketed_value(self, text: str, found: re.Match[str]) -> bool:
        """Whether this single word in brackets is a value: "index [orders]"."""
        if self.message[found.end() : found.end() + 1] not in _CLOSING or not text.islower():
            return False
        return self.message[found.start() - 2 : found.start()] in _OPENING and not _is_failure(text)

    def _is_code(self, bare: str, front: str, key: str) -> bool:
        if key in FAILURE_KEYS and key not in SENTENCE_KEYS:
            return bare[0] not in "/~" and len(bare) <= _MAX_CODE
        return front in CODE_WORDS and CODE.fullmatch(bare) is not None

    def _keeps_token(self, kind: str, bare: str, found: re.Match[str]) -> bool:
        """Whether an identifier names a failure, or a token is prose."""
        if kind == "name":
            word = bare.lower()
            return word in CODE_WORDS or _is_failure(word) or self._is_lone_code(bare, found)
        return kind in _KEPT_KINDS or (kind == "symbol" and not bare.strip(".-\u2013\u2014"))

    def _is_lone_code(self, bare: str, found: re.Match[str]) -> bool:
        """Whether this code is in parentheses, "(SlowDown)", or alone, "do_not_honor"."""
        if bare[0].isupper():
            around = (
                self.message[found.start() - 1 : found.start()]
                + self.message[found.end() : found.end() + 1]
            )
            return around == "()" and bare.isalpha()
        return len(bare) == len(self.message) and bare.islower() and bare.replace("_", "").isalpha()

    def _is_number_code(self, number: str, front: str, found: re.Match[str]) -> bool:
        """Whether a number is a code, "(111: refused)", "23505: duplicate", or an HTTP status."""
        mark = self.message[found.end() : found.end() + 1]
        if mark == ":" and (front == "(" or (found.start() == 0 and len(number) in _SQLSTATE)):
            return True
        if not ERROR_STATUS.fullmatch(number):
            return False
        if front == "(" and mark == ")":
            return True
        after = self.message[found.end() : found.end() + 40].lstrip(": ")
        word = after.partition(" ")[0].strip(".,:;)")
        if word in STATUS_WORDS or (front in ANSWER_VERBS and word in FUNCTION_WORDS):
            return True
        return (front in ANSWER_WORDS or found.start() == 0) and not word[:1].islower()


def _is_status(content: str, front: str) -> bool:
    """Whether quoted text is an HTTP status: '503 Service Unavailable', status 'Unauthorized'."""
    if not content[:1].isdigit():
        return content.partition(" ")[0] in STATUS_WORDS
    status = PLAIN_STATUS.fullmatch(content)
    return status is not None and (
        status["word"] in STATUS_WORDS if status["word"] else front in CODE_WORDS
    )


@lru_cache(_CACHE_SIZE)
def _hide_names(text: str, front: str) -> tuple[str, tuple[str, ...], str]:
    """Hide the words where a name or a type is announced.

    Returns the text, the hidden names, and the last word.
    """
    words = text.split(" ")
    last = words[-1].lower()
    if front not in _ANNOUNCING and _MARKERS.isdisjoint(words) and words[1:3] != ["is", "not"]:
        return text, (), last
    three, two, one = "", "", front
    names = []
    if not front and _starts_with_name(words):
        names.append(words[0])
        words[0] = "<name>"
    for at, word in enumerate(words):
        after = words[at + 1] if at + 1 < len(words) else ""
        if word in ABBREVIATIONS or (
            one and after in THINGS and (word in TYPE_NAMES or word[0].isupper())
        ):
            words[at] = "<type>"
        elif one in _ANNOUNCING and word not in FUNCTION_WORDS:
            if (
                one in KINDS
                and word not in KINDS
                and _is_announced_name(word, one, two, three, after)
            ):
                words[at] = "<name>"
                names.append(word)
            elif _is_announced_type(word, one, two, after, alone=len(words) == 1):
                words[at] = "<type>"
        three, two, one = two, one, word.lower()
    return " ".join(words), tuple(names), last


def _starts_with_name(words: list[str]) -> bool:
    """Whether the first word is a name of which something is denied: "orders is not defined"."""
    is_named = words[1:3] == ["is", "not"] and not PREDICATES.isdisjoint(words[3:4])
    return is_named and words[0] not in ABBREVIATIONS


def _hide_first_word(text: str) -> str:
    return "<word>" + text[len(text.partition(" ")[0]) :]


def _is_announced_name(word: str, one: str, two: str, three: str, after: str) -> bool:
    """Whether a kind announces a name: "for table orders", "table orders does"."""
    if word.endswith("ed"):  # "the server disconnected"
        return False
    return (
        one in {"called", "named", "type"}
        or two in NAME_LEADS
        or three in NAME_LEADS
        or (not two and after in VERBS)
        or "-" in word
    )


def _is_announced_type(word: str, one: str, two: str, after: str, *, alone: bool) -> bool:
    """Whether a type is announced: "got Order", ", not Order", "to integer", "(integer, text)"."""
    if (
        one == "got"
        or (one == "not" and two == "," and not after)
        or (one == "valid" and word[0].isupper())
    ):
        return True
    if one == "," and after in FOUND_WORDS:
        return word in TYPE_NAMES or word[0].isupper()
    return word in TYPE_NAMES and (one in TYPE_LEADS or (one in {"(", ","} and alone))


_ANNOUNCING = KINDS | TYPE_LEADS | {"got", "valid", "(", ","}
_OPENING, _CLOSING = frozenset((" [", " (")), frozenset("])")
_MARKERS = _ANNOUNCING | THINGS | ABBREVIATIONS | {"Got", "Found"}
# Every other token before words has the same effect as "word".
_FRONTS = _ANNOUNCING | NAME_LEADS | {""}
_NAME_KINDS = frozenset(("dunder", "enum", "name", "word"))
_KEPT_KINDS = frozenset(("dunder", "enum", "vendor", "word"))
_READERS: dict[str | None, Callable[[_Reader, str, re.Match[str], str], str]] = {
    "prose": _Reader.read_prose,
    "capitals": _Reader.read_capitals,
    "url": _Reader.read_url,
    "raised": _Reader.read_raised,
    "arguments": _Reader.read_arguments,
    "key": _Reader.read_pair,
    "quoted": _Reader.read_quoted,
    "symbol": _Reader.read_symbol,
    "object": _Reader.read_object,
    "call": _Reader.read_call,
    "number": _Reader.read_number,
    "chunk": _Reader.read_chunk,
    "mark": _Reader.read_mark,
    "stop": _Reader.read_stop,
}
