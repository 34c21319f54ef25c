"""Subscription topics: what counts as an event, and what a client may filter by.

R4 has no SubscriptionTopic, so a topic is a `Basic` resource with the extensions R5 reads back from
(http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic.*). The EHR starts with one "changed" topic for
each type of `CHANGED`, told on create, update and delete; a site adds, changes or removes topics by writing Basic.
Left out: eventTrigger, fhirPathCriteria and includes of a notificationShape; a topic with one of them is refused.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/components.html#subscription-topics
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from sidecar.sandbox.chart import Chart, Version
from sidecar.sandbox.outcome import Refusal, Resource, refuse
from sidecar.sandbox.parameters import parameters_of
from sidecar.sandbox.search import Dialect, Search, parse_filters

Interaction: TypeAlias = Literal["create", "update", "delete"]

CHANGED = ("Patient", "Encounter", "Observation", "Condition")
TOPIC_ROOT = "http://practice-ehr.example/SubscriptionTopic/"
_CODE = {"system": "http://hl7.org/fhir/fhir-types", "code": "SubscriptionTopic"}
_WRITTEN = "http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic."
_READ = (_WRITTEN, "http://hl7.org/fhir/4.3/StructureDefinition/extension-SubscriptionTopic.")
_TYPE_ROOT = "http://hl7.org/fhir/StructureDefinition/"
_INTERACTIONS: tuple[Interaction, ...] = get_args(Interaction)


def changed_topic(type_name: str) -> str:
    """Return the canonical of the built-in topic "a resource of this type changed"."""
    return f"{TOPIC_ROOT}{type_name.lower()}-changed"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One rule of a topic: the type, the interactions, and searches on the versions before and after."""

    type_name: str
    interactions: frozenset[str]
    previous: Search | None = None
    current: Search | None = None
    passes_on_create: bool = True
    passes_on_delete: bool = True
    require_both: bool = False

    def fires(self, version: Version, before: Version | None) -> bool:
        """Tell whether `version`, which replaces the living `before`, is an event."""
        if version.type_name != self.type_name or _interaction(version, before) not in self.interactions:
            return False
        tests = []
        if self.previous is not None:
            tests.append(self.previous.matches(before) if before else self.passes_on_create)
        if self.current is not None:
            tests.append(self.current.matches(version) if version.resource else self.passes_on_delete)
        return all(tests) if self.require_both or not tests else any(tests)


