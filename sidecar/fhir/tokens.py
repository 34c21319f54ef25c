"""Tokens for a client secret or a signed assertion: who fetches them, when, and what a failure means."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import quote_plus

from sidecar import log
from sidecar.errors import Unavailable
from sidecar.fhir import scopes, token_endpoint
from sidecar.fhir.auth import Needs
from sidecar.fhir.rotation import Rotating
from sidecar.fhir.token_endpoint import Token
from sidecar.metrics import LOGGED_ERRORS, SCOPE_MISSING, TOKENS

REFRESH_AT = 0.8
"""Share of a token's life after which the next request fetches a new one."""
LONGEST_S = 20.0
"""How long a request waits for a token, whatever is asked for it: discovery, and each key that may be ours."""
REPLACED_S = 15.0
"""Refused tokens are replaced no more often: an EHR that refuses every token is no reason to ask for ever more."""


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
        return replace(token, scope=token.scope or self._form.get("scope"))


class Tokens:
    """Tokens of one grant: one fetch at a time whoever waits, renewed at 80 % of their life while the old one is used.

    A failed fetch counts for everyone until its pause is over, or the secret changed on disk. A token that could not
    be renewed is used to its end, and never beyond.
    """

    def __init__(self, source: Source, needs: Needs) -> None:
        self._source, self._needs = source, needs
        self._fetching: asyncio.Task[None] | None = None
        self._token: Token | None = None
        self._replaced_at = -REPLACED_S
        self._failure: Unavailable | None = None
        self._failed_until, self._failed_with = 0.0, 0
        self._missing: tuple[scopes.Missing, ...] = ()

    async def header(self) -> str | None:
        """A header with a live token; within `LONGEST_S`.

        Raises:
            Unavailable: there is none; the reason is one of `token_endpoint.PROBLEMS`.
        """
        if self._is_due():
            if self._fetching is None or self._fetching.done():
                self._fetching = asyncio.create_task(self._fetch(), name="ehr-token")
            if _used(self._token) >= 1:
                # Shielded: whoever is given up leaves the fetch to the others.
                await asyncio.shield(self._fetching)
        if self._token is not None and _used(self._token) < 1:
            return self._token.header
        failure = self._failure or token_endpoint.refused("late")
        raise Unavailable(failure.reason, max(self._failed_until - time.monotonic(), 0.0))

    def renew(self, refused: str | None) -> None:
        """Forget the token that was refused; one that somebody fetched since stays.

        It stays too when another was refused within `REPLACED_S`: a second fresh token would fare no better.
        """
        now = time.monotonic()
        if self._token is not None and refused == self._token.header and now - self._replaced_at >= REPLACED_S:
            self._token, self._replaced_at = None, now

    def report(self) -> Mapping[str, Any]:
        """Why there is no token, and what the EHR did not grant."""
        found = [{"scope": m.scope, "means": m.means} for m in self._missing]
        return {"problem": _words(self._failure) if self._failure else None, "missing_scopes": found}

    def public_keys(self) -> Mapping[str, Any] | None:
        """What `source` signs with."""
        return self._source.public_keys()

    def _is_due(self) -> bool:
        if _used(self._token) < REFRESH_AT:
            return False
        retried = self._failure is None or time.monotonic() >= self._failed_until
        return retried or self._source.changes != self._failed_with

    async def _fetch(self) -> None:
        changes = self._source.changes
        try:
            async with asyncio.timeout(LONGEST_S):
                token = await self._source.grant()
        except Unavailable as failure:
            self._fail(failure, changes)
        except TimeoutError:
            self._fail(token_endpoint.refused("unreachable", token_endpoint.UNREACHABLE_S), changes)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of a task that perhaps nobody waits for
            LOGGED_ERRORS.labels("token").inc()
            log.unexpected("token", error)
            self._fail(token_endpoint.refused("unexpected"), changes)
        else:
            self._take(token, changes)

    def _take(self, token: Token, changes: int) -> None:
        if _used(token) >= 1:
            self._fail(token_endpoint.refused("late", token_endpoint.UNREACHABLE_S), changes)
            return
        TOKENS.labels("granted").inc()
        self._token, self._failure = token, None
        self._compare(token.scope)

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


def _used(token: Token | None) -> float:
    """The share of a token's life that is over; of none, all of it."""
    return 1.0 if token is None else (time.monotonic() - token.asked) / token.life_s


def _words(failure: Unavailable) -> str:
    return token_endpoint.PROBLEMS.get(failure.reason.partition(":")[2], failure.reason)
