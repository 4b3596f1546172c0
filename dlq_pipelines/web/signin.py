"""Signs people in with an API token, and out."""

import re

from dlq_pipelines.api.auth import find_token
from dlq_pipelines.api.errors import RequestError
from dlq_pipelines.validate import is_storable
from dlq_pipelines.web.sessions import SESSION_COOKIE, SessionStore
from dlq_pipelines.web.visit import PageAnswer, PageVisit

_MAX_PERSON = 200
# A path of this server: `//host` would be another one.
_NEXT = re.compile(r"/(?![/\\])[^\s\\]{0,2000}")
_HOME = "/causes"


def show_signin(visit: PageVisit) -> PageAnswer:
    """Show the form that takes a token; without configured tokens, go to the causes."""
    if visit.session is not None or not visit.request.app.state.tokens:
        return PageAnswer(go_to=_HOME)
    return _build_form(visit.query.get("next", ""))


def sign_in(visit: PageVisit) -> PageAnswer:
    """Check a token and start a session of its scope."""
    state = visit.request.app.state
    store: SessionStore = state.sessions
    wanted = visit.form.get("next", "")
    person = visit.form.get("person", "").strip()
    if not state.tokens:
        return PageAnswer(go_to=_HOME)
    if len(person) > _MAX_PERSON or not is_storable(person):
        return _build_form(wanted, f"A name has at most {_MAX_PERSON} printable characters.", 400)
    try:
        token = find_token(state.tokens, visit.form.get("token", "").strip())
    except RequestError:
        return _build_form(
            wanted, "This token is not known. `dlq tokens new NAME --scope read` makes one.", 401
        )
    store.end_session(visit.request.cookies.get(SESSION_COOKIE))
    target = wanted if _NEXT.fullmatch(wanted) else _HOME
    return PageAnswer(go_to=target, session_id=store.start_session(token, person or None))


def sign_out(visit: PageVisit) -> PageAnswer:
    """End the session."""
    visit.request.app.state.sessions.end_session(visit.request.cookies.get(SESSION_COOKIE))
    return PageAnswer(go_to="/signin", session_id="")


def _build_form(wanted: str, error: str = "", status: int = 200) -> PageAnswer:
    return PageAnswer("signin.html.j2", {"next": wanted, "error": error}, status)
