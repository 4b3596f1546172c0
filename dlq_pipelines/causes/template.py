"""Which words of a message did somebody write, and which did the program fill in?

The truth that is sought is the format string in the source that raised the error. Prose is what a person wrote: plain
words stay. Values are what a program fills in: whatever is quoted, carries digits, looks like an identifier, a path,
an address or a repr(), and the plain word that stands where a name is announced ("for table orders"). Hiding too much
costs little, as two format strings seldom differ in such a token alone; showing too much splits a cause. What is kept
although it looks like a value are the codes by which systems tell their failures apart: HTTP status, errno, SQLSTATE,
exit code, gRPC, cloud and driver codes.

Work is linear in the message: a message is cut first, quantifiers are possessive, and what repeats inside another
repetition excludes what ends it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from dlq_pipelines.causes.vocabulary import (
    ANSWER_WORDS,
    CODE_WORDS,
    FUNCTION_WORDS,
    KINDS,
    NAME_LEADS,
    SENTENCE_KEYS,
    SQL_WORDS,
    STATUS_WORDS,
    TELLING_KEYS,
    TYPE_LEADS,
    TYPE_NAMES,
    VENDOR_CODES,
    VERBS,
)

# Characters of a message that are looked at: what tells causes apart stands in front.
_LONGEST = 1_000

# A plain word ends before a space, a closing mark or the end; "a.b", "a_b", "a1" and "a=b" are no plain words.
_END = r"(?=[,;)\]}[]|\ (?!=\ )|[.:!?…]++(?:\ |\Z)|\Z)"
_WORD = rf"[A-Za-z][a-z]*+(?:['’-][a-z]++)*+(?:\(e?s\))?+{_END}"
# In Python a lookbehind has one width, so there is one for each way to name an exception.
_RAISED = "|".join(
    f"(?<={name})" for name in ("Error", "Exception", "Warning", "Failure", "Fault", "Timeout", "nected")
)

# What a message consists of; the first that matches wins, so what contains others stands above them.
_TOKEN = re.compile(
    rf"""\ ?+(?:
    (?P<prose>{_WORD}(?:\ {_WORD})*+)
  | (?P<capitals>[A-Z][A-Z_]++{_END}(?:\ (?:[A-Z_]{{2,}}+{_END}|\.\.\.?))*+)
  | (?P<url>(?:[A-Za-z][A-Za-z0-9+.-]{{0,30}}+:){{1,3}}+//[^\s'"<>)\]}}]*+)
  # NewConnectionError('..., ConnectionResetError(104, '...: the quoted words are a message of its own.
  | (?P<raised>[A-Za-z_][\w.]*+(?:{_RAISED})\((?:-?\d{{1,5}},\ ?)?+b?(?:'|"|(?=[A-Z\[<])))
  # The arguments of an exception that has no text: (1062, "..., ('Connection aborted.', ...
  | (?P<arguments>\(-?\d{{1,5}},\ ?b?['"]|\A[(\[]b?['"](?=\w+\ ))
  | (?P<key>[A-Za-z_][\w.-]*+\ ?=\ ?(?=[^\s=])|(?:(?<=[{{,])|(?<=[{{,]\ ))['"][A-Za-z_][\w.-]*+['"]\ ?:\ ?)
  # An opening quote follows no letter, so "can't" opens none, and a closing one precedes none.
  | (?P<quoted>(?<![A-Za-z0-9_])[bru]?(?:
        '(?:[^'\\]|\\.|'(?=\w))*+' | "(?:[^"\\]|\\.)*+(?:"|\Z) | `[^`']*+['`] | [“«„‘][^“”»‘’]*+[”»“’]
      )(?![A-Za-z0-9_]))
  | (?P<symbol>[-+*/%<>=!&|^~@]{{1,3}}+(?=:?+(?:\ |\Z)))
  | (?P<object><[A-Za-z_/!?][^<>]*+>|\#<[^<>]*+>)
  | (?P<call>\.?[A-Za-z_$][\w.$]*+\((?:[^()]++|\([^()]*+\))*+\))
  | (?P<chunk>(?![.:!?…]++(?:\ |\Z))[^\s'"`“”«»„(),;<>\[\]{{}}=]++)
  | (?P<mark>[^\w\s])
    )""",
    re.VERBOSE,
)

_EXTENSIONS = "avro|conf|csv|gz|html?|ini|java|json|js|log|parquet|pdf|proto|py|rb|rs|so|sql|toml|ts|txt|xml|ya?ml|zip"
_FAILURE = (
    "abort|cancel|conflict|declined|denied|duplicate|error|exception|exceed|exhausted|expired|fail|forbidden|found"
    "|insufficient|invalid|limit|missing|no_?such|refused|required|throttl|timed_?out|timeout|unauthori|unavailable"
    "|unknown|unsupported"
)
# What a token without spaces, quotes and brackets may be; its name is what people see in its place.
_SHAPE = re.compile(
    rf"""
    (?P<number>[-+~*]?[0-9]++(?:[,_][0-9]++)*+(?:\.[0-9]*+)?+(?:[eE][-+]?[0-9]++)?+%?)
  | (?P<quantity>-?(?:[0-9]++(?:\.[0-9]++)?+(?:ns|us|µs|ms|min|[smhdw]|[kKMGTP]?i?[bB]|[kKMGT])/?)++s?)
  | (?P<time>[0-9]{{4}}[-/][0-9]{{2}}[-/][0-9]{{2}}(?:[T_][0-9:.,]++)?+(?:Z|[-+][0-9:]++)?+
      |[0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:[.,][0-9]++)?+)?+(?:Z|[-+][0-9:]++)?+)
  | (?P<uuid>[0-9a-fA-F]{{8}}-(?:[0-9a-fA-F]{{4}}-){{3}}[0-9a-fA-F]{{12}})
  | (?P<url>[A-Za-z][\w+.-]*+://.*+)
  | (?P<email>[\w.+-]++@[\w.-]++)
  | (?P<ip>(?:ipv[46]:)?(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?:[:/][0-9]++)?+
      |(?=[0-9a-fA-F]*+:[0-9a-fA-F]*+:)[0-9a-fA-F:]{{3,45}}+(?:[/%]\w++)?+)
  | (?P<version>v?[0-9]++(?:\.[0-9][\w+-]*+){{1,4}}+)
  | (?P<address>0x[0-9a-fA-F]++)
  | (?P<hash>(?=[a-fA-F]*+[0-9])[0-9a-fA-F]{{8,128}})
  | (?P<word>[A-Za-z]++(?:[/-][A-Za-z]++)++)
  | (?P<path>(?:~|\.{{1,2}})?/.*+|[A-Za-z]:\\.*+|[\w.@+-]++/.*+|[\w-]++(?:\.[\w-]++)*?\.(?:{_EXTENSIONS})(?::[0-9:]++)?+)
  | (?P<host>[A-Za-z_][\w-]*+(?:\.[\w-]++)*+:[0-9]{{1,5}}|localhost)
  | (?P<enum>[A-Z]\w*+\.[A-Z][A-Z_]++)
  | (?P<dunder>__[a-z]++(?:_[a-z]++)*+__)
  | (?P<failure>(?=[A-Za-z_.]*?(?i:{_FAILURE}))[A-Za-z_][\w.]*+)
  | (?P<name>[@$\#]?[A-Za-z_$][\w$.:@\#/\\-]*+|[0-9]\w++(?:[-.:/]\w++)*+)
  | (?P<symbol>[^\w\s]++)
    """,
    re.VERBOSE,
)
# Digits beside letters of a script without spaces: "订单12345".
_DIGITS = re.compile(r"(?<![A-Za-z_])[-+]?[0-9][0-9.,]*+")
_CODE = re.compile(r"-?(?:0x[0-9A-Fa-f]{1,8}|[A-Z]{0,4}[0-9][0-9A-Z.]{0,11})")
_VENDOR_CODE = re.compile(rf"(?:{'|'.join(sorted(VENDOR_CODES))})-?[0-9]{{3,6}}[A-Z]?")
_PLAIN_STATUS = re.compile(r"[1-5][0-9]{2}(?: (?P<word>[A-Z][\w-]*+).*+)?")
# <Response [404]>, <StatusCode.NOT_FOUND: (5, 'not found')>, Response(status=503)
_CODE_IN_REPR = re.compile(r"\[[1-5][0-9]{2}\]|\w\.[A-Z][A-Z_]++\b|\b(?:status|status_code|code|errno)=\w++")
_COMPLAINT = re.compile(
    r"(?i)\b(?:bad|illegal|invalid|malformed|pars(?:e|ing)|no such|not an?|un(?:defined|expected|known|recognized|supported))\b"
)

# SQL's types of several words, whose first is hidden already.
_LONG_TYPE = re.compile(r"<(?:name|type|word)>(?: (?:with(?:out)? time zone|precision|varying)\b)++")
_PLACEHOLDER = re.compile(r"<[a-z]+>")
# Placeholders in a row are one: the length of a list and the depth of a structure are values too.
_ONE = r"[\[{(\"]*+<>(?:\[\])*+[\]})\"]*+"
_ROW = re.compile(rf"{_ONE}(?:(?:,?\ (?:and|or)|\ ?[,=;]|\.\.)?+\ ?{_ONE})++|[\[{{]++(?:<>)?[\]}}]++")
_PLURAL = re.compile(r"s\b(?<=[a-z][a-z]s)")


@dataclass(frozen=True, slots=True)
class Template:
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


def template(message: str) -> Template:
    """The template of a message; line ends in it are spaces."""
    reader = _Reader(" ".join(message[:_LONGEST].split()))
    text = reader.read()
    return Template(text, _key(text), tuple(reader.codes), tuple(dict.fromkeys(reader.names)))


def _key(text: str) -> str:
    key = _ROW.sub(_one, _PLACEHOLDER.sub("<>", text))
    # A count decides between "1 argument was" and "2 arguments were".
    return _PLURAL.sub("", key).replace(" were ", " wa ").replace(" are ", " is ").replace(" have ", " ha ")


def _one(row: re.Match[str]) -> str:
    return '"<>"' if row[0][0] == '"' else "<>"


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
        for found in _TOKEN.finditer(self.message):
            kind = found.lastgroup or "mark"
            if found[0][0] == " ":
                shown.append(" ")
            key, self.key = self.key, ""
            shown.append(_READERS[kind](self, found[kind], found, key))
        text = "".join(shown)
        return _LONG_TYPE.sub("<type>", text) if "> " in text else text

    def prose(self, token: str, found: re.Match[str], key: str) -> str:
        """Plain words, of which those that stand in a value's place are hidden."""
        words = token.split(" ")
        front, self.before = self.before, words[-1].lower()
        if (key and key not in TELLING_KEYS) or (len(words) == 1 and self._is_tail(front, found)):
            words[0] = "<word>"
        elif not _ANNOUNCING.isdisjoint(words) or front in _ANNOUNCING:
            self._hide_names(words, front)
        return " ".join(words)

    def _is_tail(self, front: str, found: re.Match[str]) -> bool:
        """The single word after the last colon is the value that is complained about: "invalid level: loud"."""
        last = front == ":" and found.end() == len(self.message)
        return last and _COMPLAINT.search(self.message) is not None

    def _hide_names(self, words: list[str], front: str) -> None:
        """Hide the words that stand where a name or the name of a type is announced."""
        given = ["", "", front, *words, ""]
        for at, (three, two, one, word, after) in enumerate(zip(*(given[n:] for n in range(5)), strict=False)):
            if word in FUNCTION_WORDS:
                continue
            led = two in NAME_LEADS or three in NAME_LEADS or (not two and after in VERBS) or "-" in word
            if one in KINDS and word not in KINDS and (led or one == "type"):
                words[at] = "<name>"
                self.names.append(word)
            elif one == "got" or (one == "not" and two == "," and not after):
                words[at] = "<type>"
            elif word in TYPE_NAMES and (one in TYPE_LEADS or (one in {"(", ","} and len(words) == 1)):
                words[at] = "<type>"

    def capitals(self, token: str, _found: re.Match[str], key: str) -> str:
        """Names of errors stay, ECONNREFUSED; SQL's and HTTP's own words and names of variables do not."""
        front, self.before = self.before, token.lower()
        if key and key not in TELLING_KEYS:
            return "<word>"
        if front in KINDS:
            self.names.append(token)
            return "<name>"
        return token if SQL_WORDS.isdisjoint(token.split(" ")) else "<keyword>"

    def url(self, _token: str, _found: re.Match[str], _key: str) -> str:
        self.before = ""
        return "<url>"

    def raised(self, token: str, _found: re.Match[str], _key: str) -> str:
        """An exception inside the message: its quote opens nothing, so that its words are read."""
        self.before = ""
        return token.rstrip("'\"")

    def arguments(self, token: str, _found: re.Match[str], _key: str) -> str:
        self.before = "code"
        return token.rstrip("'\"")

    def pair(self, token: str, _found: re.Match[str], _key: str) -> str:
        """A key; one in quotes belongs to data, of which only what tells something is shown."""
        name = token.strip("'\" =:")
        self.before = self.key = name.lower()
        if token[0] not in "'\"":
            return "<type>=" if name in TYPE_NAMES else f"{name}="
        return f"{name}: " if self.key in TELLING_KEYS else ""

    def quoted(self, token: str, found: re.Match[str], key: str) -> str:
        """A value, unless it is a message of its own or an HTTP status."""
        front, self.before = self.before, ""
        content = token.lstrip("bru")[1:-1]
        whole = found.start() == 0 and found.end() == len(self.message)
        if key in TELLING_KEYS or ((whole or front in SENTENCE_KEYS) and content.count(" ") > 1):
            return self._inner(content)
        status = _PLAIN_STATUS.fullmatch(content)
        if status and (status["word"] in STATUS_WORDS if status["word"] else front in CODE_WORDS):
            self.codes.append(content[:3])
            return content
        value = self._value(content)
        # The quotes of repr() come and go with the value's type, others are the message's own.
        return f'"{value}"' if token[0] == '"' and not whole and not key else value

    def _inner(self, content: str) -> str:
        inner = _Reader(content)
        text = inner.read()
        self.codes += inner.codes
        self.names += inner.names
        return text

    def _value(self, content: str) -> str:
        shape = _SHAPE.fullmatch(content) if " " not in content else None
        return self._shown(shape.lastgroup if shape else "text", content)

    def _shown(self, kind: str | None, value: str) -> str:
        if kind in _NAMES:
            self.names.append(value)
            return "<name>"
        return f"<{kind}>"

    def object(self, token: str, _found: re.Match[str], _key: str) -> str:
        self.before = ""
        return self._repr("object", token)

    def call(self, token: str, _found: re.Match[str], _key: str) -> str:
        """A call or a repr(), name and arguments; the name of an exception stays."""
        self.before = ""
        name, _, arguments = token.partition("(")
        shape = _SHAPE.fullmatch(name)
        if shape and shape.lastgroup == "failure" and not name.islower():
            return name + self._repr("call", "(" + arguments)
        return self._repr("call", token)

    def _repr(self, kind: str, token: str) -> str:
        codes = _CODE_IN_REPR.findall(token)
        self.codes += codes
        return f"<{' '.join((kind, *codes))}>"

    def symbol(self, token: str, found: re.Match[str], _key: str) -> str:
        """An operator; a dash between words is none."""
        dash = not token.strip("-") and self.before not in KINDS and self.message[found.end() : found.end() + 1] != ":"
        self.before = ""
        return token if dash else "<symbol>"

    def mark(self, token: str, _found: re.Match[str], key: str) -> str:
        """Punctuation; a quote that closes nothing is left out, and a code may stand in brackets or after a colon."""
        if token in "\"'`":
            self.key = key
            return ""
        if token in "[({":
            self.key = key if token == "{" else ""
        elif token not in "=#" and not (token == ":" and self.before in TELLING_KEYS):
            self.before = token
        return token

    def chunk(self, token: str, found: re.Match[str], key: str) -> str:
        """Anything else without spaces: told by its shape."""
        bare = token.rstrip(".:!?…") or token
        rest = token[len(bare) : len(bare) + 1]
        front, self.before = self.before, ":" if rest == ":" else bare.lower()
        if self._is_code(bare, front, key):
            self.codes.append(bare)
            return token
        shape = _SHAPE.fullmatch(bare)
        kind = shape.lastgroup if shape else ""
        if not kind:
            return "<text>" if bare.isascii() else _DIGITS.sub("<number>", bare) + rest
        if key and key not in TELLING_KEYS:
            return f"<{kind}>{rest}"
        if (kind in _KEPT and front not in KINDS and not self._is_tail(front, found)) or self._stays(
            kind, bare, rest, front, found
        ):
            return token
        return self._shown(kind, bare) + rest

    def _is_code(self, bare: str, front: str, key: str) -> bool:
        if key in TELLING_KEYS and key not in SENTENCE_KEYS:
            return bare[0] not in "/~" and len(bare) <= 40
        return (_CODE if front in CODE_WORDS else _VENDOR_CODE).fullmatch(bare) is not None

    def _stays(self, kind: str, bare: str, rest: str, front: str, found: re.Match[str]) -> bool:
        start, end = found.start("chunk"), found.end()
        in_bracket = self.message[start - 1 : start] == "("
        if kind == "name":
            return in_bracket and self.message[end : end + 1] == ")" and bare[0].isupper() and bare.isalpha()
        if kind == "symbol":
            return not bare.strip(".-–—")
        if kind != "number":
            return False
        code = (in_bracket and rest == ":") or self._is_status(bare, rest, front, found)
        if code:
            self.codes.append(bare)
        return code

    def _is_status(self, bare: str, rest: str, front: str, found: re.Match[str]) -> bool:
        if len(bare) != 3 or bare[0] not in "45" or not bare.isdigit():
            return False
        after = self.message[found.end() :].split(maxsplit=1)
        word = after[0].strip(".,:;)") if after else ""
        return word in STATUS_WORDS or ((front in ANSWER_WORDS or found.start() == 0) and not word[:1].islower())


_ANNOUNCING = KINDS | TYPE_LEADS | {"got", "(", ","}
_NAMES = frozenset(("dunder", "enum", "failure", "name", "word"))
_KEPT = frozenset(("dunder", "failure", "enum", "word"))
_READERS: dict[str, Callable[[_Reader, str, re.Match[str], str], str]] = {
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
    "chunk": _Reader.chunk,
    "mark": _Reader.mark,
}
