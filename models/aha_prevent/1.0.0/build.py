"""Build `model.onnx`: the PREVENT base equations as an exact graph.

Source: Khan SS et al. Circulation 2024;149:430, supplemental tables (erratum e956). Ten logistic equations a sex: total
cardiovascular disease, atherosclerotic disease, heart failure, coronary disease and stroke within 10 and 30 years.
Everything is float64.

Input  `features` float64 [N, 11]: age in completed years, male (0 or 1), total and HDL cholesterol mg/dL, systolic
       pressure mm[Hg], diabetes, current smoking (each 0 or 1), body mass index kg/m2, eGFR mL/min/1.73 m2,
       treatment of blood pressure, a statin (each 0 or 1).
Output `probabilities` [N, 10]; `linear_predictors` [N, 10], their log odds; `terms` [N, 10, 11], which sum to the
       latter for each output: of age, total (as non-HDL) and HDL cholesterol, systolic pressure, diabetes, smoking,
       body mass index, eGFR, treatment of blood pressure, statin, and the constant: a person of the same sex, 55 years
       old, with non-HDL cholesterol 3.5 and HDL cholesterol 1.3 mmol/L, 130 mm[Hg], 25 kg/m2, eGFR 90 and none of the
       rest. A term that age changes counts with the other input.

What is missing or outside the range that the equations were made for is never scored and never moved to the range's
end: all is NaN; of the 30-year outputs also from 60 years on.

Run `python models/aha_prevent/1.0.0/build.py`; the same bytes come out every time.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

OUTCOMES = ("total_cvd", "ascvd", "heart_failure", "chd", "stroke")
# Columns: for each outcome women, then men. A term that an equation does not have is 0.
YEARS_10 = """
age 0.7939329 0.7688528 0.719883 0.7099847 0.8998235 0.8972642 0.7587146 0.7423283 0.6907849 0.722513
non_hdl 0.0305239 0.0736174 0.1176967 0.1658663 0 0 0.1810949 0.2572109 0.0534279 0.0263348
hdl -0.1606857 -0.0954431 -0.151185 -0.1144285 0 0 -0.2014507 -0.1820374 -0.1055109 -0.0248959
sbp_low -0.2394003 -0.4347345 -0.0835358 -0.2837212 -0.4559771 -0.6811466 -0.0881827 -0.3174515 -0.113078 -0.268104
sbp_high 0.3600781 0.3362658 0.3592852 0.3239977 0.3576505 0.3634461 0.3547731 0.312778 0.3665217 0.3474634
diabetes 0.8667604 0.7692857 0.8348585 0.7189597 1.038346 0.923776 0.9045358 0.7485249 0.8013721 0.684699
smoking 0.5360739 0.4386871 0.4831078 0.3956973 0.583916 0.5023736 0.5410917 0.3912047 0.4187039 0.3874844
bmi_low 0 0 0 0 -0.0072294 -0.0485841 0 0 0 0
bmi_high 0 0 0 0 0.2997706 0.3726929 0 0 0 0
egfr_low 0.6045917 0.5378979 0.4864619 0.3690075 0.7451638 0.6926917 0.5198725 0.376487 0.4539767 0.3877827
egfr_high 0.0433769 0.0164827 0.0397779 0.0203619 0.0557087 0.0251827 0.0325935 0.0193687 0.0515087 0.0201965
bp_treated 0.3151672 0.288879 0.2265309 0.2036522 0.3534442 0.2980922 0.2010642 0.1588199 0.2494624 0.232963
statin -0.1477655 -0.1337349 -0.0592374 -0.0865581 0 0 -0.036195 -0.0494555 -0.0798829 -0.1178935
treated_sbp -0.0663612 -0.0475924 -0.0395762 -0.0322916 -0.0981511 -0.0497731 -0.0891238 -0.0577851 -0.0079039 0.0120926
treated_non_hdl 0.1197879 0.150273 0.0844423 0.114563 0 0 0.0750716 0.0809765 0.0833101 0.155739
age_non_hdl -0.0819715 -0.0517874 -0.0567839 -0.0300005 0 0 -0.0683256 -0.0517872 -0.0409242 0.0141928
age_hdl 0.0306769 0.0191169 0.0325692 0.0232747 0 0 0.0484755 0.0489033 0.016994 -0.0111745
age_sbp -0.0946348 -0.1049477 -0.1035985 -0.0927024 -0.0946663 -0.1289201 -0.0898086 -0.0850404 -0.1191213 -0.1155391
age_diabetes -0.27057 -0.2251948 -0.2417542 -0.2018525 -0.3581041 -0.3040924 -0.2569041 -0.2107552 -0.2480549 -0.2123743
age_smoke -0.078715 -0.0895067 -0.0791142 -0.0970527 -0.1159453 -0.1401688 -0.0786607 -0.1206397 -0.0998063 -0.0824133
age_bmi_high 0 0 0 0 -0.003878 0.0068126 0 0 0 0
age_egfr -0.1637806 -0.1543702 -0.1671492 -0.1217081 -0.1884289 -0.1797778 -0.1597513 -0.07795 -0.1759075 -0.180789
constant -3.307728 -3.031168 -3.819975 -3.500655 -4.310409 -3.946391 -4.608751 -4.156753 -4.409199 -4.20881
"""
YEARS_30 = """
age 0.5503079 0.4627309 0.4669202 0.3994099 0.6254374 0.5681541 0.4912423 0.4171209 0.4366978 0.4003448
age_age -0.0928369 -0.0984281 -0.0893118 -0.0937484 -0.0983038 -0.1048388 -0.0917078 -0.0949994 -0.0873673 -0.0935927
non_hdl 0.0409794 0.0836088 0.1256901 0.1744643 0 0 0.1878256 0.2651913 0.0586334 0.0309419
hdl -0.1663306 -0.1029824 -0.1542255 -0.120203 0 0 -0.2035703 -0.1879446 -0.1069016 -0.0280763
sbp_low -0.1628654 -0.2140352 -0.0018093 -0.0665117 -0.3919241 -0.4761564 -0.0030222 -0.0971746 -0.0317106 -0.047704
sbp_high 0.3299505 0.2904325 0.322949 0.2753037 0.3142295 0.30324 0.3111757 0.258931 0.3272741 0.2925734
diabetes 0.6793894 0.5331276 0.6296707 0.4790257 0.8330787 0.6840338 0.6803247 0.4956463 0.5841726 0.4236823
smoking 0.3196112 0.2141914 0.268292 0.1782635 0.3438651 0.2656273 0.3215313 0.1728844 0.2045681 0.1675238
bmi_low 0 0 0 0 0.0594874 0.0833107 0 0 0 0
bmi_high 0 0 0 0 0.2525536 0.26999 0 0 0 0
egfr_low 0.1857101 0.1155556 0.100106 -0.0218789 0.2981642 0.2541805 0.1252615 -0.0091955 0.0765812 -0.0009216
egfr_high 0.0553528 0.0603775 0.0499663 0.0602553 0.0667159 0.0638923 0.0414579 0.0578155 0.0603226 0.0575221
bp_treated 0.2894 0.232714 0.1875292 0.1421182 0.333921 0.2583631 0.1561303 0.0939196 0.2087816 0.1685514
statin -0.075688 -0.0272112 0.0152476 0.0135996 0 0 0.0384138 0.0508921 -0.0095137 -0.020829
treated_sbp -0.056367 -0.0384488 -0.0276123 -0.0218265 -0.0893177 -0.0391938 -0.0795531 -0.0486024 0.0014436 0.0230042
treated_non_hdl 0.1071019 0.134192 0.0736147 0.1013148 0 0 0.0635262 0.0669478 0.0720012 0.1413652
age_non_hdl -0.0751438 -0.0511759 -0.0521962 -0.0312619 0 0 -0.0637665 -0.0533361 -0.0361779 0.0145411
age_hdl 0.0301786 0.0165865 0.0316918 0.020673 0 0 0.0474074 0.0461425 0.015888 -0.0149606
age_sbp -0.0998776 -0.1101437 -0.1046101 -0.0920935 -0.0974299 -0.1269124 -0.0876484 -0.0812234 -0.1179062 -0.1118468
age_diabetes -0.3206166 -0.2585943 -0.2727793 -0.2159947 -0.404855 -0.3273572 -0.2803099 -0.216315 -0.2710221 -0.2152953
age_smoke -0.1607862 -0.1566406 -0.1530907 -0.1548811 -0.1982991 -0.2043019 -0.1513626 -0.1749197 -0.1702836 -0.1339295
age_bmi_high 0 0 0 0 -0.0035619 -0.0182831 0 0 0 0
age_egfr -0.1450788 -0.1166776 -0.1299149 -0.0712547 -0.1564215 -0.1342618 -0.1130454 -0.0241467 -0.1320992 -0.1225081
constant -1.318827 -1.148204 -1.974074 -1.736444 -2.205379 -1.95751 -2.733866 -2.376762 -2.62078 -2.458022
"""
# Each term of the equations, and the input that its contribution is counted with.
COUNTED_WITH = {
    "age": "age",
    "age_age": "age",
    "non_hdl": "total_cholesterol",
    "age_non_hdl": "total_cholesterol",
    "hdl": "hdl_cholesterol",
    "age_hdl": "hdl_cholesterol",
    "sbp_low": "systolic_bp",
    "sbp_high": "systolic_bp",
    "age_sbp": "systolic_bp",
    "diabetes": "diabetes",
    "age_diabetes": "diabetes",
    "smoking": "smoking",
    "age_smoke": "smoking",
    "bmi_low": "bmi",
    "bmi_high": "bmi",
    "age_bmi_high": "bmi",
    "egfr_low": "egfr",
    "egfr_high": "egfr",
    "age_egfr": "egfr",
    "bp_treated": "bp_treated",
    "treated_sbp": "bp_treated",
    "statin": "statin",
    "treated_non_hdl": "statin",
    "constant": "baseline",
}
POINTS = tuple(dict.fromkeys(COUNTED_WITH.values()))
INPUTS = ("age", "male", "tc", "hdl_mg", "sbp", "diabetes", "smoking", "bmi", "egfr", "bp_treated", "statin")
ANSWERS = ("male", "diabetes", "smoking", "bp_treated", "statin")
# The least and the most that is in range; and the least and the first beyond.
RANGES = {"tc": (130, 320), "hdl_mg": (20, 100), "sbp": (90, 200), "egfr": (15, 140)}
UP_TO = {"age": (30, 80), "bmi": (18.5, 40)}
UP_TO_30_YEARS = 60


class Graph:
    """Nodes and constants, gathered in a fixed order so that the bytes repeat."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, kind: Any = np.float64) -> str:
        """Name a constant."""
        self.constants.append(numpy_helper.from_array(np.array(value, dtype=kind), name))
        return name

    def number(self, value: float) -> str:
        """A number as a constant [1, 1], once."""
        name = f"n{value}"
        return name if any(c.name == name for c in self.constants) else self.constant(name, [[float(value)]])

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node; its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def column(self, index: int, name: str) -> str:
        """Feature `index` as [N, 1]."""
        return self.add("Gather", ["features", self.constant(f"{name}_at", [index], np.int64)], name, axis=1)

    def per(self, x: str, centre: float, size: float, name: str) -> str:
        """(x - centre) / size."""
        less = self.add("Sub", [x, self.number(centre)], f"{name}_centred")
        return self.add("Div", [less, self.number(size)], name)

    def below(self, x: str, knot: float) -> str:
        """`x` up to `knot`."""
        return self.add("Min", [x, self.number(knot)], f"{x}_below")

    def above(self, x: str, knot: float) -> str:
        """`x` from `knot` on."""
        return self.add("Max", [x, self.number(knot)], f"{x}_above")


