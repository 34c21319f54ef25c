"""Who may talk to the practice EHR: a static bearer token, or OAuth 2.0 client credentials.

https://www.rfc-editor.org/rfc/rfc6749#section-4.4. Secrets are compared in constant time, as an EHR would.
"""

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from sidecar.sandbox.outcome import Resource


@dataclass(slots=True)
class Credentials:
    """What opens /fhir. Either kind may be set; tokens expire by `monotonic`, not by the EHR's clock."""

    static_bearer: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    expires_in: int = 300
    scope: str = "system/*.cruds"
    monotonic: Callable[[], float] = time.monotonic
    _tokens: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def issues_tokens(self) -> bool:
        """Tell whether there is a client that can ask for tokens."""
        return self.client_id is not None and self.client_secret is not None

    def accepts(self, authorization: str | None) -> bool:
        """Tell whether an Authorization header carries a bearer token that is valid now."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        if self.static_bearer is not None and _same(token, self.static_bearer):
            return True
        expires = self._tokens.get(token)
        return expires is not None and self.monotonic() < expires

    def token_reply(self, authorization: str | None, form: Mapping[str, str]) -> tuple[int, Resource]:
        """Answer a token request: HTTP status and JSON body."""
        if not self._is_client(authorization, form):
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type"}
        now = self.monotonic()
        self._tokens = {token: expires for token, expires in self._tokens.items() if expires > now}
        token = secrets.token_urlsafe(24)
        self._tokens[token] = now + self.expires_in
        return 200, {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": self.expires_in,
            "scope": form.get("scope") or self.scope,
        }

    def revoke_all(self) -> None:
        """Make every token issued so far invalid; the static bearer stays."""
        self._tokens.clear()

    def _is_client(self, authorization: str | None, form: Mapping[str, str]) -> bool:
        basic = _basic(authorization)
        client_id, client_secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        if self.client_id is None or self.client_secret is None:
            return False
        return _same(client_id, self.client_id) and _same(client_secret, self.client_secret)


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
