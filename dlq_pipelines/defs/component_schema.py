"""States what the attributes of the component may be, for `dg check yaml` and editors.

These are keywords of JSON Schema in addition to the types. The component itself takes more: a wrong
value that comes from a variable fails the runs of its outbox, and not the location. What the file
states can be refused before anything runs.
"""

import re
from typing import Any

from dlq_pipelines.defs.outbox import CRONS
from dlq_pipelines.settings import NAME_PATTERN, Settings

Keywords = dict[str, Any]
# What a text must be for a setting of another type.
_TEXTS = {
    "boolean": "true|false|yes|no|on|off|1|0",
    "integer": "[0-9]+",
    "number": r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?",
}
_PATTERNS = {
    "partitions_start": "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    "timezone": "UTC|[A-Za-z]+/[A-Za-z0-9_+/-]+",
}
# Five fields, or a name such as @daily; the fields are Dagster's to check.
_CRON = r"\S+(\s+\S+){4}|@[a-z]+"
# As Dagster defines an owner.
_OWNER = r"team:.+|[^@\s]+@[^@\s]+\.[^@\s]+"
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "minLength")

_SETTINGS = Settings.model_json_schema()
_KINDS = _SETTINGS.get("$defs", {})


def _match(pattern: str) -> Keywords:
    """Return the keyword that a text matches a pattern, or has a template, which is filled in."""
    return {"pattern": rf"^({pattern})$|\{{\{{"}


def describe_setting(name: str) -> Keywords:
    """Return the bounds of a setting, and the pattern of its texts.

    Args:
        name: that of the variable, in lower case without `DLQ_`.
    """
    declared = _SETTINGS["properties"][name]
    (kind,) = [
        _resolve(kind) for kind in declared.get("anyOf", [declared]) if kind.get("type") != "null"
    ]
    bounds = {bound: kind[bound] for bound in _BOUNDS if bound in kind}
    if "enum" in kind:
        return _match("|".join(kind["enum"]))
    if kind["type"] == "array":
        words = _resolve(kind["items"])["enum"]
        word = rf"\s*({'|'.join(words)})\s*"
        return {"items": {"enum": words}, **_match(f"{word}(,{word})*")}
    pattern = _PATTERNS.get(name) or _TEXTS.get(kind["type"])
    return {**bounds, **(_match(pattern) if pattern else {})}


def _resolve(kind: Keywords) -> Keywords:
    return _KINDS[kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind


def is_owner(text: str) -> bool:
    """Return whether Dagster takes a text as an owner."""
    return re.fullmatch(_OWNER, text) is not None


# Instead of a list or a mapping a text is a template.
_TEMPLATE: Keywords = {"pattern": r"\{\{"}
NAME: Keywords = _match(NAME_PATTERN.strip("^$"))
OWNERS: Keywords = {"items": _match(_OWNER), **_TEMPLATE}
SCHEDULES: Keywords = {
    **_TEMPLATE,
    "properties": {name: _match(_CRON) for name in CRONS},
    "additionalProperties": False,
}
