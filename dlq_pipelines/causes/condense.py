"""Reduces a message to what states the failure: without bodies, SQL, places and lists."""

import re
from typing import NamedTuple

from dlq_pipelines.causes.bodies import keep_code, summarize_data, summarize_markup
from dlq_pipelines.causes.tokens import COMPLAINT, EXTENSIONS, FAILURE, FILE_SPACE
from dlq_pipelines.causes.vocabulary import PERSON_VERBS, VERBS
from dlq_pipelines.causes.words import can_be_person

_Names = tuple[tuple[str, str], ...]

# No mark that any rule needs: the message is prose.
_PLAIN = re.compile(r"[^<{\[(=:|]*+\Z")

_TUPLE = re.compile(
    r"\A\((?:b?['\"](?P<state>[0-9A-Z]{5})['\"]|(?P<number>-?[0-9]{1,5})), ?b?(?P<mark>['\"])"
)
_CALLED = re.compile(
    r"\A[A-Za-z_][\w.]*\((?P<number>[0-9]{1,5}), ?(?P<mark>['\"])(?P<rest>.*)\)\Z", re.DOTALL
)
_HTTP_ERROR = re.compile(
    r"<HttpError (?P<status>[0-9]{3}) when requesting (?P<url>\S{1,2000}) returned "
)

_STATEMENT = (
    r"(?:(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|WITH) ?\S"
    r"|(?:select|insert into|delete from) [`\"\w*(]|update (?:[`\"]|[\w.]+ set )"
    r"|(?:begin|commit|rollback) transaction)"
)
_SQL_TAIL = re.compile(
    r" \((?:Connection: \w+, |SQL: )| \[SQL: |\s+SQL: ?\[|\s+query: |\s+\[parameters: "
)
_SQL_HEAD = re.compile(rf"(?i:failed query: )?{_STATEMENT}")
_SQL_REASON = re.compile(r" - (?=(?:[a-z]+: )?[A-Za-z][\w'-]* [a-z])")
_SQL_INSIDE = re.compile(
    r"; SQL \[[^\]]*+\]|(?<=executing) (?:'[^']*+(?:''[^']*+)*+'|\"[^\"]*+\"|a query)"
    r"(?: with params \[[^\]]*+\])?(?=:)"
)
_HEAD_LETTERS, _TAIL_LETTERS = 6, 4
_HEAD_VERBS = frozenset(("select", "insert", "update", "delete", "failed"))
_TAIL_VERBS = frozenset(("sele", "inse", "upda", "dele", "begi", "comm", "roll", "save", "with"))

_PHP_MARKS = (".php:", ".php(", ".php on")
_PHP_PLACE = re.compile(
    r" in (?:/|[A-Z]:\\|\S{1,80}/)[^:\n]{0,300}\.php(?::[0-9]+|\([0-9]+\)| on line [0-9]+)"
)
_SOURCE_PLACE = re.compile(r"\s+at \[Source: ")
_REFERENCE = re.compile(r"\(through reference chain: ([^()\n]{1,200})")
_ROUTE = re.compile(r"(?<=/)\[(?:\.\.\.)?\w+\]")
_IPV6 = re.compile(r"\[[0-9a-fA-F]{0,4}:[0-9a-fA-F:.]{1,45}\]:[0-9]{1,5}")

_ITEM = r"['\"`]?[\w.$-]+['\"`]?"
_LIST_LEADS = ("are", " of", "choices", "options", "allowed", "available", "accepted", "values")
_LISTED = re.compile(
    r"(?P<lead>\b(?:are|is one of|one of|choices|options|allowed|available|accepted|supported"
    r"|valid values|known)\b[^:,\n]{0,40}: ?)"
    rf"{_ITEM}(?:, ?{_ITEM})++(?:,? (?:and|or) {_ITEM})?"
)
_ONE_LISTED = re.compile(r"\b([a-z]++): \[([A-Za-z_][\w.$-]*+)\](?![(\w])")
_BRACKETED = re.compile(r"\[(?P<items>[A-Za-z_$][\w.$-]*+(?:, ?[\w.$-]+)++)\](?!\()")
_REASONS = re.compile(r"reasons?\b|errors?\b|failures?\b|because")