def basis(graph: Graph) -> list[str]:
    """Every term without its coefficient, in the order of `COUNTED_WITH`; cholesterol in mmol/L."""
    graph.per("age", 55, 10, "by_age")
    graph.add("Mul", ["by_age", "by_age"], "by_age_age")
    to_mmol = graph.number(0.02586)
    rest = graph.add("Sub", ["tc", "hdl_mg"], "non_hdl_mg")
    graph.per(graph.add("Mul", [rest, to_mmol], "non_hdl_mmol"), 3.5, 1, "by_non_hdl")
    graph.per(graph.add("Mul", ["hdl_mg", to_mmol], "hdl_mmol"), 1.3, 0.3, "by_hdl")
    graph.per(graph.below("sbp", 110), 110, 20, "by_sbp_low")
    graph.per(graph.above("sbp", 110), 130, 20, "by_sbp_high")
    graph.per(graph.below("bmi", 30), 25, 5, "by_bmi_low")
    graph.per(graph.above("bmi", 30), 30, 5, "by_bmi_high")
    graph.per(graph.below("egfr", 60), 60, -15, "by_egfr_low")
    graph.per(graph.above("egfr", 60), 90, -15, "by_egfr_high")
    for name in ("diabetes", "smoking", "bp_treated", "statin"):
        graph.add("Identity", [name], f"by_{name}")
    graph.add("Mul", ["bp_treated", "by_sbp_high"], "by_treated_sbp")
    graph.add("Mul", ["statin", "by_non_hdl"], "by_treated_non_hdl")
    changing = {"non_hdl": "non_hdl", "hdl": "hdl", "sbp": "sbp_high", "diabetes": "diabetes", "smoke": "smoking"}
    for name, term in {**changing, "bmi_high": "bmi_high", "egfr": "egfr_low"}.items():
        graph.add("Mul", ["by_age", f"by_{term}"], f"by_age_{name}")
    nothing = graph.add("Mul", ["age", graph.number(0)], "nothing")
    graph.add("Add", [nothing, graph.number(1)], "by_constant")
    return [f"by_{name}" for name in COUNTED_WITH]


