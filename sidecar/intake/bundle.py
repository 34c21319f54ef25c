"""Read a Backport notification, `$status` or `$events` Bundle. Pure. Every event keeps its number, where it has one.

The status is entry[0]: Parameters in R4, SubscriptionStatus where a server uses R4B's shape. Servers differ, so names
may be kebab-case or camelCase, numbers any primitive, references relative, absolute or versioned, timestamps of any
precision, and `request`/`response` absent. A focus is only ever looked up in the configured EHR, so the host of an
absolute reference (a server behind a proxy writes its own) does not matter.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sidecar.fhir import references
from sidecar.intake.notification import Refused, parse
from sidecar.intake.sources import Source
from sidecar.records import Event, Redacted, Reference

Kind = Literal["handshake", "heartbeat", "event-notification", "query-status", "query-event"]
MAX_EVENTS = 10_000
MAX_OTHERS = 100
MAX_NUMBER = 2**53
STATUS = "Bundle.entry[0].resource"
_BUNDLE_TYPES = ("history", "subscription-notification", "searchset", "collection")
_ONCE = {"type", "subscription", "status", "eventsSinceSubscriptionStart", "eventNumber", "focus"}
_TAIL = re.compile(
    r"(?:https?://[^?#\s]+/)?([A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?)"
)


@dataclass(frozen=True, slots=True)
class Notice:
    """What a Bundle says of the Subscription itself: nothing in it identifies anyone.

    `since` counts the events since the Subscription's start, those of this Bundle included; `numbers` are the events
    told here. `unnamed` says that something happened without saying what: it must be searched for.
    """

    kind: Kind
    subscription: str | None = None
    status: str | None = None
    since: int | None = None
    numbers: tuple[int, ...] = ()
    unnamed: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Notification(Redacted):
    """One Bundle: the notice, and the events that it names."""

    notice: Notice
    events: tuple[Event, ...] = ()


def read_bundle(body: bytes, source: Source, heard_at: float) -> Notification:
    """The notification in `body`.

    Raises:
        Refused: truncated, not JSON, nested deeper than 1024, no status in entry[0], or a focus that `source` does not
            take. The whole Bundle is refused: part of it acknowledged would be part of it lost.
    """
    told = read_status(parse(body, "Bundle"), source, heard_at)
    if told.notice.kind.startswith("query"):
        raise Refused("type", "is an answer to a query, not a notification")
    return told


def read_status(bundle: Mapping[str, Any], source: Source, heard_at: float) -> Notification:
    """The same, of a Bundle that is parsed already (`$status`, `$events`).

    Raises:
        Refused: as `read_bundle`.
    """
    if bundle.get("resourceType") != "Bundle":
        raise Refused("Bundle.resourceType", "is not Bundle")
    if bundle.get("type") not in _BUNDLE_TYPES:  # a tuple: what is sent may be a list, which no set can look up
        raise Refused("Bundle.type", "is not that of a notification")
    entries = list(_objects(bundle.get("entry")))
    status = _status(entries[0].get("resource") if entries else None)
    told = list(_objects(status.get("notificationEvent")))
    if len(told) > MAX_EVENTS:
        raise Refused("notification-event", f"more than {MAX_EVENTS}")
    kind = _kind(status.get("type"), told)
    hints = _hints(entries[1:])
    foci = [_focus(event.get("focus"), source) for event in told]
    events = tuple(
        Event(source.name, heard_at, *hints.get((f.type, f.id), (f, None)))
        for f in dict.fromkeys(foci)
        if f is not None
    )
    numbers = tuple(n for e in told if (n := _number(e.get("eventNumber"), "event-number")) is not None)
    notice = Notice(
        kind=kind,
        subscription=_subscription(status.get("subscription")),
        status=status.get("status") if isinstance(status.get("status"), str) else None,
        since=_number(status.get("eventsSinceSubscriptionStart"), "events-since-subscription-start"),
        numbers=numbers,
        unnamed=kind in {"event-notification", "query-event"} and (not told or None in foci),
    )
    return Notification(notice, events)


def _kind(value: object, told: list[Mapping[str, Any]]) -> Kind:
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        if value == kind:
            # Whatever it is called, what it tells must not be lost.
            return "event-notification" if told and kind in {"handshake", "heartbeat"} else kind
    raise Refused("type", "is not a kind of notification")


def _status(resource: object) -> Mapping[str, Any]:
    """Entry[0] with R4B's names: R4's Parameters are folded into the same shape."""
    if isinstance(resource, Mapping) and resource.get("resourceType") == "SubscriptionStatus":
        return resource
    if not isinstance(resource, Mapping) or resource.get("resourceType") != "Parameters":
        raise Refused(STATUS, "is not a subscription status")
    return _folded(resource.get("parameter"))


def _folded(parameters: object) -> Mapping[str, Any]:
    """Named values; several events and contexts, one of everything else."""
    if isinstance(parameters, list) and len(parameters) > MAX_EVENTS + MAX_OTHERS:
        raise Refused("Parameters.parameter", f"more than {MAX_EVENTS + MAX_OTHERS}")
    found: dict[str, Any] = {"notificationEvent": []}
    for parameter in _objects(parameters):
        name = _camel(parameter.get("name"))
        if name == "notificationEvent":
            found[name].append(_folded(parameter.get("part")))
        elif name in _ONCE and name in found:
            raise Refused(name, "is said twice")
        else:
            found[name] = next((v for k, v in parameter.items() if k.startswith("value")), None)
    return found


def _camel(name: object) -> str:
    known = _CAMEL.get(name) if isinstance(name, str) else None
    return known or _made_camel(str(name))


def _made_camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(part.capitalize() for part in rest)


_CAMEL = {
    name: _made_camel(name)
    for name in ("event-number", "events-since-subscription-start", "notification-event", "additional-context",
                 "subscription", "topic", "status", "type", "timestamp", "focus")
}  # fmt: skip


def _number(value: object, path: str) -> int | None:
    """A counter: a string in R4, a number where a server writes one."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        raise Refused(path, "is not a counter")
    return value


