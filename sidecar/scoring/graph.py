"""A model's graph in the ONNX runtime: checked against its manifest once, then run on one patient at a time.

Only the outputs that the manifest names are asked for: an exported classifier's `label`, for one, is often declared in
a shape that does not hold for several rows, and the runtime would warn of it on each run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sidecar.errors import Misconfigured
from sidecar.manifest import Manifest, Recalibration
from sidecar.records import Score
from sidecar.scoring.shapley import shapley
from sidecar.scoring.wire import Malformed, objections

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_ROUNDING = 1e-4
"""How far outside [0, 1] a sum of float32 parts (the trees of a forest) may end and still be a probability."""

_SAME = 1e-5
"""How far two answers of a graph about one row may differ, when rows are summed in another order."""


Rows = Sequence[Sequence[float]]


class _Unfit(Exception):
    """The graph is not the one that its manifest declares; the message says how."""


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A loaded graph. `columns` are the places of the manifest's outputs.

    `typical` [F] is of graphs without terms, `prototypes` [B, F] of those that are explained by Shapley values.

    `tensors` are total and points, where there are terms; then probabilities, where there are outputs; then the
    `further` totals. `each` says that every output has terms of its own.
    """

    session: Any
    input: str
    tensors: tuple[str, ...]
    dtype: Any
    features: tuple[str, ...]
    points: tuple[str, ...]
    outputs: tuple[str, ...]
    columns: tuple[int, ...]
    typical: Any
    prototypes: Any = None
    further: tuple[str, ...] = ()
    each: bool = False
    recalibrations: tuple[Recalibration | None, ...] = ()

    def score(self, values: Sequence[float]) -> Score:
        """Run the graph on one patient's features. NaN in, NaN out: what is missing is never scored as normal.

        A graph without terms may well answer on NaN, as trees do, so it is not run unless every input is a number. For
        occlusion it is run once, on F + 1 rows: the patient, and the patient with one input after the other at its
        typical value.

        Raises:
            ValueError: a probability outside [0, 1], from a graph that says logits.
        """
        if self.typical is None:
            return self._terms(values)
        row = _row(values, self.dtype)
        if not np.isfinite(row).all():
            return Score(math.nan, {}, {self.outputs[0]: math.nan})
        return self._occluded(row) if self.prototypes is None else self._shared(row)

    def _terms(self, values: Sequence[float]) -> Score:
        """Shapes: features [1, F] in the type the graph declares; total [1, 1]; points [1, P]; probabilities [1, C].

        Where each output has its own, total is [1, C] and points [1, C, P]. A further total is [1, 1].
        """
        total, points, *more = self.run(_row(values, self.dtype)[np.newaxis])
        further = dict(zip(self.further, (float(t.reshape(-1)[0]) for t in more[bool(self.outputs) :]), strict=True))
        said = dict(zip(self.outputs, self.said(more[0])[0].tolist(), strict=True)) if self.outputs else {}
        if not self.each:
            return Score(float(total.reshape(-1)[0]), self._named(points[0]), said, further=further)
        terms = {name: self._named(points[0, at]) for name, at in zip(self.outputs, self.columns, strict=True)}
        return Score(float(total[0, self.columns[0]]), terms[self.outputs[0]], said, terms=terms, further=further)

    def _named(self, points: Any) -> dict[str, float]:
        return dict(zip(self.points, points.tolist(), strict=True))

    def _shared(self, row: Any) -> Score:
        found = shapley(lambda rows: self.said(self.run(rows)[0])[:, 0], row, self.prototypes)
        values = dict(zip(self.features, found.values.tolist(), strict=True))
        probability = {self.outputs[0]: found.probability}
        return Score(math.nan, {}, probability, values, found.baseline, float(found.errors.max()))

    def _occluded(self, row: Any) -> Score:
        """Shapes: features [F + 1, F] in the type the graph declares; probabilities [F + 1, C]."""
        said = self.said(self.run(self.occlusions(row))[0])[:, 0].tolist()
        found = said[0]
        changes = {name: found - other for name, other in zip(self.features, said[1:], strict=True)}
        return Score(math.nan, {}, {self.outputs[0]: found}, changes)

    def said(self, table: Any) -> Any:
        """The outputs' probabilities [N, O], float64, of what the graph says [N, C], as the site has recalibrated them.

        Raises:
            ValueError: one is outside [0, 1].
        """
        found = table[:, self.columns].astype(np.float64)
        if not ((found >= 0.0) & (found <= 1.0)).all():
            if (found < -_ROUNDING).any() or (found > 1 + _ROUNDING).any():
                raise ValueError("the graph gives a probability outside [0, 1]")
            found = found.clip(0.0, 1.0)  # NaN stays NaN
        for place, own in enumerate(self.recalibrations):
            if own is not None:
                with np.errstate(
                    divide="ignore", over="ignore"
                ):  # log odds of 0 and 1 are infinite, and stay where they are
                    odds = np.log(found[:, place]) - np.log1p(-found[:, place])
                found[:, place] = 1 / (1 + np.exp(-(own.intercept + own.slope * odds)))
        return found

    def occlusions(self, row: Any) -> Any:
        """`row` [F], and below it once for each feature with that one at its typical value: [F + 1, F]."""
        count = len(self.features)
        rows = np.empty((count + 1, count), dtype=self.dtype)
        rows[:] = row
        # From the second row on, one place further in each: a diagonal.
        rows.reshape(-1)[count :: count + 1] = self.typical
        return rows

    def run(self, rows: Any) -> Any:
        """What the graph gives for `rows` [N, F], in the order of `tensors`."""
        return self.session.run(self.tensors, {self.input: rows})


