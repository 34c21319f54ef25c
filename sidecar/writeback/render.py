"""Render an assessment as FHIR R4 resources.

Pure: values in, JSON out. Sending them is `sidecar.writeback.deliver`. RiskAssessment has no element for a points
total, so the total is an Observation (category survey) that the RiskAssessment cites in its `basis`. It has one for
probabilities: their Observation is only for an EHR that takes no RiskAssessment.
https://hl7.org/fhir/R4/riskassessment.html https://hl7.org/fhir/R4/observation.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sidecar.manifest import Component, Manifest, Output
from sidecar.records import Assessment, Conclusion, Evidence, Feature, Outcome
from sidecar.writeback import note

ASSESSMENT_SYSTEM = "urn:ehr-sidecar:assessment"
SCORE_SYSTEM = "urn:ehr-sidecar:score"
MODEL_SYSTEM = "urn:ehr-sidecar:model"
DEVICE_SYSTEM = "urn:ehr-sidecar:model-digest"
NOT_APPLICABLE = "http://terminology.hl7.org/CodeSystem/data-absent-reason|not-applicable"
UNKNOWN = "http://terminology.hl7.org/CodeSystem/data-absent-reason|unknown"
UCUM = "http://unitsofmeasure.org"
AIAST = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}


@dataclass(frozen=True, slots=True)
class Links:
    """What a rendered resource points to, and this EHR's conventions.

    `device` and `observation` are literal references, where they exist; `rationale` is the words for the top points,
    and `rationales` those of each output that has its own.
    `alone` says that the EHR takes no RiskAssessment beside the Observation.
    """

    identity: bytes
    status: str
    device: str
    rationale: str
    rationales: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    observation: str | None = None
    score_value: str = "{score}"
    probability: str = "percent"
    alone: bool = False


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
    """The result as an Observation; None when it has nothing that only an Observation can hold.

    A total has one component a parameter, unless an input is withheld. It was measured at its moment and stays, with a
    note once it is no longer current. Where it stands alone, because the EHR takes no RiskAssessment, the note is
    always here, probabilities are components in percent (no longer current, they are in the note only) with their
    rationale in the note, and an incomplete total has no value: the note says "at least", and a reader of numbers finds
    a reason for the absent one.

    Raises:
        ValueError: a scored assessment without a score or a probability.
    """
    a, e = conclusion.assessment, conclusion.evidence
    values = _values(a, manifest, links)
    if values is None:
        return None
    why = _why(a, manifest, links) if links.alone and a.probabilities and _stands(a, links) else ""
    said = note.text(conclusion, manifest, links.status, links.reasons, why)
    survey = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "survey"}
    return _without_none(
        {
            "resourceType": "Observation",
            "id": resource_id("so", links.identity),
            "meta": {"security": _labels(e)},
            "identifier": [{"system": SCORE_SYSTEM, "value": links.identity.hex()}],
            "status": links.status,
            "category": [{"coding": [survey]}],
            "code": _concept(manifest.result.code, manifest.result.display),
            "subject": {"reference": f"Patient/{e.patient.value}"},
            "encounter": _encounter(e),
            "effectiveDateTime": _instant(e.occurred_at),
            "method": {"text": f"{manifest.title}, {manifest.name} {a.version}"},
            "device": {"reference": links.device},
            "derivedFrom": [{"reference": r.versioned} for r in e.basis if r.type == "Observation"] or None,
            "note": [{"text": said}] if links.alone or a.probabilities or a.vector.ended else None,
            **values,
        }
    )


def _why(a: Assessment, manifest: Manifest, links: Links) -> str:
    """The rationale, where no element holds it; of several with terms of their own, that of the first."""
    first = next((o for o in manifest.outputs if o.name in links.rationales and o.name in a.probabilities), None)
    return links.rationale if first is None else f"{first.display}: {links.rationales[first.name]}"


def _values(a: Assessment, manifest: Manifest, links: Links) -> dict[str, Any] | None:
    """What the Observation holds, or None when there is nothing for it to hold."""
    if a.outcome is Outcome.INCOMPLETE and links.alone:
        return {
            "dataAbsentReason": _concept(UNKNOWN, "Unknown"),
            "component": _components(a, manifest, links) or None,
        }
    if a.outcome is not Outcome.SCORED:
        return None
    if a.probabilities:
        return _percentages(a, manifest, links)
    if a.score is None:
        raise ValueError("a scored assessment has neither score nor probability")
    return {**_points(a.score, links.score_value), "component": _components(a, manifest, links) or None}


def _components(a: Assessment, manifest: Manifest, links: Links) -> list[dict[str, Any]]:
    """The points of each parameter; none where an input is withheld, whose points would be the rest of the total."""
    if a.withheld:
        return []
    features = {f.name: f for f in a.vector.features}
    return [
        {"code": _concept(c.code, c.display), **_points(a.contributions[c.points], links.score_value)}
        for c in manifest.result.components
        if c.points in a.contributions and _applies(c, features)
    ]


def _labels(e: Evidence) -> list[dict[str, str]]:
    """Made by a machine, and as sensitive as what it was made from."""
    inherited = (label.partition("|") for label in e.labels)
    found = [{"system": system, "code": code} if system else {"code": code} for system, _, code in inherited]
    return [AIAST, *(label for label in found if label["code"] != AIAST["code"])]


def _percentages(a: Assessment, manifest: Manifest, links: Links) -> dict[str, Any]:
    if not _stands(a, links):
        return {"dataAbsentReason": _concept(NOT_APPLICABLE, "Not applicable")}
    components = [
        {"code": _concept(o.code, o.display), "valueQuantity": _percent(a.probabilities[o.name])}
        for o in manifest.outputs
        if o.name in a.probabilities
    ]
    return {"component": components}


def _stands(a: Assessment, links: Links) -> bool:
    """Whether a reader may act on the number. A program reads the number and not the status beside it."""
    return not a.vector.ended and links.status != "entered-in-error"


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
    words, "at least", and its band is not coded, so that no reader can take it for a total. A probability model has one
    prediction for each horizon, in `links.probability`'s convention: "percent" (12.3, as the comment on
    `probabilityDecimal` says), "fraction" (0.123) or "range" (UCUM %, which cannot be misread). A result that does not
    stand any more predicts nothing: no probability, no band.
    """
    a, e = conclusion.assessment, conclusion.evidence
    basis = [{"reference": r.versioned} for r in e.basis]
    if links.observation:
        basis.insert(0, {"reference": links.observation})
    return _without_none(
        {
            "resourceType": "RiskAssessment",
            "id": resource_id("sc", links.identity),
            "meta": {"security": _labels(e)},
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
            "prediction": _predictions(conclusion, manifest, links) or None,
            "note": [{"text": note.text(conclusion, manifest, links.status, links.reasons)}],
        }
    )


