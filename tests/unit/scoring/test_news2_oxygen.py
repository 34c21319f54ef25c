"""Undocumented oxygen is not room air, and a concentration that could mean two things means neither."""

from datetime import timedelta

import pytest

from sidecar.records import Outcome
from tests.unit.chart import LOINC, SCT, answered, concept, judge, judge_set, measured, observation, vitals

SWITCH = "room_air_when_undocumented"
SAID = "Oxygen was not documented and was taken as room air, as this site decided."


def oxygen(conclusion):
    a = conclusion.assessment
    return a.contributions.get("on_oxygen"), a.reasons


def test_undocumented_oxygen_is_not_room_air():
    found = judge_set(on_oxygen=None)
    assert oxygen(found) == (None, ("missing:on_oxygen",))
    assert SAID not in found.assessment.vector.remarks


def test_the_site_may_take_undocumented_oxygen_as_room_air_and_then_it_is_said():
    found = judge_set(SWITCH, on_oxygen=None)
    assert (found.assessment.outcome, oxygen(found)) == (Outcome.SCORED, (0, ()))
    assert SAID in found.assessment.vector.remarks


def test_documented_oxygen_is_not_called_assumed_where_the_switch_is_on():
    found = judge_set(SWITCH, on_oxygen=measured("3151-8", 2, "L/min"))
    assert oxygen(found) == (2, ())
    assert SAID not in found.assessment.vector.remarks


def test_room_air_is_not_assumed_in_place_of_oxygen_charted_too_long_ago():
    found = judge_set(SWITCH, on_oxygen=measured("3151-8", 5, "L/min", timedelta(hours=5)))
    assert oxygen(found) == (None, ("stale:on_oxygen",))


def test_room_air_is_assumed_where_air_was_charted_too_long_ago():
    found = judge_set(SWITCH, on_oxygen=measured("3151-8", 0, "L/min", timedelta(hours=5)))
    assert oxygen(found) == (0, ())


def test_room_air_is_not_assumed_in_place_of_oxygen_charted_in_the_future():
    found = judge_set(SWITCH, on_oxygen=measured("3151-8", 5, "L/min", -timedelta(minutes=6)))
    assert oxygen(found) == (None, ("future:on_oxygen",))


@pytest.mark.parametrize(
    "value",
    [
        {"value": 0.4},
        {"value": 40},
        {"value": 0.4, "unit": "1", "system": "http://unitsofmeasure.org", "code": "1"},
        {"value": 0.4, "unit": "fraction"},
        {"value": 0.4, "unit": "%", "system": "http://unitsofmeasure.org"},
    ],
)
def test_an_oxygen_fraction_without_percent_is_refused_and_never_read_as_air(value):
    found = judge_set(SWITCH, on_oxygen=observation(f"{LOINC}|3150-6", valueQuantity=value))
    assert oxygen(found) == (None, ("unit:on_oxygen",))


@pytest.mark.parametrize("percent", [0.21, 0.4, 1, 20, 100.5])
def test_a_concentration_below_air_or_above_pure_oxygen_is_implausible_and_never_air(percent):
    assert oxygen(judge_set(SWITCH, on_oxygen=measured("3150-6", percent, "%"))) == (
        None,
        ("implausible:on_oxygen",),
    )


@pytest.mark.parametrize(("percent", "points"), [(20.9, 0), (21, 0), (21.5, 2), (28, 2), (100, 2)])
def test_more_than_21_percent_is_oxygen(percent, points):
    assert oxygen(judge_set(on_oxygen=measured("3150-6", percent, "%"))) == (points, ())


@pytest.mark.parametrize(
    ("flow", "unit", "points"),
    [(0, "L/min", 0), (0.5, "L/min", 2), (15, "L/min", 2), (2, "l/min", 2), (250, "mL/min", 2)],
)
def test_any_flow_above_zero_is_oxygen(flow, unit, points):
    assert oxygen(judge_set(on_oxygen=measured("3151-8", flow, unit))) == (points, ())


def test_a_flow_charted_as_a_range_is_refused_and_an_older_reading_does_not_stand_in():
    low, high = {"value": 2}, {"value": 4}
    ranged = observation(f"{LOINC}|3151-8", valueRange={"low": low, "high": high})
    older = measured("3151-8", 0, "L/min", timedelta(hours=1))
    charted = {"on_oxygen": ranged, "respiratory_rate": measured("9279-1", 16, "/min")}
    found = judge_set(**charted)
    assert oxygen(found) == (None, ("shape:on_oxygen",))
    assert oxygen(judge([*vitals(**charted).values(), older])) == (None, ("shape:on_oxygen",))


def test_a_coded_answer_from_another_code_system_is_refused():
    local = answered(f"{SCT}|371825009", "urn:oid:1.2.3|yes")
    assert oxygen(judge_set(SWITCH, on_oxygen=local)) == (None, ("unmapped:on_oxygen",))


def test_an_answer_without_a_value_leaves_oxygen_undocumented():
    absent = observation(f"{LOINC}|3151-8", dataAbsentReason=concept(f"{SCT}|1"))
    assert oxygen(judge_set(on_oxygen=absent)) == (None, ("missing:on_oxygen",))
