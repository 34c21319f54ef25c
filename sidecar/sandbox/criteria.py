"""What a Subscription asks for: its criteria as a search or a topic, its channel, and what is refused.

Pure but for the topics in the chart. https://hl7.org/fhir/R4/subscription.html and, for topics,
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/StructureDefinition-backport-subscription.html
"""

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sidecar.sandbox.backport import extension_value, extension_values
from sidecar.sandbox.chart import Version
from sidecar.sandbox.moments import instant, span
from sidecar.sandbox.outcome import Refusal, Resource, refuse
from sidecar.sandbox.quirks import CONTENTS, Content
from sidecar.sandbox.search import Dialect, Search, parse_filters
from sidecar.sandbox.topics import Topic, Topics

_CANONICAL = re.compile(r"[a-z][a-z0-9+.-]*:")
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


@dataclass(frozen=True, slots=True)
class TopicRequest:
    """What a topic-based Subscription asks for; seconds as the client wrote them, 0 is "not asked for"."""

    topic: Topic
    filters: tuple[Search, ...]
    content: Content
    heartbeat_s: int
    timeout_s: int
    max_count: int

    def wants(self, version: Version, before: Version | None) -> bool:
        """Tell whether `version`, which replaces the living `before`, is an event for this client.

        A deletion is judged by what was deleted. A filter on one type says nothing of the others.
        """
        if not self.topic.fires(version, before):
            return False
        judged = before if version.resource is None else version
        filters = (each for each in self.filters if each.type_name == version.type_name)
        return all(judged is not None and each.matches(judged) for each in filters)


def is_topic_based(subscription: Resource, dialect: Dialect) -> bool:
    """Tell whether `criteria` is the canonical of a topic, on a server that knows topics."""
    is_canonical = _CANONICAL.match(str(subscription["criteria"])) is not None
    return is_canonical and dialect.capabilities.topics is not None


def topic_request(subscription: Resource, topics: Topics, dialect: Dialect) -> TopicRequest:
    """Read what a topic-based Subscription asks for.

    Raises:
        Refusal: 422, the topic is unknown, or it asks for what the topic or the server does not do.
    """
    channel, quirks = subscription["channel"], dialect.capabilities.topics
    topic = topics.find(str(subscription["criteria"]))
    if topic is None:
        raise _bad("criteria", "is not a topic of this server; /metadata lists them")
    filters = []
    for text in extension_values(subscription.get("_criteria"), "filter-criteria"):
        try:
            filters.append(topic.filter(str(text), dialect))
        except Refusal as refusal:
            raise _bad("criteria", f"filter: {refusal}") from refusal
    if "payload" not in channel:
        raise _bad("channel.payload", "is required with a topic")
    content = extension_value(channel.get("_payload"), "payload-content")
    if content not in CONTENTS or quirks is None or content not in quirks.contents:
        raise _bad("channel.payload", f"the content {content!r} is not supported")
    return TopicRequest(
        topic,
        tuple(filters),
        content,
        heartbeat_s=_count(channel, "heartbeat-period"),
        timeout_s=_count(channel, "timeout"),
        max_count=_count(channel, "max-count"),
    )


def _count(channel: Resource, name: str) -> int:
    value = extension_value(channel, name)
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise _bad("channel", f"backport-{name} must be a whole number")
    return value


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


def granted_end(subscription: Resource, now: datetime, longest_s: float | None) -> str | None:
    """Return the `end` the server grants: the client's, or an earlier one when it keeps none for so long."""
    wanted: str | None = subscription.get("end")
    if longest_s is None:
        return wanted
    latest = now + timedelta(seconds=longest_s)
    return wanted if wanted is not None and span(wanted).low <= latest else instant(latest)


def has_ended(subscription: Resource, now: datetime) -> bool:
    """Tell whether `end` is past."""
    return "end" in subscription and span(subscription["end"]).low <= now


def check_subscription(new: Resource, old: Resource | None, dialect: Dialect, topics: Topics) -> None:
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
    if is_topic_based(new, dialect):
        topic_request(new, topics, dialect)
    else:
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
