"""Ask an OAuth 2.0 token endpoint, once. Redirects are refused, answers bounded, and nothing secret is in an error.

https://www.rfc-editor.org/rfc/rfc6749#section-4.4 https://www.rfc-editor.org/rfc/rfc6750#section-2.1
"""

import asyncio
import functools
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from sidecar.errors import Unavailable
from sidecar.fhir.client import retry_after
from sidecar.records import Redacted

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 256 * 1024
DEFAULT_LIFE_S = 300.0
"""The life of a token whose answer does not say; SMART recommends no more."""
LONGEST_LIFE_S = 24 * 3600.0
REFUSED_S = 15.0
"""Pause after a refusal: only a person can mend it, and clients that keep asking are locked out."""
UNREACHABLE_S = 2.0

PROBLEMS = {
    "unreachable": "the token endpoint or its discovery document did not answer",
    "busy": "the token endpoint is busy or failing",
    "redirect": "the token endpoint redirects; set ehr.token_url to where it really is",
    "late": "the token endpoint takes longer to give a token than the token lives",
    "unexpected": "asking for a token failed in a way that is not foreseen; the log names the error",
    "shape": "the answer is not what RFC 6749 says, or too large",
    "discovery": "the EHR has no usable .well-known/smart-configuration; set ehr.token_url",
    "off_origin": "the EHR's smart-configuration names a token endpoint at another origin, which is used only when"
    " ehr.token_url says so",
    "no_common_algorithm": "the EHR verifies none of the algorithms of our keys; add a key of the other one with:"
    " sidecar keys smart FILE --rotate --alg ALG",
    "invalid_client": "the EHR does not know this client, its key or secret: is ehr.client_id right, is our public key"
    " set registered there, and is this machine's clock right?",
    "invalid_scope": "the EHR refuses the scopes asked for; register them there, or set ehr.scope to those it gives",
    "invalid_request": "the EHR does not understand the token request",
    "invalid_grant": "the EHR refuses the grant; is this machine's clock right?",
    "unauthorized_client": "this client may not use client credentials; its registration at the EHR must allow it",
    "unsupported_grant_type": "the EHR gives no tokens for client credentials",
    "refused": "the token endpoint refuses the request",
}
"""What an operator should know of each `ehr_token:` reason."""

_SAID = frozenset(
    {
        "invalid_client", "invalid_scope", "invalid_request", "invalid_grant", "unauthorized_client",
        "unsupported_grant_type",
    }
)  # fmt: skip
"""The errors of RFC 6749 §5.2 that an endpoint may name; what else it says is its own."""
# A header value: anything else would end the header and begin another.
_TOKEN = re.compile(r"[!-~]{1,16384}")
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True, repr=False)
class Token(Redacted):
    """A bearer token as a header, its life in seconds since `asked` (monotonic), and the scope that came with it."""

    header: str
    asked: float
    life_s: float
    scope: str | None


def refused(why: str, delay_s: float = REFUSED_S) -> Unavailable:
    """The error for one of `PROBLEMS`."""
    return Unavailable(f"ehr_token:{why}", delay_s)


def busy(headers: Mapping[str, str]) -> Unavailable:
    """The error for 429 and 5xx, with the pause that was asked for."""
    return refused("busy", max(retry_after(headers.get("Retry-After")), UNREACHABLE_S))


async def ask(url: str, form: Mapping[str, str], basic: tuple[str, str] | None = None) -> Token:
    """The token that the endpoint gives.

    Raises:
        Unavailable: it gave none; the reason is one of `PROBLEMS`.
    """
    asked = time.monotonic()
    status, headers, raw = await exchange("POST", url, form, basic)
    found = _object(raw)
    if status == 429 or status >= 500:
        raise busy(headers)
    if 300 <= status < 400:
        raise refused("redirect")
    if status != 200:
        error = found.get("error")
        raise refused(error if isinstance(error, str) and error in _SAID else "refused")
    token, kind, scope = found.get("access_token"), found.get("token_type") or "bearer", found.get("scope")
    life_s = _life(found.get("expires_in", DEFAULT_LIFE_S))
    usable = isinstance(token, str) and _TOKEN.fullmatch(token) and str(kind).lower() == "bearer"
    if not usable or life_s is None:
        raise refused("shape", UNREACHABLE_S)
    return Token(f"Bearer {token}", asked, life_s, scope if isinstance(scope, str) else None)


async def exchange(
    method: str, url: str, form: Mapping[str, str] | None = None, basic: tuple[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """One request without cookies, proxies or redirects: status, headers and a bounded, uncompressed body.

    Raises:
        Unavailable: no answer in time, or one that is too large or compressed unasked.
    """
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, verify=_trust()) as client,
            client.stream(method, url, data=form, auth=basic, headers=_HEADERS) as answer,
        ):
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise refused("shape", UNREACHABLE_S)
            raw = bytearray()
            async for chunk in answer.aiter_raw():
                raw += chunk
                if len(raw) > MAX_ANSWER_BYTES:
                    raise refused("shape", UNREACHABLE_S)
            return answer.status_code, answer.headers, bytes(raw)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError):
        raise refused("unreachable", UNREACHABLE_S) from None


def _life(value: object) -> float | None:
    """Seconds within reason; some servers say the number as text. None when it is no number."""
    if isinstance(value, str) and value.isdecimal():
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(max(value, 1.0), LONGEST_LIFE_S)


@functools.cache
def _trust() -> ssl.SSLContext:
    """The machine's authorities, as for the chart itself: a hospital's own is installed there."""
    return ssl.create_default_context()


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, Mapping) else {}
