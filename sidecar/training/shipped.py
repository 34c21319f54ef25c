"""The shipped graph, run on many rows at once, from the bytes whose digest its manifest pins, as it serves."""

from pathlib import Path

import numpy as np

from sidecar.manifest import read_folder
from sidecar.manifest.folder import MANIFEST
from sidecar.monitoring.performance import Floats
from sidecar.scoring.graph import open_graph

_ROWS = 8192
"""At once, which bounds the memory of long files."""


class Shipped:
    """A model's graph as it serves: what a site has recalibrated is.

    Raises:
        Misconfigured: the folder is not the reviewed one, or the graph not the one that its manifest declares.
    """

    def __init__(self, folder: Path) -> None:
        found = read_folder(folder)
        declared = found.manifest.graph
        self.sha256 = declared.sha256
        self._graph = open_graph(found.files[declared.file], found.manifest, folder / MANIFEST)

    def run(self, inputs: Floats) -> tuple[Floats, Floats, Floats]:
        """Of `inputs` [N, P]: the linear predictor [N] and the terms [N, P] of the graph, and the probabilities [N]."""
        parts = [self._graph.run(inputs[at : at + _ROWS]) for at in range(0, len(inputs), _ROWS)]
        totals, terms, probabilities = (np.concatenate(found) for found in zip(*parts, strict=True))
        return totals[:, 0], terms, self._graph.said(probabilities)[:, 0]

    def probability(self, inputs: Floats) -> Floats:
        """The probabilities [N]; NaN where the model gives none."""
        return self.run(inputs)[2]
