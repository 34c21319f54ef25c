"""Signing in to the EHR: nothing on loopback, a static bearer, or tokens for a client secret or a signed assertion.

Secrets and keys that are rotated on disk are taken without a restart.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote_plus

from sidecar import log
from sidecar.errors import Misconfigured, Unavailable
from sidecar.fhir import scopes, token_endpoint
from sidecar.fhir.rotation import Rotating
from sidecar.fhir.scopes import Permissions
from sidecar.fhir.token_endpoint import Token
from sidecar.metrics import SCOPE_MISSING, TOKENS
from sidecar.settings import Ehr, secret

REFRESH_AT = 0.8
"""Share of a token's life after which the next request fetches a new one."""

Needs = Callable[[], Permissions]
_VISIBLE = re.compile(r"[!-~]+")


class Signer(Protocol):
    """Signs requests to the EHR, and says how that stands."""

    async def header(self) -> str | None:
        """The Authorization header, or None."""

    def renew(self, refused: str | None) -> None:
        """Drop `refused` if it is still held; the next `header` fetches anew."""

    def report(self) -> Mapping[str, Any]:
        """What an operator should know: nothing secret, nothing identified."""

    def public_keys(self) -> Mapping[str, Any] | None:
        """The JWK Set by which the EHR verifies us; None when nothing is signed."""


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


class NoCredentials:
    """For an EHR on this machine."""

    async def header(self) -> str | None:
        """No Authorization header."""
        return None

    def renew(self, refused: str | None) -> None:
        """Nothing to drop."""

    def report(self) -> Mapping[str, Any]:
        """Nothing can be wrong."""
        return {"problem": None, "missing_scopes": []}

    def public_keys(self) -> Mapping[str, Any] | None:
        """Nothing is signed."""
        return None


class StaticBearer(NoCredentials):
    """A token that somebody else rotates: a changed file counts from the next request on."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    async def header(self) -> str | None:
        """The token of this moment."""
        return f"Bearer {self._token()}"


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


def credentials(ehr: Ehr, needs: Needs) -> Signer:
    """What the settings ask for. `needs` says which permissions to ask the EHR for.

    Raises:
        Misconfigured: a secret or key is missing, short, readable by everyone, or cannot be used.
    """
    if ehr.auth == "bearer":
        return StaticBearer(Rotating(ehr.credential_file, lambda: _bearer(ehr)).now)
    if ehr.auth == "client_credentials":
        hidden = Rotating(ehr.credential_file, lambda: _client_secret(ehr))
        return Tokens(SharedSecret(ehr.token_url or "", ehr.client_id or "", hidden, ehr.scope), needs)
    if ehr.auth == "private_key_jwt":
        # A tenth of a second of imports that no other sign-in needs: a start has a budget.
        from sidecar.fhir.signing_keys import load_signing_keys  # noqa: PLC0415
        from sidecar.fhir.smart import PrivateKeyJwt, Registration  # noqa: PLC0415

        file = ehr.credential_file or Path()
        site = Registration(ehr.base_url, ehr.client_id or "", ehr.token_url, ehr.scope)
        return Tokens(PrivateKeyJwt(site, Rotating(file, lambda: load_signing_keys(file)), needs), needs)
    return NoCredentials()


def _bearer(ehr: Ehr) -> str:
    value = secret("ehr.credential", "SIDECAR_EHR_TOKEN", ehr.credential_file).get_secret_value()
    if not _VISIBLE.fullmatch(value):
        raise Misconfigured(["ehr.credential: has a space, a line end or a letter that no header can carry"])
    return value


def _client_secret(ehr: Ehr) -> str:
    return secret("ehr.credential", "SIDECAR_EHR_CLIENT_SECRET", ehr.credential_file).get_secret_value()
