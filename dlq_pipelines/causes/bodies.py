"""Summarises the body of a response inside a message: HTML, XML, JSON or Python's repr().

The body becomes its status, its codes and its sentences, in a fixed order: neither the order of
keys nor the indentation belongs to a cause.
"""

import re

from dlq_pipelines.causes.tokens import (
    ASIDE_END,
    ASIDE_START,
    COMPLAINT,
    FAILURE,
    KEPT_END,
    KEPT_START,
)
from dlq_pipelines.causes.vocabulary import (
    BODY_CODE_KEYS,
    BODY_KEYS,
    BODY_NAME_KEYS,
    BODY_SENTENCE_KEYS,
    BODY_STRONG_KEYS,
    VERBS,
)

_MAX_BODY = 8_000
_MAX_VALUE = 400
# Spaces of a sentence that says enough.
_LONG_SENTENCE = 6
_CODE_MARKS = KEPT_START + KEPT_END + ASIDE_START + ASIDE_END
_JSON_START = re.compile(
    r"(?:\[\s*)?\{\s*\\?['\"](?=[\w@$])|(?<![\w)] )(?<!\w)(?:\[\s*)?\{\s*(?P<bare>[A-Za-z_]\w*: )"
)
_MARKUP_START = re.compile(
    r"(?i)<(?:!doctype|html|\?xml|error(?:response)?[\s>]|(?:soap|soapenv|s|env)[:\w-]*:|head>|fault)"
)
_BRACKET = re.compile(r"[\[{]|[\]}]|\"(?:[^\"\\]|\\.)*+\"|(?<=[\[{:, ])'(?:[^'\\]|\\.)*+'")
_PAIR = re.compile(
    r"""(?P<mark>['"])(?P<key>[A-Za-z@$][\w.@$-]{0,40}+)(?P=mark)\s*+:\s*+
    (?:"(?P<double>(?:[^"\\]|\\.)*+)"?|'(?P<single>(?:[^'\\]|\\.|'(?=\w))*+)'?
      |(?P<number>-?[0-9]{1,9}\b)|\[\s*"(?P<first>(?:[^"\\]|\\.)*+)")""",
    re.VERBOSE,
)
# A key without quotes, as Node and MongoDB print objects.
_BARE_KEY = re.compile(r"(?<=[{,\s])([A-Za-z_]\w{0,40}): ")
_TAG = re.compile(
    r"(?i)<(?:\w{1,20}:)?(?P<key>code|message|faultcode|faultstring|reason|description|detail"
    r"|errorcode|errormessage|error|text)(?: [^<>]{0,100})?>(?P<value>[^<]{1,400})"
)
_TITLE = re.compile(
    r"(?is)<title[^<>]{0,100}>\s*(.{1,200}?)\s*</title|<h1[^<>]{0,100}>\s*([^<]{1,200})"
)
# A field with what is wrong with it, as a list, or as a text inside an object of errors:
# {"email": ["is invalid"]}, {"errors": {"email": "is invalid"}}. Django shows ErrorDetail(...).
_REJECTED_FIELD = re.compile(
    r"""(?P<mark>['"])(?P<field>[A-Za-z_][^'"\n]{0,80}+)(?P=mark)\s*+:\s*+(?P<list>\[\s*+)?+
    (?:\w{1,30}\((?:string|message)=)?+
    (?:"(?P<double>(?:[^"\\]|\\.)++)"|'(?P<single>(?:[^'\\]|\\.|'(?=\w))++)')""",
    re.VERBOSE,
)
_ERRORS_OBJECT = re.compile(r"['\"](?:\w{0,40}[eE]rrors|violations)['\"]\s*:\s*\{")
_REJECTION = re.compile(r"(?i)\b(?:at (?:least|most)|ensure|less|more|only|required|too|valid)\b")
_CODE_VALUE = re.compile(r"[A-Za-z_][\w.:/-]{0,60}+|-?[0-9]{1,6}")
_ERROR_STATUS = re.compile(r"[45][0-9]{2}")
_NO_FIELDS = frozenset(
    [
        "__all__",
        "base",
        "detail",
        "details",
        "error",
        "errors",
        "message",
        "messages",
        "msg",
        "nonFieldErrors",
        "non_field_errors",
        "reason",
    ]
)
_NOTHING = frozenset(("None", "null", "nil", "undefined", "true", "false", "True", "False"))
_GENERATED = re.compile(r"[0-9a-fA-F]{8,}|[0-9]{4,}|://|@")
_DATA_LEAD = re.compile(
    r"(?:payload|value|record|data|input|request|document|params|arguments|order|event|row|item)"
    r"['\"]?(?: ?[:=] ?| )['\"(]?\Z"
)
_UNFINISHED = re.compile(r"(?:\.\.\.)?['\"] ")

