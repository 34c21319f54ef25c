"""Signing in to the EHR: nothing on loopback, a static bearer, or OAuth 2.0 client credentials (RFC 6749 §4.4)."""

import asyncio
import time

import httpx

from sidecar.errors import Unavailable
from sidecar.settings import Ehr, secret

REFRESH_AT = 0.8
"""Share of a token's life after which the next request fetches a new one."""


class NoCredentials:
    """For an EHR on this machine."""

    async def header(self) -> str | None:
        """No Authorization header."""
        return None

    def renew(self, refused: str | None) -> None:
        """Nothing to drop."""


class StaticBearer:
    """A token that somebody else rotates; a restart takes the new one."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    async def header(self) -> str | None:
        """The same header every time."""
        return self._header

    def renew(self, refused: str | None) -> None:
        """Nothing to drop: a 401 stays a 401 until the restart with a new token."""


class ClientCredentials:
    """Tokens from the token endpoint, one fetch at a time, renewed at 80 % of their life."""

    def __init__(self, token_url: str, client_id: str, client_secret: str, scope: str) -> None:
        self._url, self._basic = token_url, (client_id, client_secret)
        self._form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        self._lock = asyncio.Lock()
        self._header: str | None = None
        self._until = 0.0

    async def header(self) -> str | None:
        """A header with a live token.

        Raises:
            Unavailable: the token endpoint did not give one.
        """
        if self._header is None or time.monotonic() >= self._until:
            async with self._lock:
                if self._header is None or time.monotonic() >= self._until:
                    await self._fetch()
        return self._header

    def renew(self, refused: str | None) -> None:
        """Forget the token that was refused; one that somebody fetched since stays."""
        if refused == self._header:
            self._header = None

    async def _fetch(self) -> None:
        try:
            async with httpx.AsyncClient(timeout=10, follow_redirects=False, trust_env=False) as client:
                answer = await client.post(self._url, data=self._form, auth=self._basic)
            granted = answer.json() if answer.status_code == 200 else {}
            token, life = str(granted["access_token"]), float(granted.get("expires_in", 300))
        except (httpx.HTTPError, KeyError, ValueError, TypeError) as error:
            raise Unavailable(f"ehr_token:{type(error).__name__}", 2.0) from None
        self._header = f"Bearer {token}"
        self._until = time.monotonic() + life * REFRESH_AT


def credentials(ehr: Ehr) -> NoCredentials | StaticBearer | ClientCredentials:
    """What the settings ask for.

    Raises:
        Misconfigured: a secret is missing, short, or readable by everyone.
    """
    if ehr.auth == "bearer":
        return StaticBearer(secret("ehr.bearer_token", "SIDECAR_EHR_TOKEN", ehr.bearer_token_file).get_secret_value())
    if ehr.auth == "client_credentials":
        hidden = secret("ehr.client_secret", "SIDECAR_EHR_CLIENT_SECRET", ehr.client_secret_file)
        return ClientCredentials(ehr.token_url or "", ehr.client_id or "", hidden.get_secret_value(), ehr.scope)
    return NoCredentials()
