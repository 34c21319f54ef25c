"""From points to a conclusion and its words."""

import math

import pytest

from sidecar.explanation import conclude, rationale, reason_in_words
from sidecar.records import Feature, FeatureVector, Outcome, Score
from tests.unit.chart import POINTS, judge_set, loaded, measured, panel, scale

MANIFEST = loaded().manifest


def vector(**missing):
    return FeatureVector(
        tuple(
            Feature(n, math.nan, "1", reason=missing[n]) if n in missing else Feature(n, 1.0, "1", seconds=0.0)
            for n in (*POINTS, "spo2_scale")
        )
    )


def points(**changes):
    return dict.fromkeys(POINTS, 0.0) | changes


def test_a_total_with_a_reason_against_it_is_not_a_total():
    found = conclude(MANIFEST, vector(pulse="missing:pulse"), Score(3.0, points(spo2=3.0)))
    assert (found.outcome, found.score, found.at_least) == (Outcome.INCOMPLETE, None, 3)


def test_points_that_a_graph_gives_to_a_missing_input_are_not_counted():
    found = conclude(MANIFEST, vector(pulse="missing:pulse"), Score(math.nan, points(pulse=3.0, spo2=1.0)))
    assert (found.at_least, "pulse" in found.contributions) == (1, False)


def test_a_total_that_is_not_a_number_is_never_scored():
    assert conclude(MANIFEST, vector(), Score(math.nan, points())).outcome is Outcome.INCOMPLETE


def test_contributions_of_a_scored_result_sum_to_it():
    found = conclude(MANIFEST, vector(), Score(5.0, points(spo2=3.0, on_oxygen=2.0)))
    assert math.fsum(found.contributions.values()) == found.score == 5


def said(conclusion, most=3):
    return rationale(conclusion.assessment, MANIFEST, most)


def test_the_rationale_names_the_top_parameters_highest_first():
    found = judge_set(
        respiratory_rate=measured("9279-1", 26, "/min"),
        on_oxygen=measured("3151-8", 2, "L/min"),
        temperature=measured("8310-5", 38.5, "Cel"),
    )
    assert said(found) == "respiratory rate 26/min (3), oxygen therapy yes (2), temperature 38.5 °C (1)"


def test_the_rationale_says_how_many_it_leaves_out():
    found = judge_set(
        respiratory_rate=measured("9279-1", 26, "/min"),
        on_oxygen=measured("3151-8", 2, "L/min"),
        temperature=measured("8310-5", 38.5, "Cel"),
        systolic_bp=panel(95),
        pulse=measured("8867-4", 135, "/min"),
    )
    assert said(found) == "pulse 135/min (3), respiratory rate 26/min (3), oxygen therapy yes (2) and 2 more"


def test_the_rationale_of_a_zero_says_so():
    assert said(judge_set()) == "no parameter scored above 0"


def test_the_rationale_names_no_parameter_that_is_missing():
    assert "pulse" not in said(judge_set(pulse=None, temperature=measured("8310-5", 38.5, "Cel")))


def test_not_alert_is_said_in_words():
    found = judge_set(
        consciousness=measured("9269-2", 13, "{score}"), spo2_scale=scale(2), spo2=measured("59408-5", 90, "%")
    )
    assert said(found) == "consciousness not alert (3)"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("missing:temperature", "temperature not charted"),
        ("stale:systolic_bp", "systolic blood pressure too old for this observation set"),
        ("unit:on_oxygen", "oxygen therapy charted in a unit that cannot be read safely"),
        ("out_of_cohort:pregnant", "not for use in pregnancy"),
        ("missing:birth_date", "birth date unknown, so the age limit cannot be checked"),
        ("never:heard_of_it", "never: heard of it"),
    ],
)
def test_a_stored_reason_is_said_in_words_and_an_unknown_one_is_not_hidden(reason, words):
    assert reason_in_words(reason, MANIFEST) == words