def _predictions(conclusion: Conclusion, manifest: Manifest, links: Links) -> list[dict[str, Any]]:
    a = conclusion.assessment
    if manifest.outputs:
        shown = manifest.outputs if a.probabilities and _stands(a, links) else ()
        return [_horizon(a.probabilities[o.name], o, manifest, links) for o in shown if o.name in a.probabilities]
    return [_prediction(a, conclusion.evidence, manifest, links)]


def _horizon(probability: float, output: Output, manifest: Manifest, links: Links) -> dict[str, Any]:
    """One probability, until its horizon. The band follows from the unrounded number."""
    band, horizon = output.band(probability), output.horizon
    until = {"unit": horizon.unit_word, "system": UCUM, "code": horizon.unit}
    predicted = output.outcome or manifest.result.outcome
    outcome = f"{predicted} within {horizon.words}"
    code = output.outcome_code if output.outcome else manifest.result.outcome_code
    return _without_none(
        {
            "outcome": _concept(code, predicted) | {"text": outcome} if code else {"text": outcome},
            **_probability(probability, links.probability),
            "qualitativeRisk": {
                "coding": [{"system": manifest.result.risk_system, "code": band.risk}],
                "text": f"{band.text} ({band.source}). {note.GUIDE}",
            }
            if band
            else None,
            "whenRange": {"low": {"value": 0, **until}, "high": {"value": _plain(horizon.value), **until}},
            "rationale": links.rationales.get(output.name, links.rationale),
        }
    )


def _probability(probability: float, convention: str) -> dict[str, Any]:
    if convention == "range":
        return {"probabilityRange": {"low": _percent(probability), "high": _percent(probability)}}
    return {"probabilityDecimal": _digits(probability if convention == "fraction" else probability * 100)}


def _percent(probability: float) -> dict[str, Any]:
    return {"value": _digits(probability * 100), "unit": "%", "system": UCUM, "code": "%"}


def _digits(value: float) -> float:
    """Four significant digits: the exact value is in the stored assessment, and more would feign precision."""
    return float(f"{value:.4g}")


def _prediction(a: Assessment, e: Evidence, manifest: Manifest, links: Links) -> dict[str, Any]:
    band = next((b for b in manifest.bands if b.risk == a.risk), None) if _stands(a, links) else None
    if a.outcome is Outcome.SCORED and band is not None:
        risk: dict[str, Any] | None = {
            "coding": [{"system": manifest.result.risk_system, "code": band.risk}],
            "text": band.words,
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
    if form == "integer":
        return {"valueInteger": int(value)}
    return {"valueQuantity": {"value": _plain(value), "unit": "score", "system": UCUM, "code": form}}


def _plain(value: float) -> float:
    """A whole number without a decimal point."""
    return int(value) if value == int(value) else value


def _concept(code: str, display: str) -> dict[str, Any]:
    system, _, plain = code.partition("|")
    return {"coding": [{"system": system, "code": plain, "display": display}], "text": display}


def _encounter(e: Evidence) -> dict[str, str] | None:
    return {"reference": e.encounter.relative} if e.encounter else None


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _without_none(resource: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in resource.items() if v is not None}
