"""Rejects arguments that a route does not describe, or that are repeated.

Ignoring an unknown `dry_run` would change data, and ignoring an unknown filter would select too
much.
"""

from collections import Counter
from typing import Any

from fastapi import Request

from dlq_pipelines.api.errors import RequestError

# Bodies without content, which some clients send with every POST.
_EMPTY_BODIES = (b"", b"{}")


async def reject_undescribed_arguments(request: Request) -> None:
    """Reject undescribed arguments; a dependency of every route.

    Raises:
        RequestError: a query parameter is unknown to the route, or repeated although it is not a
            list; or there is a body and the route takes none.
    """
    route = request.scope["route"]
    if request.query_params:
        _require_described(request, route.path_format)
    if (
        request.method == "POST"
        and route.body_field is None
        and await request.body() not in _EMPTY_BODIES
    ):
        raise RequestError(400, "This route takes no body.")


def _require_described(request: Request, path: str) -> None:
    described: dict[str, Any] = (
        request.app.openapi()["paths"].get(path, {}).get(request.method.lower(), {})
    )
    known = {
        parameter["name"]: parameter["schema"]
        for parameter in described.get("parameters", [])
        if parameter["in"] == "query"
    }
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            allowed = (
                f"Known parameters: {', '.join(known)}."
                if known
                else "Changes take their arguments in the body."
            )
            raise RequestError(400, f"{name}: unknown query parameter. {allowed}")
        if times > 1 and not _is_list(known[name]):
            raise RequestError(400, f"{name}: given {times} times. Pass it once.")


def _is_list(schema: dict[str, Any]) -> bool:
    return any(one.get("type") == "array" for one in (schema, *schema.get("anyOf", [])))
