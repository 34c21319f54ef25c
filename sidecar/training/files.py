"""What is shipped beside a trained graph: frozen vectors, and how the inputs were distributed.

The vectors are drawn input by input from the data's quantiles, so that no vector is a patient; their answers are the
training library's own, not the graph's.
"""

import math
from typing import Any

import numpy as np
import orjson

from sidecar.monitoring import Bins
from sidecar.monitoring.performance import Floats
from sidecar.training.additive import Additive
from sidecar.training.cases import Recipe

VECTORS = 200
ATOL = 1e-6
_OPTIONS = orjson.OPT_INDENT_2


def vectors_of(recipe: Recipe, model: Additive, inputs: Floats) -> bytes:
    """`VECTORS` rows of quantiles, some inputs absent, with the probability that `model` gives; null is none."""
    random = np.random.default_rng(recipe.seed)
    rows = np.column_stack([_drawn(column, random) for column in inputs.T])
    needed = [place for place, term in enumerate(model.terms) if math.isnan(term.missing)]
    for row, place in enumerate(needed):
        rows[row, place] = np.nan
    vectors = []
    for row, probability in zip(rows.tolist(), model.probability(rows).tolist(), strict=True):
        given = {n: v for n, v in zip(recipe.names, row, strict=True) if not math.isnan(v)}
        risk = None if math.isnan(probability) else probability
        vectors.append({"inputs": given, "expected": {"probability": risk, "atol": ATOL}})
    lines = b",\n".join(orjson.dumps(vector) for vector in vectors)
    head = orjson.dumps({"model": recipe.name, "notes": _NOTES})
    return head[:-1] + b',"vectors":[\n' + lines + b"\n]}\n"


_NOTES = "frozen answers of the training code on drawn inputs: they keep the graph as it was, and prove nothing else"


def _drawn(column: Floats, random: Any) -> Floats:
    """As many are absent as in the data, but at most one in three; values are rounded as the data's are."""
    known = column[~np.isnan(column)]
    drawn = np.quantile(known, random.random(VECTORS), method="nearest")
    drawn[random.random(VECTORS) < min((len(column) - len(known)) / len(column), 1 / 3)] = np.nan
    return np.asarray(np.round(drawn, 3), dtype=np.float64)


def _octiles(column: Floats) -> tuple[float, ...]:
    found = np.nanquantile(column, np.linspace(0, 1, 9)[1:-1])
    return tuple(float(f"{value:.4g}") for value in np.unique(found))


def reference_of(recipe: Recipe, inputs: Floats) -> bytes:
    """How often each input was in which bin, absent last: what drift is measured against."""
    features = {}
    for place, name in enumerate(recipe.names):
        edges = recipe.edges.get(name) or _octiles(inputs[:, place])
        bins = Bins(edges, {}, 0)
        counts = dict.fromkeys(bins.names, 0)
        for value in inputs[:, place].tolist():
            counts[bins.of(value)] += 1
        features[name] = {"edges": list(edges), "counts": list(counts.values())}
    return orjson.dumps({"source": recipe.whose, "features": features}, option=_OPTIONS) + b"\n"
