"""Build `model.onnx`: the 4-variable Kidney Failure Risk Equation as an exact graph.

Sources: Tangri N et al. JAMA 2011;305:1553 (the equation and its centring); Tangri N et al. JAMA 2016;315:164 (the
baseline survival of North America and of other regions).

Everything is float64: the published probabilities are met to 1e-12, and the terms sum to the linear predictor exactly.

Input  `features` float64 [N, 5]: age in years, male (1 or 0), eGFR in mL/min/1.73 m², urine albumin-to-creatinine
       ratio in mg/g, region (1 = North America, 0 = other).
Output `terms` float64 [N, 4]: the linear predictor's terms relative to the centring, in log hazard; `linear_predictor`
       [N, 1], their sum; `probabilities` [N, 2]: kidney failure within 2 and 5 years. NaN in, NaN out.

Run `python models/kfre_4var/1.0.0/build.py`; the same bytes come out every time.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

# (per unit, divisor of the input, centring): coefficient * (input / divisor - centring); the last is of ln(ACR).
AGE = (-0.2201, 10.0, 7.036)
MALE = (0.2467, 1.0, 0.5642)
EGFR = (-0.5567, 5.0, 7.222)
LN_ACR = (0.4510, 1.0, 5.137)
# Baseline survival without kidney failure at 2 and 5 years.
NORTH_AMERICA = (0.9750, 0.9240)
OTHER = (0.9832, 0.9365)


class Graph:
    """Nodes and constants, gathered in a fixed order so that the bytes repeat."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

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
        at = self.constant(f"{name}_at", [index], np.int64)
        return self.add("Gather", ["features", at], name, axis=1)

    def term(self, x: str, numbers: tuple[float, float, float], name: str) -> str:
        """One term of the linear predictor."""
        coefficient, divisor, centre = numbers
        scaled = self.add("Div", [x, self.constant(f"{name}_divisor", [[divisor]])], f"{name}_scaled")
        centred = self.add("Sub", [scaled, self.constant(f"{name}_centre", [[centre]])], f"{name}_centred")
        return self.add("Mul", [centred, self.constant(f"{name}_coefficient", [[coefficient]])], name)


def probabilities(graph: Graph, predictor: str, region: str) -> None:
    """1 - S0^exp(lp), as 1 - exp(ln S0 * exp(lp)), with the region's S0; an unknown region makes it unknown."""
    graph.constant("half", [[0.5]])
    graph.constant("zero", [[0.0]])
    graph.constant("one", [[1.0]])
    graph.constant("north_america", [np.log(NORTH_AMERICA)])
    graph.constant("other", [np.log(OTHER)])
    is_north_america = graph.add("Greater", [region, "half"], "is_north_america")
    known = graph.add("Mul", [region, "zero"], "region_nan")
    baseline = graph.add("Where", [is_north_america, "north_america", "other"], "baseline")
    hazard = graph.add("Exp", [predictor], "relative_hazard")
    log_survival = graph.add("Mul", [baseline, hazard], "log_survival")
    survival = graph.add("Exp", [log_survival], "survival")
    plain = graph.add("Sub", ["one", survival], "plain_probabilities")
    graph.add("Add", [plain, known], "probabilities")


def build() -> bytes:
    """The model, serialised."""
    graph = Graph()
    names = ["age", "male", "egfr", "acr", "region"]
    x = {name: graph.column(index, name) for index, name in enumerate(names)}
    terms = [
        graph.term(x["age"], AGE, "age_term"),
        graph.term(x["male"], MALE, "male_term"),
        graph.term(x["egfr"], EGFR, "egfr_term"),
        graph.term(graph.add("Log", [x["acr"]], "ln_acr"), LN_ACR, "acr_term"),
    ]
    graph.add("Concat", terms, "terms", axis=1)
    axis = graph.constant("axis", [1], np.int64)
    predictor = graph.add("ReduceSum", ["terms", axis], "linear_predictor", keepdims=1)
    probabilities(graph, predictor, x["region"])
    outputs = {"linear_predictor": 1, "terms": 4, "probabilities": 2}
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "kfre_4var",
            [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["N", 5])],
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", size]) for name, size in outputs.items()],
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
