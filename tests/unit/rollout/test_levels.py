"""How high a result counts in a shadow period, by the bands of its model."""

from dataclasses import replace

import pytest

from sidecar.decisions import bands, level
from sidecar.records import Assessment, FeatureVector, Outcome
from tests.unit.equations import loaded


def result(model: str, outcome: Outcome = Outcome.SCORED, **more) -> int | None:
    said = Assessment(
        model=model, version="1.0.0", model_digest="d", policy_digest="p", outcome=outcome, reasons=(), score=None,
        at_least=None, risk=None, urgent=False, vector=FeatureVector(()), contributions={},
    )  # fmt: skip
    return level(replace(said, **more), loaded(model).manifest)


@pytest.mark.parametrize(
    ("two_years", "five_years", "expected"),
    [(0.0, 0.0, 0), (0.0, 0.04, 1), (0.0, 0.06, 2), (0.11, 0.0, 1), (0.41, 0.04, 2), (0.11, 0.06, 2)],
)
def test_of_several_outputs_the_highest_level_counts(two_years, five_years, expected):
    assert result("kfre_4var", probabilities={"two_years": two_years, "five_years": five_years}) == expected


def test_levels_are_named_after_the_bands_of_every_output():
    assert bands(loaded("kfre_4var").manifest) == (
        "none", "multidisciplinary-care or consider-referral", "plan-kidney-replacement or refer"
    )  # fmt: skip


def test_an_urgent_incomplete_result_calls_somebody_even_when_no_band_can_be_said():
    incomplete = Outcome.INCOMPLETE
    assert result("news2", incomplete, at_least=3.0, urgent=True) == 1
    assert (
        result("news2", incomplete, at_least=7.0, urgent=True, risk="high") == len(bands(loaded("news2").manifest)) - 1
    )
    assert result("news2", incomplete, at_least=3.0) is None


def test_an_output_that_is_not_given_counts_nothing():
    assert result("kfre_4var", probabilities={"five_years": 0.06}) == 2
    assert result("kfre_4var", Outcome.NOT_SCORED) is None
