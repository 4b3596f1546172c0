"""Tests who can use the API, the limits of requests, and that responses reveal no secrets."""

import ast
import inspect
import json
import socket
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dlq_pipelines.api import auth
from dlq_pipelines.api.auth import TokenScope, create_token, read_tokens
from dlq_pipelines.api.connections import ConnectionLimits
from dlq_pipelines.api.guard import MAX_BODY_BYTES, OPEN
from dlq_pipelines.api.server import require_tokens
from dlq_pipelines.api.swagger import DOCS_FILES
from dlq_pipelines.errors import DlqError, RefusedError
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings
from tests.api.conftest import Serve, bearer, serving
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, kill, one, wait_for_blocked_session

# Changes that the scope retry allows; all others need the scope admin.
RETRIES = {
    "/api/dead-events/{event_id}/retry",
    "/api/dead-events/retry-batch",
    "/api/dead-events/recall",
    "/api/archive/restore",
    "/api/deployments",
    "/api/fixes",
    "/api/fixes/release-parked",
    "/api/fixes/{fix_id}/pause",
    "/api/fixes/{fix_id}/resume",
    "/api/fixes/{fix_id}/withdraw",
    "/api/fixes/{fix_id}/recall",
}
# JSON that PostgreSQL stores and that parsers refuse or change.
HARD_JSON = [
    "[" * 300 + "]" * 300,
    "[" * 1_500 + "]" * 1_500,
    '{"n": 1e5000}',
    f'{{"n": {"9" * 400}.5}}',
]
HOSTILE = "\x1b[2J<script>alert(1)</script>\u202e' or 1=1 --"


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Two dead events."""
    add_events(connection, 2)
    kill(connection, "KeyError: 'sku'")


def list_routes(client: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the method, path and operation of each route in the description."""
    described = client.get("/openapi.json").json()["paths"]
    found = [
        (method.upper(), path, operation)
        for path, methods in described.items()
        for method, operation in methods.items()
    ]
    assert len(found) > 25
    return found


def fill_path(path: str) -> str:
    """Return a path of the description with values for its parameters."""
    return path.format(event_id=1, fix_id=1, cause="v2-none", day="2999-01-01")


def test_an_unknown_token_is_refused_before_the_body_is_read(
    serve: Serve, tokens: dict[str, str]
) -> None:
    """Health, readiness and the description of the API need no token."""
    client = serve(api_tokens=tokens["entries"])
    for headers in (
        {},
        bearer("dlq_wrong"),
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
    ):
        for method, path, _ in (
            *list_routes(client),
            ("GET", "/nothing", {}),
            ("POST", "/docs/x", {}),
        ):
            if path in OPEN:
                continue
            content = b"{bad" if method == "POST" else None
            answer = client.request(
                method,
                fill_path(path),
                content=content,
                headers={**headers, "Content-Type": "application/json"},
            )
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (
                method,
                path,
            )
            assert "token" in answer.json()["error"]
    for path in ("/health", "/ready", "/openapi.json", *DOCS_FILES):
        assert client.get(path).status_code == 200


def test_a_request_without_a_token_is_refused_before_its_body_arrives(
    serve: Serve, tokens: dict[str, str]
) -> None:
    client = serve(api_tokens=tokens["entries"])
    request = HTTPConnection(client.base_url.host, client.base_url.port or 80, timeout=120)
    request.putrequest("POST", "/api/dead-events/retry-batch")
    request.putheader("Content-Length", "1000000")
    request.endheaders()
    assert request.getresponse().status == 401
    request.close()


def test_every_route_requires_its_scope(serve: Serve, tokens: dict[str, str]) -> None:
    """Each route requires a token, and each POST more than the scope read."""
    client = serve(api_tokens=tokens["entries"], api_changes_per_minute=1_000)
    for method, path, described in list_routes(client):
        if path in OPEN:
            continue
        assert described.get("security"), f"{method} {path} requires no token"
        needed = (
            TokenScope.READ
            if method == "GET"
            else TokenScope.RETRY
            if path in RETRIES
            else TokenScope.ADMIN
        )
        for scope in TokenScope:
            answer = client.request(method, fill_path(path), headers=bearer(tokens[scope]))
            assert (answer.status_code == 403) == (not scope.allows(needed)), (
                scope,
                method,
                path,
                answer.text,
            )
            if answer.status_code == 403:
                assert (
                    answer.json()["error"]
                    == f"The scope {needed} is required; the token a-{scope} has {scope}."
                )


