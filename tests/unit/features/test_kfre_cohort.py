"""For whom the kidney failure risk must not speak, that it says why, and that unreadable is not absent."""

from datetime import datetime, timedelta

import pytest

from sidecar.explanation import reason_in_words
from sidecar.pipeline import conclude
from sidecar.records import Outcome, PatientSnapshot
from tests.unit.chart import AT, SCT, concept, rules
from tests.unit.kidney import CKD, ICD, acr, chronic, condition, creatinine, egfr, judge, judge_ckd, kfre, running, who

CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFIED = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
DAY = timedelta(days=1)


def reason(*chart, **how):
    a = judge_ckd(egfr(), acr(), *chart, **how).assessment
    assert (a.outcome is Outcome.SCORED) == (a.reasons == ())
    return a.reasons[0] if a.reasons else None


@pytest.mark.parametrize(
    ("rate", "expected"), [(9.9, "out_of_cohort:egfr"), (10, None), (59, None), (59.9, None), (60, "out_of_cohort:egfr")]
)  # fmt: skip
def test_the_filtration_rate_must_be_from_10_to_below_60(rate, expected):
    a = judge_ckd(egfr(rate), acr()).assessment
    assert (a.reasons or (None,))[0] == expected


@pytest.mark.parametrize(("born", "expected"), [("2008-03-01", None), ("2008-03-02", "out_of_cohort:age")])
def test_the_eighteenth_birthday_is_the_first_day(born, expected):
    assert reason(patient=who(birthDate=born)) == expected


REFUSED = {
    f"{SCT}|105502003": "dialysis", f"{SCT}|46177005": "dialysis", f"{SCT}|714152005": "dialysis", f"{ICD}|Z99.2": "dialysis",
    f"{ICD}|N18.6": "dialysis", f"{ICD}|Z49.31": "dialysis", "http://hl7.org/fhir/sid/icd-10|Z49.1": "dialysis",
    f"{SCT}|737295003": "transplant", f"{SCT}|161665007": "transplant", f"{ICD}|Z94.0": "transplant", f"{ICD}|T86.11": "transplant",
    "http://hl7.org/fhir/sid/icd-10|T86.1": "transplant", f"{SCT}|14669001": "acute_kidney_injury", f"{ICD}|N17.9": "acute_kidney_injury",
    "http://hl7.org/fhir/sid/icd-10|N17.0": "acute_kidney_injury",
}  # fmt: skip


