"""One feature of the language, told of a chart: Bundle, context, de-identification, extraction. No graph is run."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sidecar.context import from_bundle
from sidecar.deid import deidentify
from sidecar.features import Extractor, SiteChoices
from sidecar.manifest import Manifest
from sidecar.records import Feature
from tests.unit.chart import AT, Resource, bundle, concept, person, rules

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACT_PRIORITY = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
ATC = "http://www.whocc.no/atc"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
SUBJECT = {"reference": "Patient/p1"}
INPATIENT = (f"{ACT}|IMP", f"{ACT}|ACUTE")


def manifest(features: dict[str, Any], graph: list[str] | None = None, **more: Any) -> Manifest:
    """A points model of these features; the present stay is the newest inpatient one."""
    named = graph or list(features)
    return Manifest.model_validate(
        {
            "schema": 1, "name": "tiny", "version": "1.0.0", "title": "Tiny", "kind": "points", "validity": "6h",
            "spread": "3650d",
            "graph": {"sha256": "0" * 64, "features": named, "total": "score", "points": "points", "point_names": named},
            "cohort": {"exclude": [], "stays": list(INPATIENT)},
            "features": {name: {"label": name, "unit": "1", **spec} for name, spec in features.items()},
            "bands": [{"risk": "low", "text": "low", "at_least": 0}],
            "incomplete": {"urgent_at_least": 5, "urgent_any_points": 3},
            "result": {"code": "urn:x|y", "display": "tiny", "outcome": "tiny", "risk_system": "urn:x"},
            **more,
        }
    )  # fmt: skip


def all_told(
    declared: Manifest, *charted: Resource, at: datetime = AT, tz: str = "UTC", who: Resource | None = None
) -> dict[str, Feature]:
    """Every feature of a model, of a chart as of `at`."""
    extractor = Extractor(declared, SiteChoices())
    classes = frozenset(declared.cohort.stays)
    snapshot = from_bundle(bundle(who or person(), *charted), declared.set_codes, at, ZoneInfo(tz), classes)
    return extractor.run(deidentify(snapshot, rules(), extractor.reads))[1]


def told(spec: dict[str, Any], *charted: Resource, at: datetime = AT, tz: str = "UTC") -> Feature:
    """The feature `x` of a chart."""
    return all_told(manifest({"x": spec}), *charted, at=at, tz=tz)["x"]


def ago(**past: float) -> str:
    """A moment before AT as FHIR writes it."""
    return (AT - timedelta(**past)).isoformat()


def visit(key: str, start: str, end: str | None = None, kind: str = "IMP", **more: Any) -> Resource:
    """A stay or a visit of a class."""
    return {
        "resourceType": "Encounter", "id": key, "subject": SUBJECT, "class": {"system": ACT, "code": kind},
        "status": "finished" if end else "in-progress", "period": {"start": start, **({"end": end} if end else {})}, **more,
    }  # fmt: skip


def diagnosis(code: str, key: str = "c1", **more: Any) -> Resource:
    """An active, confirmed diagnosis."""
    return {
        "resourceType": "Condition", "id": key, "subject": SUBJECT, "code": concept(code),
        "clinicalStatus": concept("http://terminology.hl7.org/CodeSystem/condition-clinical|active"), **more,
    }  # fmt: skip


def clinically(status: str) -> dict[str, Any]:
    """A clinical status."""
    return {"clinicalStatus": concept(f"http://terminology.hl7.org/CodeSystem/condition-clinical|{status}")}


def order(code: str, key: str = "m1", **more: Any) -> Resource:
    """A medicine that is ordered and in force."""
    return {
        "resourceType": "MedicationRequest", "id": key, "subject": SUBJECT, "status": "active", "intent": "order",
        "medicationCodeableConcept": concept(code), "authoredOn": ago(days=100), **more,
    }  # fmt: skip


def procedure(code: str, when: str, key: str = "pr1", **more: Any) -> Resource:
    """A procedure that was done."""
    return {
        "resourceType": "Procedure", "id": key, "subject": SUBJECT, "status": "completed", "code": concept(code),
        "performedDateTime": when, **more,
    }  # fmt: skip


def statement(kind: str, key: str = "s1", **more: Any) -> Resource:
    """Any other statement about the patient."""
    return {"resourceType": kind, "id": key, "subject": SUBJECT, **more}
