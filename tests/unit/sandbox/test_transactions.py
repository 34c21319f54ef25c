"""POST [base]: a transaction is all or nothing, a batch is each for itself."""

import pytest

from sidecar.sandbox.ehr import Capabilities

DEVICE = "urn:uuid:0f0c6a38-8b1c-4b0d-9d5c-000000000001"
RISK = "urn:uuid:0f0c6a38-8b1c-4b0d-9d5c-000000000002"


def _bundle(*entries, kind="transaction"):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def _entry(method, url, resource=None, full_url=None, **request):
    entry = {"request": {"method": method, "url": url, **request}}
    if resource:
        entry["resource"] = resource
    return entry | ({"fullUrl": full_url} if full_url else {})


def _device_and_risk(make):
    device = {"resourceType": "Device", "identifier": [{"system": "urn:model", "value": "m1"}]}
    risk = make.risk(performer={"reference": DEVICE}, basis=[{"reference": "Observation/o1/_history/1"}])
    return _bundle(
        _entry("POST", "RiskAssessment", risk, RISK, ifNoneExist="identifier=urn:score|k1"),
        _entry("POST", "Device", device, DEVICE, ifNoneExist="identifier=urn:model|m1"),
    )


async def test_references_to_entries_become_references_to_what_they_created(client, ehr, make):
    reply = await client("POST", "", _device_and_risk(make))
    assert (reply.status, reply.body["type"]) == (200, "transaction-response")
    (device,), (risk,) = ehr.all("Device"), ehr.all("RiskAssessment")
    assert risk["performer"] == {"reference": f"Device/{device['id']}"}
    assert risk["basis"] == [{"reference": "Observation/o1/_history/1"}]
    responses = [entry["response"] for entry in reply.body["entry"]]
    assert [response["status"] for response in responses] == ["201 Created", "201 Created"]
    assert responses[0]["location"] == f"RiskAssessment/{risk['id']}/_history/1"


async def test_repeated_with_if_none_exist_it_creates_nothing(client, ehr, make):
    for _ in range(2):
        reply = await client("POST", "", _device_and_risk(make))
    assert [entry["response"]["status"] for entry in reply.body["entry"]] == ["200 OK", "200 OK"]
    assert (len(ehr.all("Device")), len(ehr.all("RiskAssessment"))) == (1, 1)
    assert len(ehr.history("RiskAssessment", ehr.all("RiskAssessment")[0]["id"])) == 1


async def test_a_new_resource_may_refer_to_one_that_already_existed(client, ehr, make):
    await client("POST", "", _device_and_risk(make))
    again = _device_and_risk(make)
    again["entry"][0] = _entry("POST", "RiskAssessment", make.risk("k2", performer={"reference": DEVICE}), RISK)
    await client("POST", "", again)
    (device,) = ehr.all("Device")
    assert {risk["performer"]["reference"] for risk in ehr.all("RiskAssessment")} == {f"Device/{device['id']}"}


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_one_bad_entry_anywhere_undoes_all_and_is_named(client, ehr, make, position):
    await ehr.write(make.patient("old"))
    await ehr.write(make.patient("kept"))
    good = [_entry("PUT", "Patient/kept", make.patient("kept", active=True)), _entry("DELETE", "Patient/old")]
    good.insert(position, _entry("PUT", "Observation/o1", make.observation(status="bogus")))
    reply = await client("POST", "", _bundle(*good))
    assert reply.status == 422
    assert reply.body["issue"][0]["expression"] == [f"Bundle.entry[{position}]"]
    assert [patient["id"] for patient in ehr.all("Patient")] == ["old", "kept"]
    assert len(ehr.history("Patient", "kept")) == 1
    assert (await client("GET", "Observation?_id=o1")).ids == []


async def test_a_failed_transaction_leaves_the_indexes_as_they_were(client, ehr, make):
    await ehr.write(make.observation("o1"))
    moved = make.observation("o1", subject={"reference": "Patient/p2"})
    bad = _bundle(_entry("PUT", "Observation/o1", moved), _entry("PUT", "Observation/o2", make.observation("o3")))
    assert (await client("POST", "", bad)).status == 400
    assert (await client("GET", "Observation?patient=p1")).ids == ["o1"]
    assert (await client("GET", "Observation?patient=p2")).ids == []


