"""A gradient-boosted-trees classifier as a model folder: 200 trees of 31 leaves over 28 inputs, seeded, not trained.

The inputs are the latest, least, largest and mean value of seven readings of the last day. What it says means nothing;
what it costs to run is what a trained one of its size costs.
"""

import hashlib
import random
from pathlib import Path
from typing import Any

import orjson
from onnx import TensorProto, checker, helper

from sidecar.manifest import load
from tests.benchmarks.payloads import USED
from tests.versions import carded

NAME, VERSION = "benchmark_trees", "1.0.0"
TREES, LEAVES = 200, 31
KINDS = {"latest": "", "min": ", least of a day", "max": ", largest of a day", "mean": ", mean of a day"}
NAMES = {
    "8867-4": "heart_rate", "9279-1": "respiratory_rate", "8310-5": "temperature", "59408-5": "spo2",
    "8480-6": "systolic", "8462-4": "diastolic", "2160-0": "creatinine",
}  # fmt: skip
FEATURES = tuple((code, kind) for code in USED for kind in KINDS)


def write(root: Path, seed: int) -> Path:
    """Make the model folder below `root`; the graph's file."""
    folder = root / NAME / VERSION
    folder.mkdir(parents=True)
    content, reference = graph(seed), _reference()
    (folder / "model.onnx").write_bytes(content)
    (folder / "reference.json").write_bytes(reference)
    (folder / "manifest.toml").write_text(_manifest(_sha256(content), _sha256(reference)))
    carded(folder)
    return folder / "model.onnx"


def graph(seed: int) -> bytes:
    """The classifier, as a training library exports it: `x` float [N, 28] in, `probabilities` [N, 2] out."""
    size = len(FEATURES)
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
        **_ensemble(random.Random(seed)),
    )
    model = helper.make_model(
        helper.make_graph(
            [trees],
            NAME,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", size])],
            [
                helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)],
        ir_version=9,
    )
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _reference() -> bytes:
    """Ten bins for each input, so that drift is counted."""
    spans = {name(code, kind): USED[code][2:] for code, kind in FEATURES}
    bins = {
        one: {"edges": [usual + spread * (i - 4) / 4 for i in range(9)], "counts": [10] * 10 + [0]}
        for one, (usual, spread) in spans.items()
    }
    return orjson.dumps({"source": "no data: a benchmark's", "features": bins})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
    return {f"nodes_{n}": v for n, v in nodes.items()} | {f"class_{n}": v for n, v in leaves.items()}


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


def _manifest(graph_digest: str, reference_digest: str) -> str:
    names = ", ".join(f'"{name(code, kind)}"' for code, kind in FEATURES)
    typical = ", ".join(f"{name(code, kind)} = {USED[code][2]}" for code, kind in FEATURES)
    features = "\n".join(_feature(code, kind) for code, kind in FEATURES)
    return f"""schema = 1
name = "{NAME}"
version = "{VERSION}"
title = "Benchmark trees"
kind = "probability"
validity = "6h"
spread = "24h"
reference = "reference.json"
reference_sha256 = "{reference_digest}"

[graph]
sha256 = "{graph_digest}"
input = "x"
features = [{names}]
probabilities = "probabilities"

[explanation]
method = "occlusion"
typical = {{ {typical} }}

[cohort]
min_age_years = 18
exclude = ["inactive", "deceased"]

[[outputs]]
name = "day"
column = 1
horizon = {{ value = 24, unit = "h" }}
code = "urn:ehr-sidecar:code|benchmark-24-hours"
display = "Benchmark risk within 24 hours"

[result]
code = "urn:ehr-sidecar:code|benchmark"
display = "Benchmark risk"
outcome = "Deterioration"
risk_system = "urn:ehr-sidecar:benchmark-risk"

{features}"""


def _feature(code: str, kind: str) -> str:
    label, unit, _, _ = USED[code]
    own = name(code, kind)
    select = "" if kind == "latest" else f'select = "{kind}"\nwindow = "24h"\n'
    return f"""[features.{own}]
label = "{label.lower()}{KINDS[kind]}"
unit = "{unit}"
max_age = "24h"
{select}[[features.{own}.from]]
codes = ["http://loinc.org|{code}"]
"""


def name(code: str, kind: str) -> str:
    """What an input is called."""
    return NAMES[code] if kind == "latest" else f"{NAMES[code]}_{kind}"


def debounce_s(folder: Path) -> float:
    """How long the sidecar lets events of a patient wait for each other: the manifest's default."""
    return load(folder / "manifest.toml").events.debounce.total_seconds()