def open_graph(content: bytes, manifest: Manifest, path: Path, prototypes: Rows = ()) -> LoadedGraph:
    """Load a graph from verified bytes, and run it, to see that it is the one that `manifest`, at `path`, declares.

    `prototypes` are the rows that Shapley values compare with, each in the order of the graph's features.

    Raises:
        Misconfigured: the runtime refuses it, names, types or shapes differ, or it answers what it must not.
    """
    try:
        _examined(content)
        session = _session(content)
        graph = _declared(session, manifest, prototypes)
        if graph.typical is None:
            _refuses_nan(graph)
        else:
            _keeps_rows_apart(graph)
    except _Unfit as problem:
        raise Misconfigured([f"{path}: {problem}"]) from None
    return graph


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph as the file declares it: a size that is open is None."""

    name: str
    type: str
    shape: tuple[int | None, ...]

    @property
    def is_float(self) -> bool:
        """Whether it holds numbers of a type that is read here."""
        return self.type in _DTYPES


def signature(content: bytes, source: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and outputs of a graph.

    Raises:
        Misconfigured: it reaches beyond its own bytes, or the runtime refuses it.
    """
    try:
        _examined(content)
        session = _session(content)
    except _Unfit as problem:
        raise Misconfigured([f"{source}: {problem}"]) from None
    inputs, outputs = (tuple(map(_tensor, found)) for found in (session.get_inputs(), session.get_outputs()))
    return inputs, outputs


def _tensor(found: Any) -> Tensor:
    return Tensor(found.name, found.type, tuple(size if isinstance(size, int) else None for size in found.shape or ()))


def _examined(content: bytes) -> None:
    """Before the runtime sees it: a graph that reaches beyond its own bytes is refused."""
    try:
        found = objections(content)
    except Malformed as problem:
        raise _Unfit(f"the graph is refused unopened: {problem}") from None
    if found:
        raise _Unfit(f"the graph is refused unopened: {'; '.join(found)}")


def _session(content: bytes) -> Any:
    import onnxruntime as ort  # noqa: PLC0415 -- 0.3 s that --help and status must not pay

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as well, and their text may hold an input
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 -- the runtime raises a family of its own for a bad graph
        raise _Unfit(f"the runtime refuses the graph ({type(error).__name__})") from None


def _declared(session: Any, manifest: Manifest, prototypes: Rows) -> LoadedGraph:
    declared, features = manifest.graph, manifest.graph.features
    tensors = tuple(name for name in (declared.total, declared.points, declared.probabilities) if name)
    tensors += tuple(further.tensor for further in manifest.further)
    dtype = _dtype(session, declared.input, tensors)
    typical, compared_with = None, None
    if manifest.explanation is not None:
        said = manifest.explanation.typical
        rows = prototypes or [[said[name] for name in features]]
        compared_with = np.stack([_row(row, dtype) for row in rows])
        if not np.isfinite(compared_with).all():
            raise _Unfit(f"what [explanation] compares with has a value that is too large for {declared.input}")
        typical = np.median(compared_with, axis=0).astype(dtype)
    row = _row([math.nan] * len(features), dtype) if typical is None else typical
    answer = _tried(session, tensors, {declared.input: row[np.newaxis]})
    return LoadedGraph(
        session=session,
        input=declared.input,
        tensors=tensors,
        dtype=dtype,
        features=features,
        points=declared.point_names,
        outputs=tuple(o.name for o in manifest.outputs),
        columns=_columns(manifest, answer[tensors.index(declared.probabilities)]) if declared.probabilities else (),
        typical=typical,
        prototypes=compared_with if prototypes else None,
        further=tuple(further.name for further in manifest.further),
        recalibrations=tuple(o.recalibration for o in manifest.outputs),
        each=bool(manifest.outputs) and bool(declared.points) and answer[1].ndim == 3,
    )


