"""`/docs`: what can be asked? One page of our own, made on the server from the OpenAPI description.

Without scripts, and with nothing from elsewhere: it works offline and under the strictest content security policy. The
usual viewer loads its scripts from a content delivery network.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

router = APIRouter(include_in_schema=False)
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class _Argument:
    name: str
    place: str
    type: str
    default: str
    required: bool
    about: str


@dataclass(frozen=True)
class _Operation:
    """A route as the page shows it."""

    method: str
    path: str
    about: str
    tag: str
    arguments: tuple[_Argument, ...]
    answer: str

    @property
    def anchor(self) -> str:
        words = "".join(letter if letter.isalnum() else "-" for letter in self.path).strip("-")
        return f"{self.method.lower()}-{words}"


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """The page."""
    described = request.app.openapi()
    operations = tuple(_operations(described))
    tags = dict.fromkeys(operation.tag for operation in operations)
    groups = {tag: [operation for operation in operations if operation.tag == tag] for tag in tags}
    style = _style()
    page = _environment().get_template("docs.html.j2").render(api=described["info"], groups=groups, style=style)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


@cache
def _style() -> str:
    return (_TEMPLATES / "docs.css").read_text(encoding="utf-8")


def _operations(described: dict[str, Any]) -> Iterator[_Operation]:
    schemas = described.get("components", {}).get("schemas", {})
    for path, methods in described["paths"].items():
        for method, one in methods.items():
            yield _Operation(
                method.upper(),
                path,
                one.get("description", one.get("summary", "")),
                one.get("tags", ["other"])[0],
                (*_parameters(one), *_body(one, schemas)),
                _answer(one),
            )


def _parameters(one: dict[str, Any]) -> Iterator[_Argument]:
    for given in one.get("parameters", []):
        schema = given["schema"]
        yield _Argument(
            given["name"],
            given["in"],
            _type(schema),
            _default(schema),
            given.get("required", False),
            given.get("description") or schema.get("description", ""),
        )


def _body(one: dict[str, Any], schemas: dict[str, Any]) -> Iterator[_Argument]:
    schema = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    for choice in [schema, *schema.get("anyOf", [])]:
        known = schemas.get(choice.get("$ref", "").rpartition("/")[2], {})
        for name, field in known.get("properties", {}).items():
            needed = name in known.get("required", [])
            yield _Argument(name, "body", _type(field), _default(field), needed, field.get("description", ""))


def _answer(one: dict[str, Any]) -> str:
    content = one["responses"].get("200", {}).get("content", {})
    return ", ".join(_type(what.get("schema", {})) or kind for kind, what in content.items())


def _type(schema: dict[str, Any]) -> str:
    """In words: `integer`, `list of string`, or the name of what is described elsewhere."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"] if choice.get("type") != "null")
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [str(schema[bound]) for bound in ("minimum", "maximum") if bound in schema]
    between = f" {bounds[0]} to {bounds[1]}" if len(bounds) == 2 and len(bounds[1]) < 12 else ""  # noqa: PLR2004
    return f"{schema.get('type', '')}{between}"


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None else json.dumps(value)
