"""Figures of probabilities against what came after: as scikit-learn has them, and by patients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from sidecar.monitoring.performance import Predictions, with_intervals


def drawn(seed, rows=400, decimals=2):
    """Outcomes that fit their probabilities roughly, with many ties."""
    random = np.random.default_rng(seed)
    probability = np.clip(random.beta(1, 4, rows).round(decimals), 0.01, 0.99)
    outcome = (random.random(rows) < probability).astype(float)
    outcome[:2] = (0, 1)
    return outcome, probability, random


@settings(max_examples=30, deadline=None, print_blob=True)
@given(st.integers(0, 10_000))
def test_every_figure_is_the_one_of_scikit_learn_also_with_ties(seed):
    outcome, probability, random = drawn(seed)
    weight = random.integers(0, 3, len(outcome)).astype(float)
    weight[:2] = 1
    found = Predictions(outcome, probability).figures(weight)
    logit = np.log(probability / (1 - probability))[:, np.newaxis]
    line = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky").fit(logit, outcome, sample_weight=weight)
    assert found["auroc"] == pytest.approx(roc_auc_score(outcome, probability, sample_weight=weight), abs=1e-12)
    assert found["ap"] == pytest.approx(average_precision_score(outcome, probability, sample_weight=weight), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(outcome, probability, sample_weight=weight), abs=1e-12)
    assert found["calibration_slope"] == pytest.approx(line.coef_[0, 0], abs=1e-5)
    assert found["calibration_intercept"] == pytest.approx(line.intercept_[0], abs=1e-5)
    assert found["o_e"] == pytest.approx((weight * outcome).sum() / (weight * probability).sum(), abs=1e-12)


def test_a_weight_of_two_is_the_row_twice():
    outcome, probability, random = drawn(3)
    times = random.integers(1, 4, len(outcome))
    once = Predictions(outcome, probability).figures(times.astype(float))
    again = Predictions(np.repeat(outcome, times), np.repeat(probability, times)).figures()
    assert once == pytest.approx(again, abs=1e-9)


def test_probabilities_that_are_moved_on_the_logit_show_it():
    outcome, probability, _ = drawn(4, 20_000, 6)
    logit = np.log(probability / (1 - probability))
    steep = Predictions(outcome, 1 / (1 + np.exp(-2 * logit))).figures()
    assert steep["calibration_slope"] == pytest.approx(
        Predictions(outcome, probability).figures()["calibration_slope"] / 2, abs=1e-6
    )
    high = Predictions(outcome, 1 / (1 + np.exp(-(logit + 1)))).figures()
    plain = Predictions(outcome, probability).figures()
    assert high["calibration_in_the_large"] == pytest.approx(plain["calibration_in_the_large"] - 1, abs=1e-6)


def test_of_one_outcome_alone_there_is_no_ranking_and_no_slope():
    found = Predictions(np.zeros(5), np.linspace(0.1, 0.5, 5)).figures()
    assert math.isnan(found["auroc"])
    assert math.isnan(found["calibration_slope"])
    assert found["o_e"] == 0


@pytest.mark.parametrize("off", [-60, -20, 20, 60])
def test_probabilities_that_are_far_off_are_said_to_be_and_do_not_break_the_figures(off):
    outcome, probability, _ = drawn(6)
    logit = np.log(probability / (1 - probability)) / 10 + off
    found = Predictions(outcome, 1 / (1 + np.exp(-logit))).figures()
    assert found["calibration_in_the_large"] * off < 0 or math.isnan(found["calibration_in_the_large"])
    assert found["auroc"] >= 0.5


def test_no_rows_and_what_is_no_number_are_refused():
    for outcome, probability in (([], []), ([1.0], [math.nan]), ([math.nan], [0.5])):
        with pytest.raises(ValueError, match="figures need rows"):
            Predictions(np.array(outcome), np.array(probability))


def test_intervals_are_by_patients_so_rows_repeated_of_one_patient_make_them_no_narrower():
    outcome, probability, _ = drawn(5)
    patients = np.arange(len(outcome))
    once = with_intervals(outcome, probability, patients, draws=300, seed=1)["auroc"]
    five = with_intervals(*(np.repeat(a, 5) for a in (outcome, probability, patients)), draws=300, seed=1)["auroc"]
    assert (five.low, five.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert once.low < once.value < once.high


def test_the_interval_of_the_area_holds_the_truth_about_nineteen_times_in_twenty():
    held = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        outcome = (np.arange(200) < 60).astype(float)
        score = 1 / (1 + np.exp(-(random.normal(size=200) + outcome)))
        found = with_intervals(outcome, score, np.arange(200), draws=200, seed=seed)["auroc"]
        held += found.low <= 0.7602 <= found.high
    assert held >= 51
