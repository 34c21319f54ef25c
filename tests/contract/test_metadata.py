"""What a server says of itself, and whether it is true. https://hl7.org/fhir/R4/capabilitystatement.html"""

import pytest

from tests.contract.differences import expected
from tests.contract.fhir import SYSTEM

pytestmark = pytest.mark.timeout(300)

USED = {
    "Patient": {"_id", "_lastUpdated"},
    "Encounter": {"_id", "_lastUpdated", "patient", "date", "status"},
    "Observation": {"_id", "_lastUpdated", "identifier", "patient", "code", "date"},
    "Condition": {"_id", "_lastUpdated", "patient", "code"},
    "Device": {"identifier"},
    "RiskAssessment": {"identifier", "patient"},
    "Subscription": {"url"},
}
"""What the sidecar searches by, by type."""


def test_it_is_a_capability_statement_of_an_r4_server_that_speaks_json(fhir):
    answer = fhir.get("metadata")
    statement = answer.json()
    assert answer.headers["Content-Type"].partition(";")[0] == "application/fhir+json"
    assert (statement["resourceType"], statement["kind"]) == ("CapabilityStatement", "instance")
    assert statement["fhirVersion"] == "4.0.1"
    assert {"application/fhir+json", "json"} & set(statement["format"])
    assert [r["mode"] for r in statement["rest"]] == ["server"]


def test_it_names_the_types_that_the_sidecar_uses(fhir):
    assert {t for t in USED if not fhir.declared(t)} == expected(fhir.server.name, "types it does not name")


@pytest.mark.parametrize("type_name", ["Patient", "Encounter", "Observation", "Condition", "Device"])
def test_each_of_them_can_be_created_read_updated_and_searched(fhir, type_name):
    interactions = {i["code"] for i in fhir.declared(type_name)["interaction"]}
    assert {"create", "read", "vread", "update", "search-type"} <= interactions


def test_it_names_the_parameters_that_the_sidecar_searches_by(fhir):
    (rest,) = fhir.statement()["rest"]
    everywhere = {p["name"] for p in rest.get("searchParam", [])}
    missing = {}
    for type_name, used in USED.items():
        if declared := fhir.declared(type_name):
            lacking = used - everywhere - {p["name"] for p in declared.get("searchParam", [])}
            missing |= {type_name: lacking} if lacking else {}
    assert missing == expected(fhir.server.name, "parameters it does not name")


@pytest.mark.parametrize("type_name", ["Device", "Observation", "RiskAssessment"])
def test_what_it_says_of_conditional_create_is_true(fhir, type_name):
    patient = fhir.made(fhir.patient())
    bodies = {
        "Device": fhir.device(fhir.key),
        "Observation": fhir.observation(patient["id"], identifier=[{"system": SYSTEM, "value": fhir.key}]),
        "RiskAssessment": fhir.risk(patient["id"], fhir.key),
    }
    condition = f"identifier={SYSTEM}%7C{fhir.key}"
    statuses = [fhir.send("POST", type_name, bodies[type_name], If_None_Exist=condition).status_code for _ in range(2)]
    declared = fhir.declared(type_name).get("conditionalCreate", False)
    assert declared == expected(fhir.server.name, f"conditionalCreate of {type_name}")
    assert statuses == expected(fhir.server.name, f"two conditional creates of {type_name}")
    if declared:
        assert statuses == [201, 200]


@pytest.mark.parametrize("type_name", ["Device", "Observation", "RiskAssessment"])
def test_what_it_says_of_put_as_create_is_true(fhir, type_name):
    patient = fhir.made(fhir.patient())
    bodies = {
        "Device": fhir.device(fhir.key),
        "Observation": fhir.observation(patient["id"]),
        "RiskAssessment": fhir.risk(patient["id"], fhir.key),
    }
    own = f"sc-{fhir.key}"
    status = fhir.send("PUT", f"{type_name}/{own}", bodies[type_name] | {"id": own}).status_code
    declared = fhir.declared(type_name).get("updateCreate", False)
    assert declared == expected(fhir.server.name, f"updateCreate of {type_name}")
    assert status == expected(fhir.server.name, "a PUT to an id that is not there")
    if declared:
        assert status == 201


def test_whether_it_tells_of_news_is_as_it_says(fhir):
    assert bool(fhir.declared("Subscription")) is fhir.server.tells