@pytest.mark.parametrize("code", REFUSED)
@pytest.mark.parametrize("since", [None, "1999", "2026-02-28"])
def test_dialysis_transplant_and_acute_injury_are_refused_however_long_ago_they_began(code, since):
    assert reason(condition(code, since)) == f"out_of_cohort:{REFUSED[code]}"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"clinicalStatus": concept(f"{CLINICAL}|active")}, "out_of_cohort:acute_kidney_injury"),
        ({"clinicalStatus": concept(f"{CLINICAL}|recurrence")}, "out_of_cohort:acute_kidney_injury"),
        ({"clinicalStatus": concept(f"{CLINICAL}|resolved")}, None),
        ({"clinicalStatus": concept(f"{CLINICAL}|inactive")}, None),
        ({"verificationStatus": concept(f"{VERIFIED}|refuted")}, None),
        ({"verificationStatus": concept(f"{VERIFIED}|provisional")}, "out_of_cohort:acute_kidney_injury"),
        ({"clinicalStatus": concept("urn:x|gone")}, "status:acute_kidney_injury"),
        ({"modifierExtension": [{"url": "urn:x"}]}, "modifier:acute_kidney_injury"),
    ],
)
def test_a_condition_counts_while_it_is_active_and_one_that_cannot_be_read_refuses_too(state, expected):
    assert reason(condition(f"{SCT}|14669001", **state)) == expected


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (AT - 91 * DAY, None),
        (AT - 89 * DAY, "out_of_cohort:ckd_duration"),
        ("2024", None),
        ("2025-11", None),
        ("2025", "out_of_cohort:ckd_duration"),
        ("2025-11-29", None),
        ("2025-12-02", "out_of_cohort:ckd_duration"),
        ("2025-12", "out_of_cohort:ckd_duration"),
        ("2026", "out_of_cohort:ckd_duration"),
        (None, "out_of_cohort:ckd_duration"),
    ],
)
@pytest.mark.parametrize("element", ["onsetDateTime", "recordedDate", "onsetPeriod"])
def test_a_coded_diagnosis_shows_three_months_by_the_latest_day_its_date_may_mean(since, expected, element):
    text = since.isoformat() if isinstance(since, datetime) else since
    known = {element: {"start": text} if element == "onsetPeriod" else text} if text else {}
    a = judge(egfr(), acr(), condition(CKD, **known)).assessment
    assert (a.reasons or (None,))[0] == expected


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        (egfr(50, 90 * DAY), None),
        (egfr(50, 89 * DAY), "out_of_cohort:ckd_duration"),
        (egfr(65, 200 * DAY), "out_of_cohort:ckd_duration"),
        (creatinine(2, ago=120 * DAY), None),
        (creatinine(180, "umol/L", 120 * DAY), None),
        (creatinine(0.9, ago=120 * DAY), "out_of_cohort:ckd_duration"),
        (egfr(50, 1200 * DAY), "out_of_cohort:ckd_duration"),
        (egfr(50, 120 * DAY, status="entered-in-error"), "out_of_cohort:ckd_duration"),
    ],
)
def test_two_values_below_60_at_least_90_days_apart_show_three_months(earlier, expected):
    a = judge(egfr(), acr(), earlier).assessment
    assert (a.reasons or (None,))[0] == expected


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ([egfr(95, 500 * DAY), egfr(98, 300 * DAY), egfr(92, 100 * DAY)], "out_of_cohort:ckd_duration"),
        ([egfr(92, 30 * DAY)], "out_of_cohort:ckd_duration"),
        ([creatinine(0.8, ago=30 * DAY)], "out_of_cohort:ckd_duration"),
        ([creatinine(2.0, "mg/L", ago=30 * DAY)], "out_of_cohort:ckd_duration"),
        ([{**egfr(92, 30 * DAY), "status": "entered-in-error"}], None),
        ([egfr(45, 30 * DAY), creatinine(0.8, ago=30 * DAY)], None),
        ([egfr(92, 400 * DAY), egfr(45, 200 * DAY), egfr(44, 95 * DAY)], None),
        ([egfr(45, 30 * DAY), egfr(50, 100 * DAY)], None),
    ],
)
def test_a_normal_or_unreadable_value_in_between_breaks_the_three_months(between, expected):
    a = judge(egfr(40, 700 * DAY), *between, egfr(40), acr()).assessment
    assert (a.reasons or (None,))[0] == expected


@pytest.mark.parametrize("state", ["confirmed", None, "provisional", "differential", "unconfirmed"])
def test_only_a_diagnosis_that_is_confirmed_or_says_nothing_of_it_shows_three_months(state):
    known = {"verificationStatus": concept(f"{VERIFIED}|{state}")} if state else {}
    a = judge(egfr(), acr(), condition(CKD, "2024-05-01", **known)).assessment
    assert a.reasons == (() if state in {"confirmed", None} else ("out_of_cohort:ckd_duration",))


@pytest.mark.parametrize("state", ["provisional", "differential", "unconfirmed"])
def test_a_suspicion_of_what_excludes_excludes(state):
    suspected = condition(f"{SCT}|105502003", verificationStatus=concept(f"{VERIFIED}|{state}"))
    assert reason(suspected) == "out_of_cohort:dialysis"


ACTIVE = {"clinicalStatus": concept(f"{CLINICAL}|active")}


@pytest.mark.parametrize(
    ("end", "of_dialysis", "shows_chronic"),
    [
        ({"abatementDateTime": "2026-02-28T10:00:00Z"}, None, False),
        ({"abatementDateTime": "2026-02"}, None, False),
        ({"abatementPeriod": {"start": "2025-01-01", "end": "2025-02-01"}}, None, False),
        ({"abatementDateTime": "2026-04-01"}, "out_of_cohort:dialysis", True),
        ({"abatementDateTime": "2026"}, "status:dialysis", False),
        ({"abatementString": "some years ago"}, "status:dialysis", False),
        ({"abatementAge": {"value": 50, "code": "a"}}, "status:dialysis", False),
        ({"abatementDateTime": "2025-01-01", **ACTIVE}, "status:dialysis", False),
        ({"abatementDateTime": "2025-01-01", "clinicalStatus": concept(f"{CLINICAL}|resolved")}, None, False),
        ({"abatementDateTime": "2027-01-01", **ACTIVE}, "out_of_cohort:dialysis", True),
    ],
)
def test_a_condition_that_ended_is_over_and_one_whose_end_is_unclear_neither_proves_nor_is_ignored(
    end, of_dialysis, shows_chronic
):
    assert reason(condition(f"{SCT}|105502003", "2024-01-01", **end)) == of_dialysis
    assert (judge(egfr(), acr(), condition(CKD, "2024-01-01", **end)).assessment.reasons == ()) == shows_chronic