def coefficients(sex: int) -> Any:
    """[terms, outputs x points]: each coefficient in the column of its output and of what it is counted with."""
    terms = list(COUNTED_WITH)
    outputs = [(table, outcome) for table in (YEARS_10, YEARS_30) for outcome in range(len(OUTCOMES))]
    found = np.zeros((len(terms), len(outputs), len(POINTS)))
    for output, (table, outcome) in enumerate(outputs):
        for line in table.strip().splitlines():
            name, *numbers = line.split()
            found[terms.index(name), output, POINTS.index(COUNTED_WITH[name])] = float(numbers[2 * outcome + sex])
    return found.reshape(len(terms), -1)


def known(graph: Graph) -> str:
    """[N, 10]: 0 where an output may be given, else NaN."""
    allowed = []
    for x, (least, most) in {**RANGES, **UP_TO}.items():
        low = graph.add("GreaterOrEqual", [x, graph.number(least)], f"{x}_not_below")
        last = "Less" if x in UP_TO else "LessOrEqual"
        allowed += [low, graph.add(last, [x, graph.number(most)], f"{x}_not_beyond")]
    for x in ANSWERS:
        answers = [graph.add("Equal", [x, graph.number(answer)], f"{x}_is_{answer}") for answer in (0, 1)]
        allowed.append(graph.add("Or", answers, f"{x}_answered"))
    together = allowed[0]
    for one in allowed[1:]:
        together = graph.add("And", [together, one], f"and_{one}")
    ages = [UP_TO["age"][1]] * len(OUTCOMES) + [UP_TO_30_YEARS] * len(OUTCOMES)
    young_enough = graph.add("Less", ["age", graph.constant("age_limits", [ages])], "young_enough")
    each = graph.add("And", [together, young_enough], "allowed")
    return graph.add("Where", [each, graph.number(0), graph.constant("nan", [[np.nan]])], "known")


