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
    ASIDE_END,
    ASIDE_START,
    CODE,
    CODE_IN_REPR,
    COMPLAINT,
    CONSTRUCT,
    DIGITS,
    FILE_SPACE,
    KEPT_END,
    KEPT_START,
    LONG_TYPE,
    MARKS,
    PLACEHOLDER,
    PLAIN_STATUS,
    ROW,
    SHAPE,
    TOKEN,
    UNIT,
    UNIT_END,
    UNIT_START,
    WORD_START,
)
from dlq_pipelines.causes.vocabulary import (
    CODE_WORDS,
    COUNTED_NOUNS,
    COUNTRY_LEADS,
    CURRENCIES,
    FAILURE_KEYS,
    HOST_LEADS,
    KINDS,
    NAMED_KINDS,
    NO_COUNTRIES,
    NUMBER_NOUNS,
    SENTENCE_KEYS,
    SQL_WORDS,
    STATUS_LEADS,
    STATUS_WORDS,
    TYPE_NAMES,
    VALUE_KEYS,
)
from dlq_pipelines.causes.words import (
    FRONTS,
    NUMBER_FRONT,
    WORD_FRONT,
    hide_names,
    hide_subject,
    is_failure,
    reduce_words,
    show_type,
)

# Characters of a message that are read: its beginning distinguishes causes.
_MAX_MESSAGE = 1_000
_MAX_CODE = 40
# Digits of an HTTP status, and of a database's code before a message, "23505: duplicate key".
# Shorter numbers before a message are line numbers.
_STATUS, _SQLSTATE = 3, (4, 5)
_LAST_WORD = re.compile(r"([\w'/.-]*)(\W*)\Z")
# None exceeds a message: their number bounds the memory.
_CACHE_SIZE = 2_048
# Words of a key that count. A column of 255 characters holds as many of nearly all messages, so a
# text that it has cut off has the key of the whole text.
_KEY_WORDS = 20
_STATED_WORDS = 6
_ADVICE_SENTENCE = re.compile(
    r"[.!?] (?=(?:Please|Check|Consider|Contact|Ensure|For|If|Learn|Make|Read|Refer|Retry|See|Try"
    r"|Use|Visit|You (?:can|may|must|need))\b)"
)
_STATUS_CODE = re.compile(r"[1-5][0-9]{2}")


class Template(NamedTuple):
    """A message without its values.

    Attributes:
        text: with typed placeholders, for people.
        key: with one placeholder for all types, for the hash.
        codes: the codes of the failure, such as a status or an errno.
        names: the identifiers that are hidden, such as columns and keys, each with the noun that
            announces it.
    """

    text: str
    key: str
    codes: tuple[str, ...]
    names: tuple[tuple[str, str], ...]


def build_template(message: str) -> Template:
    """Build the template of a message; line ends count as spaces."""
    line = _normalize_line(message)
    reader = _Reader(line)
    text = reader.read()
    return Template(
        MARKS.sub("", text),
        _read_key(_Reader(line, is_key=True)),
        tuple(reader.codes),
        tuple(dict.fromkeys(reader.names)),
    )


def build_template_key(message: str) -> tuple[str, list[tuple[str, str]]]:
    """Build only the key of a message's template and the names that it hides."""
    reader = _Reader(_normalize_line(message), is_key=True)
    return _read_key(reader), reader.names


def _normalize_line(message: str) -> str:
    return " ".join(message[:_MAX_MESSAGE].split())


def _read_key(reader: "_Reader") -> str:
    key = _build_key(reader.read())
    if ". " not in key and key.count(" ") < _KEY_WORDS:
        return key
    return _limit_key(key, reader.codes)


def _limit_key(key: str, codes: list[str]) -> str:
    """Reduce a key to its first words, and to what precedes advice; a status stays."""
    words = key.split(" ")
    stated = " ".join(words[:_KEY_WORDS])
    for advice in _ADVICE_SENTENCE.finditer(stated):
        if key.count(" ", 0, advice.start()) + 1 >= _STATED_WORDS:
            stated = stated[: advice.start()]
            break
    if len(stated) == len(key):
        return key
    rest = key[len(stated) :]
    statuses = [code for code in codes if _STATUS_CODE.fullmatch(code) and code in rest]
    return " ".join([stated.rstrip(" .,;:([{"), *dict.fromkeys(statuses)])


