"""Figures of a model on cases, as JSON says them: each with its 95 % interval by a bootstrap of patients."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.monitoring.performance import Floats, with_intervals
from sidecar.training.cases import Cases

SMALLEST = 50
"""A group of fewer rows gets no figures: they would say nothing."""


def figures_of(cases: Cases, probability: Floats, *, draws: int, seed: int) -> dict[str, Any]:
    """How many rows and patients, how many with the outcome, each figure, and `intervals` of each."""
    found = with_intervals(cases.outcome, probability, cases.patients, draws=draws, seed=seed)
    said = {name: interval.said() for name, interval in found.items()}
    return {
        "n": len(cases.outcome),
        "patients": len(np.unique(cases.patients)),
        "events": int(cases.outcome.sum()),
        "prevalence": round(float(cases.outcome.mean()), 6),
        **{name: figure["value"] for name, figure in said.items()},
        "intervals": {name: [figure["low"], figure["high"]] for name, figure in said.items()},
    }


def subgroups_of(cases: Cases, probability: Floats, *, draws: int, seed: int) -> dict[str, Any]:
    """The figures of each group, by the column that tells groups apart; of small ones only their size."""
    found: dict[str, Any] = {}
    for column, labels in cases.groups.items():
        names = sorted({str(label) for label in labels} - {""})
        found[column] = {name: _group(cases, probability, labels == name, draws, seed) for name in names}
    return found


def _group(cases: Cases, probability: Floats, chosen: npt.NDArray[np.bool_], draws: int, seed: int) -> dict[str, Any]:
    part = cases.only(chosen)
    if len(part.outcome) < SMALLEST or len(np.unique(part.outcome)) < 2:
        return {"n": len(part.outcome), "events": int(part.outcome.sum())}
    return figures_of(part, probability[chosen], draws=draws, seed=seed)
