"""Alert means alert: AVPU alone leaves new confusion open, a coma score below 15 is not alert."""

import pytest

from sidecar.explanation import reason_in_words
from tests.unit.chart import ALERT, LOINC, SCT, answered, judge_set, loaded, observation

SWITCH = "avpu_alert_excludes_new_confusion"
AVPU, AVPU_67775 = f"{LOINC}|80288-4", f"{LOINC}|67775-7"
ACVPU = f"{SCT}|1104441000000107"


def consciousness(*switches, **written):
    a = judge_set(*switches, consciousness=written["reading"]).assessment
    return a.contributions.get("consciousness"), a.reasons


@pytest.mark.parametrize("question", [AVPU, AVPU_67775])
@pytest.mark.parametrize("answer", [ALERT, f"{LOINC}|LA9340-6"])
def test_alert_on_avpu_leaves_new_confusion_open(question, answer):
    assert consciousness(reading=answered(question, answer)) == (None, ("ambiguous:consciousness",))


@pytest.mark.parametrize("answer", [ALERT, f"{LOINC}|LA9340-6"])
def test_a_site_may_decide_that_alert_on_avpu_excludes_new_confusion(answer):
    assert consciousness(SWITCH, reading=answered(AVPU, answer)) == (0, ())


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ((SWITCH,), 'AVPU "Alert" was taken to exclude new confusion, as this site decided.'),
        ((), 'AVPU "Alert" was not taken to exclude new confusion.'),
    ],
)
def test_the_note_says_which_reading_of_avpu_was_used(switches, said):
    assert said in judge_set(*switches).assessment.vector.remarks


def test_the_reason_explains_why_alert_is_not_enough():
    said = reason_in_words("ambiguous:consciousness", loaded().manifest)
    assert 'AVPU "Alert" does not exclude new confusion' in said


@pytest.mark.parametrize("code", ["LA6560-2", "LA17108-4", "LA17107-6", "LA9343-0"])
@pytest.mark.parametrize("switches", [(), (SWITCH,)])
def test_any_other_answer_of_avpu_scores_three(code, switches):
    assert consciousness(*switches, reading=answered(AVPU, f"{LOINC}|{code}")) == (3, ())


@pytest.mark.parametrize("code", ["130987000", "300202002", "450847001", "422768004"])
@pytest.mark.parametrize("question", [ACVPU, AVPU])
def test_new_confusion_and_every_lower_level_score_three(question, code):
    assert consciousness(reading=answered(question, f"{SCT}|{code}")) == (3, ())


def test_alert_on_acvpu_is_alert():
    assert consciousness(reading=answered(ACVPU, ALERT)) == (0, ())


@pytest.mark.parametrize(("total", "points"), [(15, 0), (14, 3), (3, 3)])
@pytest.mark.parametrize("form", ["quantity", "quantity without a unit", "integer"])
def test_a_coma_score_below_15_is_not_alert(total, points, form):
    values = {
        "quantity": {"valueQuantity": {"value": total, "code": "{score}", "system": "http://unitsofmeasure.org"}},
        "quantity without a unit": {"valueQuantity": {"value": total}},
        "integer": {"valueInteger": total},
    }
    assert consciousness(reading=observation(f"{LOINC}|9269-2", **values[form])) == (points, ())


@pytest.mark.parametrize("total", [2, 16, 0])
def test_a_coma_score_off_its_scale_is_implausible(total):
    reading = observation(f"{LOINC}|9269-2", valueInteger=total)
    assert consciousness(reading=reading) == (None, ("implausible:consciousness",))


def test_an_answer_nobody_mapped_is_not_alert_and_not_ignored():
    assert consciousness(reading=answered(ACVPU, f"{SCT}|271782001")) == (None, ("unmapped:consciousness",))
