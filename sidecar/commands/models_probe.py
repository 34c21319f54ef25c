"""A loaded model, tried on rows that are no patient's: what it does on missing inputs, and how long it takes."""

import math
import time
from collections.abc import Mapping, Sequence

from sidecar.manifest import FeatureSpec, Manifest
from sidecar.records import Feature, FeatureVector, Score
from sidecar.scoring import LoadedModel

_RUNS = 300
_SAME = 1e-4


def answers_on_missing(model: LoadedModel) -> list[str]:
    """The inputs without which the graph gives a number all the same, although the manifest does not allow it."""
    names = model.manifest.graph.features
    row = typical(model)
    found = []
    for name in names:
        if _may_be_missing(model.manifest, name):
            continue
        if _numbers(_scored(model, {**row, name: math.nan})):
            found.append(name)
    if _numbers(_scored(model, dict.fromkeys(names, math.nan))):
        found.append("everything")
    return found


def agreement_of_terms(model: LoadedModel) -> tuple[bool | None, str]:
    """Whether what explains the result sums to it, on typical values."""
    manifest = model.manifest
    if manifest.explanation is not None and manifest.explanation.prototypes:
        score = _scored(model, typical(model))
        off = (
            score.probabilities[manifest.outputs[0].name] - (score.baseline or 0.0) - math.fsum(score.changes.values())
        )
        return abs(off) <= _SAME, f"Shapley values sum to the probability less the prototypes' mean, but for {off:.1g}"
    if manifest.explanation is not None:
        return True, f"by {manifest.explanation.method}: it sums to nothing, and says so"
    score = _scored(model, typical(model))
    if math.isnan(score.total):
        return None, "not tried: typical values are outside of what the graph is for"
    sums = math.fsum(score.points.values())
    off = abs(sums - score.total)
    if not off <= _SAME * max(1.0, abs(score.total)):
        return False, f"the points sum to {sums:g}, and the total is {score.total:g}"
    return True, f"{len(score.points)} points sum to the total"


def microseconds(model: LoadedModel) -> float:
    """The median time of one score, in µs."""
    vector = _vector(model, typical(model))
    for _ in range(20):
        model.score(vector)
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        model.score(vector)
        times.append(time.perf_counter() - began)
    return sorted(times)[_RUNS // 2] * 1e6


def typical(model: LoadedModel) -> dict[str, float]:
    """A value for each input that it may well have: declared, else from the reference, else within its range."""
    manifest = model.manifest
    declared: Mapping[str, float] = manifest.explanation.typical if manifest.explanation else {}
    bins = model.reference.get("features", {})
    found = {}
    for name in manifest.graph.features:
        if name in declared:
            found[name] = declared[name]
        elif name in manifest.choices:
            found[name] = next(iter(manifest.choices[name].values.values()))
        else:
            found[name] = _median(bins.get(name)) or _middle(manifest.features[name])
    return found


def _median(bins: Mapping[str, Sequence[float]] | None) -> float | None:
    """The edge that is nearest to the middle of the observations."""
    if not bins or len(bins["edges"]) < 2:
        return None
    *counts, _ = bins["counts"]
    half, seen = sum(counts) / 2, 0.0
    for edge, count in zip([*bins["edges"], bins["edges"][-1]], counts, strict=True):
        seen += count
        if seen >= half:
            return edge
    return None


def _middle(spec: FeatureSpec) -> float:
    if spec.words:
        return float(next(iter(spec.words)))
    if spec.derive in {"age", "completed_years"}:
        return 60.0
    spans = [span for s in spec.sources if (span := s.span) is not None]
    low, high = spec.plausible or (spans[0] if spans else (1.0, 1.0))
    return low if (low, high) == (0.0, 1.0) else (low + high) / 2


def _may_be_missing(manifest: Manifest, name: str) -> bool:
    spec = manifest.features.get(name)
    return spec is not None and spec.absent is not None and math.isnan(spec.absent)


def _numbers(score: Score) -> bool:
    """Whether a score would be taken for a result: all of its numbers are known."""
    said = [*score.probabilities.values()] or [score.total]
    return all(map(math.isfinite, said))


def _vector(model: LoadedModel, row: Mapping[str, float]) -> FeatureVector:
    return FeatureVector(tuple(Feature(n, row[n], "1") for n in model.manifest.graph.features))


def _scored(model: LoadedModel, row: Mapping[str, float]) -> Score:
    return model.score(_vector(model, row))
