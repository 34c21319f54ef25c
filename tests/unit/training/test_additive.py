"""Additive models: the graph that is written says what the fitted model says, absence included, and adds up."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.training import Additive, Shape, Term, fit, patient_folds
from sidecar.training.graph import onnx_bytes

NAN = float("nan")
VALUES = st.floats(-3, 3).map(lambda v: round(v, 6))
PLACES = st.lists(st.floats(-50, 50).map(lambda v: round(v, 3)), min_size=2, max_size=6, unique=True).map(sorted)


@st.composite
def terms(draw, name):
    kind, at = draw(st.sampled_from(["linear", "step"])), draw(PLACES)
    size = len(at) + (kind == "step")
    values = draw(st.lists(VALUES, min_size=size, max_size=size))
    return Term(name, kind, tuple(at), tuple(values), draw(st.one_of(VALUES, st.just(NAN))))


@st.composite
def models(draw):
    found = [Term("a", "linear", (0.0, 1.0), (0.0, 1.0), 0.5), Term("b", "step", (0.0,), (0.0, 1.0), NAN)]
    found += [draw(terms(f"x{i}")) for i in range(draw(st.integers(0, 4)))]
    return Additive(tuple(found), draw(VALUES))


def run(content, rows):
    return ort.InferenceSession(content).run(["linear_predictor", "terms", "probabilities"], {"features": rows})


@settings(max_examples=25, deadline=None, print_blob=True)
@given(models(), st.data())
def test_the_graph_says_what_the_model_says_also_at_every_edge_and_of_absence(model, data):
    edges = sorted({place for term in model.terms for place in term.at})
    inputs = st.one_of(st.floats(-100, 100), st.sampled_from(edges), st.just(NAN))
    rows = np.array([[data.draw(inputs) for _ in model.terms] for _ in range(20)])
    total, found, probability = run(onnx_bytes(model, "x"), rows)
    assert found == pytest.approx(model.contributions(rows), abs=1e-9, nan_ok=True)
    assert probability[:, 0] == pytest.approx(model.probability(rows), abs=1e-9, nan_ok=True)
    assert total[:, 0] == pytest.approx(found.sum(axis=1), abs=1e-9, nan_ok=True)


def cases(rows=3000, seed=1):
    random = np.random.default_rng(seed)
    x, z = random.normal(size=rows), random.integers(0, 3, rows).astype(float)
    y = (random.random(rows) < 1 / (1 + np.exp(1.5 - x - (z == 2)))).astype(float)
    x[random.random(rows) < 0.2] = NAN
    return np.column_stack([x, z]), y


SHAPES = (Shape("x", "linear", (-2.0, -1.0, 0.0, 1.0, 2.0), missing=True), Shape("z", "codes", (0.0, 1.0, 2.0)))


def test_a_fit_finds_what_the_rows_were_made_with():
    inputs, outcome = cases(20_000)
    model = fit(SHAPES, inputs, outcome, np.ones(len(outcome)), 1e-6)
    rise = model.terms[0].values[3] - model.terms[0].values[1]
    assert rise == pytest.approx(2, abs=0.2)
    assert model.terms[1].values[2] - model.terms[1].values[0] == pytest.approx(1, abs=0.15)


def test_terms_are_0_on_average_so_the_constant_is_the_average_row():
    inputs, outcome = cases()
    model = fit(SHAPES, inputs, outcome, np.ones(len(outcome)), 1e-3)
    assert model.contributions(inputs).mean(axis=0) == pytest.approx(0, abs=1e-9)


def test_the_same_rows_give_the_same_bytes_whatever_their_order():
    inputs, outcome = cases()
    order = np.random.default_rng(2).permutation(len(outcome))
    one = fit(SHAPES, inputs, outcome, np.ones(len(outcome)), 1e-3).rounded()
    other = fit(SHAPES, inputs[order], outcome[order], np.ones(len(outcome)), 1e-3).rounded()
    assert onnx_bytes(one, "x") == onnx_bytes(other, "x")


def test_a_row_of_weight_two_counts_as_two_rows():
    inputs, outcome = cases()
    weight = np.random.default_rng(3).integers(1, 3, len(outcome))
    heavy = fit(SHAPES, inputs, outcome, weight.astype(float), 1e-9)
    often = fit(SHAPES, np.repeat(inputs, weight, axis=0), np.repeat(outcome, weight), np.ones(weight.sum()), 1e-9)
    assert heavy.probability(inputs) == pytest.approx(often.probability(inputs), abs=1e-5)


def test_recalibration_is_the_line_on_the_logit():
    inputs, outcome = cases()
    model = fit(SHAPES, inputs, outcome, np.ones(len(outcome)), 1e-3)
    before, after = (
        np.log(p / (1 - p)) for p in (model.probability(inputs), model.recalibrated(0.3, 1.7).probability(inputs))
    )
    assert after == pytest.approx(0.3 + 1.7 * before, abs=1e-9)


def test_a_patient_is_in_one_fold_and_every_fold_has_patients():
    patients = np.random.default_rng(4).integers(0, 50, 500)
    folds = patient_folds(patients, 5, 7)
    assert all(len(set(folds[patients == p])) == 1 for p in set(patients))
    assert set(folds) == set(range(5))
