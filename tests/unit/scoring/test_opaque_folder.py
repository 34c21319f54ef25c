"""A graph without terms is tried when it is loaded: what would be served wrongly is refused, in a sentence."""

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model_from_string, numpy_helper

from sidecar.errors import Misconfigured
from sidecar.scoring import load_model
from tests.unit.opaque import MANIFEST, SICK, Stump, classifier, fresh, install, probability, score, wrapped


def refused(tmp_path, content, text=MANIFEST):
    with pytest.raises(Misconfigured) as error:
        load_model(install(tmp_path, content, text))
    (problem,) = error.value.problems
    assert problem.startswith(f"{tmp_path}/early_warning/1.0.0/manifest.toml: ")
    return problem


def softmax(axis, **how):
    """Two columns of a row's own numbers, as shares of the row (axis 1) or, by mistake, of all rows (axis 0)."""
    weights = np.array([[0.01, 0.0], [0.0, 0.01], [0.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"], axis=axis),
    ]
    return wrapped(nodes, initializer=[numpy_helper.from_array(weights, "weights")], **how)


def test_shares_of_a_row_load_and_shares_of_all_rows_do_not(tmp_path):
    assert fresh(softmax(1)).manifest.name == "early_warning"
    assert "another answer beside other rows than alone" in refused(tmp_path, softmax(0))


def test_a_graph_that_takes_one_row_at_a_time_is_refused(tmp_path):
    assert "does not take 5 rows of 4 features" in refused(tmp_path, softmax(1, rows=1))


def test_a_graph_of_other_features_is_refused(tmp_path):
    more = [Stump(5, 1.0, 0.1, 0.2)]
    assert "does not take 4 features" in refused(tmp_path, classifier(more, features=6))


def test_a_classifier_whose_column_is_not_named_is_not_read_by_place(tmp_path):
    said = refused(tmp_path, None, MANIFEST.replace("column = 1\n", ""))
    assert "probabilities has 2 columns, outputs 1; say which is which with outputs.column" in said


def test_a_column_beyond_the_last_is_refused(tmp_path):
    said = refused(tmp_path, None, MANIFEST.replace("column = 1\n", "column = 2\n"))
    assert "probabilities has 2 columns, counted from 0; outputs.column is 2" in said


def test_the_first_column_is_that_nothing_happens_and_can_be_asked_for():
    found = score(SICK, fresh(None, MANIFEST.replace("column = 1\n", "column = 0\n")))
    assert found.probabilities["within_a_day"] == pytest.approx(1 - probability(SICK), abs=1e-6)


def test_probabilities_as_a_list_of_maps_are_refused_with_the_way_to_export_them(tmp_path):
    model = load_model_from_string(classifier())
    graph = model.graph
    graph.node[0].output[1] = "raw"
    graph.node.append(
        helper.make_node("ZipMap", ["raw"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    )
    del graph.output[:]
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, value))
    graph.output.append(helper.make_value_info("probabilities", maps))
    assert "export it with zipmap=False" in refused(tmp_path, model.SerializeToString())


def test_the_label_is_no_probability(tmp_path):
    said = refused(tmp_path, None, MANIFEST.replace('probabilities = "probabilities"', 'probabilities = "label"'))
    assert "the output label is tensor(int64); make it float or double" in said


def test_a_tensor_that_is_not_there_is_named(tmp_path):
    said = refused(tmp_path, None, MANIFEST.replace('probabilities = "probabilities"', 'probabilities = "output"'))
    assert "the graph has no tensor named output" in said


@pytest.mark.parametrize("everywhere", [1.2, -0.1, float("nan")])
def test_a_graph_that_says_no_probability_even_of_typical_values_is_refused(tmp_path, everywhere):
    logits = classifier([Stump(0, 20.5, everywhere, everywhere)], transform="NONE")
    assert "gives no probability for what [explanation] compares with" in refused(tmp_path, logits)


def test_a_second_input_is_refused(tmp_path):
    zero = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 2])
    model = load_model_from_string(softmax(1))
    model.graph.input.append(zero)
    model.graph.node[1].output[0] = "shares"
    model.graph.node.append(helper.make_node("Add", ["shares", "mask"], ["probabilities"]))
    assert "more inputs than features: mask" in refused(tmp_path, model.SerializeToString())


def test_a_typical_value_that_the_graph_cannot_hold_is_refused(tmp_path):
    said = refused(
        tmp_path, None, MANIFEST.replace("plausible = [20, 250]\n", "").replace("pulse = 80", "pulse = 1e300")
    )
    assert "what [explanation] compares with has a value that is too large for features" in said


def test_a_graph_that_gives_another_number_of_rows_than_it_takes_is_refused(tmp_path):
    axis = numpy_helper.from_array(np.array([0], dtype=np.int64), "first")
    weights = np.array([[0.01, 0.0], [0.0, 0.01], [0.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["shares"], axis=1),
        helper.make_node("Gather", ["shares", "first"], ["probabilities"], axis=0),
    ]
    content = wrapped(nodes, rows="M", initializer=[axis, numpy_helper.from_array(weights, "weights")])
    assert "another answer beside other rows than alone" in refused(tmp_path, content)
