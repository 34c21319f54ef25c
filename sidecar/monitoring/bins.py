"""Disjoint bins with a reference: the raw material of PSI in Prometheus. Pure.

Population stability needs counts in disjoint bins on both sides, `missing` among them; cumulative buckets cannot give
them in PromQL. Every bin exists from the start, with count 0, or its first increments would be lost to `increase()`.
"""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Bins:
    """One feature: ascending edges, the reference's share of each bin by its name in order, and its size.

    Names are `lt_8.5`, `8.5_11.5`, …, `ge_24.5`, `missing`.
    """

    edges: tuple[float, ...]
    ratios: Mapping[str, float]
    observations: int
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Name the bins once: one is asked for with every value."""
        names = (*(_name(self.edges, i) for i in range(len(self.edges) + 1)), MISSING)
        object.__setattr__(self, "names", names)

    def of(self, value: float) -> str:
        """The bin of `value`; NaN is `missing`. A value on an edge belongs to the upper bin."""
        return MISSING if math.isnan(value) else self.names[bisect.bisect_right(self.edges, value)]


def _name(edges: tuple[float, ...], index: int) -> str:
    if not edges:
        return "all"
    if index == 0:
        return f"lt_{edges[0]:g}"
    if index == len(edges):
        return f"ge_{edges[-1]:g}"
    return f"{edges[index - 1]:g}_{edges[index]:g}"


def bins_for(reference: Mapping[str, Any]) -> dict[str, Bins]:
    """The bins of a model's `reference.json`: `{"features": {name: {"edges": [...], "counts": [...]}}}`.

    Counts are for each bin in order, missing last; shares are smoothed by half an observation, so none is zero.
    """
    found = {}
    for name, spec in reference.get("features", {}).items():
        edges, counts = tuple(float(e) for e in spec["edges"]), [int(c) for c in spec["counts"]]
        total = sum(counts)
        empty = Bins(edges, {}, total)
        smoothed = total + 0.5 * len(counts)
        ratios = {n: (c + 0.5) / smoothed for n, c in zip(empty.names, counts, strict=True)}
        found[name] = Bins(edges, ratios, total)
    return found