def test_every_route_refuses_unknown_query_parameters(
    api: httpx.Client, connection: Connection
) -> None:
    """A typing error in `dry_run` would change data; one in a filter would select too much."""
    before = connection.execute("select *, xmin from outbox_event order by id").fetchall()
    for method, path, described in list_routes(api):
        for unknown in ("dry_rnu=true", "dry_run=true" if method == "POST" else "opne=true"):
            answer = api.request(method, f"{fill_path(path)}?{unknown}")
            assert answer.status_code == 400, (method, path, answer.text)
            assert "unknown query parameter" in answer.json()["error"]
        for argument in described.get("parameters", []):
            kinds = {
                argument["schema"].get("type"),
                *(schema.get("type") for schema in argument["schema"].get("anyOf", [])),
            }
            if argument["in"] == "query" and "array" not in kinds:
                twice = api.request(
                    method, f"{fill_path(path)}?{argument['name']}=1&{argument['name']}=1"
                )
                assert twice.json()["error"] == f"{argument['name']}: given 2 times. Pass it once."
    assert connection.execute("select *, xmin from outbox_event order by id").fetchall() == before


def test_every_route_refuses_unknown_fields(api: httpx.Client, connection: Connection) -> None:
    """Even routes without a body."""
    for method, path, _ in list_routes(api):
        if method == "POST":
            answer = api.post(fill_path(path), json={"dry_rnu": True})
            assert answer.status_code == 400, (path, answer.text)
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_every_audited_change_requires_a_reason(api: httpx.Client) -> None:
    """Except for the two routes of existing clients, and the note that a pipeline makes of each
    deployment. Building a report again is not audited.
    """
    without = set()
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    for method, path, described in list_routes(api):
        if method == "POST" and "requestBody" in described:
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            for part in schema.get("anyOf", [schema]):
                body = schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else {}
                if body and not {"reason", "note"} & {*body.get("required", [])}:
                    without.add(path)
    assert without == {
        "/api/dead-events/{event_id}/retry",
        "/api/dead-events/retry-batch",
        "/api/deployments",
    }


def test_secrets_are_compared_in_constant_time() -> None:
    """Checks the code, because timing is unreliable: no `==`, no `in`, no early exit."""
    code = ast.parse(inspect.getsource(auth))
    (function,) = [
        node
        for node in ast.walk(code)
        if isinstance(node, ast.FunctionDef) and node.name == "find_token"
    ]
    assert not [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Compare | ast.For | ast.GeneratorExp)
    ]
    (search,) = [node for node in ast.walk(function) if isinstance(node, ast.ListComp)]
    assert [ast.unparse(test) for test in search.generators[0].ifs] == [
        "hmac.compare_digest(token.digest, digest)"
    ]


@pytest.mark.parametrize(
    ("x_actor", "actor"),
    [(None, "a-retry"), ("ann", "ann via a-retry"), ("a-admin", "a-admin via a-retry")],
)
def test_the_audit_log_names_the_token_and_the_person(
    serve: Serve, tokens: dict[str, str], connection: Connection, x_actor: str | None, actor: str
) -> None:
    """`X-Actor` cannot name another token."""
    client = serve(api_tokens=tokens["entries"])
    headers = bearer(tokens["retry"]) | ({"X-Actor": x_actor} if x_actor else {})
    assert client.post("/api/dead-events/1/retry", headers=headers).status_code == 200
    assert one(connection, "select actor from dlq.audit") == {"actor": actor}
    assert one(connection, "select actor from dlq.retry") == {"actor": actor}


