"""From the graph's numbers to a conclusion: scored, not scored, or incomplete and therefore "at least". Pure.

The sickest patient must not be silenced: an incomplete total that already calls for action is urgent, and is still
never stated as a total.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

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


def conclude(manifest: Manifest, vector: FeatureVector, score: Score) -> Concluded:
    """Read what the graph said.

    Every contribution is a point or term of the graph itself, and they sum to the score; or, of a graph without them,
    a change of its probability. Then there is no score.
    """
    if manifest.incomplete is None:
        return _probabilities(manifest, vector, score)
    return _points(manifest, manifest.incomplete, vector, score)


def _probabilities(manifest: Manifest, vector: FeatureVector, score: Score) -> Concluded:
    """Probabilities of all inputs, or none: with one missing there is no number that would not mislead."""
    opaque = manifest.explanation
    total, contributions = (None, score.changes) if opaque else (score.total, score.points)
    computed = (0.0 if total is None else total, *contributions.values(), *score.probabilities.values())
    if vector.reasons or not all(map(math.isfinite, computed)):
        reasons = vector.reasons or ("not_computable",)
        return Concluded(Outcome.NOT_SCORED, None, None, None, urgent=False, contributions={}, reasons=reasons)
    return Concluded(
        Outcome.SCORED,
        total,
        None,
        None,
        urgent=False,
        contributions=contributions,
        probabilities=score.probabilities,
        typical=opaque.typical if opaque else {},
    )


def _points(manifest: Manifest, rule: Incomplete, vector: FeatureVector, score: Score) -> Concluded:
    """A total, or "at least". With nothing at all to go on it is not scored: "at least 0" would say something."""
    missing = {f.name for f in vector.features if math.isnan(f.value)}
    known = {n: points for n, points in score.points.items() if n not in missing and not math.isnan(points)}
    if not math.isnan(score.total) and not vector.reasons:
        risk = _band(manifest, score.total, known)
        return Concluded(Outcome.SCORED, score.total, None, risk, urgent=False, contributions=known)
    # A decision such as the SpO2 scale is no measurement: alone it is nothing to go on.
    measured = any(
        f.name not in missing and f.seconds is not None and f.name in manifest.members for f in vector.features
    )
    implausible = any(f.shown is not None for f in vector.features)
    if not measured and not implausible:
        return Concluded(Outcome.NOT_SCORED, None, None, None, urgent=False, contributions={}, reasons=vector.reasons)
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
