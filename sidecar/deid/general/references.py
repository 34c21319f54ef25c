"""Whom a reference means, inside its Bundle and outside. Pure. https://hl7.org/fhir/R4/references.html.

References are parsed and never followed. Two ways to write one resource are one `Key`; what cannot be resolved for
certain is nobody.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote

from sidecar.deid.policy import Policy

Key = tuple[str, str]
"""Type and logical id of a resource; of one in a foreign server or inside another resource, an id that says so."""

# Types that de-identified resources point to and that have no table: people and places are tokens only.
_WITHOUT_TABLE = """
Account ActivityDefinition AdverseEvent BodyStructure CareTeam Claim ClaimResponse ClinicalImpression Communication
CommunicationRequest Composition Consent Contract DetectedIssue DeviceDefinition DeviceMetric DeviceRequest
DeviceUseStatement Endpoint EpisodeOfCare ExplanationOfBenefit Flag Group GuidanceResponse HealthcareService
ImmunizationEvaluation ImmunizationRecommendation InsurancePlan List Location MedicationDispense MedicationKnowledge
MolecularSequence NutritionOrder Organization Person PlanDefinition Practitioner PractitionerRole Provenance
Questionnaire RelatedPerson RequestGroup ResearchStudy ResearchSubject RiskAssessment Schedule Slot Substance
SupplyDelivery SupplyRequest Task VisionPrescription
"""
_TARGETS = frozenset(_WITHOUT_TABLE.split())
_ADDRESS = re.compile(r"(?:(https?://[^\s?#]{1,500})/)?([A-Z][A-Za-z]{1,63})/([A-Za-z0-9.\-]{1,64})", re.ASCII)
_SEARCH = re.compile(r"([A-Z][A-Za-z]{1,63})\?identifier=([^&]{1,500})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Types:
    """The types that a reference may name, and those of them that are passed on.

    A word in the place of a type that is none of them is payload.
    """

    named: frozenset[str]
    passed: frozenset[str]

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """Those of `policy`."""
        passed = frozenset(policy.types)
        return cls(_TARGETS | passed, passed)


class Scope:
    """The resources among which references resolve: a Bundle, with the one around it, or nothing."""

    def __init__(self, types: Types, bundle: Mapping[str, Any] | None = None, outer: "Scope | None" = None) -> None:
        listed = bundle.get("entry") if bundle is not None else None
        entries = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
        bases = Counter(base for e in entries if (base := _base(e.get("fullUrl"))) is not None)
        self._types, self._outer = types, outer
        self._base = bases.most_common(1)[0][0] if bases else None
        self._keys = {id(e): self._key_of_entry(e) for e in entries}
        keyed = [(key, e) for e in entries if (key := self._keys[id(e)]) is not None]
        self._resources = [(key, e["resource"]) for key, e in keyed]
        self._by_url = _by_url(keyed)
        self._known: dict[str, Key | None] = {}
        self._identified: dict[str, list[tuple[object, Key]]] | None = None
        self._inside = frozenset(key for key, _ in keyed if key[0] in types.passed)
        self.patient = self._only_patient()

    def key_of_entry(self, entry: Mapping[str, Any]) -> Key | None:
        """The resource in `entry`, which is one of the Bundle, or that its request deletes.

        None when nothing says which it is, or when what is deleted is said in two ways.
        """
        request = entry.get("request")
        if isinstance(request, dict) and method_of(request) == "DELETE":
            return self._deleted(entry, request.get("url"))
        return self._keys.get(id(entry))

    def _key_of_entry(self, entry: Mapping[str, Any]) -> Key | None:
        """By its type and id, or by what its fullUrl says where it has no id yet.

        Where the Bundle has entries of several servers, those of the rarer ones are known by their whole address: two
        servers may use one id for two people.
        """
        resource, url = entry.get("resource"), entry.get("fullUrl")
        type_name = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(type_name, str) or type_name not in self._types.named:
            return None
        bare = url.partition("/_history/")[0] if isinstance(url, str) else None
        if bare is not None and _base(bare) not in (None, self._base):
            return type_name, bare
        own = resource.get("id") if isinstance(resource, dict) else None
        if isinstance(own, str):
            return type_name, own
        if bare is None:
            return None
        found = _ADDRESS.fullmatch(bare)
        return type_name, found[3] if found else bare

    def _deleted(self, entry: Mapping[str, Any], url: object) -> Key | None:
        """What the entry's resource, its fullUrl and the URL of its request say as one, as far as they are there."""
        whole = entry.get("fullUrl")
        bare = whole.partition("/_history/")[0] if isinstance(whole, str) else None
        own = [self._keys.get(id(entry))] if entry.get("resource") is not None else []
        said = [*own]
        if bare is not None and _ADDRESS.fullmatch(bare) is not None:
            said.append(self._addressed(bare))
        elif bare in self._by_url and not own:
            said.append(self._by_url[bare])
        if url is not None:
            beside = _base(bare) if isinstance(url, str) and url[:1].isupper() and "?" not in url else None
            said.append(self.literal(f"{beside}/{url}" if beside else url) if isinstance(url, str) else None)
        return said[0] if said and len({*said}) == 1 else None

    def _only_patient(self) -> Key | None:
        patients = {key for key, _ in self._resources if key[0] == "Patient"}
        if len(patients) == 1:
            return patients.pop()
        return self._outer.patient if self._outer is not None and not patients else None

    def holds(self, key: Key) -> bool:
        """Whether an entry of the Bundle, or of one around it, is the resource `key`, of a type that is passed on."""
        return key in self._inside or (self._outer is not None and self._outer.holds(key))

    def key(self, reference: Mapping[str, Any]) -> Key | None:
        """The resource that a Reference means: by its literal reference, else by an identifier in the Bundle."""
        written = reference.get("reference")
        if isinstance(written, str):
            if written not in self._known:
                self._known[written] = self.literal(written)
            if (found := self._known[written]) is not None:
                return found
        identifier = reference.get("identifier")
        if not isinstance(identifier, dict):
            return None
        return self.identified(identifier.get("value"), identifier.get("system"), reference.get("type"))

    def literal(self, written: str) -> Key | None:
        """The resource that the text of a reference means: fullUrl, address, `Type/id`, or a search by identifier."""
        bare = written.partition("/_history/")[0]
        if bare in self._by_url:
            return self._by_url[bare]
        if (search := _SEARCH.fullmatch(written)) is not None:
            system, bar, value = unquote(search[2]).rpartition("|")
            return self.identified(value, (system or None) if bar else ..., search[1])
        if _ADDRESS.fullmatch(bare) is None:
            return self._outer.literal(written) if self._outer is not None else None
        return self._addressed(bare)

    def _addressed(self, bare: str) -> Key | None:
        """The resource at an address, or at a path in the server that most of the Bundle is of."""
        found = _ADDRESS.fullmatch(bare)
        if found is None or found[2] not in self._types.named:
            return None
        base, type_name, logical_id = found.groups()
        foreign = base is not None and self._base is not None and base != self._base
        return type_name, bare if foreign else logical_id

    def identified(self, value: object, system: object, type_name: object) -> Key | None:
        """The one entry with that identifier, of that type where one is said. `...` is any system."""
        if not isinstance(value, str) or not value:
            return None
        if self._identified is None:
            self._identified = _identifiers(self._resources)
        found = {
            key
            for has, key in self._identified.get(value, ())
            if (system is ... or has == system) and type_name in (None, key[0])
        }
        if found or self._outer is None:
            return found.pop() if len(found) == 1 else None
        return self._outer.identified(value, system, type_name)


