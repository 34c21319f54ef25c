"""Create, read, update, delete: what the write ladder and the corrections rest on. https://hl7.org/fhir/R4/http.html"""

import json
from email.utils import parsedate_to_datetime

import pytest

from tests.contract.differences import expected
from tests.contract.fhir import instant, located

pytestmark = pytest.mark.timeout(300)


def is_outcome(answer):
    return answer.json()["resourceType"] == "OperationOutcome" and bool(answer.json()["issue"])


def test_a_create_says_where_the_resource_is_and_in_which_version(fhir):
    answer = fhir.send("POST", "Patient", fhir.patient())

    assert answer.status_code == 201
    assert answer.headers["Location"].startswith(f"{fhir.base_url}/Patient/")
    stored = fhir.read(f"Patient/{located(answer)}")
    assert stored["id"] == located(answer)
    assert answer.headers["ETag"] == f'W/"{stored["meta"]["versionId"]}"'
    versioned = "/_history/" in answer.headers["Location"]
    assert versioned == expected(fhir.server.name, "the version is in Location")


def test_a_create_gives_an_id_of_the_servers_own(fhir):
    answer = fhir.send("POST", "Patient", fhir.patient(id=f"mine-{fhir.key}"))
    kept = answer.status_code == 201 and located(answer) == f"mine-{fhir.key}"
    assert kept == expected(fhir.server.name, "the id of a created body is kept")


def test_a_read_brings_version_and_time_in_headers_and_in_the_resource(fhir):
    made = fhir.made(fhir.patient())
    answer = fhir.get(f"Patient/{made['id']}")

    assert answer.headers["Content-Type"].partition(";")[0] == "application/fhir+json"
    assert answer.headers["ETag"] == f'W/"{made["meta"]["versionId"]}"'
    updated = instant(made["meta"]["lastUpdated"])
    said = parsedate_to_datetime(answer.headers["Last-Modified"])
    assert abs((updated - said).total_seconds()) < 1.0


def test_a_write_may_be_answered_without_a_body(fhir):
    answer = fhir.send("POST", "Patient", fhir.patient(), Prefer="return=minimal")
    assert answer.status_code == 201
    assert located(answer)
    assert bool(answer.content.strip()) == expected(fhir.server.name, "return=minimal is answered with a body")


def test_an_update_makes_the_next_version_at_a_later_time(fhir):
    first = fhir.made(fhir.patient())
    second = fhir.updated(first | {"gender": "male"})

    assert second["gender"] == "male"
    assert second["meta"]["versionId"] != first["meta"]["versionId"]
    assert instant(second["meta"]["lastUpdated"]) >= instant(first["meta"]["lastUpdated"])
    numbers = [v["meta"]["versionId"] for v in (first, second)]
    counted = all(n.isdigit() for n in numbers) and int(numbers[0]) < int(numbers[1])
    assert counted == expected(fhir.server.name, "versions are growing numbers")


def test_every_version_can_be_read_again(fhir):
    first = fhir.made(fhir.patient())
    second = fhir.updated(first | {"gender": "male"})
    for version in (first, second):
        again = fhir.read(f"Patient/{first['id']}/_history/{version['meta']['versionId']}")
        assert (again["gender"], again["meta"]["versionId"]) == (version["gender"], version["meta"]["versionId"])
    missing = fhir.get(f"Patient/{first['id']}/_history/999999")
    assert missing.status_code == 404
    assert is_outcome(missing)


def test_if_match_takes_the_version_that_is_there_and_refuses_another(fhir):
    first = fhir.made(fhir.patient())
    second = fhir.updated(first | {"gender": "male"}, If_Match=f'W/"{first["meta"]["versionId"]}"')

    stale = fhir.send(
        "PUT", f"Patient/{first['id']}", first | {"gender": "other"}, If_Match=f'W/"{first["meta"]["versionId"]}"'
    )
    assert stale.status_code == expected(fhir.server.name, "a stale If-Match")
    assert is_outcome(stale)
    assert fhir.read(f"Patient/{first['id']}") == second


