"""For whom NEWS2 must not speak, and that it says why."""

from datetime import datetime, timedelta

import pytest

from sidecar.records import Outcome
from tests.unit.chart import AT, LOINC, SCT, answered, concept, judge, person, stay, vitals

PREGNANT = f"{SCT}|77386006"


def reason(who=None, where=None, *more, **how):
    a = judge([*vitals().values(), *more], who=who, where=where, **how).assessment
    assert (a.outcome is Outcome.SCORED) == (a.reasons == ())
    return a.reasons[0] if a.reasons else None


def condition(**more):
    return {
        "resourceType": "Condition",
        "id": "c1",
        "subject": {"reference": "Patient/p1"},
        "code": concept(PREGNANT),
        **more,
    }


def clinical(code):
    return concept(f"http://terminology.hl7.org/CodeSystem/condition-clinical|{code}")


def verification(code):
    return concept(f"http://terminology.hl7.org/CodeSystem/condition-ver-status|{code}")


@pytest.mark.parametrize(
    ("born", "expected"), [("2010-03-01", None), ("2010-03-02", "out_of_cohort:age"), ("2010-02-28", None)]
)
def test_the_sixteenth_birthday_is_the_first_day(born, expected):
    assert reason(person(birthDate=born)) == expected


@pytest.mark.parametrize(
    ("tz", "expected"),
    [("Pacific/Auckland", None), ("UTC", "out_of_cohort:age"), ("America/New_York", "out_of_cohort:age")],
)
def test_a_birthday_begins_in_the_zone_of_the_facility(tz, expected):
    assert AT.hour == 12
    assert reason(person(birthDate="2010-03-02"), tz=tz) == expected


def test_a_birthday_begins_at_local_midnight_after_a_daylight_saving_change():
    at = datetime.fromisoformat("2026-06-30T23:30:00+00:00")
    moved = {n: {**r, "effectiveDateTime": at.isoformat()} for n, r in vitals().items()}.values()
    born = person(birthDate="2010-07-01")
    assert judge(moved, who=born, at=at, tz="Europe/London").assessment.outcome is Outcome.SCORED
    assert judge(moved, who=born, at=at, tz="UTC").assessment.reasons == ("out_of_cohort:age",)


@pytest.mark.parametrize(
    ("born", "expected"),
    [
        ("2010", "imprecise:birth_date"),
        ("2010-03", "imprecise:birth_date"),
        ("2010-02", None),
        ("2009", None),
        ("2011", "out_of_cohort:age"),
        (None, "missing:birth_date"),
        ("2027-01-01", "missing:birth_date"),
        ("2010-02-30", "missing:birth_date"),
        ("9999", "missing:birth_date"),
        ("1 May 1950", "missing:birth_date"),
    ],
)
def test_a_birth_date_that_cannot_show_the_age_leaves_the_patient_unscored(born, expected):
    assert reason(person(birthDate=born)) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"deceasedBoolean": True}, "out_of_cohort:deceased"),
        ({"deceasedBoolean": False}, None),
        ({"deceasedDateTime": "2026-03-01T11:59:00Z"}, "out_of_cohort:deceased"),
        ({"deceasedDateTime": "2026-03-01T12:30:00Z"}, None),
        ({"deceasedDateTime": "2026-03-01"}, "out_of_cohort:deceased"),
        ({"deceasedDateTime": "2026"}, "out_of_cohort:deceased"),
        ({"deceasedDateTime": "2026-03-02"}, None),
        ({"deceasedDateTime": "soon"}, "out_of_cohort:deceased"),
        ({"active": False}, "out_of_cohort:inactive"),
        ({"active": True}, None),
        ({"link": [{"other": {"reference": "Patient/p2"}, "type": "replaced-by"}]}, "out_of_cohort:inactive"),
        ({"link": [{"other": {"reference": "Patient/p2"}, "type": "seealso"}]}, None),
        ({"link": [{"other": {"reference": "Patient/p2"}, "type": "replaces"}]}, None),
        ({"modifierExtension": [{"url": "urn:x"}]}, "modifier:patient"),
        ({"implicitRules": "urn:x"}, "modifier:patient"),
    ],
)
def test_the_dead_the_merged_and_the_not_understood_are_not_scored(state, expected):
    assert reason(person(**state)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "finished", "period": {"end": "2026-03-01T11:59:00Z"}}, "out_of_cohort:discharged"),
        ({"status": "finished", "period": {"end": "2026-03-01T12:01:00Z"}}, None),
        ({"status": "finished", "period": {}}, "out_of_cohort:discharged"),
        ({"status": "in-progress", "period": {"end": "2026-03-01T11:00:00Z"}}, "out_of_cohort:discharged"),
        ({"status": "cancelled"}, "out_of_cohort:discharged"),
        ({"status": "entered-in-error"}, "out_of_cohort:discharged"),
        ({"status": "onleave"}, None),
        ({"modifierExtension": [{"url": "urn:x"}]}, "modifier:encounter"),
    ],
)
def test_a_stay_that_had_ended_by_the_moment_is_not_scored(changes, expected):
    assert reason(None, stay(**changes)) == expected


