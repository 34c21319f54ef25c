"""`sidecar models check` finds what is wrong with a folder, all of it at once, and says what to do."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, load_model_from_string, numpy_helper

from sidecar.cli import main
from tests.unit.chart import REPO, bundle, person, stay
from tests.unit.opaque import FEATURES, MANIFEST, SICK, classifier, install, probability, readings, wrapped


def run(folder, *more):
    return CliRunner().invoke(main, ["models", "check", str(folder), *more])


def found(folder):
    done = run(folder, "--json")
    said = json.loads(done.stdout)
    assert (done.exit_code == 0) is said["ok"] is not any(c["ok"] is False for c in said["checks"])
    return {c["check"]: c for c in said["checks"]}


def failing(folder):
    return {name: c["said"] for name, c in found(folder).items() if c["ok"] is False}


def seal(folder):
    done = CliRunner().invoke(main, ["models", "seal", str(folder)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("path", sorted(REPO.glob("models/*/*/model.onnx")), ids=lambda p: p.parts[-3])
def test_a_shipped_model_passes_every_check_and_has_golden_bundles(path):
    checks = found(path.parent)
    assert {name: c["said"] for name, c in checks.items() if c["ok"] is False} == {}
    assert checks["golden Bundles"]["ok"] is True


def test_a_healthy_folder_lacks_its_card_and_is_told_what_to_do(tmp_path):
    folder = install(tmp_path)
    assert failing(folder) == {"card": "there is no card.toml"}
    said = run(folder).stdout
    assert "✓ missing inputs" in said
    assert "→ Fill in card.toml" in said
    assert said.splitlines()[-1] == "1 of 12 checks fail"


def test_several_faults_are_told_at_once(tmp_path):
    folder = install(tmp_path, classifier() + b"\xfa\x07\x04evil", MANIFEST.replace("title =", "titel ="))
    (folder / "scaler.pkl").write_bytes(b"x")
    (folder / "card.toml").write_text("schema = 2\n")
    faults = failing(folder)
    assert set(faults) == {"folder", "manifest", "graph, unopened", "card"}
    assert "scaler.pkl: is of a kind" in faults["folder"]
    assert 'unknown key titel; did you mean "title"?' in faults["manifest"]
    assert "card.toml:1: schema" in faults["card"]


def test_what_is_not_verified_is_not_run(tmp_path):
    folder = install(tmp_path)
    (folder / "model.onnx").write_bytes(classifier(transform="SOFTMAX"))
    checks = found(folder)
    assert "not the reviewed file" in checks["digests"]["said"]
    assert [checks[n]["ok"] for n in ("graph, run", "missing inputs", "explanation", "golden Bundles", "speed")] == [None] * 5  # fmt: skip


TERMS = MANIFEST.replace('[explanation]\nmethod = "occlusion"\ntypical = {{ respiratory_rate = 16, spo2 = 97, systolic_bp = 120, pulse = 80 }}\n', "").replace(
    'probabilities = "probabilities"', 'total = "total"\npoints = "points"\npoint_names = ["respiratory_rate", "spo2", "systolic_bp", "pulse"]\nprobabilities = "probabilities"'
).replace('outcome = "Acute', 'effect = "odds"\ncompared_with = "nobody"\noutcome = "Acute')  # fmt: skip


def with_terms(*, scale=1.0, nan="passes"):
    """Points are the inputs, times `scale`; the total is their sum; unless `nan` "passes", what is missing is 0."""
    fill = [
        helper.make_node("IsNaN", ["features"], ["gone"]),
        helper.make_node("Where", ["gone", "zero", "features"], ["filled"]),
    ]
    source = "features" if nan == "passes" else "filled"
    nodes = [
        *(fill if nan != "passes" else []),
        helper.make_node("Mul", [source, "scale"], ["points"]),
        helper.make_node("ReduceSum", [source, "axis"], ["total"], keepdims=1),
        helper.make_node("Sigmoid", ["total"], ["one"]),
        helper.make_node("Concat", ["one", "one"], ["probabilities"], axis=1),
    ]
    constants = {"scale": np.float32([scale]), "axis": np.array([1], dtype=np.int64), "zero": np.float32([[0]])}
    model = wrapped(nodes, initializer=[numpy_helper.from_array(v, n) for n, v in constants.items()])
    made = load_model_from_string(model)
    made.graph.output.append(helper.make_tensor_value_info("total", TensorProto.FLOAT, ["N", 1]))
    made.graph.output.append(helper.make_tensor_value_info("points", TensorProto.FLOAT, ["N", 4]))
    return made.SerializeToString()


def test_points_that_do_not_sum_to_the_total_are_found(tmp_path):
    assert "explanation" not in failing(install(tmp_path / "a", with_terms(), TERMS))
    assert "the points sum to" in failing(install(tmp_path / "b", with_terms(scale=2.0), TERMS))["explanation"]


def test_a_graph_that_fills_in_what_is_missing_is_found(tmp_path):
    content = with_terms(nan="filled")
    assert "scores a patient of whom nothing is known" in failing(install(tmp_path, content, TERMS))["graph, run"]


def golden(folder, content):
    (folder / "golden").mkdir(exist_ok=True)
    (folder / "golden" / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
    seal(folder)
    return found(folder)["golden Bundles"]


CHART = bundle(person(), stay(), *readings())


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"outcome": "scored", "features": SICK}, None),
        ({"probabilities": {"within_a_day": probability(SICK)}}, None),
        ({"probabilities": {"within_a_day": 0.1}}, "probabilities.within_a_day is"),
        ({"probabilities": {"tomorrow": 0.1}}, "probabilities.tomorrow is not there"),
        ({"features": {"spo2": None}}, "features.spo2 is 90.0, expected None"),
        ({"outcome": "not_scored", "reasons": ["missing:spo2"]}, "outcome is scored, expected not_scored"),
        ({"score": 3}, "score is None, expected 3.0"),
        ({"risk": "high"}, "risk is None, expected high"),
    ],
)
def test_a_golden_bundle_is_judged_by_the_whole_path(tmp_path, expected, said):
    check = golden(install(tmp_path), {"bundle": CHART, "expected": expected})
    assert check["ok"] is (said is None)
    assert said is None or said in check["said"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "golden/a.json: "),
        ('{"bundle": {}, "expected": {}}', "cannot be judged: shape:Bundle"),
        ('{"bundle": {}, "expected": {"scores": 1}}', "expected.scores"),
        (json.dumps({"bundle": CHART, "expected": {}, "at": "2026-01-01T00:00:00"}), "with its offset"),
        (
            json.dumps({"bundle": CHART, "expected": {}, "time_zone": "Nowhere"}),
            "cannot be judged: ZoneInfoNotFoundError",
        ),
        (json.dumps({"bundle": CHART, "expected": {}, "time_zone": "../../etc/passwd"}), "cannot be judged"),
        (json.dumps({"bundle": CHART, "expected": {}, "switches": {"x": True}}), "the model has no such name"),
    ],
)
def test_a_golden_file_that_cannot_be_judged_is_told_with_a_reason(tmp_path, content, said):
    check = golden(install(tmp_path), content)
    assert check["ok"] is False
    assert said in check["said"]


def test_frozen_vectors_are_run(tmp_path):
    folder = install(tmp_path)
    row = {
        "inputs": dict(zip(("rr", "spo2", "sbp", "hr"), (SICK[n] for n in FEATURES), strict=True)),
        "expected": {"risk": 0.5},
    }
    (folder / "vectors.json").write_text(json.dumps({"vectors": [row]}))
    seal(folder)
    assert "0 of 1 agree; vector 1: risk is" in failing(folder)["frozen vectors"]


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (
            {"pulse": {"edges": [50], "counts": [1, 2, 0]}},
            "not of the inputs of the graph: respiratory_rate, spo2, systolic_bp",
        ),
        ({"pulse": {"edges": [50], "counts": [1, 2]}}, "two more than edges"),
        ({"pulse": {"edges": [50, 40], "counts": [1, 2, 3, 4]}}, "edges must ascend"),
        ({"pulse": {"edges": [50], "counts": [1, -2, 0]}}, "greater than or equal to 0"),
    ],
)
def test_a_reference_that_does_not_fit_is_found(tmp_path, features, said):
    text = MANIFEST.replace("[graph]", f'reference = "reference.json"\nreference_sha256 = "{"0" * 64}"\n[graph]', 1)
    folder = install(tmp_path, None, text)
    (folder / "reference.json").write_text(json.dumps({"source": "nobody", "features": features}))
    seal(folder)
    assert said in failing(folder)["reference"]


def test_a_card_of_another_version_is_found(tmp_path):
    folder = install(tmp_path)
    (folder / "card.toml").write_text('schema = 1\nmodel = "early_warning"\nversion = "2.0.0"\n')
    seal(folder)
    assert "is the card of early_warning 2.0.0" in failing(folder)["card"]
