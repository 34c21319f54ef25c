"""The searches that context, catch-up and the write ladder make. https://hl7.org/fhir/R4/search.html"""

from datetime import timedelta

import pytest

from tests.contract.differences import expected
from tests.contract.fhir import LOINC, NO_CACHE, SYSTEM, instant, located

pytestmark = pytest.mark.timeout(300)

RATES, TEMPERATURES, OTHERS = f"{LOINC}|8867-4", f"{LOINC}|8310-5", f"{LOINC}|2708-6"


def coded(code):
    return {"coding": [{"system": LOINC, "code": code.partition("|")[2]}]}


@pytest.fixture
def chart(fhir):
    """A patient with six readings, one every ten minutes; and another patient with one."""
    patient, other = fhir.made(fhir.patient()), fhir.made(fhir.patient())
    readings = [
        fhir.made(fhir.observation(patient["id"], code=coded(code), effectiveDateTime=f"2026-11-01T10:{n}0:00+00:00"))
        for n, code in enumerate([RATES, TEMPERATURES, OTHERS] * 2)
    ]
    fhir.made(fhir.observation(other["id"], code=coded(RATES)))
    return patient["id"], readings


def test_what_was_written_is_found_at_once(fhir):
    for _ in range(5):
        patient = fhir.made(fhir.patient())
        reading = fhir.made(fhir.observation(patient["id"]))
        assert fhir.ids(f"Observation?patient={patient['id']}") == [reading["id"]]


def test_a_search_asked_again_shows_what_was_written_in_between(fhir):
    patient = fhir.made(fhir.patient())
    query = f"Observation?patient={patient['id']}"
    fhir.made(fhir.observation(patient["id"]))
    assert len(fhir.get(query).json()["entry"]) == 1
    fhir.made(fhir.observation(patient["id"]))
    # HAPI as it ships answers from memory without the header; the one here is told not to.
    assert len(fhir.get(query, **NO_CACHE).json()["entry"]) == 2


@pytest.mark.parametrize("form", ["{}", "Patient/{}"])
def test_by_patient(fhir, chart, form):
    patient, readings = chart
    assert sorted(fhir.ids(f"Observation?patient={form.format(patient)}")) == sorted(r["id"] for r in readings)


def test_by_a_list_of_codes_of_one_patient(fhir, chart):
    patient, readings = chart
    found = fhir.ids(f"Observation?patient={patient}&code={RATES},{TEMPERATURES}")
    assert sorted(found) == sorted(readings[n]["id"] for n in (0, 1, 3, 4))
    assert fhir.ids(f"Observation?patient={patient}&code=urn:other|8867-4") == []


def test_by_a_span_of_time_in_any_zone_newest_first(fhir, chart):
    patient, readings = chart
    span = "date=ge2026-11-01T11:10:00%2B01:00&date=le2026-11-01T05:40:00-05:00"
    found = fhir.ids(f"Observation?patient={patient}&{span}&_sort=-date")
    assert found == [readings[n]["id"] for n in (4, 3, 2, 1)]


def test_by_a_list_of_ids(fhir, chart):
    _, readings = chart
    wanted = [readings[n]["id"] for n in (5, 0, 3)]
    assert sorted(fhir.ids(f"Observation?_id={','.join(wanted)},not-there&_count=32")) == sorted(wanted)


def test_by_identifier_with_its_system(fhir):
    device = fhir.made(fhir.device(fhir.key))
    assert fhir.ids(f"Device?identifier={SYSTEM}|{fhir.key}") == [device["id"]]
    assert fhir.ids(f"Device?identifier=urn:other|{fhir.key}") == []
    patient = fhir.made(fhir.patient())
    reading = fhir.made(fhir.observation(patient["id"], identifier=[{"system": SYSTEM, "value": fhir.key}]))
    assert fhir.ids(f"Observation?identifier={SYSTEM}|{fhir.key}") == [reading["id"]]


def test_a_risk_assessment_by_identifier_and_by_patient(fhir):
    patient = fhir.made(fhir.patient())
    mine = fhir.made(fhir.risk(patient["id"], fhir.key))
    fhir.made(fhir.risk(patient["id"], f"{fhir.key}-other"))

    by_identifier = fhir.ids(f"RiskAssessment?identifier={SYSTEM}|{fhir.key}") == [mine["id"]]
    assert by_identifier == expected(fhir.server.name, "a RiskAssessment is found by identifier")
    by_patient = len(fhir.ids(f"RiskAssessment?patient={patient['id']}")) == 2
    assert by_patient == expected(fhir.server.name, "a RiskAssessment is found by patient")


