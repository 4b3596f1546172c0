"""The guard before Dagster's UI, with a real web server."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import quote

import pytest

from dlq_pipelines.ui_guard import replace_webserver

QUERY = "{ version }"
MUTATION = "mutation { setNuxSeen }"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a guarded web server with an empty workspace."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        free = int(found.getsockname()[1])
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    command = [sys.executable, "-m", "dagster_webserver", "--empty-workspace", "-p", str(free)]
    running = subprocess.Popen(
        replace_webserver(command),
        env=os.environ | {"DAGSTER_HOME": str(home), "DLQ_API_HOSTS": "dagster.example.com"},
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_up(free):
            assert running.poll() is None
            time.sleep(0.1)
        yield free
    finally:
        running.terminate()
        running.wait(30)


def _is_up(port: int) -> bool:
    try:
        return send(port, "GET", "/server_info")[0] == 200
    except OSError:
        return False


def send(
    port: int, method: str, path: str, body: str | None = None, **headers: str
) -> tuple[int, str]:
    """Send a request; return status and body of the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def open_web_socket(port: int, **headers: str) -> int:
    """Open a web socket for subscriptions; return the status."""
    status, _ = send(
        port,
        "GET",
        "/graphql",
        **{
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": "graphql-ws",
            **headers,
        },
    )
    return status


@pytest.mark.parametrize("own", ["127.0.0.1", "localhost"])
def test_the_own_page_works(port: int, own: str) -> None:
    """Queries, mutations and subscriptions, and a client without an origin."""
    names = {"Host": f"{own}:{port}", "Origin": f"http://{own}:{port}"}
    for text in (QUERY, MUTATION):
        body = json.dumps({"query": text})
        for headers in (names, {}):
            status, answer = send(port, "POST", "/graphql", body, **JSON, **headers)
            assert (status, "errors" in json.loads(answer)) == (200, False)
    assert send(port, "GET", "/", **names)[0] == 200
    assert send(port, "GET", "/graphql", Accept="text/html")[0] == 200
    assert open_web_socket(port, **names) == 101


def test_a_listed_host_name_is_accepted(port: int) -> None:
    names = {"Host": "dagster.example.com", "Origin": "https://dagster.example.com"}
    body = json.dumps({"query": QUERY})
    assert send(port, "POST", "/graphql", body, **JSON, **names)[0] == 200


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.example.com", "a@127.0.0.1", ""])
def test_a_foreign_host_name_is_refused(port: int, host: str) -> None:
    """A name that was bound to this address, for every page and for web sockets."""
    for path in ("/", "/server_info", "/graphql"):
        assert send(port, "GET", path, Host=host)[0] == 421
    assert open_web_socket(port, Host=host) == 403


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://127.0.0.1:1", ""])
def test_a_page_of_another_site_is_refused(port: int, origin: str) -> None:
    body = json.dumps({"query": MUTATION})
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        assert send(port, "POST", "/graphql", body, Content_Type=kind, Origin=origin)[0] == 403
    for path in ("/report_asset_materialization/x", f"/graphql?query={quote(MUTATION)}"):
        assert send(port, "POST", path, Origin=origin)[0] == 403
    assert open_web_socket(port, Origin=origin) == 403


@pytest.mark.parametrize("path", ["/graphql", "/graphql/"])
def test_what_a_page_can_send_without_an_origin_runs_no_query(port: int, path: str) -> None:
    """An image or a link, and a form of an old browser."""
    for text in (QUERY, MUTATION):
        address = f"{path}?query={quote(text)}"
        assert send(port, "GET", address, Accept="image/*")[0] == 405
        assert send(port, "HEAD", address)[0] == 405
        assert send(port, "POST", address, Content_Type="text/plain")[0] == 415
        assert send(port, "POST", address)[0] == 415
        shown = send(port, "GET", address, Accept="text/html")[1]
        assert '"data"' not in shown


def test_an_unguarded_web_server_is_not_started() -> None:
    """If another release of Dagster starts it in another way."""
    daemon = ["python", "-m", "dagster._daemon", "run"]
    assert replace_webserver(daemon) == daemon
    for command in (["dagster-webserver", "-p", "1"], ["python", "-m", "dagster_webserver.cli"]):
        with pytest.raises(RuntimeError, match="unknown command"):
            replace_webserver(command)
