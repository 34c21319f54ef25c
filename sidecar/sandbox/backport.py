"""Shapes of the Subscriptions R5 Backport guide in R4: what a Subscription says, what a notification looks like.

Pure. `quirks.Backport` decides how far the shapes keep to the guide; the default keeps to it in full.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sidecar.sandbox.bundles import history_entry
from sidecar.sandbox.chart import Version
from sidecar.sandbox.moments import instant
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.quirks import Backport, Content

Kind: TypeAlias = Literal["handshake", "heartbeat", "event-notification", "query-status", "query-event"]

ROOT = "http://hl7.org/fhir/uv/subscriptions-backport"
_PROFILES = f"{ROOT}/StructureDefinition/"
_ERRORS = "http://terminology.hl7.org/CodeSystem/subscription-error"


@dataclass(frozen=True, slots=True)
class Event:
    """A version that a Subscription is to be told of; `number` counts from 1 within it, 0 is "not counted"."""

    version: Version
    number: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What is told of a Subscription at one moment: how many events there ever were, and some of them."""

    subscription: Resource
    kind: Kind
    since_start: int
    content: Content
    events: Sequence[Event] = ()


def extension_value(element: Resource | None, name: str) -> Any:
    """Return the value of the guide's extension `backport-{name}` on an element; None when it is not there."""
    return next(iter(extension_values(element, name)), None)


def extension_values(element: Resource | None, name: str) -> list[Any]:
    """Return the values of every extension `backport-{name}` on an element."""
    extensions = (element or {}).get("extension", [])
    named = [each for each in extensions if each.get("url") == f"{_PROFILES}backport-{name}"]
    return [value for each in named for key, value in each.items() if key.startswith("value")]


