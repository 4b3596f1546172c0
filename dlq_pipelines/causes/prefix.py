"""Strips what a logger writes in front of a message: time, level, process, thread, logger.

A text has the same cause with and without such a prefix. A prefix begins with a time, a level or
another mark that no message begins with; what follows is read item by item.
"""

import re

_CLOCK = r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,:][0-9]{1,9})?(?:\ [AP]M)?"
_ZONE = r"(?:\ ?(?:Z|UTC|GMT|CES?T|[+-][0-9]{2}:?[0-9]{2})(?![\w:]))?"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME = (
    rf"(?:[0-9]{{4}}[-/][0-9]{{2}}[-/][0-9]{{2}}[T\ ,]\ ?{_CLOCK}{_ZONE}"
    rf"|[0-9]{{2}}[-./][0-9]{{2}}[-./][0-9]{{4}},?\ {_CLOCK}{_ZONE}"
    rf"|[0-9]{{1,2}}[-/]{_MONTH}[-/][0-9]{{4}}[:\ ]{_CLOCK}{_ZONE}"
    rf"|(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?\ )?{_MONTH}\ [\ 0-9][0-9]\ {_CLOCK}{_ZONE}"
    rf"|[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:[.,][0-9]{{1,9}})?)"
)
_UPPER = (
    r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|ALERT|FATAL|SEVERE|EMERG)"
)
_LEVEL = rf"(?:{_UPPER}|(?i:\[\s*{_UPPER}\s*\]))"
# What begins a prefix. A level alone counts only before another mark of a logger.
_START = re.compile(
    rf"""
    (?:[\w.-]{{1,60}}\ +\|\ )?                            # docker compose: "worker-1  | "
    (?:
        <[0-9]{{1,3}}>(?:1\ )?                            # syslog's priority
      | [EWFI],\ \[{_TIME}\ \#[0-9]+\]\ +{_UPPER}\ --\ [^:\n]{{0,60}}:\ # Ruby's Logger
      | [EWF][0-9]{{4}}\ {_CLOCK}\ +[0-9]+\ [\w.-]+:[0-9]+\]\         # klog
      | \[?{_TIME}(?:\ ?\#[0-9]+)?(?::\ {_UPPER}/[\w-]+)?\]?(?=[\s:|]|\Z)
      | {_UPPER}:[a-z_][\w.]*:(?=\S)                      # logging.basicConfig
      | {_UPPER}\ ++(?=\[|[\w.$]+\ -\ |{_TIME})
      | \[\s?(?i:{_UPPER})\s*\](?:\s|:\s|(?=\[))
      | \[Nest\]\s
      | \(node:[0-9]+\)\ (?:\[\w+\]\ )?(?:Unhandled\w+:\ )?
      | time="?{_TIME}"?\ level=\w+\ msg=(?=\w)
    )
    """,
    re.VERBOSE,
)
_SYSLOG = re.compile(r"[\w.-]{1,100} [\w./@-]{1,100}(?:\[[\w.]+\])?: ")
_JOURNAL = re.compile(r"[\w.-]{1,100} [\w./@-]{1,100}\[[0-9]+\]: ")
_SYSLOG_5424 = re.compile(
    r"[\w.-]{1,100} [\w./@-]{1,100} (?:[0-9]+|-) [\w-]{1,40} (?:-|\[[^\]\n]*\]) "
)
_ITEM = re.compile(
    rf"""
    \s+(?=\S) | [-|:]{{1,3}}\s+
  | \[?{_TIME}\]?(?=[\s|:])
  | \[?[0-9]{{1,7}}(?:\#[0-9]+)?\]?
      (?:\ ---\s|:\ \*[0-9]+\ |\ +-\ +(?=[0-9]{{2}}/)|(?=\ \[?{_UPPER}\b))
  | (?:\#[0-9]+|[TJ]ID-\w+
      |(?:pid|tid|jid|bid|class|elapsed|queue|thread|request_id|trace_id)=\S+)(?=\s)
  | \w+(?=\ (?:[TJ]ID-|{_UPPER}:\ ))
  | [\w./-]{{1,200}}\.(?:go|java|js|php|py|rb|rs|ts):[0-9]+:?\s
  | (?:[a-z]\w*\.){_UPPER}:\s                             # Monolog: "production.ERROR: "
  | {_LEVEL}(?:/[\w-]+)?\]?(?:\s*[|:]\s+|:|\s+|(?=\[))
  | app\[[\w.]+\]:\s
  | Task\ [\w.]{{1,200}}\[[0-9a-f-]{{8,36}}\]\ (?:raised\ (?:un)?expected|failed):\s
    """,
    re.VERBOSE,
)
# The logger or the thread: at most one name and three pairs of brackets.
_BRACKETS = re.compile(
    r"\[(?:[a-z@][\w.,$/#:@-]*|\s*[A-Za-z][\w.]*-[\w.-]*[0-9]|[A-Z]\w*(?=\]\s)(?<=[a-z]))\]\s*"
)
_NAME = re.compile(
    r"""
    [A-Za-z_$][\w.$/-]*(?:\[[^\n:]{0,100}\])?\s*+:\s(?<=\s:\s)
  | [A-Za-z_][\w$]*\.[\w.$:\[\]/-]+\s+-\s
  | [A-Za-z_$][\w.$:]*\s+\|\s
  | [A-Za-z_][\w.$-]*\s+-\s(?=\[?(?:TRACE|DEBUG|INFO|WARN|ERROR|CRITICAL|FATAL)\b)
  | [a-z_]\w*+(?:\.[a-z_]\w*+)++:(?:[0-9]+:)?\s(?<!\berror:\s)(?<!timeout:\s)
  | [a-z_]\w*+(?:\.\w++)*+:\w+:[0-9]+\s-\s
  | [a-z_]\w*+(?:\.\w++)*+\s(?=\w+\.py:[0-9]+\s)
  | (?:root|__main__|main|app|worker|celery|django|uvicorn|gunicorn|sidekiq|server):\s
    """,
    re.VERBOSE,
)
_MONTHS = frozenset(re.findall("[A-Z][a-z]{2}", _MONTH))
_MAX_ITEMS, _MAX_LOGGERS = 24, 3
# Most texts begin with none of these, which costs less to see than the pattern.
_MARKS = frozenset("0123456789<[(")
_FIRST = frozenset(
    [
        *("E0", "E1", "E,", "W0", "W1", "W,", "F0", "F1", "F,", "I0", "I1", "I,", "ti"),
        *("TR", "DE", "IN", "NO", "WA", "ER", "CR", "AL", "FA", "SE", "EM"),
        *("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su", *(month[:2] for month in sorted(_MONTHS))),
    ]
)
_COMPOSE = 64


