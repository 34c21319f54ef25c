"""The note of a result: what a clinician must know to use the result, in plain words. Pure."""

import functools
import math
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

from sidecar.manifest import Manifest
from sidecar.records import Assessment, Conclusion, Feature, Outcome, later

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
GUIDE = "A guide, not a rule."
OCCLUSION = (
    "How much each input matters was found by occlusion: the probability was computed again with that input alone at a "
    "typical value, which the model's author gave. The differences do not add up to the probability, and they are not "
    "Shapley values."
)
SHAPLEY = (
    "How much each input matters was found by Shapley values: the difference between the probability and its mean over "
    "the prototypes that come with the model, shared out among the inputs. They say how the model came to its number, "
    "not what causes the outcome."
)
WITHHELD = "An input is not named here, because it may reveal a sensitive condition."
CLOSING = "Decision support from an automated model; it does not replace clinical judgement."


def headline(conclusion: Conclusion, manifest: Manifest, reasons: tuple[str, ...]) -> str:
    """The result in one sentence; an incomplete one never reads as a total."""
    a = conclusion.assessment
    short = manifest.called
    if a.outcome is Outcome.SCORED and a.probabilities:
        left_out = f" Not given: {'; '.join(reasons)}." if reasons else ""
        return f"{short}: {_probabilities(a, manifest)}.{left_out}"
    if a.outcome is Outcome.SCORED:
        band = next((b.words for b in manifest.bands if b.risk == a.risk), "")
        return f"{short} total {a.score:g} ({band})."
    why = "; ".join(reasons)
    if a.outcome is Outcome.INCOMPLETE:
        urgency = "URGENT: " if a.urgent else ""
        return f"{urgency}{short} at least {a.at_least:g}, incomplete: {why}. This is not a total."
    return f"No current {short}: {why}."


def percent(probability: float) -> str:
    """A probability as a person reads it. What rounds to nothing is not nothing."""
    shown = probability * 100
    if 0 < shown < 0.05:
        return "less than 0.1 %"
    return "more than 99.9 %" if 99.95 <= shown < 100 else f"{shown:.1f} %"


def _probabilities(a: Assessment, manifest: Manifest) -> str:
    """Each probability with its horizon, by outcome. What it calls for is left out once it is no longer current."""
    said: dict[str, list[str]] = {}
    for output in manifest.outputs:
        if output.name not in a.probabilities:
            continue
        probability = a.probabilities[output.name]
        band = None if a.vector.ended else output.band(probability)
        guidance = f" ({band.text}; {band.source})" if band else ""
        of_outcome = said.setdefault(output.outcome or manifest.result.outcome, [])
        of_outcome.append(f"{percent(probability)} within {output.horizon.words}{guidance}")
    return ". ".join(f"{outcome}: {'; '.join(found)}" for outcome, found in said.items())


def text(conclusion: Conclusion, manifest: Manifest, status: str, reasons: tuple[str, ...], why: str = "") -> str:
    """Everything a reader needs: result, inputs with their times, assumptions, validity, model, limits.

    That a result does not stand any more is said before the result. `why` is the rationale, where no element holds it.
    """
    a, e = conclusion.assessment, conclusion.evidence
    ended, parts = a.vector.ended, []
    if status == "entered-in-error":
        parts.append("ENTERED IN ERROR: a reading that this result rested on was corrected or withdrawn.")
    if ended:
        parts.append(ended)
    if status == "corrected":
        parts.append("Corrected after a reading that it rests on was corrected.")
    said = headline(conclusion, manifest, reasons)
    parts.append(f"Until then: {said}" if ended else said)
    if not ended and any(o.band(a.probabilities[o.name]) for o in manifest.outputs if o.name in a.probabilities):
        parts.append(GUIDE)
    taken = {f.seconds for f in a.vector.features if f.seconds is not None}  # many inputs have one moment
    at = {seconds: _when(later(e.at, timedelta(seconds=seconds))) for seconds in taken}
    inputs = [
        _input(f, manifest, at, None if a.probabilities or a.withheld else a.contributions.get(f.name))
        for f in a.vector.features
        if f.reason is None and not math.isnan(f.value) and f.name not in a.withheld
    ]
    if inputs:
        parts.append("Inputs: " + "; ".join(inputs) + ".")
    if a.withheld:
        parts.append(WITHHELD)
    if why:
        parts.append(f"What it comes from: {why}.")
    if (a.typical or a.baseline is not None) and not ended and status != "entered-in-error":
        parts.append(OCCLUSION if a.typical else SHAPLEY)
    parts += dict.fromkeys(o.recalibration.words for o in manifest.outputs if o.recalibration and a.probabilities)
    parts += (r for r in a.vector.remarks if r != ended)
    until = _when(e.valid_until)
    parts.append(f"Held until {until}." if ended else f"Holds until {until} at the latest.")
    parts.append(f"Model {a.model} {a.version}, manifest sha256 {a.model_digest[:12]}. Consent: not evaluated.")
    if manifest.acknowledgement:
        parts.append(manifest.acknowledgement)
    parts.append(CLOSING)
    return " ".join(parts)


def _input(feature: Feature, manifest: Manifest, at: Mapping[float, str], points: float | None) -> str:
    said = manifest.say(feature.name, feature.value)
    if points is not None:
        said += f", {points:.3g} point" + ("" if points == 1 else "s")
    if feature.seconds is not None:
        said += f", at {at[feature.seconds]}"
    return said


def _when(moment: datetime) -> str:
    clock = f"{moment.hour:02}:{moment.minute:02}"
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year} {clock} {_offset(moment.utcoffset())}"


@functools.lru_cache(maxsize=64)
def _offset(offset: timedelta | None) -> str:
    return f"{datetime.now(timezone(offset or timedelta(0))):%z}"