_FIGURES = re.compile(
    r" \((?!(?i:[a-z ]{0,10}(?:err|code|reason|status)))"
    r"(?:after [0-9](?:[^()\n]|\([^()]{0,9}\)){0,100}"
    r"|(?:[\w ]{1,30}+[=:] ?-?[0-9][\w.]*(?:, ?)?)++)\)"
)
_ID_MARKS = ("ID:", "Id:", "id:", "ID=", "Id=", "id=")
_REQUEST_ID = re.compile(
    r"(?i)[,;]?\s?(?<![\w.])(?:(?:extended )?request|activity|connection|correlation|event|host|log"
    r"|message|ray|session|span|trace|tracking)[ _-]?id['\"]?\s?[:=]\s?['\"]?[\w+/=.-]+['\"]?"
)
_COMMAND_MARKS = (": not found", "No such file", "command not found")
# "deliver.sh: line 12: jq: command not found", "sh: 1: jq: not found", "bash: jq: not found".
_MISSING_COMMAND = re.compile(
    r"(?:\A\S{1,200}: (?:line )?[0-9]+: |(?<=: )(?:line [0-9]+: )?)(?P<command>[\w./-]+)"
    r"(?=: (?:(?:command )?not found|No such file))"
)
# Oracle's and PostgreSQL's qualified names: "SHOP"."ORDERS"."POSTCODE".
_QUALIFIED = re.compile(r'"\w{1,128}"\.(?:"(?P<table>\w{1,128})"\.)?"(?P<name>\w{1,128})"')
# Words behind a colon without a space: "TNS:no listener", "SSL routines:f:wrong version number".
_GLUED = re.compile(
    r"(?:\b(?:error:[0-9A-Fa-f]{8}:)?(?P<lead>TNS|SSL routines):(?:\w{0,60}:)?)(?=[a-z]+ [a-z])"
)
# An acknowledgement of HL7: "MSA|AR|8812|Unsupported message type".
_SEGMENT = re.compile(r"\b(?P<name>[A-Z][A-Z0-9]{2})\|(?P<code>[A-Z]{1,2})\|(?:[^|\s]{0,99}\|)+")
# Spring repeats an exception that is wrapped twice.
_NESTED = "; nested exception is "
_PERL_INPUT = re.compile(r", <\$?\w{1,60}> (?:line|chunk) [0-9]+(?=\.?\Z)")
_USER_INFO = re.compile(r" UserInfo=(?:0x[0-9a-f]+ )?\{.*", re.DOTALL)
_FAILING_URL = re.compile(r"\w*URL\w*=(?P<url>https?://[^\s,}]{1,300})")
# The enumeration in front of an error of Swift, which some ways to print it leave out.
_ENUMERATION = re.compile(r"\A(?:[A-Z]\w{0,60}\.)?[A-Z]\w{0,60}Error\.(?=[a-z]\w{0,60}\()")
_SWIFT_MARKS = (" UserInfo=", "stringValue: ", "Error.", "sqlState: ")
# The error of PostgresNIO: "PSQLError(code: server, serverInfo: [sqlState: 23505, ...])".
_SERVER_INFO = re.compile(
    r"\(code: [^()]{1,40}\[(?:[^\]]{0,999}?, )?sqlState: (?P<state>[0-9A-Z]{5})\b"
)
_SERVER_MESSAGE = re.compile(r"[\[ ]message: (?P<message>[^\]]{1,500}?)(?=, [A-Za-z]{1,40}: |\])")
# A place in the source at the end: ": file Shop/Deliver.swift, line 42", " (routes.swift:12)".
_FILE_PLACE = re.compile(
    r"(?:: file [^:\n]{1,300}\.\w{1,8}, line [0-9]{1,7}"
    r"| \([^\s()]{1,300}\.\w{1,8}:[0-9:]{1,12}\))\Z"
)
# A type of Julia with its parameters, and the size of a value: "3-element Vector{Int64}".
_PARAMETRIC = re.compile(
    r"(?<![\w%#])(?:(?:[0-9]{1,9}-element|[0-9]{1,9}(?:\u00d7[0-9]{1,9}){1,9}) )?"
    r"[A-Z]\w{0,60}\{[\w.<:]{1,60}(?:\{[\w.<:, ]{1,200}\})?"
    r"(?:, ?[\w.<:]{1,60}(?:\{[\w.<:, ]{1,200}\})?){0,20}\}"
)
_CODING_KEY = re.compile(r'stringValue: "(?P<name>[A-Za-z_]\w{0,100})"')
# A map of Clojure: {:order-id 8812, :reason :no-address}.
_KEYWORD_MAP = re.compile(r"\{:[\w./*+!?-]{1,80} (?:[^{}\"]|\"(?:[^\"\\]|\\.)*+\"|\{[^{}]*+\})*+\}")
_KEYWORD = re.compile(r":(?:[\w.-]{1,60}/)?(?P<key>[a-z-]{1,40}) :(?P<value>[\w./-]{1,80})")
_KEYWORD_REASONS = frozenset(("cause", "code", "error", "kind", "reason", "status", "type"))
# The name of a file with spaces: in quotes, after a folder, or after a word for a file.
_WORD_OF_FILE = r"[^\s'\"`:;,<>|]{1,99}"
_SPACED_FILE = re.compile(
    rf"""(?:(?<=[\s(=:])|\A)(?:(?:~|\.{{1,2}})?/|[A-Za-z]:[\\/])
      (?P<rest>{_WORD_OF_FILE}(?:\ {_WORD_OF_FILE}){{1,9}}?\.(?:{EXTENSIONS}))(?![\w/.-])
    |['"`\u201c\u201e\u00ab\u2018]
      (?P<quoted>[^\s'"`:;<>|][^'"`:;<>|\n]{{0,199}}?\.(?:{EXTENSIONS}))
      (?=['"`\u201d\u201c\u00bb\u2019])
    |(?i:\b(?:attachment|document|file|image|spreadsheet))[ ]
      (?P<named>{_WORD_OF_FILE}(?:\ {_WORD_OF_FILE}){{1,9}}?\.(?:{EXTENSIONS}))(?![\w/.-])
    """,
    re.VERBOSE,
)
_CLAUSE_WORDS = frozenset(
    ("after", "because", "before", "due", "from", "into", "since", "to", "while")
)
_FILE_SPACES = re.compile("[ ()]+")
_EXTENSION = re.compile(rf"\.(?:{EXTENSIONS})\b")
# "Mr. Braun", "Frau Dr. Lenz": titles are before names of persons only.
_TITLE = r"(?:Mrs?|Ms|Dr|Prof|Herrn?|Frau|Mme|Mlle|Sra?)\b\.?"
_TITLED = re.compile(
    rf"\b{_TITLE}(?: {_TITLE}){{0,2}} [^\W\d_a-z][\w'\u2019-]{{1,60}}"
    rf"(?: [A-Z][\w'\u2019-]{{1,60}}){{0,2}}"
)
_TITLES = ("Mr", "Ms", "Dr", "Prof", "Herr", "Frau", "Mme", "Mlle", "Sr")
# "mr braun", "frau anna lenz" in lower case; "ms" is a unit too.
_TITLED_LOWER = re.compile(
    r"(?<![\w.])(?P<title>(?:mrs?|herrn?|frau|mme|mlle)\.?) (?P<one>[^\W\d_][\w'\u2019-]{1,60})"
    r"(?: (?P<two>[^\W\d_][\w'\u2019-]{1,60})(?= (?P<after>\w+)|[^\w ]|\Z))?"
)
_LOWER_TITLES = ("mr", "herr", "frau", "mme", "mlle")
# What Active Directory says in hexadecimal digits: an expired password, a locked account.
_DIRECTORY_CODE = re.compile(r"(?<=error, data )[0-9a-f]{1,8}(?=, v[0-9a-f])")


