"""What a classic R4 Subscription asks for: its criteria as a search, its channel, and what is refused.

Pure. https://hl7.org/fhir/R4/subscription.html
"""

import ipaddress
from datetime import datetime
from urllib.parse import urlsplit

from sidecar.sandbox.moments import span
from sidecar.sandbox.outcome import Refusal, Resource, refuse
from sidecar.sandbox.search import Dialect, Search, parse_filters

_PAYLOADS = frozenset({"application/fhir+json", "application/json"})


def criteria_search(subscription: Resource, dialect: Dialect) -> Search:
    """Read `criteria` (`Type` or `Type?filters`) with the code that answers searches.

    Raises:
        Refusal: 422, the type or a filter is not supported.
    """
    type_name, _, query = str(subscription["criteria"]).partition("?")
    if type_name not in dialect.capabilities.supported():
        raise _bad("criteria", f"type {type_name!r} is not supported")
    try:
        return parse_filters(type_name, query, dialect)
    except Refusal as refusal:
        raise _bad("criteria", str(refusal)) from refusal


def channel_headers(subscription: Resource) -> dict[str, str]:
    """Read `channel.header`, each "Name: value".

    Raises:
        Refusal: 422, one of them is not a header.
    """
    headers = {}
    for line in subscription["channel"].get("header", []):
        name, colon, value = str(line).partition(":")
        if not colon or not name.strip() or set(line) & {"\r", "\n"}:
            raise _bad("channel.header", "each must read 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def has_ended(subscription: Resource, now: datetime) -> bool:
    """Tell whether `end` is past."""
    return "end" in subscription and span(subscription["end"]).low <= now


def check_subscription(new: Resource, old: Resource | None, dialect: Dialect) -> None:
    """Return if the server can serve `new`, which replaces `old`.

    Only the server sets `active` and `error`; a client may keep the one it read.

    Raises:
        Refusal: 422, with the element that is wrong.
    """
    channel = new["channel"]
    if new["status"] in {"active", "error"} and (old is None or old["status"] != new["status"]):
        raise _bad("status", f"only the server sets {new['status']!r}; ask with 'requested'")
    if channel["type"] != "rest-hook":
        raise _bad("channel.type", f"{channel['type']!r} is not supported, only rest-hook")
    if channel.get("payload", "application/json").split(";")[0].strip() not in _PAYLOADS:
        raise _bad("channel.payload", f"{channel['payload']!r} is not supported, only FHIR JSON")
    if not _is_loopback(channel.get("endpoint", "")):
        raise _bad("channel.endpoint", "must be http on a loopback address: this is a practice EHR")
    channel_headers(new)
    criteria_search(new, dialect)


def _is_loopback(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not parts.hostname:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _bad(element: str, problem: str) -> Refusal:
    return refuse(422, "business-rule", f"Subscription.{element}: {problem}", f"Subscription.{element}")