def results(graph: Graph) -> dict[str, list[int]]:
    """The three outputs, each with its shape for one patient."""
    count = 2 * len(OUTCOMES)
    graph.add("Concat", basis(graph), "basis", axis=1)
    for sex, name in enumerate(("women", "men")):
        graph.add("MatMul", ["basis", graph.constant(f"of_{name}", coefficients(sex))], f"flat_{name}")
    is_male = graph.add("Greater", ["male", graph.number(0.5)], "is_male")
    flat = graph.add("Where", [is_male, "flat_men", "flat_women"], "flat")
    shaped = graph.add("Reshape", [flat, graph.constant("shape", [-1, count, len(POINTS)], np.int64)], "shaped")
    each = graph.add("Unsqueeze", [known(graph), graph.constant("last", [2], np.int64)], "known_each")
    graph.add("Add", [shaped, each], "terms")
    graph.add("ReduceSum", ["terms", graph.constant("axis", [2], np.int64)], "linear_predictors", keepdims=0)
    graph.add("Sigmoid", ["linear_predictors"], "probabilities")
    return {"linear_predictors": [count], "terms": [count, len(POINTS)], "probabilities": [count]}


def build() -> bytes:
    """The model, serialised."""
    graph = Graph()
    for index, name in enumerate(INPUTS):
        graph.column(index, name)
    outputs = results(graph)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "aha_prevent",
            [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["N", len(INPUTS)])],
            [helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["N", *size]) for n, size in outputs.items()],
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
