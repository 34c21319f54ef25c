"""The Subscriptions we ask for, as resources. Pure.

Where a topic is named for a source, an R4 Backport Subscription; else a classic one. Both end, and are renewed before.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/StructureDefinition-backport-subscription.html
https://hl7.org/fhir/R4/subscription.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sidecar.intake.sources import Source
from sidecar.settings import Topics

_ROOT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-"
PROFILE = _ROOT + "subscription"
RENEW_AT = 0.6
"""Share of a Subscription's life after which it is renewed."""
ONCE_S = 60.0
STATUSES = frozenset({"requested", "active", "error", "off", "entered-in-error"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What a Subscription is asked with: where it sends, which secret it brings, and when it ends."""

    endpoint: str
    bearer: str = field(repr=False)
    ends_at: float
    filtered: bool = True
    """Whether a topic is asked to filter; some cannot, and then tell of more than is needed."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the EHR reaches us, the secret that every other is derived from, and what the site chose."""

    public_url: str
    secret: str = field(repr=False)
    topics: Topics

    @property
    def life_s(self) -> float:
        """How long a Subscription is asked to live."""
        return self.topics.life.total_seconds()

    def endpoint(self, source: Source) -> str:
        """Where the notifications of `source` go."""
        return f"{self.public_url.rstrip('/')}/notify/{source.name}"


def wanted(source: Source, terms: Terms, topics: Topics) -> dict[str, Any]:
    """The Subscription for `source`."""
    channel: dict[str, Any] = {
        "type": "rest-hook",
        "endpoint": terms.endpoint,
        "payload": "application/fhir+json",
        "header": [f"Authorization: {terms.bearer}"],
    }
    resource: dict[str, Any] = {
        "resourceType": "Subscription",
        "status": "requested",
        "end": datetime.fromtimestamp(terms.ends_at, UTC).isoformat(timespec="seconds"),
        "reason": f"Clinical risk scoring: {source.name} events",
        "criteria": source.criteria,
        "channel": channel,
    }
    topic = topics.of(source.name)
    if topic is None:
        return resource
    channel["_payload"] = {"extension": [{"url": _ROOT + "payload-content", "valueCode": topics.content}]}
    beat = max(1, round(topics.heartbeat.total_seconds()))
    channel["extension"] = [{"url": _ROOT + "heartbeat-period", "valueUnsignedInt": beat}]
    if source.query and terms.filtered:
        resource["_criteria"] = {"extension": [{"url": _ROOT + "filter-criteria", "valueString": source.criteria}]}
    return resource | {"meta": {"profile": [PROFILE]}, "criteria": topic}


def same(found: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether an EHR holds what was asked; the end it may set itself."""
    return all(found.get(name) == asked.get(name) for name in ("criteria", "_criteria", "channel"))


def shows(subscription: Mapping[str, Any], bearer: str) -> bool:
    """Whether a Subscription shows this secret. Servers that hide or mask headers show none."""
    channel = subscription.get("channel")
    header = channel.get("header") if isinstance(channel, Mapping) else None
    return isinstance(header, list) and f"Authorization: {bearer}" in header


def status_of(subscription: Mapping[str, Any]) -> str:
    """The status of a Subscription, which is stored and shown; "unknown" when it is none of FHIR's."""
    status = subscription.get("status")
    return status if isinstance(status, str) and status in STATUSES else "unknown"


def endpoint_of(subscription: Mapping[str, Any]) -> str | None:
    """Where a Subscription sends."""
    channel = subscription.get("channel")
    return channel.get("endpoint") if isinstance(channel, Mapping) else None


def ends_at(subscription: Mapping[str, Any]) -> float | None:
    """When a Subscription ends, None when it does not say."""
    value = subscription.get("end")
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.timestamp() if moment is not None and moment.tzinfo is not None else None


def renew_at(renewed_at: float, ends: float, life_s: float) -> float:
    """When a Subscription asked for at `renewed_at` must be renewed: at 60 % of the life that the EHR gave it.

    An EHR that does not move the end, or whose clock is behind, is not asked more than once a minute.
    """
    given_s = ends - renewed_at if ends > renewed_at else life_s
    return renewed_at + max(RENEW_AT * given_s, min(ONCE_S, RENEW_AT * life_s))
