"""Build `model.onnx`: the National Early Warning Score 2 as an exact graph.

Source of the thresholds: Royal College of Physicians, National Early Warning Score (NEWS) 2, London 2017, chart 1.
Vitals are charted as integers (temperature to 0.1 °C); a value between two charted steps is rounded half up, so
every edge sits half a step below the next band and is exact in float32 for charted values.

Input  `features` float32 [N, 8]: respiratory rate /min, SpO2 %, SpO2 scale (1 or 2), on oxygen (0 or 1),
       systolic pressure mm[Hg], pulse /min, not alert (0 or 1), temperature °C.
Output `points` float32 [N, 7] per parameter (NaN where it cannot be known) and `score` float32 [N, 1], their sum;
       `qsofa` float32 [N, 1], the quick SOFA of three of the inputs: respiratory rate 22/min or more, systolic pressure
       100 mm[Hg] or less, not alert (Singer M et al. JAMA 2016;315:801).

Run `python models/news2/1.0.0/build.py`; the same bytes come out every time.
"""

import hashlib
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

# (first points, then (edge, points from that edge upwards) ...)
Table = tuple[float, tuple[tuple[float, float], ...]]
RESPIRATORY: Table = (3, ((8.5, 1), (11.5, 0), (20.5, 2), (24.5, 3)))
SPO2_SCALE_1: Table = (3, ((91.5, 2), (93.5, 1), (95.5, 0)))
SPO2_SCALE_2_LOW: Table = (3, ((83.5, 2), (85.5, 1), (87.5, 0)))
SPO2_SCALE_2_ON_OXYGEN: Table = (0, ((92.5, 1), (94.5, 2), (96.5, 3)))
SYSTOLIC: Table = (3, ((90.5, 2), (100.5, 1), (110.5, 0), (219.5, 3)))
PULSE: Table = (3, ((40.5, 1), (50.5, 0), (90.5, 1), (110.5, 2), (130.5, 3)))
TEMPERATURE: Table = (3, ((35.05, 1), (36.05, 0), (38.05, 1), (39.05, 2)))
QSOFA_RESPIRATORY: Table = (0, ((21.5, 1),))
QSOFA_SYSTOLIC: Table = (1, ((100.5, 0),))


class Graph:
    """Nodes and constants, gathered in a fixed order so that the bytes repeat."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> str:
        """Name a constant."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node; its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def column(self, index: int, name: str) -> str:
        """Feature `index` as [N, 1]."""
        at = numpy_helper.from_array(np.array([index], dtype=np.int64), f"{name}_at")
        self.constants.append(at)
        return self.add("Gather", ["features", at.name], name, axis=1)

    def steps(self, x: str, table: Table, name: str) -> str:
        """A step table of `x`: [x >= edges] @ differences + first; NaN stays NaN by adding x * 0."""
        first, edges = table
        levels = [first, *(points for _, points in edges)]
        e = self.constant(f"{name}_edges", np.array([[edge for edge, _ in edges]], dtype=np.float32))
        d = self.constant(f"{name}_rises", np.array([[b - a] for a, b in pairwise(levels)], dtype=np.float32))
        f = self.constant(f"{name}_first", np.array([[first]], dtype=np.float32))
        above = self.add("GreaterOrEqual", [x, e], f"{name}_above")
        as_float = self.add("Cast", [above], f"{name}_ones", to=TensorProto.FLOAT)
        rise = self.add("MatMul", [as_float, d], f"{name}_rise")
        plain = self.add("Add", [rise, f], f"{name}_plain")
        nan = self.add("Mul", [x, "zero"], f"{name}_nan")
        return self.add("Add", [plain, nan], name)


def spo2(graph: Graph, saturation: str, scale: str, oxygen: str) -> str:
    """Scale 1, or scale 2, where 93 % and above scores only on oxygen: unknown oxygen makes just that unknown."""
    one = graph.steps(saturation, SPO2_SCALE_1, "spo2_one")
    low = graph.steps(saturation, SPO2_SCALE_2_LOW, "spo2_low")
    high_if_oxygen = graph.steps(saturation, SPO2_SCALE_2_ON_OXYGEN, "spo2_rich")
    high = graph.add("Mul", [high_if_oxygen, oxygen], "spo2_high")
    graph.constant("spo2_target_top", np.array([[92.5]], dtype=np.float32))
    graph.constant("scale_edge", np.array([[1.5]], dtype=np.float32))
    is_high = graph.add("GreaterOrEqual", [saturation, "spo2_target_top"], "spo2_is_high")
    two = graph.add("Where", [is_high, high, low], "spo2_two")
    is_two = graph.add("GreaterOrEqual", [scale, "scale_edge"], "spo2_is_two")
    chosen = graph.add("Where", [is_two, two, one], "spo2_chosen")
    scale_nan = graph.add("Mul", [scale, "zero"], "spo2_scale_nan")
    return graph.add("Add", [chosen, scale_nan], "spo2_points")


def build() -> bytes:
    """The model, serialised."""
    graph = Graph()
    graph.constant("zero", np.array([[0.0]], dtype=np.float32))
    graph.constant("two", np.array([[2.0]], dtype=np.float32))
    graph.constant("three", np.array([[3.0]], dtype=np.float32))
    names = ["respiratory", "saturation", "scale", "oxygen", "systolic", "pulse", "not_alert", "temperature"]
    x = {name: graph.column(index, name) for index, name in enumerate(names)}
    parameters = [
        graph.steps(x["respiratory"], RESPIRATORY, "respiratory_points"),
        spo2(graph, x["saturation"], x["scale"], x["oxygen"]),
        graph.add("Mul", [x["oxygen"], "two"], "oxygen_points"),
        graph.steps(x["systolic"], SYSTOLIC, "systolic_points"),
        graph.steps(x["pulse"], PULSE, "pulse_points"),
        graph.add("Mul", [x["not_alert"], "three"], "consciousness_points"),
        graph.steps(x["temperature"], TEMPERATURE, "temperature_points"),
    ]
    graph.add("Concat", parameters, "points", axis=1)
    graph.constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"))
    graph.add("ReduceSum", ["points", "axis"], "score", keepdims=1)
    signs = [
        graph.steps(x["respiratory"], QSOFA_RESPIRATORY, "qsofa_respiratory"),
        graph.steps(x["systolic"], QSOFA_SYSTOLIC, "qsofa_systolic"),
        x["not_alert"],
    ]
    graph.add("Concat", signs, "qsofa_signs", axis=1)
    graph.add("ReduceSum", ["qsofa_signs", "axis"], "qsofa", keepdims=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "news2",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8])],
            [
                helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1]),
                helper.make_tensor_value_info("points", TensorProto.FLOAT, ["N", 7]),
                helper.make_tensor_value_info("qsofa", TensorProto.FLOAT, ["N", 1]),
            ],
            initializer=graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
        producer_name="ehr-sidecar",
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    content = build()
    Path(__file__).with_name("model.onnx").write_bytes(content)
    sys.stdout.write(f"model.onnx {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}\n")
