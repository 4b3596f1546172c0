"""Tests who can use the pages: sign-in, sessions, scopes, and the token of each form."""

import httpx
import pytest

from dlq_pipelines.api.auth import Token, TokenScope
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.web.sessions import SESSION_SECONDS, SessionStore
from tests.api.conftest import Serve, bearer
from tests.rows import one
from tests.web.conftest import Visitor

PAGES = (
    "/causes",
    "/fixes",
    "/fixes/new",
    "/fixes/1",
    "/events/1",
    "/parked",
    "/alerts",
    "/alerts/silence",
    "/audit",
    "/reports",
)


@pytest.fixture
def guarded(serve: Serve, tokens: dict[str, str]) -> Visitor:
    """A visitor of a server with tokens, who has not signed in."""
    return Visitor(serve(api_tokens=tokens["entries"]))


def test_pages_ask_people_to_sign_in_and_go_on_where_they_were(
    guarded: Visitor, tokens: dict[str, str]
) -> None:
    for path in (*PAGES, "/causes/v2-a?x=1"):
        answer = guarded.client.get(path)
        assert answer.status_code == 303, path
        assert "signin?next=" in answer.headers["location"]
        assert "<h1>Sign in</h1>" in guarded.open_page(path)
    assert guarded.client.get("/").headers["location"] == "./causes"
    answer = guarded.sign_in(tokens["read"], next="/causes?text=a%20b")
    assert answer.headers["location"] == "./causes?text=a%20b"
    for target in ("https://evil.example", "//evil.example", "/\\evil.example", "/a\nb"):
        guarded.send_form("/signout", form="/causes")
        answer = guarded.sign_in(tokens["read"], next=target)
        assert answer.headers["location"] == "./causes"


def test_the_cookie_holds_no_token(guarded: Visitor, tokens: dict[str, str]) -> None:
    answer = guarded.sign_in(tokens["retry"], person="ann")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert f"Max-Age={SESSION_SECONDS}" in cookie
    assert tokens["retry"] not in cookie
    assert "ann via a-retry (retry)" in " ".join(guarded.open_page("/causes").split())


def test_the_cookie_is_for_https_alone_behind_a_proxy_with_https(
    serve: Serve, tokens: dict[str, str]
) -> None:
    client = serve(
        api_tokens=tokens["entries"],
        public_url="https://dlq.example.com/orders",
        api_hosts=("dlq.example.com",),
    )
    answer = client.get("/signin", headers={"Host": "dlq.example.com"})
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("secret", ["", "dlq_wrong", "a-read", "\udcff"])
def test_a_wrong_token_starts_no_session(guarded: Visitor, secret: str) -> None:
    secret = secret.encode("utf-8", "replace").decode()
    answer = guarded.sign_in(secret)
    assert answer.status_code == 401
    assert "This token is not known" in answer.text
    assert guarded.client.get("/causes").status_code == 303


def test_a_new_session_has_a_new_id(guarded: Visitor, tokens: dict[str, str]) -> None:
    """An id that somebody else put into the browser does not become that of a session."""
    guarded.open_page("/signin")
    before = guarded.client.cookies["dlq_session"]
    guarded.sign_in(tokens["read"])
    assert guarded.client.cookies["dlq_session"] != before


def test_signing_out_ends_the_session(guarded: Visitor, tokens: dict[str, str]) -> None:
    guarded.sign_in(tokens["read"])
    kept = guarded.client.cookies["dlq_session"]
    assert guarded.client.get("/signout").status_code == 405
    assert guarded.send_form("/signout", form="/causes").status_code == 303
    assert guarded.client.get("/causes").status_code == 303
    answer = guarded.client.get("/causes", headers={"Cookie": f"dlq_session={kept}"})
    assert answer.status_code == 303


def test_a_session_expires_and_the_store_is_bounded() -> None:
    clock = [0.0]
    store = SessionStore(lambda: clock[0])
    token = Token("a", TokenScope.READ, "")
    first = store.start_session(token, None)
    clock[0] = SESSION_SECONDS - 1
    assert store.find_session(first)
    clock[0] = SESSION_SECONDS
    assert store.find_session(first) is None
    ids = [store.start_session(token, None) for _ in range(1_001)]
    assert store.find_session(ids[0]) is None
    assert store.find_session(ids[1])
    assert store.find_session(None) is None


