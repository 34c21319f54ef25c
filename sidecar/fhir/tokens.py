"""Tokens for a client secret or a signed assertion: who fetches them, when, and what a failure means."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote_plus

from sidecar import log
from sidecar.errors import Unavailable
from sidecar.fhir import scopes, token_endpoint
from sidecar.fhir.auth import Needs
from sidecar.fhir.rotation import Rotating
from sidecar.fhir.token_endpoint import Token
from sidecar.metrics import SCOPE_MISSING, TOKENS

REFRESH_AT = 0.8
"""Share of a token's life after which the next request fetches a new one."""


class Source(Protocol):
    """One way to get a token."""

    @property
    def changes(self) -> int:
        """Grows when what proves us was rotated on disk."""

    async def grant(self) -> Token:
        """A token.

        Raises:
            Unavailable: there is none; the reason is one of `token_endpoint.PROBLEMS`.
        """

    def public_keys(self) -> Mapping[str, Any] | None:
        """As of `Signer`."""


class SharedSecret:
    """RFC 6749 §2.3.1: the client's id and secret as HTTP Basic."""

    def __init__(self, token_url: str, client_id: str, client_secret: Rotating[str], scope: str) -> None:
        self._url, self._client_id, self._secret = token_url, client_id, client_secret
        self._form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})

    @property
    def changes(self) -> int:
        """Grows when the secret was rotated."""
        self._secret.now()
        return self._secret.changes

    def public_keys(self) -> Mapping[str, Any] | None:
        """Nothing is signed."""
        return None

    async def grant(self) -> Token:
        """A token.

        Raises:
            Unavailable: there is none; the reason is one of `token_endpoint.PROBLEMS`.
        """
        basic = quote_plus(self._client_id), quote_plus(self._secret.now())
        token = await token_endpoint.ask(self._url, self._form, basic)
        return Token(token.header, token.life_s, token.scope or self._form.get("scope"))


class Tokens:
    """Tokens of one grant: one fetch at a time whoever waits, renewed at 80 % of their life.

    A failed fetch counts for everyone until its pause is over, or the secret changed on disk. A token that could not
    be renewed is used to its end.
    """

    def __init__(self, source: Source, needs: Needs) -> None:
        self._source, self._needs = source, needs
        self._lock = asyncio.Lock()
        self._token: Token | None = None
        self._renew_at = self._ends_at = 0.0
        self._failure: Unavailable | None = None
        self._failed_until, self._failed_with = 0.0, 0
        self._missing: tuple[scopes.Missing, ...] = ()

    async def header(self) -> str | None:
        """A header with a live token.

        Raises:
            Unavailable: there is none; the reason is one of `token_endpoint.PROBLEMS`.
        """
        if self._is_due():
            async with self._lock:
                if self._is_due():
                    await self._fetch()
        if self._token is not None:
            return self._token.header
        failure = self._failure or token_endpoint.refused("refused")
        raise Unavailable(failure.reason, max(self._failed_until - time.monotonic(), 0.0))

    def renew(self, refused: str | None) -> None:
        """Forget the token that was refused; one that somebody fetched since stays."""
        if self._token is not None and refused == self._token.header:
            self._token = None

    def report(self) -> Mapping[str, Any]:
        """Why there is no token, and what the EHR did not grant."""
        found = [{"scope": m.scope, "means": m.means} for m in self._missing]
        return {"problem": _words(self._failure) if self._failure else None, "missing_scopes": found}

    def public_keys(self) -> Mapping[str, Any] | None:
        """What `source` signs with."""
        return self._source.public_keys()

    def _is_due(self) -> bool:
        now = time.monotonic()
        if self._token is not None and now >= self._ends_at:
            self._token = None
        if self._token is not None and now < self._renew_at:
            return False
        return self._failure is None or now >= self._failed_until or self._source.changes != self._failed_with

    async def _fetch(self) -> None:
        asked, changes = time.monotonic(), self._source.changes
        try:
            self._token = await self._source.grant()
        except Unavailable as failure:
            self._fail(failure, changes)
            return
        TOKENS.labels("granted").inc()
        self._failure = None
        self._renew_at, self._ends_at = asked + self._token.life_s * REFRESH_AT, asked + self._token.life_s
        self._compare(self._token.scope)

    def _fail(self, failure: Unavailable, changes: int) -> None:
        why = failure.reason.partition(":")[2]
        TOKENS.labels(why).inc()
        if self._failure is None or self._failure.reason != failure.reason:
            log.get().warning("no token", reason=failure.reason, problem=_words(failure))
        self._failure, self._failed_with = failure, changes
        self._failed_until = time.monotonic() + failure.delay_s

    def _compare(self, scope: str | None) -> None:
        got = scopes.granted(scope) if scope else None
        lost = scopes.missing(self._needs(), got) if got is not None else ()
        if lost == self._missing:
            return
        for old in self._missing:
            SCOPE_MISSING.labels(old.type, old.interaction).set(0)
        for one in lost:
            SCOPE_MISSING.labels(one.type, one.interaction).set(1)
            log.get().warning("scope not granted", reason=f"scope:{one.type}.{one.letter}", problem=one.means)
        self._missing = lost


def _words(failure: Unavailable) -> str:
    return token_endpoint.PROBLEMS.get(failure.reason.partition(":")[2], failure.reason)
