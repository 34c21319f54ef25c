"""Who may talk to the practice EHR, and what they may do: a static bearer, or tokens with scopes for a client.

A client proves itself with a secret, or with a signed assertion. https://www.rfc-editor.org/rfc/rfc6749#section-4.4
https://hl7.org/fhir/smart-app-launch/backend-services.html. Secrets are compared in constant time, as an EHR would.
"""

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from sidecar.sandbox import permissions
from sidecar.sandbox.assertions import ASSERTION_TYPE, NotTheClientError, Registered
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.permissions import Permissions

_EVERYTHING: Permissions = {"*": frozenset("cruds")}


@dataclass(slots=True)
class Credentials:
    """What opens /fhir. Any kind may be set; tokens expire by `monotonic`, not by the EHR's clock.

    `scope` is what the client is registered for: it is granted that part of what it asks for, with `v1` in SMART v1's
    words only. `used` and `forbidden` collect the permissions that requests needed, had or not. Assertions are judged
    by `wall`; `refusals` says why some were not believed, newest last.
    """

    static_bearer: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    jwks: Resource | None = field(default=None, repr=False)
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS384", "ES384")
    expires_in: int = 300
    scope: str = "system/*.cruds"
    v1: bool = False
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    refusals: list[str] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    _tokens: dict[str, tuple[float, Permissions]] = field(default_factory=dict, repr=False)
    _registered: Registered | None = field(default=None, repr=False)

    @property
    def issues_tokens(self) -> bool:
        """Tell whether there is a client that can ask for tokens."""
        return self.client_id is not None and (self.client_secret is not None or self.takes_assertions)

    @property
    def takes_assertions(self) -> bool:
        """Tell whether the client has keys."""
        return self.jwks is not None or self.jwks_url is not None

    def granted(self, authorization: str | None) -> Permissions | None:
        """Return what a valid bearer token may do; None when the header carries none."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        if self.static_bearer is not None and _same(token, self.static_bearer):
            return _EVERYTHING
        expires, granted = self._tokens.get(token, (0.0, None))
        return granted if self.monotonic() < expires else None

    async def token_reply(
        self, authorization: str | None, form: Mapping[str, str], token_url: str
    ) -> tuple[int, Resource]:
        """Answer a token request: HTTP status and JSON body."""
        if not await self._is_client(authorization, form, token_url):
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type"}
        scope = self._granted_scope(form.get("scope", ""))
        if not scope:
            return 400, {"error": "invalid_scope"}
        now = self.monotonic()
        self._tokens = {token: known for token, known in self._tokens.items() if known[0] > now}
        token = secrets.token_urlsafe(24)
        self._tokens[token] = now + self.expires_in, permissions.parse(scope)
        return 200, {"access_token": token, "token_type": "bearer", "expires_in": self.expires_in, "scope": scope}

    def expire_all(self) -> None:
        """Make every token issued so far invalid; the static bearer stays."""
        self._tokens.clear()

    def rotate(self, jwks: Resource) -> None:
        """Register other keys in place of the client's: what the old ones sign is refused from now on."""
        self.jwks, self.jwks_url, self._registered = jwks, None, None

    def _granted_scope(self, asked: str) -> str:
        if not asked:
            return self.scope
        wanted = permissions.parse(asked, v1_only=self.v1)
        return permissions.text(permissions.both(wanted, permissions.parse(self.scope)), v1=self.v1)

    async def _is_client(self, authorization: str | None, form: Mapping[str, str], token_url: str) -> bool:
        if self.client_id is None:
            return False
        if form.get("client_assertion_type") == ASSERTION_TYPE and self.takes_assertions:
            return await self._has_signed(form.get("client_assertion", ""), token_url)
        basic = _basic(authorization)
        client_id, client_secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        if self.client_secret is None:
            return False
        return _same(client_id, self.client_id) and _same(client_secret, self.client_secret)

    async def _has_signed(self, assertion: str, token_url: str) -> bool:
        if self._registered is None:
            self._registered = Registered(self.client_id or "", self.algorithms, self.wall, self.jwks, self.jwks_url)
        try:
            await self._registered.verify(assertion, token_url)
        except NotTheClientError as why:
            self.refusals.append(str(why))
            return False
        return True


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _basic(authorization: str | None) -> tuple[str, str] | None:
    """Read HTTP Basic; OAuth form-encodes both parts first (RFC 6749 2.3.1)."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, client_secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(client_id), unquote_plus(client_secret)