def test_a_form_without_its_token_changes_nothing(
    connection: Connection, visitor: Visitor, cause_id: str, fix_id: int
) -> None:
    """Missing, wrong, another browser's, and without the cookie."""
    token = visitor.read_token(f"/fixes/{fix_id}/pause")
    other = Visitor(httpx.Client(base_url=visitor.client.base_url, timeout=120)).read_token(
        "/fixes/new"
    )
    audit = one(connection, "select count(*) as n from dlq.audit")
    for given in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": other}, {"csrf": "é"}):
        for path in (f"/fixes/{fix_id}/pause", "/fixes/new", "/signout", "/signin"):
            data = {"reason": "x", "note": "x", "cause": cause_id, "step": "flag", **given}
            answer = visitor.client.post(path, data=data)
            assert answer.status_code == 403, (path, given)
            assert "not valid any more" in answer.text
    bare = httpx.post(
        f"{visitor.client.base_url}/fixes/{fix_id}/pause",
        data={"csrf": token, "reason": "x"},
        timeout=120,
    )
    assert bare.status_code == 403
    assert one(connection, "select count(*) as n from dlq.audit") == audit
    assert one(connection, "select status from dlq.fix")["status"] == "active"


def test_another_site_cannot_send_a_form(visitor: Visitor, fix_id: int) -> None:
    """Even with the token, the guard refuses it by its origin, and by its host."""
    path = f"/fixes/{fix_id}/pause"
    data = {"csrf": visitor.read_token(path), "reason": "x"}
    for origin in ("https://evil.example", "null"):
        answer = visitor.client.post(path, data=data, headers={"Origin": origin})
        assert answer.status_code == 403
    assert visitor.client.get(path, headers={"Host": "evil.example"}).status_code == 421
    own = str(visitor.client.base_url).rstrip("/")
    assert visitor.client.post(path, data=data, headers={"Origin": own}).status_code == 303


def test_a_read_token_changes_nothing(
    connection: Connection, guarded: Visitor, tokens: dict[str, str], cause_id: str, fix_id: int
) -> None:
    guarded.sign_in(tokens["read"])
    page = guarded.open_page(f"/fixes/{fix_id}")
    assert "/pause" not in page
    assert "fixes/new" not in guarded.open_page(f"/causes/{cause_id}")
    csrf = guarded.read_token("/causes")
    for path in (f"/fixes/{fix_id}/pause", f"/fixes/{fix_id}/withdraw", "/fixes/new"):
        data = {"csrf": csrf, "reason": "x", "note": "x", "cause": cause_id, "step": "flag"}
        answer = guarded.client.post(path, data=data)
        assert answer.status_code == 403
        assert "The scope retry is required" in answer.text
        assert guarded.client.get(path).status_code == 403
    assert one(connection, "select count(*) as n, min(status) as status from dlq.fix") == {
        "n": 1,
        "status": "active",
    }


def test_a_session_is_of_no_use_for_the_api(guarded: Visitor, tokens: dict[str, str]) -> None:
    """The API takes bearer tokens alone, and the pages take no bearer token."""
    guarded.sign_in(tokens["admin"])
    assert guarded.client.get("/api/causes").status_code == 401
    anonymous = httpx.Client(base_url=guarded.client.base_url, timeout=120)
    assert anonymous.get("/causes", headers=bearer(tokens["admin"])).status_code == 303
    assert anonymous.get("/webs").status_code == 401


def test_the_audit_log_names_the_person_and_the_token(
    connection: Connection, guarded: Visitor, tokens: dict[str, str], fix_id: int
) -> None:
    guarded.sign_in(tokens["retry"], person="ann")
    answer = guarded.send_form(f"/fixes/{fix_id}/pause", reason="not sound")
    assert answer.status_code == 303
    entry = one(connection, "select actor, reason from dlq.audit order by id desc limit 1")
    assert entry == {"actor": "ann via a-retry", "reason": "not sound"}


def test_changes_are_limited_per_minute(serve: Serve, cause_id: str) -> None:
    visitor = Visitor(serve(api_changes_per_minute=2))
    statuses = [
        visitor.send_form("/fixes/new", cause=cause_id, note="x").status_code for _ in range(3)
    ]
    assert statuses == [200, 200, 429]
