"""Authenticates callers by bearer tokens and checks their scopes.

`DLQ_API_TOKENS` holds names, scopes and hashes of tokens, so reading the environment reveals no
token. A token has 256 random bits, so a plain SHA-256 of it cannot be reversed, as the hash of a
password could.
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
_MAX_ACTOR_LENGTH = 200
_bearer = HTTPBearer(
    auto_error=False,
    description="A token from `dlq tokens new`. Not needed if DLQ_API_TOKENS is unset.",
)


class TokenScope(StrEnum):
    """What a token allows. Each scope includes the ones before it."""

    READ = "read"
    RETRY = "retry"
    ADMIN = "admin"

    def allows(self, other: "TokenScope") -> bool:
        """Return whether this scope includes the other."""
        order = list(TokenScope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Token:
    """An entry of `DLQ_API_TOKENS`: name, scope, and the SHA-256 of the token."""

    name: str
    scope: TokenScope
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.scope}:{self.digest}"


@dataclass(frozen=True)
class Caller:
    """The caller of a request, who is the actor of its audit entries."""

    actor: str

    def sign(self, reason: str) -> AuditContext:
        """Return the audit context of a change that the caller makes now."""
        return AuditContext(self.actor, reason, datetime.now(UTC))


def create_token(name: str, scope: TokenScope) -> tuple[str, Token]:
    """Return a new secret token and its entry.

    Raises:
        ValueError: the name is invalid.
    """
    secret = f"dlq_{secrets.token_urlsafe(32)}"
    entry = f"{name}:{scope}:{_hash_token(secret)}"
    if not _ENTRY.fullmatch(entry):
        raise ValueError("name must be 1 to 64 letters, digits, dots, dashes or underscores")
    return secret, Token(name, scope, _hash_token(secret))


def read_tokens(text: str) -> tuple[Token, ...]:
    """Parse the entries of `DLQ_API_TOKENS`, which commas or spaces separate.

    Raises:
        DlqError: an entry is invalid, or two entries have the same name; the message gives the
            position and never the entry.
    """
    tokens: list[Token] = []
    for place, entry in enumerate(re.split(r"[,\s]+", text.strip(", \t\r\n")), 1):
        found = _ENTRY.fullmatch(entry)
        if entry and not found:
            raise DlqError(
                f"DLQ_API_TOKENS: entry {place} is not name:scope:hash.",
                "Create an entry with `dlq tokens new NAME --scope read`.",
            )
        if found:
            tokens.append(Token(found[1], TokenScope(found[2]), found[3]))
    if len({token.name for token in tokens}) < len(tokens):
        raise DlqError(
            "DLQ_API_TOKENS: two entries have the same name, which the audit log would mix up.",
            "Rename one of them.",
        )
    return tuple(tokens)


def require_scope(scope: TokenScope, *, changes: bool = False) -> Callable[..., Caller]:
    """Return a dependency that provides the caller and checks the scope.

    Args:
        scope: the scope that the route needs.
        changes: whether the route changes data, which is rate limited per caller.
    """

    def caller(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        x_actor: Annotated[
            str | None,
            Header(
                max_length=_MAX_ACTOR_LENGTH,
                description="The person who uses the token, for the audit log.",
            ),
        ] = None,
    ) -> Caller:
        tokens: tuple[Token, ...] = request.app.state.tokens
        token = find_token(tokens, given.credentials if given else None) if tokens else None
        if token is not None and not token.scope.allows(scope):
            raise RequestError(
                403, f"The scope {scope} is required; the token {token.name} has {token.scope}."
            )
        if changes:
            peer = request.client.host if request.client else "unknown"
            limit_rate(
                request.app.state.limiter, request.app.state.rate, token.name if token else peer
            )
        person = validate_not_blank("X-Actor", x_actor) if x_actor is not None else None
        if token is None:
            return Caller(person or "api")
        return Caller(f"{person} via {token.name}" if person else token.name)

    return caller


def authenticate(tokens: tuple[Token, ...], authorization: str | None) -> None:
    """Accept a request with a known token, or any request if there are no tokens.

    Raises:
        RequestError: the token is missing or unknown.
    """
    if tokens:
        scheme, secret = get_authorization_scheme_param(authorization)
        find_token(tokens, secret if scheme.lower() == "bearer" else None)


def find_token(tokens: tuple[Token, ...], secret: str | None) -> Token:
    """Return the token with this secret.

    Every entry is compared in constant time, so that timing reveals nothing.

    Raises:
        RequestError: no token has it.
    """
    digest = _hash_token(secret or "")
    found = [token for token in tokens if hmac.compare_digest(token.digest, digest)]
    if not found:
        error = (
            "The bearer token is unknown."
            if secret
            else "A bearer token is required: Authorization: Bearer ..."
        )
        raise RequestError(401, error, {"WWW-Authenticate": "Bearer"})
    return found[0]


def limit_rate(limiter: MovingWindowRateLimiter, rate: RateLimitItem, caller: str) -> None:
    """Count a change of a caller.

    Raises:
        RequestError: the caller made too many within a minute.
    """
    if not limiter.hit(rate, caller):
        wait = max(1, math.ceil(limiter.get_window_stats(rate, caller).reset_time - time.time()))
        raise RequestError(
            429,
            f"The limit is {rate.amount:,} changes a minute. Wait {wait} s.",
            {"Retry-After": str(wait)},
        )


def _hash_token(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


Reader = Annotated[Caller, Depends(require_scope(TokenScope.READ))]
Retrier = Annotated[Caller, Depends(require_scope(TokenScope.RETRY, changes=True))]
Admin = Annotated[Caller, Depends(require_scope(TokenScope.ADMIN, changes=True))]