class Shapes:
    """Renders notifications and the answers to `$status` and `$events`, with the quirks of one server."""

    def __init__(self, quirks: Backport, base_url: str) -> None:
        """Render for the server at `base_url`."""
        self._quirks = quirks
        self._base_url = base_url

    def notification(self, state: State, at: datetime) -> Resource:
        """Render a notification, or the answer to `$events`: a history Bundle that opens with the status."""
        if self._quirks.counters == "bundle":
            state = _counted_in_the_bundle(state)
        entries = [self._status_entry(state)]
        if state.content != "empty":
            entries += [self._event_entry(event.version, state.content) for event in state.events]
        r4 = "-r4" if self._quirks.status_resource == "Parameters" else ""
        return {
            "resourceType": "Bundle",
            "id": str(uuid.uuid4()),
            "meta": {"profile": [f"{_PROFILES}backport-subscription-notification{r4}"]},
            "type": "history",
            "timestamp": instant(at),
            "entry": entries,
        }

    def statuses(self, states: Iterable[State], self_url: str) -> Resource:
        """Render the answer to `$status`: a searchset."""
        resources = [self._status(state) for state in states]
        entries = [
            {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource, "search": {"mode": "match"}}
            for resource in resources
        ]
        bundle = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(entries),
            "link": [{"relation": "self", "url": self_url}],
        }
        return bundle | ({"entry": entries} if entries else {})

    def _event_entry(self, version: Version, content: Content) -> Resource:
        entry = history_entry(version, self._base_url)
        if content == "id-only":
            entry.pop("resource", None)
        return entry

    def _status_entry(self, state: State) -> Resource:
        resource = self._status(state)
        entry: Resource = {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}
        if self._quirks.status_request:
            url = f"{self._base_url}/Subscription/{state.subscription['id']}/$status"
            entry |= {"request": {"method": "GET", "url": url}, "response": {"status": "200"}}
        return entry

    def _status(self, state: State) -> Resource:
        as_parameters = self._quirks.status_resource == "Parameters"
        return self._parameters(state) if as_parameters else self._subscription_status(state)

    def _parameters(self, state: State) -> Resource:
        parameters: list[Resource] = [
            {"name": "subscription", "valueReference": self._subscription(state)},
            {"name": "status", "valueCode": state.subscription["status"]},
            {"name": "type", "valueCode": state.kind},
            {"name": self._name("events-since-subscription-start"), "valueString": str(state.since_start)},
        ]
        if state.content != "empty":
            topic = {"name": "topic", "valueCanonical": state.subscription["criteria"]}
            parameters.insert(1, topic)
        parameters += [self._event_parameter(event, state.content) for event in state.events]
        parameters += [{"name": "error", "valueCodeableConcept": each} for each in _errors(state.subscription)]
        return {
            "resourceType": "Parameters",
            "id": str(uuid.uuid4()),
            "meta": {"profile": [f"{_PROFILES}backport-subscription-status-r4"]},
            "parameter": parameters,
        }

    def _event_parameter(self, event: Event, content: Content) -> Resource:
        parts: list[Resource] = [
            {"name": self._name("event-number"), "valueString": str(event.number)},
            {"name": "timestamp", self._quirks.timestamp: self._timestamp(event)},
        ]
        if content != "empty":
            parts.append({"name": "focus", "valueReference": self._focus(event.version)})
        return {"name": self._name("notification-event"), "part": parts}

    def _subscription_status(self, state: State) -> Resource:
        """Render the resource R4B has for it, which some servers send although they speak R4."""
        events: list[Resource] = []
        for event in state.events:
            told: Resource = {"eventNumber": str(event.number), "timestamp": self._timestamp(event)}
            events.append(told | ({} if state.content == "empty" else {"focus": self._focus(event.version)}))
        status: Resource = {
            "resourceType": "SubscriptionStatus",
            "id": str(uuid.uuid4()),
            "status": state.subscription["status"],
            "type": state.kind,
            "eventsSinceSubscriptionStart": str(state.since_start),
            "subscription": self._subscription(state),
        }
        if state.content != "empty":
            status["topic"] = state.subscription["criteria"]
        errors = _errors(state.subscription)
        return status | ({"notificationEvent": events} if events else {}) | ({"error": errors} if errors else {})

    def _timestamp(self, event: Event) -> str:
        at = instant(event.version.at)
        return at.partition("T")[0] if self._quirks.timestamp == "valueDate" else at

    def _name(self, kebab: str) -> str:
        if self._quirks.names == "kebab":
            return kebab
        first, *rest = kebab.split("-")
        return first + "".join(each.capitalize() for each in rest)

    def _subscription(self, state: State) -> Resource:
        return {"reference": self._located(f"Subscription/{state.subscription['id']}")}

    def _focus(self, version: Version) -> Resource:
        suffix = f"/_history/{version.number}" if self._quirks.versioned_focus else ""
        return {"reference": self._located(version.reference) + suffix}

    def _located(self, reference: str) -> str:
        return f"{self._base_url}/{reference}" if self._quirks.references == "absolute" else reference


def _counted_in_the_bundle(state: State) -> State:
    events = [Event(event.version, number) for number, event in enumerate(state.events, 1)]
    return State(state.subscription, state.kind, len(events), state.content, events)


def _errors(subscription: Resource) -> list[Resource]:
    """Say why a Subscription is in error; how the receiver answered is in its `error`, as text."""
    if subscription["status"] != "error" or "error" not in subscription:
        return []
    code = "no-response" if "did not answer" in subscription["error"] else "error-response"
    return [{"coding": [{"system": _ERRORS, "code": code}], "text": subscription["error"]}]


def advertise(statement: Resource, quirks: Backport, topics: Iterable[str]) -> None:
    """Add to a CapabilityStatement what the server does of the guide, and the canonicals of its topics."""
    resources = statement["rest"][0]["resource"]
    subscription = next(each for each in resources if each["type"] == "Subscription")
    subscription["supportedProfile"] = [f"{_PROFILES}backport-subscription"]
    names = (("status", quirks.status_operation), ("events", quirks.events_operation))
    operations = [
        {"name": name, "definition": f"{ROOT}/OperationDefinition/backport-subscription-{name}"}
        for name, there in names
        if there
    ]
    if operations:
        subscription["operation"] = operations
    url = f"{_PROFILES}capabilitystatement-subscriptiontopic-canonical"
    canonicals = [{"url": url, "valueCanonical": canonical} for canonical in topics]
    if canonicals and quirks.advertised:
        subscription["extension"] = canonicals
