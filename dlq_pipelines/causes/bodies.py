"""Summarises the body of a response inside a message: HTML, XML, JSON or Python's repr().

The body becomes its status, its codes and its sentences, in a fixed order: neither the order of
keys nor the indentation belongs to a cause.
"""

import re

from dlq_pipelines.causes.tokens import FAILURE, KEPT_END, KEPT_START
from dlq_pipelines.causes.vocabulary import (
    BODY_CODE_KEYS,
    BODY_KEYS,
    BODY_NAME_KEYS,
    BODY_SENTENCE_KEYS,
    BODY_STRONG_KEYS,
)

_MAX_BODY = 8_000
_MAX_VALUE = 400
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
_CODE_VALUE = re.compile(r"[A-Za-z_][\w.:/-]{0,60}+|-?[0-9]{1,6}")
_ERROR_STATUS = re.compile(r"[45][0-9]{2}")
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
    if BODY_STRONG_KEYS.isdisjoint(found) and not _has_error_status(found):
        return f"{lead}<object>{rest}", ()
    before = lead.lower()
    said = [part for part in _order_parts(found) if _strip_marks(part).lower() not in before]
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
    """Return the statuses and codes, sorted by key, then the sentences, without repetitions."""
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
    return list(parts)


def _strip_marks(part: str) -> str:
    return part.strip(KEPT_START + KEPT_END)