def _build_key(text: str) -> str:
    """Reduce all placeholders to one; the words are reduced already, a run at a time."""
    if UNIT_START in text:
        text = UNIT.sub("", text)
    if "<" in text or WORD_START in text:
        key = PLACEHOLDER.sub("<>", text)
        if key.count("<>") > 1 or "[" in key or "{" in key:
            key = ROW.sub(_collapse_row, key)
    elif "[" in text or "{" in text:
        key = ROW.sub(_collapse_row, text)
    else:
        key = text
    if "argument" in key:
        key = ARITY.sub("", key)
    return key.rstrip(" .")


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
    if "/" in text and CURRENCIES.issuperset(text.split("/")):
        return "name"
    shape = SHAPE.fullmatch(text)
    return (shape.lastgroup if shape else None) or "text"


class _Reader:
    """Reads a message from left to right, with the preceding token as context.

    Attributes:
        is_key: read for the key, not for people.
        before: the preceding word or mark, in lower case.
        key: the key of the value that follows.
        noun: the last noun that can announce a name.
    """

    __slots__ = ("before", "codes", "is_key", "key", "message", "names", "noun")

    def __init__(self, message: str, *, is_key: bool = False) -> None:
        self.message, self.before, self.key, self.noun = message, "", "", ""
        self.is_key = is_key
        self.codes: list[str] = []
        self.names: list[tuple[str, str]] = []

    def read(self) -> str:
        shown: list[str] = []
        for found in TOKEN.finditer(self.message):
            text, key, self.key = found[0], self.key, ""
            if text[0] == " ":
                shown.append(" ")
                text = text[1:]
            shown.append(_READERS[found.lastgroup](self, text, found, key))
        text = "".join(shown)
        if "time zone" in text or "precision" in text or "varying" in text:
            text = LONG_TYPE.sub("<type>", text)
        return CONSTRUCT.sub(r"\1 <type>", text) if "cannot " in text else text

    def read_prose(self, text: str, found: re.Match[str], key: str) -> str:
        """Keep plain words; hide those in the place of a value."""
        front = self.before
        if front == "host" and self.message[found.start() - 1] == ":" and " " not in text:
            self.names.append((front, text))
            return "<name>"
        if front not in FRONTS:
            run = hide_names(text, _classify_front(front))
        else:
            run = hide_names(text, front)
        self.before = run.last
        if key:
            return self._read_value(text, key)
        if " " not in text and (
            self._is_rejected_value(front, found)
            if front == ":"
            else self._is_bracketed_value(text, found)
        ):
            self.names.append((self.noun, text))
            return "<word>"
        if run.noun:
            self.noun = run.noun
        if run.names:
            self.names += run.names
        shown = run.key if self.is_key else run.text
        if front == ":" and text[0].isupper():
            return self._read_clause(text, shown)
        return shown

    def _read_clause(self, text: str, shown: str) -> str:
        """Read a capitalised word after a colon: an operation, or the field of a validation."""
        if self.noun == "operation" and text.isalpha():
            self.names.append((self.noun, text))
            return "<name>"
        if not self.message.startswith(_VALIDATED):
            return shown
        shown, subject = hide_subject(shown)
        if subject:
            self.names.append(("field", subject))
        return shown

    def _read_value(self, text: str, key: str) -> str:
        """Read the words after a key."""
        if key in FAILURE_KEYS:
            return reduce_words(text) if self.is_key else text
        if key in VALUE_KEYS:
            if not is_failure(text.lower()) and not COMPLAINT.search(text):
                return "<text>"
            return reduce_words(text) if self.is_key else text
        self.names.append((key, text.partition(" ")[0]))
        return _hide_first_word(text)

    def _is_rejected_value(self, front: str, found: re.Match[str]) -> bool:
        """Whether this single word ends a complaint about it: "invalid level: loud"."""
        end = found.end()
        last = front == ":" and (
            end == len(self.message)
            or (self.noun in NAMED_KINDS and self.message[end : end + 1] == ":")
        )
        return (
            last
            and (not self.message.isascii() or COMPLAINT.search(self.message) is not None)
            and not is_failure(found[0].lower())
        )

    def read_capitals(self, text: str, found: re.Match[str], key: str) -> str:
        """Keep names of errors, ECONNREFUSED; hide words of SQL and HTTP and names of variables."""
        front, self.before = self.before, text.lower()
        if key and key not in FAILURE_KEYS:
            self.names.append((key, text))
            return "<word>"
        noun = self._find_capital_noun(text, front, found)
        if noun:
            self.names.append((noun, text))
            return "<name>"
        if text in _UNITS and front[-1:].isdigit():
            return f"{UNIT_START}{text}{UNIT_END}"
        return text if SQL_WORDS.isdisjoint(text.split(" ")) else "<keyword>"

    def _find_capital_noun(self, text: str, front: str, found: re.Match[str]) -> str:
        """Return the noun for capitals that are a value: a name, a currency, a country."""
        if front in KINDS or (
            front == "by" and _TAKEN.search(self.message, max(0, found.start() - 20), found.start())
        ):
            return front
        if "_" in text and front == ":" and self._is_rejected_value(front, found):
            return self.noun or "value"
        if text in _ANSWERS:
            return "value"
        is_code = len(text) < _WORDY and _is_currency_or_country(text, front)
        return "currency" if is_code else ""

    def read_url(self, token: str, _found: re.Match[str], _key: str) -> str:
        if self.before not in _ADVICE:
            self.names.append(("url", token))
        self.before = ""
        return "<url>"

    def read_kept(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Keep a code that was found in a body or a tuple."""
        code = text.strip(KEPT_START + KEPT_END)
        self.before = code.lower()
        self.codes.append(code)
        return code

    def read_aside(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Show a code of a body whose sentence says the same in words."""
        code, _, rest = text.strip(ASIDE_START).partition(ASIDE_END)
        self.codes.append(code)
        return "" if self.is_key else code + rest

    def read_raised(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Keep an exception inside the message without its quote, so that its words are read."""
        self.before = ""
        text = text.rstrip("'\"")
        return _MODULE.sub("", text) if self.is_key and "." in text else text

    def read_arguments(self, text: str, _found: re.Match[str], _key: str) -> str:
        self.before = "code"
        return text.rstrip("'\"")

    def read_pair(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Keep a key; one in quotes belongs to data and stays only if its value names a failure."""
        name = text.strip("'\" =:")
        self.before = self.key = name.lower()
        if text[0] not in "'\"":
            return f"{show_type(name)}=" if name in TYPE_NAMES else f"{name}="
        return f"{name}: " if self.key in FAILURE_KEYS else ""

    def read_quoted(self, text: str, found: re.Match[str], key: str) -> str:
        """Hide quoted text, unless it is a message or an HTTP status."""
        front, self.before = self.before, ""
        content = text[1:-1] if text[0] not in "bru" else text.lstrip("bru")[1:-1]
        whole = found.start() == 0 and found.end() == len(self.message)
        if self._is_quoted_code(content, front, found):
            self.codes.append(content)
            return content
        if " " not in content and content[:1] not in _NESTED and key not in FAILURE_KEYS:
            if (front in CODE_WORDS or content[:1].isdigit()) and _is_status(content, front):
                self.codes.append(content[:3] if content[0].isdigit() else content)
                return content
            value = self._hide_as(_classify_token(content), content, key or front)
            return f'"{value}"' if text[0] == '"' and not whole and not key else value
        if (
            key in FAILURE_KEYS
            or content.startswith(('{"', '[{"'))
            or (
                content.count(" ") > 1
                and (whole or front in SENTENCE_KEYS or self._is_reason(front, content, found))
            )
        ):
            return self._read_nested_message(content)
        if (front in CODE_WORDS or content[:1].isdigit()) and _is_status(content, front):
            self.codes.append(content[:3] if content[0].isdigit() else content)
            return content
        value = self._hide_value(content, key or front)
        # The quotes of repr() depend on the value's type; other quotes belong to the message.
        return f'"{value}"' if text[0] == '"' and not whole and not key else value

    def _is_quoted_code(self, content: str, front: str, found: re.Match[str]) -> bool:
        """Whether a code is in quotes: "reason '2085' ('MQRC_UNKNOWN_OBJECT_NAME')"."""
        if front == "(":
            start = found.start()
            named = _CONSTANT.fullmatch(content) is not None
            return named and _CODE_BEFORE.search(self.message, max(0, start - 5), start) is not None
        return (
            front in _QUOTED_CODE_LEADS
            and content.lstrip("-").isdigit()
            and len(content) < _WORDY + 1
        )

    def _read_nested_message(self, content: str) -> str:
        """Read a message inside the message. Each level needs another quote, so there are few."""
        inner = _Reader(content, is_key=self.is_key)
        text = inner.read()
        self.codes += inner.codes
        self.names += inner.names
        return text

    def _is_reason(self, front: str, content: str, found: re.Match[str]) -> bool:
        """Whether a quoted sentence after a colon states the reason: "failed: 'No such rate'"."""
        start = found.start()
        return (
            front == ":"
            and not any(map(str.isdigit, content))
            and COMPLAINT.search(self.message, 0, start) is None
            and self.noun not in VALUE_KEYS
        )

    def _hide_value(self, content: str, front: str) -> str:
        kind = "text" if " " in content else _classify_token(content)
        return self._hide_as(kind, content, front)

    def _hide_as(self, kind: str, value: str, front: str) -> str:
        if kind in _NAME_KINDS:
            self.names.append((self._find_noun(front), value))
            return "<name>"
        if kind in _PLACE_KINDS:
            self.names.append((kind, value))
        elif kind == "path" and front in NAMED_KINDS:
            if not value.rpartition(":")[2].isdigit():  # a place in a source
                name = value.rpartition("/")[2].replace(FILE_SPACE, " ")
                self.names.append((front, name))
        elif "://" in value:
            self.names.append(("url", value[value.find("http") :]))
        return f"<{kind}>"

    def _find_noun(self, front: str) -> str:
        """Return the noun that announces a name: the word before it, or before its colon."""
        if front not in _PAUSES:
            return front
        return "" if self.noun == "type" else self.noun

    def read_object(self, text: str, _found: re.Match[str], _key: str) -> str:
        self.before = ""
        if PLACEHOLDER.fullmatch(text):
            return text
        return self._hide_repr("object", text)

    def read_call(self, text: str, _found: re.Match[str], _key: str) -> str:
        """Hide a call or a repr() with its arguments; keep the name of an exception."""
        front, self.before = self.before, ""
        name, _, arguments = text.partition("(")
        if not name.islower() and is_failure(name.lower()):
            return name + self._hide_repr("call", "(" + arguments)
        if "host=" in arguments and (pool := _POOL.search(arguments)):
            self.names += (("host", pool["host"]), ("port", pool["port"]))
        elif front in NAMED_KINDS or front == "matching" or arguments == ")":
            self.names.append((front if front in NAMED_KINDS else "call", name))
        return self._hide_repr("call", text)

    def _hide_repr(self, kind: str, text: str) -> str:
        if not _CODE_MARKS.intersection(text):
            return f"<{kind}>"
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
        if text == ":":
            if self.before in VALUE_KEYS:
                self.key = self.before
            elif self.before in HOST_LEADS or self.before in _PLACE_WORDS:
                return text
        if text != ":" or self.before not in FAILURE_KEYS:
            self.before = text[-1]
        return text

    def read_number(self, text: str, found: re.Match[str], key: str) -> str:
        """Hide a plain number, by far the most frequent value, unless it is a code."""
        front, self.before = self.before, text
        if key:
            is_code = key in FAILURE_KEYS or key in _NUMBER_CODE_KEYS
            if key == "port":
                self.names.append((key, text))
        elif front in CODE_WORDS or front == "reason":
            is_code = True
        elif len(text) == _STATUS and text[0] in "45" and text.isdigit():
            is_code = self._is_lone_status(found)
        else:
            is_code = (front == "(" or not found.start()) and self._is_number_code(
                text, front, found
            )
            if front == "port":
                self.names.append((front, text))
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
        if bare[0] in ":%" and bare[1:].replace(".", "").isidentifier():
            return self._read_atom(text, bare, rest, front)
        kind = _classify_token(bare)
        if kind == "word" and "/" in bare and front in _FROM_LEADS:
            kind = "path"
        if kind == "text":
            return "<text>" if bare.isascii() else DIGITS.sub("<number>", bare) + rest
        if key and key not in FAILURE_KEYS:
            if kind in _NAME_KINDS or kind in _PLACE_KINDS:
                self.names.append((key, bare))
            return f"<{kind}>{rest}"
        if (
            front not in KINDS
            and not (front == ":" and self._is_rejected_value(front, found))
            and self._keeps_token(kind, bare, found)
        ):
            return text
        if self.message.startswith(" operation", found.end()):
            front = "operation"
        elif kind == "path" and rest and front == ":":
            front = "file"
        return self._hide_as(kind, bare, front) + rest

    def _read_atom(self, text: str, bare: str, rest: str, front: str) -> str:
        """Keep an atom or a struct of Elixir, {:error, :timeout}, unless it is announced."""
        word = bare[1:]
        noun = self._find_noun(front)
        if noun in KINDS or noun in _STATES:
            self.names.append((noun, word))
            return f'"<name>"{rest}' if front == ":" else f"<name>{rest}"
        return text

    def _is_bracketed_value(self, text: str, found: re.Match[str]) -> bool:
        """Whether this single word in brackets is a value: "index [orders]"."""
        if self.message[found.end() : found.end() + 1] not in _CLOSING or not text.islower():
            return False
        return self.message[found.start() - 2 : found.start()] in _OPENING and not is_failure(text)

    def _is_code(self, bare: str, front: str, key: str) -> bool:
        if key in FAILURE_KEYS and key not in SENTENCE_KEYS:
            return bare[0] not in "/~" and len(bare) <= _MAX_CODE
        return front in CODE_WORDS and CODE.fullmatch(bare) is not None

    def _keeps_token(self, kind: str, bare: str, found: re.Match[str]) -> bool:
        """Whether an identifier names a failure, or a token is prose."""
        if kind == "name":
            word = bare.lower()
            return word in CODE_WORDS or is_failure(word) or self._is_lone_code(bare, found)
        return kind in _KEPT_KINDS or (kind == "symbol" and not bare.strip(".-\u2013\u2014"))

    def _is_lone_code(self, bare: str, found: re.Match[str]) -> bool:
        """Whether this code is in parentheses, "(SlowDown)", or alone, "do_not_honor"."""
        start, end = found.span()
        if self.message[start - 1 : start] == "(" and self.message[end : end + 1] == ")":
            return bare.isalpha() if bare[0].isupper() else bare.endswith(_CODE_ENDS)
        return len(bare) == len(self.message) and bare.islower() and bare.replace("_", "").isalpha()

    def _is_number_code(self, number: str, front: str, found: re.Match[str]) -> bool:
        """Whether a number is a code: "(111: refused)", "23505: duplicate", "on 'db' (111)"."""
        if front == "(" and self.message[found.end() : found.end() + 1] == ")":
            lead = self.message[: found.start()]
            return _ERRNO.fullmatch(number) is not None and _PLACE_TRIED.search(lead) is not None
        return self.message[found.end() : found.end() + 1] == ":" and (
            front == "(" or len(number) in _SQLSTATE
        )

    def _is_lone_status(self, found: re.Match[str]) -> bool:
        """Whether a number between 400 and 599 is an HTTP status: neither counted nor a number."""
        start, end = found.start("number"), found.end()
        word = self.message[end : end + 30].lstrip(": ").partition(" ")[0].strip(".,:;)]")
        if word in STATUS_WORDS:
            return True
        if word in COUNTED_NOUNS or _is_plural(word):
            return False
        lead = _LAST_WORD.search(self.message[max(0, start - 40) : start].rstrip("+- ") + " ")
        return lead is None or not lead[1] or _announces_status(lead[1], lead[2].strip())


def _announces_status(lead: str, marks: str) -> bool:
    """Whether a status can follow a word and the marks behind it: "failed:", "https://a/b"."""
    before = lead.rpartition("-")[2].lower()
    if "/" in before:
        return True
    if before == "code":  # "postal code 427"; "error code" is seen before
        return False
    if not marks:
        return before in STATUS_LEADS
    return before not in NUMBER_NOUNS and before not in KINDS and not _is_plural(before)


def _is_status(content: str, front: str) -> bool:
    """Whether quoted text is an HTTP status: '503 Service Unavailable', status 'Unauthorized'."""
    if not content[:1].isdigit():
        return content.partition(" ")[0] in STATUS_WORDS
    status = PLAIN_STATUS.fullmatch(content)
    return status is not None and (
        status["word"] in STATUS_WORDS if status["word"] else front in CODE_WORDS
    )


def _is_plural(word: str) -> bool:
    """Whether a word in lower case looks like the plural of a counted noun."""
    return (
        len(word) > _WORDY
        and word.isalpha()
        and word.islower()
        and word.endswith("s")
        and not word.endswith(("ss", "us", "is"))
    )


def _is_currency_or_country(text: str, front: str) -> bool:
    if len(text) == _COUNTRY:
        return front in COUNTRY_LEADS and text not in NO_COUNTRIES
    return text in CURRENCIES and (
        text not in _WORDS_TOO or front in COUNTRY_LEADS or front[-1:].isdigit()
    )


def _classify_front(front: str) -> str:
    """Return the class of a token in front of words that has no effect of its own."""
    if front[-1:].isdigit():
        return NUMBER_FRONT
    return "" if front in _STOPS else WORD_FRONT


def _hide_first_word(text: str) -> str:
    return "<word>" + text[len(text.partition(" ")[0]) :]


_WORDY, _COUNTRY = 5, 2
_STOPS = frozenset((".", "!", "?", ";"))
_CODE_MARKS, _NESTED = frozenset(".[= "), frozenset(("{", "["))
_POOL = re.compile(r"host='(?P<host>[^']{1,200})', port=(?P<port>[0-9]{1,5})")
# The module of an exception, which may move in a release of its library.
_MODULE = re.compile(r"\A[\w.]*\.(?=\w+\()")
_TAKEN = re.compile(
    r"\b(?:approved|assigned|changed|created|edited|held|locked|opened|out|owned|reserved|used)"
    r" by\Z"
)
_PLACE_WORDS = frozenset(("host", "port"))
_CONSTANT = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+")
_CODE_BEFORE = re.compile(r"[0-9]['\"]? ?\(\Z")
_QUOTED_CODE_LEADS = frozenset(("code", "errno", "error", "reason", "sqlcode"))
_NUMBER_CODE_KEYS = frozenset(("reason_code", "reasoncode", "sqlerrmc", "subcode"))
# An errno, or one of Winsock's, after what could not be reached.
_ERRNO = re.compile(r"[0-9]{1,3}|10[0-9]{3}")
_PLACE_TRIED = re.compile(r"(?i)\b(?:bind|connect|create|open|socket)\b.{0,300}['\"`] \(\Z")
_FROM_LEADS = frozenset(("for", "from", "of", "image", "repository"))
_CODE_ENDS = ("_constraint", "_violation", "_error", "_failure", "_exception")
_VALIDATED = ("Validation failed", "validation failed", "Validation error")
_UNITS = frozenset(("KB", "MB", "GB", "TB"))
_ANSWERS = frozenset(("YES", "NO"))
_ADVICE = frozenset(("see", "visit", "info", "check", "docs", "at", "help"))
_WORDS_TOO = frozenset(("ALL", "PEN", "SOS", "TOP", "TRY"))
_STATES = frozenset(("state", "status"))
_PAUSES = frozenset((":", ",", "(", "[", "=", "", "and", "or"))
_OPENING, _CLOSING = frozenset((" [", " (")), frozenset("])")
_NAME_KINDS = frozenset(("dunder", "enum", "name", "word"))
_PLACE_KINDS = frozenset(("host", "url", "call"))
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
    "kept": _Reader.read_kept,
    "aside": _Reader.read_aside,
    "object": _Reader.read_object,
    "call": _Reader.read_call,
    "number": _Reader.read_number,
    "chunk": _Reader.read_chunk,
    "mark": _Reader.read_mark,
    "stop": _Reader.read_stop,
}
