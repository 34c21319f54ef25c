"""Build `model.onnx`: MELD 3.0 as an exact graph.

Source: Kim WR et al. Gastroenterology 2021;161:1887, and OPTN policy 9.1.D, from which come the 1.33 points of
candidates aged 12 to 17 whatever their sex, creatinine 3.0 on dialysis, rounding half up, and the limits 6 and 40. The
limits of the inputs (bilirubin, INR and creatinine not below 1, creatinine not above 3, sodium 125 to 137, albumin 1.5
to 3.5) are part of the equation. Everything is float64.

Input  `features` float64 [N, 8]: age in completed years, male (0 or 1), bilirubin mg/dL, sodium mmol/L, INR, creatinine
       mg/dL, dialysis sessions within a week (from 2 on creatinine counts as 3), albumin g/dL.
Output `points` float64 [N, 10]: of the eight inputs, the constant 6, and what rounding and the limits of the total add;
       `score` [N, 1], their sum, a whole number. What is missing or not above 0, an age below 12, a negative
       count and a sex other than 0 or 1 make all of it NaN. An interaction counts with sodium and with albumin.

Run `python models/meld_3/1.0.0/build.py`; the same bytes come out every time.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

NUMBERS = {
    "zero": 0.0,
    "one": 1.0,
    "half": 0.5,
    "sessions": 2.0,
    "nan": np.nan,
    "youngest": 12.0,
    "adult": 18.0,
    "sex_or_youth": 1.33,
    "bilirubin_weight": 4.56,
    "sodium_weight": 0.82,
    "sodium_by_bilirubin": 0.24,
    "inr_weight": 9.09,
    "creatinine_weight": 11.14,
    "albumin_weight": 1.85,
    "albumin_by_creatinine": 1.83,
    "base": 6.0,
    "creatinine_most": 3.0,
    "sodium_least": 125.0,
    "sodium_most": 137.0,
    "albumin_least": 1.5,
    "albumin_most": 3.5,
    "score_least": 6.0,
    "score_most": 40.0,
}
NAMES = ("age", "male", "bilirubin", "sodium", "inr", "creatinine", "dialysis", "albumin")
POINTS = ("age", "sex", "bilirubin", "sodium", "inr", "creatinine", "dialysis", "albumin")


class Graph:
    """Nodes and constants, gathered in a fixed order so that the bytes repeat."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        for name, value in NUMBERS.items():
            self.constant(name, [[value]])

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

    def weighted(self, x: str, weight: str) -> str:
        """`x` times a constant."""
        return self.add("Mul", [x, weight], f"{x}_by_{weight}")

    def clipped(self, x: str, least: str, most: str | None = None) -> str:
        """`x` not below `least` and not above `most`."""
        low = self.add("Max", [x, least], f"{x}_raised")
        return low if most is None else self.add("Min", [low, most], f"{x}_clipped")


def known(graph: Graph) -> str:
    """0 where everything is a number that the equation is defined for, else NaN."""
    allowed = [graph.add("GreaterOrEqual", ["age", "youngest"], "age_allowed")]
    allowed += [
        graph.add("Greater", [x, "zero"], f"{x}_allowed")
        for x in ("bilirubin", "sodium", "inr", "creatinine", "albumin")
    ]
    allowed.append(graph.add("GreaterOrEqual", ["dialysis", "zero"], "dialysis_allowed"))
    answers = [graph.add("Equal", ["male", answer], f"male_is_{answer}") for answer in ("zero", "one")]
    allowed.append(graph.add("Or", answers, "male_allowed"))
    together = allowed[0]
    for one in allowed[1:]:
        together = graph.add("And", [together, one], f"and_{one}")
    return graph.add("Where", [together, "zero", "nan"], "known")


def sex_and_age(graph: Graph) -> dict[str, str]:
    """1.33 for women, and for everybody below 18."""
    young = graph.add("Less", ["age", "adult"], "young")
    female = graph.add("Sub", ["one", "male"], "female")
    of_sex = graph.weighted(female, "sex_or_youth")
    return {
        "age": graph.add("Where", [young, "sex_or_youth", "zero"], "age_points"),
        "sex": graph.add("Where", [young, "zero", of_sex], "sex_points"),
    }


def of_blood(graph: Graph) -> dict[str, str]:
    """The points of the laboratory values and of dialysis."""
    ln_bilirubin = graph.add("Log", [graph.clipped("bilirubin", "one")], "ln_bilirubin")
    charted = graph.add("Log", [graph.clipped("creatinine", "one", "creatinine_most")], "ln_creatinine_charted")
    on_dialysis = graph.add("GreaterOrEqual", ["dialysis", "sessions"], "on_dialysis")
    ln_creatinine = graph.add(
        "Where", [on_dialysis, graph.add("Log", ["creatinine_most"], "ln_most"), charted], "ln_creatinine"
    )
    raised = graph.add("Sub", [ln_creatinine, charted], "ln_creatinine_raised")
    low_sodium = graph.add("Sub", ["sodium_most", graph.clipped("sodium", "sodium_least", "sodium_most")], "low_sodium")
    low_albumin = graph.add(
        "Sub", ["albumin_most", graph.clipped("albumin", "albumin_least", "albumin_most")], "low_albumin"
    )
    both_low = graph.weighted(graph.add("Mul", [low_sodium, ln_bilirubin], "sodium_bilirubin"), "sodium_by_bilirubin")
    both = graph.weighted(graph.add("Mul", [low_albumin, ln_creatinine], "albumin_creatinine"), "albumin_by_creatinine")
    return {
        "bilirubin": graph.weighted(ln_bilirubin, "bilirubin_weight"),
        "sodium": graph.add("Sub", [graph.weighted(low_sodium, "sodium_weight"), both_low], "sodium_points"),
        "inr": graph.weighted(graph.add("Log", [graph.clipped("inr", "one")], "ln_inr"), "inr_weight"),
        "creatinine": graph.weighted(charted, "creatinine_weight"),
        "dialysis": graph.weighted(raised, "creatinine_weight"),
        "albumin": graph.add("Sub", [graph.weighted(low_albumin, "albumin_weight"), both], "albumin_points"),
    }


def total(graph: Graph, points: dict[str, str]) -> list[str]:
    """`score`, and every part of it by the order of `POINTS`, then the constant and what rounding and limits add."""
    valid = known(graph)
    parts = [graph.add("Add", [points[name], valid], f"{name}_known") for name in POINTS]
    base = graph.add("Add", ["base", valid], "base_known")
    axis = graph.constant("axis", [1], np.int64)
    raw = graph.add("ReduceSum", [graph.add("Concat", [*parts, base], "parts", axis=1), axis], "raw", keepdims=1)
    rounded = graph.add("Floor", [graph.add("Add", [raw, "half"], "raw_and_half")], "rounded")
    limited = graph.add("Min", [graph.add("Max", [rounded, "score_least"], "not_below"), "score_most"], "limited")
    score = graph.add("Add", [limited, valid], "score")
    return [*parts, base, graph.add("Sub", [score, raw], "rounding")]


def build() -> bytes:
    """The model, serialised."""
    graph = Graph()
    for index, name in enumerate(NAMES):
        graph.column(index, name)
    parts = total(graph, {**sex_and_age(graph), **of_blood(graph)})
    graph.add("Concat", parts, "points", axis=1)
    sizes = {"score": 1, "points": len(parts)}
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "meld_3",
            [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["N", len(NAMES)])],
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", size]) for name, size in sizes.items()],
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
