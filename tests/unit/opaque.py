"""A classifier as a hospital brings it: boosted trees that give a label and probabilities, and nothing else.

Written by hand from trees of one split each, so that what they say can be computed beside them.
"""

import hashlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from onnx import TensorProto, helper

from sidecar.app import running_model
from sidecar.context import from_bundle
from sidecar.pipeline import RunningModel, conclude
from sidecar.records import Conclusion, Feature, FeatureVector, Score
from sidecar.scoring import LoadedModel, load_model
from sidecar.settings import ModelSettings
from tests.unit.chart import AT, Resource, bundle, measured, person, rules, stay

MANIFEST = """
schema = 1
name = "early_warning"
version = "1.0.0"
title = "Early warning by boosted trees"
short = "Early warning"
kind = "probability"
validity = "6h"
spread = "4h"

[graph]
sha256 = "{sha256}"
features = ["respiratory_rate", "spo2", "systolic_bp", "pulse"]
probabilities = "probabilities"

[explanation]
method = "occlusion"
typical = {{ respiratory_rate = 16, spo2 = 97, systolic_bp = 120, pulse = 80 }}

[cohort]
min_age_years = 16

[features.respiratory_rate]
label = "respiratory rate"
unit = "/min"
max_age = "4h"
plausible = [0, 80]
[[features.respiratory_rate.from]]
codes = ["http://loinc.org|9279-1"]

[features.spo2]
label = "oxygen saturation"
unit = "%"
max_age = "4h"
plausible = [50, 100]
[[features.spo2.from]]
codes = ["http://loinc.org|59408-5"]

[features.systolic_bp]
label = "systolic blood pressure"
unit = "mm[Hg]"
max_age = "4h"
plausible = [40, 300]
[[features.systolic_bp.from]]
codes = ["http://loinc.org|8480-6"]

[features.pulse]
label = "heart rate"
unit = "/min"
max_age = "4h"
plausible = [20, 250]
[[features.pulse.from]]
codes = ["http://loinc.org|8867-4"]

[[outputs]]
name = "within_a_day"
column = 1
horizon = {{ value = 24, unit = "h" }}
code = "urn:ehr-sidecar:code|early-warning-24-hours"
display = "Risk of deterioration within 24 hours (early warning)"
[[outputs.bands]]
risk = "review"
text = "20 % or more: review now"
at_least = 0.2
source = "local guideline"

[result]
code = "urn:ehr-sidecar:code|early-warning"
display = "Risk of deterioration (early warning)"
outcome = "Acute deterioration"
risk_system = "urn:ehr-sidecar:early-warning-risk"

[vectors]
inputs = {{ rr = "respiratory_rate", spo2 = "spo2", sbp = "systolic_bp", hr = "pulse" }}
horizon = "hours"
expected = {{ risk = {{ of = "probability", atol = 1e-6 }} }}
"""
FEATURES = ("respiratory_rate", "spo2", "systolic_bp", "pulse")
TYPICAL = {"respiratory_rate": 16.0, "spo2": 97.0, "systolic_bp": 120.0, "pulse": 80.0}


@dataclass(frozen=True)
class Stump:
    """A tree of one split: `above` is added where the feature is greater than `at`, else `below`."""

    feature: int
    at: float
    below: float
    above: float


STUMPS = (
    Stump(0, 20.5, -2.9, -1.6), Stump(0, 24.5, 0.0, 0.7), Stump(1, 91.5, 1.3, -0.2), Stump(1, 95.5, 0.4, 0.0),
    Stump(2, 100.5, 1.1, -0.3), Stump(3, 110.5, -0.1, 0.6), Stump(3, 130.5, 0.0, 0.5),
)  # fmt: skip


