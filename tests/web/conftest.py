"""A browser without a screen for the pages: it follows links and sends forms with their token."""

import html
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import httpx
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve, serve, tokens  # noqa: F401 - fixtures
from tests.rows import add_events, kill, one

_TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')
_LINK = re.compile(r'(?:href|action)="([^"]+)"')
TRACE = (
    'Traceback (most recent call last):\n  File "/srv/shop/worker.py", line 88, in run\n'
    "    handler(event)\n{}"
)


@dataclass
class Visitor:
    """Opens pages and sends forms as a browser does."""

    client: httpx.Client

    def open_page(self, path: str, status: int = 200) -> str:
        """Return the text of a page after its redirects."""
        answer = self.client.get(path, follow_redirects=True)
        assert answer.status_code == status, answer.text
        return answer.text

    def read_token(self, path: str) -> str:
        """Return the token of the forms of a page."""
        found = _TOKEN.search(self.open_page(path))
        assert found
        return found[1]

    def send_form(self, path: str, form: str | None = None, **fields: str) -> httpx.Response:
        """Send a form with the token of the page that has it; do not follow the redirect."""
        return self.client.post(path, data={"csrf": self.read_token(form or path), **fields})

    def sign_in(self, secret: str, **fields: str) -> httpx.Response:
        """Sign in with a token."""
        return self.send_form("/signin", token=secret, **fields)


def list_links(page: str, base: str) -> set[str]:
    """Return the paths that a page links to, as a browser resolves them."""
    joined = (httpx.URL(base).join(html.unescape(link)) for link in _LINK.findall(page))
    return {str(link) for link in joined if link.scheme == "http"}


@pytest.fixture
def visitor(serve: Serve) -> Visitor:  # noqa: F811 - the fixture
    """A visitor of a server without tokens."""
    return Visitor(serve())


@pytest.fixture
def cause_id(connection: Connection) -> str:
    """The cause of thirty dead events that the acquirer northbank declined."""
    add_events(connection, 40, payload='{"acquirer": "eastpay"}', event_type="order.paid")
    connection.execute("update outbox_event set status = 'done'")
    add_events(connection, 30, payload='{"acquirer": "northbank"}', event_type="order.paid")
    kill(connection, TRACE.format("KeyError: 'postcode'"), where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    return str(one(connection, "select id from dlq.cause")["id"])


@pytest.fixture
def fix_id(visitor: Visitor, cause_id: str) -> int:
    """A fix of that cause."""
    answer = visitor.send_form("/fixes/new", cause=cause_id, note="labels read v2", step="flag")
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].partition("fixes/")[2].partition("?")[0])
