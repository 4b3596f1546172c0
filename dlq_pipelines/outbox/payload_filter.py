"""Parses the filter of payloads: a jsonpath predicate of PostgreSQL, or the short `PATH=VALUE`."""

import json
import re

# A path of members and elements, and what it equals. Everything else is left to PostgreSQL.
_SHORT = re.compile(
    r"""\s*\$(?P<path>(?:
        \.[^\W\d][\w-]* | \."(?:[^"\\]|\\.)*" | \['[^']*'\] | \[\*\] | \[\d{1,9}\]
    )*)
    \s*=(?!=)\s*(?P<value>.*\S)\s*""",
    re.VERBOSE | re.DOTALL,
)
_SEGMENT = re.compile(
    r"""\.(?P<name>[^\W\d][\w-]*) | \.(?P<json>"(?:[^"\\]|\\.)*") | \['(?P<quoted>[^']*)'\]
    | (?P<element>\[(?:\*|\d+)\])""",
    re.VERBOSE | re.DOTALL,
)
# Of a predicate: a path without the methods at its end, or a string of a value.
_PREDICATE_PART = re.compile(
    r"""\$(?P<path>(?:\.[A-Za-z_]\w*+(?!\() | \."(?:[^"\\]|\\.)*" | \[\*\])*)
    | "(?:[^"\\]|\\.)*" | (?P<open>")""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_LITERAL = re.compile(r"-?(?:0|[1-9]\d{0,300})(?:\.\d{1,300})?|true|false|null")


def parse_payload_filter(text: str) -> str:
    """Return the jsonpath predicate of a filter.

    Args:
        text: a predicate, such as `$.amount >= 1000 && exists($.card)`, which is returned as it is,
            or `PATH=VALUE`, such as `$.acquirer=northbank`. A value in double quotes is a string;
            without quotes a number, `true`, `false` and `null` match the string of the same
            characters too.

    Raises:
        ValueError: the text is neither, as far as this can be said without PostgreSQL.
    """
    if match := _SHORT.fullmatch(text):
        path, value = _render_path(match["path"]), match["value"]
        if "&&" in value or "||" in value or value.startswith("'"):
            raise ValueError(
                f"where compares {path} with {value!r} as a whole. Put the value in double quotes, "
                f'or write a predicate: {path} == "..." && ...'
            )
        if value.startswith('"'):
            return f"{path} == {_quote(_read_string(value))}"
        if _LITERAL.fullmatch(value):
            return f"{path} == {value} || {path} == {_quote(value)}"
        return f"{path} == {_quote(value)}"
    if text.rstrip().endswith("="):
        raise ValueError(f'where has no value: {text!r}. For an empty text write {text.strip()}"".')
    if "$" not in text:
        raise ValueError(
            f"where must be PATH=VALUE, such as $.acquirer=northbank, or a jsonpath predicate, "
            f"not {text!r}."
        )
    return text.strip()


def format_path(steps: tuple[str, ...]) -> str:
    """Return the jsonpath of nested members; `[*]` stands for each element of an array."""
    return "$" + "".join(step if step == "[*]" else f".{_format_name(step)}" for step in steps)


def list_filter_paths(predicate: str) -> list[tuple[str, ...]]:
    """Return the paths that a predicate names, as steps that `format_path` joins.

    Args:
        predicate: written with `format_path`, such as `exists($.card) && $.card.cvc >= 806`.

    Raises:
        ValueError: a string has no end.
    """
    paths = []
    for part in _PREDICATE_PART.finditer(predicate):
        if part["open"]:
            raise ValueError(f"where has an invalid string: {predicate[part.start() :]}")
        if part["path"] is not None:
            paths.append(
                tuple(
                    _read_string(step["json"]) if step["json"] else step["name"] or step["element"]
                    for step in _SEGMENT.finditer(part["path"])
                )
            )
    return paths


def _format_name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else _quote(name)


def _render_path(path: str) -> str:
    rendered = "$"
    for segment in _SEGMENT.finditer(path):
        if segment["element"]:
            rendered += segment["element"]
        else:
            quoted = segment["json"]
            name = _read_string(quoted) if quoted else segment["name"] or segment["quoted"] or ""
            rendered += f".{_format_name(name)}"
    return rendered


def _read_string(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, str):
        return value
    raise ValueError(f"where has an invalid string: {text}. Write it as a JSON string.")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