@pytest.mark.parametrize(
    ("begins", "expected"),
    [
        ((AT + 730 * DAY).isoformat(), None),
        ((AT + 730 * DAY).date().isoformat(), None),
        ("2026-03-02", None),
        ("2026-04", None),
        ("2027", None),
        ((AT + timedelta(minutes=1)).isoformat(), None),
        ("2026-03-01", "out_of_cohort:dialysis"),
        ("2026", "out_of_cohort:dialysis"),
        ((AT - timedelta(minutes=1)).isoformat(), "out_of_cohort:dialysis"),
    ],
)
@pytest.mark.parametrize("element", ["onsetDateTime", "onsetPeriod", "recordedDate"])
def test_a_file_judged_as_of_a_moment_does_not_see_conditions_that_begin_later(begins, expected, element):
    known = {element: {"start": begins} if element == "onsetPeriod" else begins}
    assert reason(condition(f"{SCT}|105502003", **known)) == expected


def test_the_day_on_which_a_condition_begins_is_the_facilitys():
    tomorrow = condition(f"{SCT}|105502003", "2026-03-02")
    assert reason(tomorrow, tz="Pacific/Auckland") == "out_of_cohort:dialysis"
    assert reason(tomorrow, tz="Europe/London") is None


@pytest.mark.parametrize(
    ("begins", "expected"),
    [
        (AT + timedelta(minutes=4), "out_of_cohort:dialysis"),
        (AT + timedelta(minutes=30), "future:dialysis"),
        (AT + 30 * DAY, None),
        ((AT + 30 * DAY).date(), None),
    ],
)
def test_in_a_chart_a_condition_that_begins_soon_excludes_and_one_that_is_planned_does_not(begins, expected):
    chart = (who(), egfr(), acr(), chronic(), condition(f"{SCT}|105502003", begins.isoformat()))
    conclusion = conclude(PatientSnapshot(chart[0], None, chart[1:], AT), running(), rules())
    assert (conclusion.assessment.reasons or (None,))[0] == expected


def test_what_is_missing_is_said_before_what_is_not_shown():
    assert judge(egfr()).assessment.reasons == ("missing:uacr",)


@pytest.mark.parametrize("code", [f"{ICD}|N18.32", f"{ICD}|N18.4", f"{SCT}|433144002", f"{SCT}|431857002"])
def test_a_stage_is_a_diagnosis_too(code):
    assert judge(egfr(), acr(), condition(code, "2024-05-01")).assessment.outcome is Outcome.SCORED


def test_someone_who_is_in_hospital_or_was_discharged_is_scored_all_the_same_and_no_stay_is_named():
    conclusion = judge_ckd(egfr(), acr())
    assert (conclusion.assessment.outcome, conclusion.evidence.encounter) == (Outcome.SCORED, None)
    assert not any("Encounter" in remark for remark in conclusion.assessment.vector.remarks)


@pytest.mark.parametrize("state", [{"deceasedBoolean": True}, {"active": False}])
def test_the_dead_and_inactive_are_refused(state):
    assert reason(patient=who(**state)).startswith("out_of_cohort:")


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("out_of_cohort:egfr", "eGFR outside the range this equation was made for"),
        ("out_of_cohort:ckd_duration", "chronic kidney disease of at least 3 months is not shown in the chart"),
        ("out_of_cohort:dialysis", "on dialysis, or end-stage kidney disease recorded"),
        ("out_of_cohort:transplant", "kidney transplant recorded"),
        ("out_of_cohort:acute_kidney_injury", "acute kidney injury recorded as active"),
        ("unit:creatinine", "serum creatinine charted in a unit that cannot be read safely"),
        ("missing:sex", "sex not recorded as male or female, which this equation needs"),
        ("status:dialysis", "dialysis or end-stage kidney disease has an unknown status"),
        ("imprecise:birth_date", "birth date too imprecise to tell the age"),
    ],
)
def test_every_refusal_is_said_in_words(stored, words):
    assert reason_in_words(stored, kfre().manifest) == words
