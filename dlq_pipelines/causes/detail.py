"""Chooses the detail of a failure: the one name in a message that shows whose problem it is.

A constraint, column, key, field or attribute comes before a topic or a queue, these before a host,
an operation and a table. Values that look generated are never a detail, nor is the name of a person
or of a person's account.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from dlq_pipelines.causes.vocabulary import CURRENCIES, NOISE_NAMES, PERSONS, TYPE_NAMES

_MAX_LENGTH = 200
_RANKS = (
    "constraint",
    (
        "column columns field fields key keys attribute property member parameter parameters"
        " argument arguments missing variable variables option setting settings reading header"
        " named name param"
    ),
    "topic topics queue exchange bucket stream subscription routing channel vhost index",
    "host hostname server enotfound lookup getaddrinfo resolve node url broker endpoint service",
    "operation table relation collection schema sequence view database module dependency file",
    (
        "function method call class type permission scope role secret resource pod container"
        " namespace job task template component config partition policy"
    ),
)
_RANK_OF = {kind: rank for rank, kinds in enumerate(_RANKS) for kind in kinds.split()}
_UNRANKED, _REJECTED = len(_RANKS), len(_RANKS) + 1
_HOST_RANK = _RANK_OF["host"]
_URL = re.compile(
    r"[A-Za-z][\w+.:-]*://(?:[^/@\s]*@)?(?P<host>\[[^\]]*\]|[^/:?#\s'\"]+)(?P<port>:[0-9]+)?"
)
# Digits alone, three digits in a row, an e-mail, a hash, an address of IP, a number with letters
# in front, or letters and digits that take turns, as in the name of a pod.
_GENERATED = re.compile(
    r"[^A-Za-z]*|.*[0-9]{4}.*|.*@.*|[0-9a-fA-F-]{8,}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}.*"
    r"|[A-Z]{1,5}[-_]?[0-9]+|(?:.*?[A-Za-z][0-9]+(?=[A-Za-z])){2}.*|.*[-_][0-9]{3,}.*|<.*"
    r"|[A-Za-z]+Err(?:or)?|#.*|[a-z]{2,5}_(?=[A-Za-z]*[0-9])[A-Za-z0-9]{8,}",
    re.DOTALL,
)
_IDENTIFIER = re.compile(r"[A-Za-z]++(?:[_.][A-Za-z_]++)++|[A-Za-z][a-z]++(?:[A-Z][a-z]++)++")
_INDEX = re.compile(r"(?<=[.\[])[0-9]+(?=[.\]]|\Z)")
_NOISE = NOISE_NAMES | TYPE_NAMES | {"character", "char", "nonetype"}
# "user 'CORP\\anna'", "owner: anna", "db_user=anna", "customer with the name "Anna"".
_PERSON = re.compile(
    rf"""(?i:(?<![a-z])(?:{"|".join(sorted(PERSONS))})(?:[ _-]?(?:names?|id|login|account))?+
    (?:\ (?:with|the|named|called|of|is|name|id))*+)['"]?\s?[:=]?\s?[(<]?
    (?<!\w)(?:'(?P<one>[^']{{1,200}})'|"(?P<two>[^"]{{1,200}})"|`(?P<three>[^`']{{1,200}})['`]
    |(?P<bare>[^\s'"`,;:()<>]{{1,200}}))""",
    re.VERBOSE,
)
# A role that logs in is a person's or a program's account.
_ACCOUNTS = PERSONS | {"by"}
_LOGIN = re.compile(r"(?i)\blog[- ]?in\b|authenticat|password")
_TRIMMED = "'\"`\u00ab\u00bb\u201e\u201c\u201d\u2018\u2019[]{}()<>,;:=. "


def choose_detail(names: Iterable[tuple[str, str]]) -> str:
    """Return the name that distinguishes the failure best; empty if no name does."""
    best, best_rank, port = "", _REJECTED, ""
    for kind, value in names:
        rank = _RANK_OF.get(kind, _UNRANKED)
        if kind in {"at", "on"} and "." in value:  # server at "db.internal"
            rank = _HOST_RANK
        if kind == "port":
            port = port or value
        elif rank < best_rank:
            name = _normalize_name(kind, value)
            if name and (rank < _UNRANKED or _IDENTIFIER.fullmatch(name)):
                best, best_rank = name, rank
    if best_rank == _HOST_RANK and port and ":" not in best:
        best = f"{best}:{port}"
    return best


def drop_persons(message: str, names: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the names in a message without those of persons and of their accounts."""
    # Most messages name no person, which costs less to see than the pattern.
    persons = (
        {
            (found[1] or found[2] or found[3] or found[4]).rstrip(".!?")
            for found in _PERSON.finditer(message)
        }
        if any(map(message.lower().__contains__, PERSONS))
        else ()
    )
    kinds = _ACCOUNTS | {"role"} if _LOGIN.search(message) else _ACCOUNTS
    return [name for name in names if name[0] not in kinds and name[1] not in persons]


@lru_cache(2_048)
def _normalize_name(kind: str, value: str) -> str:
    """Return a name without quotes, indexes and paths; empty if it looks generated."""
    if kind == "url" or "://" in value:
        found = _URL.match(value)
        value = f"{found['host'].lower()}{found['port'] or ''}" if found else ""
    name = value.strip(_TRIMMED)[:_MAX_LENGTH]
    bare = name.rpartition(":")[0] or name if _RANK_OF.get(kind) == _HOST_RANK else name
    is_noise = name.lower() in _NOISE and not (kind == "column" and name.isupper())
    if not name or is_noise or name in CURRENCIES or _GENERATED.fullmatch(bare):
        return ""
    return _INDEX.sub("*", name) if "." in name or "[" in name else name