def classifier(stumps: Sequence[Stump] = STUMPS, *, features: int = 4, transform: str = "LOGISTIC") -> bytes:
    """A TreeEnsembleClassifier of two classes; as exporters leave it, missing values take a branch, and are answered."""
    nodes: dict[str, list[Any]] = {
        k: [] for k in ("trees", "ids", "features", "values", "modes", "true", "false", "gone")
    }
    leaves: dict[str, list[Any]] = {k: [] for k in ("trees", "nodes", "ids", "weights")}
    for tree, stump in enumerate(stumps):
        for node, mode in enumerate(("BRANCH_LEQ", "LEAF", "LEAF")):
            split = node == 0
            row = (
                tree,
                node,
                stump.feature if split else 0,
                stump.at if split else 0.0,
                mode,
                int(split),
                2 * split,
                int(split),
            )
            for column, value in zip(nodes.values(), row, strict=True):
                column.append(value)
        for node, weight in ((1, stump.below), (2, stump.above)):
            for column, value in zip(leaves.values(), (tree, node, 0, weight), strict=True):
                column.append(value)
    node = helper.make_node(
        "TreeEnsembleClassifier", ["features"], ["label", "probabilities"], domain="ai.onnx.ml",
        nodes_treeids=nodes["trees"], nodes_nodeids=nodes["ids"], nodes_featureids=nodes["features"],
        nodes_values=nodes["values"], nodes_modes=nodes["modes"], nodes_truenodeids=nodes["true"],
        nodes_falsenodeids=nodes["false"], nodes_missing_value_tracks_true=nodes["gone"],
        class_treeids=leaves["trees"], class_nodeids=leaves["nodes"], class_ids=leaves["ids"],
        class_weights=leaves["weights"], classlabels_int64s=[0, 1], post_transform=transform,
    )  # fmt: skip
    return wrapped([node], features)


def wrapped(
    nodes: Sequence[Any],
    features: int = 4,
    *,
    rows: str | int = "N",
    kind: int = TensorProto.FLOAT,
    initializer: Sequence[Any] = (),
) -> bytes:
    """A model around `nodes`, from `features` to `probabilities` and, where a node gives it, `label`."""
    given = {name for node in nodes for name in node.output}
    out = [helper.make_tensor_value_info("probabilities", kind, [rows, 2])]
    # As an exporter of boosted trees declares it, although it holds one for each row.
    out += [helper.make_tensor_value_info("label", TensorProto.INT64, [1])] if "label" in given else []
    taken = [helper.make_tensor_value_info("features", kind, [rows, features])]
    graph = helper.make_graph(nodes, "classifier", taken, out, initializer=list(initializer))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString())


def install(root: Path, content: bytes | None = None, text: str = MANIFEST) -> Path:
    """The folder of the model below `root`; `text` may be a changed manifest."""
    folder = root / "early_warning" / "1.0.0"
    folder.mkdir(parents=True)
    graph = classifier() if content is None else content
    (folder / "model.onnx").write_bytes(graph)
    said = text.format(sha256=hashlib.sha256(graph).hexdigest())
    (folder / "manifest.toml").write_text(said, encoding="utf-8")
    return folder


def probability(values: Mapping[str, float], stumps: Sequence[Stump] = STUMPS) -> float:
    """What the trees say, computed without them."""
    raw = 0.0
    for stump in stumps:
        raw += stump.above if values[FEATURES[stump.feature]] > stump.at else stump.below
    return 1 / (1 + math.exp(-raw))


def fresh(content: bytes | None = None, text: str = MANIFEST) -> LoadedModel:
    """The model of such a folder; the folder is gone afterwards."""
    with tempfile.TemporaryDirectory() as root:
        return load_model(install(Path(root), content, text))


@cache
def early_warning() -> LoadedModel:
    return fresh()


@cache
def running() -> RunningModel:
    return running_model(early_warning(), ModelSettings())


def vector(values: Mapping[str, float]) -> FeatureVector:
    return FeatureVector(tuple(Feature(name, values[name], "1") for name in FEATURES))


def score(values: Mapping[str, float], model: LoadedModel | None = None) -> Score:
    return (model or early_warning()).score(vector(values))


READINGS = {
    "respiratory_rate": ("9279-1", "/min"), "spo2": ("59408-5", "%"), "systolic_bp": ("8480-6", "mm[Hg]"),
    "pulse": ("8867-4", "/min"),
}  # fmt: skip
SICK = {"respiratory_rate": 26.0, "spo2": 90.0, "systolic_bp": 95.0, "pulse": 120.0}


def readings(**values: float | None) -> list[Resource]:
    """A chart of a sick patient but for `values`; None leaves one out."""
    said = {**SICK, **values}
    return [measured(READINGS[n][0], v, READINGS[n][1]) for n, v in said.items() if v is not None]


def judge(*resources: Resource, model: RunningModel | None = None) -> Conclusion:
    """The whole path: Bundle, context, de-identification, features, graph, explanation."""
    chosen = model or running()
    chart = bundle(person(), stay(), *resources)
    return conclude(from_bundle(chart, chosen.loaded.manifest.set_codes, AT, ZoneInfo("UTC")), chosen, rules())
