"""Which words of a message did somebody write, and which did the program fill in?

The truth that is sought is the format string in the source that raised the error. Prose is what a person wrote: plain
words stay. Values are what a program fills in: whatever is quoted, carries digits, looks like an identifier, a path,
an address or a repr(), and the plain word that stands where a name is announced ("for table orders"). Hiding too much
costs little, as two format strings seldom differ in such a token alone; showing too much splits a cause. What is kept
although it looks like a value are the codes by which systems tell their failures apart: HTTP status, errno, SQLSTATE,
exit code, gRPC, cloud and driver codes.

Work is linear in the message, and the message is cut first.
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
    FUNCTION_WORDS,
    KINDS,
    NAME_LEADS,
    PREDICATES,
    SEEN,
    SENTENCE_KEYS,
    SQL_WORDS,
    STATUS_WORDS,
    TELLING_KEYS,
    THINGS,
    TYPE_LEADS,
    TYPE_NAMES,
    VERBS,
)

# Characters of a message that are looked at: what tells causes apart stands in front.
_LONGEST = 1_000
_LONGEST_CODE = 40
# Digits of an HTTP status, and of a database's code in front of a message, "23505: duplicate key"; fewer count lines.
_STATUS, _SQLSTATE = 3, (4, 5)
# Runs of plain words repeat in most texts. None is longer than a message, so their number bounds the memory.
_REMEMBERED = 2_048


class Template(NamedTuple):
    """A message without its values.

    Attributes:
        text: with typed placeholders, for people.
        key: with one placeholder for every type, for the hash.
        codes: what systems call this failure, such as a status or an errno.
        names: identifiers that were hidden, such as columns and keys.
    """

    text: str
    key: str
    codes: tuple[str, ...]
    names: tuple[str, ...]


def build_template(message: str) -> Template:
    """The template of a message; line ends in it count as spaces."""
    reader = _Reader(_line(message))
    text = reader.read()
    return Template(text, _key(text), tuple(reader.codes), tuple(dict.fromkeys(reader.names)))


def build_template_key(message: str) -> str:
    """The key of the message's template, alone."""
    return _key(_Reader(_line(message)).read())


def _line(message: str) -> str:
    return " ".join(message[:_LONGEST].split())


def _key(text: str) -> str:
    key = PLACEHOLDER.sub("<>", text)
    key = ROW.sub(_one, key)
    if "argument" in key:
        key = ARITY.sub("", key)
    # A count decides between "1 argument was" and "2 arguments were".
    return (
        PLURAL.sub("", key)
        .replace(" were ", " wa ")
        .replace(" are ", " is ")
        .replace(" have ", " ha ")
    )


def _one(row: re.Match[str]) -> str:
    return '"<>"' if row[0][0] == '"' else "<>"


@lru_cache(_REMEMBERED)
def _kind(text: str) -> str:
    """The name of a token's shape; "text" for one that has none."""
    if (
        text.isascii()
        and text.isidentifier()
        and (text.isalpha() or ("_" in text and text[0] != "_"))
    ):
        return "name"
    shape = SHAPE.fullmatch(text)
    return (shape.lastgroup if shape else None) or "text"


@lru_cache(_REMEMBERED)
def _is_failure(word: str) -> bool:
    """Whether a word in lower case, or a part of an identifier, says that something failed."""
    return FAILURE.search(word) is not None


