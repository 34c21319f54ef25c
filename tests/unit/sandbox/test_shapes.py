"""What the practice EHR says is itself valid FHIR."""

from fhir.resources.R4B import get_fhir_model_class


async def test_bundles_and_outcomes_validate_as_r4b(client, ehr, make):
    await ehr.write(make.patient())
    await ehr.write(make.observation())
    await ehr.write(make.observation("o2"))
    await ehr.remove("Observation", "o2")
    transaction = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "PUT", "url": "Patient/p1"}, "resource": make.patient()},
            {"request": {"method": "DELETE", "url": "Observation/none"}},
        ],
    }
    said = [
        await client("GET", "Observation?_include=Observation:patient&_elements=code"),
        await client("GET", "Observation?_summary=count"),
        await client("GET", "Observation?patient=nobody"),
        await client("GET", "Observation/o2/_history"),
        await client("GET", "Observation/_history?_count=1"),
        await client("GET", "Observation/o2"),
        await client("POST", "", {**transaction, "type": "batch"}),
        await client("POST", "", transaction),
    ]
    for reply in said:
        get_fhir_model_class(reply.body["resourceType"]).model_validate(reply.body)
    assert [reply.status for reply in said] == [200, 200, 200, 200, 200, 410, 200, 404]


async def test_a_request_id_comes_back(client):
    assert (await client("GET", "Patient", X_Request_Id="r-1")).headers["X-Request-Id"] == "r-1"
