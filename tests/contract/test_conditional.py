"""Conditional create: one resource for one identifier. https://hl7.org/fhir/R4/http.html#ccreate"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.differences import expected
from tests.contract.fhir import SYSTEM, located

pytestmark = pytest.mark.timeout(300)


def test_the_second_of_two_says_where_the_first_is_and_changes_nothing(fhir):
    condition = f"identifier={SYSTEM}%7C{fhir.key}"
    first = fhir.send("POST", "Device", fhir.device(fhir.key), If_None_Exist=condition)
    stored = fhir.read(f"Device/{located(first)}")
    other = fhir.device(fhir.key) | {"status": "inactive"}
    second = fhir.send("POST", "Device", other, If_None_Exist=condition)

    assert (first.status_code, second.status_code) == (201, 200)
    named = located(second) if "Location" in second.headers else second.json()["id"]
    assert named == stored["id"]
    assert fhir.read(f"Device/{stored['id']}") == stored


def test_of_many_at_once_one_comes_to_be(fhir):
    condition = f"identifier={SYSTEM}%7C{fhir.key}"

    def create(_: int) -> int:
        return fhir.send("POST", "Device", fhir.device(fhir.key), If_None_Exist=condition).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(create, range(16)))
    # A conflict is an answer that may be asked again; a second resource is not.
    assert set(statuses) <= {200, 201, 409, 412}
    assert statuses.count(201) == len(fhir.ids(f"Device?identifier={SYSTEM}|{fhir.key}"))
    may = expected(fhir.server.name, "how many many conditional creates at once make")
    assert statuses.count(201) in may


def test_where_there_are_two_already_it_says_so(fhir):
    for _ in range(2):
        fhir.made(fhir.device(fhir.key))
    answer = fhir.send("POST", "Device", fhir.device(fhir.key), If_None_Exist=f"identifier={SYSTEM}%7C{fhir.key}")
    assert answer.status_code == 412
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_put_to_an_id_of_ours_has_one_effect_however_often(fhir):
    own = f"sc-{fhir.key}"
    body = fhir.device(fhir.key) | {"id": own}
    statuses = [fhir.send("PUT", f"Device/{own}", body).status_code for _ in range(3)]
    assert statuses == expected(fhir.server.name, "three PUTs to an id that was not there")
    assert len(fhir.ids(f"Device?identifier={SYSTEM}|{fhir.key}")) == (0 if 404 in statuses else 1)


def test_a_transaction_happens_as_a_whole_or_not_at_all(fhir):
    (rest,) = fhir.statement()["rest"]
    declared = "transaction" in {i["code"] for i in rest.get("interaction", [])}
    assert declared is expected(fhir.server.name, "transactions are declared")
    entries = [
        {"resource": fhir.device(fhir.key), "request": {"method": "POST", "url": "Device"}},
        {"resource": {"resourceType": "Device", "status": 7}, "request": {"method": "POST", "url": "Device"}},
    ]
    answer = fhir.http.post(fhir.base_url, json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    whole = answer.status_code in {400, 405, 422} and fhir.ids(f"Device?identifier={SYSTEM}|{fhir.key}") == []
    assert whole is expected(fhir.server.name, "a transaction is whole or not at all")
