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
    page = (
        _environment()
        .get_template("docs.html.j2")
        .render(api=described["info"], groups=groups, style=style)
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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
                (*_parameters(one, schemas), *_body(one, schemas)),
                _answer(one, schemas),
            )


def _parameters(one: dict[str, Any], schemas: dict[str, Any]) -> Iterator[_Argument]:
    """Of its address. The header that every route takes is explained once."""
    for given in one.get("parameters", []):
        if given["in"] != "header":
            about = given.get("description") or given["schema"].get("description", "")
            yield _argument(
                given["name"],
                given["in"],
                given["schema"],
                schemas,
                about,
                given.get("required", False),
            )


def _body(one: dict[str, Any], schemas: dict[str, Any]) -> Iterator[_Argument]:
    schema = (
        one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    )
    for choice in [schema, *schema.get("anyOf", [])]:
        known = _known(choice, schemas)
        for name, field in known.get("properties", {}).items():
            needed = name in known.get("required", [])
            yield _argument(name, "body", field, schemas, field.get("description", ""), needed)


def _argument(
    name: str,
    place: str,
    schema: dict[str, Any],
    schemas: dict[str, Any],
    about: str,
    required: bool,
) -> _Argument:
    default = schema.get("default")
    shown = (
        ", ".join(default)
        if isinstance(default, list)
        else ""
        if default is None
        else json.dumps(default)
    )
    return _Argument(name, place, _type(schema, schemas), shown, required, about.replace("`", ""))


def _answer(one: dict[str, Any], schemas: dict[str, Any]) -> str:
    """The fields of a JSON object, or the kinds of file."""
    content = one["responses"].get("200", {}).get("content", {})
    fields = _known(content.get("application/json", {}).get("schema", {}), schemas).get(
        "properties", {}
    )
    return ", ".join(fields or content)


def _known(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema, or the one that it refers to."""
    found: dict[str, Any] = (
        schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    )
    return found


def _type(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """In words: `integer`, `list of string`, or the values that it may have."""
    if "anyOf" in schema:
        return " or ".join(
            _type(choice, schemas) for choice in schema["anyOf"] if choice.get("type") != "null"
        )
    known = _known(schema, schemas)
    if "enum" in known:
        return " or ".join(map(str, known["enum"]))
    if known.get("type") == "array":
        return f"list of {_type(known.get('items', {}), schemas)}"
    least, most = known.get("minimum"), known.get("maximum")
    between = (
        f" {least:g} to {most:,.0f}"
        if least is not None and most is not None and most < 2**31 - 1
        else ""
    )
    return f"{known.get('type', '')}{between}"
