"""The one graph that both sides run: a logistic regression over seven readings and the age, and our manifest of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

NAME, VERSION = "deterioration", "1.0.0"
INPUTS = {
    # name: LOINC code, unit, plausible range, mean, standard deviation, weight
    "pulse": ("8867-4", "/min", (20, 250), 85.0, 18.0, 0.55),
    "systolic_bp": ("8480-6", "mm[Hg]", (40, 300), 125.0, 20.0, -0.45),
    "respiratory_rate": ("9279-1", "/min", (0, 80), 17.0, 4.0, 0.7),
    "temperature": ("8310-5", "Cel", (25, 45), 37.0, 0.7, 0.25),
    "spo2": ("59408-5", "%", (50, 100), 96.0, 2.5, -0.5),
    "leukocytes": ("6690-2", "10*3/uL", (0, 200), 9.0, 4.0, 0.3),
    "lactate": ("2524-7", "mmol/L", (0, 30), 1.6, 1.0, 0.8),
}
AGE = (60.0, 18.0, 0.35)
INTERCEPT = -1.5


def write(root: Path) -> Path:
    """The model's folder under `root`, written anew; its graph is `model.onnx` there."""
    folder = root / NAME / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    graph = _graph()
    (folder / "model.onnx").write_bytes(graph)
    (folder / "manifest.toml").write_text(_manifest(hashlib.sha256(graph).hexdigest()))
    return folder


def _graph() -> bytes:
    rows = [*((mean, deviation, weight) for *_, mean, deviation, weight in INPUTS.values()), AGE]
    mean, deviation, weight = (np.array(column, dtype=np.float32) for column in zip(*rows, strict=True))
    size = len(rows)
    constants = {
        "mean": mean,
        "slope": weight / deviation,
        "intercept": np.array([INTERCEPT], dtype=np.float32),
        "columns": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "slope"], ["points"]),
        helper.make_node("ReduceSum", ["points", "columns"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "intercept"], ["shifted"]),
        helper.make_node("Sigmoid", ["shifted"], ["probabilities"]),
    ]
    made = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", size])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
            for name, width in (("sum", 1), ("points", size), ("probabilities", 1))
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _manifest(digest: str) -> str:
    names = ", ".join(f'"{name}"' for name in [*INPUTS, "age"])
    features = "".join(
        f"""
[features.{name}]
label = "{name.replace("_", " ")}"
unit = "{unit}"
max_age = "24h"
plausible = [{low}, {high}]
[[features.{name}.from]]
codes = ["http://loinc.org|{code}"]
"""
        for name, (code, unit, (low, high), *_) in INPUTS.items()
    )
    return f"""schema = 1
name = "{NAME}"
version = "{VERSION}"
title = "Deterioration within 12 hours"
kind = "probability"
validity = "6h"
spread = "12h"

[graph]
sha256 = "{digest}"
features = [{names}]
total = "sum"
points = "points"
point_names = [{names}]
probabilities = "probabilities"

[cohort]
min_age_years = 18
{features}
[features.age]
label = "age"
unit = "a"
derive = "age"

[[outputs]]
name = "twelve_hours"
horizon = {{ value = 12, unit = "h" }}
code = "urn:ehr-sidecar:code|deterioration-12h"
display = "Deterioration within 12 hours"
bands = [
  {{ risk = "high", text = "high", above = 0.5, source = "this benchmark" }},
  {{ risk = "low", text = "low", at_least = 0, source = "this benchmark" }},
]

[result]
code = "urn:ehr-sidecar:code|deterioration"
display = "Deterioration"
outcome = "Deterioration"
risk_system = "urn:ehr-sidecar:risk"
effect = "odds"
compared_with = "an average patient"
"""