def method_of(request: object) -> str | None:
    """What the request of an entry asks for; None when it does not say so alone."""
    if not isinstance(request, dict) or "_method" in request:
        return None
    method = request.get("method")
    return method if isinstance(method, str) else None


def _base(url: object) -> str | None:
    found = _ADDRESS.fullmatch(url.partition("/_history/")[0]) if isinstance(url, str) else None
    return found[1] if found is not None else None


def _by_url(entries: Iterable[tuple[Key, Mapping[str, Any]]]) -> dict[str, Key | None]:
    """Entries by fullUrl without its version; one address of two resources is nobody's."""
    found: dict[str, Key | None] = {}
    for key, entry in entries:
        url = entry.get("fullUrl")
        if isinstance(url, str):
            bare = url.partition("/_history/")[0]
            found[bare] = key if found.get(bare, key) == key else None
    return found


def _identifiers(resources: Iterable[tuple[Key, Mapping[str, Any]]]) -> dict[str, list[tuple[object, Key]]]:
    """System and resource of each identifier, by its value."""
    found: dict[str, list[tuple[object, Key]]] = {}
    for key, resource in resources:
        listed = resource.get("identifier")
        for each in listed if isinstance(listed, list) else [listed]:
            if isinstance(each, dict) and isinstance(value := each.get("value"), str):
                found.setdefault(value, []).append((each.get("system"), key))
    return found
