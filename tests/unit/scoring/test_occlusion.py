"""A graph that gives probabilities and nothing else: what each input changes, and never an answer about the unknown."""

import math

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sidecar.records import Outcome
from tests.unit.opaque import (
    FEATURES,
    SICK,
    STUMPS,
    TYPICAL,
    Stump,
    classifier,
    early_warning,
    fresh,
    judge,
    probability,
    readings,
    score,
    wrapped,
)

VALUES = st.fixed_dictionaries(
    {
        "respiratory_rate": st.integers(0, 80), "spo2": st.integers(50, 100), "systolic_bp": st.integers(40, 300),
        "pulse": st.integers(20, 250),
    }
).map(lambda found: {name: float(value) for name, value in found.items()})  # fmt: skip


@settings(max_examples=200, deadline=None, print_blob=True)
@given(VALUES)
def test_the_probability_is_that_of_the_event_and_a_change_what_one_input_makes_of_it(values):
    found = score(values)
    assert dict(found.probabilities) == {"within_a_day": pytest.approx(probability(values), abs=1e-6)}
    changes = {n: probability(values) - probability({**values, n: TYPICAL[n]}) for n in FEATURES}
    assert found.changes == pytest.approx(changes, abs=1e-6)


@settings(max_examples=50, deadline=None, print_blob=True)
@given(VALUES, st.sets(st.sampled_from(FEATURES)))
def test_an_input_at_its_typical_value_changes_nothing(values, typical):
    found = score({**values, **{n: TYPICAL[n] for n in typical}})
    assert {n: found.changes[n] for n in typical} == dict.fromkeys(typical, 0.0)


def test_there_is_no_total_and_there_are_no_points():
    found = score(SICK)
    assert math.isnan(found.total)
    assert dict(found.points) == {}


WEIGHTS, BASE = (0.002, -0.003, -0.001, 0.002), 0.5


def additive():
    """A probability that is a sum: base + weights x input."""
    constants = {
        "weights": np.array([WEIGHTS], dtype=np.float32).T, "base": np.array([[BASE]], dtype=np.float32),
        "one": np.array([[1.0]], dtype=np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["terms"]),
        helper.make_node("Add", ["terms", "base"], ["event"]),
        helper.make_node("Sub", ["one", "event"], ["none"]),
        helper.make_node("Concat", ["none", "event"], ["probabilities"], axis=1),
    ]
    return wrapped(nodes, initializer=[numpy_helper.from_array(v, n) for n, v in constants.items()])


ADDITIVE = fresh(additive())


@settings(max_examples=200, deadline=None, print_blob=True)
@given(
    st.fixed_dictionaries(
        {"respiratory_rate": st.floats(5, 60), "spo2": st.floats(60, 100), "systolic_bp": st.floats(60, 220), "pulse": st.floats(30, 180)}
    )
)  # fmt: skip
def test_the_changes_of_an_additive_model_are_its_terms_and_sum_to_what_it_differs_from_typical(values):
    found = score(values, ADDITIVE)
    terms = {n: w * (values[n] - TYPICAL[n]) for n, w in zip(FEATURES, WEIGHTS, strict=True)}
    assert found.changes == pytest.approx(terms, abs=1e-6)
    apart = found.probabilities["within_a_day"] - score(TYPICAL, ADDITIVE).probabilities["within_a_day"]
    assert math.fsum(found.changes.values()) == pytest.approx(apart, abs=1e-6)


GONE = st.dictionaries(st.sampled_from(FEATURES), st.sampled_from([math.nan, math.inf, -math.inf, 1e300]), min_size=1)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(VALUES, GONE)
def test_a_graph_that_would_answer_is_not_asked_about_an_input_that_is_no_number(values, gone):
    found = score({**values, **gone})
    assert math.isnan(found.probabilities["within_a_day"])
    assert dict(found.changes) == {}


def test_the_graph_of_these_tests_would_answer_about_nothing():
    """Else the property above would hold for the wrong reason."""
    session = ort.InferenceSession(classifier(), providers=["CPUExecutionProvider"])
    nothing = np.full((1, 4), math.nan, dtype=np.float32)
    assert 0 < session.run(["probabilities"], {"features": nothing})[0][0, 1] < 1


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.sets(st.sampled_from(FEATURES)))
def test_an_assessment_is_scored_exactly_when_every_input_is_charted_and_else_says_what_is_missing(gone):
    a = judge(*readings(**dict.fromkeys(gone))).assessment
    if not gone:
        assert (a.outcome, a.reasons, a.score) == (Outcome.SCORED, (), None)
        assert a.probabilities["within_a_day"] == pytest.approx(probability(SICK), abs=1e-6)
        assert (set(a.contributions), dict(a.typical)) == (set(FEATURES), TYPICAL)
        return
    assert (a.outcome, a.score, dict(a.probabilities)) == (Outcome.NOT_SCORED, None, {})
    assert (dict(a.contributions), dict(a.typical)) == ({}, {})
    assert set(a.reasons) == {f"missing:{name}" for name in gone}


def test_an_implausible_input_is_missing_too():
    a = judge(*readings(spo2=45)).assessment
    assert (a.outcome, a.reasons, dict(a.probabilities)) == (Outcome.NOT_SCORED, ("implausible:spo2",), {})


@pytest.mark.parametrize("trees", [79, 884])
def test_a_forest_whose_shares_sum_to_a_little_more_than_one_says_one(trees):
    """In float32, 79 shares of 1/79 are 1.0000006: the surest patient is not the one that is refused."""
    forest = fresh(classifier([Stump(0, 20.5, 0.0, 1 / trees)] * trees, transform="NONE"))
    found = score(SICK, forest)
    assert found.probabilities["within_a_day"] == 1.0
    assert found.changes == {"respiratory_rate": 1.0, "spo2": 0.0, "systolic_bp": 0.0, "pulse": 0.0}


@pytest.mark.parametrize("above", [1.2, -0.1])
def test_a_graph_that_turns_out_to_say_logits_is_never_believed(above):
    model = fresh(classifier([Stump(0, 40.5, 0.5, above)], transform="NONE"))
    with pytest.raises(ValueError, match="outside"):
        score({**SICK, "respiratory_rate": 50.0}, model)


def test_a_graph_in_double_precision_is_run_in_double_precision():
    """1e-9 above the split: only there in float64."""
    constants = {"at": np.array([[20.5]]), "p": np.array([[0.3, 0.7]]), "axis": np.array([1], dtype=np.int64)}
    nodes = [
        helper.make_node("Slice", ["features", "zero", "axis", "axis"], ["rate"]),
        helper.make_node("Greater", ["rate", "at"], ["high"]),
        helper.make_node("Cast", ["high"], ["number"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["number", "p"], ["probabilities"]),
    ]
    constants["zero"] = np.array([0], dtype=np.int64)
    content = wrapped(nodes, kind=TensorProto.DOUBLE, initializer=[numpy_helper.from_array(v, n) for n, v in constants.items()])  # fmt: skip
    found = score({**SICK, "respiratory_rate": 20.5 + 1e-9}, fresh(content))
    assert found.probabilities["within_a_day"] == pytest.approx(0.7, abs=1e-12)


def test_many_rows_are_run_without_a_word_on_the_standard_error(capfd):
    """A declared `label` of one value is wrong for several rows; it is not asked for."""
    for _ in range(3):
        score(SICK, early_warning())
    assert capfd.readouterr().err == ""


def test_more_trees_than_one_per_input_are_seen_through_one_change_each():
    assert len(STUMPS) > len(FEATURES)
    assert list(score(SICK).changes) == list(FEATURES)
