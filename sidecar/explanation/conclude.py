"""From the graph's numbers to a conclusion: scored, not scored, or incomplete and therefore "at least". Pure.

The sickest patient must not be silenced: an incomplete total that already calls for action is urgent, and is still
never stated as a total.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from sidecar.manifest import Incomplete, Manifest
from sidecar.records import FeatureVector, Outcome, Score


@dataclass(frozen=True, slots=True)
class Concluded:
    """The part of an assessment that follows from what the graph said."""

    outcome: Outcome
    score: float | None
    at_least: float | None
    risk: str | None
    urgent: bool
    contributions: Mapping[str, float]
    reasons: tuple[str, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    typical: Mapping[str, float] = field(default_factory=dict)
    baseline: float | None = None
    error: float | None = None
    terms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)


def conclude(manifest: Manifest, vector: FeatureVector, score: Score) -> Concluded:
    """Read what the graph said.

    Every contribution is a point or term of the graph itself, and they sum to the score; or, of a graph without them,
    a change of its probability. Then there is no score.
    """
    if manifest.kind == "probability":
        return _probabilities(manifest, vector, score)
    further = {name: value for name, value in score.further.items() if not math.isnan(value)}
    return replace(_points(manifest, manifest.incomplete, vector, score), further=further)


def limits_that_act(manifest: Manifest, vector: FeatureVector, withheld: Collection[str] = ()) -> tuple[str, ...]:
    """What the note says of the published equation's own limits, as far as they act and tell of nothing `withheld`."""
    values = {f.name: f.value for f in vector.features if f.name not in withheld}
    return tuple(r.text for r in manifest.remarks if r.holds(values.get(r.feature, math.nan)))


def _probabilities(manifest: Manifest, vector: FeatureVector, score: Score) -> Concluded:
    """Probabilities of all inputs, or none: with one missing there is no number that would not mislead.

    An output that is not for such a patient is left out, with its reason, and the others are given.
    """
    outside = _not_given(manifest, vector)
    probabilities = {name: p for name, p in score.probabilities.items() if name not in outside}
    terms = {name: of_output for name, of_output in score.terms.items() if name not in outside}
    opaque = manifest.explanation
    total, contributions = (None, score.changes) if opaque else (score.total, score.points)
    if terms:
        contributions = next(iter(terms.values()))
        total = math.fsum(contributions.values())
    computed = [0.0 if total is None else total, *contributions.values(), *probabilities.values()]
    computed += [term for of_output in terms.values() for term in of_output.values()]
    reasons = tuple(dict.fromkeys(outside.values()))
    if vector.reasons or not probabilities or not all(map(math.isfinite, computed)):
        return _not_scored(vector.reasons or (("not_computable",) if probabilities else reasons))
    return Concluded(
        Outcome.SCORED,
        total,
        None,
        None,
        urgent=False,
        contributions=contributions,
        reasons=reasons,
        probabilities=probabilities,
        typical=opaque.typical if opaque else {},
        baseline=score.baseline,
        error=score.error,
        terms=terms,
    )


def _not_given(manifest: Manifest, vector: FeatureVector) -> dict[str, str]:
    """The outputs that are not for a patient with these inputs, each with the reason."""
    values = {f.name: f.value for f in vector.features}
    found: dict[str, str] = {}
    for output in manifest.outputs:
        if rule := next((r for r in output.exclude_when if r.holds(values[r.feature])), None):
            found[output.name] = f"out_of_cohort:{rule.reason}"
    return found


def _not_scored(reasons: tuple[str, ...]) -> Concluded:
    return Concluded(Outcome.NOT_SCORED, None, None, None, urgent=False, contributions={}, reasons=reasons)


def _points(manifest: Manifest, rule: Incomplete | None, vector: FeatureVector, score: Score) -> Concluded:
    """A total, or "at least" by `rule`, without which a missing input leaves nothing to say.

    With nothing at all to go on it is not scored: "at least 0" would say something.
    """
    missing = {f.name for f in vector.features if math.isnan(f.value)}
    known = {n: points for n, points in score.points.items() if n not in missing and not math.isnan(points)}
    if not math.isnan(score.total) and not vector.reasons:
        risk = _band(manifest, score.total, known)
        return Concluded(Outcome.SCORED, score.total, None, risk, urgent=False, contributions=known)
    if rule is None:
        return _not_scored(vector.reasons or ("not_computable",))
    # A decision such as the SpO2 scale is no measurement: alone it is nothing to go on.
    measured = any(
        f.name not in missing and f.seconds is not None and f.name in manifest.members for f in vector.features
    )
    implausible = any(f.shown is not None for f in vector.features)
    if not measured and not implausible:
        return _not_scored(vector.reasons)
    least = math.fsum(known.values())
    urgent = implausible or least >= rule.urgent_at_least or any(p >= rule.urgent_any_points for p in known.values())
    # The lowest band is never said of an incomplete total: "at least low" reads as "low".
    risk = _band(manifest, least, known)
    said = risk if urgent and risk != manifest.bands[-1].risk else None
    return Concluded(Outcome.INCOMPLETE, None, least, said, urgent, known, vector.reasons)


def _band(manifest: Manifest, total: float, points: Mapping[str, float]) -> str | None:
    for band in manifest.bands:
        if band.at_least is not None and total >= band.at_least:
            return band.risk
        if band.any_points is not None and any(p >= band.any_points for p in points.values()):
            return band.risk
    return None
