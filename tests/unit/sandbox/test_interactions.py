"""Create, read, update, delete: what a FHIR R4 server promises for one resource."""

import io
from datetime import timedelta

import pytest
from aiohttp import web

from sidecar.sandbox.ehr import Capabilities, PracticeEhr, Refusal


async def test_a_created_resource_is_read_back_as_sent_plus_id_and_meta(client, make):
    sent = make.observation(None)
    created = await client("POST", "Observation", sent)
    location = created.headers["Location"]
    logical_id = location.removeprefix(f"{client.ehr.base_url}/Observation/").partition("/")[0]
    read = await client("GET", f"Observation/{logical_id}")
    assert (created.status, read.status) == (201, 200)
    assert location == f"{client.ehr.base_url}/Observation/{logical_id}/_history/1"
    assert created.headers["ETag"] == read.headers["ETag"] == 'W/"1"'
    assert read.headers["Last-Modified"] == "Sun, 01 Mar 2026 12:00:00 GMT"
    assert read.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
    meta = {"versionId": "1", "lastUpdated": "2026-03-01T12:00:00.000Z"}
    assert read.body == {**sent, "id": logical_id, "meta": meta}


async def test_create_ignores_the_id_sent(client, ehr, make):
    await ehr.write(make.observation("mine"))
    created = await client("POST", "Observation", make.observation("mine"))
    assert created.body["id"] != "mine"
    assert len(ehr.all("Observation")) == 2


async def test_every_update_is_a_version_that_stays_readable(client, ehr, make):
    for family in ("A", "B", "C"):
        await client("PUT", "Patient/p1", make.patient(name=[{"family": family}]))
    old = await client("GET", "Patient/p1/_history/2")
    assert old.body["name"] == [{"family": "B"}]
    assert [each["name"][0]["family"] for each in ehr.history("Patient", "p1")] == ["A", "B", "C"]
    assert (await client("GET", "Patient/p1/_history/4")).status == 404


async def test_if_match_refuses_an_update_of_another_version(client, ehr, make):
    await ehr.write(make.patient())
    assert (await client("PUT", "Patient/p1", make.patient(), If_Match='W/"1"')).status == 200
    stale = await client("PUT", "Patient/p1", make.patient(active=True), If_Match='W/"1"')
    assert stale.status == 412
    assert "version 2" in stale.said
    assert "active" not in ehr.read("Patient", "p1")
    assert (await client("DELETE", "Patient/p1", If_Match='W/"1"')).status == 412
    assert (await client("PUT", "Patient/p1", make.patient(), If_Match="2")).status == 400


async def test_put_creates_where_clients_may_choose_ids(client, make):
    assert (await client("PUT", "Patient/p1", make.patient())).status == 201
    assert (await client("PUT", "Patient/p1", make.patient())).status == 200


async def test_put_to_an_unknown_id_is_405_where_ids_are_the_servers(connect, make):
    client = await connect(capabilities=Capabilities(update_create=False))
    refused = await client("PUT", "Patient/p1", make.patient())
    assert refused.status == 405
    assert client.ehr.all("Patient") == []
    await client.ehr.write(make.patient())
    assert (await client("PUT", "Patient/p1", make.patient(active=True))).status == 200


async def test_fifty_parallel_conditional_creates_make_one_resource(client, ehr, make, together):
    posts = [client("POST", "RiskAssessment", make.risk(), If_None_Exist="identifier=urn:score|k1") for _ in range(50)]
    replies = await together(*posts)
    assert len(ehr.all("RiskAssessment")) == 1
    assert sorted(reply.status for reply in replies) == [200] * 49 + [201]
    assert len({reply.body["id"] for reply in replies}) == 1


async def test_conditional_create_with_several_matches_is_412(client, ehr, make):
    await ehr.write(make.risk())
    await ehr.write(make.risk())
    assert (await client("POST", "RiskAssessment", make.risk(), If_None_Exist="identifier=urn:score|k1")).status == 412
    assert len(ehr.all("RiskAssessment")) == 2


async def test_a_server_without_conditional_create_ignores_the_header_and_duplicates(connect, make):
    client = await connect(capabilities=Capabilities(conditional_create=False))
    for _ in range(2):
        reply = await client("POST", "RiskAssessment", make.risk(), If_None_Exist="identifier=urn:score|k1")
        assert reply.status == 201
    assert len(client.ehr.all("RiskAssessment")) == 2


