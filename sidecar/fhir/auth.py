"""Signing in to the EHR: nothing on loopback, a static bearer, or tokens for a client secret or a signed assertion.

Secrets and keys that are rotated on disk are taken without a restart.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sidecar.errors import Misconfigured
from sidecar.fhir.rotation import Rotating
from sidecar.fhir.scopes import Permissions
from sidecar.settings import Ehr, secret

Needs = Callable[[], Permissions]
_VISIBLE = re.compile(r"[!-~]+")


class Signer(Protocol):
    """Signs requests to the EHR, and says how that stands."""

    async def header(self) -> str | None:
        """The Authorization header, or None."""

    def renew(self, refused: str | None) -> None:
        """Drop `refused` if it is still held and was not itself the answer to a refusal a moment ago."""

    def report(self) -> Mapping[str, Any]:
        """What an operator should know: nothing secret, nothing identified."""

    def public_keys(self) -> Mapping[str, Any] | None:
        """The JWK Set by which the EHR verifies us; None when nothing is signed."""


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


def credentials(ehr: Ehr, needs: Needs) -> Signer:
    """What the settings ask for. `needs` says which permissions to ask the EHR for.

    Raises:
        Misconfigured: a secret or key is missing, short, readable by everyone, or cannot be used.
    """
    if ehr.auth == "bearer":
        return StaticBearer(Rotating(ehr.credential_file, lambda: _bearer(ehr)).now)
    if ehr.auth == "none":
        return NoCredentials()
    # Imports that only these sign-ins need: a start has a budget.
    from sidecar.fhir.tokens import SharedSecret, Tokens  # noqa: PLC0415

    if ehr.auth == "client_credentials":
        hidden = Rotating(ehr.credential_file, lambda: _client_secret(ehr))
        return Tokens(SharedSecret(ehr.token_url or "", ehr.client_id or "", hidden, ehr.scope), needs)
    from sidecar.fhir.signing_keys import load_signing_keys  # noqa: PLC0415
    from sidecar.fhir.smart import PrivateKeyJwt, Registration  # noqa: PLC0415

    file = ehr.credential_file or Path()
    site = Registration(ehr.base_url, ehr.client_id or "", ehr.token_url, ehr.scope)
    return Tokens(PrivateKeyJwt(site, Rotating(file, lambda: load_signing_keys(file)), needs), needs)


def _bearer(ehr: Ehr) -> str:
    value = secret("ehr.credential", "SIDECAR_EHR_TOKEN", ehr.credential_file).get_secret_value()
    if not _VISIBLE.fullmatch(value):
        raise Misconfigured(["ehr.credential: has a space, a line end or a letter that no header can carry"])
    return value


def _client_secret(ehr: Ehr) -> str:
    return secret("ehr.credential", "SIDECAR_EHR_CLIENT_SECRET", ehr.credential_file).get_secret_value()