_STRUCT = re.compile(r"%(?:[A-Z][\w.]{0,100})?\{(?:[^{}]++|\{[^{}]*+\})*+(?:\}|\Z)")
_MAIL_REPLY = re.compile(
    r"\{?['\"]?[^\s'\"{}()]{1,100}@[^\s'\"{}()]{1,100}['\"]?: \((?P<code>[0-9]{3}), b?['\"]"
)


def keep_code(code: str) -> str:
    """Mark a code, so that the template keeps it."""
    return f"{KEPT_START}{code}{KEPT_END}"


def summarize_markup(message: str) -> str:
    """Replace HTML by its title, XML by its codes and sentences."""
    begin = _MARKUP_START.search(message)
    if begin is None:
        return message
    start = begin.start()
    lead, body = message[:start].rstrip(), message[start : start + _MAX_BODY]
    if lead[-1:] in "'\"`":
        lead = lead[:-1]
    titles = [one or other for one, other in _TITLE.findall(body)]
    if titles:
        said = [" ".join(titles[0].rpartition("|")[2].split())]
    else:
        found: dict[str, str] = {}
        for tag in _TAG.finditer(body):
            found.setdefault(tag["key"].lower(), tag["value"].strip())
        said = _order_parts(found)
    unsaid = [part for part in said if part and part not in lead]
    if said and not unsaid:
        return lead
    said = unsaid
    return " ".join([lead, ": ".join(said) or "<markup>"]).strip()


