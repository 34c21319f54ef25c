"""Build `model.onnx`: the HOSPITAL score, bands of 2016, as an exact graph.

Source of the points: Donzé J et al. JAMA Intern Med 2013;173:632. Bands of the prior admissions (0 to 1, 2 to 5, more
than 5): Donzé J et al. JAMA Intern Med 2016;176:496, the international validation whose observed rates are cited;
the derivation of 2013 had 0, 1 to 5, more than 5. Everything is float64.

Input  `features` float64 [N, 7]: haemoglobin g/dL, discharge from an oncology service (0 or 1), sodium mmol/L,
       procedure during the stay (0 or 1), urgent or emergency admission (0 or 1), admissions in the twelve months
       before, length of stay in days.
Output `points` float64 [N, 7] per parameter and `score` [N, 1], their sum. What is missing, a negative number and an
       answer other than 0 or 1 make both NaN.

Run `python models/hospital_score/1.0.0/build.py`; the same bytes come out every time.
"""

import hashlib
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

# (points below the first edge, then (edge, points from that edge upwards) ...)
Table = tuple[float, tuple[tuple[float, float], ...]]
HAEMOGLOBIN: Table = (1, ((12, 0),))
SODIUM: Table = (1, ((135, 0),))
ADMISSIONS: Table = (0, ((2, 2), (6, 5)))
LENGTH_OF_STAY: Table = (0, ((5, 2),))
ONCOLOGY, PROCEDURE, URGENT = 2.0, 1.0, 1.0


class Graph:
    """Nodes and constants, gathered in a fixed order so that the bytes repeat."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.constant("zero", [[0.0]])
        self.constant("nan", [[np.nan]])

    def constant(self, name: str, value: Any, kind: Any = np.float64) -> str:
        """Name a constant."""
        self.constants.append(numpy_helper.from_array(np.array(value, dtype=kind), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node; its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def column(self, index: int, name: str) -> str:
        """Feature `index` as [N, 1]."""
        return self.add("Gather", ["features", self.constant(f"{name}_at", [index], np.int64)], name, axis=1)

    def known(self, x: str, allowed: str) -> str:
        """0 where `allowed` holds, else NaN: what is missing or out of range is never scored."""
        return self.add("Where", [allowed, "zero", "nan"], f"{x}_known")

    def steps(self, x: str, least: float, table: Table) -> str:
        """A step table of `x`: [x >= edges] @ differences + first; NaN below `least`, and of NaN."""
        first, edges = table
        levels = [first, *(points for _, points in edges)]
        e = self.constant(f"{x}_edges", [[edge for edge, _ in edges]])
        d = self.constant(f"{x}_rises", [[b - a] for a, b in pairwise(levels)])
        above = self.add("GreaterOrEqual", [x, e], f"{x}_above")
        rise = self.add("MatMul", [self.add("Cast", [above], f"{x}_ones", to=TensorProto.DOUBLE), d], f"{x}_rise")
        plain = self.add("Add", [rise, self.constant(f"{x}_first", [[first]])], f"{x}_plain")
        allowed = self.add("GreaterOrEqual", [x, self.constant(f"{x}_least", [[least]])], f"{x}_allowed")
        return self.add("Add", [plain, self.known(x, allowed)], f"{x}_points")

    def yes(self, x: str, points: float) -> str:
        """`points` where `x` is 1, none where it is 0, NaN for anything else."""
        is_no = self.add("Equal", [x, "zero"], f"{x}_is_no")
        is_yes = self.add("Equal", [x, self.constant(f"{x}_one", [[1.0]])], f"{x}_is_yes")
        scored = self.add("Mul", [x, self.constant(f"{x}_worth", [[points]])], f"{x}_scored")
        return self.add("Add", [scored, self.known(x, self.add("Or", [is_no, is_yes], f"{x}_allowed"))], f"{x}_points")

    def model(self, name: str, parameters: list[str], width: int) -> bytes:
        """Points side by side, their sum, and the whole as bytes."""
        self.add("Concat", parameters, "points", axis=1)
        self.add("ReduceSum", ["points", self.constant("axis", [1], np.int64)], "score", keepdims=1)
        inputs = [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["N", width])]
        sizes = {"score": 1, "points": len(parameters)}
        outputs = [helper.make_tensor_value_info(out, TensorProto.DOUBLE, ["N", size]) for out, size in sizes.items()]
        model = helper.make_model(
            helper.make_graph(self.nodes, name, inputs, outputs, initializer=self.constants),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=9,
            producer_name="ehr-sidecar",
        )
        checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def build() -> bytes:
    """The model, serialised."""
    graph = Graph()
    parameters = [
        graph.steps(graph.column(0, "haemoglobin"), 0, HAEMOGLOBIN),
        graph.yes(graph.column(1, "oncology"), ONCOLOGY),
        graph.steps(graph.column(2, "sodium"), 0, SODIUM),
        graph.yes(graph.column(3, "procedure"), PROCEDURE),
        graph.yes(graph.column(4, "urgent"), URGENT),
        graph.steps(graph.column(5, "admissions"), 0, ADMISSIONS),
        graph.steps(graph.column(6, "length_of_stay"), 0, LENGTH_OF_STAY),
    ]
    return graph.model("hospital_score", parameters, 7)


if __name__ == "__main__":
    content = build()
    Path(__file__).with_name("model.onnx").write_bytes(content)
    sys.stdout.write(f"model.onnx {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}\n")