class CondensedMessage(NamedTuple):
    """A message without data, and the names that its body or its place holds."""

    text: str
    names: _Names = ()


def condense_message(message: str) -> CondensedMessage:
    """Reduce a message; one without any mark of data stays as it is."""
    message = _condense_names(message)
    is_query = message[:_HEAD_LETTERS].lower() in _HEAD_VERBS
    if not is_query and _PLAIN.match(message):
        return CondensedMessage(message)
    message, found = _condense_runtimes(message)
    message, names = _condense_data(message)
    names += found
    if ": " in message:
        message = _cut_statement(message)
    if is_query and _SQL_HEAD.match(message):
        reasons = list(_SQL_REASON.finditer(message))
        message = message[reasons[-1].end() :] if reasons else message
    if any(map(message.__contains__, _PHP_MARKS)):
        message = _PHP_PLACE.sub("", message)
    if "[" in message:
        message, found = _condense_brackets(message)
        names += found
    if any(map(message.__contains__, _COMMAND_MARKS)):
        commands = [found["command"] for found in _MISSING_COMMAND.finditer(message)]
        names += tuple(("missing", command.rpartition("/")[2]) for command in commands)
        message = _MISSING_COMMAND.sub("<name>", message)
    if "error, data " in message:
        message = _DIRECTORY_CODE.sub(lambda found: keep_code(found[0]), message)
    return CondensedMessage(_condense_noise(message), names)


