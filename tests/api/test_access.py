"""Who gets in, from where, how much and how often; and what does nobody ever learn?"""

import ast
import inspect
import json
import socket
import threading
import time
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
from dlq_pipelines.api.auth import Scope, new_token, read_tokens
from dlq_pipelines.api.guard import MOST_BYTES, OPEN
from dlq_pipelines.api.server import require_tokens
from dlq_pipelines.api.swagger import DOCS_FILES
from dlq_pipelines.errors import DlqError, RefusedError
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings
from tests.api.conftest import Serve, bearer, serving
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, kill, one

# What a token for retries may post to; everything else that is posted needs one of scope admin.
RETRIES = {
    "/api/dead-events/{event_id}/retry", "/api/dead-events/retry-batch", "/api/archive/restore", "/api/fixes",
    "/api/fixes/release-parked", "/api/fixes/{fix_id}/pause", "/api/fixes/{fix_id}/resume",
    "/api/fixes/{fix_id}/withdraw",
}  # fmt: skip
POISON = ["[" * 300 + "]" * 300, "[" * 1_500 + "]" * 1_500, '{"n": 1e5000}', f'{{"n": {"9" * 400}.5}}']
HOSTILE = "\x1b[2J<script>alert(1)</script>\u202e' or 1=1 --"


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Two dead events."""
    add_events(connection, 2)
    kill(connection, "KeyError: 'sku'")


def routes(client: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    """Every method and path of the description, and what it says of them."""
    described = client.get("/openapi.json").json()["paths"]
    found = [(method.upper(), path, one) for path, methods in described.items() for method, one in methods.items()]
    assert len(found) > 25
    return found


def place(path: str) -> str:
    """The path with something that it may name."""
    return path.format(event_id=1, fix_id=1, cause="v1-none", day="2999-01-01")


def test_without_a_known_token_nothing_is_answered(serve: Serve, tokens: dict[str, str]) -> None:
    """But whether the process is up and ready, and what it offers; nor is a body read, however broken it is."""
    client = serve(api_tokens=tokens["entries"])
    for headers in ({}, bearer("dlq_wrong"), {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
        for method, path, _ in (*routes(client), ("GET", "/nothing", {}), ("POST", "/docs/x", {})):
            if path in OPEN:
                continue
            content = b"{bad" if method == "POST" else None
            answer = client.request(
                method, place(path), content=content, headers={**headers, "Content-Type": "application/json"}
            )
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
            assert "token" in answer.json()["error"]
    for path in ("/health", "/ready", "/openapi.json", *DOCS_FILES):
        assert client.get(path).status_code == 200


def test_a_stranger_is_turned_away_before_the_body_comes(serve: Serve, tokens: dict[str, str]) -> None:
    client = serve(api_tokens=tokens["entries"])
    stranger = HTTPConnection(client.base_url.host, client.base_url.port or 80, timeout=10)
    stranger.putrequest("POST", "/api/dead-events/retry-batch")
    stranger.putheader("Content-Length", "1000000")
    stranger.endheaders()
    assert stranger.getresponse().status == 401
    stranger.close()


def test_every_route_has_its_scope(serve: Serve, tokens: dict[str, str]) -> None:
    """One that is added without is found here: each asks for a token, and what is posted for more than reading."""
    client = serve(api_tokens=tokens["entries"], api_changes_per_minute=1_000)
    for method, path, described in routes(client):
        if path in OPEN:
            continue
        assert described.get("security"), f"{method} {path} asks nobody who they are"
        needed = Scope.READ if method == "GET" else Scope.RETRY if path in RETRIES else Scope.ADMIN
        for scope in Scope:
            answer = client.request(method, place(path), headers=bearer(tokens[scope]))
            assert (answer.status_code == 403) == (not scope.allows(needed)), (scope, method, path, answer.text)
            if answer.status_code == 403:
                assert answer.json()["error"] == f"This needs the scope {needed}; the token a-{scope} has {scope}."


def test_an_argument_that_nobody_knows_is_refused_by_every_route(api: httpx.Client, connection: Connection) -> None:
    """A slip of the pen in `dry_run` would change data, one in a filter would mean more than was meant."""
    before = connection.execute("select *, xmin from outbox_event order by id").fetchall()
    for method, path, described in routes(api):
        for unknown in ("dry_rnu=true", "dry_run=true" if method == "POST" else "opne=true"):
            answer = api.request(method, f"{place(path)}?{unknown}")
            assert answer.status_code == 400, (method, path, answer.text)
            assert "this address has no such argument" in answer.json()["error"]
        for argument in described.get("parameters", []):
            kinds = {argument["schema"].get("type"), *(one["type"] for one in argument["schema"].get("anyOf", []))}
            if argument["in"] == "query" and "array" not in kinds:
                twice = api.request(method, f"{place(path)}?{argument['name']}=1&{argument['name']}=1")
                assert twice.json() == {"error": f"{argument['name']}: said 2 times. Say it once."}
    assert connection.execute("select *, xmin from outbox_event order by id").fetchall() == before


def test_a_field_that_nobody_knows_is_refused_by_every_route(api: httpx.Client, connection: Connection) -> None:
    """Also by one that takes no body."""
    for method, path, _ in routes(api):
        if method == "POST":
            answer = api.post(place(path), json={"dry_rnu": True})
            assert answer.status_code == 400, (path, answer.text)
    assert one(connection, "select count(*) from dlq.operation") == {"count": 0}


def test_only_what_existing_clients_post_needs_no_reason(api: httpx.Client) -> None:
    """Whoever looks into the audit later finds why; a report that is built again is the same and is not in it."""
    without = set()
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    for method, path, described in routes(api):
        if method == "POST" and "requestBody" in described:
            asked = described["requestBody"]["content"]["application/json"]["schema"]
            for one_of in asked.get("anyOf", [asked]):
                body = schemas[one_of.get("$ref", "").rpartition("/")[2]] if "$ref" in one_of else {}
                if body and not {"reason", "note"} & {*body.get("required", [])}:
                    without.add(path)
    assert without == {"/api/dead-events/{event_id}/retry", "/api/dead-events/retry-batch"}


def test_secrets_are_compared_in_constant_time_alone() -> None:
    """No clock shows it reliably; the code does: neither `==` nor `in`, and every token is looked at."""
    code = ast.parse(inspect.getsource(auth))
    (recognise,) = [one for one in ast.walk(code) if isinstance(one, ast.FunctionDef) and one.name == "_recognise"]
    assert not [one for one in ast.walk(recognise) if isinstance(one, ast.Compare | ast.For | ast.GeneratorExp)]
    (look,) = [one for one in ast.walk(recognise) if isinstance(one, ast.ListComp)]
    assert [ast.unparse(test) for test in look.generators[0].ifs] == ["hmac.compare_digest(token.digest, digest)"]


@pytest.mark.parametrize(
    ("x_actor", "actor"), [(None, "a-retry"), ("ann", "ann via a-retry"), ("a-admin", "a-admin via a-retry")]
)
def test_the_audit_names_the_token_and_who_is_behind_it(
    serve: Serve, tokens: dict[str, str], connection: Connection, x_actor: str | None, actor: str
) -> None:
    """Nobody signs as another token."""
    client = serve(api_tokens=tokens["entries"])
    headers = bearer(tokens["retry"]) | ({"X-Actor": x_actor} if x_actor else {})
    assert client.post("/api/dead-events/1/retry", headers=headers).status_code == 200
    assert one(connection, "select actor from dlq.operation") == {"actor": actor}
    assert one(connection, "select actor from dlq.retry") == {"actor": actor}


def test_a_token_is_kept_as_a_hash_and_read_back() -> None:
    secret, token = new_token("grafana", Scope.READ)
    assert read_tokens(f" {token},\n") == (token,)
    assert secret not in str(token)
    assert len(secret) > 40


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grafana:read:s3cr3t", "entry 1 is no name:scope:hash"),
        (f"a:read:{'0' * 64},b:root:{'0' * 64}", "entry 2 is no name:scope:hash"),
        (f"a:read:{'0' * 64} a:admin:{'1' * 64}", "two entries have one name"),
    ],
)
def test_tokens_that_cannot_be_read_are_refused_without_repeating_them(text: str, said: str) -> None:
    with pytest.raises(DlqError, match=f"DLQ_API_TOKENS: .*{said}") as raised:
        read_tokens(text)
    assert "s3cr3t" not in str(raised.value)
    with pytest.raises(ValueError, match="letters, digits"):
        new_token("two words", Scope.READ)


@pytest.mark.parametrize(
    ("host", "refused"),
    [("127.0.0.1", False), ("127.1.2.3", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True),  # noqa: S104
     ("10.0.0.7", True), ("dlq.example.com", True)],
)  # fmt: skip
def test_without_tokens_no_address_is_served_that_others_reach(
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
    [("127.0.0.1", 200), ("localhost:8080", 200), ("[::1]:8080", 200), ("LOCALHOST", 200), ("dlq.example.com", 200),
     ("evil.example.com", 421), ("127.0.0.1.evil.example.com", 421), ("localhost@evil.example.com", 421), ("[::1", 421),
     ("", 421)],
)  # fmt: skip
def test_only_a_host_name_of_ours_is_answered(serve: Serve, host: str, status: int) -> None:
    """A page whose name was bound to this address asks by its own name."""
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
    with socket.create_connection((api.base_url.host, api.base_url.port or 80), timeout=10) as caller:
        caller.sendall(sent)
        answer = HTTPResponse(caller)
        answer.begin()
    return answer


def test_another_sites_page_changes_nothing(serve: Serve, connection: Connection) -> None:
    """A form needs no leave of ours to be posted across sites; its origin gives it away."""
    client = serve(api_cors_origins="https://ops.example.com")
    for origin in ("https://evil.example.com", "null", "http://127.0.0.1:1", "http://[::1", "x"):
        answer = client.post("/api/dead-events/1/retry", headers={"Origin": origin})
        assert (answer.status_code, "Another site's page" in answer.json()["error"]) == (403, True)
    assert one(connection, "select count(*) from dlq.operation") == {"count": 0}
    ours = client.post("/api/dead-events/1/retry", headers={"Origin": str(client.base_url).rstrip("/")})
    assert ours.status_code == 200
    listed = client.post("/api/dead-events/2/retry", headers={"Origin": "https://ops.example.com"})
    assert (listed.status_code, listed.headers["access-control-allow-origin"]) == (200, "https://ops.example.com")


def test_no_page_elsewhere_may_read_unless_it_is_listed(api: httpx.Client, serve: Serve) -> None:
    asked = {"Origin": "https://ops.example.com", "Access-Control-Request-Method": "GET"}
    for answer in (api.get("/api/dead-events", headers=asked), api.options("/api/dead-events", headers=asked)):
        assert "access-control-allow-origin" not in answer.headers
    preflight = serve(api_cors_origins="https://ops.example.com").options("/api/dead-events", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://ops.example.com"


@pytest.mark.parametrize("path", ["/api/dead-events", "/health", "/nothing", "/docs", "/api/dead-events?limit=0"])
def test_every_answer_has_the_security_headers(api: httpx.Client, path: str) -> None:
    headers = api.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers


def test_a_body_that_is_too_large_is_turned_away(api: httpx.Client) -> None:
    """Also one that does not say how large it is; what follows on another connection is served."""
    body = json.dumps({"event_ids": [1], "reason": "x" * MOST_BYTES}).encode()
    for content in (body, iter([body[:1000], body[1000:]])):
        answer = api.post("/api/dead-events/retry-batch", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (413, "A body has at most 1,048,576 bytes.")
    assert api.get("/health").status_code == 200


def test_a_caller_may_ask_for_a_change_only_so_often(serve: Serve, tokens: dict[str, str]) -> None:
    """Reading is not counted, and each token is counted for itself."""
    client = serve(api_tokens=tokens["entries"], api_changes_per_minute=2)
    asked = {"event_ids": [1, 2], "dry_run": True}
    answers = [
        client.post("/api/dead-events/retry-batch", headers=bearer(tokens["retry"]), json=asked) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert "At most 2 changes a minute are taken." in answers[2].json()["error"]
    assert client.get("/api/dead-events", headers=bearer(tokens["retry"])).status_code == 200
    other = client.post("/api/dead-events/retry-batch", headers=bearer(tokens["admin"]), json=asked)
    assert other.status_code == 200


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"event_ids": [1e999]}', b'{"event_ids": ' + b"[" * 50_000,
     b'{"reason": "\\ud800", "event_ids": [1]}', b'{"reason": "\\u0000", "event_ids": [1]}',
     b'{"event_ids": [9223372036854775808]}', b'{"event_ids": [1], "rate": NaN}', b'{"a": {"__proto__": 1}}',
     b'{"cause": "\\u0000", "reason": "x"}', b'{"error": "\\ud83d", "dry_run": true}'],
)  # fmt: skip
def test_hostile_bodies_get_one_plain_sentence(api: httpx.Client, connection: Connection, content: bytes) -> None:
    answer = api.post("/api/dead-events/retry-batch", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"].isprintable()
    assert content != b"{" or answer.json()["error"].startswith("The body is no JSON: ")
    assert "Traceback" not in answer.text
    assert one(connection, "select count(*) from dlq.operation") == {"count": 0}


def test_hostile_texts_come_back_as_the_texts_that_they_are(api: httpx.Client, connection: Connection) -> None:
    """As JSON, which no browser takes for a page."""
    add_events(connection, 1, payload=json.dumps({HOSTILE: [HOSTILE]}), event_type=HOSTILE)
    kill(connection, HOSTILE)
    answer = api.get("/api/dead-events", params={"event_type": HOSTILE})
    (event,) = answer.json()["events"]
    assert (event["event_type"], event["last_error"], event["payload"]) == (HOSTILE, HOSTILE, {HOSTILE: [HOSTILE]})
    assert api.get(f"/api/causes/{quote(HOSTILE, safe='')}").json().keys() == {"error"}


@pytest.mark.parametrize("payload", POISON, ids=["deep", "deeper", "huge", "long"])
def test_no_payload_hides_the_other_events_or_loses_a_digit(
    dlq: Run,  # noqa: F811
    api: httpx.Client,
    connection: Connection,
    payload: str,
) -> None:
    """In the list as JSON or, where readers fail at it, as its text; shown alone it is what PostgreSQL holds."""
    connection.execute("update outbox_event set payload = %s where id = 2", [payload])
    stored = one(connection, "select payload::text from outbox_event where id = 2")["payload"]
    listed, told = api.get("/api/dead-events"), dlq("dead-events", "list", "--json")
    assert (listed.status_code, told.code, told.err) == (200, 0, "")
    for text in (listed.text, told.out):
        poisoned, plain = json.loads(text)["events"]
        assert (plain["id"], plain["payload"], plain["payload_as_text"]) == (1, {}, False)
        assert poisoned["payload"] == stored if poisoned["payload_as_text"] else stored in text
    shown, of_one = api.get("/api/dead-events/2"), dlq("dead-events", "show", "2", "--json")
    assert (shown.status_code, of_one.code) == (200, 0)
    assert f'"payload":{stored}' in shown.text
    assert f'"payload": {stored}' in of_one.out
    assert dlq("dead-events", "list", "--format", "csv").code == dlq("dead-events", "show", "2").code == 0


def test_what_is_long_is_cut_in_a_list_and_whole_alone(api: httpx.Client, connection: Connection) -> None:
    """And the list says which are."""
    add_events(connection, 1, payload=json.dumps({"x": "y" * 500_000}))
    kill(connection, "z" * 500_000)
    answer = api.get("/api/dead-events", params={"id": 3})
    (event,) = answer.json()["events"]
    assert len(answer.text) < 140_000
    assert (event["payload_as_text"], event["last_error_cut"]) == (True, True)
    assert (event["payload"], event["last_error"]) == ('{"x": "' + "y" * 65_993, "z" * 66_000)
    whole = api.get("/api/dead-events/3").json()
    assert (len(whole["event"]["payload"]["x"]), len(whole["event"]["last_error"])) == (500_000, 500_000)


def test_a_database_that_is_away_is_said_without_a_word_of_where_it_was(home: Path) -> None:
    """Health stays; readiness and every route say 503, with nothing of the connection string."""
    with socket.socket() as taken:  # bound and not listening: it refuses
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://shop_role:s3cr3t-passw0rd@127.0.0.1:{taken.getsockname()[1]}/shop_base"
        with (
            serving(Settings(home=home), Database(url)) as address,
            httpx.Client(base_url=address, timeout=30) as client,
        ):
            assert client.get("/health").json() == {"status": "up"}
            for path in ("/ready", "/api/dead-events", "/api/dead-events/export"):
                answer = client.get(path)
                assert answer.status_code == 503
                assert "The database does not answer" in answer.text
                for never in (
                    "s3cr3t",
                    "shop_role",
                    "shop_base",
                    str(taken.getsockname()[1]),
                    "127.0.0.1",
                    "Traceback",
                ):
                    assert never not in answer.text


def test_a_restart_of_the_database_costs_no_request(api: httpx.Client, connection: Connection) -> None:
    """Connections that the server ended are replaced before they are lent."""
    assert api.get("/api/dead-events").status_code == 200
    ended = connection.execute(
        "select count(pg_terminate_backend(pid)) as n from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    ).fetchone()
    assert ended is not None
    assert ended["n"] >= 1
    assert api.get("/api/dead-events").status_code == 200


def test_an_outdated_schema_is_not_ready_and_says_what_to_run(
    api: httpx.Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing works on it, as no command does; once it is migrated everything goes on."""
    monkeypatch.setattr("dlq_pipelines.api.session._KNOWN_SECONDS", 0.2)
    assert api.get("/ready").json() == {"status": "ready", "database": "ok", "schema": "ok"}
    assert api.get("/api/dead-events").status_code == 200
    row = one(connection, "delete from dlq.migration where line = 'outbox' and number = 2 returning *")
    time.sleep(0.3)
    answer = api.get("/ready")
    assert (answer.status_code, answer.json()["database"]) == (503, "ok")
    assert "`dlq migrate`" in answer.json()["schema"]
    for method, path in (("GET", ""), ("GET", "/stats"), ("GET", "/export"), ("GET", "/1"), ("POST", "/1/retry")):
        refused = api.request(method, f"/api/dead-events{path}")
        assert (refused.status_code, refused.json()["error"]) == (503, answer.json()["schema"]), path
    assert "dlq_up 0.0" in api.get("/metrics").text
    assert one(connection, "select count(*) from dlq.operation") == {"count": 0}
    connection.execute(
        "insert into dlq.migration (line, number, name, checksum) values (%(line)s, 2, %(name)s, %(checksum)s)", row
    )
    assert api.post("/api/dead-events/1/retry").status_code == 200


