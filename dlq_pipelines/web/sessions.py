"""Keeps who is signed in to the pages, and makes and checks the tokens of their forms.

The cookie of a browser holds a random id and nothing else. What the id stands for is in the memory
of this process: a restart signs everybody out, and a token never reaches the browser again.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from dlq_pipelines.api.auth import Token, TokenScope

SESSION_COOKIE = "dlq_session"
# A working day and the night after it.
SESSION_SECONDS = 12 * 3_600
_MAX_SESSIONS = 1_000
_BROWSER_ID = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class SignedInSession:
    """Who signed in, with which token.

    Attributes:
        token_name: the name of the token.
        scope: what the token allows.
        person: who used it, for the audit log; None: not given.
        ends_at: when the session expires, on the clock of the store.
    """

    token_name: str
    scope: TokenScope
    person: str | None
    ends_at: float

    @property
    def actor(self) -> str:
        """The actor of the audit log, as the API writes it."""
        return f"{self.person} via {self.token_name}" if self.person else self.token_name


class SessionStore:
    """The sessions of this process, at most 1,000. A new one ends the oldest.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, SignedInSession] = OrderedDict()
        self._lock = Lock()
        self._secret = secrets.token_bytes(32)

    def start_session(self, token: Token, person: str | None) -> str:
        """Start a session and return its id, the value of the cookie."""
        id_ = create_browser_id()
        session = SignedInSession(token.name, token.scope, person, self._clock() + SESSION_SECONDS)
        with self._lock:
            self._sessions[id_] = session
            while len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return id_

    def find_session(self, id_: str | None) -> SignedInSession | None:
        """Return the session of an id; None: it does not exist or has expired."""
        with self._lock:
            session = self._sessions.get(id_ or "")
            if session is not None and session.ends_at <= self._clock():
                del self._sessions[id_ or ""]
                return None
        return session

    def end_session(self, id_: str | None) -> None:
        """End the session of an id, if it exists."""
        with self._lock:
            self._sessions.pop(id_ or "", None)

    def make_form_token(self, id_: str) -> str:
        """Return the token that each form of this browser sends back.

        Another site cannot read it, and a token of one browser is of no use in another one.
        """
        return hmac.digest(self._secret, id_.encode(), hashlib.sha256).hex()

    def is_form_token(self, id_: str | None, given: str) -> bool:
        """Return whether a form of this browser sent its token."""
        return id_ is not None and hmac.compare_digest(
            self.make_form_token(id_).encode(), given.encode("utf-8", "surrogateescape")
        )


def create_browser_id() -> str:
    """Return a new random id of a browser."""
    return secrets.token_urlsafe(32)


def read_browser_id(given: str | None) -> str | None:
    """Return the id of a cookie; None if it is not one of ours."""
    return given if given and _BROWSER_ID.fullmatch(given) else None