class _Reader:
    """Reads a message from left to right and remembers what stood in front.

    Attributes:
        before: the last word or mark, in lower case.
        key: the key whose value comes next.
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

    def prose(self, text: str, found: re.Match[str], key: str) -> str:
        """Plain words, of which those that stand in a value's place are hidden."""
        front = self.before
        shown, names, self.before = _words(text, front if front in _FRONTS else "word")
        if key:
            return text if key in TELLING_KEYS else _hide_first(text)
        if " " not in text and (
            self._is_tail(front, found) if front == ":" else self._is_bracketed(text, found)
        ):
            return "<word>"
        if names:
            self.names += names
        return shown

    def _is_tail(self, front: str, found: re.Match[str]) -> bool:
        """The single word after the last colon is the value that is complained about: "invalid level: loud"."""
        last = front == ":" and found.end() == len(self.message)
        return (
            last
            and COMPLAINT.search(self.message) is not None
            and not _is_failure(found[0].lower())
        )

    def capitals(self, text: str, _found: re.Match[str], key: str) -> str:
        """Names of errors stay, ECONNREFUSED; SQL's and HTTP's own words and names of variables do not."""
        front, self.before = self.before, text.lower()
        if key and key not in TELLING_KEYS:
            return "<word>"
        if front in KINDS:
            self.names.append(text)
            return "<name>"
        return text if SQL_WORDS.isdisjoint(text.split(" ")) else "<keyword>"

    def url(self, _token: str, _found: re.Match[str], _key: str) -> str:
        self.before = ""
        return "<url>"

    def raised(self, text: str, _found: re.Match[str], _key: str) -> str:
        """An exception inside the message: its quote opens nothing, so that its words are read."""
        self.before = ""
        return text.rstrip("'\"")

    def arguments(self, text: str, _found: re.Match[str], _key: str) -> str:
        self.before = "code"
        return text.rstrip("'\"")

    def pair(self, text: str, _found: re.Match[str], _key: str) -> str:
        """A key; one in quotes belongs to data, of which only what tells something is shown."""
        name = text.strip("'\" =:")
        self.before = self.key = name.lower()
        if text[0] not in "'\"":
            return "<type>=" if name in TYPE_NAMES else f"{name}="
        return f"{name}: " if self.key in TELLING_KEYS else ""

    def quoted(self, text: str, found: re.Match[str], key: str) -> str:
        """A value, unless it is a message of its own or an HTTP status."""
        front, self.before = self.before, ""
        content = text.lstrip("bru")[1:-1]
        whole = found.start() == 0 and found.end() == len(self.message)
        if (
            key in TELLING_KEYS
            or content.startswith(('{"', '[{"'))
            or ((whole or front in SENTENCE_KEYS) and content.count(" ") > 1)
        ):
            return self._inner(content)
        if (front in CODE_WORDS or content[:1].isdigit()) and _is_status(content, front):
            self.codes.append(content[:3] if content[0].isdigit() else content)
            return content
        value = self._value(content)
        # The quotes of repr() come and go with the value's type, others are the message's own.
        return f'"{value}"' if text[0] == '"' and not whole and not key else value

    def _inner(self, content: str) -> str:
        """A message inside the message. Each level needs another kind of quotes, so there are few."""
        inner = _Reader(content)
        text = inner.read()
        self.codes += inner.codes
        self.names += inner.names
        return text

    def _value(self, content: str) -> str:
        return self._shown("text" if " " in content else _kind(content), content)

    def _shown(self, kind: str, value: str) -> str:
        if kind in _NAMES:
            self.names.append(value)
            return "<name>"
        return f"<{kind}>"

    def object(self, text: str, _found: re.Match[str], _key: str) -> str:
        self.before = ""
        return self._repr("object", text)

    def call(self, text: str, _found: re.Match[str], _key: str) -> str:
        """A call or a repr(), name and arguments; the name of an exception stays."""
        self.before = ""
        name, _, arguments = text.partition("(")
        if not name.islower() and _is_failure(name.lower()):
            return name + self._repr("call", "(" + arguments)
        return self._repr("call", text)

    def _repr(self, kind: str, text: str) -> str:
        codes = CODE_IN_REPR.findall(text)
        self.codes += (code.strip("[]") for code in codes)
        return f"<{' '.join((kind, *codes))}>"

    def symbol(self, text: str, found: re.Match[str], _key: str) -> str:
        """An operator; a dash between words is none."""
        dash = (
            not text.strip("-")
            and self.before not in KINDS
            and self.message[found.end() : found.end() + 1] != ":"
        )
        self.before = ""
        return text if dash else "<symbol>"

    def mark(self, text: str, _found: re.Match[str], key: str) -> str:
        """Punctuation; a quote that closes nothing is left out, and a code may stand in brackets or after a colon."""
        if text in "\"'`":
            self.key = key
            return ""
        if text not in "=#[" and not (text in ":(" and self.before in TELLING_KEYS):
            self.before = text
        return text

    def stop(self, text: str, _found: re.Match[str], _key: str) -> str:
        """What ends something."""
        if text != ":" or self.before not in TELLING_KEYS:
            self.before = text[-1]
        return text

    def number(self, text: str, found: re.Match[str], key: str) -> str:
        """A plain number, by far the most frequent value."""
        front, self.before = self.before, text
        if key:
            telling = key in TELLING_KEYS
        else:
            likely = len(text) == _STATUS or front == "(" or not found.start()
            telling = front in CODE_WORDS or (likely and self._is_number_code(text, front, found))
        if telling:
            self.codes.append(text)
            return text
        return "<number>"

    def chunk(self, text: str, found: re.Match[str], key: str) -> str:
        """Anything else without spaces: told by its shape."""
        bare = text.rstrip(".:!?…") or text
        rest = text[len(bare) : len(bare) + 1]
        front, word = self.before, bare.lower()
        self.before = ":" if rest == ":" and word not in CODE_WORDS else word
        if self._is_code(bare, front, key):
            self.codes.append(bare)
            return text
        kind = _kind(bare)
        if kind == "text":
            return "<text>" if bare.isascii() else DIGITS.sub("<number>", bare) + rest
        if key and key not in TELLING_KEYS:
            return f"<{kind}>{rest}"
        if (
            front not in KINDS
            and not self._is_tail(front, found)
            and self._stays(kind, bare, found)
        ):
            return text
        return self._shown(kind, bare) + rest

    def _is_bracketed(self, text: str, found: re.Match[str]) -> bool:
        """A single word in brackets inside a sentence is a value: "index [orders]", "process 7 (orders)"."""
        if self.message[found.end() : found.end() + 1] not in _CLOSING or not text.islower():
            return False
        return self.message[found.start() - 2 : found.start()] in _OPENING and not _is_failure(text)

    def _is_code(self, bare: str, front: str, key: str) -> bool:
        if key in TELLING_KEYS and key not in SENTENCE_KEYS:
            return bare[0] not in "/~" and len(bare) <= _LONGEST_CODE
        return front in CODE_WORDS and CODE.fullmatch(bare) is not None

    def _stays(self, kind: str, bare: str, found: re.Match[str]) -> bool:
        """Whether an identifier names a failure, or a token is prose after all."""
        if kind == "name":
            word = bare.lower()
            return word in CODE_WORDS or _is_failure(word) or self._is_alone(bare, found)
        return kind in _KEPT or (kind == "symbol" and not bare.strip(".-\u2013\u2014"))

    def _is_alone(self, bare: str, found: re.Match[str]) -> bool:
        """Clouds put their codes in parentheses, "(SlowDown)"; others say nothing else, "do_not_honor"."""
        if bare[0].isupper():
            around = (
                self.message[found.start() - 1 : found.start()]
                + self.message[found.end() : found.end() + 1]
            )
            return around == "()" and bare.isalpha()
        return len(bare) == len(self.message) and bare.islower() and bare.replace("_", "").isalpha()

    def _is_number_code(self, number: str, front: str, found: re.Match[str]) -> bool:
        """Whether a number is a code, "(111: Connection refused)" or "23505: duplicate", or an HTTP status."""
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
    """Whether a quoted text is an HTTP status: '503 Service Unavailable', status '503', status 'Unauthorized'."""
    if not content[:1].isdigit():
        return content.partition(" ")[0] in STATUS_WORDS
    status = PLAIN_STATUS.fullmatch(content)
    return status is not None and (
        status["word"] in STATUS_WORDS if status["word"] else front in CODE_WORDS
    )


