"""The codes by which the shipped equations know what they need: each of them, in the units that charts use."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.scoring import load_model
from tests.unit.chart import REPO, SCT, concept, judge_set, measured, person
from tests.unit.equations import loaded
from tests.unit.language import ICD, ago, all_told, diagnosis, procedure, visit

WHO = "http://hl7.org/fhir/sid/icd-10"
PCS, CPT = "http://www.cms.gov/Medicare/Coding/ICD10", "http://www.ama-assn.org/go/cpt"
NEWS2, SEPSIS = (load_model(REPO / "models" / name / "1.0.0").manifest for name in ("news2", "sepsis_hourly"))
TEMPERATURES = ["8310-5", "8331-1", "8332-5", "8328-7", "8333-3", "75539-7", "8329-5"]
ADULT = person(gender="male", birthDate="1960-05-05")


def told(name, *charted):
    return all_told(loaded(name).manifest, *charted, who=ADULT)


@pytest.mark.parametrize("code", ["2708-6", "59408-5", "20564-1"])
def test_saturation_is_read_by_the_pulse_oximeter_and_out_of_the_artery(code):
    assert all_told(NEWS2, measured(code, 91, "%"))["spo2"].value == 91
    assert all_told(SEPSIS, measured(code, 91, "%"))["spo2"].value == 91


@pytest.mark.parametrize("code", TEMPERATURES)
def test_temperature_is_read_wherever_it_was_taken(code):
    assert all_told(NEWS2, measured(code, 39.3, "Cel"))["temperature"].value == 39.3
    found = all_told(SEPSIS, measured(code, 39.3, "Cel"))
    assert {found[n].value for n in ("temperature", "temperature_mean_8h", "temperature_max_24h")} == {39.3}


@pytest.mark.parametrize(
    "code",
    [f"{ICD}|O09.91", f"{ICD}|O14.12", f"{WHO}|O26.8", f"{ICD}|O99.81", f"{ICD}|O9A.211", f"{ICD}|Z33.1", f"{WHO}|Z34.0"],
)  # fmt: skip
def test_nobody_with_an_active_diagnosis_of_pregnancy_gets_an_early_warning_score(code):
    assert all_told(NEWS2, diagnosis(code))["pregnant"].value == 1


@pytest.mark.parametrize("code", [f"{ICD}|O94", f"{ICD}|Z39.2", f"{ICD}|Z3", f"{ICD}|N92.6"])
def test_what_is_no_pregnancy_silences_nobody(code):
    assert all_told(NEWS2, diagnosis(code))["pregnant"].reason is not None
    assert judge_set().assessment.score == 0


@pytest.mark.parametrize("code", ["2160-0", "38483-4", "14682-9"])
@pytest.mark.parametrize(("amount", "unit"), [(2, "mg/dL"), (176.8, "umol/L"), (0.1768, "mmol/L")])
def test_creatinine_becomes_a_filtration_rate_by_its_unit_whatever_its_code_is(code, amount, unit):
    wanted = told("aha_prevent", measured("2160-0", 2, "mg/dL"))["egfr"].value
    assert told("aha_prevent", measured(code, amount, unit))["egfr"].value == pytest.approx(wanted, rel=1e-9)


def test_heart_failure_that_scores_in_one_equation_is_known_disease_in_the_other():
    sets = [loaded(n).manifest.features[f].sources[0].valuesets for n, f in HEARTS]
    assert sets == [("heart_failure",), ("heart_failure",)]
    codes = loaded("cha2ds2_vasc").manifest.features["congestive_heart_failure"].sources[0].codes
    for code in (c.replace("*", ".9") for c in codes):
        found = told("aha_prevent", diagnosis(code))
        assert (code, found["known_cvd"].value) == (code, 1)


HEARTS = (("cha2ds2_vasc", "congestive_heart_failure"), ("aha_prevent", "known_cvd"))


@pytest.mark.parametrize(
    "code",
    [
        f"{SCT}|703272007", f"{SCT}|85232009", f"{SCT}|56675007", f"{SCT}|429559004", f"{ICD}|Z98.61", f"{WHO}|Z95.1",
        f"{WHO}|Z95.5", f"{ICD}|I61.9", f"{SCT}|275526006", f"{SCT}|400047006",
    ],
)  # fmt: skip
def test_a_first_event_is_not_predicted_for_who_has_had_one(code):
    assert told("aha_prevent", diagnosis(code))["known_cvd"].value == 1


@pytest.mark.parametrize("code", [f"{ICD}|Z95.2", f"{ICD}|Z95.3", f"{WHO}|Z95.4", f"{SCT}|1231000119100"])
def test_an_artificial_valve_is_known_by_its_diagnosis(code):
    assert told("cha2ds2_vasc", diagnosis(code))["valvular"].value == 1


@pytest.mark.parametrize("code", ["34068001", "26212005", "53059001"])
def test_an_artificial_valve_is_known_by_its_operation_however_long_ago(code):
    assert told("cha2ds2_vasc", procedure(f"{SCT}|{code}", "2004-03-03"))["valvular"].value == 1


def test_a_transplanted_liver_is_known_by_diagnosis_and_by_operation():
    for charted in (
        diagnosis(f"{SCT}|737297006"),
        diagnosis(f"{ICD}|Z94.4"),
        procedure(f"{SCT}|18027006", "2019-03-03"),
        procedure(f"{PCS}|0FY00Z0", "2019-03-03"),
        procedure(f"{CPT}|47135", "2019-03-03"),
    ):
        assert (charted["code"], told("meld_3", charted)["transplanted"].value) == (charted["code"], 1)


@pytest.mark.parametrize(
    ("code", "sessions"),
    [
        (f"{PCS}|5A1D70Z", 1), (f"{PCS}|5A1D90Z", 2), ("http://hl7.org/fhir/sid/icd-10-pcs|5A1D80Z", 1), (f"{PCS}|5A1D60Z", 2),
        (f"{CPT}|90935", 1), (f"{CPT}|90937", 1), (f"{CPT}|90945", 1), (f"{CPT}|90947", 1), (f"{CPT}|90999", 1),
    ],
)  # fmt: skip
def test_dialysis_is_counted_by_the_codes_of_operations_and_of_bills(code, sessions):
    found = told("meld_3", procedure(code, ago(days=2)), procedure(code, ago(days=9), "old"))
    assert found["dialysis"].value == sessions
    assert told("meld_3", diagnosis(f"{SCT}|714152005"))["dialysis"].value == 2


def test_the_note_says_what_absence_of_a_code_means():
    assert "what is not coded counts as absent" in loaded("meld_3").manifest.acknowledgement


@pytest.mark.parametrize("code", ["714152005", "737295003"])
def test_dialysis_and_a_transplanted_kidney_weigh_as_severe_kidney_disease(code):
    assert told("lace", diagnosis(f"{SCT}|{code}"))["comorbidity"].value == 4


@pytest.mark.parametrize(
    ("name", "feature"), [("hospital_score", "oncology_service"), ("hospital_simplified", "cancer")]
)
def test_a_visit_to_oncology_inside_the_stay_does_not_make_it_a_stay_there(name, feature):
    oncology = {"serviceType": concept(f"{SCT}|394593009")}
    began, left = ago(days=9), ago(days=1)
    seen = visit("e2", ago(days=4), ago(days=3), kind="AMB", **oncology)
    assert told(name, visit("e1", began, left), seen)[feature].value != 1
    assert told(name, visit("e1", began, left, **oncology), seen)[feature].value == 1


def test_the_latest_creatinine_decides_about_the_kidneys_and_a_diagnosis_does_beside_it():
    high, low = (
        (measured("2160-0", 3.1, "mg/dL", timedelta(days=n)) for n in (90, 10)),
        measured("2160-0", 1.0, "mg/dL"),
    )
    recovered = told("has_bled", *high, low)["renal"]
    assert (recovered.value, recovered.reason) == (0, None)
    assert told("has_bled", low, diagnosis(f"{ICD}|Z99.2"))["renal"].value == 1
    before = measured("2160-0", 1.0, "mg/dL", timedelta(days=90))
    assert told("has_bled", before, measured("14682-9", 280, "umol/L"))["renal"].value == 1
    unread = measured("2160-0", 1.0, "furlong")
    assert (
        told("has_bled", measured("2160-0", 3.1, "mg/dL", timedelta(days=90)), unread)["renal"].reason == "unit:renal"
    )


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0.5, 6)), min_size=1, max_size=6, unique_by=lambda p: p[0]))
def test_what_an_older_creatinine_was_changes_nothing(series):
    (newest, value), *older = sorted(series)
    charted = [measured("2160-0", v, "mg/dL", timedelta(days=n)) for n, v in older]
    last = measured("2160-0", value, "mg/dL", timedelta(days=newest))
    alone, among = told("has_bled", last)["renal"], told("has_bled", *charted, last)["renal"]
    assert (alone.reason, alone.value if alone.reason is None else None) == (
        among.reason,
        among.value if among.reason is None else None,
    )