def test_an_encounter_that_is_not_known_is_stated():
    a = judge(vitals().values(), where=stay(id="another")).assessment
    assert (a.outcome, "Encounter not stated." in a.vector.remarks) == (Outcome.SCORED, True)


@pytest.mark.parametrize("answer", [PREGNANT, f"{LOINC}|LA15173-0"])
def test_pregnancy_by_observation_is_out_of_cohort(answer):
    assert reason(None, None, answered(f"{LOINC}|82810-3", answer, timedelta(days=20))) == "out_of_cohort:pregnant"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"clinicalStatus": clinical("active")},
        {"clinicalStatus": clinical("recurrence"), "verificationStatus": verification("confirmed")},
        {"verificationStatus": verification("provisional"), "onsetDateTime": "2026-01-10"},
        {"onsetDateTime": "2026-01-10T08:00:00Z"},
        {"code": concept("http://snomed.info/sct|72892002")},
    ],
)
def test_pregnancy_by_an_active_condition_is_out_of_cohort(state):
    assert reason(None, None, condition(**state)) == "out_of_cohort:pregnant"


@pytest.mark.parametrize(
    "state",
    [
        {"clinicalStatus": clinical("resolved")},
        {"clinicalStatus": clinical("inactive")},
        {"verificationStatus": verification("refuted")},
        {"verificationStatus": verification("entered-in-error")},
        {"clinicalStatus": clinical("active"), "verificationStatus": verification("refuted")},
    ],
)
def test_a_pregnancy_that_is_over_or_never_was_is_scored_and_stated_as_unknown(state):
    a = judge([*vitals().values(), condition(**state)]).assessment
    assert (a.outcome, "Pregnancy status not known." in a.vector.remarks) == (Outcome.SCORED, True)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [answered(f"{LOINC}|82810-3", f"{LOINC}|LA4489-6")],
        [answered(f"{LOINC}|82810-3", PREGNANT, timedelta(days=281))],
    ],
    ids=["never asked", "answered unknown", "longer ago than a pregnancy"],
)
def test_an_unknown_pregnancy_is_stated_and_does_not_exclude(answers):
    a = judge([*vitals().values(), *answers]).assessment
    assert (a.outcome, "Pregnancy status not known." in a.vector.remarks) == (Outcome.SCORED, True)


def test_a_negative_answer_is_not_stated_as_unknown():
    a = judge([*vitals().values(), answered(f"{LOINC}|82810-3", f"{SCT}|60001007")]).assessment
    assert (a.outcome, "Pregnancy status not known." in a.vector.remarks) == (Outcome.SCORED, False)


def test_the_refused_patient_has_no_inputs_no_score_and_no_basis():
    conclusion = judge(vitals().values(), who=person(birthDate="2015-01-01"))
    a = conclusion.assessment
    assert (a.outcome, a.score, a.at_least, a.risk, a.vector.features) == (Outcome.NOT_SCORED, None, None, None, ())
    assert conclusion.evidence.basis == ()
