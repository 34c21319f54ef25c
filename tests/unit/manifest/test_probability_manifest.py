"""The manifest of a probability model is as closed as that of a points model."""

import hashlib
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from sidecar import manifest as manifests
from sidecar.app import running_model
from sidecar.errors import Misconfigured
from sidecar.records import Feature, FeatureVector
from sidecar.scoring import load_model
from sidecar.settings import ModelSettings
from tests.unit.kidney import KFRE, kfre

TEXT = (KFRE / "manifest.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "probability"', 'kind = "points"', 'kind = "points" needs bands, and graph.total'),
        ('probabilities = "probabilities"\n', "", 'kind = "probability" needs outputs, graph.probabilities'),
        ('effect = "hazard"\n', "", "result.effect"),
        ('name = "five_years"', 'name = "two_years"', "two outputs have one name"),
        ("above = 0.40", "above = 40", "above"),
        ("above = 0.40", "above = 0.40\nat_least = 0.4", "use one of at_least, above"),
        ('source = "NICE NG203, 2021"', 'source = ""', "source"),
        ('horizon = { value = 2, unit = "a" }', 'horizon = { value = 2, unit = "years" }', "unit"),
        ('derive = "age"', 'derive = "shoe_size"', "derive"),
        ('derive = "sex"', 'derive = "sex"\nmax_age = "1d"\nfrom = [{ codes = ["http://loinc.org|1-8"] }]', "give either from"),
        ('max_age = "183d"', "", "max_age"),
        ('select = "persistent"\n', "", "belong together"),
        ("factor = 0.011312217194570135", 'factor = 0.011312217194570135\nvalues = { "*|*" = 1 }', "no values"),
        ("below = 10", "below = 10\nequals = 1", "use one of equals, below, at_least"),
        ('feature = "dialysis"', 'feature = "dialisis"', "no [features] table for: dialisis"),
        ('"uacr", "region"]', '"uacr"]', "choices that are no input of the graph: region"),
        ("values = { north_america = 1, other = 0 }", "values = { north_america = 1 }", "values"),
        ("words = { north_america", "words = { atlantis", "words for no value: atlantis"),
        ('egfr = "egfr", creatinine', 'egfr = "gfr", creatinine', "vectors name what the manifest does not have: gfr"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_and_says_what(tmp_path, old, new, said):
    assert old in TEXT
    path = tmp_path / "manifest.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(Misconfigured) as refused:
        manifests.load(path)
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({}, 'models.kfre_4var.choices.region is not set: set it to "north_america" or "other"'),
        ({"region": "europe"}, "models.kfre_4var.choices.region has an unknown value"),
        ({"region": "other", "planet": "earth"}, "models.kfre_4var.choices.planet: the model has no such name"),
    ],
)
def test_a_choice_that_a_site_must_make_is_asked_for_with_its_reason(choices, said):
    with pytest.raises(Misconfigured) as refused:
        running_model(kfre(), ModelSettings(choices=choices))
    assert any(p.startswith(said) for p in refused.value.problems), refused.value.problems
    assert "planet" in choices or "59 % elsewhere" in refused.value.problems[0]


def install(folder, kind, *, sums_to=0.5):
    """A graph of the right form in `kind`, whose probabilities are all `sums_to`."""
    shutil.copytree(KFRE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    plain = np.float64 if kind == TensorProto.DOUBLE else np.float32
    constants = {
        "start": np.array([0], dtype=np.int64), "end": np.array([4], dtype=np.int64), "axis": np.array([1], dtype=np.int64),
        "p": np.array([[sums_to, sums_to]], dtype=plain), "zero": np.array([[0]], dtype=plain),
    }  # fmt: skip
    nodes = [
        helper.make_node("Slice", ["features", "start", "end", "axis"], ["terms"]),
        helper.make_node("ReduceSum", ["features", "axis"], ["linear_predictor"], keepdims=1),
        helper.make_node("Mul", ["linear_predictor", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "p"], ["probabilities"]),
    ]
    sizes = {"linear_predictor": 1, "terms": 4, "probabilities": 2}
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("features", kind, ["N", 5])],
        [helper.make_tensor_value_info(n, kind, ["N", s]) for n, s in sizes.items()],
        initializer=[numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    shipped, digest = (
        hashlib.sha256((KFRE / "model.onnx").read_bytes()).hexdigest(),
        hashlib.sha256(content).hexdigest(),
    )
    (folder / "manifest.toml").write_text(TEXT.replace(shipped, digest), encoding="utf-8")
    return folder


def row():
    return FeatureVector(tuple(Feature(n, 1.0, "1") for n in kfre().manifest.graph.features))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_a_graph_may_take_single_or_double_precision(tmp_path, kind):
    model = load_model(install(tmp_path / "kfre_4var" / "1.0.0", kind))
    assert dict(model.score(row()).probabilities) == {"two_years": 0.5, "five_years": 0.5}


@pytest.mark.parametrize("logit", [-0.1, 1.2])
def test_a_graph_that_says_something_else_than_a_probability_is_never_believed(tmp_path, logit):
    model = load_model(install(tmp_path / "kfre_4var" / "1.0.0", TensorProto.DOUBLE, sums_to=logit))
    with pytest.raises(ValueError, match="outside"):
        model.score(row())


def test_a_graph_of_another_type_is_refused(tmp_path):
    with pytest.raises(Misconfigured, match=r"make it float or double|refuses the graph"):
        load_model(install(tmp_path / "kfre_4var" / "1.0.0", TensorProto.FLOAT16))