@lru_cache(_REMEMBERED)
def _words(text: str, front: str) -> tuple[str, tuple[str, ...], str]:
    """Plain words without those that stand where a name or the name of a type is announced; these; the last word."""
    words = text.split(" ")
    last = words[-1].lower()
    if front not in _ANNOUNCING and _TELLING.isdisjoint(words) and words[1:3] != ["is", "not"]:
        return text, (), last
    three, two, one = "", "", front
    names = []
    if not front and _is_subject(words):
        names.append(words[0])
        words[0] = "<name>"
    for at, word in enumerate(words):
        after = words[at + 1] if at + 1 < len(words) else ""
        if word in ABBREVIATIONS or (
            one and after in THINGS and (word in TYPE_NAMES or word[0].isupper())
        ):
            words[at] = "<type>"
        elif one in _ANNOUNCING and word not in FUNCTION_WORDS:
            if one in KINDS and word not in KINDS and _is_name(word, one, two, three, after):
                words[at] = "<name>"
                names.append(word)
            elif _is_type(word, one, two, after, alone=len(words) == 1):
                words[at] = "<type>"
        three, two, one = two, one, word.lower()
    return " ".join(words), tuple(names), last


def _is_subject(words: list[str]) -> bool:
    """Whether the first word is a name that is not what it should be: "orders is not defined"."""
    said = words[1:3] == ["is", "not"] and not PREDICATES.isdisjoint(words[3:4])
    return said and words[0] not in ABBREVIATIONS