def _dtype(session: Any, features: str, tensors: tuple[str, ...]) -> Any:
    """The type of the input: float64 where single precision would move a result, else float32.

    Outputs may be of either: whole numbers could not say that they are not known.
    """
    inputs, outputs = ({t.name: t.type for t in found} for found in (session.get_inputs(), session.get_outputs()))
    if lost := {features} - set(inputs) | set(tensors) - set(outputs):
        raise _Unfit(f"the graph has no tensor named {', '.join(sorted(lost))}")
    if more := set(inputs) - {features}:
        raise _Unfit(f"the graph has more inputs than {features}: {', '.join(sorted(more))}")
    if inputs[features] not in _DTYPES:
        raise _Unfit(f"the input {features} is {inputs[features]}; make it float or double")
    for name in tensors:
        if outputs[name] not in _DTYPES:
            hint = "export it with zipmap=False" if outputs[name].startswith("seq(") else "make it float or double"
            raise _Unfit(f"the output {name} is {outputs[name]}; {hint}")
    return _DTYPES[inputs[features]]


def _row(values: Sequence[float], dtype: Any) -> Any:
    """`values` [F] in the graph's type; what is too large for it is no number any more."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=dtype)


def _tried(session: Any, tensors: tuple[str, ...], inputs: dict[str, Any]) -> Any:
    """What the graph gives for a row or rows that it must take."""
    try:
        return session.run(tensors, inputs)
    except Exception as error:  # noqa: BLE001 -- as above
        rows, count = next(iter(inputs.values())).shape
        many = "" if rows == 1 else f"{rows} rows of "
        raise _Unfit(f"the graph does not take {many}{count} features ({type(error).__name__})") from None


def _columns(manifest: Manifest, table: Any) -> tuple[int, ...]:
    """The column of each output. A classifier's first says that there is no event: none is taken by its place alone."""
    name, outputs = manifest.graph.probabilities, manifest.outputs
    if table.ndim != 2 or len(table) != 1:
        raise _Unfit(f"{name} has the shape {list(table.shape)} for one row; make it [N, C]")
    width = table.shape[1]
    columns = tuple(i if o.column is None else o.column for i, o in enumerate(outputs))
    if outputs[0].column is None and width != len(outputs):
        raise _Unfit(f"{name} has {width} columns, outputs {len(outputs)}; say which is which with outputs.column")
    if max(columns) >= width:
        raise _Unfit(f"{name} has {width} columns, counted from 0; outputs.column is {max(columns)}")
    return columns


def _refuses_nan(graph: LoadedGraph) -> None:
    """A graph of terms, run on nothing but NaN, gives points of the manifest's names, and no total or probability."""
    nothing = [math.nan] * len(graph.features)
    total, points, *more = graph.run(_row(nothing, graph.dtype)[np.newaxis])
    width = max(graph.columns, default=0) + 1
    if graph.each and (total.ndim != 2 or total.shape[1] < width or points.shape[:2] != total.shape):
        raise _Unfit(
            f"points of each output have the shape {list(points.shape)}; make the total [N, C] and them [N, C, P]"
        )
    if not graph.each and total.size != 1:
        raise _Unfit(f"the graph's total has the shape {list(total.shape)} for one row; make it [N, 1]")
    if points.shape != (1, *points.shape[1 : 1 + graph.each], len(graph.points)):
        raise _Unfit(f"the graph's points have the shape {list(points.shape)}, point_names {len(graph.points)} names")
    if any(other.size != 1 for other in more[bool(graph.outputs) :]):
        raise _Unfit("a further total has more than one number for one row; make it [N, 1]")
    score = graph.score(nothing)
    said = (score.total, *score.probabilities.values(), *score.further.values())
    if not all(map(math.isnan, said)):
        raise _Unfit("the graph scores a patient of whom nothing is known")


def _keeps_rows_apart(graph: LoadedGraph) -> None:
    """A graph without terms must give each of several rows what it gives that row alone, and a probability.

    A softmax over the wrong axis, for one, gives each row a share of all.
    """
    rows = graph.occlusions(graph.typical + 1)
    rows[0] = graph.typical
    (together,) = _tried(graph.session, graph.tensors, {graph.input: rows})
    alone = [_tried(graph.session, graph.tensors, {graph.input: row[np.newaxis]})[0] for row in rows]
    same = together.shape == (len(rows), alone[0].shape[1]) and all(
        other.shape == (1, together.shape[1]) and np.allclose(row, other[0], rtol=0, atol=_SAME, equal_nan=True)
        for row, other in zip(together, alone, strict=True)
    )
    if not same:
        raise _Unfit("the graph gives a row another answer beside other rows than alone")
    for said in together[:, graph.columns[0]].tolist():
        if not -_ROUNDING <= said <= 1 + _ROUNDING:
            raise _Unfit("the graph gives no probability for what [explanation] compares with, or near it")
