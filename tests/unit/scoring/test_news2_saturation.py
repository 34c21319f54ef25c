"""SpO2 scale 2 only by a coded decision, and its table depends on oxygen from 93 % upwards."""

from datetime import timedelta

import pytest

from sidecar.records import Outcome
from sidecar.writeback.note import text
from tests.unit.chart import OURS, answered, judge, judge_set, loaded, measured, scale, vitals

AIR, OXYGEN = measured("3151-8", 0, "L/min"), measured("3151-8", 2, "L/min")
SCALE_1 = {91: 3, 92: 2, 93: 2, 94: 1, 95: 1, 96: 0, 100: 0}
LOW_2 = {83: 3, 84: 2, 85: 2, 86: 1, 87: 1, 88: 0, 92: 0}
HIGH_2 = {93: 1, 94: 1, 95: 2, 96: 2, 97: 3, 100: 3}


def spo2(value, oxygen, decided=None):
    found = judge_set(spo2=measured("59408-5", value, "%"), on_oxygen=oxygen, spo2_scale=decided)
    return found.assessment.contributions.get("spo2")


@pytest.mark.parametrize("oxygen", [AIR, OXYGEN], ids=["air", "oxygen"])
@pytest.mark.parametrize("value", SCALE_1)
def test_scale_1_does_not_depend_on_oxygen(value, oxygen):
    assert spo2(value, oxygen) == SCALE_1[value]


@pytest.mark.parametrize("oxygen", [AIR, OXYGEN, None], ids=["air", "oxygen", "unknown"])
@pytest.mark.parametrize("value", LOW_2)
def test_scale_2_below_93_does_not_depend_on_oxygen(value, oxygen):
    assert spo2(value, oxygen, scale(2)) == LOW_2[value]


@pytest.mark.parametrize("value", HIGH_2)
def test_scale_2_from_93_upwards_scores_nothing_on_air(value):
    assert spo2(value, AIR, scale(2)) == 0


@pytest.mark.parametrize("value", HIGH_2)
def test_scale_2_from_93_upwards_scores_on_oxygen(value):
    assert spo2(value, OXYGEN, scale(2)) == HIGH_2[value]


@pytest.mark.parametrize("value", HIGH_2)
def test_scale_2_from_93_upwards_is_not_known_while_oxygen_is_not(value):
    found = judge_set(spo2=measured("59408-5", value, "%"), on_oxygen=None, spo2_scale=scale(2)).assessment
    assert found.outcome is Outcome.INCOMPLETE
    assert "spo2" not in found.contributions


@pytest.mark.parametrize(
    "written",
    [
        answered(f"{OURS}|spo2-scale", "urn:oid:1.2.3|spo2-scale-2"),
        answered("urn:oid:1.2.3|spo2-scale", f"{OURS}|spo2-scale-2"),
        {**scale(2), "status": "entered-in-error"},
    ],
    ids=["answer of another system", "question of another system", "entered in error"],
)
def test_scale_2_is_never_taken_without_a_valid_coded_decision(written):
    found = judge_set(spo2=measured("59408-5", 88, "%"), spo2_scale=written).assessment
    assert found.contributions.get("spo2") != 0


def test_an_explicit_decision_for_scale_1_is_scale_1():
    assert spo2(88, AIR, scale(1)) == 3


def test_the_latest_decision_counts():
    older = {**scale(2, timedelta(days=30)), "id": "older"}
    assert judge_set(a=older, spo2_scale=scale(1), spo2=measured("59408-5", 88, "%")).assessment.score == 3


def test_a_decision_holds_for_months():
    assert spo2(88, AIR, scale(2, timedelta(days=200))) == 0


def test_a_lapsed_decision_for_scale_2_does_not_become_scale_1_in_silence():
    found = judge_set(spo2_scale=scale(2, timedelta(days=366))).assessment
    assert (found.outcome, found.reasons) == (Outcome.INCOMPLETE, ("stale:spo2_scale",))


@pytest.mark.parametrize(
    ("decided", "printed"), [(None, "SpO2 scale 1"), (scale(2), "SpO2 scale 2 (set by a clinician)")]
)
def test_the_scale_is_printed(decided, printed):
    conclusion = judge_set(spo2_scale=decided)
    assert printed in text(conclusion, loaded().manifest, "final", ())


def test_a_decision_made_after_the_readings_neither_moves_nor_prolongs_the_observation_set():
    hour_ago = {
        name: {**reading, "effectiveDateTime": "2026-03-01T11:00:00+00:00"} for name, reading in vitals().items()
    }
    plain, rescaled = judge(hour_ago.values()), judge([*hour_ago.values(), scale(2)])
    assert rescaled.evidence.occurred_at == plain.evidence.occurred_at
    assert rescaled.evidence.valid_until == plain.evidence.valid_until
    assert len(rescaled.evidence.basis) == len(plain.evidence.basis) + 1
