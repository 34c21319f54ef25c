"""The note of a RiskAssessment: what a clinician must know to use the result, in plain words. Pure."""

import math
from datetime import datetime, timedelta

from sidecar.manifest import Manifest
from sidecar.records import Conclusion, Feature, Outcome, later

CLOSING = "Decision support from an automated model; it does not replace clinical judgement."


def headline(conclusion: Conclusion, manifest: Manifest, reasons: tuple[str, ...]) -> str:
    """The result in one sentence; an incomplete one never reads as a total."""
    a = conclusion.assessment
    short = manifest.name.upper()
    if a.outcome is Outcome.SCORED:
        band = next((b.text for b in manifest.bands if b.risk == a.risk), "")
        return f"{short} total {a.score:g} ({band})."
    why = "; ".join(reasons)
    if a.outcome is Outcome.INCOMPLETE:
        urgency = "URGENT: " if a.urgent else ""
        return f"{urgency}{short} at least {a.at_least:g}, incomplete: {why}. This is not a total."
    return f"No current {short}: {why}."


def text(conclusion: Conclusion, manifest: Manifest, status: str, reasons: tuple[str, ...]) -> str:
    """Everything a reader needs: result, inputs with their times, assumptions, validity, model, limits."""
    a, e = conclusion.assessment, conclusion.evidence
    parts = []
    if status == "entered-in-error":
        parts.append("ENTERED IN ERROR: a reading that this result rested on was corrected or withdrawn.")
    elif status == "corrected":
        parts.append("Corrected after a reading that it rests on was corrected.")
    parts.append(headline(conclusion, manifest, reasons))
    inputs = [
        _input(f, manifest, e.at, a.contributions.get(f.name))
        for f in a.vector.features
        if f.reason is None and not math.isnan(f.value)
    ]
    if inputs:
        parts.append("Inputs: " + "; ".join(inputs) + ".")
    parts += a.vector.remarks
    parts.append(f"Holds until {_when(e.valid_until)} at the latest.")
    parts.append(f"Model {a.model} {a.version}, manifest sha256 {a.model_digest[:12]}. Consent: not evaluated.")
    if manifest.acknowledgement:
        parts.append(manifest.acknowledgement)
    parts.append(CLOSING)
    return " ".join(parts)


def _input(feature: Feature, manifest: Manifest, at: datetime, points: float | None) -> str:
    spec = manifest.features[feature.name]
    said = f"{spec.label} {spec.say(feature.value)}"
    if points is not None:
        said += f", {points:g} point" + ("" if points == 1 else "s")
    if feature.seconds is not None:
        said += f", at {_when(later(at, timedelta(seconds=feature.seconds)))}"
    return said


def _when(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y %H:%M %z}"
