"""Render an assessment as FHIR R4 resources.

Pure: values in, JSON out. Sending them is `sidecar.writeback.deliver`. RiskAssessment has no element for a points
total, so the total is an Observation (category survey) that the RiskAssessment cites in its `basis`.
https://hl7.org/fhir/R4/riskassessment.html https://hl7.org/fhir/R4/observation.html
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sidecar.manifest import Component, Manifest
from sidecar.records import Assessment, Conclusion, Evidence, Feature, Outcome
from sidecar.writeback import note

ASSESSMENT_SYSTEM = "urn:ehr-sidecar:assessment"
SCORE_SYSTEM = "urn:ehr-sidecar:score"
MODEL_SYSTEM = "urn:ehr-sidecar:model"
DEVICE_SYSTEM = "urn:ehr-sidecar:model-digest"
AIAST = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}


@dataclass(frozen=True, slots=True)
class Links:
    """What a rendered resource points to, and this EHR's conventions.

    `device` and `observation` are literal references, where they exist; `rationale` is the words for the top points.
    """

    identity: bytes
    status: str
    device: str
    rationale: str
    reasons: tuple[str, ...] = ()
    observation: str | None = None
    score_value: str = "{score}"


def resource_id(prefix: str, identity: bytes) -> str:
    """A deterministic FHIR id with a letter in it, so that servers which reserve numeric ids take it."""
    return f"{prefix}-{identity.hex()[:40]}"


def device(manifest: Manifest, digest: str) -> dict[str, Any]:
    """The model version as a Device: one per digest."""
    return {
        "resourceType": "Device",
        "id": f"sd-{digest[:40]}",
        "identifier": [{"system": DEVICE_SYSTEM, "value": digest}],
        "status": "active",
        "deviceName": [{"name": f"{manifest.title} ({manifest.name})", "type": "model-name"}],
        "modelNumber": manifest.name,
        "version": [{"value": manifest.version}],
        "type": {"text": "Clinical risk model run by the EHR sidecar"},
    }


def observation(conclusion: Conclusion, manifest: Manifest, links: Links) -> dict[str, Any] | None:
    """The points total with one component a parameter; None unless the assessment is a complete total.

    Raises:
        ValueError: a scored assessment without a score.
    """
    a, e = conclusion.assessment, conclusion.evidence
    if a.outcome is not Outcome.SCORED:
        return None
    if a.score is None:
        raise ValueError("a scored assessment has no score")
    features = {f.name: f for f in a.vector.features}
    return _without_none(
        {
            "resourceType": "Observation",
            "id": resource_id("so", links.identity),
            "meta": {"security": [AIAST]},
            "identifier": [{"system": SCORE_SYSTEM, "value": links.identity.hex()}],
            "status": links.status,
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                            "code": "survey",
                        }
                    ]
                }
            ],
            "code": _concept(manifest.result.code, manifest.result.display),
            "subject": {"reference": f"Patient/{e.patient.value}"},
            "encounter": _encounter(e),
            "effectiveDateTime": _instant(e.occurred_at),
            **_points(a.score, links.score_value),
            "method": {"text": f"{manifest.title}, {manifest.name} {a.version}"},
            "device": {"reference": links.device},
            "derivedFrom": [{"reference": r.versioned} for r in e.basis if r.type == "Observation"] or None,
            "component": [
                {"code": _concept(c.code, c.display), **_points(a.contributions[c.points], links.score_value)}
                for c in manifest.result.components
                if c.points in a.contributions and _applies(c, features)
            ],
        }
    )


def score_stub(conclusion: Conclusion, identity: bytes) -> dict[str, Any]:
    """As much of the total's Observation as it takes to find it in the chart."""
    return {
        "resourceType": "Observation",
        "id": resource_id("so", identity),
        "identifier": [{"system": SCORE_SYSTEM, "value": identity.hex()}],
        "subject": {"reference": f"Patient/{conclusion.evidence.patient.value}"},
    }


def risk_assessment(conclusion: Conclusion, manifest: Manifest, links: Links) -> dict[str, Any]:
    """State `conclusion` to a clinician as a RiskAssessment.

    The same identity always renders to the same identifier and id, so a redelivered event cannot create a second one
    (tests/acceptance). Points are not a probability: `probability[x]` stays empty. An incomplete total is said in
    words, "at least", and its band is not coded, so that no reader can take it for a total.
    """
    a, e = conclusion.assessment, conclusion.evidence
    basis = [{"reference": r.versioned} for r in e.basis]
    if links.observation:
        basis.insert(0, {"reference": links.observation})
    return _without_none(
        {
            "resourceType": "RiskAssessment",
            "id": resource_id("sc", links.identity),
            "meta": {"security": [AIAST]},
            "identifier": [{"system": ASSESSMENT_SYSTEM, "value": links.identity.hex()}],
            "status": links.status,
            "method": {
                "coding": [{"system": MODEL_SYSTEM, "version": a.version, "code": a.model}],
                "text": f"{manifest.title}, {a.model} {a.version}",
            },
            "code": {"coding": [{"system": MODEL_SYSTEM, "code": a.model}], "text": manifest.title},
            "subject": {"reference": f"Patient/{e.patient.value}"},
            "encounter": _encounter(e),
            "occurrenceDateTime": _instant(e.occurred_at),
            "performer": {"reference": links.device},
            "basis": basis or None,
            "prediction": [_prediction(a, e, manifest, links)],
            "note": [{"text": note.text(conclusion, manifest, links.status, links.reasons)}],
        }
    )


def _prediction(a: Assessment, e: Evidence, manifest: Manifest, links: Links) -> dict[str, Any]:
    band = next((b for b in manifest.bands if b.risk == a.risk), None)
    if a.outcome is Outcome.SCORED and band is not None:
        risk: dict[str, Any] | None = {
            "coding": [{"system": manifest.result.risk_system, "code": band.risk}],
            "text": band.text,
        }
    elif a.outcome is Outcome.INCOMPLETE and band is not None:
        risk = {"text": f"incomplete: at least {band.text}"}
    else:
        risk = None
    return _without_none(
        {
            "outcome": {"text": manifest.result.outcome},
            "qualitativeRisk": risk,
            "whenPeriod": {"start": _instant(e.occurred_at), "end": _instant(e.valid_until)},
            "rationale": links.rationale,
        }
    )


def _applies(component: Component, features: dict[str, Feature]) -> bool:
    if component.when_feature is None:
        return True
    feature = features.get(component.when_feature)
    return feature is not None and feature.value == component.equals


def _points(value: float, form: str) -> dict[str, Any]:
    whole = int(value) if value == int(value) else value
    if form == "integer":
        return {"valueInteger": int(value)}
    return {
        "valueQuantity": {
            "value": whole,
            "unit": "score",
            "system": "http://unitsofmeasure.org",
            "code": form,
        }
    }


def _concept(code: str, display: str) -> dict[str, Any]:
    system, _, plain = code.partition("|")
    return {"coding": [{"system": system, "code": plain, "display": display}], "text": display}


def _encounter(e: Evidence) -> dict[str, str] | None:
    return {"reference": e.encounter.relative} if e.encounter else None


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _without_none(resource: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in resource.items() if v is not None}