async def test_conditional_create_by_a_parameter_the_server_lacks_is_refused_not_guessed(connect, make):
    client = await connect(capabilities=Capabilities(identifier_search=False))
    reply = await client("POST", "RiskAssessment", make.risk(), If_None_Exist="identifier=urn:score|k1")
    assert reply.status == 400
    assert client.ehr.all("RiskAssessment") == []


async def test_deleted_is_410_then_can_be_put_again_as_the_next_version(client, ehr, make):
    await ehr.write(make.patient())
    assert (await client("DELETE", "Patient/p1")).status == 204
    assert (await client("DELETE", "Patient/p1")).status == 204
    assert (await client("GET", "Patient/p1")).status == 410
    assert (await client("GET", "Patient")).body["total"] == 0
    assert (await client("GET", "Patient/p1/_history/1")).status == 200
    assert (await client("GET", "Patient/p1/_history/2")).status == 410
    reborn = await client("PUT", "Patient/p1", make.patient())
    assert (reborn.status, reborn.headers["ETag"]) == (201, 'W/"3"')
    assert (await client("DELETE", "Patient/never")).status == 404


async def test_history_lists_versions_newest_first_deletions_too(client, ehr, make, clock):
    await ehr.write(make.patient())
    clock.advance(60)
    await ehr.write(make.patient(active=True))
    await ehr.remove("Patient", "p1")
    await ehr.write(make.patient("p2"))
    history = await client("GET", "Patient/p1/_history")
    assert history.body["type"] == "history"
    assert [entry["request"]["method"] for entry in history.body["entry"]] == ["DELETE", "PUT", "PUT"]
    assert "resource" not in history.body["entry"][0]
    since = (clock() - timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    recent = await client("GET", f"Patient/_history?_since={since}")
    assert [entry["fullUrl"].rpartition("/")[2] for entry in recent.body["entry"]] == ["p2", "p1", "p1"]


async def test_type_history_pages_visit_every_version_once(client, ehr, make):
    for _ in range(7):
        await ehr.write(make.patient())
    etags, url = [], "Patient/_history?_count=3"
    while url:
        page = await client("GET", url)
        etags += [entry["response"]["etag"] for entry in page.body["entry"]]
        url = page.link("next")
    assert etags == [f'W/"{n}"' for n in range(7, 0, -1)]


@pytest.mark.parametrize(
    ("prefer", "kind"),
    [
        ("return=minimal", None),
        ("return=representation", "Patient"),
        ("return=OperationOutcome", "OperationOutcome"),
    ],
)
async def test_prefer_decides_what_a_write_returns(client, make, prefer, kind):
    reply = await client("PUT", "Patient/p1", make.patient(), Prefer=prefer)
    assert reply.status == 201
    assert reply.headers["ETag"] == 'W/"1"'
    assert (reply.body["resourceType"] if reply.raw else None) == kind


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"status": "bogus"}, 422, "Observation.status"),
        ({"status": None}, 400, "Observation.status"),
        ({"colour": "red"}, 400, "Observation.colour"),
        ({"effectiveDateTime": "2026-02-31"}, 400, "Observation.effectiveDateTime"),
        ({"category": []}, 400, "Observation.category"),
        ({"valueQuantity": {"value": "80", "unit": "/min"}}, 400, "Observation.valueQuantity.value"),
        ({"valueQuantity": {"value": 80, "comparator": "~"}}, 422, "Observation.valueQuantity.comparator"),
        ({"resourceType": "Patient"}, 400, "resourceType"),
        ({"id": "other"}, 400, "o1"),
        ({"meta": {"tag": [{"code": "SUBSETTED"}]}}, 422, "SUBSETTED"),
    ],
)
async def test_an_invalid_resource_is_refused_and_the_outcome_names_the_element(client, make, change, status, named):
    reply = await client("PUT", "Observation/o1", {**make.observation(), **change})
    assert reply.status == status
    assert reply.body["resourceType"] == "OperationOutcome"
    assert named in reply.said
    assert client.ehr.all("Observation") == []


