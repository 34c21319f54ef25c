"""Missing is not normal: without one of its inputs NEWS2 is never a total, and the sickest patient is not silenced."""

from datetime import timedelta

import pytest

from sidecar.explanation import rationale, reason_in_words
from sidecar.records import Outcome
from sidecar.writeback import Links, observation, risk_assessment
from sidecar.writeback.note import headline
from tests.unit.chart import POINTS, answered, judge, judge_set, loaded, measured, panel, scale

SICK = {
    "respiratory_rate": (measured("9279-1", 22, "/min"), 2),
    "spo2": (measured("59408-5", 93, "%"), 2),
    "on_oxygen": (measured("3151-8", 4, "L/min"), 2),
    "systolic_bp": (panel(105), 1),
    "pulse": (measured("8867-4", 112, "/min"), 2),
    "consciousness": (measured("9269-2", 14, "{score}"), 3),
    "temperature": (measured("8310-5", 38.5, "Cel"), 1),
}


def links(conclusion):
    a, manifest = conclusion.assessment, loaded().manifest
    return Links(
        identity=b"\x01" * 32,
        status="preliminary",
        device="Device/d1",
        rationale=rationale(a, manifest),
        reasons=tuple(reason_in_words(r, manifest, a.vector.features) for r in a.reasons),
    )


@pytest.mark.parametrize("gone", POINTS)
def test_without_one_input_the_result_is_at_least_the_sum_of_the_rest(gone):
    found = judge(reading for name, (reading, _) in SICK.items() if name != gone).assessment
    rest = sum(points for name, (_, points) in SICK.items() if name != gone)
    assert (found.outcome, found.score, found.at_least) == (Outcome.INCOMPLETE, None, rest)
    assert found.reasons == (f"missing:{gone}",)
    assert sum(found.contributions.values()) == rest
    assert gone not in found.contributions


@pytest.mark.parametrize("gone", POINTS)
def test_without_one_input_there_is_no_total_in_the_chart_and_no_coded_band(gone):
    conclusion = judge(reading for name, (reading, _) in SICK.items() if name != gone)
    manifest, to = loaded().manifest, links(conclusion)
    assert observation(conclusion, manifest, to) is None
    risk = risk_assessment(conclusion, manifest, to)
    assert risk["status"] == "preliminary"
    assert set(risk["prediction"][0]["qualitativeRisk"]) == {"text"}
    assert risk["prediction"][0]["qualitativeRisk"]["text"].startswith("incomplete: at least ")


def test_the_sickest_patient_without_a_temperature_is_urgent_and_at_least_six():
    conclusion = judge_set(respiratory_rate=measured("9279-1", 30, "/min"), systolic_bp=panel(80), temperature=None)
    a = conclusion.assessment
    assert (a.outcome, a.at_least, a.urgent, a.risk) == (Outcome.INCOMPLETE, 6, True, "medium")
    said = headline(conclusion, loaded().manifest, links(conclusion).reasons)
    assert said == "URGENT: NEWS2 at least 6, incomplete: temperature not charted. This is not a total."


def test_one_parameter_scoring_three_makes_an_incomplete_result_urgent():
    a = judge([measured("9279-1", 30, "/min")]).assessment
    assert (a.at_least, a.urgent, a.risk) == (3, True, "low-medium")


def test_four_points_without_a_three_are_not_urgent_and_have_no_band():
    a = judge([measured("9279-1", 22, "/min"), measured("8867-4", 112, "/min")]).assessment
    assert (a.outcome, a.at_least, a.urgent, a.risk) == (Outcome.INCOMPLETE, 4, False, None)


def test_at_least_seven_is_said_in_the_highest_band():
    a = judge(r for name, (r, _) in SICK.items() if name != "temperature").assessment
    assert (a.at_least, a.risk) == (12, "high")


def test_the_lowest_band_is_never_said_of_an_incomplete_total():
    a = judge_set(temperature=None).assessment
    assert (a.outcome, a.at_least, a.risk, a.urgent) == (Outcome.INCOMPLETE, 0, None, False)


def test_with_nothing_charted_the_result_is_not_scored_and_says_what_is_missing():
    a = judge([]).assessment
    assert (a.outcome, a.at_least, a.contributions) == (Outcome.NOT_SCORED, None, {})
    assert a.reasons == tuple(f"missing:{name}" for name in POINTS)


def test_a_scale_decision_alone_is_nothing_to_go_on():
    assert judge([scale(2)]).assessment.outcome is Outcome.NOT_SCORED


def test_assumed_room_air_alone_is_nothing_to_go_on():
    assert judge([], "room_air_when_undocumented").assessment.outcome is Outcome.NOT_SCORED


def test_an_implausible_value_is_shown_as_check_patient_and_never_computed_with():
    conclusion = judge_set(spo2=measured("59408-5", 45, "%"))
    a = conclusion.assessment
    assert (a.outcome, a.at_least, a.urgent, a.reasons) == (Outcome.INCOMPLETE, 0, True, ("implausible:spo2",))
    assert links(conclusion).reasons == ("check patient: oxygen saturation 45 % is outside the plausible range",)


@pytest.mark.parametrize(
    ("name", "reading", "shown"),
    [
        ("on_oxygen", measured("3150-6", 0.4, "%"), "oxygen therapy 0.4 %"),
        ("on_oxygen", measured("3150-6", 1, "%"), "oxygen therapy 1 %"),
        ("on_oxygen", measured("3151-8", 150, "L/min"), "oxygen therapy 150 L/min"),
        ("consciousness", measured("9269-2", 1, "{score}"), "consciousness 1"),
        ("temperature", measured("8310-5", 212, "[degF]"), "temperature 100 °C"),
        ("systolic_bp", measured("8480-6", 12, "mm[Hg]"), "systolic blood pressure 12 mmHg"),
    ],
)
def test_an_implausible_value_is_shown_in_the_unit_it_was_judged_in(name, reading, shown):
    conclusion = judge_set(**{name: reading})
    assert links(conclusion).reasons == (f"check patient: {shown} is outside the plausible range",)


def test_a_total_is_stated_once_and_never_beside_an_at_least():
    a = judge_set().assessment
    assert (a.outcome, a.score, a.at_least, a.reasons) == (Outcome.SCORED, 0, None, ())


def test_a_reading_older_than_the_maximum_age_is_stale_and_not_part_of_the_basis():
    conclusion = judge_set(pulse=measured("8867-4", 140, "/min", timedelta(hours=4, seconds=1)))
    assert conclusion.assessment.reasons == ("stale:pulse",)
    assert "o-8867-4-14401" not in {r.id for r in conclusion.evidence.basis}


def test_new_confusion_on_its_own_is_urgent():
    a = judge([answered("http://snomed.info/sct|1104441000000107", "http://snomed.info/sct|130987000")]).assessment
    assert (a.at_least, a.urgent) == (3, True)