def _interaction(version: Version, before: Version | None) -> Interaction:
    if version.resource is None:
        return "delete"
    return "update" if before else "create"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as this server evaluates it; `filters` are the filter parameters by type."""

    url: str
    version: str | None
    status: str
    triggers: tuple[Trigger, ...]
    filters: dict[str, frozenset[str]]

    @property
    def types(self) -> frozenset[str]:
        """The types its events are about."""
        return frozenset(trigger.type_name for trigger in self.triggers)

    def fires(self, version: Version, before: Version | None) -> bool:
        """Tell whether `version`, which replaces the living `before`, is an event of this topic."""
        return any(trigger.fires(version, before) for trigger in self.triggers)

    def filter(self, text: str, dialect: Dialect) -> Search:
        """Understand a filter of a client, `Type?parameter=value`; the type may be left out when there is but one.

        Raises:
            Refusal: 422, not of this topic's types, not one of its filters, or a value is wrong.
        """
        type_name, mark, query = text.partition("?")
        if not mark and len(self.types) == 1:
            (type_name,), query = self.types, text
        if type_name not in self.types:
            raise refuse(422, "business-rule", f"the topic has no events about {type_name!r}")
        known = self.filters.get(type_name, frozenset())
        names = [pair.partition("=")[0].partition(":")[0] for pair in query.split("&")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise refuse(422, "not-supported", f"the topic cannot be filtered by {unknown[0]!r}")
        return _search(type_name, query, dialect)


class Topics:
    """The topics of one EHR, read from the Basic resources in its chart."""

    def __init__(self, chart: Chart, dialect: Dialect) -> None:
        """Look topics up in `chart`."""
        self._chart = chart
        self._dialect = dialect

    def write_built_in(self) -> None:
        """Store the built-in topics of the types that are served, as any site could."""
        if self._dialect.capabilities.topics is None:
            return
        for type_name in sorted(self._dialect.capabilities.supported().intersection(CHANGED)):
            basic = _changed_basic(type_name, _filterable(type_name, self._dialect))
            self._chart.put("Basic", f"{type_name.lower()}-changed", basic)

    def active(self) -> list[Topic]:
        """Return every topic a client can subscribe to."""
        basics = (version.resource for version in self._chart.living("Basic") if version.resource)
        topics = [read_topic(basic, self._dialect) for basic in basics if is_topic(basic)]
        return [topic for topic in topics if topic.status == "active"]

    def find(self, canonical: str) -> Topic | None:
        """Return the active topic of a canonical, `url` or `url|version`; None when there is none."""
        url, _, version = canonical.partition("|")
        named = [topic for topic in self.active() if topic.url == url]
        return next((topic for topic in named if version in {"", topic.version}), None)

    def check(self, basic: Resource) -> None:
        """Return if a Basic can be stored: it is no topic, or one this server can evaluate.

        Raises:
            Refusal: 422, as `read_topic`.
        """
        if is_topic(basic):
            read_topic(basic, self._dialect)


def is_topic(basic: Resource) -> bool:
    """Tell whether a Basic is a SubscriptionTopic."""
    codings = basic.get("code", {}).get("coding", [])
    return any((each.get("system"), each.get("code")) == (_CODE["system"], _CODE["code"]) for each in codings)


def read_topic(basic: Resource, dialect: Dialect) -> Topic:
    """Read a topic from its Basic.

    Raises:
        Refusal: 422, an element is missing, or needs what this server cannot do.
    """
    parts = [*_parts(basic.get("extension", [])), *_parts(basic.get("modifierExtension", []))]
    values = dict(parts)
    if "eventTrigger" in values:
        raise _bad("eventTrigger is not supported")
    for shape in (dict(_parts(each)) for name, each in parts if name == "notificationShape"):
        if {"include", "revInclude"} & shape.keys():
            raise _bad("a notificationShape with includes is not supported")
    url, status = values.get("url"), values.get("status")
    if not isinstance(url, str) or not isinstance(status, str):
        raise _bad("url and status are required")
    triggers = tuple(_trigger(each, dialect) for name, each in parts if name == "resourceTrigger")
    if not triggers:
        raise _bad("a resourceTrigger is required")
    topic = Topic(url, values.get("version"), status, triggers, {})
    for each in (list(_parts(extensions)) for name, extensions in parts if name == "canFilterBy"):
        _add_filter(topic, dict(each), dialect)
    return topic


def _filterable(type_name: str, dialect: Dialect) -> list[str]:
    """Name what a type can be filtered by: every search parameter but the time it was stored."""
    known = parameters_of(type_name, identifier_search=dialect.capabilities.identifier_search)
    return [name for name in known if name != "_lastUpdated"]


def _add_filter(topic: Topic, fields: dict[str, Any], dialect: Dialect) -> None:
    name = str(fields.get("filterParameter"))
    types = {_type_name(fields["resource"])} if "resource" in fields else topic.types
    for type_name in types:
        if type_name not in topic.types or name not in _filterable(type_name, dialect):
            raise _bad(f"canFilterBy {name!r} is not a search parameter of a triggering type")
        topic.filters[type_name] = topic.filters.get(type_name, frozenset()) | {name}


def _trigger(extensions: Any, dialect: Dialect) -> Trigger:
    parts = list(_parts(extensions))
    fields = dict(parts)
    type_name = _type_name(fields.get("resource", ""))
    if type_name not in dialect.capabilities.supported():
        raise _bad(f"resourceTrigger.resource {type_name!r} is not supported")
    if "fhirPathCriteria" in fields:
        raise _bad("fhirPathCriteria is not supported")
    interactions = frozenset(str(each) for name, each in parts if name == "supportedInteraction")
    if not interactions <= set(_INTERACTIONS):
        raise _bad(f"supportedInteraction must be one of {', '.join(_INTERACTIONS)}")
    criteria = dict(_parts(fields.get("queryCriteria", [])))
    previous, current = (criteria.get(name) for name in ("previous", "current"))
    return Trigger(
        type_name,
        interactions or frozenset(_INTERACTIONS),
        previous=_search(type_name, _query(previous), dialect) if previous else None,
        current=_search(type_name, _query(current), dialect) if current else None,
        passes_on_create=criteria.get("resultForCreate") != "test-fails",
        passes_on_delete=criteria.get("resultForDelete") != "test-fails",
        require_both=bool(criteria.get("requireBoth")),
    )


def _query(criteria: Any) -> str:
    """Cut the type off `Encounter?status=finished`; both spellings are in use."""
    return str(criteria).rpartition("?")[2]


def _search(type_name: str, query: str, dialect: Dialect) -> Search:
    try:
        return parse_filters(type_name, query, dialect)
    except Refusal as refusal:
        raise _bad(str(refusal)) from refusal


def _type_name(uri: Any) -> str:
    return str(uri).removeprefix(_TYPE_ROOT)


def _bad(problem: str) -> Refusal:
    return refuse(422, "business-rule", f"SubscriptionTopic: {problem}")


def _parts(extensions: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name of each extension with its value, or with the extensions inside it."""
    for extension in extensions if isinstance(extensions, list) else []:
        url = str(extension["url"])
        root = next((each for each in _READ if url.startswith(each)), "")
        value = (each for name, each in extension.items() if name.startswith("value"))
        yield url.removeprefix(root), next(value, extension.get("extension", []))


def _changed_basic(type_name: str, filters: list[str]) -> Resource:
    """Render a built-in topic."""
    resource = {"url": "resource", "valueUri": f"{_TYPE_ROOT}{type_name}"}
    interactions = [{"url": "supportedInteraction", "valueCode": each} for each in _INTERACTIONS]
    return {
        "resourceType": "Basic",
        "modifierExtension": [{"url": f"{_WRITTEN}status", "valueCode": "active"}],
        "extension": [
            {"url": f"{_WRITTEN}url", "valueUri": changed_topic(type_name)},
            {"url": f"{_WRITTEN}version", "valueString": "1.0.0"},
            {"url": f"{_WRITTEN}title", "valueString": f"{type_name} created, updated or deleted"},
            {"url": f"{_WRITTEN}resourceTrigger", "extension": [resource, *interactions]},
            *({"url": f"{_WRITTEN}canFilterBy", "extension": [resource, _filter_parameter(name)]} for name in filters),
            {"url": f"{_WRITTEN}notificationShape", "extension": [resource]},
        ],
        "code": {"coding": [_CODE]},
    }


def _filter_parameter(name: str) -> Resource:
    return {"url": "filterParameter", "valueString": name}