@pytest.mark.parametrize(
    ("prediction", "rule"),
    [
        ({"probabilityDecimal": 100.5}, "ras-2"),
        ({"probabilityRange": {"low": {"value": 1, "unit": "%"}}}, "ras-1"),
    ],
)
async def test_a_risk_above_a_hundred_per_cent_breaks_an_invariant(client, make, prediction, rule):
    refused = await client("POST", "RiskAssessment", make.risk(prediction=[prediction]))
    assert refused.status == 422
    assert rule in refused.said
    assert (await client("POST", "RiskAssessment", make.risk(prediction=[{"probabilityDecimal": 100}]))).status == 201


async def test_what_is_not_fhir_json_is_refused(client, make):
    assert (await client("POST", "Patient", b"<Patient/>", Content_Type="application/fhir+xml")).status == 415
    assert (await client("POST", "Patient", b"{", Content_Type="application/fhir+json")).status == 400
    assert (await client("POST", "Patient", b"[]", Content_Type="application/fhir+json")).status == 400
    assert (await client("GET", "Patient", Accept="application/fhir+xml")).status == 406
    assert (await client("GET", "Patient?_format=xml")).status == 406


async def test_bodies_are_limited_in_size_and_depth(client):
    large = b'{"resourceType":"Patient","id":"' + b"x" * (10 * 1024 * 1024) + b'"}'
    refused = await client("POST", "Patient", io.BytesIO(large), Content_Type="application/fhir+json")
    assert (refused.status, refused.body["issue"][0]["code"]) == (413, "too-long")
    deep = b'{"extension":[' * 40 + b"{}" + b"]}" * 40
    refused = await client("POST", "Patient", deep, Content_Type="application/fhir+json")
    assert refused.status == 400
    assert "deeper" in refused.said


async def test_unknown_types_paths_and_methods_are_refused_with_an_outcome(client):
    for method, path, status in [
        ("GET", "Basic/1", 404),
        ("GET", "Patient/none", 404),
        ("GET", "a/b/c/d/e", 404),
        ("PATCH", "Patient/1", 405),
        ("PUT", "Patient", 405),
    ]:
        reply = await client(method, path)
        assert (path, reply.status, reply.body["resourceType"]) == (path, status, "OperationOutcome")


async def test_a_type_left_out_is_not_there_at_all(connect, make):
    client = await connect(capabilities=Capabilities(types=frozenset({"Patient", "Observation"})))
    assert (await client("POST", "RiskAssessment", make.risk())).status == 404
    assert (await client("GET", "RiskAssessment")).status == 404
    with pytest.raises(Refusal):
        await client.ehr.write(make.risk())


async def test_what_the_caller_gave_or_got_is_its_own_to_change(ehr, make):
    mine = make.patient(name=[{"family": "A"}])
    returned = await ehr.write(mine)
    mine["name"][0]["family"] = returned["name"][0]["family"] = "B"
    ehr.read("Patient", "p1")["name"][0]["family"] = "C"
    assert ehr.read("Patient", "p1")["name"] == [{"family": "A"}]


async def test_bulk_loading_may_skip_validation(ehr, make):
    with pytest.raises(Refusal):
        await ehr.write(make.observation(status="bogus"))
    assert (await ehr.write(make.observation(status="bogus"), validate=False))["status"] == "bogus"


async def test_requests_are_counted_by_method_and_shape(client, ehr, make):
    await client("PUT", "Patient/p1", make.patient())
    await client("GET", "Patient/p1")
    await client("GET", "Patient/p1/_history/1")
    await client("GET", "Patient?_id=p1")
    await client("GET", "metadata")
    assert dict(ehr.requests) == {
        ("PUT", "Patient/{id}"): 1,
        ("GET", "Patient/{id}"): 1,
        ("GET", "Patient/{id}/_history/{vid}"): 1,
        ("GET", "Patient"): 1,
        ("GET", "metadata"): 1,
    }
    ehr.requests.clear()
    assert ehr.requests.total() == 0


async def test_it_listens_on_loopback_only():
    with pytest.raises(ValueError, match="loopback"):
        await PracticeEhr().start(host="0.0.0.0")


async def test_pages_of_others_are_served_outside_the_gate(client):
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="ward")

    await client.ehr.stop()
    client.ehr.add_page("/ward", page)
    await client.ehr.start()
    client.ehr.faults.down = True
    reply = await client("GET", client.ehr.base_url.removesuffix("/fhir") + "/ward")
    assert reply.raw == b"ward"
