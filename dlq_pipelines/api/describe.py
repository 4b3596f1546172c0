"""Turns texts for other readers into texts for callers of the API: docstrings and commands.

FastAPI copies docstrings into the OpenAPI description.

A class describes its fields in the section `Attributes`: each text moves to its field. The sections
`Args` and `Raises` are for readers of the code.
"""

import re
from typing import Any

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):\n", re.MULTILINE)
# A field begins at the first indent; its text may continue at a larger one.
_FIELD = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_COMMAND = re.compile(
    r"`dlq (dead-events|causes|fixes|alerts|reports)"
    r" (?:(?P<list>list)|(?P<show>show) (\S+)|(?P<change>merge|pause|resume|split|withdraw) (\S+))`"
)
_WORDS = {"None": "null", "True": "true", "False": "false"}
_PYTHON_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b")


def clean_descriptions(described: dict[str, Any]) -> None:
    """Clean every description of an OpenAPI document in place. Repeatable."""
    for schema in described.get("components", {}).get("schemas", {}).values():
        _describe_fields(schema)
    _clean(described)


def translate_commands(text: str) -> str:
    """Replace commands of `dlq` by the requests that do the same."""
    return _COMMAND.sub(_translate_command, text)


def _translate_command(found: re.Match[str]) -> str:
    path = f"/api/{found[1]}"
    if found["list"]:
        return f"`GET {path}`"
    return f"`GET {path}/{found[4]}`" if found["show"] else f"`POST {path}/{found[6]}/{found[5]}`"


def _describe_fields(schema: dict[str, Any]) -> None:
    """Move the texts of the section `Attributes` to the fields that have none."""
    _, _, section = schema.get("description", "").partition("Attributes:\n")
    texts = dict(_FIELD.findall(_SECTION.split(section)[0]))
    for name, field in schema.get("properties", {}).items():
        if name in texts and "description" not in field:
            text = _replace_words(" ".join(texts[name].split()))
            field["description"] = text[0].upper() + text[1:]


def _replace_words(text: str) -> str:
    return _PYTHON_WORD.sub(lambda found: _WORDS[found[0]], text)


def _clean(part: Any) -> None:
    if isinstance(part, list):
        for value in part:
            _clean(value)
    elif isinstance(part, dict):
        if isinstance(text := part.get("description"), str):
            part["description"] = _replace_words(_SECTION.split(text)[0].strip())
        for value in part.values():
            _clean(value)
