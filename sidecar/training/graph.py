"""Write a fitted additive model as an ONNX graph, operator by operator. The same model gives the same bytes.

Input  `features` float64 [N, P], NaN where an input is absent.
Output `terms` float64 [N, P], in log odds relative to the average; `linear_predictor` [N, 1], their sum;
       `probabilities` [N, 1]. NaN where an input is absent that the model cannot do without.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

from sidecar.training.additive import Additive, Term


def onnx_bytes(model: Additive, name: str) -> bytes:
    """The graph called `name`, checked and serialised."""
    size = len(model.terms)
    nodes = [*_pieces(), *_sum()]
    outputs = {"linear_predictor": 1, "terms": size, "probabilities": 1}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["N", size])],
        [helper.make_tensor_value_info(output, TensorProto.DOUBLE, ["N", width]) for output, width in outputs.items()],
        initializer=_constants(model),
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="ehr-sidecar"
    )
    checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))


def _pieces() -> list[onnx.NodeProto]:
    """Ramps of the lines and flags of the steps, each a column; a comparison with NaN is false, and a ramp of NaN 0."""
    make = helper.make_node
    return [
        make("Gather", ["features", "ramp_of"], ["ramp_input"], axis=1),
        make("IsNaN", ["ramp_input"], ["ramp_absent"]),
        make("Max", ["ramp_input", "ramp_low"], ["ramp_above"]),
        make("Min", ["ramp_above", "ramp_high"], ["ramp_within"]),
        make("Sub", ["ramp_within", "ramp_low"], ["ramp_length"]),
        make("Where", ["ramp_absent", "zero", "ramp_length"], ["ramps"]),
        make("Gather", ["features", "step_of"], ["step_input"], axis=1),
        make("GreaterOrEqual", ["step_input", "step_edge"], ["step_taken"]),
        make("Cast", ["step_taken"], ["steps"], to=TensorProto.DOUBLE),
        make("Concat", ["ramps", "steps"], ["pieces"], axis=1),
    ]


def _sum() -> list[onnx.NodeProto]:
    make = helper.make_node
    return [
        make("MatMul", ["pieces", "rises"], ["risen"]),
        make("Add", ["risen", "start"], ["known_terms"]),
        make("IsNaN", ["features"], ["absent"]),
        make("Where", ["absent", "missing", "known_terms"], ["terms"]),
        make("ReduceSum", ["terms", "axis"], ["linear_predictor"], keepdims=1),
        make("Add", ["linear_predictor", "intercept"], ["log_odds"]),
        make("Sigmoid", ["log_odds"], ["probabilities"]),
    ]


def _constants(model: Additive) -> list[onnx.TensorProto]:
    ramps, steps = _columns(model, "linear"), _columns(model, "step")
    rises = np.zeros((len(ramps) + len(steps), len(model.terms)))
    for row, (place, rise, *_) in enumerate([*ramps, *steps]):
        rises[row, place] = rise
    doubles: dict[str, Any] = {
        "ramp_low": [low for _, _, low, _ in ramps],
        "ramp_high": [high for *_, high in ramps],
        "step_edge": [low for _, _, low, _ in steps],
        "rises": rises,
        "start": [term.values[0] for term in model.terms],
        "missing": [term.missing for term in model.terms],
        "intercept": model.intercept,
        "zero": 0.0,
    }
    whole: dict[str, Any] = {
        "ramp_of": [place for place, *_ in ramps],
        "step_of": [place for place, *_ in steps],
        "axis": [1],
    }
    return [
        *(numpy_helper.from_array(np.array(value, dtype=np.float64), name) for name, value in doubles.items()),
        *(numpy_helper.from_array(np.array(value, dtype=np.int64), name) for name, value in whole.items()),
    ]


def _columns(model: Additive, kind: str) -> list[tuple[int, float, float, float]]:
    """Of each piece of that kind: its input's place, what a unit of it adds, where it begins and where it ends."""
    return [piece for place, term in enumerate(model.terms) if term.kind == kind for piece in _of(place, term)]


def _of(place: int, term: Term) -> list[tuple[int, float, float, float]]:
    rises = np.diff(term.values).tolist()
    if term.kind == "step":
        return [(place, rise, edge, edge) for rise, edge in zip(rises, term.at, strict=True)]
    bends = pairwise(term.at)
    return [(place, rise / (high - low), low, high) for rise, (low, high) in zip(rises, bends, strict=True)]