def summarize_data(message: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Replace JSON or a dict by what it states, and return the names that it holds."""
    if "\\" in message and '{\\"' in message:
        message = message.replace('\\"', '"')
    if reply := _MAIL_REPLY.search(message):
        return f"{keep_code(reply['code'])} {message[reply.end() :]}", ()
    begin = _JSON_START.search(message)
    if begin is None:
        return _STRUCT.sub(_condense_struct, message), ()
    start = begin.start()
    lead, end = message[:start], _find_end(message, start)
    body, rest = message[start : min(end, start + _MAX_BODY)], message[end:]
    is_data = _DATA_LEAD.search(lead[-20:]) is not None
    if is_data and not rest and (unfinished := _UNFINISHED.search(message, start)):
        rest = message[unfinished.end() - 1 :]
    if lead[-1:] in ("'", '"', "`") and rest[:1] in (lead[-1], ""):
        lead, rest = lead[:-1], rest[1:]
    if lead[-1:] == "[" and rest[:1] == "]":
        lead, rest = lead[:-1], rest[1:]
    if begin["bare"]:
        body = _BARE_KEY.sub(r'"\1": ', body)
    found, names = ({}, ()) if is_data else _read_pairs(body)
    rejections, fields = ([], "") if is_data else _read_rejected_fields(body)
    if fields:
        names = (*names, ("field", fields))
    states_failure = not BODY_STRONG_KEYS.isdisjoint(found) or _has_error_status(found)
    parts = (_order_parts(found) if states_failure else []) or rejections
    if not parts and not states_failure:
        return f"{lead}<object>{rest}", ()
    before = lead.lower()
    said = [part for part in parts if _strip_marks(part).lower() not in before]
    return f"{lead}{': '.join(said)}{rest}".rstrip(" :"), names


def _read_pairs(body: str) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Return the first value of each key that states a failure, and the names in the body."""
    found: dict[str, str] = {}
    names = []
    for pair in _PAIR.finditer(body):
        key = pair["key"].replace("_", "").replace("-", "").lower()
        value = pair["double"] or pair["single"] or pair["number"] or pair["first"] or ""
        if value and key in BODY_NAME_KEYS:
            names.append(("field", value))
        elif value and key in BODY_KEYS:
            found.setdefault(key, value[:_MAX_VALUE])
    return found, tuple(names)


def _read_rejected_fields(body: str) -> tuple[list[str], str]:
    """Return what is wrong with fields, in sorted order, and their names."""
    errors = _ERRORS_OBJECT.search(body)
    start = errors.end() if errors else len(body)
    sentences, fields = set(), set()
    for pair in _REJECTED_FIELD.finditer(body):
        field, sentence = pair["field"], pair["double"] or pair["single"]
        is_error = pair.start() >= start and (pair["list"] or field.lower() not in BODY_KEYS)
        if is_error or (pair["list"] and " " in sentence and _is_rejection(sentence)):
            if field not in _NO_FIELDS:
                fields.add(field)
            named = rf"(?i)\A((?:the )?){re.escape(field.replace('_', ' '))}\b"
            sentences.add(re.sub(named, r"\1'field'", sentence[:_MAX_VALUE]))
    return ["; ".join(sorted(sentences))] if sentences else [], ", ".join(sorted(fields))


def _is_rejection(sentence: str) -> bool:
    """Whether a text says what is wrong with a field: "can't be blank", "Ensure this ..."."""
    return (
        sentence.endswith(".")
        or not VERBS.isdisjoint(sentence.split(" "))
        or COMPLAINT.search(sentence) is not None
        or _REJECTION.search(sentence) is not None
    )


def _condense_struct(found: re.Match[str]) -> str:
    """Keep a struct or a map of Elixir only if it is an error."""
    failed = FAILURE.search(found[0].lower()) or "reason:" in found[0]
    return found[0] if failed else "<object>"


def _find_end(message: str, start: int) -> int:
    """Return the offset after the bracket that closes the one at `start`; the end without one."""
    depth = 0
    for bracket in _BRACKET.finditer(message, start):
        if bracket[0] in "[{":
            depth += 1
        elif bracket[0] in "]}":
            depth -= 1
            if depth <= 0:
                return bracket.end()
    return len(message)


def _has_error_status(found: dict[str, str]) -> bool:
    return any(
        _ERROR_STATUS.fullmatch(value) is not None and key.startswith(("status", "http", "code"))
        for key, value in found.items()
    )


def _order_parts(found: dict[str, str]) -> list[str]:
    """Return the statuses and codes, sorted by key, then the sentences, without repetitions.

    A code in words is set aside next to a long sentence, which says the same, and so is a type next
    to another such code: a column may have cut them off.
    """
    parts: dict[str, None] = {}
    for keys in (BODY_CODE_KEYS, BODY_SENTENCE_KEYS):
        for key in keys:
            value = found.get(key, "")
            if not value:
                continue
            if _CODE_VALUE.fullmatch(value):
                if value not in _NOTHING and not _GENERATED.search(value):
                    parts[keep_code(value)] = None
            elif key in BODY_SENTENCE_KEYS or key in ("error", "faultcode"):
                parts[" ".join(value.replace("\\n", " ").replace("\\", "").split())] = None
    words = [part for part in parts if _is_word_code(part)]
    is_said = any(part.count(" ") >= _LONG_SENTENCE for part in parts)
    kind = keep_code(found.get("type", ""))
    aside = words if is_said else [kind] if kind in words and len(words) > 1 else []
    return [_set_aside(part) if part in aside else part for part in parts]


def _is_word_code(part: str) -> bool:
    """Whether a part is a code in words, unlike a status."""
    return part[0] == KEPT_START and not _strip_marks(part).lstrip("-").isdigit()


def _set_aside(part: str) -> str:
    """Mark a code as one that is only shown."""
    return f"{ASIDE_START}{_strip_marks(part)}{ASIDE_END}"


def _strip_marks(part: str) -> str:
    return part.strip(_CODE_MARKS)