def test_the_entry_of_a_token_holds_only_its_hash() -> None:
    secret, token = create_token("grafana", TokenScope.READ)
    assert read_tokens(f" {token},\n") == (token,)
    assert secret not in str(token)
    assert len(secret) > 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grafana:read:s3cr3t", "entry 1 is not name:scope:hash"),
        (f"a:read:{'0' * 64},b:root:{'0' * 64}", "entry 2 is not name:scope:hash"),
        (f"a:read:{'0' * 64} a:admin:{'1' * 64}", "two entries have the same name"),
    ],
)
def test_the_error_of_an_invalid_token_entry_does_not_show_the_entry(
    text: str, message: str
) -> None:
    with pytest.raises(DlqError, match=f"DLQ_API_TOKENS: .*{message}") as raised:
        read_tokens(text)
    assert "s3cr3t" not in str(raised.value)
    with pytest.raises(ValueError, match="must be 1 to 64 letters, digits"):
        create_token("two words", TokenScope.READ)


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),  # noqa: S104
        ("::", True),
        ("10.0.0.7", True),
        ("dlq.example.com", True),
    ],
)
def test_an_address_that_others_can_reach_requires_tokens(
    home: Path, tokens: dict[str, str], host: str, refused: bool
) -> None:
    require_tokens(Settings(home=home, api_tokens=tokens["entries"]), host)
    if not refused:
        require_tokens(Settings(home=home), host)
        return
    refusal = rf"Refusing to listen on {host} without tokens: .*dlq tokens new"
    with pytest.raises(RefusedError, match=refusal):
        require_tokens(Settings(home=home), host)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8080", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("dlq.example.com", 200),
        ("evil.example.com", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("localhost@evil.example.com", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_only_known_host_names_are_served(serve: Serve, host: str, status: int) -> None:
    """Prevents DNS rebinding: such a page sends its own host name."""
    client = serve(api_hosts="dlq.example.com")
    answer = client.get("/api/dead-events", headers={"Host": host})
    assert answer.status_code == status
    assert status == 200 or "host name" in answer.json()["error"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01 what is this\r\n\r\n",
        b"CONNECT evil.example.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["long", "garbage", "connect"],
)
def test_bytes_that_are_not_http_are_answered_with_400(api: httpx.Client, sent: bytes) -> None:
    """The server closes the connection and does not name its software."""
    answer = send_bytes(api, sent)
    assert (answer.status, answer.read()) == (400, b"Invalid HTTP request received.")
    assert (answer.headers["connection"], answer.headers["server"]) == ("close", None)


TWO_HOSTS = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.com\r\n\r\n"
UPGRADE = (
    b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [(TWO_HOSTS, 400, "one Host header"), (UPGRADE, 404, "Not Found")],
    ids=["two hosts", "upgrade"],
)
def test_unusual_requests_get_an_error_and_the_security_headers(
    api: httpx.Client, sent: bytes, status: int, error: str
) -> None:
    answer = send_bytes(api, sent)
    assert answer.status == status
    assert error in json.loads(answer.read())["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def send_bytes(api: httpx.Client, sent: bytes) -> HTTPResponse:
    """Send these bytes on a new connection and return the response."""
    with socket.create_connection(
        (api.base_url.host, api.base_url.port or 80), timeout=120
    ) as caller:
        caller.sendall(sent)
        answer = HTTPResponse(caller)
        answer.begin()
    return answer


def test_the_description_names_the_limit_of_a_request_line(api: httpx.Client) -> None:
    """A longer one gets no JSON, because uvicorn answers before the API can."""
    answer = send_bytes(api, b"GET /?" + b"x" * 65_536 + b" HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.headers.get_content_type()) == (400, "text/plain")
    described = api.get("/openapi.json").json()["info"]["description"]
    assert "at most 64 KiB" in described
    assert "plain text" in described


def test_a_page_of_another_site_cannot_change_data(serve: Serve, connection: Connection) -> None:
    """CORS does not prevent a cross-site form; the guard refuses its origin."""
    client = serve(api_cors_origins="https://ops.example.com")
    for origin in ("https://evil.example.com", "null", "http://127.0.0.1:1", "http://[::1", "x"):
        answer = client.post("/api/dead-events/1/retry", headers={"Origin": origin})
        assert (answer.status_code, "Another site's page" in answer.json()["error"]) == (403, True)
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}
    own = client.post(
        "/api/dead-events/1/retry", headers={"Origin": str(client.base_url).rstrip("/")}
    )
    assert own.status_code == 200
    listed = client.post("/api/dead-events/2/retry", headers={"Origin": "https://ops.example.com"})
    assert (listed.status_code, listed.headers["access-control-allow-origin"]) == (
        200,
        "https://ops.example.com",
    )


def test_only_listed_origins_can_read(api: httpx.Client, serve: Serve) -> None:
    headers = {"Origin": "https://ops.example.com", "Access-Control-Request-Method": "GET"}
    for answer in (
        api.get("/api/dead-events", headers=headers),
        api.options("/api/dead-events", headers=headers),
    ):
        assert "access-control-allow-origin" not in answer.headers
    preflight = serve(api_cors_origins="https://ops.example.com").options(
        "/api/dead-events", headers=headers
    )
    assert preflight.headers["access-control-allow-origin"] == "https://ops.example.com"


@pytest.mark.parametrize(
    "path", ["/api/dead-events", "/health", "/nothing", "/docs", "/api/dead-events?limit=0"]
)
def test_every_response_has_the_security_headers(api: httpx.Client, path: str) -> None:
    headers = api.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers


def test_a_body_that_is_too_large_is_refused(api: httpx.Client) -> None:
    """With and without a Content-Length; the next request is served."""
    body = json.dumps({"event_ids": [1], "reason": "x" * MAX_BODY_BYTES}).encode()
    for content in (body, iter([body[:1000], body[1000:]])):
        answer = api.post(
            "/api/dead-events/retry-batch",
            content=content,
            headers={"Content-Type": "application/json"},
        )
        assert (answer.status_code, answer.json()["error"]) == (
            413,
            "A body has at most 1,048,576 bytes.",
        )
    assert api.get("/health").status_code == 200


def test_changes_are_rate_limited_per_token(serve: Serve, tokens: dict[str, str]) -> None:
    """Reading is not limited."""
    client = serve(api_tokens=tokens["entries"], api_changes_per_minute=2)
    body = {"event_ids": [1, 2], "dry_run": True}
    answers = [
        client.post("/api/dead-events/retry-batch", headers=bearer(tokens["retry"]), json=body)
        for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert "The limit is 2 changes a minute." in answers[2].json()["error"]
    assert client.get("/api/dead-events", headers=bearer(tokens["retry"])).status_code == 200
    other = client.post("/api/dead-events/retry-batch", headers=bearer(tokens["admin"]), json=body)
    assert other.status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"event_ids": [1e999]}',
        b'{"event_ids": ' + b"[" * 50_000,
        b'{"reason": "\\ud800", "event_ids": [1]}',
        b'{"reason": "\\u0000", "event_ids": [1]}',
        b'{"event_ids": [9223372036854775808]}',
        b'{"event_ids": [1], "rate": NaN}',
        b'{"a": {"__proto__": 1}}',
        b'{"cause": "\\u0000", "reason": "x"}',
        b'{"error_contains": "\\ud83d", "dry_run": true}',
    ],
)
def test_the_error_of_a_hostile_body_is_one_line(
    api: httpx.Client, connection: Connection, content: bytes
) -> None:
    answer = api.post(
        "/api/dead-events/retry-batch",
        content=content,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error", "hint", "code"}
    assert answer.json()["error"].isprintable()
    assert content != b"{" or answer.json()["error"].startswith("The body is not JSON: ")
    assert "Traceback" not in answer.text
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}


def test_hostile_texts_are_returned_unchanged(api: httpx.Client, connection: Connection) -> None:
    """As JSON, which browsers do not render."""
    add_events(connection, 1, payload=json.dumps({HOSTILE: [HOSTILE]}), event_type=HOSTILE)
    kill(connection, HOSTILE)
    answer = api.get("/api/dead-events", params={"event_type": HOSTILE})
    (event,) = answer.json()["events"]
    assert (event["event_type"], event["last_error"], event["payload"]) == (
        HOSTILE,
        HOSTILE,
        {HOSTILE: [HOSTILE]},
    )
    assert api.get(f"/api/causes/{quote(HOSTILE, safe='')}").json().keys() == {
        "error",
        "hint",
        "code",
    }


@pytest.mark.parametrize("payload", HARD_JSON, ids=["deep", "deeper", "huge", "long"])
def test_a_payload_that_parsers_refuse_hides_no_event_and_loses_no_digit(
    dlq: Run,  # noqa: F811
    api: httpx.Client,
    connection: Connection,
    payload: str,
) -> None:
    """As JSON, or as text if parsers fail."""
    connection.execute("update outbox_event set payload = %s where id = 2", [payload])
    stored = one(connection, "select payload::text from outbox_event where id = 2")["payload"]
    listed, printed = api.get("/api/dead-events"), dlq("dead-events", "list", "--json")
    assert (listed.status_code, printed.code, printed.err) == (200, 0, "")
    for text in (listed.text, printed.out):
        hard, plain = json.loads(text)["events"]
        assert (plain["id"], plain["payload"], plain["payload_as_text"]) == (1, {}, False)
        assert hard["payload"] == stored if hard["payload_as_text"] else stored in text
    shown, printed = api.get("/api/dead-events/2"), dlq("dead-events", "show", "2", "--json")
    assert (shown.status_code, printed.code) == (200, 0)
    as_text = json.dumps(stored)
    assert f'"payload":{stored}' in shown.text or f'"payload":{as_text}' in shown.text
    assert f'"payload": {stored}' in printed.out or f'"payload": {as_text}' in printed.out
    assert (
        dlq("dead-events", "list", "--format", "csv").code
        == dlq("dead-events", "show", "2").code
        == 0
    )


def test_a_list_truncates_long_texts_and_marks_them(
    api: httpx.Client, connection: Connection
) -> None:
    """The event alone is complete."""
    add_events(connection, 1, payload=json.dumps({"x": "y" * 500_000}))
    kill(connection, "z" * 500_000)
    answer = api.get("/api/dead-events", params={"event_ids": 3})
    (event,) = answer.json()["events"]
    assert len(answer.text) < 140_000
    assert (event["payload_as_text"], event["last_error_cut"]) == (True, True)
    assert (event["payload"], event["last_error"]) == ('{"x": "' + "y" * 65_993, "z" * 66_000)
    whole = api.get("/api/dead-events/3").json()
    assert (len(whole["payload"]["x"]), len(whole["last_error"])) == (
        500_000,
        500_000,
    )


def test_an_unavailable_database_is_503_without_its_address(home: Path) -> None:
    """`/health` is still 200. No response shows a part of the connection string."""
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://shop_role:s3cr3t-passw0rd@127.0.0.1:{taken.getsockname()[1]}/shop_base"
        with (
            serving(Settings(home=home), Database(url)) as address,
            httpx.Client(base_url=address, timeout=120) as client,
        ):
            assert client.get("/health").json() == {"status": "ok"}
            for path in ("/ready", "/api/dead-events", "/api/dead-events/export"):
                answer = client.get(path)
                assert answer.status_code == 503
                assert "The database does not answer" in answer.text
                for secret in (
                    "s3cr3t",
                    "shop_role",
                    "shop_base",
                    str(taken.getsockname()[1]),
                    "127.0.0.1",
                    "Traceback",
                ):
                    assert secret not in answer.text


def test_no_request_fails_after_a_restart_of_the_database(
    api: httpx.Client, connection: Connection
) -> None:
    """The pool replaces closed connections before a request uses them."""
    assert api.get("/api/dead-events").status_code == 200
    ended = connection.execute(
        "select count(pg_terminate_backend(pid)) as n from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    ).fetchone()
    assert ended is not None
    assert ended["n"] >= 1
    assert api.get("/api/dead-events").status_code == 200


def test_with_pending_migrations_the_server_is_not_ready_and_changes_nothing(
    api: httpx.Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the migration it works again, without a restart."""
    monkeypatch.setattr("dlq_pipelines.api.session._CHECK_SECONDS", 0)
    assert api.get("/ready").json() == {"status": "ready", "database": "ok", "schema": "ok"}
    assert api.get("/api/dead-events").status_code == 200
    row = one(connection, "delete from dlq.migration where number = 2 returning *")
    answer = api.get("/ready")
    assert (answer.status_code, answer.json()["database"]) == (503, "ok")
    assert "lacks 1 migration" in answer.json()["schema"]
    for method, path in (
        ("GET", ""),
        ("GET", "/stats"),
        ("GET", "/export"),
        ("GET", "/1"),
        ("POST", "/1/retry"),
    ):
        refused = api.request(method, f"/api/dead-events{path}")
        assert (refused.status_code, refused.json()["error"]) == (503, answer.json()["schema"]), (
            path
        )
    assert 'dlq_up{outbox="outbox"} 0.0' in api.get("/metrics").text
    assert one(connection, "select count(*) from dlq.audit") == {"count": 0}
    connection.execute(
        "insert into dlq.migration (number, name, checksum) values (2, %(name)s, %(checksum)s)",
        row,
    )
    assert api.post("/api/dead-events/1/retry").status_code == 200


def test_a_probe_can_use_head(api: httpx.Client) -> None:
    for path in ("/health", "/ready"):
        answer = api.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_statement_that_exceeds_the_timeout_is_canceled(serve: Serve, database: Database) -> None:
    client = serve(api_timeout_seconds=0.2)
    with database.connect() as other, other.transaction():
        other.execute("lock table outbox_event in access exclusive mode")
        answer = client.get("/api/dead-events")
    assert (answer.status_code, "did not answer in time" in answer.json()["error"]) == (503, True)


def test_an_error_of_a_role_without_rights_does_not_show_the_role(
    connection: Connection, database: Database, home: Path
) -> None:
    role = f"stranger_{connection.info.backend_pid}"
    connection.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    try:
        parts = {**conninfo_to_dict(database.url), "user": role}
        with serving(
            Settings(home=home), Database(psycopg.conninfo.make_conninfo("", **parts))
        ) as address:
            answer = httpx.get(f"{address}/api/audit", timeout=120)
        assert answer.status_code == 503
        assert "permission denied" in answer.json()["error"]
        assert role not in answer.text
    finally:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def test_the_server_completes_requests_under_way_before_it_stops(
    database: Database, home: Path, connection: Connection
) -> None:
    """A request waits for a lock, which is released after the server has stopped listening."""
    locked, answers = threading.Event(), list[httpx.Response]()

    def lock_until_the_server_stops(address: httpx.URL) -> None:
        with database.connect() as other, other.transaction():
            other.execute("lock table dlq.audit in access exclusive mode")
            locked.set()
            with suppress(ConnectionRefusedError):
                while True:
                    socket.create_connection((address.host, address.port or 80)).close()
                    time.sleep(0.01)

    with serving(Settings(home=home), database) as address:
        locking = threading.Thread(target=lock_until_the_server_stops, args=[httpx.URL(address)])
        locking.start()
        locked.wait()
        requesting = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{address}/api/dead-events/1/retry", timeout=120)
            )
        )
        requesting.start()
        wait_for_blocked_session(connection)
        assert answers == []
    requesting.join()
    locking.join()
    assert [answer.status_code for answer in answers] == [200]
    assert one(connection, "select status from outbox_event where id = 1") == {"status": "pending"}


def test_an_incomplete_request_changes_nothing(api: httpx.Client, connection: Connection) -> None:
    """A retry needs no body, but a connection that closes before the announced body is refused."""
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as client:
        client.sendall(
            b"POST /api/dead-events/1/retry HTTP/1.1\r\n"
            b"Host: localhost\r\nContent-Length: 9\r\n\r\n"
        )
        client.shutdown(socket.SHUT_WR)
        while client.recv(1_000):
            pass
    assert api.post("/api/dead-events/2/retry").status_code == 200
    assert one(connection, "select event_id from dlq.retry") == {"event_id": 2}
    assert one(connection, "select count(*) from dlq.audit") == {"count": 1}


def test_a_body_that_does_not_arrive_times_out(database: Database, home: Path) -> None:
    limits = ConnectionLimits(body_seconds=0.3)
    with serving(Settings(home=home), database, limits) as address:
        slow = HTTPConnection(address.removeprefix("http://"), timeout=120)
        slow.putrequest("POST", "/api/dead-events/retry-batch")
        slow.putheader("Content-Length", "100")
        slow.endheaders(b'{"event')
        answer = slow.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]) == (
            408,
            "The body did not arrive in time, at most 0.3 s.",
        )
        slow.close()