def _condense_names(message: str) -> str:
    """Hide persons after a title, and join the names of files with spaces."""
    if any(map(message.__contains__, _TITLES)):
        message = _TITLED.sub("<name>", message)
    if any(map(message.__contains__, _LOWER_TITLES)):
        message = _TITLED_LOWER.sub(_hide_titled, message)
    if "." in message and " " in message and _EXTENSION.search(message):
        message = _SPACED_FILE.sub(_join_file, message)
    return message


def _hide_titled(found: re.Match[str]) -> str:
    """Hide the name after a title in lower case: one word, or two before a verb or an end."""
    one, two, after = found["one"], found["two"], found["after"]
    if not can_be_person(one):
        return found[0]
    if two and can_be_person(two) and (after is None or after in PERSON_VERBS):
        return "<name>"
    return f"<name> {two}" if two else "<name>"


def _join_file(found: re.Match[str]) -> str:
    """Mark the spaces of a name, so that it is one token; a sentence that ends in a file stays."""
    name = found["rest"] or found["quoted"] or found["named"]
    words = name.split(" ")
    if (
        len(words) == 1
        or _EXTENSION.search(name, 0, len(name) - len(words[-1]))
        or (found["quoted"] is None and not _CLAUSE_WORDS.isdisjoint(words))
        or not VERBS.isdisjoint(words)
        or FAILURE.search(name.lower())
        or COMPLAINT.search(name)
    ):
        return found[0]
    return found[0].replace(name, _FILE_SPACES.sub(FILE_SPACE, name))


def _condense_runtimes(message: str) -> tuple[str, _Names]:
    """Reduce what one runtime or protocol writes in a form of its own."""
    names: _Names = ()
    if '"."' in message:
        names = tuple(("column", found[2]) for found in _QUALIFIED.finditer(message) if found[1])
        message = _QUALIFIED.sub(r'"\g<name>"', message)
    if "TNS:" in message or "SSL routines:" in message:
        message = _GLUED.sub(r"\g<lead>: ", message)
    if "|" in message:
        message = _SEGMENT.sub(
            lambda found: f"{found['name']} {keep_code(found['code'])}: ", message
        )
    if "> " in message:
        message = _PERL_INPUT.sub("", message)
    if any(map(message.__contains__, _SWIFT_MARKS)):
        message, found = _condense_swift(message)
        names += found
    if _NESTED in message:
        message = _NESTED.join(dict.fromkeys(message.split(_NESTED)))
    if "{:" in message:
        message = _KEYWORD_MAP.sub(_condense_keywords, message)
    return message, names


def _condense_swift(message: str) -> tuple[str, _Names]:
    """Reduce what Swift prints: the fields of NSError, the path of a decoder, an enumeration."""
    names: _Names = ()
    if " UserInfo=" in message:
        names = tuple(("url", url) for url in _FAILING_URL.findall(message)[:1])
        message = _USER_INFO.sub("", message)
    if "stringValue: " in message and (keys := _CODING_KEY.findall(message)):
        names += (("key", keys[0 if "keyNotFound(" in message else -1]),)
    if "Error." in message:
        message = _ENUMERATION.sub("", message)
    if "sqlState: " in message:
        message = _condense_server_info(message)
    return message, names


