"""SMART Backend Services: a signed assertion instead of a secret, at a token endpoint that the EHR tells of.

The EHR's discovery document chooses a path on the configured origin and never a host: another host counts only when
the settings name it. https://hl7.org/fhir/smart-app-launch/backend-services.html
"""

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from joserfc import jwt

from sidecar.errors import Unavailable
from sidecar.fhir import scopes, token_endpoint
from sidecar.fhir.origin import Base
from sidecar.fhir.rotation import Rotating
from sidecar.fhir.scopes import Permissions
from sidecar.fhir.signing_keys import SigningKey, SigningKeys
from sidecar.fhir.token_endpoint import Token, refused

DISCOVERY = ".well-known/smart-configuration"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
BEHIND_S = 60
"""`iat` lies this far back, so that our clock may be a minute ahead."""
AHEAD_S = 180
"""`exp` lies this far ahead: within SMART's five minutes for clocks up to two minutes ahead, three behind."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the EHR says of its token endpoint: where, what it calls itself, algorithms (None: not said), v1 only."""

    url: str
    audience: str
    algorithms: Collection[str] | None
    v1: bool


@dataclass(frozen=True, slots=True)
class Registration:
    """How the EHR knows us, and what the settings fix: None and "" are found out."""

    base_url: str
    client_id: str
    token_url: str | None
    scope: str


class PrivateKeyJwt:
    """Gets tokens with `keys`; asks for `needs()` unless the registration fixes a scope."""

    def __init__(
        self, registration: Registration, keys: Rotating[SigningKeys], needs: Callable[[], Permissions]
    ) -> None:
        self._site, self._keys, self._needs = registration, keys, needs
        self._base = Base(registration.base_url)

    @property
    def changes(self) -> int:
        """Grows when the key file was rotated."""
        self._keys.now()
        return self._keys.changes

    def public_keys(self) -> Mapping[str, Any]:
        """The JWK Set to publish, as the file is now."""
        return self._keys.now().public()

    async def grant(self) -> Token:
        """A token; its scope is what was asked for when the EHR does not say.

        An EHR may not have fetched our newest key yet: when it does not know it, the ones before are tried in order.

        Raises:
            Unavailable: there is none; the reason is one of `token_endpoint.PROBLEMS`.
        """
        found = await self._discover()
        scope = self._site.scope or scopes.text(self._needs(), v1=found.v1)
        keys = self._keys.now().usable(found.algorithms)
        refusal = refused("no_common_algorithm")
        for key in keys:
            form = {
                "grant_type": "client_credentials",
                "scope": scope,
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": _assertion(key, self._site.client_id, found.audience),
            }
            try:
                token = await token_endpoint.ask(found.url, form)
            except Unavailable as error:
                if error.reason != "ehr_token:invalid_client":
                    raise
                refusal = error
            else:
                return replace(token, scope=scope if token.scope is None else token.scope)
        raise refusal

    async def _discover(self) -> _Found:
        """Ask the EHR; where the settings say the URL, it is asked for the rest only, and may be silent."""
        set_url = self._site.token_url
        try:
            document = await self._document()
        except Unavailable:
            if set_url is None:
                raise
            document = {}
        named = set_url or document.get("token_endpoint")
        if not isinstance(named, str):
            raise refused("discovery")
        url = set_url or self._base.beside(named)
        if url is None:
            raise refused("off_origin")
        algorithms = document.get("token_endpoint_auth_signing_alg_values_supported")
        able = document.get("capabilities")
        v1 = isinstance(able, list) and "permission-v1" in able and "permission-v2" not in able
        return _Found(url, named, algorithms if isinstance(algorithms, list) and algorithms else None, v1)

    async def _document(self) -> Mapping[str, Any]:
        status, headers, raw = await token_endpoint.exchange("GET", f"{self._base.text}/{DISCOVERY}")
        if status == 429 or status >= 500:
            raise token_endpoint.busy(headers)
        try:
            document = orjson.loads(raw) if status == 200 else None
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, Mapping):
            raise refused("discovery")
        return document


def _assertion(key: SigningKey, client_id: str, audience: str) -> str:
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now - BEHIND_S,
        "exp": now + AHEAD_S,
        "jti": secrets.token_urlsafe(24),
    }
    header = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}
    return jwt.encode(header, claims, key.key, algorithms=[key.algorithm])
