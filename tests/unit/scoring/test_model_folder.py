"""A model folder runs as reviewed or not at all."""

import hashlib
import importlib.util
import math
import re
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from sidecar.errors import Misconfigured
from sidecar.records import Feature, FeatureVector
from sidecar.scoring import load_model, load_models
from tests.unit.chart import NEWS2, POINTS, loaded

INPUTS = ("respiratory_rate", "spo2", "spo2_scale", "on_oxygen", "systolic_bp", "pulse", "consciousness", "temperature")


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "news2" / "1.0.0"
    shutil.copytree(NEWS2, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def refused(folder):
    with pytest.raises(Misconfigured) as error:
        load_model(folder)
    return " ".join(error.value.problems)


def graph(*, features=8, points=7, nan_passes=True, score="score"):
    """A tiny graph: each point is an input; without `nan_passes` missing inputs become 0, as a careless export does."""
    source = "features"
    nodes = []
    if not nan_passes:
        nodes += [
            helper.make_node("IsNaN", ["features"], ["gone"]),
            helper.make_node("Where", ["gone", "zero", "features"], ["filled"]),
        ]
        source = "filled"
    nodes += [
        helper.make_node("Slice", [source, "start", "end", "axis"], ["points"]),
        helper.make_node("ReduceSum", ["points", "axis"], [score], keepdims=1),
    ]
    constants = {
        "zero": np.array([[0.0]], dtype=np.float32), "start": np.array([0], dtype=np.int64),
        "end": np.array([points], dtype=np.int64), "axis": np.array([1], dtype=np.int64),
    }  # fmt: skip
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", features])],
        [
            helper.make_tensor_value_info(score, TensorProto.FLOAT, ["N", 1]),
            helper.make_tensor_value_info("points", TensorProto.FLOAT, ["N", points]),
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def install(folder, content):
    (folder / "model.onnx").write_bytes(content)
    path = folder / "manifest.toml"
    digest = hashlib.sha256(content).hexdigest()
    text = re.sub(r'(?m)^sha256 = "[0-9a-f]{64}"', f'sha256 = "{digest}"', path.read_text(encoding="utf-8"))
    # The tiny graph has one total.
    text = re.sub(r"(?m)^\[\[further\]\]\n(?:.+\n)*|^expected_of.*\n", "", text)
    path.write_text(text, encoding="utf-8")


def test_the_shipped_folder_loads_from_any_place(folder):
    assert load_model(folder).digest == hashlib.sha256((folder / "manifest.toml").read_bytes()).hexdigest()


def test_a_graph_that_is_not_the_reviewed_one_is_refused(folder):
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    assert "not the reviewed file" in refused(folder)


def test_a_graph_that_is_not_there_is_refused(folder):
    (folder / "model.onnx").unlink()
    assert "cannot be read" in refused(folder)


def test_a_folder_that_bears_another_name_is_refused(folder):
    moved = folder.rename(folder.with_name("1.0.1"))
    assert "says news2 1.0.0, the folder says otherwise" in refused(moved)


def test_a_tiny_graph_of_the_right_form_is_accepted(folder):
    install(folder, graph())
    row = FeatureVector(tuple(Feature(name, float(n), "1") for n, name in enumerate(INPUTS)))
    assert load_model(folder).score(row).total == sum(range(7))


def test_a_graph_that_scores_a_patient_of_whom_nothing_is_known_is_refused(folder):
    install(folder, graph(nan_passes=False))
    assert "scores a patient of whom nothing is known" in refused(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (graph(features=5, points=5), "does not take 8 features"),
        (graph(points=6), "points have the shape [1, 6], point_names 7 names"),
        (graph(score="total"), "no tensor named score"),
        (b"not a graph", "refused unopened: it has a part that ONNX does not define"),
        (b"", "refused unopened: it is empty"),
    ],
    ids=["fewer inputs", "fewer points", "another name", "no graph", "empty"],
)
def test_a_graph_that_does_not_fit_its_manifest_is_refused(folder, content, said):
    install(folder, content)
    assert said in refused(folder)


def test_an_unknown_model_is_refused_with_the_nearest_name(folder):
    with pytest.raises(Misconfigured, match='unknown model "new2"; did you mean "news2"'):
        load_models(folder.parents[1], {"new2": None})


def test_an_unknown_version_is_refused_with_the_versions_there_are(folder):
    with pytest.raises(Misconfigured, match=r"has no version 2\.0\.0; versions there: 1\.0\.0"):
        load_models(folder.parents[1], {"news2": "2.0.0"})


def test_without_a_wish_the_newest_version_runs(folder):
    for version in ("1.2.0", "1.10.0"):
        newer = folder.with_name(version)
        shutil.copytree(folder, newer)
        path = newer / "manifest.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('version = "1.0.0"', f'version = "{version}"'), encoding="utf-8")
    assert load_models(folder.parents[1], {"news2": None})["news2"].manifest.version == "1.10.0"


def test_every_problem_of_every_model_is_listed_at_once(folder):
    with pytest.raises(Misconfigured) as error:
        load_models(folder.parents[1], {"new2": None, "qsofa": None})
    assert len(error.value.problems) == 2


def test_the_build_script_makes_the_shipped_bytes():
    spec = importlib.util.spec_from_file_location("news2_build", NEWS2 / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.build() == (NEWS2 / "model.onnx").read_bytes()


@pytest.mark.parametrize("gone", range(8))
def test_each_missing_input_makes_the_total_not_a_number(gone):
    normal = dict(zip(INPUTS, (16.0, 97.0, 1.0, 0.0, 120.0, 70.0, 0.0, 37.0), strict=True)) | {INPUTS[gone]: math.nan}
    found = loaded().score(FeatureVector(tuple(Feature(name, value, "1") for name, value in normal.items())))
    assert math.isnan(found.total)
    assert [n for n in POINTS if math.isnan(found.points[n])] == (
        ["spo2"] if INPUTS[gone] == "spo2_scale" else [INPUTS[gone]]
    )
