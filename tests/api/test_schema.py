"""Tests with generated requests that every route does what `/openapi.json` describes."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve
from tests.rows import add_events, kill


def invalid_data_rejection(
    context: CheckContext, response: Response, case: Case[Any]
) -> bool | None:
    """Accept 413, which the check of schemathesis does not count as a rejection."""
    return None if response.status_code == 413 else negative_data_rejection(context, response, case)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    invalid_data_rejection,
    unsupported_method,
]
# A longer request line is refused before the API reads it, with one of these texts.
LONGEST_REQUEST_LINE = 65_536
NOT_HTTP = (b"Invalid HTTP request received.", b"Request line and headers are too long.")
# Valid and invalid requests of each route. All of them take a quarter of a
# minute.
EXAMPLES = 10


def test_every_response_is_as_described(serve: Serve, connection: Connection) -> None:
    """Thousands of requests, valid and invalid ones."""
    add_events(connection, 50, payload='{"sku": "A-1"}')
    kill(connection, "KeyError: 'sku'", attempts=5)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    client = serve(api_changes_per_minute=1_000_000)
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    requests: dict[str, int] = {}
    for found, mode in product(schema.get_all_operations(), GenerationMode):
        operation = found.ok()
        if (
            mode is GenerationMode.NEGATIVE
            and not list(operation.iter_parameters())
            and not operation.body
        ):
            continue  # there are no arguments that could be invalid

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def validate(case: Case[Any]) -> None:
            requests[case.operation.label] = requests.get(case.operation.label, 0) + 1
            response = case.call()
            if response.content in NOT_HTTP:
                assert len(str(response.request.url)) > LONGEST_REQUEST_LINE
            else:
                case.validate_response(response, checks=CHECKS)

        validate()
    routes = httpx.get(f"{client.base_url}/openapi.json", timeout=120).json()["paths"]
    assert len(requests) == sum(len(methods) for methods in routes.values()) > 25


def test_descriptions_are_for_readers_of_the_api(serve: Serve) -> None:
    """They have no sections of docstrings and no words of Python; fields have their texts."""
    described = serve().get("/openapi.json").json()
    texts = list(_list_descriptions(described))
    assert len(texts) > 200
    words = re.compile(
        r"(?:Args|Attributes|Raises|Returns):|RawJson|\b(?:None|True|False|Python)\b"
    )
    assert [text for text in texts if words.search(text)] == []
    fix = described["components"]["schemas"]["Fix"]
    assert fix["description"] == "A flagged fix as it is stored."
    assert fix["properties"]["stage"]["description"] == "The last stage that began; 0: none."
    assert fix["properties"]["policy"]["description"].startswith("Null before the first step")


def _list_descriptions(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("description"), str):
            yield part["description"]
        for value in part.values():
            yield from _list_descriptions(value)
    elif isinstance(part, list):
        for value in part:
            yield from _list_descriptions(value)