def test_an_update_that_changes_nothing(fhir):
    first = fhir.made(fhir.patient())
    second = fhir.updated(first)
    same = second["meta"]["versionId"] == first["meta"]["versionId"]
    assert same == expected(fhir.server.name, "an update that changes nothing makes no version")


def test_the_id_in_the_path_must_be_the_one_in_the_body(fhir):
    made = fhir.made(fhir.patient())
    answer = fhir.send("PUT", f"Patient/{made['id']}", made | {"id": "another"})
    assert answer.status_code == 400
    assert is_outcome(answer)


def test_what_was_deleted_is_gone_from_reads_and_searches(fhir):
    made = fhir.made(fhir.patient())
    assert fhir.send("DELETE", f"Patient/{made['id']}").status_code in {200, 204}

    answer = fhir.get(f"Patient/{made['id']}")
    assert answer.status_code == expected(fhir.server.name, "a read of what was deleted")
    assert is_outcome(answer)
    assert fhir.ids(f"Patient?_id={made['id']}") == []


@pytest.mark.parametrize("path", ["Patient/not-there", "NoSuchType/1", "NoSuchType"])
def test_what_is_not_there_is_404_with_an_operation_outcome(fhir, path):
    answer = fhir.get(path)
    assert answer.status_code == 404
    assert is_outcome(answer)


@pytest.mark.parametrize("body", ["{", '{"resourceType":"Encounter"}', '{"resourceType":"Patient","gender":7}'])
def test_a_body_that_is_no_such_resource_is_refused_with_an_operation_outcome(fhir, body):
    answer = fhir.send("POST", "Patient", body)
    assert answer.status_code in {400, 422}
    assert is_outcome(answer)


def test_an_element_that_r4_does_not_have(fhir):
    status = fhir.send("POST", "Patient", fhir.patient(notInR4=True)).status_code
    assert status == expected(fhir.server.name, "an element that R4 does not have")


@pytest.mark.parametrize(
    "content_type", ["application/fhir+json", "application/json", "application/fhir+json; charset=utf-8"]
)
def test_json_is_taken_under_each_of_its_names(fhir, content_type):
    assert fhir.send("POST", "Patient", fhir.patient(), Content_Type=content_type).status_code == 201


@pytest.mark.parametrize("value", ["36.6", "37.10", "0.000001", "1234567.89"])
def test_a_decimal_keeps_its_value_and_perhaps_its_precision(fhir, value):
    patient = fhir.made(fhir.patient())
    body = json.dumps(fhir.observation(patient["id"])).replace('"value": 70', f'"value": {value}')
    answer = fhir.send("POST", "Observation", body)
    stored = fhir.get(f"Observation/{located(answer)}").text

    assert json.loads(stored)["valueQuantity"]["value"] == float(value)
    if value == "37.10":
        shown = json.loads(stored, parse_float=str)["valueQuantity"]["value"]
        assert shown == expected(fhir.server.name, "37.10 is read as")


def test_references_stay_relative(fhir):
    patient = fhir.made(fhir.patient())
    first = fhir.made(fhir.observation(patient["id"]))
    versioned = f"Observation/{first['id']}/_history/{first['meta']['versionId']}"
    second = fhir.made(fhir.observation(patient["id"], derivedFrom=[{"reference": versioned}]))

    assert second["subject"]["reference"] == f"Patient/{patient['id']}"
    kept = second["derivedFrom"][0]["reference"] == versioned
    assert kept == expected(fhir.server.name, "a reference keeps its version")
    assert second["derivedFrom"][0]["reference"].startswith(f"Observation/{first['id']}")


def test_times_keep_their_moment(fhir):
    patient = fhir.made(fhir.patient())
    stored = fhir.made(fhir.observation(patient["id"], effectiveDateTime="2026-03-29T02:30:00+02:00"))
    assert instant(stored["effectiveDateTime"]) == instant("2026-03-29T00:30:00Z")