def test_an_encounter_by_patient_and_status_latest_first(fhir):
    patient = fhir.made(fhir.patient())
    stays = [
        fhir.made(
            {
                "resourceType": "Encounter",
                "status": status,
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": {"reference": f"Patient/{patient['id']}"},
                "period": {"start": f"2026-11-0{day}T08:00:00+00:00"},
            }
        )
        for day, status in enumerate(["finished", "in-progress", "arrived"], 1)
    ]
    assert fhir.ids(f"Encounter?patient={patient['id']}&_sort=-date&_count=20") == [s["id"] for s in stays[::-1]]
    open_ones = fhir.ids(f"Encounter?patient={patient['id']}&status=arrived,triaged,in-progress,onleave")
    assert sorted(open_ones) == sorted(s["id"] for s in stays[1:])


def test_a_condition_by_patient_and_code(fhir):
    patient = fhir.made(fhir.patient())
    condition = fhir.made(
        {
            "resourceType": "Condition",
            "subject": {"reference": f"Patient/{patient['id']}"},
            "code": {"coding": [{"system": "http://snomed.info/sct", "code": "77386006"}]},
        }
    )
    found = fhir.ids(f"Condition?patient={patient['id']}&code=http://snomed.info/sct|77386006,http://snomed.info/sct|1")
    assert found == [condition["id"]]


def test_what_changed_since_a_moment_in_the_order_of_its_change(fhir, chart):
    patient, readings = chart
    since = instant(readings[2]["meta"]["lastUpdated"]).astimezone()
    query = f"Observation?patient={patient}&_lastUpdated=ge{since.isoformat(timespec='milliseconds')}".replace(
        "+", "%2B"
    )
    later = [r["id"] for r in readings if instant(r["meta"]["lastUpdated"]) >= since]
    assert fhir.ids(f"{query}&_sort=_lastUpdated&_count=200") == later
    newest = fhir.found(f"Observation?patient={patient}&_sort=-_lastUpdated&_count=1")[0]
    assert newest["id"] == readings[-1]["id"]

    changed = fhir.updated(readings[0] | {"status": "amended"})
    assert fhir.ids(f"{query}&_sort=_lastUpdated")[-1] == changed["id"]
    ahead = (instant(changed["meta"]["lastUpdated"]) + timedelta(hours=1)).isoformat().replace("+", "%2B")
    assert fhir.ids(f"Observation?patient={patient}&_lastUpdated=ge{ahead}") == []


def test_pages_show_each_match_once_while_others_are_written(fhir, chart):
    patient, readings = chart
    url, seen = f"{fhir.base_url}/Observation?patient={patient}&_sort=_lastUpdated&_count=2", []
    while url:
        bundle = fhir.http.get(url, headers=NO_CACHE).json()
        seen.append([e["resource"]["id"] for e in bundle["entry"]])
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
        fhir.made(fhir.observation(fhir.made(fhir.patient())["id"]))
    assert [len(page) for page in seen] == [2, 2, 2]
    assert [each for page in seen for each in page] == [r["id"] for r in readings]


def test_an_empty_result_is_a_searchset_without_entries(fhir):
    answer = fhir.get("Patient?_id=not-there")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].partition(";")[0] == "application/fhir+json"
    assert answer.json()["type"] == "searchset"
    assert not answer.json().get("entry")


@pytest.mark.parametrize("strictly", [False, True])
def test_a_parameter_that_it_does_not_know(fhir, strictly):
    patient = fhir.made(fhir.patient())
    answer = fhir.get(f"Patient?_id={patient['id']}&no-such=1", **({"Prefer": "handling=strict"} if strictly else {}))
    matches = [e for e in answer.json().get("entry", []) if e["resource"]["resourceType"] == "Patient"]
    seen = "refused" if answer.status_code == 400 else "ignored" if matches else "finds nothing"
    assert seen == expected(fhir.server.name, f"an unknown parameter{', strictly' if strictly else ''}")


def test_the_identifier_in_a_search_may_hold_any_character(fhir):
    odd = f"{fhir.key} ä+&=%"
    answer = fhir.send("POST", "Device", fhir.device(odd))
    found = fhir.ids(f"Device?identifier={SYSTEM}%7C{fhir.key}%20%C3%A4%2B%26%3D%25")
    assert found == [located(answer)]


def test_a_search_brings_the_patient_along_exactly_where_metadata_says_so(fhir, chart):
    patient, _ = chart
    resources = fhir.get("metadata").json()["rest"][0]["resource"]
    said = next(r for r in resources if r["type"] == "Observation").get("searchInclude", [])
    asked = sorted({"Observation:patient", "Observation:subject"} & set(said))
    assert bool(asked) == expected(fhir.server.name, "a search of Observations may bring the Patient along")
    for include in asked:
        entries = fhir.get(f"Observation?patient={patient}&code={RATES}&_include={include}").json()["entry"]
        came = [e["resource"] for e in entries if e["resource"]["resourceType"] == "Patient"]
        assert [r["id"] for r in came] == [patient]
        assert came[0]["meta"]["versionId"] == fhir.get(f"Patient/{patient}").json()["meta"]["versionId"]