def _condense_server_info(message: str) -> str:
    """Reduce the fields of an error of a server to its SQLSTATE and its message."""
    info = _SERVER_INFO.search(message)
    if info is None or (stated := _SERVER_MESSAGE.search(message, info.end())) is None:
        return message
    return f"{message[: info.start()]}: {keep_code(info['state'])} {stated['message']}"


def _condense_keywords(found: re.Match[str]) -> str:
    """Keep the reasons in a map of Clojure, in sorted order."""
    reasons = {
        keep_code(value) for key, value in _KEYWORD.findall(found[0]) if key in _KEYWORD_REASONS
    }
    return " ".join(sorted(reasons)) or "<object>"


def _condense_data(message: str) -> tuple[str, _Names]:
    """Replace tuples and bodies by what they state."""
    names: _Names = ()
    if message[:1] == "(" or message[-1:] == ")":
        message = _open_tuple(message)
    if "<" in message:
        if error := _HTTP_ERROR.match(message):
            names = (("url", error["url"]),)
            reason = message[error.end() :].partition('". Details')[0].strip('">')
            message = f"{keep_code(error['status'])} {reason}"
        message = summarize_markup(message)
    if "{" in message:
        message = _PARAMETRIC.sub("<type>", message)
    if "{" in message:
        message, found = summarize_data(message)
        names += found
    return message, names


def _open_tuple(message: str) -> str:
    """Turn a tuple that states a failure into prose: "(1062, 'Duplicate entry')"."""
    if message[0] == "(" and (opened := _TUPLE.match(message)):
        rest = message[opened.end() :].removesuffix(")").rstrip(",").removesuffix(opened["mark"])
        return f"{keep_code(opened['state'] or opened['number'])} {rest}"
    if called := _CALLED.match(message):
        mark = called["mark"]
        rest = called["rest"].rstrip(",").removesuffix(mark).replace(f"{mark}, {mark}", ": ")
        return f"{keep_code(called['number'])} {rest}"
    return message


def _cut_statement(message: str) -> str:
    """Cut the statement that a library quotes, or appends after a colon or in brackets."""
    if "SQL" in message or "query: " in message or "executing" in message:
        message = _SQL_INSIDE.sub("", message)
        tail = _SQL_TAIL.search(message)
        message = message[: tail.start()] if tail and tail.start() else message
    at = message.find(": ")
    while at >= 0:
        verb = message[at + 2 : at + 2 + _TAIL_LETTERS].lower()
        if verb in _TAIL_VERBS and _SQL_HEAD.match(message, at + 2):
            return message[:at].rstrip() or message
        at = message.find(": ", at + 2)
    return message


def _condense_brackets(message: str) -> tuple[str, _Names]:
    """Replace lists and places in square brackets."""
    names: _Names = ()
    if "]:" in message:
        message = _IPV6.sub("<ip>", message)
    if "[Source: " in message:
        names = tuple(("field", name) for name in _REFERENCE.findall(message))
        message = _SOURCE_PLACE.split(message, maxsplit=1)[0]
    if "/[" in message:
        message = _ROUTE.sub("x", message)
    if ": [" in message:
        message = message.removesuffix(": [no body]")
        names += tuple(_ONE_LISTED.findall(message))
        message = _ONE_LISTED.sub(r"\1: <list>", message)
    return _BRACKETED.sub(_condense_list, message), names


def _condense_list(found: re.Match[str]) -> str:
    """Hide a list; of a list of reasons keep the items that name a failure, in sorted order."""
    if not _REASONS.search(found.string, max(0, found.start() - 30), found.start()):
        return "<list>"
    failures = sorted({item for item in found["items"].split(", ") if FAILURE.search(item.lower())})
    return f"[{', '.join(failures)}]" if failures else "<list>"


def _condense_noise(message: str) -> str:
    """Cut figures and the ids of requests; hide lists without brackets."""
    if " (" in message:
        message = _FIGURES.sub("", message)
    if ": " in message and ", " in message and any(map(message.__contains__, _LIST_LEADS)):
        message = _LISTED.sub(r"\g<lead><list>", message)
    if any(map(message.__contains__, _ID_MARKS)):
        message = _REQUEST_ID.sub("", message).replace(" []", "").replace(" ()", "")
    if message[-1:] == ")" or ", line " in message:
        message = _FILE_PLACE.sub("", message)
    return message.replace("nil:NilClass", "nil")