def strip_log_prefix(text: str) -> str:
    """Return the text without the prefix of a logger, also if each line has it."""
    if text[:1] not in _MARKS and text[:2] not in _FIRST and " | " not in text[:_COMPOSE]:
        return text
    for _ in range(_MAX_LOGGERS):  # journald keeps the line of the application's logger
        end = _find_prefix_end(text, 0)
        if not end:
            break
        text = _strip_lines(text, end)
    return text


def _strip_lines(text: str, end: int) -> str:
    second = text.find("\n") + 1
    if second and (again := _find_prefix_end(text, second)) and again > second:
        return "\n".join(line[_find_prefix_end(line, 0) :] for line in text.split("\n"))
    return text[end:].lstrip() or text


def _find_prefix_end(text: str, start: int) -> int:
    """Return the offset after the prefix at `start`; `start` without a prefix."""
    begin = _START.match(text, start)
    if begin is None:
        return start
    at, names, brackets = begin.end(), 1, 3
    for _ in range(_MAX_ITEMS):
        if found := _ITEM.match(text, at):
            at = found.end()
        elif brackets and (found := _BRACKETS.match(text, at)):
            at, brackets = found.end(), brackets - 1
        elif names and (found := _NAME.match(text, at) or _match_syslog(begin[0], text, at)):
            at, names = found.end(), 0
        else:
            break
    return at


def _match_syslog(begin: str, text: str, at: int) -> re.Match[str] | None:
    """Match the host and the program, which only the forms of syslog have."""
    if begin[:1] == "<":
        return _SYSLOG_5424.match(text, at) or _SYSLOG.match(text, at)
    return (_SYSLOG if begin[:3] in _MONTHS else _JOURNAL).match(text, at)
