"""From points to a conclusion: scored, or incomplete and therefore "at least". Pure.

The sickest patient must not be silenced: an incomplete total that already calls for action is urgent, and is still
never stated as a total.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.manifest import Manifest
from sidecar.records import FeatureVector, Outcome, Score


@dataclass(frozen=True, slots=True)
class Concluded:
    """The part of an assessment that follows from the points."""

    outcome: Outcome
    score: float | None
    at_least: float | None
    risk: str | None
    urgent: bool
    contributions: Mapping[str, float]


def conclude(manifest: Manifest, vector: FeatureVector, score: Score) -> Concluded:
    """Read the points. Every contribution is a point of the graph itself; they sum to the score.

    With nothing at all to go on, the outcome is not scored: "at least 0" would say something.
    """
    missing = {f.name for f in vector.features if math.isnan(f.value)}
    known = {n: points for n, points in score.points.items() if n not in missing and not math.isnan(points)}
    if not math.isnan(score.total) and not vector.reasons:
        risk = _band(manifest, score.total, known)
        return Concluded(Outcome.SCORED, score.total, None, risk, urgent=False, contributions=known)
    # A decision such as the SpO2 scale is no measurement: alone it is nothing to go on.
    measured = any(
        f.name not in missing and f.seconds is not None and manifest.features[f.name].in_set for f in vector.features
    )
    implausible = any(f.shown is not None for f in vector.features)
    if not measured and not implausible:
        return Concluded(Outcome.NOT_SCORED, None, None, None, urgent=False, contributions={})
    least = math.fsum(known.values())
    rule = manifest.incomplete
    urgent = implausible or least >= rule.urgent_at_least or any(p >= rule.urgent_any_points for p in known.values())
    # The lowest band is never said of an incomplete total: "at least low" reads as "low".
    risk = _band(manifest, least, known)
    said = risk if urgent and risk != manifest.bands[-1].risk else None
    return Concluded(Outcome.INCOMPLETE, None, least, said, urgent, known)


def _band(manifest: Manifest, total: float, points: Mapping[str, float]) -> str | None:
    for band in manifest.bands:
        if band.at_least is not None and total >= band.at_least:
            return band.risk
        if band.any_points is not None and any(p >= band.any_points for p in points.values()):
            return band.risk
    return None
