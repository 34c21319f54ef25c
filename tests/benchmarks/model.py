"""A gradient-boosted-trees classifier as a model folder: 200 trees of 31 leaves over 28 inputs, seeded, not trained.

The inputs are the latest, least, largest and mean value of seven readings of the last day. What it says means nothing;
what it costs to run is what a trained one of its size costs.
"""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

from sidecar.manifest import load
from tests.benchmarks.payloads import USED

NAME, VERSION = "benchmark_trees", "1.0.0"
TREES, LEAVES = 200, 31
KINDS = ("latest", "min", "max", "mean")
NAMES = {
    "8867-4": "heart_rate", "9279-1": "respiratory_rate", "8310-5": "temperature", "59408-5": "spo2",
    "8480-6": "systolic", "8462-4": "diastolic", "2160-0": "creatinine",
}  # fmt: skip
FEATURES = tuple((code, kind) for code in USED for kind in KINDS)


def write(root: Path, seed: int) -> Path:
    """Make the model folder below `root`; the graph's file."""
    folder = root / NAME / VERSION
    folder.mkdir(parents=True)
    content = graph(seed)
    (folder / "model.onnx").write_bytes(content)
    (folder / "card.md").write_text("# Benchmark trees\n\nSeeded, not trained: for measurement, and for no patient.\n")
    (folder / "manifest.toml").write_text(_manifest(hashlib.sha256(content).hexdigest()))
    return folder / "model.onnx"


def graph(seed: int) -> bytes:
    """The classifier: `x` float [N, 28] in; `probabilities` [N, 2] out, and a linear predictor with its terms."""
    trees = _ensemble(random.Random(seed))
    nodes = [
        helper.make_node("TreeEnsembleRegressor", ["x"], ["logit"], domain="ai.onnx.ml", n_targets=1, **trees),
        helper.make_node("Mul", ["x", "zero"], ["unknown"]),
        helper.make_node("ReduceSum", ["unknown", "axis"], ["missing"], keepdims=1),
        helper.make_node("Add", ["logit", "missing"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["probabilities"]),
        helper.make_node("Div", ["score", "inputs"], ["share"]),
        helper.make_node("Add", ["share", "unknown"], ["points"]),
    ]
    size = len(FEATURES)
    constants = [("zero", np.float32(0)), ("axis", np.array([1])), ("inputs", np.float32(size))]
    outputs = {"score": 1, "points": size, "probabilities": 1}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            NAME,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", size])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", n]) for name, n in outputs.items()],
            initializer=[numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)],
        ir_version=9,
    )
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _ensemble(rng: random.Random) -> dict[str, Any]:
    """Attributes of the tree operator: each tree splits a random leaf until it has enough of them."""
    nodes: dict[str, list[Any]] = {
        name: []
        for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids", "hitrates",
                     "missing_value_tracks_true")
    }  # fmt: skip
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(TREES):
        for node, split in enumerate(_tree(rng)):
            feature, value, yes, no = split or (0, 0.0, 0, 0)
            mode = "BRANCH_LEQ" if split else "LEAF"
            row = (tree, node, feature, value, mode, yes, no, 1.0, 0)
            for name, item in zip(nodes, row, strict=True):
                nodes[name].append(item)
            if split is None:
                for name, item in zip(leaves, (tree, node, 0, rng.gauss(0, 0.1)), strict=True):
                    leaves[name].append(item)
    return {f"nodes_{n}": v for n, v in nodes.items()} | {f"target_{n}": v for n, v in leaves.items()}


Split = tuple[int, float, int, int]


def _tree(rng: random.Random) -> list[Split | None]:
    """Nodes by id: a split (feature, at most this value, then, else), or None for a leaf."""
    nodes: list[Split | None] = [None]
    open_leaves = [0]
    while len(open_leaves) < LEAVES:
        leaf = open_leaves.pop(rng.randrange(len(open_leaves)))
        feature = rng.randrange(len(FEATURES))
        _, _, usual, spread = USED[FEATURES[feature][0]]
        yes, no = len(nodes), len(nodes) + 1
        nodes[leaf] = (feature, rng.gauss(usual, spread / 3), yes, no)
        nodes += [None, None]
        open_leaves += [yes, no]
    return nodes


def _manifest(digest: str) -> str:
    return "\n".join([*_head(digest), *(line for code, kind in FEATURES for line in _feature(code, kind))]) + "\n"


def _head(digest: str) -> Iterator[str]:
    names = ", ".join(f'"{_name(code, kind)}"' for code, kind in FEATURES)
    yield f"""schema = 1
name = "{NAME}"
version = "{VERSION}"
title = "Benchmark trees"
kind = "probability"
validity = "6h"
spread = "24h"

[graph]
sha256 = "{digest}"
input = "x"
features = [{names}]
point_names = [{names}]
probabilities = "probabilities"

[cohort]
min_age_years = 18
exclude = ["inactive", "deceased"]

[[outputs]]
name = "day"
horizon = {{ value = 24, unit = "h" }}
code = "urn:ehr-sidecar:code|benchmark-24-hours"
display = "Benchmark risk within 24 hours"

[result]
code = "urn:ehr-sidecar:code|benchmark"
display = "Benchmark risk"
outcome = "Deterioration"
risk_system = "urn:ehr-sidecar:benchmark-risk"
effect = "odds"
compared_with = "the average patient"
"""


def _feature(code: str, kind: str) -> Iterator[str]:
    label, unit, _, _ = USED[code]
    yield f"[features.{_name(code, kind)}]"
    yield f'label = "{label.lower()} ({kind} of a day)"'
    yield f'unit = "{unit}"'
    yield 'max_age = "24h"'
    if kind != "latest":
        yield f'select = "{kind}"\nwindow = "24h"'
    yield f'[[features.{_name(code, kind)}.from]]\ncodes = ["http://loinc.org|{code}"]\n'


def _name(code: str, kind: str) -> str:
    return NAMES[code] if kind == "latest" else f"{NAMES[code]}_{kind}"


def debounce_s(folder: Path) -> float:
    """How long the sidecar lets events of a patient wait for each other: the manifest's default."""
    return load(folder / "manifest.toml").events.debounce.total_seconds()
