"""From a graph to a running model without Python: new, fill in, seal, check, score."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from sidecar.cli import main
from tests.unit.chart import bundle, person, stay
from tests.unit.filling import fill
from tests.unit.opaque import FEATURES, SICK, classifier, probability, readings, wrapped


def run(*words, stdin=None):
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin)


def made(tmp_path, content=None, *more, name="early_warning"):
    graph = tmp_path / "trained.onnx"
    graph.write_bytes(classifier() if content is None else content)
    done = run("models", "new", name, "--from", graph, "--models-dir", tmp_path / "models", *more)
    return done, tmp_path / "models" / name / "0.1.0"


def checks(folder):
    done = run("models", "check", folder, "--json")
    found = json.loads(done.stdout)
    return done.exit_code, {c["check"]: c for c in found["checks"]}


def total_and_points(probabilities=False):
    """Each point is an input; the total is their sum."""
    nodes = [
        helper.make_node("Identity", ["features"], ["points"]),
        helper.make_node("ReduceSum", ["points", "axis"], ["score"], keepdims=1),
    ]
    out = [("score", 1), ("points", 3)]
    if probabilities:
        nodes.append(helper.make_node("Sigmoid", ["score"], ["probabilities"]))
        out.append(("probabilities", 1))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", size]) for n, size in out],
        initializer=[numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_a_classifier_becomes_a_checked_and_scoring_model_by_the_steps_that_are_printed(tmp_path):
    done, folder = made(tmp_path, None, "--features", ",".join(FEATURES))
    assert done.exit_code == 0, done.output
    assert f"sidecar models check {folder}" in done.stdout
    code, found = checks(folder)
    assert (code, found["manifest"]["ok"], found["card"]["ok"]) == (1, False, False)
    fill(folder)
    row = {"inputs": dict(SICK), "expected": {"risk": probability(SICK)}}
    (folder / "vectors.json").write_text(json.dumps({"model": "early_warning", "vectors": [row]}))
    chart = bundle(person(), stay(), *readings())
    (folder / "golden").mkdir()
    expected = {"outcome": "scored", "probabilities": {"risk": probability(SICK)}, "features": SICK, "reasons": []}
    (folder / "golden" / "sick.json").write_text(json.dumps({"bundle": chart, "expected": expected}))
    assert checks(folder)[1]["digests"]["ok"] is False
    assert run("models", "seal", folder).exit_code == 0
    code, found = checks(folder)
    assert {name: c["said"] for name, c in found.items() if c["ok"] is False} == {}
    assert code == 0
    assert [name for name, c in found.items() if c["ok"] is None] == ["reference"]
    scored = run(
        "score", "-", "--model", "early_warning", "--models-dir", folder.parents[1], stdin=json.dumps(chart).encode()
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["probabilities"] == {"risk": pytest.approx(probability(SICK), abs=1e-6)}


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (classifier(), "probability", ['probabilities = "probabilities"', "column = 1", 'method = "occlusion"']),
        (total_and_points(), "points", ['total = "score"', 'point_names = ["feature_1", "feature_2", "feature_3"]', "[[bands]]"]),
        (total_and_points(probabilities=True), "probability", ['total = "score"', "column = 0", "compared_with"]),
    ],
    ids=["classifier", "points", "terms"],
)  # fmt: skip
def test_what_the_graph_says_of_itself_is_written(tmp_path, content, kind, said):
    done, folder = made(tmp_path, content)
    assert done.exit_code == 0, done.output
    text = (folder / "manifest.toml").read_text(encoding="utf-8")
    assert f'kind = "{kind}"' in text
    assert [part for part in said if part not in text] == []


def test_every_place_that_is_left_is_named_by_its_line_and_refuses_the_model(tmp_path):
    _, folder = made(tmp_path, None, "--features", ",".join(FEATURES))
    lines = (folder / "manifest.toml").read_text(encoding="utf-8").splitlines()
    places = [n for n, line in enumerate(lines, 1) if "FILL IN" in line.partition("#")[0]]
    said = checks(folder)[1]["manifest"]["said"]
    assert [n for n in places if f"line {n}: " not in said] == []
    refused = run("score", "-", "--model", "early_warning", "--models-dir", folder.parents[1], stdin=b"{}")
    assert refused.exit_code == 2
    assert all(f"manifest.toml:{n}: still to be filled in" in refused.stderr for n in places)


def test_a_folder_that_is_there_is_never_written_into(tmp_path):
    made(tmp_path)
    done, folder = made(tmp_path)
    assert done.exit_code == 2
    assert f"{folder}: cannot be made (FileExistsError)" in done.stderr


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (b"not a graph", (), "refused unopened"),
        (classifier(), ("--features", "a,b"), "give 4 different names"),
        (classifier(), ("--features", "a,b,b,c"), "give 4 different names"),
        (classifier(), ("--features", "a,b,C,d"), "no names: C"),
        (wrapped([helper.make_node("Identity", ["features"], ["probabilities"])], 4, rows="N", kind=TensorProto.INT64), (), "needs one input of float"),
        (wrapped([helper.make_node("Identity", ["features"], ["probabilities"])], "F"), (), "does not say how many inputs"),
    ],
    ids=["no graph", "too few", "twice", "no names", "whole numbers", "open"],
)  # fmt: skip
def test_a_graph_or_names_that_do_not_fit_are_refused_and_nothing_is_made(tmp_path, content, more, said):
    done, folder = made(tmp_path, content, *more)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize("name", ["Sepsis", "../evil", "a b", "", "1st"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    done, _ = made(tmp_path, name=name)
    assert done.exit_code == 2
    assert not (tmp_path / "models").exists()


def test_what_a_graph_calls_its_tensors_cannot_write_into_the_manifest(tmp_path):
    evil = 'x"\ntitle = "owned'
    node = helper.make_node("Softmax", [evil], ["probabilities"], axis=1)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(evil, TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
    )  # fmt: skip
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    _, folder = made(tmp_path, content)
    assert '\ntitle = "owned' not in (folder / "manifest.toml").read_text(encoding="utf-8")


def test_sealing_again_changes_nothing_and_a_changed_file_changes_one_line(tmp_path):
    _, folder = made(tmp_path)
    path = folder / "manifest.toml"
    before = path.read_text(encoding="utf-8")
    assert "nothing had changed" in run("models", "seal", folder).stdout
    assert path.read_text(encoding="utf-8") == before
    (folder / "card.toml").write_text("schema = 1\n")
    run("models", "seal", folder)
    after = path.read_text(encoding="utf-8")
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert [a.partition(" = ")[0] for a, _ in changed] == ['"card.toml"']


def test_sealing_refuses_what_must_not_be_in_a_folder(tmp_path):
    _, folder = made(tmp_path)
    (folder / "scaler.pkl").write_bytes(b"x")
    done = run("models", "seal", folder)
    assert done.exit_code == 2
    assert "scaler.pkl: is of a kind" in done.stderr
