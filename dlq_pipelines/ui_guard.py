"""Runs `dagster dev` with a guard before the UI, so that no other site's page can start runs.

Dagster's UI checks neither Host nor Origin, and runs GraphQL queries of a GET. A browser lets any
page send requests to 127.0.0.1: a page with `<img src="http://127.0.0.1:3000/graphql?query=...">`
could launch a job.

`python -m dlq_pipelines.ui_guard dev ...` takes the arguments of `dagster dev`. That starts the
web server as a process of its own, with the command `python -m dagster_webserver ...`; here it
becomes `python -m dlq_pipelines.ui_guard webserver ...`, which wraps the same application.
"""

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlq_pipelines.validate import parse_host_name

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Content types that a page cannot send to another site without the permission of that site.
_GRAPHQL_TYPES = ("application/json", "application/graphql")


class UiGuard:
    """Checks each request to Dagster's UI, over HTTP and over a web socket.

    Args:
        app: the application.
        hosts: accepted host names, without ports, in addition to the names of loopback.
        origins: accepted origins, in addition to that of the UI itself.
    """

    def __init__(self, app: "ASGIApp", *, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app = app
        self._hosts, self._origins = {*_LOOPBACK, *hosts}, set(origins)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handle a request, or answer why it is refused."""
        refusal = self._check(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, reason = refusal
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": f"{reason}\n".encode()})

    def _check(self, scope: "Scope") -> tuple[int, str] | None:
        """Return the status and the reason of a refusal; None: the request may pass."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1"))
        hosts, origins = headers.get(b"host", []), headers.get(b"origin", [])
        if len(hosts) != 1 or parse_host_name(hosts[0]) not in self._hosts:
            return 421, "Unknown host name. DLQ_API_HOSTS lists the accepted host names."
        for origin in origins:
            if origin not in self._origins and origin.partition("://")[2] != hosts[0]:
                return 403, (
                    "Another site's page may not use this UI. DLQ_API_CORS_ORIGINS lists the "
                    "accepted origins."
                )
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/graphql"):
            return _check_graphql(scope["method"], headers)
        return None


def _check_graphql(method: str, headers: dict[bytes, list[str]]) -> tuple[int, str] | None:
    """Refuse what a page can send to another site without an Origin: a GET, and a form."""
    accepted = ",".join(headers.get(b"accept", []))
    if method == "GET" and "text/html" in accepted:  # the playground, which runs no query
        return None
    if method != "POST":
        return 405, "Send GraphQL queries by POST."
    kind = headers.get(b"content-type", [""])[0].partition(";")[0].strip().lower()
    if kind not in _GRAPHQL_TYPES:
        return 415, f"Send GraphQL queries as {' or '.join(_GRAPHQL_TYPES)}."
    return None


def replace_webserver(command: Sequence[str]) -> list[str]:
    """Return the command of a process of `dagster dev`, with the guard if it is the web server.

    Raises:
        RuntimeError: the web server is started in an unknown way, and would not be guarded.
    """
    if list(command[1:3]) == ["-m", "dagster_webserver"]:
        return [command[0], "-m", "dlq_pipelines.ui_guard", "webserver", *command[3:]]
    if any("webserver" in word for word in command[:3]):
        raise RuntimeError(f"unknown command of Dagster's web server: {' '.join(command[:3])}")
    return list(command)


def _run_dev(arguments: list[str]) -> None:
    # Modules of Dagster without a public interface for this. If a name is missing in another
    # release, the UI does not start, rather than without a guard.
    dev: Any = import_module("dagster._cli.dev")
    start = dev.open_ipc_subprocess
    dev.open_ipc_subprocess = lambda command, **given: start(replace_webserver(command), **given)
    sys.argv = ["dagster", "dev", *arguments]
    import_module("dagster._cli").main()


def _run_webserver(arguments: list[str]) -> None:
    from dlq_pipelines.settings import read_settings

    settings = read_settings()
    cli: Any = import_module("dagster_webserver.cli")
    create = cli.create_app_from_workspace_process_context

    def create_guarded(*given: Any, **named: Any) -> UiGuard:
        return UiGuard(
            create(*given, **named), hosts=settings.api_hosts, origins=settings.api_cors_origins
        )

    cli.create_app_from_workspace_process_context = create_guarded
    sys.argv = ["dagster-webserver", *arguments]
    cli.main()


if __name__ == "__main__":
    {"dev": _run_dev, "webserver": _run_webserver}[sys.argv[1]](sys.argv[2:])
