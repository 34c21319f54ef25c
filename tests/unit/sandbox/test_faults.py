"""Faults on request, each exactly as often as planned, and the outage an EHR comes back from."""

import asyncio

import aiohttp
import pytest


async def test_429_says_when_to_come_back_and_writes_nothing(client, ehr, make):
    ehr.faults.fail_next(2, 429, retry_after_s=1.2, only="POST RiskAssessment")
    assert (await client("PUT", "Patient/p1", make.patient())).status == 201
    for _ in range(2):
        reply = await client("POST", "RiskAssessment", make.risk())
        assert (reply.status, reply.headers["Retry-After"]) == (429, "2")
        assert reply.body["issue"][0]["code"] == "throttled"
    assert ehr.all("RiskAssessment") == []
    assert (await client("POST", "RiskAssessment", make.risk())).status == 201


async def test_503_without_retry_after_has_no_such_header(client, ehr):
    ehr.faults.fail_next(1, 503)
    reply = await client("GET", "metadata")
    assert reply.status == 503
    assert "Retry-After" not in reply.headers


async def test_a_cut_request_wrote_nothing_a_dropped_reply_did(client, ehr, make):
    ehr.faults.cut_next(1)
    with pytest.raises(aiohttp.ClientError):
        await client("POST", "RiskAssessment", make.risk())
    assert ehr.all("RiskAssessment") == []
    ehr.faults.drop_reply_next(1, only="POST RiskAssessment")
    assert (await client("GET", "RiskAssessment")).ids == []
    with pytest.raises(aiohttp.ClientError):
        await client("POST", "RiskAssessment", make.risk())
    assert len(ehr.all("RiskAssessment")) == 1
    assert (await client("GET", "RiskAssessment")).status == 200


async def test_down_answers_nobody_and_is_back_at_once(client, ehr):
    ehr.faults.down = True
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await client("GET", "metadata")
    ehr.faults.clear()
    assert (await client("GET", "metadata")).status == 200


async def test_stopped_and_started_it_has_its_port_and_contents_again(client, ehr, make):
    await client("PUT", "Patient/p1", make.patient())
    for n in range(3):
        await ehr.write(make.observation(f"o{n}"))
    next_page = (await client("GET", "Observation?_count=2")).link("next")
    before = ehr.base_url
    await ehr.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client("GET", "Patient/p1")
    await ehr.start()
    assert ehr.base_url == before
    assert (await client("GET", "Patient/p1")).status == 200
    assert (await client("GET", next_page)).ids == ["o2"]


async def test_delay_holds_every_request(client, ehr):
    ehr.faults.delay_s = 30.0
    request = asyncio.create_task(client("GET", "metadata"))
    done, _ = await asyncio.wait([request], timeout=0.1)
    assert done == set()
    request.cancel()
    ehr.faults.delay_s = 0.0
    assert (await client("GET", "metadata")).status == 200


async def test_clear_forgets_what_was_planned(client, ehr):
    ehr.faults.fail_next(5, 500)
    ehr.faults.cut_next(5)
    ehr.faults.clear()
    assert (await client("GET", "metadata")).status == 200


async def test_faults_reach_the_token_endpoint_only_by_name(client, ehr):
    ehr.faults.fail_next(1, 503, only="POST token")
    assert (await client("POST", "Patient", {"resourceType": "Patient"})).status == 201
    token = await client("POST", ehr.base_url.removesuffix("/fhir") + "/token", b"")
    assert token.status == 503
