"""Laws of the kidney failure risk, and that its folder is the reviewed one."""

import importlib.util
import math
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.records import Feature, FeatureVector
from tests.unit.chart import AT
from tests.unit.kidney import KFRE, acr, creatinine, egfr, judge_ckd, kfre, risks

AGES, RATES, RATIOS = st.floats(18, 105), st.floats(10, 59.9), st.floats(0.2, 20_000)
INPUTS = ("age", "sex", "egfr", "uacr", "region")
NORMAL = (70.0, 1.0, 30.0, 300.0, 1.0)


def score(*values):
    return kfre().score(FeatureVector(tuple(Feature(n, v, "1") for n, v in zip(INPUTS, values, strict=True))))


@pytest.mark.parametrize("script", ["build", "reference"])
def test_the_scripts_make_the_shipped_bytes(script):
    spec = importlib.util.spec_from_file_location(f"kfre_{script}", KFRE / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    file = {"build": "model.onnx", "reference": "reference.json"}[script]
    assert module.build() == (KFRE / file).read_bytes()


@settings(max_examples=200, deadline=None, print_blob=True)
@given(AGES, st.sampled_from([0.0, 1.0]), RATES, RATIOS, st.sampled_from([0.0, 1.0]))
def test_the_contributions_sum_to_the_linear_predictor_and_that_gives_the_probabilities(age, male, rate, ratio, region):
    found = score(age, male, rate, ratio, region)
    assert math.fsum(found.points.values()) == pytest.approx(found.total, abs=1e-12)
    survival = (0.9750, 0.9240) if region else (0.9832, 0.9365)
    said = [1 - s ** math.exp(found.total) for s in survival]
    assert list(found.probabilities.values()) == pytest.approx(said, abs=1e-12)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(RATES, RATES, RATIOS, RATIOS)
def test_the_risk_rises_with_albuminuria_and_falls_with_the_filtration_rate(rate, other_rate, ratio, other_ratio):
    low, high = sorted((rate, other_rate))
    assert score(70.0, 1.0, low, ratio, 1.0).total >= score(70.0, 1.0, high, ratio, 1.0).total
    less, more = sorted((ratio, other_ratio))
    assert score(70.0, 1.0, rate, less, 1.0).total <= score(70.0, 1.0, rate, more, 1.0).total


def test_the_later_horizon_has_the_higher_risk_and_the_region_decides_by_how_much():
    (two, five), (other_two, other_five) = (tuple(score(*NORMAL[:4], r).probabilities.values()) for r in (1.0, 0.0))
    assert two < five
    assert (other_two, other_five) < (two, five)


@pytest.mark.parametrize("gone", range(5))
def test_each_missing_input_makes_every_probability_not_a_number(gone):
    values = [math.nan if n == gone else v for n, v in enumerate(NORMAL)]
    assert all(math.isnan(p) for p in score(*values).probabilities.values())


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.floats(0.2, 20_000))
def test_a_ratio_in_mg_per_mmol_gives_the_risk_of_the_same_ratio_in_mg_per_g(ratio):
    in_grams = risks(judge_ckd(egfr(), acr(ratio)))
    in_moles = risks(judge_ckd(egfr(), acr(ratio / 8.84, "mg/mmol")))
    assert in_moles == pytest.approx(in_grams, rel=1e-12)


def test_a_ratio_in_mg_per_mmol_is_not_taken_for_mg_per_g():
    as_it_is, unconverted = risks(judge_ckd(egfr(), acr(34, "mg/mmol"))), risks(judge_ckd(egfr(), acr(34)))
    hazard = [math.log1p(-a) / math.log1p(-b) for a, b in zip(unconverted, as_it_is, strict=True)]
    assert hazard == pytest.approx([0.374, 0.374], abs=0.001)


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.floats(1.4, 5))
def test_the_unit_of_creatinine_does_not_matter(mg_dl):
    first, second = (judge_ckd(creatinine(*c), acr()).assessment for c in ((mg_dl, "mg/dL"), (mg_dl * 88.4, "umol/L")))
    assert second.reasons == first.reasons
    assert list(second.probabilities.values()) == pytest.approx(list(first.probabilities.values()), rel=1e-12)


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_chart_does_not_matter(random):
    chart = [egfr(40, timedelta(days=100)), creatinine(2.1), egfr(31), acr(), acr(200, ago=timedelta(days=30))]
    expected = judge_ckd(*chart).assessment
    random.shuffle(chart)
    found = judge_ckd(*chart).assessment
    assert (found.probabilities, found.vector.remarks) == (expected.probabilities, expected.vector.remarks)


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.integers(0, 80 * 24))
def test_looking_again_later_gives_the_same_inputs(hours):
    chart = (egfr(31, timedelta(minutes=1)), acr(ago=timedelta(days=2)))
    now, later = judge_ckd(*chart), judge_ckd(*chart, at=AT + timedelta(hours=hours))
    assert [f.value for f in later.assessment.vector.features] == [f.value for f in now.assessment.vector.features]
    assert later.evidence.occurred_at == now.evidence.occurred_at
