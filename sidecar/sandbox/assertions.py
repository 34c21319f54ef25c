"""Verify a client's signed assertion as an EHR does: known key, allowed algorithm, short life, used once.

https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html
"""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from sidecar.sandbox.outcome import Resource

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LONGEST_LIFE_S = 300
FETCH_S = 5.0


class NotTheClientError(Exception):
    """The assertion proves nothing; the text says why, as an EHR's log would."""


@dataclass(slots=True)
class Registered:
    """One client's public keys: the set itself, or a loopback URL from which it is fetched when a kid is not known."""

    client_id: str
    algorithms: Iterable[str]
    wall: Callable[[], float]
    jwks: Resource | None = None
    jwks_url: str | None = None
    _used: dict[str, float] = field(default_factory=dict, repr=False)

    async def verify(self, assertion: str, token_url: str) -> None:
        """Return if `assertion` is the client's, for this endpoint, alive, and not seen before.

        Raises:
            NotTheClientError: saying why it is not.
        """
        try:
            header = jws.extract_compact(assertion.encode()).headers()
            if header.get("typ") != "JWT":
                raise NotTheClientError("typ is not JWT")
            key = await self._key(header.get("kid"))
            claims = jwt.decode(assertion, key, algorithms=list(self.algorithms)).claims
            self._registry(token_url).validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            raise NotTheClientError(f"{type(error).__name__}: {error}") from error
        if claims["exp"] > self.wall() + LONGEST_LIFE_S:
            raise NotTheClientError("exp is more than five minutes ahead")
        self._used = {jti: until for jti, until in self._used.items() if until > self.wall()}
        if claims["jti"] in self._used:
            raise NotTheClientError("jti was used before")
        self._used[claims["jti"]] = claims["exp"]

    def _registry(self, token_url: str) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=lambda: int(self.wall()),
            iss={"essential": True, "value": self.client_id},
            sub={"essential": True, "value": self.client_id},
            aud={"essential": True, "value": token_url},
            exp={"essential": True},
            jti={"essential": True},
        )

    async def _key(self, kid: object) -> Key:
        """Return the key called `kid`; an unknown name fetches the set once more, as a rotation wants."""
        known = self._named(kid)
        if known is None and self.jwks_url is not None:
            self.jwks = await _fetched(self.jwks_url)
            known = self._named(kid)
        if known is None:
            raise NotTheClientError("kid is not registered")
        return JWKRegistry.import_key(known)

    def _named(self, kid: object) -> Resource | None:
        keys: list[Resource] = (self.jwks or {}).get("keys", [])
        return next((key for key in keys if kid is not None and key.get("kid") == kid), None)


async def _fetched(url: str) -> Resource:
    host = urlsplit(url).hostname or ""
    if not ipaddress.ip_address(host).is_loopback:
        raise NotTheClientError("jwks_url is not on this machine")
    timeout = aiohttp.ClientTimeout(total=FETCH_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            found: Resource = await answer.json()
            return found
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NotTheClientError("jwks_url does not answer") from error