async def test_if_match_in_an_entry_guards_the_whole(client, ehr, make):
    await ehr.write(make.patient())
    stale = _bundle(
        _entry("PUT", "Patient/p1", make.patient(active=True), ifMatch='W/"7"'),
        _entry("POST", "Observation", make.observation(None)),
    )
    assert (await client("POST", "", stale)).status == 412
    assert ehr.all("Observation") == []
    stale["entry"][0]["request"]["ifMatch"] = 'W/"1"'
    assert (await client("POST", "", stale)).status == 200


async def test_a_reference_to_no_entry_or_by_condition_is_refused(client, ehr, make):
    for reference in (DEVICE, "Device?identifier=m1"):
        bad = _bundle(_entry("POST", "RiskAssessment", make.risk(performer={"reference": reference})))
        assert (await client("POST", "", bad)).status == 400
    assert ehr.all("RiskAssessment") == []


async def test_two_entries_for_one_resource_are_refused(client, ehr, make):
    twice = _bundle(*[_entry("PUT", "Patient/p1", make.patient())] * 2)
    assert (await client("POST", "", twice)).status == 400
    device = _device_and_risk(make)["entry"][1]
    assert (await client("POST", "", _bundle(device, device))).status == 400
    assert ehr.all("Patient") == ehr.all("Device") == []


async def test_a_batch_does_what_it_can(client, ehr, make):
    await ehr.write(make.patient("p2"))
    reply = await client(
        "POST",
        "",
        _bundle(
            _entry("PUT", "Observation/o1", make.observation(status="bogus")),
            _entry("PUT", "Patient/p1", make.patient()),
            _entry("GET", "Patient?_id=p2"),
            _entry("GET", "Patient/p2"),
            _entry("GET", "Patient/none"),
            kind="batch",
        ),
    )
    entries = reply.body["entry"]
    assert [entry["response"]["status"] for entry in entries] == [
        "422",
        "201 Created",
        "200 OK",
        "200 OK",
        "404",
    ]
    assert entries[0]["response"]["outcome"]["resourceType"] == "OperationOutcome"
    assert entries[2]["resource"]["total"] == 1
    assert entries[3]["resource"]["id"] == "p2"
    assert [patient["id"] for patient in ehr.all("Patient")] == ["p2", "p1"]


async def test_written_resources_come_back_only_when_preferred(client, make):
    bundle = _bundle(_entry("PUT", "Patient/p1", make.patient()))
    assert "resource" not in (await client("POST", "", bundle)).body["entry"][0]
    reply = await client("POST", "", bundle, Prefer="return=representation")
    assert reply.body["entry"][0]["resource"]["meta"]["versionId"] == "2"


async def test_a_server_may_take_batches_but_no_transactions(connect, make):
    client = await connect(capabilities=Capabilities(transaction=False))
    entry = _entry("PUT", "Patient/p1", make.patient())
    assert (await client("POST", "", _bundle(entry))).status == 405
    assert client.ehr.all("Patient") == []
    assert (await client("POST", "", _bundle(entry, kind="batch"))).status == 200
    assert (await client("POST", "", _bundle(entry, kind="collection"))).status == 400


async def test_ids_are_the_servers_inside_a_transaction_too(connect, make):
    client = await connect(capabilities=Capabilities(update_create=False))
    assert (await client("POST", "", _bundle(_entry("PUT", "Patient/p1", make.patient())))).status == 405


async def test_subscribers_hear_of_a_transaction_only_if_it_held(client, subscribe, receiver, make):
    await subscribe()
    good, bad = (
        _entry("PUT", "Observation/o1", make.observation()),
        _entry("PUT", "Observation/o2", make.patient()),
    )
    await client("POST", "", _bundle(good, bad))
    await client.ehr.quiet(5)
    assert receiver.seen == []
    await client("POST", "", _bundle(good))
    await client.ehr.quiet(5)
    assert receiver.ids == ["o1"]
