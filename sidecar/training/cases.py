"""What a training script hands over: rows that the model can read, and how it is to be fitted to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.monitoring.performance import Floats
from sidecar.training.additive import Shape
from sidecar.training.table import BadData

Groups = Mapping[str, npt.NDArray[np.str_]]


@dataclass(frozen=True, slots=True)
class Cases:
    """Rows of the cohort: `inputs` [N, P] in the graph's order, `outcome` [N] of 0 and 1, and whose row each is.

    `weight` is each row's when the model is fitted: 0 leaves it out, more than 1 lets it stand for others left out.
    `groups` are the columns by which figures are told apart, "" for whom it is not known. `order`, where the data have
    time, is each row's place in it. `excluded` counts rows that are not of the cohort. `extra` is what the script's own
    figures need.
    """

    inputs: Floats
    outcome: Floats
    patients: npt.NDArray[Any]
    weight: Floats
    groups: Groups
    order: Floats | None = None
    excluded: int = 0
    extra: Mapping[str, Floats] = field(default_factory=dict)

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Cases":
        """The chosen rows."""
        return replace(
            self,
            inputs=self.inputs[chosen],
            outcome=self.outcome[chosen],
            patients=self.patients[chosen],
            weight=self.weight[chosen],
            groups={name: column[chosen] for name, column in self.groups.items()},
            order=None if self.order is None else self.order[chosen],
            extra={name: column[chosen] for name, column in self.extra.items()},
        )

    def with_both_outcomes(self, path: Path) -> "Cases":
        """These rows, if figures can be made of them.

        Raises:
            BadData: there are none, or all have one outcome.
        """
        if not len(self.outcome):
            raise BadData(f"{path}: no row belongs to the cohort and has what the model needs")
        if len(found := np.unique(self.outcome)) < 2:
            raise BadData(f"{path}: every row has the outcome {found[0]:g}, and figures need both")
        return self


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is made.

    `read` makes the cases of a file. `shapes` says how terms may run, looking at inputs alone; `names` are the inputs.
    `penalties` are tried, and the one with the best likelihood out of fold is taken. `figures` are the script's own, of
    scored cases and their probabilities. `whose` is what the data are, for files made of them. `edges` are those of the
    bins of drift; an input without gets its octiles. `variants` are other inputs and shapes of the same rows, to say
    what they would be worth; they never ship. `manifest` is the template of a model that is not shipped, in its folder.
    """

    name: str
    version: str
    names: tuple[str, ...]
    read: Callable[[Path], Cases]
    shapes: Callable[[Floats], tuple[Shape, ...]]
    penalties: tuple[float, ...]
    whose: str
    seed: int
    edges: Mapping[str, tuple[float, ...]]
    variants: Mapping[str, Callable[[Cases], tuple[Floats, tuple[Shape, ...]]]] = field(default_factory=dict)
    manifest: str | None = None
    figures: Callable[[Cases, Floats], Mapping[str, Any]] = lambda _cases, _probability: {}
