"""Security labels: what a result inherits from what it rests on, and which inputs no rationale names. Pure.

The labels of a result go back into the chart they came from, so all are inherited; of confidentiality the highest
counts. Many charts have no labels, so a short list of codes says the same.
https://hl7.org/fhir/R4/security-labels.html
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sidecar.deid.draft import pairs
from sidecar.deid.rules import Rules, Sensitive

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_ASCENDING = "ULMNRV"
# What a statement is about, where that is not `code`; why it was made tells as much.
_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "Encounter": ("type", "serviceType", "reasonCode"),
    "Procedure": ("code", "reasonCode"),
    "MedicationRequest": ("medicationCodeableConcept", "reasonCode"),
    "MedicationStatement": ("medicationCodeableConcept", "reasonCode"),
    "MedicationAdministration": ("medicationCodeableConcept", "reasonCode"),
    "Immunization": ("vaccineCode", "reasonCode"),
    "DiagnosticReport": ("code", "conclusionCode"),
    "Appointment": ("appointmentType", "serviceType", "specialty", "reasonCode"),
}


def inherited(resources: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The labels (`system|code`) of what rests on `resources`, in a fixed order, with the highest confidentiality."""
    return joined(_labels(resource) for resource in resources)


def joined(labels: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Several results' labels as one's."""
    found = {label for each in labels for label in each}
    degrees = {label for label in found if label.startswith(CONFIDENTIALITY + "|")}
    highest = max(degrees, key=lambda label: _ASCENDING.find(label[-1]), default=None)
    kept = sorted(found - degrees)
    return tuple([highest, *kept] if highest else kept)


def is_sensitive(resource: Mapping[str, Any], rules: Rules) -> bool:
    """Whether naming `resource` in a rationale would reveal a condition that the policy holds back."""
    meta = resource.get("meta")
    if isinstance(meta, dict) and "security" in meta and not rules.sensitive.labels.isdisjoint(_labels(resource)):
        return True
    if resource.get("resourceType") in _ELSEWHERE:
        return any(
            isinstance(system, str) and isinstance(code, str) and _is_listed(system, code, rules.sensitive)
            for element in _ELSEWHERE[str(resource["resourceType"])]
            for concept in _listed(resource.get(element))
            for system, code in pairs(concept)
        )
    for concept in (resource.get("code"), resource.get("valueCodeableConcept")):
        for system, code in pairs(concept) if concept is not None else ():
            if isinstance(system, str) and isinstance(code, str) and _is_listed(system, code, rules.sensitive):
                return True
    return False


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@lru_cache(maxsize=4096)
def _is_listed(system: str, code: str, sensitive: Sensitive) -> bool:
    return code in sensitive.codes.get(system, ()) or code.startswith(sensitive.beginnings.get(system, ()))


def _labels(resource: Mapping[str, Any]) -> list[str]:
    meta = resource.get("meta")
    said = meta.get("security") if isinstance(meta, dict) else None
    if said is None:
        return []
    return [f"{s or ''}|{c}" for s, c in pairs({"coding": said}) if (s is None or _is_label(s)) and _is_label(c)]


def _is_label(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 200 and "|" not in text and text.isprintable()
