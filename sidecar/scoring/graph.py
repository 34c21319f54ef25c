"""A model's graph in the ONNX runtime: checked against its manifest once, then run on one patient at a time.

Only the outputs that the manifest names are asked for: an exported classifier's `label`, for one, has a shape that does
not hold for several rows, and the runtime warns of it on each run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sidecar.errors import Misconfigured
from sidecar.manifest import Manifest
from sidecar.records import Score

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_ROUNDING = 1e-5
"""How far outside [0, 1] a sum of float32 parts (a forest's trees) may end without being something else."""
_MIXES = "gives a row another answer beside other rows than alone"


@dataclass(frozen=True, slots=True)
class Graph:
    """A loaded graph. `columns` are the places of the manifest's outputs; `typical` belongs to graphs without terms."""

    session: Any
    input: str
    tensors: tuple[str, ...]
    dtype: Any
    features: tuple[str, ...]
    points: tuple[str, ...]
    outputs: tuple[str, ...]
    columns: tuple[int, ...]
    typical: Any = None

    def score(self, values: Sequence[float]) -> Score:
        """Run the graph on one patient's features. NaN in, NaN out: what is missing is never scored as normal.

        A graph without terms may well answer on NaN, as trees do, so it is not run unless every input is a number. It
        is run once, on F + 1 rows: the patient, and the patient with one input after the other at its typical value.

        Raises:
            ValueError: a probability outside [0, 1], from a graph that says logits.
        """
        return self._terms(values) if self.typical is None else self._occluded(values)

    def _terms(self, values: Sequence[float]) -> Score:
        """Shapes: features [1, F] in the type the graph declares; total [1, 1]; points [1, P]; probabilities [1, C]."""
        total, points, *more = self._run(np.array([values], dtype=self.dtype))
        said = dict(zip(self.points, (float(p) for p in points[0]), strict=True))
        probabilities = self._probabilities(more[0])[0].tolist() if more else []
        return Score(float(total.reshape(-1)[0]), said, dict(zip(self.outputs, probabilities, strict=True)))

    def _occluded(self, values: Sequence[float]) -> Score:
        """Shapes: features [F + 1, F]; probabilities [F + 1, C]."""
        row = np.array(values, dtype=self.dtype)
        if not np.isfinite(row).all():
            return Score(math.nan, {}, dict.fromkeys(self.outputs, math.nan))
        said = self._probabilities(self._run(self.occlusions(row))[0])[:, 0]
        changes = dict(zip(self.features, (said[0] - said[1:]).tolist(), strict=True))
        return Score(math.nan, {}, {self.outputs[0]: float(said[0])}, changes)

    def occlusions(self, row: Any) -> Any:
        """`row` [F], and below it once for each feature with that one at its typical value: [F + 1, F]."""
        count = len(self.features)
        rows = np.empty((count + 1, count), dtype=self.dtype)
        rows[:] = row
        # From the second row on, the next place in each next row: a diagonal.
        rows.reshape(-1)[count :: count + 1] = self.typical
        return rows

    def _run(self, rows: Any) -> Any:
        return self.session.run(self.tensors, {self.input: rows})

    def _probabilities(self, table: Any) -> Any:
        """The columns of the manifest's outputs, in float64."""
        said = table[:, self.columns].astype(np.float64)
        if ((said < -_ROUNDING) | (said > 1 + _ROUNDING)).any():  # a NaN is not outside
            raise ValueError("the graph gives a probability outside [0, 1]")
        return said.clip(0, 1)

    def check(self, path: Path) -> None:
        """Run a graph of terms on nothing but NaN: shapes must fit, and neither total nor probability be a number.

        One without terms is run on typical rows: it must give each row what it gives that row alone.

        Raises:
            Misconfigured: it does not.
        """
        try:
            problem = self._refuses_nan() if self.typical is None else self._keeps_rows_apart()
        except Exception as error:  # noqa: BLE001 -- the runtime raises a family of its own for a bad graph
            rows = "" if self.typical is None else f"{len(self.features) + 1} rows of "
            kind = f"{error}" if type(error) is ValueError else type(error).__name__
            problem = f"does not take {rows}{len(self.features)} features ({kind})"
        if problem:
            raise Misconfigured([f"{path}: the graph {problem}"])

    def _refuses_nan(self) -> str:
        score = self._terms([math.nan] * len(self.features))
        numbers = not all(map(math.isnan, (score.total, *score.probabilities.values())))
        return "scores a patient of whom nothing is known" if numbers else ""

    def _keeps_rows_apart(self) -> str:
        rows = self.occlusions(self.typical + 1)
        rows[0] = self.typical
        together = self._probabilities(self._run(rows)[0])
        if together.shape != (len(rows), 1):
            return "gives another number of rows than it is given"
        if not np.isfinite(together).all():
            return "gives no probability for explanation.typical"
        alone = np.concatenate([self._probabilities(self._run(row[np.newaxis])[0]) for row in rows])
        return "" if np.allclose(together, alone, rtol=0, atol=_ROUNDING) else _MIXES


def open_graph(content: bytes, manifest: Manifest, path: Path) -> Graph:
    """Load a graph from verified bytes and check that it is the one that `manifest`, at `path`, declares.

    Raises:
        Misconfigured: the runtime refuses it, or names, types or shapes differ.
    """
    import onnxruntime as ort  # noqa: PLC0415 -- 0.3 s that --help and status must not pay

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 -- the runtime raises a family of its own for a bad graph
        raise Misconfigured([f"{path}: the runtime refuses the graph ({type(error).__name__})"]) from None
    declared = manifest.graph
    named = (declared.total, declared.points, declared.probabilities)
    tensors = tuple(name for name in named if name)
    given = {o.name: o for o in session.get_outputs()}
    if lost := {declared.input, *tensors} - {i.name for i in session.get_inputs()} - set(given):
        raise Misconfigured([f"{path}: the graph has no tensor named {', '.join(sorted(lost))}"])
    dtype = _dtype(session, declared.input, path)
    typical = manifest.explanation and np.array([manifest.explanation.typical[n] for n in declared.features], dtype)
    graph = Graph(
        session=session,
        input=declared.input,
        tensors=tensors,
        dtype=dtype,
        features=declared.features,
        points=declared.point_names,
        outputs=tuple(o.name for o in manifest.outputs),
        columns=_columns(manifest, given, path),
        typical=typical,
    )
    graph.check(path)
    return graph


def _dtype(session: Any, name: str, path: Path) -> Any:
    """The type of the input: float64 where single precision would move a result, else float32."""
    kind = next(i.type for i in session.get_inputs() if i.name == name)
    if kind not in _DTYPES:
        raise Misconfigured([f"{path}: the input {name} is {kind}; make it float or double"])
    return _DTYPES[kind]


def _columns(manifest: Manifest, given: dict[str, Any], path: Path) -> tuple[int, ...]:
    """The column of each output. A classifier's first is that there is no event: it is not taken by its place."""
    name = manifest.graph.probabilities
    if name is None:
        return ()
    tensor = given[name]
    if tensor.type not in _DTYPES or len(tensor.shape) != 2:
        hint = "export it with zipmap=False" if tensor.type.startswith("seq(") else "make it float or double [N, C]"
        raise Misconfigured([f"{path}: the output {name} is {tensor.type} of {len(tensor.shape)} dimensions; {hint}"])
    width = tensor.shape[1]
    columns = tuple(i if o.column is None else o.column for i, o in enumerate(manifest.outputs))
    if not isinstance(width, int):
        return columns
    if max(columns) >= width:
        raise Misconfigured([f"{path}: {name} has {width} columns, from 0 to {width - 1}; outputs.column is beyond"])
    if width != len(columns) and any(o.column is None for o in manifest.outputs):
        said = f"{name} has {width} columns and there are {len(columns)} outputs"
        raise Misconfigured([f"{path}: {said}; say which is which with outputs.column"])
    return columns
