"""Who asks, and may they?

`DLQ_API_TOKENS` holds names, scopes and hashes of bearer tokens, so whoever reads the environment has none of them. A
token is 256 random bits: a plain SHA-256 of it cannot be guessed, where a password's could.
"""

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from limits import RateLimitItem
from limits.strategies import MovingWindowRateLimiter

from dlq_pipelines.api.errors import RequestError
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.errors import DlqError
from dlq_pipelines.validate import validate_not_blank

_ENTRY = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}):(read|retry|admin):([0-9a-f]{64})")
_LONGEST_ACTOR = 200
_bearer = HTTPBearer(
    auto_error=False, description="A token of `dlq tokens new`. Not asked for where none is set."
)


class TokenScope(StrEnum):
    """What a token allows; each one also what stands before it."""

    READ = "read"
    RETRY = "retry"
    ADMIN = "admin"

    def allows(self, other: "TokenScope") -> bool:
        """Whether it includes the other."""
        order = list(TokenScope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Token:
    """A token as it is kept: whose it is, what it allows, and the SHA-256 by which it is recognised."""

    name: str
    scope: TokenScope
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.scope}:{self.digest}"


@dataclass(frozen=True)
class Caller:
    """Who asks: the actor of every audit row."""

    actor: str

    def sign(self, reason: str) -> AuditContext:
        """Return the audit context of a change that the caller makes now."""
        return AuditContext(self.actor, reason, datetime.now(UTC))


def create_token(name: str, scope: TokenScope) -> tuple[str, Token]:
    """A fresh secret, and what is to be kept of it.

    Raises:
        ValueError: the name cannot be used.
    """
    secret = f"dlq_{secrets.token_urlsafe(32)}"
    entry = f"{name}:{scope}:{_digest(secret)}"
    if not _ENTRY.fullmatch(entry):
        raise ValueError(
            "name must be of letters, digits, dots, dashes and underscores, at most 64"
        )
    return secret, Token(name, scope, _digest(secret))


def read_tokens(text: str) -> tuple[Token, ...]:
    """The entries of `DLQ_API_TOKENS`, separated by commas or spaces.

    Raises:
        DlqError: one is none, or two have one name; the message has the place, never the entry.
    """
    tokens: list[Token] = []
    for place, entry in enumerate(re.split(r"[,\s]+", text.strip(", \t\r\n")), 1):
        found = _ENTRY.fullmatch(entry)
        if entry and not found:
            raise DlqError(
                f"DLQ_API_TOKENS: entry {place} is no name:scope:hash. Make one: `dlq tokens new NAME --scope read`."
            )
        if found:
            tokens.append(Token(found[1], TokenScope(found[2]), found[3]))
    if len({token.name for token in tokens}) < len(tokens):
        raise DlqError(
            "DLQ_API_TOKENS: two entries have one name, so an audit could not tell them apart. Rename one."
        )
    return tuple(tokens)


def require_scope(scope: TokenScope, *, changes: bool = False) -> Callable[..., Caller]:
    """A dependency: the caller, who must have that scope.

    Args:
        scope: what the route needs.
        changes: it changes something, so a caller may ask for it only so often.
    """

    def caller(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        x_actor: Annotated[
            str | None,
            Header(
                max_length=_LONGEST_ACTOR, description="Who is behind the token, for the audit."
            ),
        ] = None,
    ) -> Caller:
        tokens: tuple[Token, ...] = request.app.state.tokens
        token = _recognise(tokens, given.credentials if given else None) if tokens else None
        if token is not None and not token.scope.allows(scope):
            raise RequestError(
                403, f"This needs the scope {scope}; the token {token.name} has {token.scope}."
            )
        if changes:
            peer = request.client.host if request.client else "unknown"
            _not_too_often(
                request.app.state.limiter, request.app.state.rate, token.name if token else peer
            )
        who = validate_not_blank("X-Actor", x_actor) if x_actor is not None else None
        if token is None:
            return Caller(who or "api")
        return Caller(f"{who} via {token.name}" if who else token.name)

    return caller


def authenticate(tokens: tuple[Token, ...], authorization: str | None) -> None:
    """Let a request on whose `Authorization` has a known token, and any where there are no tokens.

    Raises:
        RequestError: nobody knows who asks.
    """
    if tokens:
        scheme, secret = get_authorization_scheme_param(authorization)
        _recognise(tokens, secret if scheme.lower() == "bearer" else None)


def _recognise(tokens: tuple[Token, ...], secret: str | None) -> Token:
    """The token of that secret. Each entry is compared, in constant time, so the time tells nothing of which."""
    digest = _digest(secret or "")
    found = [token for token in tokens if hmac.compare_digest(token.digest, digest)]
    if not found:
        why = (
            "The bearer token is unknown."
            if secret
            else "A bearer token is needed: Authorization: Bearer ..."
        )
        raise RequestError(401, why, {"WWW-Authenticate": "Bearer"})
    return found[0]


def _not_too_often(limiter: MovingWindowRateLimiter, rate: RateLimitItem, who: str) -> None:
    if not limiter.hit(rate, who):
        wait = max(1, math.ceil(limiter.get_window_stats(rate, who).reset_time - time.time()))
        raise RequestError(
            429,
            f"At most {rate.amount:,} changes a minute are taken. Wait {wait} s.",
            {"Retry-After": str(wait)},
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


Reader = Annotated[Caller, Depends(require_scope(TokenScope.READ))]
Retrier = Annotated[Caller, Depends(require_scope(TokenScope.RETRY, changes=True))]
Admin = Annotated[Caller, Depends(require_scope(TokenScope.ADMIN, changes=True))]