def _focus(element: object, source: Source) -> Reference | None:
    """The resource of an event; None when the event does not say which."""
    if element is None:
        return None
    reference = _reference(element)
    if reference is None:
        raise Refused("focus", "is not a reference to a resource")
    if reference.type != source.type:
        raise Refused("focus", f"this hook takes {source.type}")
    return reference


def _reference(element: object) -> Reference | None:
    value = element.get("reference") if isinstance(element, Mapping) else None
    match = _TAIL.fullmatch(value) if isinstance(value, str) and len(value) <= 2048 else None
    return references.parse(match[1]) if match else None


def _subscription(element: object) -> str | None:
    reference = _reference(element)
    return reference.id if reference is not None and reference.type == "Subscription" else None


def _hints(entries: list[Mapping[str, Any]]) -> Mapping[tuple[str, str], tuple[Reference, str | None]]:
    """Version and `lastUpdated` of resources sent along: they tell a repeat from news, and nothing else is used.

    Of a resource that is there twice, or deleted, none: one version's repeat must not hide the other.
    """
    found: dict[tuple[str, str], tuple[Reference, str | None]] = {}
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        resource, request = entry.get("resource"), entry.get("request")
        own = references.identity(resource) if isinstance(resource, Mapping) else None
        if own is None:  # a deletion names its resource in the request only
            own = _reference({"reference": request.get("url")}) if isinstance(request, Mapping) else None
            resource = None
        if own is None:
            continue
        key = own.type, own.id
        if key in seen or resource is None:
            found.pop(key, None)
        else:
            meta = resource.get("meta")
            updated = meta.get("lastUpdated") if isinstance(meta, Mapping) else None
            found[key] = own, updated if isinstance(updated, str) and len(updated) <= 64 else None
        seen.add(key)
    return found


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if value is not None and not isinstance(value, list):
        raise Refused("Bundle", "a list is expected where there is none")
    for item in value or ():
        if not isinstance(item, Mapping):
            raise Refused("Bundle", "a list holds something that is no object")
        yield item
