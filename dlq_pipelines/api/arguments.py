"""What may a request say beside its path? What its route describes, each thing once; the rest is a slip of the pen.

A `dry_run` that nobody reads would change data, and a filter that nobody reads would mean more than was meant.
"""

from collections import Counter
from typing import Any

from fastapi import Request

from dlq_pipelines.api.errors import RequestError

# Bodies that ask for nothing, which some clients send with every post.
_NOTHING = (b"", b"{}")


async def reject_undescribed_arguments(request: Request) -> None:
    """A dependency of every route.

    Raises:
        RequestError: an argument of the address is unknown to the route, or said more than once where one is meant; or
            there is a body and the route takes none.
    """
    route = request.scope["route"]
    if request.query_params:
        _require_described(request, route.path_format)
    if (
        request.method == "POST"
        and route.body_field is None
        and await request.body() not in _NOTHING
    ):
        raise RequestError(400, "This address takes no body.")


def _require_described(request: Request, path: str) -> None:
    described: dict[str, Any] = (
        request.app.openapi()["paths"].get(path, {}).get(request.method.lower(), {})
    )
    known = {
        one["name"]: one["schema"]
        for one in described.get("parameters", [])
        if one["in"] == "query"
    }
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            said = (
                f"It has {', '.join(known)}."
                if known
                else "It has none; what is changed is said in the body."
            )
            raise RequestError(400, f"{name}: this address has no such argument. {said}")
        if times > 1 and not _is_list(known[name]):
            raise RequestError(400, f"{name}: said {times} times. Say it once.")


def _is_list(schema: dict[str, Any]) -> bool:
    return any(one.get("type") == "array" for one in (schema, *schema.get("anyOf", [])))