def test_a_probe_may_ask_for_the_head_alone(api: httpx.Client) -> None:
    for path in ("/health", "/ready"):
        answer = api.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_question_that_takes_too_long_is_broken_off(serve: Serve, database: Database) -> None:
    """By the server's own clock; the caller is told to ask for less."""
    client = serve(api_timeout_seconds=0.2)
    with database.connect() as other, other.transaction():
        other.execute("lock table outbox_event in access exclusive mode")
        answer = client.get("/api/dead-events")
    assert (answer.status_code, "did not answer in time" in answer.json()["error"]) == (503, True)


def test_a_role_without_rights_learns_the_table_and_no_more(
    connection: Connection, database: Database, home: Path
) -> None:
    role = f"stranger_{connection.info.backend_pid}"
    connection.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    try:
        parts = {**conninfo_to_dict(database.url), "user": role}
        with serving(Settings(home=home), Database(psycopg.conninfo.make_conninfo("", **parts))) as address:
            answer = httpx.get(f"{address}/api/operations")
        assert answer.status_code == 503
        assert "permission denied" in answer.json()["error"]
        assert role not in answer.text
    finally:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def test_what_is_under_way_ends_before_the_server_does(database: Database, home: Path, connection: Connection) -> None:
    """A request that waits for a lock is done and answered although the server was told to stop meanwhile."""
    locked, answers = threading.Event(), list[httpx.Response]()

    def hold() -> None:
        with database.connect() as other, other.transaction():
            other.execute("lock table dlq.operation in access exclusive mode")
            locked.set()
            time.sleep(1.5)

    with serving(Settings(home=home), database) as address:
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{address}/api/dead-events/1/retry", timeout=20))
        )
        for thread in (threading.Thread(target=hold), asking):
            thread.start()
            assert locked.wait(10)
        time.sleep(0.5)
        assert answers == []
    asking.join(20)
    assert [answer.status_code for answer in answers] == [200]
    assert one(connection, "select status from outbox_event where id = 1") == {"status": "pending"}


def test_half_a_request_is_none(api: httpx.Client, connection: Connection) -> None:
    """A caller that is cut off before its body came has asked for nothing, though a retry needs no body."""
    cut = HTTPConnection(api.base_url.host, api.base_url.port or 80, timeout=10)
    cut.putrequest("POST", "/api/dead-events/1/retry")
    cut.putheader("Content-Length", "100")
    cut.endheaders()
    cut.close()
    time.sleep(0.5)
    assert one(connection, "select count(*) from dlq.operation") == {"count": 0}


def test_a_request_that_never_ends_is_given_up(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of which the rest never comes keeps no connection for ever."""
    monkeypatch.setattr("dlq_pipelines.api.guard._BODY_SECONDS", 0.3)
    slow = HTTPConnection(api.base_url.host, api.base_url.port or 80, timeout=10)
    slow.putrequest("POST", "/api/dead-events/retry-batch")
    slow.putheader("Content-Length", "100")
    slow.endheaders(b'{"event')
    answer = slow.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]) == (408, "The body took longer than 0.3 s.")
    slow.close()