def _hide_first(text: str) -> str:
    return "<word>" + text[len(text.partition(" ")[0]) :]


def _is_name(word: str, one: str, two: str, three: str, after: str) -> bool:
    """Whether a kind announces a name: "for table orders", "for foreign table orders", "table orders does"."""
    if word.endswith("ed"):  # "the server disconnected"
        return False
    return (
        one in {"called", "named", "type"}
        or two in NAME_LEADS
        or three in NAME_LEADS
        or (not two and after in VERBS)
        or "-" in word
    )


def _is_type(word: str, one: str, two: str, after: str, *, alone: bool) -> bool:
    """Whether a type's name was filled in: "got Order", ", not Order", "to integer", "(integer, text)"."""
    if (
        one == "got"
        or (one == "not" and two == "," and not after)
        or (one == "valid" and word[0].isupper())
    ):
        return True
    if one == "," and after in SEEN:
        return word in TYPE_NAMES or word[0].isupper()
    return word in TYPE_NAMES and (one in TYPE_LEADS or (one in {"(", ","} and alone))


_ANNOUNCING = KINDS | TYPE_LEADS | {"got", "valid", "(", ","}
_OPENING, _CLOSING = frozenset((" [", " (")), frozenset("])")
_TELLING = _ANNOUNCING | THINGS | ABBREVIATIONS | {"Got", "Found"}
# In front of words anything else is as good as "word".
_FRONTS = _ANNOUNCING | NAME_LEADS | {""}
_NAMES = frozenset(("dunder", "enum", "name", "word"))
_KEPT = frozenset(("dunder", "enum", "vendor", "word"))
_READERS: dict[str | None, Callable[[_Reader, str, re.Match[str], str], str]] = {
    "prose": _Reader.prose,
    "capitals": _Reader.capitals,
    "url": _Reader.url,
    "raised": _Reader.raised,
    "arguments": _Reader.arguments,
    "key": _Reader.pair,
    "quoted": _Reader.quoted,
    "symbol": _Reader.symbol,
    "object": _Reader.object,
    "call": _Reader.call,
    "number": _Reader.number,
    "chunk": _Reader.chunk,
    "mark": _Reader.mark,
    "stop": _Reader.stop,
}
