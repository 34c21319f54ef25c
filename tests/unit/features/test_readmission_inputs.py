"""The inputs of readmission_30d, as a chart holds them when a stay has ended."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.explanation import limits_that_act
from sidecar.records import FeatureVector
from sidecar.scoring import load_model
from tests.unit.chart import concept
from tests.unit.language import ATC, ICD, all_told, clinically, diagnosis, order, visit

MODEL = Path(__file__).parents[3] / "models" / "readmission_30d" / "1.0.0"
HL7 = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
CLAIM = "https://www.nubc.org/CodeSystem/PatDischargeStatus"
BEGAN, LEFT = "2026-02-20T08:00:00Z", "2026-02-25T10:00:00Z"
HERE = {"encounter": {"reference": "Encounter/e1"}, "recordedDate": "2026-02-21T09:00:00Z"}


def stay(disposition: str | None = f"{HL7}|home"):
    more = {"hospitalization": {"dischargeDisposition": concept(disposition)}} if disposition else {}
    return visit("e1", BEGAN, LEFT, **more)


def told(*charted):
    return all_told(load_model(MODEL).manifest, *charted)


def test_a_discharge_gives_every_input():
    earlier = [
        visit("e2", "2025-09-01T08:00:00Z", "2025-09-04T08:00:00Z"),
        visit("e3", "2025-12-01T08:00:00Z", "2025-12-01T12:00:00Z", kind="EMER"),
    ]
    heart = diagnosis(f"{ICD}|I50.9", key="c1", **HERE)
    insulin = order(f"{ATC}|A10AB05", encounter=HERE["encounter"], authoredOn="2026-02-21T09:00:00Z")
    found = told(stay(), *earlier, heart, insulin, diagnosis(f"{ICD}|E11.9", key="c2", recordedDate="2019-01-01"))
    said = {n: f.value for n, f in found.items()}
    wanted = {
        "length_of_stay": 5,
        "prior_admissions": 1,
        "ed_visits": 1,
        "discharge_to": 0,
        "diabetes_medicine": 1,
        "heart_failure": 1,
        "pneumonia": 0,
        "diabetes": 1,
        "died_or_hospice": 0,
    }
    assert {n: said[n] for n in wanted} == wanted
    model = load_model(MODEL)
    row = FeatureVector(tuple(found[n] for n in model.manifest.graph.features))
    score = model.score(row)
    assert 0 < score.probabilities["thirty_days"] < 1
    assert math.fsum(score.points.values()) == pytest.approx(score.total, abs=1e-12)


@pytest.mark.parametrize(
    ("charted", "place"),
    [
        (f"{HL7}|home", 0),
        (f"{CLAIM}|06", 1),
        (f"{HL7}|snf", 2),
        (f"{CLAIM}|62", 3),
        (f"{HL7}|psy", 4),
        (f"{CLAIM}|02", 5),
        (f"{HL7}|aadvice", 6),
        (f"{HL7}|oth", 7),
    ],
)
def test_where_the_patient_went_is_read_by_hl7s_codes_and_by_those_of_claims(charted, place):
    assert told(stay(charted))["discharge_to"].value == place


def test_before_it_is_charted_where_the_patient_goes_there_is_no_score():
    assert told(stay(None))["discharge_to"].reason == "missing:discharge_to"


@pytest.mark.parametrize("charted", [f"{HL7}|exp", f"{HL7}|hosp", f"{CLAIM}|20", f"{CLAIM}|50"])
def test_a_stay_that_ended_in_death_or_hospice_is_told_apart(charted):
    assert told(stay(charted))["died_or_hospice"].value == 1


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("2026-02-20T22:00:00Z", "counts as one day"),
        ("2026-02-21T08:00:00Z", None),
        ("2026-03-06T08:00:00Z", None),
        ("2026-03-07T08:00:00Z", "counts as 14"),
    ],
)
def test_the_note_says_when_a_stay_counts_as_a_shorter_or_a_longer_one(left, said):
    model = load_model(MODEL)
    ended = visit("e1", BEGAN, left, hospitalization={"dischargeDisposition": concept(f"{HL7}|home")})
    found = all_told(model.manifest, ended, at=datetime(2026, 3, 8, tzinfo=UTC))
    row = FeatureVector(tuple(found[n] for n in model.manifest.graph.features))
    remarks = limits_that_act(model.manifest, row)
    assert [said in r for r in remarks] == ([True] if said else [])


def test_another_visit_that_falls_into_the_stay_does_not_say_where_the_stay_ended():
    gone = {"hospitalization": {"dischargeDisposition": concept(f"{CLAIM}|41")}}
    dialysis = visit("e9", "2026-02-24T08:00:00Z", "2026-02-24T12:00:00Z", kind="AMB", **gone)
    found = told(stay(f"{HL7}|snf"), dialysis)
    assert (found["discharge_to"].value, found["died_or_hospice"].value) == (2, 0)
    home = {"hospitalization": {"dischargeDisposition": concept(f"{HL7}|home")}}
    found = told(stay(None), visit("e9", "2026-02-24T08:00:00Z", "2026-02-24T12:00:00Z", kind="AMB", **home))
    assert found["discharge_to"].reason == "missing:discharge_to"


def test_a_diagnosis_of_the_stay_that_resolved_during_it_is_one_of_the_stay():
    during = {"onsetDateTime": "2026-02-21", "abatementDateTime": "2026-02-24", "recordedDate": "2026-02-21T09:00:00Z"}
    assert told(stay(), diagnosis(f"{ICD}|J18.9", **during, **clinically("resolved")))["pneumonia"].value == 1


def test_what_was_over_before_the_stay_is_none_of_it_and_what_goes_on_is():
    over = diagnosis(f"{ICD}|J18.9", recordedDate="2025-06-01", onsetDateTime="2025-06-01", **clinically("resolved"))
    assert told(stay(), over)["pneumonia"].value == 0
    going_on = diagnosis(f"{ICD}|I50.9", recordedDate="2019-06-01", onsetDateTime="2019-06-01")
    assert told(stay(), going_on)["heart_failure"].value == 1
