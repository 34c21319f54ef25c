"""Parse FHIR references. They are compared and put into paths, never followed as URLs.

https://hl7.org/fhir/R4/references.html#literal
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

from sidecar.fhir.origin import Base
from sidecar.records import Reference, is_fhir_id, is_type_name

_RELATIVE = re.compile(
    r"(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})(/_history/(?P<version>[A-Za-z0-9\-.]{1,64}))?"
)


def parse(value: object, base_url: str | None = None) -> Reference | None:
    """The resource that `value` names in the configured EHR, or None.

    Absolute references count only under `base_url`, whatever the case of its host and whether a default port is
    spelled out; other hosts, logical references, fragments and anything outside FHIR's grammar are None.
    """
    if not isinstance(value, str):
        return None
    if base_url is not None and value.startswith(base_url + "/"):
        value = value[len(base_url) + 1 :]
    elif base_url is not None and "://" in value and "#" not in value:
        value = _base(base_url).inside(value) or ""
    match = _RELATIVE.fullmatch(value)
    if match is None or not is_fhir_id(match["id"]):
        return None
    return Reference(match["type"], match["id"], match["version"])


@functools.lru_cache(maxsize=8)
def _base(base_url: str) -> Base:
    return Base(base_url)


def of(element: object, base_url: str | None = None) -> Reference | None:
    """The same for a Reference element (`{"reference": "Patient/1"}`)."""
    return parse(element.get("reference"), base_url) if isinstance(element, dict) else None


def identity(resource: Mapping[str, Any]) -> Reference | None:
    """The reference, with version, of a resource as read; None when its id or type is outside the grammar."""
    type_name, logical_id = resource.get("resourceType"), resource.get("id")
    if not is_type_name(type_name) or not is_fhir_id(logical_id):
        return None
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return Reference(str(type_name), str(logical_id), version if is_fhir_id(version) else None)


_ABOUT: Mapping[str, tuple[str, ...]] = {
    "Encounter": ("type", "serviceType", "priority"),
    "MedicationRequest": ("medicationCodeableConcept",),
    "MedicationStatement": ("medicationCodeableConcept",),
    "MedicationAdministration": ("medicationCodeableConcept",),
    "Immunization": ("vaccineCode",),
    "Appointment": ("appointmentType", "serviceCategory", "serviceType", "specialty"),
}
"""The elements that say what a statement is about, where that is not `code`."""


def subjects(resource: Mapping[str, Any]) -> list[Any]:
    """The elements that say whom a resource is about: `subject`, `patient`, or whoever takes part in an appointment."""
    if resource.get("resourceType") == "Appointment":
        return [p.get("actor") for p in _listed(resource.get("participant")) if isinstance(p, dict)]
    return [resource.get("subject", resource.get("patient"))]


def named(resource: Mapping[str, Any], wanted: frozenset[str]) -> bool:
    """Whether a resource is about one of `wanted`: codes, codes that begin so ("I50*"), or anything ("*|*")."""
    if "*|*" in wanted:
        return True
    own = codes(resource)
    beginnings = tuple(code[:-1] for code in wanted if code.endswith("*"))
    return not own.isdisjoint(wanted) or (bool(beginnings) and any(code.startswith(beginnings) for code in own))


def codes(resource: Mapping[str, Any]) -> frozenset[str]:
    """Every `system|code` of what a resource is about: of an Observation its components' too, of a stay its class."""
    elements = _ABOUT.get(str(resource.get("resourceType")))
    if elements is not None:
        concepts = [c for e in elements for c in _many(resource.get(e))] + [{"coding": [resource.get("class")]}]
        return frozenset(code for concept in concepts for code in _codes(concept))
    found = _codes(resource.get("code"))
    for component in _listed(resource.get("component")):
        if isinstance(component, dict):
            found += _codes(component.get("code"))
    return frozenset(found)


def _codes(concept: object) -> list[str]:
    listed = _listed(concept.get("coding")) if isinstance(concept, dict) else []
    return [f"{coding.get('system')}|{coding.get('code')}" for coding in listed if isinstance(coding, dict)]


def _many(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
